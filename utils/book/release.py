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
WRITTEN = {  # file → the line that says the version
    "pyproject.toml": re.compile(r'^version = "(.+)"$', re.MULTILINE),
    "CITATION.cff": re.compile(r"^version: (.+)$", re.MULTILINE),
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
        ValueError: For no version or an old one, one that is tagged, or a checkout with changes.
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
    current = WRITTEN["pyproject.toml"].search(_text(root / "pyproject.toml"))[1]
    if Version(version) < Version(current):
        raise ValueError(f"Version {version} is older than this checkout's, {current}.")
    if f"## {version} " not in _text(root / CHANGELOG):
        _write_version(root, version, today or date.today())
        _write_changes(root, version, today or date.today(), tags[0] if tags else None)
        _git(root, "add", CHANGELOG, *WRITTEN)
        _git(root, "commit", "--quiet", "-m", f"Release {version}")
    name = f"seeing-sparsely-{version}-coursework"
    folder = root / "_build/release" / name
    shutil.rmtree(folder, ignore_errors=True)
    (editions or _all_editions)(folder)
    packed = shutil.make_archive(str(folder), "zip", folder.parent, name)
    _git(root, "tag", "--annotate", f"v{version}", "-m", f"Seeing Sparsely {version}")
    return Path(packed)


def _all_editions(folder: Path) -> None:
    coursework.make(coursework.chapter_files([]), folder)


def _write_version(root: Path, version: str, day: date) -> None:
    for name, line in WRITTEN.items():
        found = line.search(text := _text(root / name))
        said = found[0].replace(found[1], version)
        if name == "CITATION.cff":
            text, said = RELEASED.sub("", text), f"{said}\ndate-released: {day}"
        (root / name).write_text(line.sub(lambda _, said=said: said, text), encoding="utf-8")


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
    print(f"v{options.version} is tagged, and {packed} holds its coursework.")
    print("To publish both: git push --follow-tags, then add the zip to the release on GitHub.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
