"""Running conditions over a data set: on one process or many, resumed where it stopped.

A *condition* is a model, trained or random, with the settings of one measurement; a *task* is what
is done to it. `Job` goes through the conditions that a results file does not hold yet.
"""

import gc
import os
import pickle
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils import data as torch_data
from tqdm import tqdm

from experiments.engine.provenance import provenance
from experiments.engine.ranks import RankLost, Ranks, outcome, unpack
from experiments.engine.results import IMAGES, Results, Summary, counted, recorded, sentence
from utils.models import zoo
from utils.models.checkpoints import sha256_of
from utils.models.precision import in_bf16
from utils.stimuli import datasets
from utils.stimuli.minibatches import Dataset

# What may go wrong with one model and not with the next.
ITS_OWN = (ValueError, TypeError, LookupError, RuntimeError, ArithmeticError, OSError)
# What starting or losing a process that reads images ends in.
READER_LOST = (RuntimeError, AttributeError, TypeError, pickle.PicklingError)
MOST_READERS = 4  # unless more are asked for


@dataclass(frozen=True)
class Condition:
    """One model, as trained or with random weights, and the settings of its measurement."""

    model: str
    random: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def keys(self) -> dict[str, Any]:
        """The columns that tell its rows from those of other conditions."""
        return {"model": self.model, "weights": "random" if self.random else "trained"} | (
            self.settings
        )

    @property
    def name(self) -> str:
        """Its name in a results file."""
        return " ".join(str(value) for value in self.keys.values())

    def load(self) -> nn.Module:
        """The model, in eval mode, on the CPU; raises what `zoo.load` and `zoo.create` raise."""
        return zoo.create(self.model) if self.random else zoo.load(self.model)

    @property
    def weights(self) -> str | None:
        """A hash of the weights; None for random ones, and for those that are not here yet."""
        if self.random:
            return None
        try:
            found = zoo.fingerprint(self.model)
        except (ValueError, LookupError):  # `load` says why there is no such model
            return None
        return found and found[:12]


@dataclass(frozen=True)
class FromFile(Condition):
    """A model with weights from a safetensors file, as they are or, if random, with others.

    num_classes : see `zoo.load_file`
    """

    file: Path = Path()
    num_classes: int | None = None

    def load(self) -> nn.Module:
        """The model, in eval mode, on the CPU; raises what `zoo.load_file` and `create` raise."""
        if self.random:
            return zoo.create(self.model, self.num_classes)
        return zoo.load_file(self.model, self.file, self.num_classes)

    @property
    def weights(self) -> str | None:
        """A hash of the weights in the file; None for random ones."""
        if self.random or not self.file.is_file():
            return None
        return _hashed(self.file, self.file.stat().st_mtime_ns)[:12]


@cache
def _hashed(file: Path, changed: int) -> str:
    """The hash of a file, which may be large and is asked for by every condition."""
    return sha256_of(file)


class Task(Protocol):
    """What is done to a condition. `columns` are those of its table after the condition's keys."""

    columns: Sequence[str]

    def run(
        self, model: nn.Module, condition: Condition, batches: "Batches", ranks: Ranks
    ) -> tuple[list[dict], dict] | None:
        """Measure, and bring the ranks' parts together: rows and notes on rank 0, None elsewhere.

        May go through `batches` more than once.
        """

    def plan(self, model: nn.Module, condition: Condition, batches: "Batches") -> str:
        """One line on what will be done."""


def opened(data: Dataset) -> Callable[[nn.Module], Dataset]:
    """What prepares the images for a model, as a Job wants it.

    The labels of a cue conflict are not meant to be the model's classes.
    """
    return data.preprocessed if data.source in datasets.CUE_CONFLICTS else data.prepared_for


def first(data: Dataset, n: int | None, declared: int | None = None) -> Dataset:
    """The first n images; unless n is given as many as are declared, as far as there are so many.

    Raises ValueError if there are fewer than n.
    """
    if n is not None and n > len(data):
        raise ValueError(
            f"{data.source} has {len(data):,} images, fewer than the {n:,} asked for: ask for no "
            "more than there are."
        )
    return data.subset(range(min(n or declared or len(data), len(data))), data.source)


class _Reading(torch_data.Dataset):
    """Minibatches by their rows, each as the outcome of reading it."""

    def __init__(self, data: Dataset) -> None:
        self.data = data

    def __getitems__(self, rows: range) -> Any:
        return outcome(lambda: self.data.read(rows))


def _joined(parcel: Any) -> Any:
    return parcel  # in one piece already


class Batches:
    """The minibatches of one rank, on its device: (images, labels, index), with a progress bar.

    Minibatch j holds the images jB … jB + B − 1, whichever rank takes it and whichever process
    reads it; damaged images are left out of it, and named once. There are `count` minibatches over
    all ranks. `seconds` is what all passes took.

    readers : processes that read images while the network runs; 0 reads them in between. None:
        some for files where the network runs on a GPU, which would wait, and otherwise 0
    """

    def __init__(
        self,
        data: Dataset,
        size: int,
        count: int,
        ranks: Ranks,
        label: str = "",
        readers: int | None = None,
    ) -> None:
        self.data, self.size, self.count, self.ranks = data, size, count, ranks
        self.label, self.seconds = label, 0.0
        if readers is None:
            waiting = ranks.device.type == "cuda" and data.names is not None
            readers = min(MOST_READERS, os.cpu_count() or 1) if waiting else 0
        self.readers = readers

    def __len__(self) -> int:
        return len(self.ranks.mine(self.count))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        started = time.perf_counter()
        shown = self.ranks.main and self.label and sys.stderr.isatty()
        options = dict(total=len(self), unit="batch", leave=False, disable=not shown)
        for parcel in tqdm(self._parcels(), self.label, **options):
            batch, damaged = unpack(parcel)
            self.data.leave_out(damaged)
            if len(batch.index):
                yield tuple(part.to(self.ranks.device, non_blocking=True) for part in batch)
        self.seconds += time.perf_counter() - started

    def _parcels(self) -> Iterator[Any]:
        """What a data set's `read` gives for each minibatch, as an `outcome`."""
        images = range(len(self.data))
        rows = [images[j * self.size : (j + 1) * self.size] for j in self.ranks.mine(self.count)]
        loader = torch_data.DataLoader(
            _Reading(self.data),
            batch_sampler=rows,
            num_workers=min(self.readers, len(rows)),
            collate_fn=_joined,
            pin_memory=self.ranks.device.type == "cuda",
            generator=torch.Generator(),  # of its own: it would draw from the global one
        )
        try:
            yield from loader
        except READER_LOST as error:
            reason = str(error).strip().splitlines()[0]
            raise RuntimeError(
                f"The processes that read images failed ({reason}): try again with fewer, or with "
                "none by --readers 0."
            ) from error

    def damaged(self) -> list[str]:
        """The damaged images that any rank came across, by name; on every rank."""
        found = self.ranks.everywhere(list(self.data.damaged))
        return sorted({name for part in found for name in part})


class Job:
    """Conditions, what is done to each, and the file that takes the results.

    open_data : gives the data set for a model, with its preprocessing
    n, size : how many images the data set has, and how many make a minibatch
    file, configuration : see Results; n, size and `images`, the digest of the data set, are added
        to the configuration
    readers : see Batches; the table is the same for any number
    bf16 : whether products with weights are in bfloat16, see `precision.in_bf16`; the configuration
        says so

    Any number of ranks gives the same table, for a minibatch holds the same images on every one.
    Raises what Results raises.
    """

    def __init__(
        self,
        conditions: Sequence[Condition],
        task: Task,
        open_data: Callable[[nn.Module], Dataset],
        n: int,
        size: int,
        file: Path,
        configuration: dict,
        ranks: Ranks,
        readers: int | None = None,
        images: str | None = None,
        bf16: bool = False,
    ) -> None:
        self.bf16 = bf16
        self.conditions, self.task, self.open_data = conditions, task, open_data
        self.n, self.size, self.ranks, self.readers = n, size, ranks, readers
        self.count = -(-n // size)  # minibatches
        columns = (*conditions[0].keys, *task.columns)
        configuration = {**configuration, "n": n, "batch": size}
        if images is not None:
            configuration[IMAGES] = images
        if bf16:
            configuration["precision"] = "products with weights in bf16"

        # Rank 0 writes, the others know.
        self.results = ranks.on_main(lambda: Results(file, columns, configuration))
        self.todo = ranks.on_main(self._lacking)

    def _lacking(self) -> list[Condition]:
        return [c for c in self.conditions if not self.results.holds(c.name, c.weights)]

    def _begin(self) -> list[Condition]:
        self.results.begin({**provenance(self.ranks.device), "ranks": self.ranks.world})
        return self._lacking()  # another command may have measured some in the meantime

    def run(self) -> Summary:
        """Measure what is missing; every finished condition is on disk before the next begins.

        A condition that fails is named in the summary, and the next one is tried. Ctrl-C, a full
        disk (NotWritten) and a rank that dies (RankLost) end the job with a sentence that says
        what is safe. BlockingIOError, before anything is measured, where another process writes
        the same file.
        """
        failed: dict[str, str] = {}
        try:
            if self.todo:
                self.todo = self.ranks.on_main(self._begin)
            for i, condition in enumerate(self.todo):
                try:
                    self._measure(condition, f"{i + 1}/{len(self.todo)} {condition.name}")
                except ITS_OWN as error:
                    failed[condition.name] = sentence(error)
                gc.collect()  # what refers to itself, as metrics do, would keep its memory
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"The job was interrupted: {self._safe()}") from None
        except RankLost as error:
            raise RankLost(f"{error} {self._safe()}") from None
        finally:
            self.results.close()
        return self.ranks.on_main(lambda: self._summary(failed))

    def _summary(self, failed: dict[str, str]) -> Summary:
        finished = self.results.finished
        damaged = {image for record in finished.values() for image in record["damaged"]}
        measured = len(self.todo) - len(failed)
        return Summary(self.results.file, len(finished), measured, failed, sorted(damaged))

    def _safe(self) -> str:
        held = recorded(self.results.file)  # only rank 0 knows without looking there
        safe = sum(condition.name in held for condition in self.conditions)
        return (
            f"{safe} of {counted(len(self.conditions), 'condition')} "
            f"safe in {self.results.file}, and the same command goes on from there."
        )

    def _measure(self, condition: Condition, label: str) -> None:
        started = time.perf_counter()
        model, batches = self._start(condition, self.count, label)
        rows, notes = self.task.run(model, condition, batches, self.ranks)
        record = {
            "weights": condition.weights,
            "seconds": round(time.perf_counter() - started, 2),
            "damaged": batches.damaged(),
            **notes,
        }

        def add() -> None:
            if not rows:
                lost = f"{len(record['damaged'])} of {counted(self.n, 'image')} could not be read"
                raise ValueError(f"There is nothing to record: {lost}.")
            found = [{**condition.keys, **row} for row in rows]
            self.results.add(condition.name, found, record)

        self.ranks.on_main(add)

    def _start(
        self, condition: Condition, count: int, label: str = ""
    ) -> tuple[nn.Module, Batches]:
        def start() -> tuple[nn.Module, Batches]:
            model = condition.load()
            data = self.open_data(model)
            model = model.to(self.ranks.device)
            model = in_bf16(model) if self.bf16 else model
            return model, Batches(data, self.size, count, self.ranks, label, self.readers)

        return self.ranks.together(start)

    def plan(self) -> Iterator[str]:
        """What `run` would do, line by line, with the time that one minibatch of each condition
        took; writes nothing."""
        conditions = counted(len(self.conditions), "condition")
        yield f"{self.results.file}: {conditions} on {counted(self.n, 'image')}."
        ranks = counted(self.ranks.world, "process", "processes")
        yield f"{counted(self.count, 'minibatch', 'minibatches')} of {self.size} on {ranks}."
        waiting = {condition.name for condition in self.todo}
        total = 0.0
        for condition in self.conditions:
            if condition.name not in waiting:
                yield f"  {condition.name}: finished"
                continue
            model, batches = self._start(condition, min(self.count, self.ranks.world))
            self.task.run(model, condition, batches, self.ranks)
            seconds = batches.seconds * len(self.ranks.mine(self.count))
            total += seconds
            plan = self.task.plan(model, condition, batches)
            yield f"  {condition.name}: {plan}; about {seconds:.0f} s"
        yield f"About {total:.0f} s in all, and the loading of models."
