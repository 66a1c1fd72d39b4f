"""Labelled images by name: objects, CIFAR-10, the published cue conflict, or any folder of yours.

Nothing is downloaded unless `download=True`.
"""

import os
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.datasets import CIFAR10

from . import objects
from .image_folder import image_folder
from .minibatches import Batch, Damaged, Dataset
from .places import printable

__all__ = [
    "Batch",
    "CueConflict",
    "Damaged",
    "Dataset",
    "cue_conflict",
    "folder",
    "load",
    "shown",
]

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path.home() / ".cache" / "seeing-sparsely"
NAMES = ("objects", "cifar10", "cifar10-jpeg")
SPLITS = ("train", "validation", "test")
CIFAR10_MB = 170
ORIGINALS = "cifar-10-batches-py"  # the folder that torchvision unpacks
VALIDATION = 5_000  # of CIFAR-10's training images
TEXTURE = r"-([a-z]+)\d+$"  # in the name of a cue-conflict stimulus
CUE_CONFLICTS = ("objects/cue-conflict", "cue-conflict")  # data sets whose cues disagree
OURS = {*CUE_CONFLICTS, *NAMES, *(f"{name}/{split}" for name in NAMES for split in SPLITS)}


def load(name: str | Path, model: nn.Module | None = None, download: bool = False) -> Dataset:
    """The labelled images of that name, prepared for `model` if one is given.

    "cifar10" takes the original images where they are and their JPEGs otherwise: `source` says
    which. An ImageFolder is a directory or .tar that holds a folder a class, which may be a
    symbolic link; whatever is inside it, at any depth, is of that class, and hidden files and
    folders are no part of it. Classes named by WordNet ids (n01440764) have ImageNet-1k's labels,
    and those named by numbers have these; others are numbered in alphabetical order, which a
    model's classes must follow. Files come in a shuffled order that depends on nothing but their
    names, so that the first thousand are of all classes.

    Args:
        name: "objects", "cifar10" or "cifar10-jpeg", each the test images unless "/train" or
            "/validation" follows; "objects/cue-conflict" (see `objects.cue_conflict`) and
            "cue-conflict" (see `cue_conflict`), labelled by shape; or the path of an ImageFolder,
            or of a directory with, or a .tar next to, a labels.csv (columns file, and class_index,
            an ImageNet-1k index). A folder of yours called as one of the names is "./objects".
        model: See `Dataset.prepared_for`; without one, images are [3, h, w] in [0, 1].
        download: Whether CIFAR-10's originals may be downloaded if they are not here.

    Returns:
        The images, which are read when they are asked for.

    Raises:
        FileNotFoundError: They are not here; it says what was looked for and where.
        PermissionError: A download is forbidden.
        ConnectionError: A download failed.
        ValueError: An unknown split, a folder or archive that does not hold what it should (see
            `image_folder.files`), or labels that do not fit the files.

    Example:
        >>> from utils.stimuli import datasets
        >>> data = datasets.load("objects/validation")
        >>> len(data), data.batch(0, 32).images.shape
        (5000, torch.Size([32, 3, 32, 32]))
    """
    if isinstance(name, Path) or name not in OURS:
        data = _yours(name)
    else:
        if os.path.isdir(name):
            warnings.warn(
                f"{name} is the book's data set; the folder of that name here is ./{name}.",
                stacklevel=2,
            )
        data = _ours(name, download)
    return data if model is None else data.prepared_for(model)


def _yours(name: str | Path) -> Dataset:
    kind, _, split = str(name).partition("/")
    if os.path.exists(name or "?"):  # "" is no name of the current folder
        return image_folder(Path(name))
    if isinstance(name, str) and kind in NAMES and split:
        raise ValueError(f"There is no split {split!r} of {kind}; choose {', '.join(SPLITS)}.")
    raise FileNotFoundError(
        f"There is no data set, folder or archive {printable(name) or repr(name)}: the data sets "
        f"are {', '.join(NAMES)} and cue-conflict; a path begins in the current folder."
    )


def _ours(name: str, download: bool) -> Dataset:
    if name == "cue-conflict":
        images = cue_conflict().images
        return images.subset(range(len(images)), "cue-conflict")
    kind, _, split = name.partition("/")
    if kind == "objects":
        return _objects(split or "test")
    return _cifar10(kind, split or "test", download)


def _objects(split: str) -> Dataset:
    pairs = zip(objects.SHAPES, objects.TEXTURES, strict=True)
    classes = tuple(f"{shape}, {texture}" for shape, texture in pairs)
    if split != "cue-conflict":
        return Dataset(f"objects/{split}", objects.labels(split), classes, partial(_drawn, split))
    scenes = objects.conflicts()
    labels = torch.tensor([scene.label for scene in scenes])
    return Dataset(f"objects/{split}", labels, classes, partial(_rendered, scenes))


# What gives a picture is a function of a module with its first argument, so that it can be pickled.


def _drawn(split: str, i: int) -> Tensor:
    return objects.image(objects.draw(split, 0, i))


def _rendered(scenes: list[objects.Scene], i: int) -> Tensor:
    return objects.image(scenes[i])


def _pixels(pictures: np.ndarray, i: int) -> Image.Image:
    return Image.fromarray(pictures[i])


def folder() -> Path:
    """Where data sets are looked for: `BOOK_DATA`, else ../shared/data next to the project."""
    return Path(os.environ.get("BOOK_DATA") or ROOT.parent / "shared/data")


def shown(path: Path) -> str:
    """A path as messages name it, seen from the project; from its own start on another drive.

    Args:
        path: Of a file or folder.
    """
    try:
        return os.path.relpath(path, ROOT)
    except ValueError:
        return str(path)


def _cifar10(kind: str, split: str, download: bool) -> Dataset:
    part = "test" if split == "test" else "train"
    archive = folder() / "cifar10" / f"{part}.tar"
    places = [] if kind == "cifar10-jpeg" else [folder() / "cifar10", CACHE]
    place = next((place for place in places if (place / ORIGINALS).is_dir()), None)
    if place is not None:
        source, data = "cifar10", _originals(place, part == "train")
    elif archive.is_file():
        source, data = "cifar10-jpeg", image_folder(archive)
    elif places and download:
        source, data = "cifar10", _originals(_downloaded(), part == "train")
    else:
        raise FileNotFoundError(
            f"CIFAR-10 is not here: looked for cifar10/{part}.tar and cifar10/{ORIGINALS} in "
            f"{shown(folder())}, and for the latter in the cache; set BOOK_DATA to the folder that "
            "holds cifar10, or let datasets.load('cifar10', download=True) fetch it "
            f"({CIFAR10_MB} MB)."
        )
    order = np.arange(len(data))
    if part == "train":
        order = np.random.default_rng(0).permutation(len(data))
        order = order[-VALIDATION:] if split == "validation" else order[:-VALIDATION]
    return data.subset(order, f"{source}/{split}")


def _originals(place: Path, train: bool) -> Dataset:
    try:
        found = CIFAR10(place, train)  # checks the md5 of every file
    except RuntimeError as error:
        raise ValueError(
            f"CIFAR-10 in {shown(place / ORIGINALS)} is damaged (an md5 differs or a file is "
            "missing); delete that folder and load the images again."
        ) from error
    labels = torch.tensor(found.targets)
    source = f"cifar10 {'train' if train else 'test'}"
    return Dataset(source, labels, tuple(found.classes), partial(_pixels, found.data))


def _downloaded() -> Path:
    if os.environ.get("HF_HUB_OFFLINE") == "1":
        raise PermissionError(
            f"CIFAR-10 ({CIFAR10_MB} MB) is not downloaded because HF_HUB_OFFLINE=1 forbids it; "
            "unset that, or set BOOK_DATA to a folder that holds the images."
        )
    print(f"Downloading CIFAR-10, {CIFAR10_MB} MB, by torchvision.", file=sys.stderr)
    try:
        CIFAR10(CACHE, download=True)
    except (OSError, RuntimeError) as error:
        raise ConnectionError(
            f"CIFAR-10 could not be downloaded ({error}); try again, or set BOOK_DATA to a folder "
            "that holds it."
        ) from error
    return CACHE


class CueConflict(NamedTuple):
    """The published cue-conflict stimuli, as photographs labelled by shape, with their textures.

    Attributes:
        images: Its labels are the classes of the shapes, indices into `images.classes` (sixteen).
        textures: int64 [n], the classes of the textures, by the same indices.
        names: n stimuli, such as "cat7-elephant1".
        trials: One row a human trial, with subject ("subject-01"), trial (1 …), seconds, stimulus,
            response (one of the classes, or "na" where none came in time), shape, texture. People
            saw all 1,280 stimuli, of which `images` may be a part: join them by stimulus.
    """

    images: Dataset
    textures: Tensor
    names: list[str]
    trials: pd.DataFrame


def cue_conflict(model: nn.Module | dict | None = None) -> CueConflict:
    """The cue-conflict stimuli of Geirhos and colleagues, 224×224, and all human trials.

    Looks for cue_conflict/stimuli.tar (stimuli/<shape>/<shape><i>-<texture><k>.jpg) and
    cue_conflict/human/*.csv in `folder()`. Source: geirhos2019imagenet. Explained in chapter 2.5.

    Args:
        model: As for `load`; its classes need not be the sixteen.

    Returns:
        The stimuli and trials.

    Raises:
        FileNotFoundError: If they are not there.
        ValueError: If they are not called by their textures, or their archive is damaged.
    """
    place = folder() / "cue_conflict"
    tables = sorted(place.glob("human/*.csv"))
    if not (place / "stimuli.tar").is_file() or not tables:
        raise FileNotFoundError(
            "The cue-conflict stimuli are not here: looked for stimuli.tar and human/*.csv in "
            f"{shown(place)}; set BOOK_DATA to the folder that holds cue_conflict."
        )
    images = image_folder(place / "stimuli.tar")
    names = [Path(name).stem for name in images.names]
    textures = pd.Series(names).str.extract(TEXTURE)[0]
    if not (known := textures.isin(images.classes)).all():
        raise ValueError(
            f"{printable(names[known.argmin()])} in {shown(place / 'stimuli.tar')} is called by no "
            "texture: expected names such as cat7-elephant1.jpg."
        )
    textures = textures.map(images.classes.index)
    return CueConflict(
        images if model is None else images.preprocessed(model),
        torch.tensor(textures.tolist()),
        names,
        _trials(tables),
    )


def _trials(tables: list[Path]) -> pd.DataFrame:
    # "na" is an answer here, not a gap in the table.
    kept = {"keep_default_na": False, "na_values": {"rt": "NaN"}, "encoding": "utf-8-sig"}
    read = [pd.read_csv(table, **kept) for table in tables]
    rows = pd.concat(read, ignore_index=True)
    stimulus = rows["imagename"].str.extract(r"_([a-z]+\d+-[a-z]+\d+)\.")[0]
    return pd.DataFrame(
        {
            "subject": rows["subj"],
            "trial": rows["trial"],
            "seconds": rows["rt"],
            "stimulus": stimulus,
            "response": rows["object_response"],
            "shape": rows["category"],
            "texture": stimulus.str.extract(TEXTURE)[0],
        }
    )
