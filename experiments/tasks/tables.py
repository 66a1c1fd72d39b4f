"""From the metrics of a model to the rows of a table."""

import math
from collections.abc import Iterator

from experiments.engine.metrics import Metrics
from utils.measures import sparsity
from utils.measures.similarity import MinibatchCKA
from utils.measures.sparsity.controls import overlap

COLUMNS = ("quantity", "layer", "other", "depth", "head", "unit")
COLUMNS += ("value", "sd", "se", "n", "undefined")


def rows(metrics: Metrics) -> Iterator[dict]:
    """The table: one row for every quantity, layer, head and unit.

    `value` is the mean over n images, `sd` and `se` its spread over them, `undefined` how many had
    no value; of a lifetime measure the same over units, `undefined` being those that are dead.
    `depth` is the layer's place among its like, in (0, 1]. ValueError for NaN or infinite
    responses and for fewer than two images.
    """
    like: dict[tuple, list[str]] = {}
    for quantity, *where in metrics:
        if quantity != "cka" and where:
            like.setdefault((quantity, where[1]), []).append(where[0])
    for (quantity, *where), metric in metrics.items():
        if quantity == "cka":
            yield from _similarities(metric)
            continue
        place = {}
        if where:
            layer, unit = where
            layers = like[quantity, unit]
            depth = (layers.index(layer) + 1) / len(layers)
            place = {"layer": layer, "depth": depth, "unit": unit}
        for row in _of(quantity, metric.compute()):
            yield {**place, **row}
        if quantity == "gini_permuted":
            parts = ("gini", "gini_head_average", "gini_permuted")
            means = (metrics[part, *where].compute().mean.mean() for part in parts)
            yield {**place, "quantity": "overlap", "value": overlap(*means).item()}


def _of(quantity: str, found) -> Iterator[dict]:
    if quantity == "lifetime":
        for name in ("treves_rolls", "vinje_gallant"):
            values = getattr(found, name)
            live = values[~values.isnan()]
            yield {
                "quantity": f"lifetime_{name}",
                "value": live.mean().item(),
                "sd": live.std().item() if len(live) > 1 else math.nan,
                "n": values.numel(),
                "undefined": found.dead,
            }
        share = found.dead / found.mean.numel()
        yield {"quantity": "dead_share", "value": share, "n": found.mean.numel()}
    elif quantity == "mean_map":  # [windows, heads, queries, keys]
        for head, value in enumerate(sparsity.gini(found.mean).mean((0, 2)).tolist()):
            yield {"quantity": "gini_mean_map", "head": head, "value": value, "n": found.stimuli}
    else:
        values = [x.flatten().tolist() for x in (found.mean, found.sd, found.se, found.undefined)]
        for head, (value, sd, se, undefined) in enumerate(zip(*values, strict=True)):
            yield {
                "quantity": quantity,
                "head": head if found.mean.ndim else None,
                **{"value": value, "sd": sd, "se": se},
                **{"n": found.stimuli, "undefined": undefined},
            }


def _similarities(metric: MinibatchCKA) -> Iterator[dict]:
    layers, matrix = metric.names[0], metric.compute()
    for i, layer in enumerate(layers):
        for j, other in enumerate(layers):
            place = {"layer": layer, "other": other, "depth": (i + 1) / len(layers)}
            yield {"quantity": "cka", **place, "value": matrix[i, j].item()}
