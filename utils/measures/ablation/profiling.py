"""Functional sparsity: what happens to a network's answers as its units are removed in order."""

from collections.abc import Iterable, Mapping

import numpy as np
from torch import Tensor, nn
from tqdm import tqdm

from ...probes import Ablator
from .conditions import PLACE, Key, Removal
from .curves import FIXED
from .outcomes import Batches, Others, Outcome, affordable, outcomes, ready
from .profile import AblationProfile
from .units import Named, Replacement, fixed_scores, mean_responses, units_of


def ablation_profile(
    model: nn.Module,
    batches: Batches,
    layers: str | Iterable[str],
    unit: str = "attention",
    value: Replacement = "zero",
    order: str = "response",
    *,
    ranks: int = 33,
    draws: int = 8,
    matched_draws: int | None = None,
    place_draws: int = 0,
    fixed: Iterable[str] = (),
    groups: int | None = None,
    seed: int = 0,
    ablator: Ablator | None = None,
    means: Mapping[str, Tensor] | None = None,
    others: Others | None = None,
) -> AblationProfile:
    """Remove the units of some layers together, from the strongest down and in other orders.

    Units are ordered by the intact pass, each layer by itself. In attention as many keys are
    removed in each head, by its own response; class → class and registers are untouched. Source:
    hu2023comparative, reconstructed. Chapter 5.1.

    Args:
        model: Any network that Ablator takes, in eval mode.
        batches: (images [b, 3, h, w], labels [b], index [b]) each, with the global indices of the
            images.
        layers: Glob or globs, the scope.
        unit: As for `ablation.units.units_of`.
        value: "zero", "mean", "renormalise" or "resample", what another image has. "mean" needs an
            `ablator` that has the means, or batches that can be gone through twice; so does
            "resample" unless `others` is given.
        order: As for `ablation.units.units_of`, or one of FIXED.
        ranks: Largest number of points on a curve.
        draws: Number of nested random orders, keyed by (seed, index, draw).
        matched_draws: Number of those matched in mass, for attention only; as many as `draws` if
            None.
        place_draws: How often, for attention, the weights of the patches are permuted in each head,
            with the same keys; if any, the same mass is also spread evenly over them. Nothing is
            removed. In several layers the weights that the changed pass comes to are moved.
        fixed: Orders of the same units for all images, to be removed as well. "centre", the middle
            of the grid first; "mean map", by the mean response over images, each layer's own.
        groups: As for `ablation.units.units_of`.
        seed: Of everything that is drawn.
        ablator: Of the model, with its means and memory; a new one if None.
        means: For "mean map", from `mean_responses`, preferably of many, or of other, images: in
            the mean of a few, each image meets itself. If None they are of the batches, which are
            then gone through twice.
        others: Gives other images for "resample", indices [b] → [b, 3, h, w].

    Returns:
        The AblationProfile of all images.

    Raises:
        ValueError: For batches without images, options that do not go together, and as Ablator.

    Example:
        >>> import torch
        >>> from utils.measures.ablation import ablation_profile
        >>> from utils.models import zoo
        >>> from utils.stimuli import objects
        >>> stimuli = objects.load(n=8)
        >>> batches = [(stimuli.images, stimuli.labels, torch.arange(8))]
        >>> model, few = zoo.load("vit-d6-h4"), {"ranks": 5, "draws": 1}
        >>> profile = ablation_profile(model, batches, "blocks.5.attn", **few)
        >>> profile.n, profile.ranks.tolist(), profile.kl["top"].shape
        (64, [0, 13, 32, 51, 64], (1, 8, 5))
    """
    fixed = tuple(dict.fromkeys(fixed))
    if unknown := [name for name in fixed if name not in FIXED]:
        raise ValueError(f"There is no fixed order {unknown[0]!r}; choose of {', '.join(FIXED)}.")
    if draws < 1:
        raise ValueError(
            f"The strongest are compared with random units: give draws=1, not {draws}."
        )
    if place_draws and unit != "attention":
        raise ValueError(f"Only attention weights can be put elsewhere, not {unit!r}.")
    own = "response" if order in FIXED else order
    units = units_of(model, layers, unit, own, groups, seed)
    ablator = ablator or Ablator(model)
    batches, others = ready(value, units.layers, batches, ablator, others, seed)
    if "mean map" in (order, *fixed) and means is None:
        batches = list(batches)
        means = mean_responses(units, batches)
    if matched_draws is None:
        matched_draws = draws
    matched_draws = matched_draws if unit == "attention" else 0
    about = {
        "layers": list(units.layers),
        "unit": unit,
        "value": value,
        "order": order,
        "groups": groups,
        "draws": draws,
        "place_draws": place_draws,
        "fixed": fixed,
        "seed": seed,
    }
    parts = []
    minibatches = tqdm(batches, "ablation profile", disable=None, leave=False)
    for images, labels, index in affordable(units, minibatches, ablator):
        responses = units.read(images)
        same = {
            name: fixed_scores(units, responses, name, means)
            for name in FIXED
            if name in (order, *fixed)
        }
        if order in same:
            responses = {
                layer: found._replace(scores=same[order][layer].expand_as(found.mass))
                for layer, found in responses.items()
            }
        held: Named | Mapping[str, Tensor]
        if value == "resample":
            assert others is not None  # `ready` has found them
            held = units.held(others(index).to(images))
        else:
            held = value
        index = index.to(images.device)
        run = Removal(
            responses, units, held, index, seed, ranks, {name: same[name] for name in fixed}
        )
        conditions = run.conditions(draws, matched_draws, place_draws)
        keys, outcome = outcomes(ablator, images, labels, conditions)
        parts.append(_profile(run, keys, outcome, labels, about))
    if not parts:
        raise ValueError("There is nothing to profile: the batches hold no images.")
    return AblationProfile.merged(parts)


def _profile(
    run: Removal, keys: list[Key], outcome: Outcome, labels: Tensor, about: dict
) -> AblationProfile:
    """Put outcomes [1 + conditions, batch], the intact one first, into tables."""
    images, last = len(run.index), len(run.ranks) - 1
    margins = {name: np.zeros((images, 3), np.float32) for name in ("removed", "kept")}
    draws = {order: draw + 1 for order, draw, _ in sorted(keys) if order not in margins}
    tables, place = {}, {}
    for name in ("kl", "right", "margin"):
        intact, *rows = getattr(outcome, name)
        table = {o: np.empty((draws[o], images, last + 1), np.float32) for o in draws}
        for (order, draw, at), row in zip(keys, rows, strict=True):
            if order in table:
                table[order][draw, :, at] = row
            elif name == "margin":
                margins[order][:, at] = row
        place[name] = {o: table.pop(o)[:, :, 0] for o in PLACE if o in table}
        for each in table.values():
            each[:, :, 0], each[:, :, last] = intact, table["top"][0, :, last]
        tables[name] = table
    masses = {
        order: np.stack([run.masses[order, draw].numpy(force=True) for draw in range(draws[order])])
        for order in tables["kl"]
    }
    return AblationProfile(
        ranks=run.ranks,
        n=run.n,
        chance=1 / outcome.classes,
        index=run.index.numpy(force=True),
        labels=labels.numpy(force=True),
        **tables,
        mass={order: mass.astype(np.float32) for order, mass in masses.items()},
        place=place,
        overlap_removed=margins["removed"],
        overlap_kept=margins["kept"],
        scores=run.mean_scores().numpy(force=True),
        about=about,
    )
