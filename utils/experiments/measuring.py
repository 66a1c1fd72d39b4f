"""`python -m utils measure`: all measures of one model from one forward pass of every image."""

import warnings
from collections.abc import Callable
from contextlib import ExitStack

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric

from utils.experiments.layers import activations
from utils.experiments.tables import COLUMNS, merged, rows
from utils.measures import attention_geometry, sparsity
from utils.measures.similarity import FEWEST, MinibatchCKA
from utils.measures.streaming import PopulationSummary, mean_and_sd
from utils.probes import (
    ActivationRecorder,
    AttentionProbe,
    attention_layers,
    keyed_orders,
    token_layout,
)
from utils.probes.ablation_edits import channel_axis
from utils.probes.ablation_plans import block_names

MEASURES = {
    "accuracy": "top-1 accuracy and cross-entropy",
    "attention": "sparsity of attention rows per layer and head",
    "distance": "attention distance in pixels per layer and head",
    "activation": "sparsity of rectified activations per layer",
    "cka": "similarity of all pairs of blocks",
}
PERMUTATIONS = 8


def _alone() -> bool:
    return False


class ImageMean(Metric):
    """Mean and spread over images of values [batch, …], as a PopulationSummary; NaN is counted."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in ("images", "defined", "total", "squares"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add the values of one minibatch."""
        values = values.detach().cpu().double()
        self.images = self.images + len(values)
        self.defined = self.defined + (~values.isnan()).sum(0)
        self.total = self.total + values.nan_to_num(0).sum(0)
        self.squares = self.squares + values.nan_to_num(0).square().sum(0)

    def compute(self) -> PopulationSummary:
        """Return mean, SD and standard error over all images seen; NaN where none was defined."""
        mean, sd = mean_and_sd(self.total, self.squares, self.defined)
        undefined = (self.images - self.defined).long()
        return PopulationSummary(mean, sd, sd / self.defined.sqrt(), int(self.images), undefined)


class Measurement:
    """What is read of one model, minibatch by minibatch, in memory that does not grow.

    measures : names from MEASURES; those that the model has nothing for (attention in a CNN) are
        left out and named with the reason in `skipped`
    seed : decides, with the index of an image, the permutations of the placement overlap

    `update(images, labels, index)` for every minibatch, `metrics` to merge with other ranks',
    and `rows(metrics)` for the table. ValueError for labels that the model has no class for.
    """

    def __init__(self, model: nn.Module, measures: list[str], seed: int = 0) -> None:
        self.model, self.seed, self.layout = model, seed, token_layout(model)
        self.metrics: dict[tuple, Metric] = {}
        lacking = {
            "attention": "the model has no attention" if not attention_layers(model) else None,
            "activation": None if activations(model) else "no activation function is a module",
            "cka": None if len(block_names(model)) > 1 else "the model is not made of blocks",
        }
        lacking["distance"] = lacking["attention"]
        self.skipped = {name: lacking[name] for name in measures if lacking.get(name)}
        self.measures = [name for name in measures if name not in self.skipped]

    def _metric(self, key: tuple, make: Callable[[], Metric] = ImageMean) -> Metric:
        if key not in self.metrics:
            self.metrics[key] = make()
            # Ranks are merged once, at the end: see `merged`.
            self.metrics[key].distributed_available_fn = _alone
        return self.metrics[key]

    @torch.inference_mode()
    def update(self, images: Tensor, labels: Tensor, index: Tensor) -> None:
        """Run the model once on images [batch, 3, h, w] and add what it does to the metrics."""
        self._index, self._height, self._orders = index, images.shape[-2], {}
        with ExitStack() as stack:
            if {"attention", "distance"} & {*self.measures}:
                rows = "all" if self._all_rows() else "class"
                stack.enter_context(AttentionProbe(self.model, rows=rows, reduce=self._attention))
            if "activation" in self.measures:
                stack.enter_context(
                    ActivationRecorder(self.model, activations(self.model), self._activation)
                )
            if "cka" in self.measures:
                features = stack.enter_context(
                    ActivationRecorder(self.model, block_names(self.model))
                )
            logits = self.model(images)
        if "accuracy" in self.measures:
            self._accuracy(logits, labels)
        if "cka" in self.measures and len(images) >= FEWEST:
            self._metric(("cka",), MinibatchCKA).update(features.values)

    def _all_rows(self) -> bool:
        return "distance" in self.measures or not self.layout.has_class_token

    def _accuracy(self, logits: Tensor, labels: Tensor) -> None:
        if labels.max() >= logits.shape[1]:
            raise ValueError(
                f"{type(self.model).__name__} tells {logits.shape[1]} classes apart, but the data "
                f"have a label {int(labels.max())}: choose data with the model's classes, or leave "
                "accuracy out."
            )
        self._metric(("accuracy",)).update((logits.argmax(1) == labels).double())
        nats = F.cross_entropy(logits.float(), labels, reduction="none")
        self._metric(("cross_entropy",)).update(nats)

    def _attention(self, layer: str, weights: Tensor) -> None:
        prefix = self.layout.prefix_in(weights.shape[-1])
        if "distance" in self.measures:
            self._distance(layer, weights, prefix)
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
            self._metric((quantity, layer, kind)).update(values)

        add("gini", sparsity.gini(rows))
        add("treves_rolls", sparsity.treves_rolls(rows))
        add("prefix_mass", prefix_mass)
        maps = rows.unflatten(0, (len(self._index), -1))  # [batch, windows, heads, queries, keys]
        self._metric(("mean_map", layer, kind)).update(maps)
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

    def _distance(self, layer: str, weights: Tensor, prefix: int) -> None:
        tokens = weights.shape[-1] - prefix
        rows, columns = self.layout.grid or (round(tokens**0.5),) * 2
        whole = len(weights) == len(self._index) and weights.shape[-2] == weights.shape[-1]
        if not whole or rows * columns != tokens:
            self.skipped.setdefault(f"distance in {layer}", "its maps are not of all patches")
            return
        grid, pixels = (rows, columns), self._height / rows
        distance = attention_geometry.mean_attention_distance(weights, grid, pixels, prefix)
        self._metric(("distance", layer, "all")).update(distance)
        uniform = attention_geometry.uniform_attention_distance(grid, pixels)
        self._metric(("relative_distance", layer, "all")).update(distance / uniform)

    def _activation(self, layer: str, values: Tensor) -> None:
        rectified = type(self.model.get_submodule(layer.partition("#")[0])) in (nn.ReLU, nn.ReLU6)
        rates = values.float() if rectified else values.float().relu()
        axis = channel_axis(self.model, layer.partition("#")[0], rates.ndim)
        for unit in ("channel", "position") if rates.ndim > 2 else (None,):
            for quantity, make in _SPARSENESS.items():
                metric = self._metric(
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


class Measure:
    """The task of `python -m utils measure` (see `run.Task`): `measures` from MEASURES."""

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
        parts = ranks.gather({key: metric.cpu() for key, metric in here.metrics.items()})
        notes = {"left_out": here.skipped} if here.skipped else {}
        return ranks.on_main(lambda: (list(rows(merged(parts))), notes))

    def plan(self, model, condition, batches) -> str:
        """Which measures, and which are left out and why."""
        measurement = Measurement(model, self.measures, self.seed)
        left_out = (f"{name} left out: {why}" for name, why in measurement.skipped.items())
        return "; ".join([f"{', '.join(measurement.measures)} in one forward pass", *left_out])
