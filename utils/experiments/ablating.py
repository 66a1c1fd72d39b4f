"""`python -m utils ablate`: what a model loses as the units of some layers are removed in order."""

from collections.abc import Iterable, Iterator
from itertools import chain

import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from utils.experiments.layers import activations, at_scope
from utils.measures.ablation_profile import AblationProfile, ablation_profile
from utils.probes import Ablator, ActivationRecorder, AttentionProbe, attention_layers
from utils.probes.ablation_plans import block_names

UNITS = {
    "attention": "what the class row (or all rows) attends to, patch by patch in each head",
    "channel": "channels of an activation layer",
    "position": "positions of an activation layer, all channels of each",
    "unit": "channels at positions of an activation layer",
    "contribution": "what each patch adds to the class row, all heads together",
    "output": "positions that a block puts out, all channels of each",
    "group": "channels at positions of an activation layer, put at random into 64 groups",
}
# Those that `ablation_profile` knows under another name.
PROFILED = {
    "contribution": {"unit": "attention", "order": "position contribution"},
    "output": {"unit": "position"},
    "group": {"unit": "unit", "groups": 64},
}
VALUES = ("zero", "mean", "renormalise")
COLUMNS = ("quantity", "order", "k", "fraction", "value", "low", "high", "n", "note")


class PlannedAblator(Ablator):
    """An ablator that notes how it ran its conditions: `plans`, and their `block_calls`."""

    def __init__(self, model: nn.Module, means: dict[str, Tensor]) -> None:
        super().__init__(model, means)
        self.plans: dict[str, None] = {}
        self.conditions = self.block_calls = 0

    def run(self, images, conditions, intact=False):
        """Run the conditions as `Ablator.run` does."""
        plan = self.plan(conditions, intact)
        self.plans[plan.name] = None
        self.conditions += len(plan.each)
        self.block_calls += plan.block_calls
        return super().run(images, conditions, intact)

    def __str__(self) -> str:
        return (
            f"{' + '.join(self.plans)}, {self.conditions} ablations and {self.block_calls} block "
            "calls a minibatch"
        )


class Ablate:
    """The task of `python -m utils ablate` (see `run.Task`).

    A condition's settings: `unit` of UNITS, `scope` of layers.SCOPES, `replaced_by` of VALUES.
    ranks : at most so many points on a curve; draws : random orders; seed : of these
    """

    def __init__(self, ranks: int, draws: int, seed: int) -> None:
        self.ranks, self.draws, self.seed, self.columns = ranks, draws, seed, COLUMNS

    def run(self, model, condition, batches, ranks) -> tuple[list[dict], dict]:
        """Curves and summary, from all ranks' images, and the layers they are of."""
        unit, scope, value = (condition.settings[k] for k in ("unit", "scope", "replaced_by"))
        layers = ranks.together(lambda: at_scope(ablatable(model, unit), scope))
        means = {}
        if value == "mean":
            parts = ranks.everywhere(ranks.together(lambda: _means(model, batches, layers)))
            means = _pooled(parts)
        self.ablator = PlannedAblator(model, means)

        def profile() -> AblationProfile | None:
            if (found := _unless_empty(batches)) is None:
                return None
            options = dict(ranks=self.ranks, draws=self.draws, seed=self.seed)
            options |= PROFILED.get(unit, {"unit": unit})
            return ablation_profile(
                model, found, layers, value=value, ablator=self.ablator, **options
            )

        parts = ranks.gather(ranks.together(profile))
        notes = {"layers": layers}
        return ranks.on_main(lambda: (list(_rows([p for p in parts if p], self.seed)), notes))

    def plan(self, model, condition, batches) -> str:
        """How the ablations of the last `run` were done."""
        return str(self.ablator)


def ablatable(model: nn.Module, unit: str) -> list[str]:
    """The layers that have such units, in the order in which the model comes to them.

    unit : one of UNITS. Those of attention are in layers with a map over positions, outputs in
        blocks, all others in activation functions that put out more than one position. ValueError
        if there are none.
    """
    parameter = next(model.parameters())
    image = torch.zeros(1, *resolve_model_data_config(model)["input_size"]).to(parameter)
    owner = type(model).__name__
    if unit == "output":
        if not (blocks := block_names(model)):
            raise ValueError(f"{owner} is not made of blocks: choose another unit.")
        return blocks
    if unit in ("attention", "contribution"):
        if not attention_layers(model):
            raise ValueError(f"{owner} has no attention to ablate: choose another unit.")
        with torch.no_grad(), AttentionProbe(model, rows="all", reduce=_shape) as probe:
            model(image)
        return [layer for layer in probe.results if "#" not in layer]
    if not activations(model):
        raise ValueError(f"{owner} has no activation functions among its modules to ablate.")
    with torch.no_grad(), ActivationRecorder(model, activations(model), _shape) as record:
        model(image)
    shapes = {layer: shapes[0] for layer, shapes in record.results.items() if "#" not in layer}
    return [layer for layer, shape in shapes.items() if sum(size > 1 for size in shape[1:]) > 1]


def _shape(layer: str, values: Tensor) -> torch.Size:
    return values.shape


def _unless_empty(batches: Iterable) -> Iterator | None:
    """The minibatches once through, or None if this rank has no images."""
    found = iter(batches)
    first = next(found, None)
    return None if first is None else chain([first], found)


def _means(model, batches, layers: list[str]) -> tuple[int, dict[str, Tensor]]:
    """How many images this rank has, and the means over them of what the layers hold."""
    seen = 0
    if (found := _unless_empty(batches)) is None:
        return 0, {}

    def images() -> Iterator[Tensor]:
        nonlocal seen
        for part, *_ in found:
            seen += len(part)
            yield part

    means = Ablator(model).fit_means(images(), layers)
    return seen, {layer: mean.cpu() for layer, mean in means.items()}


def _pooled(parts: list[tuple[int, dict[str, Tensor]]]) -> dict[str, Tensor]:
    """The means over the images of all ranks."""
    parts = [(n, means) for n, means in parts if n]
    total = sum(n for n, _ in parts)
    return {
        layer: sum(n / total * means[layer].double() for n, means in parts).float()
        for layer in parts[0][1]
    }


def _rows(parts: list[AblationProfile], seed: int) -> Iterator[dict]:
    """The curves, one row a point, then the summary, one row a number with its interval."""
    whole = AblationProfile.merged(parts)
    for point in whole.table().to_dict("records"):
        place = {key: point[key] for key in ("order", "k", "fraction")}
        for quantity in ("kl", "accuracy"):
            yield {"quantity": quantity, **place, "value": point[quantity], "n": len(whole.index)}
    for number in whole.summary(seed=seed).to_dict("records"):
        number["quantity"], number["value"] = number.pop("measure"), number.pop("estimate")
        yield number
