"""The conditions of an ablation profile: which units of a minibatch go, in which order."""

from collections.abc import Iterator

import torch
from torch import Tensor

from utils.measures import ablation_curves
from utils.measures.ablation_curves import at_fraction
from utils.measures.ablation_units import Responses, Units
from utils.probes import AblationSpec, keyed_orders, mass_matched, uniform_shrink

OVERLAP_AT = 0.2  # of the units, the strongest: what is split into the sets A and B
Key = tuple[str, int, int]  # order, draw, number of the rank


class Minibatch:
    """The units of a minibatch in order, and the conditions they are removed in.

    responses : layer → its responses [batch, groups, n] from the intact pass; index : int64 [batch]
    most : ranks at most, of the first layer's n units; of others the same share is removed
    """

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

    def of(self, images: Tensor) -> "Minibatch":
        """The same for some images."""
        responses = {k: Responses(*(x[images] for x in r)) for k, r in self.responses.items()}
        return Minibatch(
            responses, self.units, self.value, self.index[images], self.seed, self.most
        )

    def conditions(
        self, draws: int, matched_draws: int
    ) -> Iterator[tuple[Key, list[AblationSpec]]]:
        """All but k = 0 (nothing removed), and k = n (everything) once, as "top"; the three sets of
        the overlap, "removed" and "kept"."""
        last = len(self.ranks) - 1
        inner = list(enumerate(self.ranks))[1:last]
        weakest = {layer: order.flip(-1) for layer, order in self.strongest.items()}
        for i, k in inner:
            yield ("top", 0, i), self._specs(self._first(k, self.strongest))
            yield ("bottom", 0, i), self._specs(self._first(k, weakest))
            if matched_draws:
                yield ("shrink", 0, i), self._specs(self._shrunk(k))
        for draw in range(max(draws, matched_draws)):
            random = self._random(draw, self.strongest)
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

    def singles(self) -> Iterator[tuple[Key, list[AblationSpec]]]:
        """Each unit left out, in all groups and layers.

        ValueError if the layers differ in their number of units.
        """
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

    def mean_scores(self) -> Tensor:
        """The response of each unit over groups, and layers where they have as many [batch, n]."""
        means = [r.scores.float().mean(1) for r in self.responses.values()]
        return torch.stack([mean for mean in means if mean.shape == means[0].shape]).mean(0)

    def _specs(self, shares: dict[str, Tensor]) -> list[AblationSpec]:
        return [self.units.spec(layer, s.float(), self.value) for layer, s in shares.items()]

    def _count(self, layer: str, k: int) -> int:
        """k of the first layer's n units, as a number of this layer's."""
        return round(k * self.strongest[layer].shape[-1] / self.n)

    def _first(self, k: int, orders: dict[str, Tensor]) -> dict[str, Tensor]:
        """The first k of each order [batch, groups, n], as shares."""
        return {
            layer: _shares(order[..., : self._count(layer, k)], order)
            for layer, order in orders.items()
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
        chosen = {layer: top[layer].gather(-1, split[layer]) for layer in top}
        sets = []
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
