"""`python -m experiments ablate`: what a model loses as units of some layers are removed."""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from experiments.engine.scopes import at_scope
from utils.measures.ablation.curves import FIXED, kept
from utils.measures.ablation.outcomes import Others
from utils.measures.ablation.profiling import AblationProfile, ablation_profile
from utils.measures.ablation.reliance import Reliance, reliance
from utils.measures.ablation.units import mean_responses, units_of
from utils.probes import Ablator, ActivationRecorder, AttentionProbe, attention_layers
from utils.probes.ablation.draws import keyed_others
from utils.probes.anatomy import activation_layers, block_names

UNITS = {
    "attention": "what the class row (or all rows) attends to, patch by patch in each head",
    "head": "whole heads, as the class row (or all rows) reads them",
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
PLACED = ("attention", "contribution", "position", "output")  # units with a place in the image
VALUES = ("zero", "mean", "renormalise", "resample")
ORDERS = {
    "own": "response",
    "head-averaged": "head-averaged",
    "contribution": "contribution",
    "centre": "centre",
    "mean-map": "mean map",
}
COLUMNS = ("quantity", "order", "k", "fraction", "value", "low", "high", "n", "note")


class Ablate:
    """The task of `python -m experiments ablate` (see `run.Task`).

    A condition's settings: `unit` of UNITS, `scope` of layers.SCOPES, `replaced_by` of VALUES, and
    maybe `ordered_by` of ORDERS.
    ranks : at most so many points on a curve; draws : random orders; seed : of these
    images : only the first so many are profiled; means, other images and whether there is any
        reliance are of all
    """

    def __init__(self, ranks: int, draws: int, seed: int, images: int | None = None) -> None:
        self.ranks, self.draws, self.seed, self.images = ranks, draws, seed, images
        self.columns = COLUMNS

    def run(self, model, condition, batches, ranks) -> tuple[list[dict], dict]:
        """Curves and summary, from all ranks' images, and the layers they are of."""
        unit, scope, value = (condition.settings[k] for k in ("unit", "scope", "replaced_by"))
        profiled = _profiled(unit, condition.settings.get("ordered_by", "own"))
        layers = ranks.together(lambda: at_scope(ablatable(model, unit), scope))
        options = dict(profiled, ranks=self.ranks, draws=self.draws, seed=self.seed)
        options["place_draws"] = self.draws if profiled["unit"] == "attention" else 0
        options["fixed"] = FIXED if unit in PLACED else ("mean map",)

        def averaged(measure: Callable[[Iterable], dict[str, Tensor]]) -> dict[str, Tensor]:
            return _pooled(ranks.everywhere(ranks.together(lambda: _averaged(batches, measure))))

        means = {}
        if value == "mean":
            means = averaged(lambda found: Ablator(model).fit_means(found, layers))
        if "mean map" in (options.get("order"), *options.get("fixed", ())):
            own = {k: v for k, v in profiled.items() if v not in FIXED}
            units = units_of(model, layers, **own, seed=self.seed)
            options["means"] = averaged(lambda found: mean_responses(units, found))
        self.ablator = Ablator(model, means)
        shared = dict(value=value, ablator=self.ablator)
        if value == "resample":
            shared["others"] = _others(batches.data, self.seed)

        def profile() -> AblationProfile | None:
            if (found := _unless_empty(_first(batches, self.images))) is not None:
                return ablation_profile(model, found, layers, **shared, **options)

        def relied() -> Reliance | None:
            if (found := _unless_empty(batches)) is not None:
                return reliance(model, found, layers, profiled["unit"], **shared)

        parts = ranks.gather(ranks.together(profile))
        everything = ranks.gather(ranks.together(relied))

        def table() -> tuple[list[dict], dict]:
            whole = AblationProfile.merged([part for part in parts if part])
            known = [part for part in everything if part]
            known = Reliance.merged(known)
            notes = {"layers": layers}
            if kept(whole.ranks):
                notes["sentence"] = whole.sentence(reliance=known)
            return list(_rows(whole, self.seed, known)), notes

        return ranks.on_main(table)

    def plan(self, model, condition, batches) -> str:
        """How the ablations of the last `run` were done."""
        ablator = self.ablator
        return (
            f"{' + '.join(ablator.ran)}, {ablator.ran.total()} ablations and "
            f"{ablator.block_calls} block calls a minibatch"
        )


def ablatable(model: nn.Module, unit: str) -> list[str]:
    """The layers that have such units, in the order in which the model comes to them.

    unit : one of UNITS. Heads and what they attend to are in layers with a map over positions,
        outputs in blocks, all others in activation functions that put out more than one position.
        ValueError if there are none.
    """
    parameter = next(model.parameters())
    image = torch.zeros(1, *resolve_model_data_config(model)["input_size"]).to(parameter)
    owner = type(model).__name__
    if unit == "output":
        if not (blocks := block_names(model)):
            raise ValueError(f"{owner} is not made of blocks: choose another unit.")
        return blocks
    if unit in ("attention", "contribution", "head"):
        if not attention_layers(model):
            raise ValueError(f"{owner} has no attention to ablate: choose another unit.")
        with torch.no_grad(), AttentionProbe(model, rows="all", reduce=_shape) as probe:
            model(image)
        return [layer for layer in probe.results if "#" not in layer]
    if not activation_layers(model):
        raise ValueError(f"{owner} has no activation functions among its modules to ablate.")
    with torch.no_grad(), ActivationRecorder(model, activation_layers(model), _shape) as record:
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


def _first(batches: Iterable, images: int | None) -> Iterator:
    """The minibatches as far as their images are among the first so many (all if None)."""
    for part in batches:
        if images is None:
            yield part
            continue
        chosen = part[-1] < images
        if not chosen.any():  # a rank comes to its minibatches in order
            return
        yield tuple(each[chosen.to(each.device)] for each in part)


def _profiled(unit: str, order: str) -> dict:
    """What `ablation_profile` calls a unit and an order; ValueError if they do not go together."""
    named = PROFILED.get(unit, {"unit": unit})
    if order == "own":
        return named
    if "order" in named:
        raise ValueError(f"The unit {unit!r} has an order of its own: leave {order!r} out.")
    return named | {"order": ORDERS[order]}


def _averaged(
    batches: Iterable, measure: Callable[[Iterable], dict[str, Tensor]]
) -> tuple[int, dict[str, Tensor]]:
    """How many images this rank has, and what `measure` finds on average over them."""
    seen = 0
    if (found := _unless_empty(batches)) is None:
        return 0, {}

    def counted() -> Iterator:
        nonlocal seen
        for part in found:
            seen += len(part[0])
            yield part

    means = measure(counted())
    return seen, {layer: mean.cpu() for layer, mean in means.items()}


def _others(data, seed: int) -> Others:
    """Gives each image of a data set another one of it; the next where that is damaged."""

    def image(own: int, chosen: int) -> Tensor:
        for i in range(len(data)):
            at = (chosen + i) % len(data)
            images, _, index = data.batch(at, 1)
            if len(index) and at != own:
                return images
        raise ValueError("There is no undamaged image but the one that is ablated.")

    def others(index: Tensor) -> Tensor:
        index = index.cpu()
        pairs = zip(index.tolist(), keyed_others(seed, index, len(data)).tolist(), strict=True)
        return torch.cat([image(*pair) for pair in pairs])

    return others


def _pooled(parts: list[tuple[int, dict[str, Tensor]]]) -> dict[str, Tensor]:
    """The means over the images of all ranks."""
    parts = [(n, means) for n, means in parts if n]
    total = sum(n for n, _ in parts)
    return {
        layer: sum(n / total * means[layer].double() for n, means in parts).float()
        for layer in parts[0][1]
    }


def _rows(whole: AblationProfile, seed: int, known: Reliance) -> Iterator[dict]:
    """The curves, one row a point, then the summary, one row a number with its interval."""
    for point in whole.table().to_dict("records"):
        place = {key: point[key] for key in ("order", "k", "fraction")}
        for quantity in ("kl", "accuracy", "margin", "mass"):
            yield {"quantity": quantity, **place, "value": point[quantity], "n": len(whole.index)}
    for number in whole.summary(seed=seed, reliance=known).to_dict("records"):
        number["quantity"], number["value"] = number.pop("measure"), number.pop("estimate")
        yield number
