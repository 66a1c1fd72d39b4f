"""Photographs in a folder or .tar archive of yours, with labels or without.

Labels come from an ImageFolder, where each class is a folder, or from a table that lists the files.
"""

import hashlib
import io
import re
import tarfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pandas as pd
import torch
from PIL import Image, UnidentifiedImageError
from timm.data import ImageNetInfo

from .minibatches import Damaged, Dataset

SYNSET = re.compile(r"n\d{8}")


def read(path: str | Path) -> Iterator[tuple[str, Image.Image]]:
    """Read every image of a folder or .tar archive, in the order of their names.

    A damaged image is left out and named in a warning; a last warning counts them.

    Args:
        path: A folder, searched at any depth, or an archive; files count as images by their ending.

    Yields:
        The name inside `path`, and the RGB picture.

    Raises:
        FileNotFoundError: There is nothing at `path`.
        ValueError: It holds no image, or is a compressed archive.
    """
    damaged, found = [], files(path)
    for name, content in found.items():
        picture = decode(name, content())
        if isinstance(picture, Damaged):
            damaged.append(name)
            warnings.warn(f"{name} is damaged and left out: {picture.reason}.", stacklevel=2)
        else:
            yield name, picture
    if damaged:
        warnings.warn(
            f"{len(damaged)} of {len(found)} images in {Path(path).name} were damaged and left "
            f"out: {', '.join(damaged)}.",
            stacklevel=2,
        )


def files(path: str | Path) -> dict[str, Callable[[], bytes]]:
    """The images of a folder or .tar archive, by name.

    Args:
        path: As for `read`.

    Returns:
        The name inside `path` → a function that reads the file, sorted by name. The functions hold
        no file open, and can be pickled.

    Raises:
        FileNotFoundError: There is nothing at `path`.
        ValueError: It holds no image, or is a compressed archive.
    """
    path = Path(path)
    if path.is_dir():
        contents = _in_folder(path)
    elif path.is_file():
        contents = _in_archive(path)
    else:
        raise FileNotFoundError(f"There is no folder or archive at {path}.")
    endings = Image.registered_extensions()
    images = {n: content for n, content in contents.items() if Path(n).suffix.lower() in endings}
    if not images:
        raise ValueError(f"There are no images in {path}: expected files such as .jpg or .png.")
    return images


def _in_folder(path: Path) -> dict[str, Callable[[], bytes]]:
    names = sorted(f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file())
    return {name: (path / name).read_bytes for name in names}


def _in_archive(path: Path) -> dict[str, Callable[[], bytes]]:
    try:
        with tarfile.open(path, "r:") as archive:  # uncompressed: any file can be read at once
            members = sorted((m for m in archive if m.isfile()), key=lambda m: m.name)
    except tarfile.ReadError as error:
        raise ValueError(f"{path.name} is no uncompressed .tar archive: {error}.") from None
    return {m.name: partial(_part, path, m.offset_data, m.size) for m in members}


def _part(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


def decode(name: str, content: bytes) -> Image.Image | Damaged:
    """The RGB picture in the content of a file.

    Args:
        name: What a damaged one is called.
        content: Of a file in any format that Pillow reads.
    """
    try:
        return Image.open(io.BytesIO(content)).convert("RGB")
    except UnidentifiedImageError:  # whose words are about the buffer
        return Damaged(name, "it is in no format that Pillow knows")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return Damaged(name, str(error))


def image_folder(path: Path) -> Dataset:
    """The labelled photographs at `path`.

    Args:
        path: `utils.stimuli.datasets.load` says what it may hold.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: It holds no images, labels that do not fit the files, or synsets that
            ImageNet-1k does not have.
    """
    if table := _table(path):
        return _listed(path, table)
    contents = files(path)
    # The first n of a sorted list would be of one class, and minibatches would be of one each.
    order = sorted(contents, key=_shuffled)
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
    return _photographs(path, contents, labels, classes)


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
    contents = files(archive if archive.is_file() else path)
    if absent := [name for name in rows["file"] if name not in contents]:
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
    return _photographs(path, contents, labels, classes)


@dataclass(frozen=True)
class _Photographs:
    """Pictures in files, read when they are asked for."""

    names: list[str]
    contents: list[Callable[[], bytes]]

    def __call__(self, i: int) -> Image.Image | Damaged:
        return decode(self.names[i], self.contents[i]())

    def content(self, i: int) -> bytes:
        return self.contents[i]()


def _photographs(
    path: Path,
    contents: dict[str, Callable[[], bytes]],
    labels: dict[str, int],
    classes: Sequence[str],
) -> Dataset:
    """Photographs in the order of `labels`: name → label."""
    names = list(labels)
    pictures = _Photographs(names, [contents[name] for name in names])
    numbers = torch.tensor(list(labels.values()))
    source = path.resolve().name
    return Dataset(source, numbers, tuple(classes), pictures, names, pictures.content)


@cache
def _imagenet_classes() -> tuple[str, ...]:
    return tuple(ImageNetInfo().label_descriptions())
