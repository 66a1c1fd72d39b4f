"""The ablation of Hu, Zhang and Zhao as their code has it, with the controls that it lacks.

The attention of the class token to the n strongest of the patches is set to zero, the same patches
in all heads, in the last block or the last two, where "strongest" is by the last block's row
averaged over heads. Theirs were n = 10, 20, 39 and 59 of 196, three random draws, and accuracy.
"""

from collections.abc import Iterator
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn

from experiments.tasks.ablate import ablatable
from utils.measures.ablation.outcomes import compared
from utils.measures.ablation.units import Responses, Units, units_of
from utils.measures.statistics import bootstrap_means, percentiles
from utils.probes import AblationSpec, Ablator, keyed_orders

SHARES = (0.05, 0.1, 0.2, 0.3)  # of the patches
PERMUTATIONS = 4
COLUMNS = ("quantity", "scope", "order", "k", "draw", "value", "low", "high", "n")
# What an order is compared with: as many random patches, the same in all heads or in each its own.
RANDOM = {"head-averaged": "random", "centre": "random", "own": "random in each head"}
QUANTITIES = {"kl": ("KL", 1), "right": ("accuracy", -100), "margin": ("margin", -1)}
Key = tuple[str, str, int, int]  # scope, order, number of removed patches, draw
Orders = dict[tuple[str, int], dict[str, Tensor]]  # (order, draw) → layer → [batch, heads, patches]


class Hu2023:
    """The task of `replicate hu2023`: curves of accuracy, KL and margin, and paired differences.

    draws : random orders of each kind; seed : of these

    order : "head-averaged" is the paper's, "own" each head's (and block's) own, "centre" the middle
        of the picture; "all" has all patches removed, "permuted" each head's weights at other
        places and "uniform" the same mass spread evenly: nothing is removed in these two
    quantity : "accuracy", "KL" (nats), "margin" (log-odds of the true class, nats), each mean with
        a bootstrap interval over images; of random orders also the accuracy of each draw. "KL,
        beyond random" and so on is what an order does more than random patches (accuracy in points,
        margin in nats lost), by paired bootstrap; of "permuted" and "uniform" more than "all".
    """

    columns = COLUMNS

    def __init__(self, draws: int, seed: int) -> None:
        self.draws, self.seed = draws, seed

    def run(self, model, condition, batches, ranks) -> tuple[list[dict], dict]:
        """The table of this rank's minibatches and all others'."""
        layers = ranks.together(lambda: ablatable(model, "attention"))[-2:]

        def read() -> list[tuple[list[Key], list[np.ndarray]]]:
            units, ablator = units_of(model, layers, "attention"), Ablator(model)
            return [self._minibatch(units, ablator, *each) for each in batches]

        parts = ranks.gather(ranks.together(read))
        notes = {"layers": layers}
        return ranks.on_main(lambda: (list(_rows([*chain(*parts)], self.seed)), notes))

    def plan(self, model: nn.Module, condition, batches) -> str:
        """How many ablations an image takes."""
        a_scope = len(SHARES) * (len(RANDOM) + 2 * self.draws) + 2 + PERMUTATIONS
        return f"{2 * a_scope} ablations an image"

    def _minibatch(
        self, units: Units, ablator: Ablator, images: Tensor, labels: Tensor, index: Tensor
    ) -> tuple[list[Key], list[np.ndarray]]:
        """The conditions, and for each quantity the table [conditions, batch], intact first."""
        found = dict(self._conditions(units, units.read(images), index))
        intact, ablated = ablator.run_with_intact(images, list(found.values()))
        outcome = compared(intact, torch.cat([intact[None], ablated]), labels)
        return list(found), [getattr(outcome, name) for name in QUANTITIES]

    def _conditions(
        self, units: Units, responses: dict[str, Responses], index: Tensor
    ) -> Iterator[tuple[Key, list[AblationSpec]]]:
        last = responses[units.layers[-1]].mass
        n, elsewhere = last.shape[-1], self._permuted(responses, index)
        orders = self._orders(units, responses, index)
        for scope, layers in {"last": units.layers[-1:], "last two": units.layers}.items():
            for (order, draw), chosen in orders.items():
                for k in (max(1, round(share * n)) for share in SHARES):
                    yield (
                        (scope, order, k, draw),
                        [units.spec(x, _shares(chosen[x], k), "zero") for x in layers],
                    )
            everything = torch.ones_like(last)
            yield (scope, "all", n, 0), [units.spec(x, everything, "zero") for x in layers]
            yield (scope, "uniform", 0, 0), [units.spec(x, everything, "uniform") for x in layers]
            for draw, places in enumerate(elsewhere):
                yield (
                    (scope, "permuted", 0, draw),
                    [units.elsewhere(x, places[x]) for x in layers],
                )

    def _orders(self, units: Units, responses: dict[str, Responses], index: Tensor) -> Orders:
        last = responses[units.layers[-1]].mass  # [batch, heads, patches]

        def shared(order: Tensor) -> dict[str, Tensor]:  # the same patches in all heads
            return {layer: order[:, None].expand_as(found.mass) for layer, found in of}

        of, places = list(responses.items()), tuple(last.shape[1:])
        centre = units.centre(units.layers[-1], places[-1]).to(last.device)
        orders = {
            ("head-averaged", 0): shared(_falling(last.mean(1))),
            ("centre", 0): shared(_falling(centre).expand(len(last), -1)),
            ("own", 0): {layer: _falling(found.mass) for layer, found in of},
        }
        for draw in range(self.draws):
            random = keyed_orders(self.seed, index, draw, places[-1:])
            orders["random", draw] = shared(random)
            orders["random in each head", draw] = {
                layer: keyed_orders(self.seed, index, self.draws + 2 * draw + i, places)
                for i, (layer, _) in enumerate(of)
            }
        return orders

    def _permuted(self, responses: dict[str, Responses], index: Tensor) -> list[dict[str, Tensor]]:
        return [
            {
                layer: keyed_orders(self.seed, index, -1 - 2 * draw - i, found.mass.shape[1:])
                for i, (layer, found) in enumerate(responses.items())
            }
            for draw in range(PERMUTATIONS)
        ]


def _falling(scores: Tensor) -> Tensor:
    return scores.argsort(dim=-1, descending=True, stable=True)


def _shares(order: Tensor, k: int) -> Tensor:
    """1 at the first k of each order [batch, heads, patches], 0 elsewhere."""
    return torch.zeros(order.shape, device=order.device).scatter(-1, order[..., :k], 1.0)


def _rows(parts: list[tuple[list[Key], list[np.ndarray]]], seed: int) -> Iterator[dict]:
    keys = parts[0][0]
    tables = {
        name: np.concatenate([found[i] for _, found in parts], axis=1, dtype=np.float64)
        for i, name in enumerate(QUANTITIES)
    }  # [1 + conditions, images]
    images = tables["kl"].shape[1]
    means = {}  # (quantity, scope, order, k) → [images], the mean over draws
    for name, table in tables.items():
        means[name, "", "intact", 0] = table[0]
        for place in dict.fromkeys(key[:3] for key in keys):
            chosen = [i + 1 for i, key in enumerate(keys) if key[:3] == place]
            means[name, *place] = table[chosen].mean(0)
    drawn = bootstrap_means(means, seed=seed)

    def row(quantity: str, scope: str, order: str, k: int, values: np.ndarray) -> dict:
        found = percentiles(values, images)
        number = {"value": found.estimate, "low": found.low, "high": found.high, "n": images}
        return {"quantity": quantity, "scope": scope, "order": order, "k": k, **number}

    for (name, scope, order, k), values in drawn.items():
        called, factor = QUANTITIES[name]
        yield row(called, scope, order, k, values)
        if order in RANDOM:
            other, than = drawn[name, scope, RANDOM[order], k], "random"
        elif order in ("permuted", "uniform"):
            n = next(at for of, put, at, _ in keys if (of, put) == (scope, "all"))
            other, than = drawn[name, scope, "all", n], "all"
        else:
            continue
        yield row(f"{called}, beyond {than}", scope, order, k, factor * (values - other))
    for i, (scope, order, k, draw) in enumerate(keys):
        if order == "random":
            value = {"value": float(tables["right"][i + 1].mean()), "n": images}
            place = {"scope": scope, "order": order, "k": k, "draw": draw}
            yield {"quantity": "accuracy of a draw", **place, **value}
