"""Docstrings keep their promises: examples run, and a chapter that is named speaks of the thing."""

import doctest
import importlib
import inspect
import json
import pkgutil
import re
from pathlib import Path

import pytest

import utils
from utils.book.reference import CHAPTER, CHAPTERS, KEY, NUMBER, SOURCE

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    module.name
    for module in pkgutil.walk_packages(utils.__path__, "utils.")
    if not module.name.startswith("utils.book.") or module.name.endswith(("plotting", "widgets"))
]
WITH_EXAMPLES = [
    name
    for name in MODULES
    if ">>> " in Path(importlib.util.find_spec(name).origin).read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_module_give_what_they_say(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted
    assert not found.failed


def _measures_and_probes():
    """What a reader's own notebook calls, results apart: dotted name, docstring."""
    for name in MODULES:
        if name.startswith(("utils.measures", "utils.probes")):
            module = importlib.import_module(name)
            for key in getattr(module, "__all__", ()):
                thing = getattr(module, key)
                result = isinstance(thing, type) and (
                    issubclass(thing, tuple) or "__dataclass_fields__" in vars(thing)
                )
                if callable(thing) and not result:
                    yield f"{name}.{key}", inspect.getdoc(thing) or ""


def test_each_measure_and_probe_that_is_exported_has_an_example():
    found = dict(_measures_and_probes())
    assert len(found) >= 30
    assert [name for name, docstring in found.items() if ">>> " not in docstring] == []


def _chapters() -> dict[str, str]:
    """Number of a chapter → its text and code."""
    found = {}
    for chapter in CHAPTERS.glob("[0-9]_*.ipynb"):
        number = re.match(NUMBER, chapter.stem.replace("_", ".", 1))[0]
        cells = json.loads(chapter.read_text(encoding="utf-8"))["cells"]
        found[number] = "\n".join("".join(cell["source"]) for cell in cells)
    return found


def _documented():
    """Dotted name, docstring and names to look for, of modules and what they hold."""
    for module in map(importlib.import_module, MODULES):
        own = {
            name: thing
            for name, thing in vars(module).items()
            if getattr(thing, "__module__", "") == module.__name__ and not name.startswith("_")
        }
        names = getattr(module, "__all__", [*own])
        yield module.__name__, module.__doc__, [module.__name__.rpartition(".")[2], *names]
        for name, thing in own.items():
            yield f"{module.__name__}.{name}", inspect.getdoc(thing), [name]


def test_a_chapter_that_a_docstring_names_mentions_the_thing():
    chapters, silent, named = _chapters(), [], 0
    for where, docstring, names in _documented():
        for mention in CHAPTER.finditer(docstring or ""):
            for number in re.findall(NUMBER, mention[0]):
                named += number in chapters
                if number in chapters and not re.search(
                    rf"\b({'|'.join(map(re.escape, names))})\b", chapters[number]
                ):
                    silent.append(f"{where}: chapter {number}")
    assert named > 20
    assert silent == [], "Mention the thing by name in that chapter, or do not name the chapter."


def test_a_source_that_a_docstring_names_is_in_the_bibliography():
    entries = (ROOT / "references.bib").read_text(encoding="utf-8")
    known, named = set(re.findall(r"^@\w+\{(\w+),", entries, re.MULTILINE)), {}
    for where, docstring, _ in _documented():
        for mention in SOURCE.finditer(docstring or ""):
            named |= dict.fromkeys(KEY.findall(mention[1]), where)
    assert len(named) > 20
    assert {key: where for key, where in named.items() if key not in known} == {}
