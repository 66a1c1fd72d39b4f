"""The conditions of an ablation profile: which units of a minibatch go, in which order."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from ...probes import AblationSpec, keyed_orders, mass_matched, uniform_shrink
from ..responses import float64
from . import curves
from .curves import at_fraction
from .units import Named, Responses, Units

PLACE = ("permuted", "uniform")  # the same attention weights elsewhere; no ranks
OVERLAP_AT = 0.2  # of the units, the strongest: what is split into the sets A and B
Key = tuple[str, int, int]  # order, draw, number of the rank


class Removal:
    """How the units of a minibatch are removed: in which orders, how many at a time.

    Args:
        responses: Layer → its responses [batch, groups, n] from the intact pass.
        units: Of the layers.
        value: As specs take it, or layer → what is put in for these images.
        index: int64 [batch], global indices of the images.
        seed: Of the random orders.
        most: Largest number of ranks, of the first layer's n units; of others the same share is
            removed.
        fixed: Name → layer → scores [1, groups or 1, n] of an order that is the same for all
            images.

    Attributes:
        masses: (order, draw) → the share of all response that each rank removes [batch, ranks], of
            the orders that `conditions` has come to.
    """

    def __init__(
        self,
        responses: dict[str, Responses],
        units: Units,
        value: Named | Mapping[str, Tensor],
        index: Tensor,
        seed: int,
        most: int,
        fixed: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> None:
        self.responses, self.units, self.value = responses, units, value
        self.index, self.seed, self.most = index, seed, most
        self.n = next(iter(responses.values())).scores.shape[-1]
        self.ranks = curves.symmetric_ranks(self.n, most)
        self.strongest = _falling({layer: r.scores for layer, r in responses.items()})
        self.fixed = {
            name: {
                layer: order.expand_as(self.strongest[layer])
                for layer, order in _falling(scores).items()
            }
            for name, scores in (fixed or {}).items()
        }
        self.masses: dict[tuple[str, int], Tensor] = {}

    def conditions(
        self, draws: int, matched_draws: int, place_draws: int = 0
    ) -> Iterator[tuple[Key, list[AblationSpec]]]:
        """The conditions to run, one after another.

        They are all but k = 0 (nothing removed), and k = n (everything) once, as "top"; the three
        sets of the overlap, "removed" and "kept"; those of PLACE.

        Args:
            draws: Number of random orders.
            matched_draws: Number of random sets matched in mass.
            place_draws: Number of permutations of the attention weights.

        Returns:
            The key (order, draw, number of the rank) and the specs of each.
        """
        last = len(self.ranks) - 1
        inner = list(enumerate(self.ranks))[1:last]
        weakest = {layer: order.flip(-1) for layer, order in self.strongest.items()}
        self.masses["top", 0] = self._removed(self.strongest)
        self.masses["bottom", 0] = self._removed(weakest)
        if matched_draws:
            self.masses["shrink", 0] = self.masses["top", 0]
        for i, k in inner:
            yield ("top", 0, i), self._specs(self._first(k, self.strongest))
            yield ("bottom", 0, i), self._specs(self._first(k, weakest))
            if matched_draws:
                yield ("shrink", 0, i), self._specs(self._shrunk(k))
        for draw in range(max(draws, matched_draws)):
            random = self._random(draw, self.strongest)
            if draw < draws:
                self.masses["random", draw] = self._removed(random)
            if draw < matched_draws:
                self.masses["matched", draw] = self.masses["top", 0]
            for i, k in inner:
                if draw < draws:
                    yield ("random", draw, i), self._specs(self._first(k, random))
                if draw < matched_draws:
                    yield ("matched", draw, i), self._specs(self._matched(k, random))
        yield ("top", 0, last), self._specs(self._first(self.n, self.strongest))
        for i, halves in enumerate(self._halves()):
            yield ("removed", 0, i), self._specs(halves)
            kept = {layer: 1 - shares for layer, shares in halves.items()}
            yield ("kept", 0, i), self._specs(kept)
        for name, order in self.fixed.items():
            self.masses[name, 0] = self._removed(order)
            for i, k in inner:
                yield (name, 0, i), self._specs(self._first(k, order))
        for draw in range(place_draws):
            orders = self._random(-2 - draw, self.strongest)
            yield (
                ("permuted", draw, 0),
                [self.units.elsewhere(layer, order) for layer, order in orders.items()],
            )
        if place_draws:
            everything = {k: torch.ones_like(r.mass) for k, r in self.responses.items()}
            yield ("uniform", 0, 0), self._specs(everything, "uniform")

    def mean_scores(self) -> Tensor:
        """The response of each unit over groups, and layers where they have as many [batch, n]."""
        means = [r.scores.float().mean(1) for r in self.responses.values()]
        return torch.stack([mean for mean in means if mean.shape == means[0].shape]).mean(0)

    def _specs(self, shares: dict[str, Tensor], value: Named | None = None) -> list[AblationSpec]:
        put = value or self.value
        return [
            self.units.spec(layer, s.float(), put if isinstance(put, str) else put[layer])
            for layer, s in shares.items()
        ]

    def _count(self, layer: str, k: int) -> int:
        """How many of this layer's units correspond to k of the first layer's."""
        return round(k * self.strongest[layer].shape[-1] / self.n)

    def _first(self, k: int, orders: dict[str, Tensor]) -> dict[str, Tensor]:
        """The first k of each order [batch, groups, n], as shares."""
        return {
            layer: _shares(order[..., : self._count(layer, k)], order)
            for layer, order in orders.items()
        }

    def _random(self, draw: int, like: dict[str, Tensor]) -> dict[str, Tensor]:
        """A random order of each layer's units.

        Draw −1 serves the halves, those below it the permuted rows.
        """
        keys = {layer: draw * len(like) + i for i, layer in enumerate(like)}
        return {
            layer: keyed_orders(self.seed, self.index, keys[layer], tuple(order.shape[1:]))
            for layer, order in like.items()
        }

    def _removed(self, orders: dict[str, Tensor]) -> Tensor:
        """The share of all response that each rank removes, the mean over layers [batch, ranks]."""
        shares = []
        for layer, order in orders.items():
            mass = float64(self.responses[layer].mass)
            along = mass.gather(-1, order.to(mass.device)).cumsum(-1)  # [batch, groups, n]
            counts = [self._count(layer, int(k)) for k in self.ranks]
            sums = torch.nn.functional.pad(along, (1, 0))[..., counts].sum(1)
            shares.append(sums / sums[:, -1:].clamp(min=torch.finfo(sums.dtype).tiny))
        return torch.stack(shares).mean(0)

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
        chosen = {layer: top[layer].gather(-1, split[layer]) for layer in top}
        sets: list[dict[str, Tensor]] = []
        for part in range(3):
            sets.append({})
            for layer, order in self.strongest.items():
                count = self._count(layer, half)
                edges = (slice(count), slice(count, None), slice(None))[part]
                sets[-1][layer] = _shares(chosen[layer][..., edges], order)
        return sets


def _shares(chosen: Tensor, like: Tensor) -> Tensor:
    """1 at the chosen units [batch, groups, k], 0 elsewhere: [batch, groups, n]."""
    return torch.zeros(like.shape, device=like.device).scatter(-1, chosen, 1.0)


def _falling(scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Each layer's units from the largest score to the smallest.

    Ties fall to the unit that comes first, on every machine.
    """
    return {
        layer: score.argsort(dim=-1, descending=True, stable=True)
        for layer, score in scores.items()
    }
