"""The chapters as they are stored. The conventions they keep to stand in lint.py."""

import tomllib
from collections import Counter
from pathlib import Path

import lint
import nbformat
import pytest
import yaml
from pybtex.database import parse_file

from utils.book.runtime import SETUP_CELL

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "chapters").glob("*.ipynb"))
PAGES = sorted((ROOT / "chapters").glob("*.md"))


def listed(node) -> list[str]:
    """The files that a table of contents names, at any depth."""
    if isinstance(node, list):
        return [name for item in node for name in listed(item)]
    if not isinstance(node, dict):
        return []
    own = [node[key] for key in ("root", "file") if key in node]
    return own + [name for value in node.values() for name in listed(value)]


def test_the_table_of_contents_names_every_chapter_and_nothing_else():
    named = set(listed(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))))
    there = {str(p.relative_to(ROOT).with_suffix("")) for p in NOTEBOOKS + PAGES}
    assert named == there
    assert NOTEBOOKS


@pytest.mark.parametrize("chapter", NOTEBOOKS, ids=lambda path: path.stem)
@pytest.mark.parametrize("rule", lint.RULES, ids=lambda rule: rule.__name__)
def test_chapter_has_no(rule, chapter):
    assert rule(nbformat.read(chapter, as_version=4)) == []


@pytest.mark.parametrize("page", NOTEBOOKS + PAGES, ids=lambda path: path.stem)
def test_every_citation_is_in_the_bibliography(page):
    known = set(parse_file(str(ROOT / "references.bib")).entries)
    assert lint.cited(page.read_text(encoding="utf-8")) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_no_heading_of_a_page_has_a_formula(page):
    assert lint.FORMULA_IN_HEADING.findall(page.read_text(encoding="utf-8")) == []


def test_alternative_texts_are_unique_across_the_book():
    alts = [lint.alt_texts(nbformat.read(chapter, as_version=4)) for chapter in NOTEBOOKS]
    alts += [lint.image_alts(page.read_text(encoding="utf-8")) for page in PAGES]
    times = Counter(alt for page in alts for alt in page)
    assert [alt for alt in times if times[alt] > 1] == []


def test_names_of_figures_are_unique_across_the_book():
    cells = [c for path in NOTEBOOKS for c in nbformat.read(path, as_version=4).cells]
    names = [c.metadata.get("mystnb", {}).get("figure", {}).get("name") for c in cells]
    times = Counter(filter(None, names))
    assert [name for name in times if times[name] > 1] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_images_of_a_page_have_alternative_texts(page):
    text = page.read_text(encoding="utf-8")
    assert [alt for alt in lint.image_alts(text) if len(alt) < lint.SHORTEST_ALT] == []
    assert text.count("{figure}") + text.count("{image}") == text.count(":alt:")


@pytest.mark.parametrize("chapter", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_title_has_the_number_of_the_file(chapter):
    number = ".".join(part for part in chapter.stem.split("_") if part[0].isdigit())
    assert lint.chapter_number(nbformat.read(chapter, as_version=4)) == number


def test_the_set_up_cell_fetches_this_version_from_the_repository_of_the_book():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "version"
    ]
    url = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["repository"]["url"]
    assert f'URL, VERSION = "{url}", "v{version}"' in SETUP_CELL
