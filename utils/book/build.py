"""Render the book: `python -m utils.book.build`.

A warning or a failing cell makes the build fail, and every build after it until it is mended; the
pages of before stay until others can take their place.
Executed cells are kept in `_build/.jupyter_cache`, and what the Lab loads in `_build/.lab`, for as
long as nothing that a cell imports or reads has changed; everything else below `_build` is made
again, because Sphinx repeats no warning about a page that it does not read again.
"""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from utils.book import launch, policy
from utils.book.runtime import PAGES

ROOT = Path(__file__).resolve().parents[2]
CELL_SOURCES = ("utils", "experiments", "zoo", "results", "constraints.txt")
# In place of the page that Jupyter Book puts at the root: browsers ask in vain for the icon that it
# does not name.
HOME = f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy.policy()}">
<title>Seeing Sparsely</title>
<meta name="description" content="Vision Transformers and CNNs from the view of neuroscience: a
book that runs.">
<link rel="canonical" href="chapters/index.html">
<link rel="icon" href="data:,">
<meta http-equiv="refresh" content="0; url=chapters/index.html">
<a href="chapters/index.html">Seeing Sparsely</a>
</html>
"""
KEPT = (".jupyter_cache", ".lab")  # what took long, and depends on nothing but `CELL_SOURCES`
LOCK = ".lock"  # held by the build that is at work in `_build`
BEFORE = ".before"  # the pages that were there, while others are rendered
CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS)  # others' files, and those that none may change
RENDERED = "rendered-from"  # what the pages are of, once they are all there
PAGE_SOURCES = ("chapters", "_static", "_config.yml", "_toc.yml", "references.bib")


def fingerprint(root, names):
    """Return the sha256 (hex) over path and content of all files below the named ones.

    Names that do not exist count as empty; caches and hidden files are left out.
    """
    digest = hashlib.sha256()
    for name in names:
        top = root / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            parts = path.relative_to(root).parts
            if path.is_file() and not any(p == "__pycache__" or p.startswith(".") for p in parts):
                content = hashlib.sha256(path.read_bytes()).hexdigest()
                digest.update(f"{'/'.join(parts)}\0{content}\n".encode())
    return digest.hexdigest()


def is_current(root=ROOT):
    """Return whether the rendered pages were made from the files as they are now."""
    rendered = _read(root / "_build" / RENDERED)
    return (root / "_build/html/index.html").is_file() and rendered == _sources(root)


def _sources(root):
    """What pages are made from: files, and the address that their buttons lead to."""
    return fingerprint(root, CELL_SOURCES + PAGE_SOURCES) + (launch.repository(root) or "")


def build(root=ROOT):
    """Render the book below `root` unless it is current; return the exit status."""
    try:
        (root / "_build").mkdir(exist_ok=True)
        with FileLock(root / "_build" / LOCK, timeout=0):
            return _build(root)
    except Timeout:
        print("Another build of this book is at work: try again when it is done.", file=sys.stderr)
    except OSError as problem:
        if problem.errno not in CLOSED:
            raise
        print(
            f"{problem.filename} is closed to the build ({problem.strerror}): make the book in a "
            "copy that is yours.",
            file=sys.stderr,
        )
    return 1


def _build(root):
    index = root / "_build/html/index.html"
    if is_current(root):
        print("Nothing changed since the pages were last rendered.")
        print(index)
        return 0
    with _replaced(root / "_build"):
        return _render(root, index)


@contextmanager
def _replaced(folder):
    """Pages that are there are put aside; they come back unless others took their place."""
    pages, before = folder / "html", folder / BEFORE
    if pages.is_dir() and not before.is_dir():
        pages.rename(before)
    try:
        yield
    finally:
        if not (folder / RENDERED).is_file() and before.is_dir():
            shutil.rmtree(pages, ignore_errors=True)
            before.rename(pages)
        shutil.rmtree(before, ignore_errors=True)


def _render(root, index):
    cells = fingerprint(root, CELL_SOURCES)
    sources = _sources(root)
    _clear(root / "_build", keep_cache=_read(root / "_build/executed-with") == cells)
    (root / "_build/executed-with").write_text(cells, encoding="utf-8")
    cells_run = [sys.executable, "-m", "utils.book.execute"]
    book_made = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    options = ["build", "-W", "-n", "--keep-going", "."]
    # Chapters run on what the checkout holds; a model hub is never asked.
    # Its extensions are in utils.book.
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": paths, PAGES: "1"}
    for command in (cells_run, book_made + options):
        status = subprocess.run(command, cwd=root, env=environment, check=False).returncode
    if status or not index.is_file():
        print("The book was not rendered: see the messages above.", file=sys.stderr)
        return status or 1
    index.write_text(HOME, encoding="utf-8")
    launch.write(root, root / "_build")
    (root / "_build" / RENDERED).write_text(sources, encoding="utf-8")
    print(index)
    return 0


def _read(path):
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _clear(folder, keep_cache):
    for path in folder.iterdir():
        if path.is_dir() and path.name != BEFORE and not (keep_cache and path.name in KEPT):
            shutil.rmtree(path)
        elif path.is_file() and path.name != LOCK:
            path.unlink()


if __name__ == "__main__":
    sys.exit(build())
