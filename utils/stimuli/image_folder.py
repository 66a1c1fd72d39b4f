"""Photographs in a folder or .tar archive of yours, with labels or without.

Labels come from an ImageFolder, where each class is a folder, or from a table that lists the files.
"""

import csv
import hashlib
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import torch
from PIL import Image
from timm.data import ImageNetInfo

from .minibatches import Damaged, Dataset
from .pictures import decode
from .places import SYNSET, opened, printable, some

SPLITS = {"train", "training", "val", "valid", "validation", "test", "testing"}
NUMBER = re.compile(r"[0-9]{1,5}")
WHOLE = re.compile(r"([0-9]{1,5})(\.0*)?")  # a table of whole numbers with gaps may say 3.0


def read(path: str | Path) -> Iterator[tuple[str, Image.Image]]:
    """Read every image of a folder or .tar archive, in the order of their names.

    A damaged image is left out and named in a warning; a last warning counts them. Grey of more
    than eight bits is scaled to eight; transparency, colour profiles and the EXIF orientation are
    ignored, as torchvision and timm do.

    Args:
        path: As for `files`.

    Yields:
        The name inside `path`, and the RGB picture.

    Raises:
        FileNotFoundError: There is nothing at `path`.
        ValueError: As for `files`.
    """
    damaged, found = [], files(path)
    for name, content in found.items():
        picture = _decoded(name, content)
        if isinstance(picture, Damaged):
            damaged.append(name)
            warnings.warn(
                f"{picture.name} is damaged and left out: {picture.reason}.", stacklevel=2
            )
        else:
            yield name, picture
    if damaged:
        warnings.warn(
            f"{len(damaged)} of {len(found)} images in {printable(Path(path).name)} were damaged "
            f"and left out: {some(damaged)}.",
            stacklevel=2,
        )


def files(path: str | Path) -> dict[str, Callable[[], bytes]]:
    """The images of a folder or .tar archive, by name.

    Args:
        path: A folder, searched at any depth and through symbolic links, or an archive. Files count
            as images by their ending (.jpg, .png, .ppm, .pgm, .pbm, .bmp, .gif, .tif, .webp and
            their variants); what is hidden does not count.

    Returns:
        The name inside `path` → a function that reads the file, sorted by name. The functions hold
        no file open, and can be pickled.

    Raises:
        FileNotFoundError: There is nothing at `path`.
        ValueError: It holds no image, a folder that cannot be read, or a link that leads nowhere or
            back; or it is an archive that is compressed or damaged.
    """
    contents = opened(Path(path)).contents
    _check_found(Path(path), contents)
    return contents


def _check_found(path: Path, contents: dict[str, Callable[[], bytes]]) -> None:
    if not contents:
        raise ValueError(
            f"There are no images in {printable(path)}: expected files such as .jpg or .png."
        )


def image_folder(path: Path) -> Dataset:
    """The labelled photographs at `path`.

    Args:
        path: `utils.stimuli.datasets.load` says what it may hold.

    Raises:
        FileNotFoundError: Nothing is there.
        ValueError: As for `files`; or there are images outside of any class, classes without
            images, labels that do not fit the files, or synsets that ImageNet-1k does not have.
    """
    if table := _table(path):
        return _listed(path, table)
    place = opened(path)
    _check_found(path, place.contents)
    inner = {name: _below(place.root, name) for name in place.contents}
    folders = {_below(place.root, name) for name in place.folders if name != place.root}
    _check_classes(path, inner, {name.split("/")[0] for name in folders})
    # The first n of a sorted list would be of one class, and minibatches would be of one each.
    order = sorted(inner, key=lambda name: _shuffled(inner[name]))
    labels, classes = _classes(path, {name: inner[name].split("/")[0] for name in order})
    return _photographs(path, place.contents, labels, classes)


def _below(root: str, name: str) -> str:
    return name.removeprefix(f"{root}/") if root else name


def _shuffled(name: str) -> bytes:
    # The name below the root alone, so that a folder and an archive of it have the same order.
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()


def _check_classes(path: Path, inner: dict[str, str], folders: set[str]) -> None:
    """Raise ValueError unless each image is in a folder, and each folder has an image."""
    called = printable(path.resolve().name)
    if stray := [name for name, short in inner.items() if "/" not in short]:
        raise ValueError(
            f"{called} holds images outside of any class folder ({printable(stray[0])}, for one): "
            "put each into a folder called by its class, or add a labels.csv with columns file and "
            "class_index."
        )
    found = {short.split("/")[0] for short in inner.values()}
    if empty := sorted(folders - found):
        raise ValueError(
            f"{called} has folders without an image ({some(empty)}), which as classes would shift "
            "the labels of the others: fill them, or take them away."
        )
    if len(found) > 1 and found <= SPLITS:
        raise ValueError(
            f"{called} holds the splits {' and '.join(sorted(found))} rather than classes: name "
            "one of them."
        )


def _classes(path: Path, folders: dict[str, str]) -> tuple[dict[str, int], Sequence[str]]:
    """The label of each image by the folder that is its class, and the names of the labels."""
    names, called = sorted(set(folders.values())), printable(path.resolve().name)
    synsets = [name for name in names if SYNSET.fullmatch(name)]
    if synsets and len(synsets) < len(names):
        raise ValueError(
            f"{called} has folders called by WordNet ids and others "
            f"({some(name for name in names if name not in synsets)}): take the others away."
        )
    if synsets:
        ranks = {synset: i for i, synset in enumerate(ImageNetInfo().label_names())}
        if strange := [name for name in names if name not in ranks]:
            raise ValueError(f"{some(strange)} in {called} is no class of ImageNet-1k.")
        classes = _imagenet_classes()
    elif all(NUMBER.fullmatch(name) for name in names):
        ranks = _numbers(called, names)
        classes = [str(i) for i in range(max(ranks.values()) + 1)]
    else:
        ranks = {name: i for i, name in enumerate(names)}
        classes = [printable(name) for name in names]
    return {name: ranks[folder] for name, folder in folders.items()}, classes


def _numbers(called: str, names: list[str]) -> dict[str, int]:
    """The labels of classes that are called by numbers."""
    ranks = {name: int(name) for name in names}
    if len(set(ranks.values())) < len(names):
        twice = [name for name in names if list(ranks.values()).count(int(name)) > 1]
        raise ValueError(f"{some(twice)} in {called} are classes of one number: rename one.")
    if moved := [name for i, name in enumerate(names) if ranks[name] != i]:
        first = " and ".join(f"{name} has the label {ranks[name]}" for name in moved[:2])
        warnings.warn(
            f"The folders of {called} are called by numbers, and these are taken as the labels, "
            f"not their places in the alphabet: {first}.",
            stacklevel=2,
        )
    return ranks


def _table(path: Path) -> Path | None:
    """The labels.csv of a folder or archive, if it has one."""
    table = (path if path.is_dir() else path.parent) / "labels.csv"
    return table if path.exists() and table.is_file() else None


def _listed(path: Path, table: Path) -> Dataset:
    """Photographs whose labels stand in a table, in the order of the table."""
    called = f"labels.csv of {printable(path.resolve().name)}"
    listed = _rows(called, table)
    archive = path / "images.tar"
    contents = files(archive if archive.is_file() else path)
    if absent := [name for name in listed if name not in contents]:
        raise ValueError(
            f"{called} lists {len(absent)} images that are not there, {printable(absent[0])} first."
        )
    classes = _imagenet_classes()
    labels = {name: _index(called, name, text, len(classes)) for name, text in listed.items()}
    return _photographs(path, contents, labels, classes)


def _rows(called: str, table: Path) -> dict[str, str]:
    """The class_index of each file, as text."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, strict=True, skipinitialspace=True))
    except UnicodeDecodeError:
        raise ValueError(f"{called} is not in UTF-8: save it in that encoding.") from None
    except (csv.Error, OSError) as error:
        raise ValueError(f"{called} cannot be read as a table with commas ({error}).") from None
    header, *rows = lines or [[]]
    header = [name.strip() for name in header]
    if lacking := {"file", "class_index"} - set(header):
        raise ValueError(
            f"{called} lacks the column {' and '.join(sorted(lacking))}: its first line names "
            "columns, with commas in between."
        )
    if twice := {name for name in header if header.count(name) > 1}:
        raise ValueError(f"{called} has two columns called {some(sorted(twice))}: keep one.")
    listed: dict[str, str] = {}
    for row in filter(None, rows):
        if len(row) != len(header):
            raise ValueError(
                f"{called} has {len(header)} columns, but {len(row)} values where it says "
                f"{printable(row[0])[:80]}."
            )
        values = dict(zip(header, row, strict=True))
        name = PurePosixPath(values["file"].strip()).as_posix()
        if name in listed:
            raise ValueError(f"{called} lists {printable(name)} twice: keep one of the lines.")
        listed[name] = values["class_index"].strip()
    if not listed:
        raise ValueError(f"{called} lists no images.")
    return listed


def _index(called: str, name: str, text: str, count: int) -> int:
    found = WHOLE.fullmatch(text)
    if not found or int(found[1]) >= count:
        raise ValueError(
            f"{called} has the class_index {printable(text)[:80] or 'nothing'!r} for "
            f"{printable(name)}, which is none of ImageNet-1k's 0 … {count - 1}."
        )
    return int(found[1])


def _decoded(name: str, content: Callable[[], bytes]) -> Image.Image | Damaged:
    try:
        return decode(name, content())
    except OSError as error:
        return Damaged(printable(name), printable(error.strerror or error))


@dataclass(frozen=True)
class _Photographs:
    """Pictures in files, read when they are asked for."""

    names: list[str]
    contents: list[Callable[[], bytes]]

    def __call__(self, i: int) -> Image.Image | Damaged:
        return _decoded(self.names[i], self.contents[i])

    def content(self, i: int) -> bytes:
        try:
            return self.contents[i]()
        except OSError:  # as damaged as when it is shown
            return b""


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
    source = printable(path.resolve().name)
    return Dataset(source, numbers, tuple(classes), pictures, names, pictures.content)


@cache
def _imagenet_classes() -> tuple[str, ...]:
    return tuple(ImageNetInfo().label_descriptions())
