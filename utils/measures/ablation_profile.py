"""Functional sparsity: what happens to a network's answers as its units are removed in order."""

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor, nn
from tqdm import tqdm

from utils.measures.ablation_conditions import Key, Minibatch
from utils.measures.ablation_tables import AblationProfile
from utils.measures.ablation_units import Units, units_of
from utils.measures.vector_measures import float64
from utils.probes import AblationSpec, Ablator
from utils.probes.footprint import tensor_bytes

CONDITIONS_AT_ONCE = 64  # so that logits of a thousand classes stay small
Batches = Iterable[tuple[Tensor, Tensor, Tensor]]


class Outcome(NamedTuple):
    """Per condition and image [conditions, batch]: KL in nats, right or wrong, margin in nats."""

    kl: np.ndarray
    right: np.ndarray
    margin: np.ndarray
    classes: int


def ablation_profile(
    model: nn.Module,
    batches: Batches,
    layers: str | Iterable[str],
    unit: str = "attention",
    value: str = "zero",
    order: str = "response",
    *,
    ranks: int = 33,
    draws: int = 8,
    matched_draws: int | None = None,
    leave_one_out: int = 0,
    groups: int | None = None,
    temperature: float = 1.0,
    seed: int = 0,
    ablator: Ablator | None = None,
) -> AblationProfile:
    """Remove the units of some layers, all layers together, from the strongest and otherwise.

    batches : (images [b, 3, h, w], labels [b], index [b]), the global indices of the images
    layers : glob or globs: the scope. Units are ordered by the intact pass, each layer by itself
    unit, order, groups : see `ablation_units.units_of`
    value : "zero", "mean" or "renormalise"; for "mean" an `ablator` that has the means, or batches
        that can be gone through twice
    ranks : at most so many numbers of removed units; draws : nested random orders, keyed by (seed,
        index, draw); matched_draws : those matched in mass (as many if None; attention only)
    leave_one_out : measure alignment and concentration on images with an index below that
    temperature : divides all logits first, see `matching_temperature`

    Attention: as many keys are removed in each head, by its own response; class → class and
    registers are untouched. Raises ValueError for batches without images and what Ablator raises.
    Source: hu2023comparative, reconstructed. Chapter 5.1.
    """
    units = units_of(model, layers, unit, order, groups, seed)
    ablator = ablator or Ablator(model)
    if value == "mean" and any(layer not in ablator.means for layer in units.layers):
        batches = list(batches)
        ablator.fit_means((images for images, *_ in batches), units.layers)
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
        "temperature": temperature,
        "seed": seed,
    }
    parts = []
    minibatches = tqdm(batches, "ablation profile", disable=None, leave=False)
    for images, labels, index in _affordable(units, minibatches, ablator):
        run = Minibatch(units.read(images), units, value, index.to(images.device), seed, ranks)
        keys, outcome = _outcomes(
            ablator, images, labels, run.conditions(draws, matched_draws), temperature
        )
        parts.append(_profile(run, keys, outcome, labels, about))
        if (chosen := index < leave_one_out).any():
            each = run.of(chosen.to(images.device)).singles()
            _, alone = _outcomes(ablator, images[chosen], labels[chosen], each, temperature)
            parts[-1].alone[chosen.numpy(force=True)] = alone.kl[1:].T
    if not parts:
        raise ValueError("There is nothing to profile: the batches hold no images.")
    return AblationProfile.merged(parts)


def matching_temperature(logits: Tensor, confidence: float) -> float:
    """The temperature at which logits [images, classes] have that mean largest probability.

    By it, networks are compared at equal confidence. ValueError for a confidence that no
    temperature gives: it lies above chance and below 1. Chapter 5.1.
    """
    if not 1 / logits.shape[-1] < confidence < 1:
        raise ValueError(f"No temperature gives a mean confidence of {confidence}.")

    def excess(log_temperature: float) -> float:
        p = (float64(logits) / math.exp(log_temperature)).softmax(-1)
        return float(p.amax(-1).mean()) - confidence

    return math.exp(brentq(excess, -20, 20))


def _affordable(units: Units, batches: Batches, ablator: Ablator) -> Iterator[tuple]:
    """Minibatches in parts so small that the sets of many conditions fit into memory together."""
    of_one = 0  # bytes of one image's sets in all layers
    for images, *rest in batches:
        of_one = of_one or sum(
            tensor_bytes([spec.keys, spec.channels, spec.units])
            for layer, found in units.read(images[:1]).items()
            for spec in [units.spec(layer, torch.zeros_like(found.scores), "zero")]
        )
        size = max(1, ablator.available(images.device) // (CONDITIONS_AT_ONCE * of_one))
        yield from zip(*(each.split(size) for each in (images, *rest)), strict=True)


def _outcomes(
    ablator: Ablator,
    images: Tensor,
    labels: Tensor,
    conditions: Iterable[tuple[Key, list[AblationSpec]]],
    temperature: float,
) -> tuple[list[Key], Outcome]:
    """The keys of the conditions, and what each did; the intact network's outcome comes first."""
    conditions = iter(conditions)
    keys, parts = [], []
    while some := list(islice(conditions, CONDITIONS_AT_ONCE)):
        intact, ablated = ablator.run(images, [specs for _, specs in some], intact=True)
        if not parts:
            parts.append(_compare(intact, intact[None], labels, temperature))
        parts.append(_compare(intact, ablated, labels, temperature))
        keys += [key for key, _ in some]
    tables = (np.concatenate(each) for each in list(zip(*parts, strict=True))[:3])
    return keys, Outcome(*tables, parts[0].classes)


def _compare(intact: Tensor, ablated: Tensor, labels: Tensor, temperature: float) -> Outcome:
    """Logits [batch, classes] and [conditions, batch, classes]."""
    p, q = (float64(x / temperature).log_softmax(-1) for x in (intact, ablated))
    labels = labels.to(q.device)
    kl = (p.exp() * (p - q)).sum(-1).clamp(min=0)
    own = q.gather(-1, labels.expand(len(q), -1).unsqueeze(-1))
    others = q.scatter(-1, labels.expand(len(q), -1).unsqueeze(-1), -math.inf).logsumexp(-1)
    right = q.argmax(-1) == labels
    numbers = (x.numpy(force=True) for x in (kl, right, own.squeeze(-1) - others))
    return Outcome(*numbers, q.shape[-1])


def _profile(
    run: Minibatch, keys: list[Key], outcome: Outcome, labels: Tensor, about: dict
) -> AblationProfile:
    """Put outcomes [1 + conditions, batch], the intact one first, into tables."""
    images, last = len(run.index), len(run.ranks) - 1
    margins = {name: np.zeros((images, 3), np.float32) for name in ("removed", "kept")}
    draws = {order: draw + 1 for order, draw, _ in sorted(keys) if order not in margins}
    tables = {}
    for name in ("kl", "right", "margin"):
        intact, *rows = getattr(outcome, name)
        table = {o: np.empty((draws[o], images, last + 1), np.float32) for o in draws}
        for (order, draw, at), row in zip(keys, rows, strict=True):
            if order in table:
                table[order][draw, :, at] = row
            elif name == "margin":
                margins[order][:, at] = row
        for each in table.values():
            each[:, :, 0], each[:, :, last] = intact, table["top"][0, :, last]
        tables[name] = table
    return AblationProfile(
        ranks=run.ranks,
        n=run.n,
        chance=1 / outcome.classes,
        index=run.index.numpy(force=True),
        labels=labels.numpy(force=True),
        **tables,
        overlap_removed=margins["removed"],
        overlap_kept=margins["kept"],
        alone=np.full((images, run.n), np.nan, np.float32),
        scores=run.mean_scores().numpy(force=True),
        about=about,
    )
