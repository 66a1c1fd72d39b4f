"""Folders of photographs as they lie on people's disks: which pictures of which class they hold."""

import os
from itertools import product
from pathlib import Path
from unittest import mock

from PIL import Image

from faults.case import Case, command
from utils.stimuli import datasets

PETS = {"cat/1.png": 10, "cat/2.png": 20, "dog/3.png": 30, "emu/4.png": 40}
RIGHT = {"cat/1.png": [0, 10], "cat/2.png": [0, 20], "dog/3.png": [1, 30], "emu/4.png": [2, 40]}
HIDDEN = (".ipynb_checkpoints", ".git", ".cache", "__MACOSX", "@eaDir", "$RECYCLE.BIN",
          "System Volume Information", "lost+found", ".Trash-1000", ".AppleDouble")  # fmt: skip
STRAY_FILES = ("._1.png", ".DS_Store", "Thumbs.db", "desktop.ini", "features.h5", "x.hdf", "a.pdf",
               "film.mpg", "wind.grib", "plot.eps", "plot.ps", "x.svg", "notes.txt", ".png", "png",
               "x.png~", "x.png.part", "x.fits", "x.wmf", "x.psd", "x.ico")  # fmt: skip
WITHOUT_PICTURES = {
    "nothing": (),
    "hidden pictures only": ("._1.png",),
    "other files only": ("a.txt", "b.npy"),
    "an empty folder only": ("below/",),
}


def make(place: Path, greys: dict[str, int | None]) -> Path:
    """Pictures of one grey each by their names; a name that ends with a slash is a folder."""
    place.mkdir(parents=True, exist_ok=True)
    for name, grey in greys.items():
        file = place / name
        if name.endswith("/"):
            file.mkdir(parents=True)
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (grey or 0,) * 3).save(file, "png")
    return place


def seen(place) -> dict[str, list[int]]:
    """Name → label and grey, as a data set gives them."""
    data = datasets.load(place)
    batch, damaged = data.read(range(len(data)))
    data.leave_out(damaged)
    greys = (255 * batch.images.mean(dim=(1, 2, 3))).round().int().tolist()
    found = zip(batch.index.tolist(), batch.labels.tolist(), greys, strict=True)
    return dict(sorted((data.names[i], [label, grey]) for i, label, grey in found))


def pets(folder: Path, more: dict[str, int | None] | None = None) -> Path:
    return make(folder / "pets", PETS | (more or {}))


def linked(folder: Path, name: str, target: str | Path) -> Path:
    place = pets(folder)
    (place / name).parent.mkdir(parents=True, exist_ok=True)
    (place / name).symlink_to(target)
    return place


def with_link(name: str, absolute: bool):
    def act(folder: Path):
        make(folder / "elsewhere", {"9.png": 90, "more/8.png": 80})
        relative = os.path.relpath("elsewhere", Path("pets", name).parent)
        place = linked(folder, name, folder / "elsewhere" if absolute else relative)
        return seen(place)

    return act


def two_links(folder: Path):
    make(folder / "elsewhere", {"9.png": 90})
    place = linked(folder, "fox", "../elsewhere")
    (place / "gnu").symlink_to("../elsewhere")
    return seen(place)


def pair_of_links(folder: Path):
    place = linked(folder, "cat/to", "../dog")
    (place / "dog" / "to").symlink_to("../cat")
    return seen(place)


def unreadable(name: str):
    """A folder that the system does not let one list, whoever runs this."""
    scandir = os.scandir

    def listing(place):
        if Path(place).name == name:
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    def act(folder: Path):
        place = pets(folder, {"cat/below/7.png": 70})
        with mock.patch("os.scandir", listing):
            return seen(place)

    return act


def with_pipe(folder: Path):
    place = pets(folder)
    os.mkfifo(place / "cat" / "9.png")
    return seen(place)


def unlisted(folder: Path):
    place = pets(folder)
    (place / "cat" / "9.png").symlink_to("gone.png")
    return seen(place)


def numbered(*names: str):
    greys = {f"{name}/1.png": i for i, name in enumerate(names)}
    return lambda folder: seen(make(folder / "pets", greys))


def by_number(*names: str):
    return {f"{n}/1.png": [int(n), i] for i, n in sorted(enumerate(names), key=lambda p: p[1])}


def of_imagenetv2(folder: Path):
    return seen(make(folder / "v2", {f"{i}/1.png": i % 251 for i in range(1000)}))


def of_our_name(name: str, inner: str = ""):
    """A folder of one's own that is called as a data set of the book, by some spelling of it."""

    def act(folder: Path):
        make(folder / "objects" / inner, PETS)
        return seen(Path("objects") if name == "a Path" else name)

    return act


def length_of_the_book_s(name: str):
    def act(folder: Path):
        make(folder / name, PETS)
        return len(datasets.load(name))

    return act


def on_another_drive(folder: Path):
    relpath = mock.Mock(side_effect=ValueError("path is on mount 'D:', start on mount 'C:'"))
    with mock.patch.dict(os.environ, BOOK_DATA=str(folder)), mock.patch("os.path.relpath", relpath):
        return datasets.load("cue-conflict")


def measured(folder: Path):
    make(folder / "pets", PETS | {"dodo/": None})
    return command("measure", "resnet-d8", "--data", "pets", "--measures", "accuracy")


def two_orders(*names: str):
    """The labels where the same classes are asked for twice: of a folder and a copy elsewhere."""

    def act(folder: Path):
        greys = {f"{name}/{i}.png": i for i, name in enumerate(names)}
        one, other = make(folder / "a", greys), make(folder / "b/a", greys)
        first, second = datasets.load(one), datasets.load(other)
        return first.names == second.names and first.digest == second.digest

    return act


CASES = [
    *(
        Case(
            f"a hidden folder {name} {where}",
            lambda f, n=f"{where}{name}/7.png": seen(pets(f, {n: 7})),
            right=RIGHT,
        )
        for name, where in product(HIDDEN, ("", "cat/"))
    ),
    *(
        Case(
            f"a file {name} in {where or 'the root'}",
            lambda f, n=f"{where}{name}": seen(pets(f, {n: 7})),
            right=RIGHT,
        )
        for name, where in product(STRAY_FILES, ("", "cat/"))
    ),
    *(
        Case(
            f"a class {name} that holds {what}",
            lambda f, n=name, inner=inner: seen(
                pets(f, {f"{n}/": None} | {f"{n}/{x}": 7 for x in inner})
            ),
            says=("pets", name, "without an image"),
        )
        for (what, inner), name in product(WITHOUT_PICTURES.items(), ("ant", "cow", "yak"))
    ),
    *(
        Case(
            f"pictures {'/'.join(['below'] * depth)} in their class",
            lambda f, below="below/" * depth: seen(
                make(f / "pets", {f"{n}/{below}{n}.png": 50 for n in "abc"})
            ),
            right={f"{n}/{'below/' * depth}{n}.png": [i, 50] for i, n in enumerate("abc")},
        )
        for depth in (1, 2, 3, 30)
    ),
    *(
        Case(
            f"a class called {name!r} that is {'an absolute' if absolute else 'a relative'} link",
            with_link(name, absolute),
            right=dict(
                sorted(
                    (
                        {k: [v[0] + (name < "cat"), v[1]] for k, v in RIGHT.items()}
                        | {f"{name}/9.png": [3 * (name > "emu"), 90]}
                        | {f"{name}/more/8.png": [3 * (name > "emu"), 80]}
                    ).items()
                )
            ),
        )
        for name, absolute in product(("ant", "fox"), (True, False))
    ),
    Case(
        "two classes that are links to one folder",
        two_links,
        right=RIGHT | {"fox/9.png": [3, 90], "gnu/9.png": [4, 90]},
    ),
    Case(
        "a link to a folder inside a class",
        with_link("cat/more", False),
        right={"cat/1.png": [0, 10], "cat/2.png": [0, 20], "cat/more/9.png": [0, 90]}
        | {"cat/more/more/8.png": [0, 80]}
        | RIGHT,
    ),
    *(
        Case(
            f"a link that goes round: {name} to {target}",
            lambda f, n=name, t=target: seen(linked(f, n, t)),
            says=(name, "pets", "delete the link"),
        )
        for name, target in {
            "cat/loop": ".",
            "dog/loop": "..",
            "loop": ".",
            "emu/a/b/loop": "../..",
            "cat/up": "../../pets",
        }.items()
    ),
    Case("two links that go round together", pair_of_links, says=("pets", "delete the link")),
    *(
        Case(
            f"a class {name} that is a link to {target}",
            lambda f, n=name, t=target: seen(linked(f, n, t)),
            says=(name, "pets", "link to nothing"),
        )
        for name, target in product(("ant", "yak"), ("gone", "/gone", "ant", "yak"))
    ),
    Case("a picture that is a link to nothing", unlisted, right=RIGHT, says=("cat/9.png", "link")),
    Case("a picture that is a pipe", with_pipe, right=RIGHT, says=("cat/9.png", "no file")),
    *(
        Case(f"a folder {name} that cannot be read", unreadable(name), says=(name, "Permission"))
        for name in ("cat", "dog", "emu", "below", "pets")
    ),
    *(
        Case(
            f"pictures outside of any class, {name}",
            lambda f, n=name: seen(pets(f, {n: 7})),
            says=("pets", "outside of any class", name, "labels.csv"),
        )
        for name in ("a.png", "z.JPG", "x.webp")
    ),
    Case("classes 0 to 999 without zeros in front", of_imagenetv2,
         right={f"{i}/1.png": [i, i % 251] for i in sorted(range(1000), key=str)},
         says=("v2", "numbers", "10 has the label 10")),
    Case("classes 1, 2, 10", numbered("1", "2", "10"), right=by_number("1", "2", "10"),
         says=("numbers", "1 has the label 1 and 10 has the label 10")),
    Case("classes 0 to 3", numbered(*"0123"), right=by_number(*"0123")),
    Case("classes 000 to 011", numbered(*(f"{i:03}" for i in range(12))),
         right=by_number(*(f"{i:03}" for i in range(12)))),
    Case("classes 7 and 007", numbered("7", "007", "8"), says=("007", "7", "rename")),
    Case("classes that are dates", numbered("20230101", "20240101"),
         right={"20230101/1.png": [0, 0], "20240101/1.png": [1, 1]}),
    Case("classes that are numbers and words", numbered("10", "9", "a"),
         right={"10/1.png": [0, 0], "9/1.png": [1, 1], "a/1.png": [2, 2]}),
    Case("synsets and another folder", numbered("n01440764", "n15075141", "extra"),
         says=("WordNet", "extra", "pets")),
    Case("a synset that ImageNet-1k does not have", numbered("n01440764", "n00000001"),
         says=("n00000001", "ImageNet-1k")),
    Case("Tiny ImageNet: synsets with a folder images in each",
         lambda f: seen(make(f / "t", {"n01440764/images/a.png": 1, "n02510455/images/b.png": 2})),
         right={"n01440764/images/a.png": [0, 1], "n02510455/images/b.png": [388, 2]}),
    *(
        Case(f"the folder above the splits {' and '.join(splits)}",
             lambda f, splits=splits: seen(
                 make(f / "pets", {f"{s}/{n}": 5 for s in splits for n in PETS})),
             says=("pets", *splits, "name one of them"))
        for splits in (("train", "val"), ("test", "train", "validation"), ("test", "train"))
    ),
    Case("a class called train among others",
         lambda f: seen(make(f / "pets", {"train/1.png": 1, "bus/2.png": 2})),
         right={"bus/2.png": [0, 2], "train/1.png": [1, 1]}),
    *(
        Case(f"a folder of one's own, objects, called {name!r}", of_our_name(name), right=RIGHT)
        for name in ("objects/", "./objects", "./objects/", "a Path", "objects/.")
    ),
    Case("a folder objects/cats of one's own", of_our_name("objects/cats", "cats"), right=RIGHT),
    *(
        Case(f"a data set called {name} where a folder is called so", length_of_the_book_s(name),
             right=length, says=(name, f"./{name}", "book"))
        for name, length in {"objects": 10_000, "objects/test": 10_000,
                             "objects/validation": 5_000}.items()
    ),
    *(
        Case(f"data called {name!r}", lambda _, n=name: datasets.load(n), says=("There is no",))
        for name in ("", "nowhere/", "nowhere", "nowhere\nat all", "objects/", "objects/night",
                     "cue-conflict/x", "cifar10/", "cifar10/night", "\0", "a" * 300)
    ),
    Case("the data on another drive of Windows", on_another_drive,
         says=("cue_conflict", "BOOK_DATA")),
    Case("an empty class by the command", measured, slow=True,
         says=("dodo", "pets", "without an image")),
    *(
        Case(f"classes called {names[0]!r} and so on", two_orders(*names), right=True)
        for names in (("é", "e\u0301"), ("日本", "中国"), ("a b", "a\tb"), ("-r", "--data"),
                      ("\udcff", "x"), ("'", '"'), ("a\nb", "c"), ("A", "a"), ("x.png", "y.png"))
    ),
]  # fmt: skip
