"""How similar the representations of two models are, at the same relative depth."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch
from timm.data import resolve_model_data_config
from torch import nn

from experiments.engine.job import Condition
from experiments.engine.metrics import Metrics, merged
from experiments.engine.scopes import at_depth
from experiments.tasks.tables import COLUMNS
from utils.measures.similarity import FEWEST, MinibatchCKA
from utils.probes import ActivationRecorder
from utils.probes.anatomy import block_names


@dataclass(frozen=True)
class Pair(Condition):
    """A model beside another one, which the setting "beside" names: see `of`."""

    one: Condition | None = None
    other: Condition | None = None

    @classmethod
    def of(cls, one: Condition, other: Condition) -> Self:
        """The pair of two models."""
        return cls(one.model, one.random, {**one.settings, "beside": other.model}, one, other)

    def load(self) -> nn.Module:
        """The first model; the task loads the other."""
        return self.one.load()

    @property
    def weights(self) -> str | None:
        """A hash of the weights of both, where the zoo states one."""
        hashes = [one.weights for one in (self.one, self.other)]
        return None if None in hashes else "+".join(hashes)


class Compare:
    """The task of pairs (see `run.Task`): CKA of all blocks of one model and all of the other.

    The conditions are `Pair`s. "cka" of every two blocks; "matched_cka" of every block and the one
    of the other model at the same relative depth. The minibatches are the same for both: ValueError
    where the models do not want their images prepared in the same way. Nothing is drawn: `seed` is
    taken as other tasks take it.
    """

    columns = COLUMNS

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def run(self, model, condition, batches, ranks) -> tuple[list[dict], dict]:
        """Read this rank's minibatches; the table on every rank."""

        def read() -> Metrics:
            other = condition.other.load().to(ranks.device)
            _check(model, other, condition)
            here = Metrics()
            for images, *_ in batches:
                if len(images) >= FEWEST:
                    cka = here.of(("cka",), MinibatchCKA)
                    cka.update(_blocks(model, images), _blocks(other, images))
                    here.of(("images",)).update(torch.zeros(len(images)))
            return here.parcel()

        parts = ranks.gather(ranks.together(read))
        return ranks.on_main(lambda: (list(rows(merged(parts))), {}))

    def plan(self, model, condition, batches) -> str:
        """What is compared with what."""
        return f"CKA with the blocks of {condition.other.model}"


@torch.inference_mode()
def _blocks(model: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    with ActivationRecorder(model, block_names(model)) as record:
        model(images)
    return record.outputs


def _check(model: nn.Module, other: nn.Module, condition: Condition) -> None:
    wanted = [resolve_model_data_config(each) for each in (model, other)]
    if different := [key for key in wanted[0] if wanted[0][key] != wanted[1].get(key)]:
        raise ValueError(
            f"{condition.model} and {condition.other.model} want their images prepared in other "
            f"ways ({', '.join(different)}): compare models that see the same images."
        )


def rows(metrics: Metrics) -> Iterator[dict]:
    """The table, with the columns of `measure`: `layer` is of the first model, `other` of the
    second; n counts images."""
    n = metrics["images",].compute().stimuli
    cka = metrics["cka",]
    (blocks, others), matrix = cka.names, cka.compute()
    for i, block in enumerate(blocks):
        depth = (i + 1) / len(blocks)
        found = dict(zip(others, matrix[i].tolist(), strict=True))
        matched = at_depth(others, depth)
        for quantity, each in (("cka", found), ("matched_cka", {matched: found[matched]})):
            for other, value in each.items():
                place = {"quantity": quantity, "layer": block, "other": other, "depth": depth}
                yield {**place, "value": value, "n": n}
