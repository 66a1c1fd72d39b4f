"""Counts, seeds, paths and names on the command line that cannot be meant."""

import os
from itertools import product
from pathlib import Path
from unittest.mock import patch

import pandas as pd

from experiments import replicate as replicating
from experiments.engine.results import RESULTS
from experiments.training import queue
from faults.case import Case, command
from faults.cases.records import pictures
from utils.models import zoo
from utils.stimuli import datasets, objects

MEASURING = ("measure", "represent", "behave", "ablate")
NO_COUNT = ("0", "-1", "1.5", "many", "", "1e3", "nan", "0x10", "9" * 5000)
NO_SEED = ("-1", "1.5", "x", "", str(2**32), "9" * 30)
NO_FILE = ("", ".", "..", "tables/", "/")
NO_NAME = ("vit-d2-h5", "vit6", "", " ", "resnet_18", "../../etc/passwd", "http://a/b", "x" * 3000)


def refused(name: str, *arguments: object, says: tuple[str, ...] = (), **kept) -> Case:
    """A command that must be answered with one sentence."""
    shown = " ".join(repr(a)[:24] if len(str(a)) > 24 or not a else str(a) for a in arguments)
    return Case(f"{name} {shown}", lambda _: command(name, *arguments), says=says, **kept)


def nothing_made(folder: Path) -> bool:
    return not [*folder.iterdir()]


COUNTS = [
    refused(name, "vit-d2-h4", option, value, says=(option,), kept=nothing_made)
    for name, (option, values) in product(
        MEASURING,
        {
            "-n": NO_COUNT,
            "--batch": ("0", "-5", "x", "2.5"),
            "--seed": NO_SEED,
            "--readers": ("-1", "x", "100000"),
            "--out": NO_FILE,
        }.items(),
    )
    for value in values
]
COUNTS += [
    refused("ablate", "vit-d2-h4", option, value, says=(option,), kept=nothing_made)
    for option, values in {
        "--ranks": ("0", "1", "2", "-3", "x"),
        "--draws": ("0", "-1", "x"),
        "--scope": ("middle", "0.5", ""),
        "--value": ("one", "mean zero"),
        "--unit": ("pixel", ""),
        "--order": ("best",),
    }.items()
    for value in values
]
COUNTS += [
    refused("train", option, value, says=(option,), kept=nothing_made)
    for option, values in {
        "--workers": ("0", "-1", "all", "1000000"),
        "--group": ("head", ""),
        "--set": (
            *("lr", "lr=", "lr=x", "lr=nan", "lr=inf", "lr=-1", "rate=1", "=", ""),
            *("batch_size=0", "batch_size=1.5", "cosine=maybe", "optimizer=adamx", "branches=1"),
        ),
    }.items()
    for value in values
]
COUNTS += [
    refused("replicate", option, value, says=(option,), kept=nothing_made)
    for option, values in {
        "-n": ("0", "few"),
        "--rung": ("cifar", ""),
        "--loss": ("x", ""),
        "--readers": ("-1",),
    }.items()
    for value in values
]

MISSING = [
    *(refused(name, says=("MODEL",)) for name in MEASURING),
    *(refused(name, "vit-d2-h4", "--nothing", says=("--nothing",)) for name in MEASURING),
    *(
        refused(name, "vit-d2-h4", "--measures", "gini", says=("gini",))
        for name in ("measure", "represent", "behave")
    ),
    refused("measures", "vit-d2-h4", says=("measures",)),
    refused("replicate", "tinny", says=("no experiment 'tinny'",)),
    refused("replicate", "accuracy", "--loss", "0.7", says=("0.7 nats", "0.8")),
    refused("replicate", "accuracy", "--loss", "nan", says=("nan nats",)),
    refused("replicate", "accuracy", "--data", "x", says=("leave --data out",)),
    refused("replicate", "-n", "3", "accuracy", says=("--out", "another folder")),
    refused("train", "vit-d2-h5", "--out", "runs", says=("do not divide",), kept=nothing_made),
    refused("train", "vit6", "--out", "runs", says=("no model 'vit6'",), kept=nothing_made),
    refused("train", "--unpack", "nowhere.tar", "--out", "runs", says=("nowhere.tar",)),
    refused("train", "--pilots", "nowhere", says=("nowhere", "no finished run")),
]


# Names and paths.


def measure(folder: Path, *arguments: object, model: str = "resnet-d8") -> str:
    data = pictures(folder / "val")
    return command("measure", model, "--measures", "accuracy", "--data", data, *arguments)


def has_no_rows(folder: Path) -> bool:
    tables = [*folder.rglob("*.csv")]
    return not tables or all(pd.read_csv(table).empty for table in tables)


def through_a_file(folder: Path, name: str, *arguments: object) -> str:
    (folder / "file").write_text("mine", encoding="utf-8")
    return command(name, *arguments)


def is_mine(folder: Path) -> bool:
    return (folder / "file").read_text(encoding="utf-8") == "mine"


def unasked(*_, **__):
    raise AssertionError("worked before the arguments were checked")


def before_images(folder: Path, *arguments: object) -> str:
    """A training that must be refused before its images are made."""
    (folder / "file").write_text("mine", encoding="utf-8")
    with patch.object(queue, "splits", unasked):
        return command("train", "vit-d1-h2-w8", *arguments)


def before_models(folder: Path, *arguments: object) -> str:
    """An experiment that must be refused before any model is loaded or downloaded."""
    with patch.object(zoo, "load", unasked), patch.object(datasets, "load", unasked):
        return command("replicate", *arguments, "--out", folder / "out")


def before_weights(folder: Path) -> str:
    """Photographs that are not there are found missing before any model is downloaded."""
    with patch.object(zoo, "load", unasked), patch.object(replicating, "_at_hand", unasked):
        given = ("accuracy", "--rung", "imagenet", "--data", "nowhere")
        return command("replicate", *given, "--out", folder / "out")


PATHS = [
    *(
        Case(
            f"a model called {name!r:.30}",
            lambda folder, n=name: measure(folder, "--out", "a", model=n),
            kept=has_no_rows,
        )
        for name in NO_NAME
    ),
    Case(
        "data that are not there",
        lambda _: command("measure", "resnet-d8", "--data", "nowhere"),
        says=("nowhere", "data sets"),
        kept=nothing_made,
    ),
    Case("more images than there are", lambda f: measure(f, "-n", 7), says=("6 images", "7")),
    Case("one image", lambda folder: measure(folder, "-n", 1), says=("1 image", "at least 2")),
    *(
        Case(
            f"{name}: a table below a file",
            lambda folder, n=name: through_a_file(
                folder, n, "resnet-d8", "--data", pictures(folder / "val"), "--out", "file/a"
            ),
            says=("file/a.json could not be written",),
            kept=is_mine,
        )
        for name in MEASURING
    ),
    Case(
        "replicate: tables in a file",
        lambda folder: through_a_file(folder, "replicate", "v1", "--out", "file"),
        says=("'file' is no folder",),
        kept=is_mine,
    ),
    Case(
        "replicate: tables below a file",
        lambda folder: through_a_file(folder, "replicate", "convolution", "--out", "file/a"),
        says=("file/a/convolution.json could not be written",),
        kept=is_mine,
    ),
    *(
        Case(
            f"train: {option} {place}",
            lambda folder, o=option, p=place: before_images(folder, o, p),
            says=("file", option),
            kept=is_mine,
        )
        for option, place in product(("--out", "--pack"), ("file", "file/a"))
    ),
    *(
        Case(
            f"replicate {name or 'all'} on the rung imagenet without photographs",
            lambda folder, n=name: before_models(folder, *filter(None, [n]), "--rung", "imagenet"),
            says=("--data", "labelled photographs"),
            kept=nothing_made,
        )
        for name in ("accuracy", "sparseness", "")
    ),
    Case(
        "replicate on the rung imagenet with photographs that are not there",
        before_weights,
        says=("nowhere",),
        kept=nothing_made,
    ),
    Case(
        "a level of loss that no one has, after an experiment that has none",
        lambda folder: before_models(folder, "v1", "accuracy", "--loss", "0.7"),
        says=("0.7 nats",),
        kept=nothing_made,
    ),
    Case(
        "a trial is not put among the recorded results",
        lambda _: command("replicate", "accuracy", "-n", 3, "--out", RESULTS),
        says=("--out",),
    ),
]


# What the environment says.


def launched(folder: Path, **variables: str) -> str:
    with patch.dict(os.environ, variables):
        return measure(folder, "--out", "a")


def rendered(folder: Path, data: str, n: int) -> int:
    """How many stimuli a command draws."""
    drawn = []

    def draw(*arguments, before=objects.render):
        drawn.append(arguments)
        return before(*arguments)

    with patch.object(objects, "render", draw):
        given = ("--measures", "accuracy", "--data", data, "-n", n, "--out", "a")
        command("measure", "vit-d2-h4", *given)
    return len(drawn)


def interrupted_while_importing(_) -> str:
    """Ctrl-C while a command is imported, which takes seconds."""

    def stop(name: str):
        raise KeyboardInterrupt

    with patch("experiments.__main__.importlib.import_module", stop):
        return command("measure", "vit-d2-h4")


ENVIRONMENT = [
    *(
        Case(
            f"the environment variable {name}={value!r}",
            lambda folder, n=name, v=value: launched(folder, **{n: v}),
            says=(name,),
            kept=has_no_rows,
        )
        for name, values in {
            "WORLD_SIZE": ("abc", "0", "-1", "", "1.5"),
            "RANK": ("x", "-1", "", "5"),
            "LOCAL_RANK": ("x", "-1"),
        }.items()
        for value in values
    ),
    *(
        Case(
            f"{n} pictures of {data} are drawn where {n} are asked for",
            lambda folder, d=data, n=n: rendered(folder, d, n),
            n,
        )
        for data, n in product(("objects", "objects/validation"), (2, 20))
    ),
    Case(
        "Ctrl-C while a command is imported",
        interrupted_while_importing,
        says=("Interrupted", "measure"),
    ),
]

CASES = [*COUNTS, *MISSING, *PATHS, *ENVIRONMENT]
