"""Functional sparsity: what happens to a network's answers as its units are removed in order.

Longer than two screens: one class runs the conditions, the other holds what they gave.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from scipy.optimize import brentq
from scipy.stats import rankdata
from torch import Tensor, nn

from utils.measures import ablation_curves
from utils.measures.ablation_curves import ABOVE_CHANCE, FRACTIONS, NO_RELIANCE, at_fraction
from utils.measures.ablation_units import Responses, Units, units_of
from utils.measures.vector_measures import float64, gini
from utils.probes import AblationSpec, Ablator, keyed_orders, mass_matched, uniform_shrink

CONDITIONS_AT_ONCE = 64  # so that logits of a thousand classes stay small
OVERLAP_AT = 0.2  # of the units, the strongest: what is split into the sets A and B
Batches = Iterable[tuple[Tensor, Tensor, Tensor]]


class Outcome(NamedTuple):
    """Per condition and image [conditions, batch]: KL in nats, right or wrong, margin in nats."""

    kl: np.ndarray
    right: np.ndarray
    margin: np.ndarray
    classes: int


@dataclass
class AblationProfile:
    """What removing units did to each image; parts of different images can be `merged`.

    `ranks` [ranks] of `n` units; `index`, `labels` [images]. `kl`, `right`, `margin`: order →
    [draws, images, ranks], float32: KL(intact ‖ ablated) in nats, whether the answer was right, and
    the log-odds of the true class in nats. Orders: "top", "bottom", "random", and for attention
    "matched" (random, of the mass of the top set) and "shrink" (all units alike, by that mass).
    `overlap_removed`, `overlap_kept` [images, 3]: margins with the sets A, B and both removed, or
    alone kept. `alone` [images, n]: KL of leaving one unit out, NaN where not measured; `scores`
    [images, n]: the responses that decided the order. Images are sorted by index.
    """

    ranks: np.ndarray
    n: int
    chance: float
    index: np.ndarray
    labels: np.ndarray
    kl: dict[str, np.ndarray]
    right: dict[str, np.ndarray]
    margin: dict[str, np.ndarray]
    overlap_removed: np.ndarray
    overlap_kept: np.ndarray
    alone: np.ndarray
    scores: np.ndarray
    about: dict = field(default_factory=dict)

    @classmethod
    def merged(cls, parts: Sequence["AblationProfile"]) -> "AblationProfile":
        """One profile of all images, from those of minibatches or ranks; ValueError if they differ
        in anything but images, or share an image."""
        first = parts[0]
        for part in parts:
            if part.about != first.about or part.ranks.tolist() != first.ranks.tolist():
                raise ValueError("Profiles of different conditions cannot be merged.")
        index = np.concatenate([part.index for part in parts])
        if len(np.unique(index)) < len(index):
            raise ValueError("The profiles share images: each image may be in one of them only.")
        order = np.argsort(index)

        def images_first(name: str) -> np.ndarray:
            return np.concatenate([getattr(part, name) for part in parts])[order]

        def tables(name: str) -> dict[str, np.ndarray]:
            each = [getattr(part, name) for part in parts]
            return {key: np.concatenate([t[key] for t in each], 1)[:, order] for key in each[0]}

        whole = ("labels", "overlap_removed", "overlap_kept", "alone", "scores")
        return cls(
            ranks=first.ranks,
            n=first.n,
            chance=first.chance,
            index=index[order],
            **{name: images_first(name) for name in whole},
            **{name: tables(name) for name in ("kl", "right", "margin")},
            about=first.about,
        )

    @property
    def fractions(self) -> np.ndarray:
        """The share of the units that each rank removes [ranks]."""
        return self.ranks / self.n

    def table(self) -> pd.DataFrame:
        """The curves, tidy: order, k, fraction; mean KL in nats, accuracy, margin in nats."""
        columns = {"kl": self.kl, "accuracy": self.right, "margin": self.margin}
        parts = []
        for order in self.kl:
            means = {name: tables[order].mean((0, 1)) for name, tables in columns.items()}
            parts.append(pd.DataFrame({"k": self.ranks, "fraction": self.fractions, **means}))
            parts[-1].insert(0, "order", order)
        return pd.concat(parts, ignore_index=True)

    def per_class(self, fraction: float = 0.2) -> pd.DataFrame:
        """Of each class: images, intact accuracy, and accuracy with the top and with as many random
        units removed (the rank nearest to `fraction`)."""
        at = int(np.abs(self.fractions - fraction).argmin())
        frame = pd.DataFrame(
            {
                "class": self.labels,
                "intact": self.right["top"][0, :, 0],
                "top removed": self.right["top"][0, :, at],
                "random removed": self.right["random"].mean(0)[:, at],
            }
        )
        grouped = frame.groupby("class")
        return grouped.mean().assign(images=grouped.size()).reset_index()

    def summary(self, samples: int = 2000, seed: int = 0, confidence: float = 0.95) -> pd.DataFrame:
        """All numbers with intervals: measure, estimate, low, high, n images, note.

        A paired bootstrap over images: each sample draws images once, for all curves and orders.
        Without reliance (the lower bound of the accuracy that the whole scope is worth is below 1
        point, or the intact accuracy is not 10 points above chance) what is relative to it is NaN.
        """
        images = len(self.index)
        if images < 2:
            raise ValueError(f"A profile of {images} image has no interval: run at least 2.")
        rng = np.random.default_rng(seed)
        weights = rng.multinomial(images, np.full(images, 1 / images), samples) / images
        weights = np.vstack([np.full(images, 1 / images), weights])  # the estimate, then samples

        def curves(tables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
            return {
                order: weights @ each.mean(0, dtype=np.float64) for order, each in tables.items()
            }

        kl, right = curves(self.kl), curves(self.right)
        accuracy = right["top"][:, 0]
        worth = accuracy - right["top"][:, -1]
        low, high = (1 - confidence) / 2, (1 + confidence) / 2
        reliant = (
            np.quantile(worth[1:], low) >= NO_RELIANCE
            and accuracy[0] - self.chance >= ABOVE_CHANCE
            and kl["top"][0, -1] > 0
        )
        absolute = {
            "intact accuracy": accuracy,
            "reliance, KL": kl["top"][:, -1],
            "reliance, accuracy": worth,
        }
        for fraction in FRACTIONS:
            k = at_fraction(self.n, fraction)
            if k in self.ranks and fraction * self.n >= 0.5:
                at = int(np.flatnonzero(self.ranks == k)[0])
                gap = right["random"][:, at] - right["top"][:, at]
                absolute[f"accuracy, random − top at {fraction:.0%}"] = gap
        absolute |= self._overlaps(weights) | self._per_image(weights)
        with np.errstate(invalid="ignore", divide="ignore"):
            relative = ablation_curves.describe(kl, self.fractions)
        rows = []
        for name, values in (absolute | relative).items():
            undefined = name in relative and not reliant
            bounds = np.nanquantile(values[1:], (low, high)) if not undefined else (np.nan,) * 2
            rows.append(
                {
                    "measure": name,
                    "estimate": np.nan if undefined else values[0],
                    "low": bounds[0],
                    "high": bounds[1],
                    "n": images,
                    "note": "no reliance" if undefined else "",
                }
            )
        return pd.DataFrame(rows)

    def _overlaps(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """I_rem and I_keep, on the margin of the true class."""
        intact, nothing = (self.margin["top"][0, :, i].astype(np.float64) for i in (0, -1))
        lost = intact[:, None] - self.overlap_removed  # e(A), e(B), e(A ∪ B)
        restored = self.overlap_kept - nothing[:, None]  # k(A), k(B), k(A ∪ B)
        return {
            name: weights @ (effect[:, 2] - effect[:, 0] - effect[:, 1])
            for name, effect in (("I_rem", lost), ("I_keep", restored))
        }

    def _per_image(self, weights: np.ndarray) -> dict[str, np.ndarray]:
        """Alignment and concentration of the leave-one-out effects, where they were measured."""
        measured = np.isfinite(self.alone).all(1)
        if measured.sum() < 2:
            return {}
        alone, scores = (rankdata(x[measured], axis=1) for x in (self.alone, self.scores))
        alone, scores = (x - x.mean(1, keepdims=True) for x in (alone, scores))
        with np.errstate(invalid="ignore", divide="ignore"):
            norms = np.sqrt((alone**2).sum(1) * (scores**2).sum(1))
            alignment = (alone * scores).sum(1) / norms
        effects = torch.from_numpy(self.alone[measured].clip(min=0)).double()
        part = weights[:, measured]
        return {
            "alignment": _mean(part, alignment),
            "concentration": _mean(part, gini(effects).numpy()),
        }


def _mean(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Weighted means of the values that are defined."""
    defined = np.isfinite(values)
    return weights[:, defined] @ values[defined] / weights[:, defined].sum(1)


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
        "draws": draws,
        "temperature": temperature,
        "seed": seed,
    }
    parts = []
    for images, labels, index in batches:
        run = _Run(units.read(images), units, value, index.to(images.device), seed, ranks)
        keys, outcome = _outcomes(
            ablator, images, labels, run.conditions(draws, matched_draws), temperature
        )
        parts.append(run.profile(keys, outcome, labels, about))
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


Key = tuple[str, int, int]  # order, draw, number of the rank


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


class _Run:
    """One minibatch: its units in order, and the conditions they are removed in."""

    def __init__(
        self,
        responses: dict[str, Responses],
        units: Units,
        value: str,
        index: Tensor,
        seed: int,
        most: int,
    ) -> None:
        self.responses, self.units, self.value = responses, units, value
        self.index, self.seed, self.most = index, seed, most
        self.n = next(iter(responses.values())).scores.shape[-1]
        self.ranks = ablation_curves.symmetric_ranks(self.n, most)
        # Ties fall to the unit that comes first, on every machine.
        self.strongest = {
            layer: r.scores.argsort(dim=-1, descending=True, stable=True)
            for layer, r in responses.items()
        }

    def of(self, images: Tensor) -> "_Run":
        """The same for some images."""
        responses = {k: Responses(*(x[images] for x in r)) for k, r in self.responses.items()}
        return _Run(responses, self.units, self.value, self.index[images], self.seed, self.most)

    def conditions(
        self, draws: int, matched_draws: int
    ) -> Iterator[tuple[Key, list[AblationSpec]]]:
        """All but k = 0 (nothing removed), and k = n (everything) once, as "top"."""
        last = len(self.ranks) - 1
        inner = list(enumerate(self.ranks))[1:last]
        weakest = {layer: order.flip(-1) for layer, order in self.strongest.items()}
        for i, k in inner:
            yield ("top", 0, i), self._specs(self._first(k, self.strongest))
            yield ("bottom", 0, i), self._specs(self._first(k, weakest))
            if matched_draws:
                yield ("shrink", 0, i), self._specs(self._shrunk(k))
        for draw in range(draws):
            random = self._random(draw, self.strongest)
            for i, k in inner:
                yield ("random", draw, i), self._specs(self._first(k, random))
                if draw < matched_draws:
                    yield ("matched", draw, i), self._specs(self._matched(k, random))
        yield ("top", 0, last), self._specs(self._first(self.n, self.strongest))
        for i, halves in enumerate(self._halves()):
            yield ("removed", 0, i), self._specs(halves)
            kept = {layer: 1 - shares for layer, shares in halves.items()}
            yield ("kept", 0, i), self._specs(kept)

    def singles(self) -> Iterator[tuple[Key, list[AblationSpec]]]:
        """Each unit left out, in all groups and layers."""
        if {order.shape[-1] for order in self.strongest.values()} != {self.n}:
            raise ValueError(
                "Layers with different numbers of units share none that could be left out: set "
                "leave_one_out=0, or take one layer."
            )
        for unit in range(self.n):
            shares = {k: torch.zeros_like(r.scores) for k, r in self.responses.items()}
            for share in shares.values():
                share[..., unit] = 1
            yield ("alone", 0, unit), self._specs(shares)

    def _specs(self, shares: dict[str, Tensor]) -> list[AblationSpec]:
        return [self.units.spec(layer, s.float(), self.value) for layer, s in shares.items()]

    def _count(self, layer: str, k: int) -> int:
        """k of the first layer's n units, as a number of this layer's."""
        return round(k * self.strongest[layer].shape[-1] / self.n)

    def _first(self, k: int, orders: dict[str, Tensor]) -> dict[str, Tensor]:
        """The first k of each order [batch, groups, n], as shares."""
        return {
            name: _shares(order[..., : self._count(name, k)], order)
            for name, order in orders.items()
        }

    def _random(self, draw: int, like: dict[str, Tensor]) -> dict[str, Tensor]:
        """A random order of each layer's units; draws below zero serve the halves."""
        keys = {layer: draw * len(like) + i for i, layer in enumerate(like)}
        return {
            layer: keyed_orders(self.seed, self.index, keys[layer], tuple(order.shape[1:]))
            for layer, order in like.items()
        }

    def _mass(self, layer: str, k: int) -> tuple[Tensor, Tensor]:
        """Responses [batch, groups, n], and what the top k hold [batch, groups]."""
        mass = self.responses[layer].mass
        top = self.strongest[layer][..., : self._count(layer, k)]
        return mass, mass.gather(-1, top).sum(-1)

    def _matched(self, k: int, random: dict[str, Tensor]) -> dict[str, Tensor]:
        return {layer: mass_matched(*self._mass(layer, k), random[layer]) for layer in random}

    def _shrunk(self, k: int) -> dict[str, Tensor]:
        return {layer: uniform_shrink(*self._mass(layer, k)) for layer in self.strongest}

    def _halves(self) -> list[dict[str, Tensor]]:
        """A, B, and both: random halves of the strongest units, as shares."""
        half = max(1, at_fraction(self.n, OVERLAP_AT) // 2)
        top = {k: order[..., : 2 * self._count(k, half)] for k, order in self.strongest.items()}
        split = self._random(-1, top)
        sets = []
        for part in (slice(None, half), slice(half, None), slice(None)):
            sets.append({})
            for layer, order in self.strongest.items():
                count = self._count(layer, half)
                edges = slice(part.start and count, part.stop and count)
                chosen = top[layer].gather(-1, split[layer])[..., edges]
                sets[-1][layer] = _shares(chosen, order)
        return sets

    def profile(
        self, keys: list[Key], outcome: Outcome, labels: Tensor, about: dict
    ) -> AblationProfile:
        """Put outcomes [1 + conditions, batch], the intact one first, into tables."""
        images, last = len(self.index), len(self.ranks) - 1
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
        first = next(iter(self.responses.values()))
        return AblationProfile(
            ranks=self.ranks,
            n=self.n,
            chance=1 / outcome.classes,
            index=self.index.numpy(force=True),
            labels=labels.numpy(force=True),
            **tables,
            overlap_removed=margins["removed"],
            overlap_kept=margins["kept"],
            alone=np.full((images, self.n), np.nan, np.float32),
            scores=first.scores.mean(1).float().numpy(force=True),
            about=about,
        )


def _shares(chosen: Tensor, like: Tensor) -> Tensor:
    """1 at the chosen units [batch, groups, k], 0 elsewhere: [batch, groups, n]."""
    return torch.zeros(like.shape, device=like.device).scatter(-1, chosen, 1.0)
