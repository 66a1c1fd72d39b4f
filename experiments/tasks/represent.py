"""`python -m experiments represent`: what a model's representations are like, block by block."""

from collections.abc import Iterator

import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from experiments.engine.metrics import Metrics, left_out, merged, planned
from experiments.tasks.tables import COLUMNS
from utils.measures.agreement import agreement, patch_maps
from utils.measures.decoding import PlaceDecoder
from utils.measures.frequency import change_across_sub_blocks
from utils.measures.receptive_field import field_of, relative_radius
from utils.measures.similarity import FEWEST, MinibatchCKA
from utils.probes import ActivationRecorder, attention_layers, keyed_orders
from utils.probes.anatomy import block_names, interior_and_edge, middle_block, places
from utils.probes.skips import without_skip

MEASURES = {
    "agreement": "rank correlation of attention maps between heads and between layers",
    "field": "effective receptive field of each block, as a share of a uniform field",
    "frequency": "what each sub-block does to the highest spatial frequency",
    "location": "how well a final token's own place can be decoded",
    "skips": "CKA of all blocks and the last without a middle skip connection, or block",
}
FIELD_EVERY = 5  # of the images: fields cost a backward pass for every block


class Representation:
    """What is read of one model in two passes, in memory that does not grow.

    measures : names from MEASURES; those that the model has nothing for are left out and named
        with the reason in `skipped`
    seed : decides, with the index of an image, which half it belongs to for `location`

    `learn(images, index)` for every minibatch of the first pass; `metrics`, merged over ranks, then
    go into `know`; `update(images, index)` for every minibatch of the second, and `metrics`,
    merged again, into `rows`.
    """

    def __init__(self, model: nn.Module, measures: list[str], seed: int = 0) -> None:
        self.model, self.seed, self.blocks = model, seed, block_names(model)
        self.metrics = Metrics()
        self.middle = middle_block(model)
        chain = None if len(self.blocks) > 1 else "the model is not made of blocks"
        lacking = {
            "agreement": None if attention_layers(model) else "the model has no attention",
            "field": chain,
            "frequency": _no_frequency(model) if "frequency" in measures else None,
            "location": chain,
            "skips": None if self.middle else "no block in the middle has skips to remove",
        }
        self.skipped = {name: lacking[name] for name in measures if lacking[name]}
        self.measures = [name for name in measures if name not in self.skipped]

    def _final(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        last = self.blocks[-1]
        with ActivationRecorder(self.model, last) as record:
            self.model(images)
        size = images.shape[-2], images.shape[-1]
        return places(self.model, last, record.outputs[last], size)[:2]

    def _half(self, index: Tensor) -> Tensor:
        return keyed_orders(self.seed, index, 0, (2,))[:, 0].cpu()

    @torch.inference_mode()
    def learn(self, images: Tensor, index: Tensor) -> None:
        """Add a minibatch to the mean maps and to what places are decoded by."""
        if "agreement" in self.measures:
            for layer, maps in patch_maps(self.model, images).items():
                self.metrics.of(("map", layer)).update(maps)
        if "location" in self.measures:
            (tokens, grid), half = self._final(images), self._half(index)
            for group, numbers in interior_and_edge(grid).items():
                for number in (0, 1):
                    metric = self.metrics.of(("decoder", group, number), PlaceDecoder)
                    metric.update(tokens.cpu()[half == number][:, numbers])

    def know(self, metrics: Metrics) -> None:
        """Take what all ranks have learnt."""
        self.metrics = Metrics()
        self.means = {key[1]: m.compute().mean for key, m in metrics.items() if key[0] == "map"}
        self.decoders = {key[1:]: m for key, m in metrics.items() if key[0] == "decoder"}

    def update(self, images: Tensor, index: Tensor) -> None:
        """Add a minibatch to the metrics."""
        if "field" in self.measures:
            few = images[::FIELD_EVERY]
            for block in self.blocks:
                field, centre = field_of(self.model, few, block)
                self.metrics.of(("field", block, None, centre)).update(
                    field.expand(len(few), -1, -1)
                )
        with torch.inference_mode():
            if "agreement" in self.measures:
                self._agreement(patch_maps(self.model, images))
            if "frequency" in self.measures:
                for kind, found in change_across_sub_blocks(self.model, images).items():
                    for name, values in found.items():
                        self.metrics.of(("frequency", name, None, kind)).update(values)
            if "location" in self.measures:
                self._location(*self._final(images), self._half(index))
            if "skips" in self.measures and len(images) >= FEWEST:
                self._skips(images)

    def _agreement(self, maps: dict[str, Tensor]) -> None:
        centred = {layer: x - self.means[layer] for layer, x in maps.items()}
        for kind, each in {"raw": maps, "centred": centred}.items():
            for place, values in agreement(each):
                self.metrics.of((*place, kind)).update(values)

    def _location(self, tokens: Tensor, grid: tuple[int, int], half: Tensor) -> None:
        for group, numbers in interior_and_edge(grid).items():
            chance = 1 / len(numbers)
            for number in (0, 1):  # decoded by what the other half has taught
                own = tokens.cpu()[half == number][:, numbers]
                guessed = self.decoders[group, 1 - number].decode(own)
                hits = (guessed == torch.arange(len(numbers))).double().mean(1)
                place = (self.blocks[-1], None, group)
                self.metrics.of(("location", *place)).update((hits - chance) / (1 - chance))
                self.metrics.of(("location_chance", *place)).update(torch.full((len(own),), chance))

    def _skips(self, images: Tensor) -> None:
        name, skips = self.middle
        last = self.blocks[-1]
        self.metrics.of(("images",)).update(torch.zeros(len(images)))
        for what in ("intact", *skips, "block"):
            block = self.model.get_submodule(name)
            with without_skip(block, what), ActivationRecorder(self.model, self.blocks) as record:
                self.model(images)
            values = record.outputs
            self.metrics.of(("skips", what), MinibatchCKA).update(values, {last: values[last]})


def _no_frequency(model: nn.Module) -> str | None:
    image = torch.rand(1, *resolve_model_data_config(model)["input_size"])
    try:
        change_across_sub_blocks(model, image.to(next(model.parameters())))
    except ValueError as error:
        return str(error)
    return None


def rows(metrics: Metrics) -> Iterator[dict]:
    """The table, with the columns of `measure`: one row a number.

    unit : of agreements "raw" or "centred" (less the mean map over images), of frequencies the kind
        of sub-block, of location "interior" or "edge"
    `depth` is the layer's place among its like, in (0, 1]; n counts images.
    """
    like: dict[str, dict] = {}
    for quantity, *where in metrics:
        if where and where[0] is not None:
            like.setdefault(quantity, {}).setdefault(where[0], len(like[quantity]) + 1)
    for (quantity, *where), metric in metrics.items():
        if quantity in ("images", "skips"):
            continue
        found, (layer, other, unit) = metric.compute(), where
        place = {"layer": layer, "other": other}
        if layer is not None:
            place["depth"] = like[quantity][layer] / len(like[quantity])
        if quantity == "field":  # its unit is the point that it is about
            value = relative_radius(found.mean, unit)
            yield {"quantity": "field_radius", **place, "value": value, "n": found.stimuli}
            continue
        numbers = {name: getattr(found, name).item() for name in ("sd", "se", "undefined")}
        place |= {"unit": unit, "value": found.mean.item(), "n": found.stimuli}
        yield {"quantity": quantity, **place, **numbers}


def skip_rows(metrics: Metrics, middle: str) -> Iterator[dict]:
    """The rows of `skips`: "skip_cka" of every block and the last, in the intact model and without
    what `unit` says of the `middle` block, and "skip_fall", by how much less the blocks before it
    are then like the last, on average."""
    n = metrics["images",].compute().stimuli
    found = {key[1]: metric for key, metric in metrics.items() if key[0] == "skips"}
    intact = found["intact"].compute()[:, 0]
    for what, metric in found.items():
        blocks, cka = metric.names[0], metric.compute()[:, 0]
        for i, (block, value) in enumerate(zip(blocks, cka.tolist(), strict=True)):
            place = {"layer": block, "other": blocks[-1], "depth": (i + 1) / len(blocks)}
            yield {"quantity": "skip_cka", **place, "unit": what, "value": value, "n": n}
        if what != "intact":
            at = blocks.index(middle)
            place = {"layer": middle, "other": blocks[-1], "depth": (at + 1) / len(blocks)}
            fall = (intact - cka)[:at].mean().item()
            yield {"quantity": "skip_fall", **place, "unit": what, "value": fall, "n": n}


class Represent:
    """The task of `python -m experiments represent` (see `run.Task`): `measures` from MEASURES."""

    def __init__(self, measures: list[str], seed: int) -> None:
        self.measures, self.seed, self.columns = measures, seed, COLUMNS

    def run(self, model, condition, batches, ranks) -> tuple[list[dict], dict]:
        """Read this rank's minibatches twice; the table and what was left out, on every rank."""

        def learn() -> Representation:
            here = Representation(model, self.measures, self.seed)
            if {"agreement", "location"} & {*here.measures}:
                for images, _, index in batches:
                    here.learn(images, index)
            return here

        def read() -> None:
            here.know(merged(learnt))
            for images, _, index in batches:
                here.update(images, index)

        here = ranks.together(learn)
        learnt = ranks.everywhere(here.metrics.parcel())
        ranks.together(read)
        parts = ranks.gather(here.metrics.parcel())

        def table() -> tuple[list[dict], dict]:
            whole = merged(parts)
            skips = skip_rows(whole, here.middle[0]) if ("images",) in whole else ()
            return [*rows(whole), *skips], left_out(here.skipped)

        return ranks.on_main(table)

    def plan(self, model, condition, batches) -> str:
        """Which measures, and which are left out and why."""
        here = Representation(model, self.measures, self.seed)
        return planned(here.measures, here.skipped, " in two passes")
