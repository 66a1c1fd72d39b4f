"""`python -m experiments measure`: all measures of a model from one forward pass of each image."""

import warnings
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from experiments.engine.metrics import Metrics, left_out, merged, planned
from experiments.tasks.tables import COLUMNS, rows
from utils.measures import attention_geometry, sparsity
from utils.measures.responses import finite_logits
from utils.measures.similarity import FEWEST, MinibatchCKA
from utils.probes import (
    ActivationRecorder,
    AttentionProbe,
    attention_layers,
    keyed_orders,
    token_layout,
)
from utils.probes.anatomy import activation_layers, block_names, channel_axis
from utils.probes.channels import follow_channels
from utils.probes.modes import refuse_training

MEASURES = {
    "accuracy": "top-1 accuracy and cross-entropy",
    "attention": "sparsity of attention rows per layer and head",
    "distance": "attention distance in pixels per layer and head",
    "offset": "share of attention to a patch and each of its neighbours, per layer and head",
    "activation": "sparsity of rectified activations per layer",
    "cka": "similarity of all pairs of blocks",
}
PERMUTATIONS = 8
OFFSETS = [f"{down:+d} {right:+d}" for down in (-1, 0, 1) for right in (-1, 0, 1)]  # in patches


class Measurement:
    """What is read of one model, minibatch by minibatch, in memory that does not grow.

    measures : names from MEASURES; those that the model has nothing for (attention in a CNN) are
        left out and named with the reason in `skipped`
    seed : decides, with the index of an image, the permutations of the placement overlap

    `update(images, labels, index)` for every minibatch, `metrics` to merge with other ranks',
    and `rows(metrics)` for the table. ValueError for labels that the model has no class for.
    """

    def __init__(self, model: nn.Module, measures: list[str], seed: int = 0) -> None:
        refuse_training(model)
        self.model, self.seed, self.layout = model, seed, token_layout(model)
        self.metrics = Metrics()
        lacking = {
            "attention": "the model has no attention" if not attention_layers(model) else None,
            "activation": (
                None if activation_layers(model) else "no activation function is a module"
            ),
            "cka": None if len(block_names(model)) > 1 else "the model is not made of blocks",
        }
        lacking["distance"] = lacking["offset"] = lacking["attention"]
        self.skipped = {name: lacking[name] for name in measures if lacking.get(name)}
        self.measures = [name for name in measures if name not in self.skipped]

    @torch.inference_mode()
    def update(self, images: Tensor, labels: Tensor, index: Tensor) -> None:
        """Run the model once on images [batch, 3, h, w] and add what it does to the metrics."""
        self._index, self._orders = index, {}
        self._size = images.shape[-2], images.shape[-1]
        if "activation" in self.measures:
            follow_channels(self.model, images)
        with ExitStack() as stack:
            if {"attention", "distance", "offset"} & {*self.measures}:
                rows = "all" if self._all_rows() else "class"
                stack.enter_context(AttentionProbe(self.model, rows=rows, reduce=self._attention))
            if "activation" in self.measures:
                stack.enter_context(
                    ActivationRecorder(self.model, activation_layers(self.model), self._activation)
                )
            if "cka" in self.measures:
                features = stack.enter_context(
                    ActivationRecorder(self.model, block_names(self.model))
                )
            logits = self.model(images)
        if "accuracy" in self.measures:
            self._accuracy(logits, labels)
        if "cka" in self.measures and len(images) >= FEWEST:
            self.metrics.of(("cka",), MinibatchCKA).update(features.outputs)

    def _all_rows(self) -> bool:
        whole = {"distance", "offset"} & {*self.measures}
        return bool(whole) or not self.layout.has_class_token

    def _accuracy(self, logits: Tensor, labels: Tensor) -> None:
        if labels.max() >= logits.shape[1]:
            raise ValueError(
                f"{type(self.model).__name__} tells {logits.shape[1]} classes apart, but the data "
                f"have a label {int(labels.max())}: choose data with the model's classes, or leave "
                "accuracy out."
            )
        finite_logits(logits, self.model)
        self.metrics.of(("accuracy",)).update((logits.argmax(1) == labels).double())
        nats = F.cross_entropy(logits.float(), labels, reduction="none")
        self.metrics.of(("cross_entropy",)).update(nats)

    def _attention(self, layer: str, weights: Tensor) -> None:
        prefix = self.layout.prefix_in(weights.shape[-1], self._size)
        if {"distance", "offset"} & {*self.measures}:
            self._places(layer, weights, prefix)
        if "attention" not in self.measures:
            return
        # Without a class token every patch's row is read, and the mean over rows is the image's.
        kind = "class" if self.layout.has_class_token and prefix else "all"
        chosen = weights[:, :, :1] if kind == "class" else weights[:, :, prefix:]
        if chosen.shape[-1] < prefix + 2:
            return
        rows, prefix_mass = sparsity.patch_rows(chosen, prefix)
        rows = rows.nan_to_num(0)  # all mass on the prefix: no sparseness, counted as undefined

        def add(quantity: str, values: Tensor) -> None:
            # [batch · windows, …, queries] → [batch, …]
            values = values.unflatten(0, (len(self._index), -1)).mean((1, -1))
            self.metrics.of((quantity, layer, kind)).update(values)

        gini = sparsity.gini(rows)
        add("gini", gini)
        add("gini_beyond_gaussian", gini - _by_spread_alone(rows))
        add("treves_rolls", sparsity.treves_rolls(rows))
        add("prefix_mass", prefix_mass)
        maps = rows.unflatten(0, (len(self._index), -1))  # [batch, windows, heads, queries, keys]
        self.metrics.of(("mean_map", layer, kind)).update(maps)
        if rows.shape[1] > 1:
            add("gini_head_average", sparsity.gini(rows.mean(1)))
            add("gini_permuted", self._permuted(rows))

    def _permuted(self, rows: Tensor) -> Tensor:
        """Gini [batch, queries] of the head average once every head's keys change places."""
        batch, heads, queries, keys = rows.shape
        total = rows.new_zeros(batch, queries)
        for draw in range(PERMUTATIONS):
            if (heads, keys, draw) not in self._orders:  # the same in all layers of that shape
                self._orders[heads, keys, draw] = keyed_orders(
                    self.seed, self._index, draw, (heads, keys)
                )
            order = self._orders[heads, keys, draw].to(rows.device)  # [batch, heads, keys]
            order = order.repeat_interleave(batch // len(order), 0)[:, :, None].expand_as(rows)
            total += sparsity.gini(rows.gather(-1, order).mean(1))
        return total / PERMUTATIONS

    def _places(self, layer: str, weights: Tensor, prefix: int) -> None:
        grid = self.layout.grid_in(weights.shape[-1] - prefix, self._size)
        whole = len(weights) == len(self._index) and weights.shape[-2] == weights.shape[-1]
        if not whole or grid is None:
            for name in ("distance", "offset"):
                if name in self.measures:
                    why = "its maps are not of all patches"
                    self.skipped.setdefault(f"{name} in {layer}", why)
            return
        if "distance" in self.measures:
            pixels = self._size[0] / grid[0]
            distance = attention_geometry.mean_attention_distance(weights, grid, pixels, prefix)
            self.metrics.of(("distance", layer, "all")).update(distance)
            uniform = attention_geometry.uniform_attention_distance(grid, pixels)
            self.metrics.of(("relative_distance", layer, "all")).update(distance / uniform)
        if "offset" in self.measures and min(grid) > 1:
            shares = attention_geometry.offset_shares(weights, grid, prefix)
            for offset, share in zip(OFFSETS, shares.flatten(2).unbind(-1), strict=True):
                self.metrics.of(("offset_share", layer, offset)).update(share)

    def _activation(self, layer: str, values: Tensor) -> None:
        rectified = type(self.model.get_submodule(layer.partition("#")[0])) in (nn.ReLU, nn.ReLU6)
        rates = values.float() if rectified else values.float().relu()
        axis = channel_axis(self.model, layer, rates.ndim)
        for unit in ("channel", "position") if rates.ndim > 2 else (None,):
            for quantity, make in _SPARSENESS.items():
                metric = self.metrics.of(
                    (quantity, layer, unit or "channel"),
                    lambda make=make, unit=unit: make(unit, channel_dim=axis),
                )
                with warnings.catch_warnings():  # the memory of positions is announced in --help
                    warnings.simplefilter("ignore", UserWarning)
                    metric.update(rates)


_SPARSENESS = {
    "population_gini": lambda unit, **axis: sparsity.PopulationSparseness("gini", unit, **axis),
    "active_share": lambda unit, **axis: sparsity.PopulationSparseness(
        "active_fraction", unit, threshold=0.0, **axis
    ),
    "lifetime": sparsity.LifetimeSparseness,
}


def _by_spread_alone(rows: Tensor) -> Tensor:
    """The Gini [...] that Gaussian logits with the spread of each row's own [..., keys] have; NaN
    for a row with weights of zero, whose logits have no spread."""
    positive = (rows > 0).all(-1)
    spread = rows.double().log().std(-1, correction=0)
    return sparsity.gaussian_gini(spread.where(positive, torch.nan), rows.shape[-1])


class Measure:
    """The task of `python -m experiments measure` (see `run.Task`): `measures` from MEASURES."""

    def __init__(self, measures: list[str], seed: int) -> None:
        self.measures, self.seed, self.columns = measures, seed, COLUMNS

    def run(self, model, condition, batches, ranks) -> tuple[list[dict], dict]:
        """Read this rank's minibatches; the table and what was left out, on every rank."""

        def read() -> Measurement:
            measurement = Measurement(model, self.measures, self.seed)
            for minibatch in batches:
                measurement.update(*minibatch)
            return measurement

        here = ranks.together(read)
        parts = ranks.gather(here.metrics.parcel())
        return ranks.on_main(lambda: (list(rows(merged(parts))), left_out(here.skipped)))

    def plan(self, model, condition, batches) -> str:
        """Which measures, and which are left out and why."""
        here = Measurement(model, self.measures, self.seed)
        return planned(here.measures, here.skipped, " in one forward pass")
