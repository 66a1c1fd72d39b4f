"""Photographs with labels: an ImageFolder, as a directory or .tar, or files listed in a table."""

import hashlib
import re
from functools import cache
from pathlib import Path

import pandas as pd
import torch
from PIL import Image
from timm.data import ImageNetInfo

from . import photographs
from .minibatches import Dataset

SYNSET = re.compile(r"n\d{8}")


def image_folder(path: Path) -> Dataset:
    """The labelled photographs at `path`: `utils.stimuli.datasets.load` says what it may hold.

    Raises FileNotFoundError where nothing is there, and ValueError for no images, for labels that
    do not fit the files, and for synsets that ImageNet-1k does not have.
    """
    if table := _table(path):
        return _listed(path, table)
    files = photographs.files(path)
    # The first n of a sorted list would be of one class, and minibatches would be of one each.
    order = sorted(files, key=_shuffled)
    folders = [Path(name).parent.name for name in order]
    if "" in folders:
        stray = order[folders.index("")]
        raise ValueError(
            f"{path.name} holds images outside of any class folder ({stray}, for one): put each "
            "into a folder called by its class, or add a labels.csv with columns file and "
            "class_index."
        )
    classes = sorted(set(folders))
    if all(SYNSET.fullmatch(name) for name in classes):
        ranks = {synset: i for i, synset in enumerate(ImageNetInfo().label_names())}
        if strange := [name for name in classes if name not in ranks]:
            raise ValueError(f"{strange[0]} in {path.name} is no class of ImageNet-1k.")
        classes = _imagenet_classes()
    else:
        ranks = {name: i for i, name in enumerate(classes)}
    labels = {name: ranks[Path(name).parent.name] for name in order}
    return _photographs(path, files, labels, classes)


def _shuffled(name: str) -> bytes:
    # Class and file alone, so that a folder and an archive of it have the same order.
    return hashlib.sha256("/".join(Path(name).parts[-2:]).encode()).digest()


def _table(path: Path) -> Path | None:
    """The labels.csv of a folder or archive, if it has one."""
    table = (path if path.is_dir() else path.parent) / "labels.csv"
    return table if path.exists() and table.is_file() else None


def _listed(path: Path, table: Path) -> Dataset:
    """Photographs whose labels stand in a table, in the order of the table."""
    rows = pd.read_csv(table)
    if lacking := {"file", "class_index"} - set(rows.columns):
        raise ValueError(f"{table.name} lacks the column {' and '.join(sorted(lacking))}.")
    archive = path / "images.tar"
    files = photographs.files(archive if archive.is_file() else path)
    if absent := [name for name in rows["file"] if name not in files]:
        raise ValueError(
            f"labels.csv of {path.name} lists {len(absent)} images that are not there, "
            f"{absent[0]} first."
        )
    classes = _imagenet_classes()
    if not rows["class_index"].isin(range(len(classes))).all():
        raise ValueError(
            f"labels.csv of {path.name} has a class_index that is none of ImageNet-1k's 0 … 999."
        )
    labels = dict(zip(rows["file"], rows["class_index"], strict=True))
    return _photographs(path, files, labels, classes)


def _photographs(path: Path, files: dict, labels: dict[str, int], classes) -> Dataset:
    """Photographs in the order of `labels`: name → label."""
    names = list(labels)

    def picture(i: int) -> Image.Image | None:
        return photographs.decode(names[i], files[names[i]]())

    return Dataset(
        path.resolve().name, torch.tensor(list(labels.values())), tuple(classes), picture, names
    )


@cache
def _imagenet_classes() -> tuple[str, ...]:
    return tuple(ImageNetInfo().label_descriptions())
