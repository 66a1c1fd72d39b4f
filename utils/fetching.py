"""Files of the book that a borrowed runtime leaves at home until a chapter asks for them.

The set-up cell fetches the book without weights and tables (a sparse, partial clone); git brings
each when it is opened first. In a whole checkout, and where the book was installed, nothing here
does anything.
"""

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def folder(name: str) -> Path:
    """Where the book's zoo or results lie: in the checkout or, installed, in the package."""
    installed = Path(__file__).parent / name
    return installed if installed.is_dir() else ROOT / name


def at_hand(path: Path, root: Path = ROOT) -> Path:
    """Bring a file of the book, if it is one that was left at home.

    Args:
        path: Of any file; what the book does not have is left alone.
        root: Of the checkout.

    Returns:
        The path.

    Raises:
        OSError: Where git cannot bring it, with git's own words.
    """
    absent = _absent(root)
    if absent and not path.exists() and path.resolve().is_relative_to(root):
        name = path.resolve().relative_to(root).as_posix()
        if name in absent:
            done = _git(root, "sparse-checkout", "add", f"/{name}")
            if done.returncode or not path.exists():
                why = (done.stderr.strip() or "it is not there").splitlines()[0]
                raise OSError(
                    f"git could not bring {name}: {why}. Check the network, then try again."
                )
            absent.remove(name)
    return path


@cache
def _absent(root: Path) -> set[str]:
    """The files of the book that are not in the folder yet; none in a whole checkout."""
    if not (root / ".git/info/sparse-checkout").is_file():
        return set()
    lines = _git(root, "ls-files", "-t").stdout.splitlines()
    return {line[2:] for line in lines if line.startswith("S ")}


def _git(root: Path, *words: str) -> subprocess.CompletedProcess:
    command = ["git", "-c", "core.quotepath=off", "-C", str(root), *words]
    return subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
