"""Tables and records: of which images, weights and rows they are, and who writes them."""

import gzip
import json
import shutil
from contextlib import closing, suppress
from itertools import product
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.nn import functional as F

from experiments.engine.results import Results, finished, record_of
from faults.case import Case, CommandRefused, command
from utils.models import zoo

MODELS = ("vit-d2-h4", "resnet-d8")
CLASSES = "abc"
COLUMNS = ("model", "head", "value", "note")
CONFIGURATION = {"data": "noise", "n": 4}


# Which images and weights.


def pictures(folder: Path, seed: int = 0, n: int = 6) -> Path:
    """An ImageFolder of n pictures of noise in three classes."""
    for i in range(n):
        file = folder / CLASSES[i % 3] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng((seed, i)).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file)
    return folder


def measure(model, data, *arguments):
    given = ("--measures", "accuracy", "--data", data, *arguments)
    return command("measure", model, *given)


def measured(table: Path) -> float:
    """The cross-entropy that a table holds, nats."""
    rows = pd.read_csv(table).set_index("quantity")
    return float(rows.loc["cross_entropy", "value"])


def by_hand(model: str, folder: Path) -> float:
    """The cross-entropy of a network on an ImageFolder, without the project's readers."""
    files = sorted(folder.glob("*/*.png"))
    pixels = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    labels = torch.tensor([CLASSES.index(file.parent.name) for file in files])
    with torch.no_grad():
        logits = zoo.load(model)(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)
    return F.cross_entropy(logits.double(), labels).item()


def add_one(folder):
    shutil.copy(folder / "a/0.png", folder / "a/9.png")


def take_one(folder):
    (folder / "a/0.png").unlink()


def rename_one(folder):
    (folder / "a/0.png").rename(folder / "a/zero.png")


def move_one(folder):
    (folder / "a/0.png").rename(folder / "b/0.png")


def swap_two(folder):
    one, other = folder / "a/0.png", folder / "b/1.png"
    contents = one.read_bytes(), other.read_bytes()
    other.write_bytes(contents[0])
    one.write_bytes(contents[1])


def redraw_one(folder):
    Image.new("RGB", (32, 32)).save(folder / "c/2.png")


def replace_all(folder):
    pictures(folder, seed=1)


CHANGES = (add_one, take_one, rename_one, move_one, swap_two, redraw_one, replace_all)


def newest(folder: Path, act) -> float:
    """The cross-entropy in the table that `act` adds to the default folder."""
    before = {*folder.glob("_runs/*.csv")}
    act()
    (new,) = {*folder.glob("_runs/*.csv")} - before
    return measured(new)


def of_another_folder(folder: Path, model: str, *given):
    """Measure two folders called val; what the table of the second says."""
    measure(model, pictures(folder / "x/val"), *given)
    second = pictures(folder / "y/val", seed=1)
    return newest(folder, lambda: measure(model, second, *given))


def of_changed(folder: Path, model: str, change, *given):
    """Measure, change the pictures, and measure by the same command."""
    data = pictures(folder / "val")
    measure(model, data, *given)
    change(data)
    return newest(folder, lambda: measure(model, data, *given))


def of_mended(folder: Path, *given):
    """Measure with a picture cut short, put back the whole one, and measure again."""
    data = pictures(folder / "val")
    whole = (data / "a/0.png").read_bytes()
    (data / "a/0.png").write_bytes(whole[:200])
    with suppress(CommandRefused):  # exit status 3: a damaged picture was left out
        measure("resnet-d8", data, *given)
    (data / "a/0.png").write_bytes(whole)
    return newest(folder, lambda: measure("resnet-d8", data, *given))


def with_other_weights(folder: Path, model: str):
    data = pictures(folder / "val")
    measure(model, data, "--out", "a")
    with patch.object(zoo, "fingerprint", lambda name: "f" * 64):
        measure(model, data, "--out", "a")


def held(folder: Path) -> bool:
    """Whether the first table is still the one that was measured first."""
    return len(pd.read_csv(folder / "a.csv")) > 1 and not [*folder.rglob("*.lock")]


IMAGES = [
    *(
        Case(
            f"{model}: another folder of the same name, {'one file' if out else 'no file'} given",
            lambda folder, m=model, o=out: of_another_folder(folder, m, *o),
            None if out else lambda folder, m=model: by_hand(m, folder / "y/val"),
            ("images_sha256", "another file") if out else (),
            held if out else None,
            tolerance=1e-4,
        )
        for model, out in product(MODELS, (("--out", "a"), ()))
    ),
    *(
        Case(
            f"{model}: {change.__name__} of the pictures, one file given",
            lambda folder, m=model, c=change: of_changed(folder, m, c, "--out", "a"),
            says=("configuration", "there and", "another file"),
            kept=held,
        )
        for model, change in product(MODELS, CHANGES)
    ),
    *(
        Case(
            f"{model}: {change.__name__} of the pictures, no file given",
            lambda folder, m=model, c=change: of_changed(folder, m, c),
            lambda folder, m=model: by_hand(m, folder / "val"),
            tolerance=1e-4,
        )
        for model, change in product(MODELS, CHANGES)
    ),
    Case(
        "a damaged picture is mended, one file given",
        lambda folder: of_mended(folder, "--out", "a"),
        says=("images_sha256",),
        kept=held,
    ),
    Case(
        "a damaged picture is mended, no file given",
        of_mended,
        lambda folder: by_hand("resnet-d8", folder / "val"),
        tolerance=1e-4,
    ),
    *(
        Case(
            f"{model} has other weights than those in the table",
            lambda folder, m=model: with_other_weights(folder, m),
            says=("other weights", "ffffffffffff", "another file"),
            kept=held,
        )
        for model in MODELS
    ),
]


# What is done to a table or its record.


def opened(folder: Path, ending: str = "csv") -> Results:
    return Results(folder / f"t.{ending}", COLUMNS, CONFIGURATION)


def add(results: Results, name: str, start: int = 0) -> None:
    rows = [
        {"model": name, "head": i, "value": start + i / 7, "note": f"{i}, of\nthree"}
        for i in range(3)
    ]
    results.add(name, rows, {"weights": name * 3, "damaged": [], "seconds": 1.0})


def written(folder: Path, names: str = "ab", ending: str = "csv") -> Path:
    """A table of three rows for each name."""
    with closing(opened(folder, ending)) as results:
        results.begin({"commit": "c"})
        for name in names:
            add(results, name)
    return results.file


def edit(table: Path, change) -> None:
    content = table.read_bytes()
    packed = table.suffix == ".gz"
    content = change(gzip.decompress(content) if packed else content)
    table.write_bytes(gzip.compress(content, mtime=0) if packed else content)


TABLES = {
    "without its last row": lambda t: t[: t.rindex(b"b,b,2")],
    "cut in the middle of a row": lambda t: t[: t.index(b"b,b,1") + 9],
    "cut in its header": lambda t: t[:12],
    "empty": lambda t: b"",
    "of a header alone": lambda t: t[: t.index(b"\n") + 1],
    "with a digit changed": lambda t: t.replace(b"0.14285714", b"0.24285714", 1),
    "with a note changed": lambda t: t.replace(b"0, of", b"9, of", 1),
    "with a row twice": lambda t: t + t[t.rindex(b"b,b,2") :],
    "with two rows in another order": lambda t: (
        t.replace(b"a,a,0", b"a,a,X", 1)
        .replace(b"a,a,1", b"a,a,0", 1)
        .replace(b"a,a,X", b"a,a,1", 1)
    ),
    "with a column renamed": lambda t: t.replace(b"value", b"number", 1),
    "with its columns in another order": lambda t: t.replace(b"model,head", b"head,model", 1),
    "without its first column": lambda t: t.replace(b"condition,", b"", 1),
    "with a mark of its encoding": lambda t: b"\xef\xbb\xbf" + t,
    "in another encoding": lambda t: t.replace(b"0, of", b"\xe9, of", 1),
    "of zeros": lambda t: bytes(len(t)),
    "of another programme": lambda t: b"\x89PNG\r\n\x1a\n" + t,
    "with a field more": lambda t: t.replace(b"a,a,0,", b"a,a,0,0,", 1),
    "with an open quote": lambda t: t.replace(b'three"', b"three", 1),
    "without one condition": lambda t: t[: t.index(b"b,b,0")],
}


def resume_table(folder: Path, change, ending: str):
    table = written(folder, ending=ending)
    edit(table, change)
    with closing(opened(folder, ending)) as results:
        results.begin({"commit": "c"})
        add(results, "c")


def both_files(folder: Path) -> bool:
    """The record is as it was written, and nothing was made again or left behind."""
    names = {file.name for file in folder.iterdir()}
    return names in ({"t.csv", "t.json"}, {"t.csv.gz", "t.json"}, {"t.json"})


RECORDS = {
    "a list": "[]",
    "null": "null",
    "text": '"x"',
    "a number": "3",
    "an empty object": "{}",
    "empty": "",
    "cut": '{"configuration": {"da',
    "deep": "[" * 100_000,
    "without configuration": {"configuration": None},
    "without columns": {"columns": None},
    "without sources": {"sources": None},
    "without conditions": {"conditions": None},
    "with text for its configuration": {"configuration": "x"},
    "with text for its columns": {"columns": "x"},
    "with an object for its sources": {"sources": {}},
    "with a list of conditions": {"conditions": []},
    "with null for its conditions": {"conditions": "null"},
    "with a list for a condition": {"conditions": {"a": []}},
    "with text for a condition": {"conditions": {"a": "x"}},
    "with an empty condition": {"conditions": {"a": {}}},
    "without the weights": {"conditions": {"a": {"damaged": [], "rows_sha256": "0"}}},
    "with another hash": {
        "conditions": {"a": {"weights": "aaa", "damaged": [], "rows_sha256": "0" * 64}}
    },
    "with an infinite number for a configuration": {"configuration": float("inf")},
}
STATUS_IS_RIGHT = {  # what only counts conditions needs no more than these
    "without configuration",
    "without columns",
    "without sources",
    "with an empty condition",
    "without the weights",
    "with another hash",
}


def damage(record: Path, content) -> None:
    if isinstance(content, dict):
        whole = json.loads(record.read_text(encoding="utf-8")) | content
        content = json.dumps({key: value for key, value in whole.items() if value is not None})
    record.write_text(content, encoding="utf-8")


def resume_record(folder: Path, content):
    damage(written(folder).with_suffix(".json"), content)
    with closing(opened(folder)) as results:
        results.begin({"commit": "c"})
        add(results, "c")


def status_of(folder: Path, content):
    place = folder / "results" / "objects"
    place.mkdir(parents=True)
    for file in (written(folder), folder / "t.json"):
        file.rename(place / f"accuracy{file.suffix}")
    damage(place / "accuracy.json", content)
    said = command("replicate", "--status", "--out", folder / "results")
    return "accuracy: " in said


DAMAGE = [
    *(
        Case(
            f"a table {kind}, .{ending}",
            lambda folder, c=change, e=ending: resume_table(folder, c, e),
            says=("cannot be gone on with", "another file"),
            kept=both_files,
        )
        for (kind, change), ending in product(TABLES.items(), ("csv", "csv.gz"))
    ),
    *(
        Case(
            f"a record that is {kind}" if not isinstance(content, dict) else f"a record {kind}",
            lambda folder, c=content: resume_record(folder, c),
            says=("t.csv", "another file"),
            kept=both_files,
        )
        for kind, content in RECORDS.items()
    ),
    *(
        Case(
            f"replicate --status with a record {kind}",
            lambda folder, c=content: status_of(folder, c),
            True if kind in STATUS_IS_RIGHT else None,
            () if kind in STATUS_IS_RIGHT else ("accuracy.json", "sound copy"),
        )
        for kind, content in RECORDS.items()
    ),
]


# Who writes, what is kept, and under which name.


def beside(folder: Path, other: str):
    """A second writer of the same file while the first is at it; what the first then has."""
    with closing(opened(folder)) as first:
        first.begin({"commit": "c"})
        add(first, "a")
        refused = []
        for act in range(3):
            second = Results(folder / other, COLUMNS, CONFIGURATION)
            try:
                second.begin({"commit": f"d{act}"})
            except BlockingIOError as error:
                refused.append(str(error))
            finally:
                second.close()
        add(first, "b")
    assert not [sentence for sentence in refused if not sentence.endswith("another.")]
    return len(refused), [*finished(folder / "t.csv")]


def command_beside(folder: Path):
    """A command on a file that another one writes."""
    data = pictures(folder / "val")
    measure("resnet-d8", data, "--out", "t")
    record = json.loads((folder / "t.json").read_text(encoding="utf-8"))
    with closing(Results(folder / "t", record["columns"][1:], record["configuration"])) as first:
        first.begin({"commit": "c"})
        measure("vit-d2-h4", data, "--out", "t")


def after_another(folder: Path):
    """Two commands that opened the file before either wrote: the second reads what is new."""
    first, second = opened(folder), opened(folder)
    with closing(first):
        first.begin({"commit": "c"})
        add(first, "a")
    with closing(second):
        second.begin({"commit": "d"})
        add(second, "b")
    return pd.read_csv(second.file)["condition"].tolist(), list(
        record_of(second.file)["conditions"]
    )


def old(folder: Path) -> Path:
    """A table as it was recorded before records vouched for images and rows."""
    table = written(folder)
    record = record_of(table)
    for condition in record["conditions"].values():
        del condition["rows"], condition["rows_sha256"]
        condition["weights"] = None
    damage(table.with_suffix(".json"), record)
    return table


def read_old(folder: Path):
    old(folder)
    configuration = CONFIGURATION | {"images_sha256": "5" * 64}
    results = Results(folder / "t.csv", COLUMNS, configuration)
    return [results.holds(name, "a5") for name in "abc"], finished(folder / "t.csv").total()


def add_to_old(folder: Path):
    old(folder)
    with closing(opened(folder)) as results:
        results.begin({"commit": "c"})


def named(folder: Path, *names: str):
    """The files that commands make which were told to write to these names."""
    for i, name in enumerate(names):
        data = pictures(folder / f"data{i}", seed=i)
        measure("resnet-d8", data, "--out", name)
    return sorted(file.name for file in folder.iterdir() if file.is_file())


def default_names(folder: Path, *data: str):
    for one in data:
        measure("resnet-d8", one, "-n", 2)
    return sorted(file.name for file in (folder / "_runs").iterdir())


WRITERS = [
    Case(
        "three other writers of one table, none of which is let in",
        lambda folder: beside(folder, "t.csv"),
        (3, ["a", "b"]),
        kept=both_files,
    ),
    Case(
        "three other writers of the packed table, which has the same record",
        lambda folder: beside(folder, "t.csv.gz"),
        None,
        ("t.csv.gz",),
    ),
    Case(
        "a command on a file that another command writes",
        command_beside,
        says=("being written by another command", "wait"),
        kept=lambda folder: finished(folder / "t.csv").total() == 1,
    ),
    Case(
        "two that opened one file before either wrote",
        after_another,
        (["a"] * 3 + ["b"] * 3, ["a", "b"]),
    ),
    Case(
        "a table recorded in the format of before is read, and holds what it holds",
        read_old,
        ([True, True, False], 2),
        kept=both_files,
    ),
    Case(
        "a table recorded in the format of before is not added to",
        add_to_old,
        says=("which images and rows", "another file"),
        kept=both_files,
    ),
    *(
        Case(
            f"--out {' and --out '.join(names)}",
            lambda folder, n=names: named(folder, *n),
            sorted(f"{stem}.{end}" for stem, table in files.items() for end in (table, "json")),
        )
        for names, files in {
            ("run-0.5", "run-0.7"): {"run-0.5": "csv", "run-0.7": "csv"},
            ("a.b.c",): {"a.b.c": "csv"},
            ("x.csv",): {"x": "csv"},
            ("x.csv.gz",): {"x": "csv.gz"},
            ("x.json",): {"x.json": "csv"},
            ("x.", "x"): {"x.": "csv", "x": "csv"},
            ("ä ö.1",): {"ä ö.1": "csv"},
            ("v1.0", "v1.1", "v1"): {"v1.0": "csv", "v1.1": "csv", "v1": "csv"},
        }.items()
    ),
    Case(
        "the test images, those of validation and the cue conflicts, no file given",
        lambda folder: default_names(folder, "objects", "objects/validation"),
        [
            f"measure-objects-{split}.{ending}"
            for split in ("test", "validation")
            for ending in ("csv", "json")
        ],
    ),
]

CASES = [*IMAGES, *DAMAGE, *WRITERS]
