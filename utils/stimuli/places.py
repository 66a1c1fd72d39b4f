"""The files of a folder or .tar archive that are pictures by their ending, and how to read them.

What is hidden is left out: names that begin with a dot, and what systems put next to them.
"""

import os
import posixpath
import re
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

JPEG_AND_PNG = (".jpg", ".jpeg", ".jpe", ".jfif", ".png")
ENDINGS = (*JPEG_AND_PNG, ".ppm", ".pgm", ".pbm", ".pnm", ".bmp", ".gif", ".tif", ".tiff", ".webp")
OF_SYSTEMS = {"__MACOSX", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
BLOCK = 512  # bytes; of such blocks a .tar archive is made
MOST = 2**30  # bytes of a file with holes: a small archive can name one of any size
HOPS = 40  # from link to link
SYNSET = re.compile(r"n\d{8}")
BROKEN = (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError, MemoryError)

Content = Callable[[], bytes]


class Place(NamedTuple):
    """What is in a folder or archive.

    Attributes:
        contents: The name of a picture inside it → a function that reads the file, sorted by name.
            The functions hold no file open, can be pickled, and raise OSError where they fail.
        folders: The names of the folders inside it: of a folder, those right below it.
        root: The folder inside it that holds everything else, "" for itself: an archive of a folder
            often begins with that folder.
    """

    contents: dict[str, Content]
    folders: set[str]
    root: str


def opened(path: Path) -> Place:
    """The pictures in the folder or archive at `path`.

    Raises:
        FileNotFoundError: There is nothing at `path`.
        ValueError: A folder in it cannot be read or leads back to itself, or the archive is damaged
            or compressed.
    """
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _archive(path)
    raise FileNotFoundError(f"There is no folder or archive at {printable(path)}.")


def printable(text: object) -> str:
    """A text whose control characters and lone surrogates are spelled out, fit for any sentence."""
    return re.sub(
        r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]",
        lambda found: ascii(found[0])[1:-1],
        str(text),
    )


def some(names: Iterable[str]) -> str:
    """The first three of some names, and how many more there are, for a sentence."""
    names = [printable(name) for name in names]
    more = [f"and {len(names) - 3:,} more"] if len(names) > 3 else []
    return ", ".join(names[:3] + more)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") or part in OF_SYSTEMS for part in name.split("/"))


def _picture(name: str) -> bool:
    return name.lower().endswith(ENDINGS)


@dataclass(frozen=True)
class _File:
    path: str

    def __call__(self) -> bytes:
        if not os.path.isfile(self.path):  # of a pipe, reading would have no end
            raise OSError("it is no file, or a link to nothing")
        return Path(self.path).read_bytes()


@dataclass(frozen=True)
class _Member:
    """A file in an archive; its blocks (where, how long) if it has holes in between."""

    path: Path
    start: int
    size: int
    blocks: tuple[tuple[int, int], ...] | None

    def __call__(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.start)
            if self.blocks is None:
                return file.read(self.size)
            whole = bytearray(self.size)
            for where, length in self.blocks:
                whole[where : where + length] = file.read(length)
            return bytes(whole)


@dataclass(frozen=True)
class _Nothing:
    """What cannot be read, and why."""

    reason: str

    def __call__(self) -> bytes:
        raise OSError(self.reason)


def _folder(path: Path) -> Place:
    contents, folders = {}, set()
    waiting: list[tuple[str, tuple[str, ...]]] = [("", ())]
    while waiting:
        name, above = waiting.pop()
        real = os.path.realpath(path / name)
        if real in above:
            raise ValueError(
                f"{printable(name)} in {_called(path)} is a link to a folder that it is in, and so "
                "has no end: delete the link."
            )
        for entry in _entries(path, name):
            inner = f"{name}/{entry.name}" if name else entry.name
            if os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                waiting.append((inner, (*above, real)))
                folders |= set() if name else {inner}
            elif _picture(inner):
                contents[inner] = _File(entry.path)
            elif entry.is_symlink() and not os.path.exists(entry.path):
                raise ValueError(
                    f"{printable(inner)} in {_called(path)} is a link to nothing: mend it, or "
                    "delete it."
                )
    return Place(dict(sorted(contents.items())), folders, "")


def _entries(path: Path, name: str) -> list[os.DirEntry]:
    try:
        with os.scandir(path / name) as entries:
            return [entry for entry in entries if not _hidden(entry.name)]
    except OSError as error:
        raise ValueError(
            f"The folder {printable(name) or _called(path)} cannot be read ({error.strerror}): "
            "allow it, or take the folder away."
        ) from None


def _called(path: Path) -> str:
    return printable(path.resolve().name)


def _archive(path: Path) -> Place:
    try:
        with tarfile.open(path, "r:", encoding="utf-8") as archive:  # any file can be read at once
            contents, links, folders = _members(archive)
            end = archive.offset
    except BROKEN as error:
        raise ValueError(
            f"{_called(path)} cannot be read as an uncompressed .tar archive ({printable(error)}): "
            "pack or copy it again, or name a folder."
        ) from None
    _check_end(path, end)
    contents |= {name: _linked(path, name, contents, links) for name in links}
    pictures = {n: contents[n] for n in sorted(contents) if _picture(n) and not _hidden(n)}
    folders = {name for name in folders if not _hidden(name)}
    return Place(pictures, folders, _root(pictures, folders))


def _members(archive: tarfile.TarFile) -> tuple[dict[str, Content], dict[str, str], set[str]]:
    """Its files by name, its symbolic links with their targets, and the folders that it names."""
    contents: dict[str, Content] = {}
    links: dict[str, str] = {}
    folders: set[str] = set()
    last = -1
    for member in archive:
        if member.offset <= last:  # back where it was, for ever
            raise tarfile.ReadError("a size is below zero")
        last = member.offset
        name, target = _plain(member.name), member.linkname
        contents.pop(name, None)  # of two of one name the last counts, as where it is unpacked
        links.pop(name, None)
        if member.isdir():
            folders.add(name)
        elif member.issym():
            links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        elif member.islnk() and _plain(target) in links:
            links[name] = links[_plain(target)]
        elif member.islnk():  # another name of a file before it
            contents[name] = contents.get(_plain(target)) or _Nothing(_lost(target))
        else:
            contents[name] = _content(archive, member)
    return contents, links, folders


def _plain(name: str) -> str:
    """The name of a member as of a file in a folder; "" is that folder."""
    plain = posixpath.normpath(name.lstrip("/") or ".")
    if plain.split("/")[0] == "..":
        raise tarfile.ReadError(f"{name} in it would be unpacked outside of it")
    return "" if plain == "." else plain


def _lost(target: str) -> str:
    return f"it is a link to {printable(target)}, which is not in the archive"


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Content:
    path = Path(archive.name)
    if not member.isfile():
        return _Nothing("it is no file")
    if member.sparse is None:
        return _Member(path, member.offset_data, member.size, None)
    blocks = tuple((where, length) for where, length in member.sparse if length)
    ends = [0, *(where + length for where, length in blocks)]
    fits = all(end <= where for end, (where, _) in zip(ends, blocks, strict=False))
    stored = sum(length for _, length in blocks)
    if not fits or ends[-1] > member.size or member.offset_data + stored > archive.offset:
        return _Nothing("where its holes are is damaged")
    if member.size > MOST:
        return _Nothing(f"it has more than {MOST:,} bytes, most of them holes")
    return _Member(path, member.offset_data, member.size, blocks)


def _check_end(path: Path, end: int) -> None:
    """An archive ends with an empty block, and with nothing behind it.

    Raises ValueError otherwise: `tarfile` takes a damaged header for the end.
    """
    with path.open("rb") as file:
        file.seek(end)
        block = file.read(BLOCK)
        rest = any(chunk.strip(b"\0") for chunk in iter(lambda: file.read(2**20), b""))
    if len(block) < BLOCK:
        fault = f"breaks off at byte {end:,}, without the empty block that ends an archive"
    elif block.strip(b"\0"):
        fault = f"is damaged at byte {end:,}: no file behind it can be found"
    elif rest:
        fault = f"goes on behind the empty block at byte {end:,} that ends an archive"
    else:
        return
    raise ValueError(f"{_called(path)} {fault}; pack or copy it again.")


def _linked(path: Path, name: str, contents: dict[str, Content], links: dict[str, str]) -> Content:
    target = links[name]
    for _ in range(HOPS):
        target = links.get(target, target)
    if target in contents:
        return contents[target]
    if _picture(name) or _hidden(name):
        return _Nothing(_lost(links[name]))
    raise ValueError(
        f"{printable(name)} in {_called(path)} is a link to {printable(links[name])}, which is no "
        "file in the archive: pack it with tar --dereference, which stores what links lead to."
    )


def _root(pictures: Iterable[str], folders: set[str]) -> str:
    """The folder that was packed, as far as an archive tells.

    It is the one that holds everything, unless that is a class itself.
    """
    holding = {posixpath.dirname(name) for name in pictures} | folders
    common = posixpath.commonpath(holding) if holding else ""
    above = [common]
    while above[0]:
        above.insert(0, posixpath.dirname(above[0]))
    # Where tar itself named the folders, the outermost is what it was told to pack.
    root = next((name for name in above if name in folders), common)
    flat = all(posixpath.dirname(name) == root for name in pictures)
    is_class = flat or SYNSET.fullmatch(posixpath.basename(root))
    return posixpath.dirname(root) if is_class else root
