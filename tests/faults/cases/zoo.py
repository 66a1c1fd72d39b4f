"""The zoo: manifests and weights that are missing, damaged or others than they say."""

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from unittest.mock import patch

import safetensors.torch
import torch

from experiments.training import groups
from faults.case import Case, command
from utils import fetching
from utils.models import zoo
from utils.models.architectures import Spec, build

NAME, OTHER = "vit-d1-h2-w8", "vit-d2-h2-w8"


@contextmanager
def shipped(folder: Path):
    """A project whose zoo is in this folder, with two small models."""
    own = folder / "zoo"
    (folder / ".git").mkdir(exist_ok=True)
    with (
        patch.object(fetching, "ROOT", folder),
        patch.object(zoo, "FOLDER", own),
        patch.object(zoo, "SHIPPED", own),
        patch.object(zoo, "RUNS", folder / "_runs"),
    ):
        yield own


def filled(own: Path) -> None:
    own.mkdir()
    entries = {name: put(own, name) for name in (NAME, OTHER)}
    write(own, json.dumps(entries))


def put(own: Path, name: str) -> dict:
    """Weights, and what a manifest says of them."""
    weights = {key: value.half() for key, value in build(Spec.parse(name)).state_dict().items()}
    content = safetensors.torch.save(weights)
    (own / f"{name}.safetensors").write_bytes(content)
    return {
        "file": f"{name}.safetensors",
        "sha256": hashlib.sha256(content).hexdigest(),
        "accuracy": 0.5,
        "bytes": len(content),
        "params": 1,
        "flops": 1,
        "trained_on": "objects",
    }


def write(own: Path, text: str, encoding: str = "utf-8") -> None:
    (own / "manifest.json").write_text(text, encoding=encoding)


def said(own: Path) -> dict:
    return json.loads((own / "manifest.json").read_text(encoding="utf-8"))


ACTIONS: dict[str, Callable] = {
    "load": lambda: zoo.load(NAME),
    "catalog": lambda: zoo.catalog(),
    "weights_file": lambda: zoo.weights_file(NAME),
    "fingerprint": lambda: zoo.fingerprint(NAME),
    "missing": lambda: groups.missing(["heads"]),
    "train --status": lambda: command("train", "--status"),
    "replicate --status": lambda: command("replicate", "--status", "--out", "results"),
}

# What a manifest becomes; a function changes the entry of NAME.
MANIFESTS = {
    "gone": None,
    "empty": "",
    "cut": '{"vit-d1',
    "a list": "[]",
    "null": "null",
    "text": '"x"',
    "a number": "3",
    "deep": "[" * 100_000,
    "with a list for an entry": lambda entry: [],
    "with null for an entry": lambda entry: None,
    "with text for an entry": lambda entry: "x",
    "without a hash": lambda entry: {k: v for k, v in entry.items() if k != "sha256"},
    "without a file": lambda entry: {k: v for k, v in entry.items() if k != "file"},
    "with a number for a hash": lambda entry: entry | {"sha256": 3},
    "with null for a hash": lambda entry: entry | {"sha256": None},
    "with a number for a file": lambda entry: entry | {"file": 3},
    "with a list for a file": lambda entry: entry | {"file": ["a"]},
    "with text for an accuracy": lambda entry: entry | {"accuracy": "half"},
    "with a list for its bytes": lambda entry: entry | {"bytes": []},
    "with a file above the zoo": lambda entry: entry | {"file": "../../etc/passwd"},
    "with a file in the middle above": lambda entry: entry | {"file": "a/../../b.safetensors"},
    "with a file on another drive": lambda entry: entry | {"file": "C:/b.safetensors"},
    "with a file where a drive is": lambda entry: entry | {"file": "C:b.safetensors"},
    "with an absolute file": lambda entry: entry | {"file": "/etc/passwd"},
    "with a file of Windows": lambda entry: entry | {"file": "..\\b.safetensors"},
    "with a file of no name": lambda entry: entry | {"file": ""},
}


def with_manifest(folder: Path, change, act: Callable):
    with shipped(folder) as own:
        filled(own)
        if change is None:
            (own / "manifest.json").unlink()
        elif callable(change):
            entries = said(own)
            write(own, json.dumps(entries | {NAME: change(entries[NAME])}))
        else:
            write(own, change)
        return act()


def in_latin(folder: Path, act: Callable):
    with shipped(folder) as own:
        filled(own)
        entries = said(own)
        entries[NAME]["device"] = "Gerät"
        write(own, json.dumps(entries, ensure_ascii=False), "latin-1")
        return act()


def of_a_folder(folder: Path, act: Callable):
    with shipped(folder) as own:
        (own / "manifest.json").mkdir(parents=True)
        return act()


def with_a_name(folder: Path, name: str, act: Callable):
    with shipped(folder) as own:
        filled(own)
        entries = said(own)
        write(own, json.dumps(entries | {name: entries[NAME]}))
        return act()


def weights_kept(folder: Path) -> bool:
    """Both files of weights are still what they were."""
    built = build(Spec.parse(NAME)).state_dict()
    kept = safetensors.torch.load_file(folder / f"zoo/{NAME}.safetensors")
    return all(torch.equal(kept[key], value.half()) for key, value in built.items())


SENTENCE = ("manifest.json", "restore it with `git checkout -- :/zoo/manifest.json`")
OF_MANIFESTS = [
    *(
        Case(
            f"{action} with a manifest {kind}",
            lambda folder, c=change, a=act: with_manifest(folder, c, a),
            says=SENTENCE,
            kept=weights_kept,
        )
        for (kind, change), (action, act) in product(MANIFESTS.items(), ACTIONS.items())
        if kind in ("gone", "cut", "null") or action in ("load", "catalog", "train --status")
    ),
    *(
        Case(
            f"{action} with a manifest in another encoding",
            lambda folder, a=act: in_latin(folder, a),
            says=SENTENCE,
        )
        for action, act in ACTIONS.items()
    ),
    *(
        Case(
            f"{action} with a folder for its manifest",
            lambda folder, a=act: of_a_folder(folder, a),
            says=SENTENCE,
        )
        for action, act in ACTIONS.items()
    ),
    *(
        Case(
            f"catalog with a model called {name!r}",
            lambda folder, n=name: with_a_name(folder, n, ACTIONS["catalog"]),
            says=(*SENTENCE, repr(name)),
        )
        for name in ("resnet18", "vit", "vit-d6-h5", "objects/")
    ),
]


# Weights.


def rehashed(own: Path, content: bytes) -> None:
    """Put other weights there, with a manifest that vouches for them."""
    (own / f"{NAME}.safetensors").write_bytes(content)
    entries = said(own)
    entries[NAME]["sha256"] = hashlib.sha256(content).hexdigest()
    write(own, json.dumps(entries))


def stored(own: Path) -> bytes:
    return (own / f"{NAME}.safetensors").read_bytes()


def changed(own: Path, change: Callable) -> bytes:
    weights = safetensors.torch.load(stored(own))
    return safetensors.torch.save(change(weights))


def whole_numbers(weights):
    return {key: value.to(torch.int32) for key, value in weights.items()}


def complex_numbers(own: Path) -> bytes:
    """Written by hand, as not every version of safetensors that may be installed writes them."""
    header, content = {}, b""
    for key, value in safetensors.torch.load(stored(own)).items():
        start = len(content)
        content += value.to(torch.complex64).numpy().tobytes()
        ends = [start, len(content)]
        header[key] = {"dtype": "C64", "shape": list(value.shape), "data_offsets": ends}
    written = json.dumps(header).encode()
    return len(written).to_bytes(8, "little") + written + content


# What becomes of the weights without a word in the manifest.
DAMAGED = {
    "cut": lambda content: content[:-100],
    "empty": lambda content: b"",
    "with a bit changed": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "of zeros": lambda content: bytes(len(content)),
    "in the format of Git LFS": lambda content: b"version https://git-lfs.github.com/spec/v1\n",
}
# What they become where the manifest has their hash.
VOUCHED = {
    "in whole numbers": lambda own: changed(own, whole_numbers),
    "in complex numbers": complex_numbers,
    "of another model": lambda own: (own / f"{OTHER}.safetensors").read_bytes(),
    "without one": lambda own: changed(
        own, lambda w: {k: v for k, v in w.items() if k != "head.bias"}
    ),
    "with one more": lambda own: changed(own, lambda w: w | {"extra": torch.zeros(1)}),
    "of another shape": lambda own: changed(own, lambda w: w | {"head.bias": torch.zeros(3)}),
    "of none": lambda own: safetensors.torch.save({}),
    "that are no safetensors": lambda own: b"no weights at all",
    "that are empty": lambda own: b"",
    "that are cut": lambda own: stored(own)[:-100],
}


def damaged(folder: Path, change: Callable):
    with shipped(folder) as own:
        filled(own)
        (own / f"{NAME}.safetensors").write_bytes(change(stored(own)))
        return zoo.load(NAME)


def vouched(folder: Path, change: Callable):
    with shipped(folder) as own:
        filled(own)
        rehashed(own, change(own))
        return zoo.load(NAME)


def in_precision(folder: Path, dtype: torch.dtype):
    """The logits of weights that are stored in another precision."""
    with shipped(folder) as own:
        filled(own)
        rehashed(own, changed(own, lambda w: {k: v.to(dtype) for k, v in w.items()}))
        model = zoo.load(NAME)
        with torch.no_grad():
            return model(torch.linspace(0, 1, 3072).reshape(1, 3, 32, 32))


def half_by_hand(_):
    """The same of a model whose parameters were rounded one by one."""
    model = build(Spec.parse(NAME))
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.copy_(tensor.half().float())
        return model(torch.linspace(0, 1, 3072).reshape(1, 3, 32, 32))


def gone(folder: Path, what: str):
    with shipped(folder) as own:
        filled(own)
        file = own / f"{NAME}.safetensors"
        if what == "file":
            file.unlink()
        elif what == "folder":
            file.unlink()
            file.mkdir()
        else:
            shutil.rmtree(own)
        return zoo.load(NAME)


def unkept(folder: Path, content: bytes | None):
    """Weights that the zoo has no room for, in the folder of their run."""
    with shipped(folder) as own:
        filled(own)
        entries = said(own)
        entries[NAME]["file"] = None
        write(own, json.dumps(entries))
        run = folder / "_runs" / NAME / "final.safetensors"
        run.parent.mkdir(parents=True)
        run.write_bytes(stored(own) if content is None else content)
        model = zoo.load(NAME)
        return [*model.state_dict()]


FILE = f"zoo/{NAME}.safetensors"
RESTORE = f"git checkout -- :/{FILE}"
OF_WEIGHTS = [
    *(
        Case(
            f"weights {kind}",
            lambda folder, c=change: damaged(folder, c),
            says=(f"{FILE} is damaged", RESTORE),
        )
        for kind, change in DAMAGED.items()
    ),
    *(
        Case(
            f"weights {kind}, with the right hash",
            lambda folder, c=change: vouched(folder, c),
            says=(FILE, "no weights for this model", RESTORE),
        )
        for kind, change in VOUCHED.items()
    ),
    *(
        Case(
            f"weights in {dtype}",
            lambda folder, d=dtype: in_precision(folder, d),
            half_by_hand,
            tolerance=tolerance,
        )
        for dtype, tolerance in (
            (torch.float16, 1e-6),
            (torch.float32, 1e-6),
            (torch.float64, 1e-6),
            (torch.bfloat16, 0.05),
        )
    ),
    *(
        Case(
            f"the {what} of the weights is gone" if what != "folder" else "weights are a folder",
            lambda folder, w=what: gone(folder, w),
            says=(RESTORE, "is missing") if what != "zoo" else SENTENCE,
        )
        for what in ("file", "folder", "zoo")
    ),
    Case(
        "weights that only the run has",
        lambda folder: unkept(folder, None),
        lambda _: [*build(Spec.parse(NAME)).state_dict()],
    ),
    *(
        Case(
            f"weights that only the run has, {kind}",
            lambda folder, c=content: unkept(folder, c),
            says=("is damaged", "train it again"),
        )
        for kind, content in {"empty": b"", "others": b"others"}.items()
    ),
    Case(
        "a model that is not trained, in a zoo that was never filled",
        lambda folder: _unfilled(folder, lambda: zoo.load(NAME)),
        says=("has not been trained", f"train {NAME}"),
    ),
    Case(
        "the catalog of a zoo that was never filled",
        lambda folder: _unfilled(folder, lambda: zoo.catalog()["name"].tolist()),
        ["efficientnet-lite0"],
    ),
]


def _unfilled(folder: Path, act: Callable):
    with patch.object(zoo, "FOLDER", folder / "new"):
        return act()


CASES = [*OF_MANIFESTS, *OF_WEIGHTS]
