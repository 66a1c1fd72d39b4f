"""Folders and archives of any shape: what torchvision's ImageFolder says of them, or a refusal."""

import os
import random
import re
import tarfile
import warnings
from pathlib import Path

import pytest
from faults.case import is_a_sentence
from PIL import Image
from torchvision.datasets import ImageFolder

from utils.stimuli import datasets, image_folder, places

TREES = 60
WORDS = ("a", "b", "Cat", "cat", "é", "e\u0301", "日本", "a b", "a.b", "x.png", "-r", "'q", "a\nb",
         "\udcff", "1", "01", "val", "test", "images")  # fmt: skip
NUMBERS = ("0", "1", "2", "3", "9", "10", "11", "100", "007")
SYNSETS = ("n01440764", "n15075141", "n02510455")  # tench 0, toilet tissue 999, giant panda 388
HIDDEN = (".ipynb_checkpoints", "__MACOSX", ".git", "@eaDir")
PICTURES = ("1.png", "2.PNG", "3.jpeg", "4.JPG", "5.tiff", "..png.webp", "é\udcff.gif", "a b.bmp")
OTHERS = ("notes.txt", "features.h5", "Thumbs.db", "doc.pdf", "png", "x.eps", "._1.png", ".png")


def picture(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), "grey").save(file, "png")


def grow(folder: Path, chance: random.Random, names: tuple[str, ...], depth: int = 0) -> None:
    """A random tree of folders, pictures, other files and links, most often one of classes."""
    folder.mkdir(exist_ok=True)
    if depth or chance.random() < 0.1:
        for name in chance.sample(PICTURES, chance.choice((0, 1, 1, 1, 2, 2, 3, 3, 4))):
            picture(folder / name)
    for name in chance.sample(OTHERS, chance.choice((0, 0, 1, 2))):
        picture(folder / name)
    for name in chance.sample(HIDDEN, chance.choice((0, 0, 0, 1))):
        picture(folder / name / "7.png")
    below = chance.choice(((2, 3, 3), (0, 0, 0, 1), (0,))[min(depth, 2)])
    for name in chance.sample(names, below):
        if not (folder / name).exists():
            grow(folder / name, chance, WORDS, depth + 1)
    if chance.random() < 0.1:
        link = folder / chance.choice((*names, "9.png", "9.png"))
        there = [*folder.iterdir(), *folder.parent.iterdir()]
        target = chance.choice([*there, *there, folder.parent, Path("gone")])
        if not link.exists() and not link.is_symlink():
            link.symlink_to(os.path.relpath(target, folder))


def expected(folder: Path) -> dict[str, int]:
    """File → label by torchvision, which is shown the tree without what is hidden."""

    class Visible(ImageFolder):
        def find_classes(self, directory):
            names, _ = super().find_classes(directory)
            visible = [n for n in names if n not in HIDDEN and not n.startswith(".")]
            return visible, {name: i for i, name in enumerate(visible)}

    def counts(file):
        parts = Path(file).relative_to(folder).parts
        hidden = any(part in HIDDEN or part.startswith(".") for part in parts)
        return file.lower().endswith(tuple(places.ENDINGS)) and not hidden

    found = Visible(folder, is_valid_file=counts)
    classes = found.classes
    if all(re.fullmatch("[0-9]+", name) for name in classes):
        labels = [int(name) for name in classes]
    elif set(classes) <= set(SYNSETS):
        labels = [(0, 999, 388)[SYNSETS.index(name)] for name in classes]
    else:
        labels = list(range(len(classes)))
    return {os.path.relpath(file, folder): labels[label] for file, label in found.samples}


def answer(place: Path) -> dict[str, int] | str:
    """File → label, or the sentence that refuses the place."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = datasets.load(place)
        except ValueError as error:
            return str(error)
    return dict(zip(data.names, data.labels.tolist(), strict=True))


def packed(folder: Path, how: str) -> Path:
    """The folder as tar packs it: by its name, from within it, or by the names of its files."""
    path = folder.parent / f"{how}.tar"
    prefix = {"by name": folder.name, "within": ".", "files": f"data/{folder.name}"}[how]
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, dereference=False) as archive:
        if how != "files":
            archive.add(folder, prefix)
        else:
            for file in sorted(folder.rglob("*")):
                if file.is_symlink() or not file.is_dir():
                    archive.add(file, f"{prefix}/{file.relative_to(folder)}", recursive=False)
    return path


def tree(seed: int, place: Path) -> Path:
    chance = random.Random(seed)
    grow(place / "pets", chance, chance.choice((WORDS, WORDS, NUMBERS, SYNSETS)))
    return place / "pets"


@pytest.fixture(params=range(TREES))
def folder(request, tmp_path):
    return tree(request.param, tmp_path)


def test_a_folder_is_an_image_folder_or_is_refused_by_a_sentence(folder):
    found = answer(folder)
    assert found == expected(folder) if isinstance(found, dict) else is_a_sentence(found, ())


@pytest.mark.parametrize("how", ["by name", "within", "files"])
def test_an_archive_of_a_folder_is_that_folder_or_is_refused_by_a_sentence(folder, how):
    found = answer(packed(folder, how))
    if not isinstance(found, dict):
        assert is_a_sentence(found, (f"{how}.tar",)), found
        return
    prefix = {"by name": "pets/", "within": "", "files": "data/pets/"}[how]
    inside = {name.removeprefix(prefix): label for name, label in found.items()}
    if how == "files" and (len(set(inside.values())) < 2 or any_empty(folder)):
        return  # a list of files does not tell
    assert inside == expected(folder)


def any_empty(folder: Path) -> bool:
    try:
        return not expected(folder)
    except FileNotFoundError:
        return True


def test_most_trees_are_read_and_some_are_refused(tmp_path):
    read = 0
    for seed in range(TREES):
        (tmp_path / str(seed)).mkdir()
        read += isinstance(answer(tree(seed, tmp_path / str(seed))), dict)
    assert TREES / 3 < read < TREES


def shown(path: Path) -> dict[str, bytes] | str:
    """Name → content of all pictures, or the sentence that refuses the archive."""
    try:
        return {name: content() for name, content in image_folder.files(path).items()}
    except ValueError as error:
        return str(error)


@pytest.fixture(params=range(12))
def archive(request, tmp_path):
    """An archive of five classes, and where in it the headers are; the last one is its end."""
    chance, path = random.Random(request.param), tmp_path / "pets.tar"
    for name in (f"{c}/{i}.png" for c in "abcde" for i in range(chance.randrange(1, 4))):
        picture(tmp_path / "pets" / name)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(tmp_path / "pets", "pets")
    with tarfile.open(path) as archive:
        headers = [member.offset for member in archive]
        return path, [*headers, archive.offset], chance


def test_an_archive_that_is_cut_off_anywhere_is_refused(archive):
    path, headers, chance = archive
    content = path.read_bytes()
    for end in chance.sample(range(headers[-1] + places.BLOCK), 40) + headers:
        path.write_bytes(content[:end])
        found = shown(path)
        assert is_a_sentence(str(found), ("pets.tar",)), (end, found)


def test_a_damaged_header_hides_no_picture(archive):
    path, headers, chance = archive
    content, whole = path.read_bytes(), shown(path)
    for _ in range(40):
        damaged = bytearray(content)
        at = chance.choice(headers) + chance.randrange(places.BLOCK)
        damaged[at] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        found = shown(path)
        assert found == whole or is_a_sentence(str(found), ("pets.tar",)), (at, found)


def test_sizes_below_zero_are_refused_and_not_followed_for_ever(archive):
    path, headers, chance = archive
    content, whole = path.read_bytes(), shown(path)
    for _ in range(20):
        start, size = chance.choice(headers[:-1]), -chance.randrange(1, 10**6)
        header = bytearray(content[start : start + places.BLOCK])
        header[124:136] = b"\xff" * 4 + size.to_bytes(8, "big", signed=True)
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        path.write_bytes(content[:start] + header + content[start + places.BLOCK :])
        found = shown(path)  # a folder has no size
        assert found == whole or is_a_sentence(str(found), ("pets.tar",)), (start, size)
