"""The project's history, for tests that compare what is declared with what stood before results."""

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def git(*arguments: str) -> bytes:
    """What git says, in this checkout."""
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True).stdout


def before_first(*results: str) -> str:
    """The commit before the first that added one of these files, on whatever branch that was, and
    wherever they are now; skips where it cannot be known."""
    if not (ROOT / ".git").exists():
        pytest.skip("The history is not here: this is no git checkout.")
    if git("rev-parse", "--is-shallow-repository").strip() == b"true":
        pytest.skip("The history is cut short: this is a shallow clone.")
    asked = ("log", "--full-history", "--diff-filter=A", "--reverse", "--format=%H")
    first = git(*asked, "--", *results).decode().split()
    if not first:
        pytest.skip("No such result has been recorded yet.")
    return f"{first[0]}^"


def files_at(commit: str, folder: Path, *names: str) -> Path:
    """The folder, with these files and folders in it as they were at a commit."""
    with tarfile.open(fileobj=io.BytesIO(git("archive", commit, "--", *names))) as archive:
        archive.extractall(folder, filter="data")
    return folder
