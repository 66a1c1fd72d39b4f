"""Rendering: what counts as a change, and that failure stays failure."""

import errno
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from filelock import FileLock
from jupyter_cache import get_cache

from utils.book import build, execute
from utils.book.build import ROOT


@pytest.fixture
def book(tmp_path):
    """A book of one page and one chapter whose only cell divides by what `zoo/number` holds.

    Each run of the cell leaves a mark in `runs`.
    """
    for name in ("chapters", "zoo", "utils"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "_config.yml", tmp_path)
    shutil.copytree(ROOT / "_static", tmp_path / "_static")
    (tmp_path / "references.bib").write_text("", encoding="utf-8")
    (tmp_path / "constraints.txt").write_text("", encoding="utf-8")
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: chapters/index\nchapters:\n- file: chapters/1_division\n",
        encoding="utf-8",
    )
    (tmp_path / "chapters/index.md").write_text("# Index\n", encoding="utf-8")
    (tmp_path / "zoo/number").write_text("4", encoding="utf-8")
    _write_chapter(
        tmp_path,
        "_ = open('../runs', 'a').write('|')\n"
        "print('quotient', 12 / int(open('../zoo/number').read()))",
    )
    return tmp_path


def _write_chapter(book, code, name="1_division"):
    cell = {
        "cell_type": "code",
        "source": code,
        "metadata": {},
        "outputs": [],
        "execution_count": None,
    }
    title = {"cell_type": "markdown", "source": "# Division", "metadata": {}}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notebook = {"cells": [title, cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 4}
    (book / f"chapters/{name}.ipynb").write_text(json.dumps(notebook), encoding="utf-8")


def _page(book):
    return (book / "_build/html/chapters/1_division.html").read_text(encoding="utf-8")


def _runs(book):
    return len((book / "runs").read_text(encoding="utf-8"))


def test_a_second_build_leaves_the_first_alone(book, capsys):
    (book / "_build").mkdir()
    half_done = book / "_build/html"
    half_done.mkdir()
    with FileLock(book / "_build" / build.LOCK):
        assert build.build(book) == 1
    assert half_done.is_dir()
    said = "Another build of this book is at work: try again when it is done."
    assert capsys.readouterr().err.strip() == said


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_checkout_that_cannot_be_written_is_said_in_one_sentence(
    number, book, capsys, monkeypatch
):
    def refused(self, **_):
        raise OSError(number, "No", str(self))

    monkeypatch.setattr(Path, "mkdir", refused)
    assert build.build(book) == 1
    said = f"{book / '_build'} is closed to the build (No): make the book in a copy that is yours."
    assert capsys.readouterr().err.strip() == said


def test_an_interrupted_build_brings_the_pages_of_before_back(book, monkeypatch):
    (book / "_build/html").mkdir(parents=True)
    (book / "_build/html/page").write_text("before", encoding="utf-8")

    def interrupted(*_, **__):
        (book / "_build/html").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build.build(book)
    assert (book / "_build/html/page").read_text(encoding="utf-8") == "before"
    assert not (book / "_build" / build.BEFORE).exists()


def test_fingerprint_changes_with_content_and_name_only(tmp_path):
    (tmp_path / "utils").mkdir()
    module = tmp_path / "utils/module.py"
    module.write_text("a = 1", encoding="utf-8")
    before = build.fingerprint(tmp_path, ("utils",))

    module.touch()
    (tmp_path / "utils/__pycache__").mkdir()
    (tmp_path / "utils/__pycache__/module.pyc").write_text("compiled", encoding="utf-8")
    (tmp_path / "utils/.hidden").write_text("hidden", encoding="utf-8")
    assert build.fingerprint(tmp_path, ("utils", "results")) == before

    module.write_text("a = 2", encoding="utf-8")
    changed = build.fingerprint(tmp_path, ("utils",))
    module.rename(tmp_path / "utils/renamed.py")
    assert len({before, changed, build.fingerprint(tmp_path, ("utils",))}) == 3


@pytest.mark.slow
def test_a_failing_cell_makes_every_build_fail_until_it_is_mended(book, capfd):
    (book / "zoo/number").write_text("0", encoding="utf-8")
    assert build.build(book) != 0
    assert build.build(book) != 0
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert not build.is_current(book)

    (book / "zoo/number").write_text("4", encoding="utf-8")
    assert build.build(book) == 0
    assert capfd.readouterr().out.splitlines()[-1] == str(book / "_build/html/index.html")


@pytest.mark.slow
def test_a_warning_makes_every_build_fail(book, capfd):
    (book / "chapters/index.md").write_text("# Index\n\n[nowhere](nowhere.md)\n", encoding="utf-8")
    assert build.build(book) != 0
    assert build.build(book) != 0
    assert "nowhere" in capfd.readouterr().err


@pytest.mark.slow
def test_cells_run_again_only_when_what_they_read_has_changed(book, capfd):
    assert build.build(book) == 0
    assert "quotient 3.0" in _page(book)
    assert _runs(book) == 1

    assert build.build(book) == 0
    assert "Nothing changed" in capfd.readouterr().out

    (book / "chapters/index.md").write_text("# Another title\n", encoding="utf-8")
    assert build.build(book) == 0
    assert _runs(book) == 1

    (book / "zoo/number").write_text("6", encoding="utf-8")
    assert build.build(book) == 0
    assert "quotient 2.0" in _page(book)
    assert _runs(book) == 2

    (book / "zoo/number").write_text("0", encoding="utf-8")
    assert build.build(book) != 0
    assert "quotient 2.0" in _page(book), "the pages of before stay until there are others"
    assert not build.is_current(book)


@pytest.mark.slow
def test_two_chapters_run_at_once_and_only_what_is_in_the_contents_and_does_not_fail_is_kept(book):
    meet = "import pathlib, time\npathlib.Path('../{}').touch()\n" + (
        "until = time.time() + 100\n"
        "while not pathlib.Path('../{}').exists():\n"
        "    assert time.time() < until, 'the other chapter does not run'\n"
    )
    for name, code in (
        ("1_division", meet.format("a", "b")),
        ("2_division", meet.format("b", "a")),
        ("3_division", "1 / 0"),
        ("untitled", "pass"),
    ):
        _write_chapter(book, code, name)
    with (book / "_toc.yml").open("a", encoding="utf-8") as contents:
        contents.write("- file: chapters/2_division\n- file: chapters/3_division\n")
    execute.execute(book)
    cache = get_cache(book / "_build/.jupyter_cache")
    chapters = sorted((book / "chapters").glob("*.ipynb"))
    assert [execute.held(cache, path) for path in chapters] == [True, True, False, False]


@pytest.mark.slow
def test_pages_open_the_notebooks_of_where_they_are_published_and_none_of_nowhere(
    book, monkeypatch
):
    launched = book / "_build/launch/chapters/1_division.ipynb"
    monkeypatch.delenv("REPOSITORY_URL", raising=False)
    assert build.build(book) == 0
    assert "colab" not in _page(book)
    assert "github.com" not in _page(book)
    assert not launched.exists()

    git = ["git", "-C", str(book), "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "chapters"], ["commit", "-qm", "Book"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setenv("REPOSITORY_URL", "https://github.com/a/fork")
    assert build.build(book) == 0
    there = "https://colab.research.google.com/github/a/fork/blob/launch/chapters/1_division.ipynb"
    assert there in _page(book)
    assert launched.is_file()


def test_vendored_scripts_are_as_their_list_of_hashes_says():
    vendor = ROOT / "_static/vendor"
    listed = dict(
        reversed(line.split("  ", 1))
        for line in (vendor / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    )
    found = {
        path.relative_to(vendor).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in vendor.glob("*/**/*")
        if path.is_file()
    }
    assert found == listed
