"""Archives as tar, macOS and cut downloads leave them: what is in them, or a refusal."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from itertools import product
from pathlib import Path

from PIL import Image

from faults.case import Case
from faults.cases.folders import PETS, RIGHT, pets, seen
from utils.stimuli import datasets, image_folder

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "GNU": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
BLOCK = 512
LONG = "a-long-name-" * 12
Member = tuple[tarfile.TarInfo, bytes | None]


def png(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (grey,) * 3).save(buffer, "png")
    return buffer.getvalue()


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, to: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, to, len(content)
    return info, content


def folder_member(name: str) -> Member:
    return member(name, kind=tarfile.DIRTYPE)


def link(name: str, to: str) -> Member:
    return member(name, kind=tarfile.SYMTYPE, to=to)


def hard_link(name: str, to: str) -> Member:
    return member(name, kind=tarfile.LNKTYPE, to=to)


def files(greys: dict[str, int] = PETS, prefix: str = "") -> list[Member]:
    return [member(f"{prefix}{name}", png(grey)) for name, grey in greys.items()]


def write(folder: Path, members: list[Member], form: int = tarfile.PAX_FORMAT) -> Path:
    path = folder / "pets.tar"
    with tarfile.open(path, "w", format=form) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return path


def holding(*members: Member, form: int = tarfile.PAX_FORMAT):
    """Ask for what an archive of these members holds, behind the pictures of PETS."""
    return lambda folder: seen(write(folder, [*files(), *members], form))


def only(members: list[Member], form: int = tarfile.PAX_FORMAT):
    return lambda folder: seen(write(folder, members, form))


def right(prefix: str) -> dict[str, list[int]]:
    return {f"{prefix}{name}": value for name, value in RIGHT.items()}


def packed(how: str, form: int):
    """What an archive of a folder holds, packed by its name, as "." or as its classes."""

    def act(folder: Path):
        place = pets(folder)
        with tarfile.open(folder / "p.tar", "w", format=form) as archive:
            if how == "its classes":
                for name in ("cat", "dog", "emu"):
                    archive.add(place / name, name)
            else:
                archive.add(place, how)
        return seen(folder / "p.tar")

    return act


PREFIXES = {"pets": "pets/", ".": "", "./pets": "pets/", "home/me/pets": "home/me/pets/",
            "its classes": "", "/data/pets": "data/pets/"}  # fmt: skip


def with_holes(kind: str, last: bool):
    """Whether a BMP whose black middle is a hole, as `tar --sparse` stores it, comes out whole."""
    buffer = io.BytesIO()
    picture = Image.new("RGB", (64, 64))
    picture.paste((200,) * 3, (0, 56, 64, 64))  # BMP begins with its last rows
    picture.paste((200,) * 3, (0, 0, 64, 8))
    picture.save(buffer, "bmp")
    content = buffer.getvalue()
    blocks = [(0, 1600), (10752, len(content) - 10752)]
    assert not any(content[1600:10752])
    stored = b"".join(content[at : at + length] for at, length in blocks)

    def act(folder: Path):
        path = folder / "pets.tar"
        whole = {"old GNU": old_gnu, "pax 0.1": pax_01, "pax 1.0": pax_10}[kind]
        sparse = whole("dog/9.bmp", stored, blocks, len(content))
        rest = b"".join(info.tobuf(tarfile.GNU_FORMAT) + padded(x) for info, x in files())
        path.write_bytes((rest + sparse if last else sparse + rest) + bytes(10 * BLOCK))
        found = image_folder.files(path)
        return [found["dog/9.bmp"]() == content, list(found)]

    return act


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def old_gnu(name: str, stored: bytes, blocks: list[tuple[int, int]], size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(stored)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    for i, number in enumerate(number for block in blocks for number in block):
        header[386 + 12 * i : 398 + 12 * i] = b"%011o\0" % number
    header[483:495] = b"%011o\0" % size
    return summed(header) + padded(stored)


def summed(header: bytearray) -> bytes:
    """A header with the checksum that it should have."""
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def pax_01(name: str, stored: bytes, blocks: list[tuple[int, int]], size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(stored)
    info.pax_headers = {
        "GNU.sparse.size": str(size),
        "GNU.sparse.numblocks": str(len(blocks)),
        "GNU.sparse.map": ",".join(str(number) for block in blocks for number in block),
    }
    return info.tobuf(tarfile.PAX_FORMAT) + padded(stored)


def pax_10(name: str, stored: bytes, blocks: list[tuple[int, int]], size: int) -> bytes:
    numbers = [len(blocks), *(number for block in blocks for number in block)]
    stored = padded("".join(f"{number}\n" for number in numbers).encode()) + stored
    info = tarfile.TarInfo("GNUSparseFile.0/" + name)
    info.size = len(stored)
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(size),
    }
    return info.tobuf(tarfile.PAX_FORMAT) + padded(stored)


def enormous(folder: Path):
    """A file of a few bytes that says it is a thousand terabytes of nothing."""
    sparse = old_gnu("dog/9.png", b"x" * 512, [(0, 512)], 2**32)
    path = write(folder, files())
    path.write_bytes(sparse + path.read_bytes())
    return seen(path)


def changed(change, form: int = tarfile.PAX_FORMAT):
    """What is found after `change(content, where the header of each member is)`."""

    def act(folder: Path):
        path = write(folder, files(), form)
        with tarfile.open(path) as archive:
            headers = [info.offset for info in archive]
            end = archive.offset
        content = change(bytearray(path.read_bytes()), [*headers, end])
        path.write_bytes(content)
        return seen(path)

    return act


def flipped(number: int, byte: int):
    def change(content: bytearray, headers: list[int]):
        content[headers[number] + byte] ^= 0x15
        return content

    return changed(change)


def cut(where):
    return changed(lambda content, headers: content[: where(headers)])


def negative(content: bytearray, headers: list[int]):
    header = content[headers[1] : headers[1] + BLOCK]
    header[124:136] = b"\xff" * 10 + (65536 - 1024).to_bytes(2, "big")
    content[headers[1] : headers[1] + BLOCK] = summed(header)
    return content


def compressed(pack):
    def act(folder: Path):
        path = write(folder, files())
        path.write_bytes(pack(path.read_bytes()))
        return seen(path)

    return act


def zipped(folder: Path):
    with zipfile.ZipFile(folder / "pets.zip", "w") as archive:
        archive.writestr("cat/1.png", png(1))
    return seen(folder / "pets.zip")


def concatenated(folder: Path):
    path = write(folder, files())
    path.write_bytes(path.read_bytes() + write(folder, files(prefix="more/")).read_bytes())
    return seen(path)


def appended(folder: Path):
    path = write(folder, files())
    with tarfile.open(path, "a") as archive:
        info, content = member("cat/1.png", png(99))
        archive.addfile(info, io.BytesIO(content))
    return seen(path)


def as_a_folder(folder: Path):
    return seen(pets(folder).rename(folder / "pets.tar"))


def bare(content: bytes):
    def act(folder: Path):
        (folder / "pets.tar").write_bytes(content)
        return seen(folder / "pets.tar")

    return act


def vanished(folder: Path):
    """An archive that is deleted after it was opened: every picture is damaged, in words."""
    path = write(folder, files())
    data = datasets.load(path)
    path.unlink()
    reasons = {data[i].reason for i in range(len(data))}
    return [sorted(data[i].name for i in range(len(data))), sorted(reasons)]


def read_in_order(folder: Path):
    return [name for name, _ in image_folder.read(write(folder, files()))]


def same_order(how: str):
    def act(folder: Path):
        place = pets(folder)
        with tarfile.open(folder / "p.tar", "w") as archive:
            archive.add(place, how)
        one, other = datasets.load(place), datasets.load(folder / "p.tar")
        return [name.removeprefix("pets/") for name in other.names] == one.names

    return act


CUT = {
    "in a header": lambda headers: headers[2] + 100,
    "in the data": lambda headers: headers[2] + BLOCK + 10,
    "in the padding": lambda headers: headers[3] - 1,
    "before a header": lambda headers: headers[2],
    "before its end": lambda headers: headers[-1],
    "in its end": lambda headers: headers[-1] + BLOCK - 1,
    "in the first header": lambda headers: 100,
    "in the last file": lambda headers: headers[-1] - 1,
}
FIELDS = {"name": 0, "mode": 102, "size": 130, "checksum": 150, "type": 156, "magic": 258,
          "padding": 505}  # fmt: skip
NO_FILES = {
    "a fifo": tarfile.FIFOTYPE,
    "a character device": tarfile.CHRTYPE,
    "a block device": tarfile.BLKTYPE,
}

TRIED = [
    *(
        Case(f"packed as {how} in {form}", packed(how, FORMATS[form]), right=right(prefix))
        for (how, prefix), form in product(PREFIXES.items(), FORMATS)
    ),
    *(
        Case(f"its files only, below {prefix!r}", only(files(prefix=prefix)),
             right=right(plain))
        for prefix, plain in {"": "", "./": "", "pets/": "pets/", "a/b/pets/": "a/b/pets/",
                              "/pets/": "pets/", "./pets/": "pets/", "pets//": "pets/",
                              "pets/./": "pets/"}.items()
    ),
    *(
        Case(f"long names in {form}", only(files({f"{c}/{LONG}{c}.png": 5 for c in "ab"}), code),
             right={f"{c}/{LONG}{c}.png": [i, 5] for i, c in enumerate("ab")})
        for form, code in FORMATS.items() if form != "ustar"
    ),
    *(
        Case(f"names of any language in {form}",
             only(files({"日本/é.png": 5, "中国/ü.png": 6}), code),
             right={"中国/ü.png": [0, 6], "日本/é.png": [1, 5]})
        for form, code in FORMATS.items()
    ),
    *(
        Case(f"a file with holes, {kind}, {'last' if last else 'first'}", with_holes(kind, last),
             right=[True, sorted([*PETS, "dog/9.bmp"])])
        for kind, last in product(("old GNU", "pax 0.1", "pax 1.0"), (True, False))
    ),
    Case("a file of four gigabytes of holes", enormous, right=RIGHT, says=("dog/9.png", "holes")),
    *(
        Case(f"one byte of the {field} of member {number} is another", flipped(number, byte),
             says=("pets.tar", "damaged") if number else ("pets.tar", "archive"))
        for (field, byte), number in product(FIELDS.items(), (0, 1, 3))
    ),
    *(Case(f"cut off {where}", cut(at), says=("pets.tar", "again")) for where, at in CUT.items()),
    Case("one empty block at the end",
         changed(lambda content, headers: content[: headers[-1] + BLOCK]), right=RIGHT),
    Case("a megabyte of zeros at the end", changed(lambda content, _: content + bytes(2**20)),
         right=RIGHT),
    Case("something behind its end", changed(lambda content, _: content + b"x"),
         says=("pets.tar", "goes on")),
    Case("two archives in one file", concatenated, says=("pets.tar", "goes on")),
    Case("a header that is overwritten with zeros",
         changed(lambda c, headers: c[: headers[2]] + bytes(BLOCK) + c[headers[2] + BLOCK :]),
         says=("pets.tar", "goes on")),
    Case("a size below zero", changed(negative), says=("pets.tar",)),
    *(
        Case(f"compressed with {pack.__module__}", compressed(pack),
             says=("pets.tar", "uncompressed", "folder"))
        for pack in (gzip.compress, bz2.compress, lzma.compress)
    ),
    Case("a zip", zipped, says=("pets.zip", "uncompressed")),
    *(
        Case(f"{what} instead of an archive", bare(content), says=("pets.tar",))
        for what, content in {
            "nothing": b"", "zeros": bytes(10240), "text": b"file,class_index\n" * 99,
            "a picture": png(5), "one byte": b"x", "noise": bytes(range(256)) * 40,
        }.items()
    ),
    Case("a folder called pets.tar", as_a_folder, right=RIGHT),
    Case("a hard link to a picture", holding(hard_link("dog/9.png", "cat/1.png")),
         right=RIGHT | {"dog/9.png": [1, 10]}),
    Case("a hard link to a hard link",
         holding(hard_link("dog/8.png", "cat/1.png"), hard_link("dog/9.png", "dog/8.png")),
         right=RIGHT | {"dog/8.png": [1, 10], "dog/9.png": [1, 10]}),
    Case("a symbolic link to a picture", holding(link("dog/9.png", "../cat/1.png")),
         right=RIGHT | {"dog/9.png": [1, 10]}),
    Case("a symbolic link to a symbolic link",
         holding(link("dog/8.png", "9.png"), link("dog/9.png", "../cat/1.png")),
         right=RIGHT | {"dog/8.png": [1, 10], "dog/9.png": [1, 10]}),
    Case("symbolic links into a hidden store of contents",
         only([member(".store/ab12", png(7)), member(".store/cd34", png(8)),
               link("a/1.png", "../.store/ab12"), link("b/2.png", "../.store/cd34")]),
         right={"a/1.png": [0, 7], "b/2.png": [1, 8]}),
    Case("a hard link to the symbolic link before it",
         holding(link("dog/8.png", "../cat/1.png"), hard_link("dog/9.png", "dog/8.png")),
         right=RIGHT | {"dog/8.png": [1, 10], "dog/9.png": [1, 10]}),
    *(
        Case(f"a {kind} to {target}", holding(make_link("dog/9.png", target)), right=RIGHT,
             says=("dog/9.png", "link", target.split("/")[-1]))
        for (kind, make_link), target in product(
            {"symbolic link": link, "hard link": hard_link}.items(),
            ("gone.png", "/etc/passwd", "../../x.png", "dog/9.png"),
        )
        if not (kind == "hard link" and target.startswith(".."))
    ),
    *(
        Case(f"a class {name} that is a link to {target}", holding(link(name, target)),
             says=(name, "pets.tar", target, "--dereference"))
        for name, target in product(("ant", "fox"), ("cat", "/data/fox", "../fox", "ant", "fox"))
    ),
    Case("a link to a folder inside a class", holding(link("cat/more", "../dog")),
         says=("cat/more", "--dereference")),
    Case("a link to a text file", holding(member("notes.txt", b"x"), link("README", "notes.txt")),
         right=RIGHT),
    Case("one name twice", only([*files(), member("cat/1.png", png(99))]),
         right=RIGHT | {"cat/1.png": [0, 99]}),
    Case("one name twice, once with ./", only([*files(), member("./cat/1.png", png(99))]),
         right=RIGHT | {"cat/1.png": [0, 99]}),
    Case("a file appended that was there", appended, right=RIGHT | {"cat/1.png": [0, 99]}),
    Case("a link in the place of a file before it",
         only([*files(), link("cat/1.png", "../emu/4.png")]), right=RIGHT | {"cat/1.png": [0, 40]}),
    Case("a file in the place of a link before it",
         only([link("cat/1.png", "gone.png"), *files()]), right=RIGHT),
    *(
        Case(f"{what} called 9.png", holding(member("dog/9.png", kind=kind)), right=RIGHT,
             says=("dog/9.png", "no file"))
        for what, kind in NO_FILES.items()
    ),
    *(
        Case(f"a member called {name}", holding(member(name, png(9))),
             says=("pets.tar", "outside"))
        for name in ("../fox/9.png", "cat/../../9.png", "..")
    ),
    Case("a member called dog/../cat/9.png", holding(member("dog/../cat/9.png", png(9))),
         right={"cat/1.png": [0, 10], "cat/2.png": [0, 20], "cat/9.png": [0, 9]} | RIGHT),
    Case("an empty class", only([folder_member("pets"), folder_member("pets/ant"),
                                 *files(prefix="pets/")]), says=("ant", "without an image")),
    Case("an empty hidden folder", only([folder_member("pets"), folder_member("pets/.git"),
                                         *files(prefix="pets/")]), right=right("pets/")),
    *(
        Case(f"macOS's {name}", holding(member(name, b"\0\5\26\7")), right=RIGHT)
        for name in ("._cat", "cat/._1.png", "__MACOSX/cat/._1.png", ".DS_Store",
                     "PaxHeader/x", "@eaDir/1.png")
    ),
    Case("one class, packed by its name", only([folder_member("pets/cat"),
                                                *files({"pets/cat/1.png": 1})]),
         right={"pets/cat/1.png": [0, 1]}),
    Case("one class with folders in it, packed from above",
         only([folder_member("pets"), folder_member("pets/cat"),
               *files({"pets/cat/x/1.png": 1, "pets/cat/y/2.png": 2})]),
         right={"pets/cat/x/1.png": [0, 1], "pets/cat/y/2.png": [0, 2]}),
    Case("one synset, packed alone", only([folder_member("n01440764"),
                                           *files({"n01440764/images/1.png": 1})]),
         right={"n01440764/images/1.png": [0, 1]}),
    Case("pictures without a class", only(files({"1.png": 1, "2.png": 2})),
         says=("outside of any class",)),
    Case("a picture next to the classes",
         only([folder_member("pets"), *files(prefix="pets/"), member("pets/9.png", png(9))]),
         says=("outside of any class", "pets/9.png")),
    Case("names with backslashes", only(files({r"cat\1.png": 1, r"dog\2.png": 2})),
         says=("outside of any class",)),
    Case("an archive that vanishes", vanished,
         right=[sorted(PETS), ["No such file or directory"]]),
    Case("pictures read in the order of their names", read_in_order, right=sorted(PETS)),
    *(Case(f"the order of a folder and of its archive as {how}", same_order(how), right=True)
      for how in ("pets", ".")),
]  # fmt: skip

CASES = [
    case._replace(right=dict(sorted(case.right.items()))) if isinstance(case.right, dict) else case
    for case in TRIED
]
