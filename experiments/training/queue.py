"""Training many models, one after another or several at once, each published when it is done."""

import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from experiments.training import groups
from experiments.training.recipes import Recipe
from experiments.training.trainer import publish, train
from experiments.training.views import Fixed, Fresh
from utils.fetching import ROOT
from utils.models import zoo
from utils.stimuli import datasets, objects

# What may go wrong with one model and not with the next.
ITS_OWN = (FloatingPointError, BlockingIOError, ValueError, RuntimeError)


class Splits(NamedTuple):
    """The images that the models of one rung are trained, watched and tested on, and what they are
    exactly, such as "cifar10-jpeg"."""

    train: object
    validation: object
    test: object
    source: str


@cache
def splits(rung: str) -> Splits:
    """The training, validation and test images of a rung, in memory; loaded once a process."""
    names = ("train", "validation", "test")
    if rung == "objects":
        train = Fresh(objects.SPLITS["train"], ROOT / "_runs" / "rendered")
        held_out = [datasets.load(f"{rung}/{split}") for split in names[1:]]
        return Splits(train, *(split.everything() for split in held_out), rung)
    loaded = [datasets.load(f"{rung}/{split}") for split in names]
    source = loaded[0].source.partition("/")[0]
    train, *held_out = (split.everything() for split in loaded)
    return Splits(Fixed(train.images, train.labels), *held_out, source)


def _train(name: str, recipe: Recipe | None, out: Path) -> Path:
    images = splits(zoo.spec(name).rung)
    return train(name, images.train, images.validation, recipe, out, images.source)


def put_into_zoo(name: str, run: Path) -> float:
    """Publish a finished run, with its weights if the zoo keeps them; its accuracy in [0, 1]."""
    return publish(run, splits(zoo.spec(name).rung).test, kept=groups.keeps(name))


def work(
    names: list[str],
    out: Path = Path("_runs"),
    recipe: Recipe | None = None,
    workers: int = 1,
    published: bool = True,
) -> dict[str, str]:
    """Train the models called `names` in this order, and put each into the zoo when it is done.

    recipe : None for each family's own; `workers` models at a time, each in a process of its own
    returns the names that failed → why; the others are finished

    What was begun is gone on with, and what is finished is not trained again; an interruption
    loses at most the epochs in progress.
    """
    failed = {}

    def finish(name: str, run: Path) -> None:
        if published:
            measured = put_into_zoo(name, run)
            tqdm.write(f"{name} is in the zoo: {measured:.1%} of the test images right.")

    if workers == 1:
        for name in tqdm(names, "models", disable=None):
            try:
                finish(name, _train(name, recipe, out))
            except ITS_OWN as error:
                failed[name] = str(error)
        return failed
    threads = max(1, torch.get_num_threads() // workers)
    with ProcessPoolExecutor(
        workers, get_context("spawn"), torch.set_num_threads, (threads,)
    ) as pool:
        runs = {pool.submit(_train, name, recipe, out): name for name in names}
        try:
            for run in tqdm(as_completed(runs), "models", len(runs), disable=None):
                try:
                    finish(runs[run], run.result())
                except ITS_OWN as error:
                    failed[runs[run]] = str(error)
                    print(f"{runs[run]} failed: {error}", file=sys.stderr)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    return failed
