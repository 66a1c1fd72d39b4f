"""A release of the book: `python -m utils.book.release 0.2.0`.

Writes the version and the changelog, commits them, packs all editions of the coursework, and tags.
Where it was interrupted, the same command goes on.
"""

import argparse
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

from packaging.version import InvalidVersion, Version

from . import coursework
from .runtime import ROOT

CHANGELOG = "CHANGELOG.md"
HEADING = "# What changed\n"
SET_UP = r'URL, VERSION = .*"v'
SAYS = {  # where the version is said → what stands before it
    "pyproject.toml": r'^version = "',
    "CITATION.cff": r"^version: ",
    "utils/book/runtime.py": SET_UP,
    "chapters/*.ipynb": SET_UP,  # what a notebook fetches that is opened without the book
}
RELEASED = re.compile(r"^date-released: .+\n", re.MULTILINE)


def release(asked: str, root: Path = ROOT, today: date | None = None, editions=None) -> Path:
    """Release a version of what is checked out.

    Args:
        asked: The version, such as "0.2.0".
        root: Of the checkout.
        today: Day of the release; by default, today.
        editions: Writes the editions of the coursework into a folder; by default, all of them.

    Returns:
        The zip of the editions.

    Raises:
        ValueError: For no version or an old one, one that is tagged, a checkout with changes, or
            one that went on after the version was written.
    """
    try:
        version = str(Version(asked))
    except InvalidVersion:
        raise ValueError(f"{asked!r} is no version: give one such as 0.2.0.") from None
    if _git(root, "status", "--porcelain"):
        raise ValueError("The checkout has changes: commit or remove them, then release.")
    tags = _git(root, "tag", "--list", "v*", "--sort=-version:refname").split()
    if f"v{version}" in tags:
        raise ValueError(f"Version {version} is released: its tag is v{version}.")
    (current,) = said(root, "pyproject.toml").values()
    if Version(version) < Version(current):
        raise ValueError(f"Version {version} is older than this checkout's, {current}.")
    if f"## {version} " not in _text(root / CHANGELOG):
        day = today or date.today()
        _write_version(root, version, day)
        _write_changes(root, version, day, tags[0] if tags else None)
        _git(root, "add", "--all")
        _git(root, "commit", "--quiet", "-m", f"Release {version}")
    written = _git(root, "log", "-1", "--format=%H", "--", CHANGELOG)
    if written != _git(root, "rev-parse", "HEAD"):
        raise ValueError(
            f"Version {version} was written in commit {written[:7]}, and the checkout went on: "
            "check that commit out and repeat, or release what there is as the next version."
        )
    name = f"seeing-sparsely-{version}-coursework"
    folder = root / "_build/release" / name
    shutil.rmtree(folder, ignore_errors=True)
    (editions or _all_editions)(folder)
    packed = shutil.make_archive(str(folder), "zip", folder.parent, name)
    _git(root, "tag", "--annotate", f"v{version}", "-m", f"Seeing Sparsely {version}")
    return Path(packed)


def _all_editions(folder: Path) -> None:
    coursework.make(coursework.chapter_files([]), folder)


def said(root: Path, names: str) -> dict[Path, str]:
    """Which version files say.

    Args:
        root: Of the checkout.
        names: A key of `SAYS`.

    Returns:
        File → version.

    Raises:
        ValueError: For a file that says none.
    """
    found = {file: _version_in(names).search(_text(file)) for file in sorted(root.glob(names))}
    for file, match in found.items():
        if not match:
            raise ValueError(f"{file} says no version: put it back as it was committed.")
    return {file: match[2] for file, match in found.items() if match}


def _version_in(names: str) -> re.Pattern:
    return re.compile(rf'({SAYS[names]})([^"\\\s]+)', re.MULTILINE)


def _write_version(root: Path, version: str, day: date) -> None:
    for names in SAYS:
        for file in said(root, names):
            text = _version_in(names).sub(rf"\g<1>{version}", _text(file))
            file.write_text(text, encoding="utf-8")
    file = root / "CITATION.cff"
    text = RELEASED.sub("", _text(file))
    text = re.sub(r"^version: .+\n", rf"\g<0>date-released: {day}\n", text, flags=re.MULTILINE)
    file.write_text(text, encoding="utf-8")


def _write_changes(root: Path, version: str, day: date, last: str | None) -> None:
    """What the commits since the last release say; all that a first one says is that it is."""
    changes = "The first release."
    if last:
        subjects = _git(root, "log", "--no-merges", "--format=- %s", f"{last}..HEAD")
        changes = subjects or "Nothing but the version."
    before = _text(root / CHANGELOG).removeprefix(HEADING)
    text = f"{HEADING}\n## {version} ({day})\n\n{changes}\n{before}"
    (root / CHANGELOG).write_text(text, encoding="utf-8")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, encoding="utf-8")
    if done.returncode:
        raise ValueError(f"git {words[0]} failed: {done.stderr.strip()}")
    return done.stdout.strip()


def main(arguments: list[str] | None = None) -> int:
    """Run the command; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m utils.book.release", description=__doc__)
    parser.add_argument("version")
    options = parser.parse_args(arguments)
    try:
        packed = release(options.version)
    except (ValueError, OSError) as problem:
        print(f"python -m utils.book.release: {problem}", file=sys.stderr)
        return 1
    print(f"It is tagged, and {packed} holds its coursework.")
    print("To publish both: git push --follow-tags, then add the zip to the release on GitHub.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
