"""The notebooks that the pages launch: they fetch exactly what the pages were built from."""

import json
import os
import re
import subprocess
from pathlib import Path

import nbformat

from .citations import written_out

SOURCE = re.compile(r'URL, VERSION = \\"[^"\\]*\\", \\"[^"\\]*\\"')  # as JSON writes it
BRANCH = "launch"  # where these notebooks are published, next to nothing else
HOST = "https://github.com/"
LINK = re.compile(r"\[([^\]]+)\]\((\w+\.(?:ipynb|md)(?:#[^)]*)?)\)")  # words, another page


def repository(root: Path) -> str | None:
    """Where the book is published.

    Args:
        root: Of a checkout.

    Returns:
        `REPOSITORY_URL` if that is set, else the address on GitHub that the checkout came from,
        else None: a checkout that is published nowhere has nothing to launch.
    """
    if asked := os.environ.get("REPOSITORY_URL"):
        return asked.rstrip("/")
    found = _git(root, "remote", "get-url", "origin")
    found = found.replace("git@github.com:", HOST).removesuffix(".git").rstrip("/")
    return found if found.startswith(HOST) else None


def revision(root: Path) -> str | None:
    """The commit that a checkout is at, 40 hexadecimal digits; None without git."""
    return _git(root, "rev-parse", "HEAD") or None


def published(root: Path) -> tuple[str, str] | None:
    """Where a checkout can be fetched from.

    Args:
        root: Of a checkout.

    Returns:
        The address and the commit; None without either.
    """
    url, version = repository(root), revision(root)
    return (url, version) if url and version else None


def launched(notebook: str, url: str, version: str) -> str:
    """A notebook whose set-up cell fetches one version of the book from one address.

    Args:
        notebook: Its JSON.
        url: Of a git repository.
        version: A commit or a tag.

    Returns:
        The JSON with both in the place of those that it came with.
    """
    line = f'URL, VERSION = "{url}", "{version}"'
    return SOURCE.sub(lambda _: json.dumps(line)[1:-1], notebook)


def alone(notebook: str, bibliography: Path, chapters: str) -> str:
    """A notebook that can be read without the book around it.

    Args:
        notebook: Its JSON.
        bibliography: A BibTeX file.
        chapters: Address of the folder that links to other pages lead to.

    Returns:
        The JSON with citations written out and links that lead there.
    """
    made = written_out(nbformat.reads(notebook, as_version=4), bibliography)
    for cell in made.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(rf"[\1]({chapters}/\2)", cell.source)
    return nbformat.writes(made) + "\n"


def write(root: Path, built: Path) -> list[Path]:
    """Write the notebooks that the pages of a build launch and offer to download.

    Args:
        root: Of the checkout that was built.
        built: The build's folder; they go into launch/chapters and html/_sources/chapters.

    Returns:
        The files; none where the book is published nowhere.
    """
    if not (found := published(root)):
        return []
    url, version = found
    written = []
    for notebook in sorted((root / "chapters").glob("*.ipynb")):
        text = launched(notebook.read_text(encoding="utf-8"), url, version)
        text = alone(text, root / "references.bib", f"{url}/blob/{version}/chapters")
        for folder in (built / BRANCH / "chapters", built / "html/_sources/chapters"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / notebook.name).write_text(text, encoding="utf-8")
            written.append(folder / notebook.name)
    return written


def _git(root: Path, *words: str) -> str:
    """What git prints; empty where it fails or is not there."""
    command = ["git", "-C", str(root), *words]
    try:
        done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    except OSError:
        return ""
    return "" if done.returncode else done.stdout.strip()
