"""Docstrings as pages: what becomes of their mark-up and sections, and which modules are there."""

import ast
import importlib
import inspect
import io
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

from utils.book.reference import restructured

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = ROOT / "chapters"
PAGE = (CHAPTERS / "appendix_reference.md").read_text(encoding="utf-8")
ON_PAGE = re.findall(r"automodule:: (\S+)", PAGE)


def test_code_stays_code_and_what_would_be_markup_is_plain():
    assert restructured("`x` and 2*y, |z| or w_") == "``x`` and 2\\*y, \\|z\\| or w\\_"
    assert restructured("±`delta` or (`delta`)") == "±\\ ``delta`` or (``delta``)"


def test_sources_become_citations_and_chapters_links():
    text = restructured("Source: tang2018large,\nantolik2016model. Explained in chapter\n4.")
    assert ":cite:t:`tang2018large,antolik2016model`. " in text
    assert text.endswith("chapter\n:doc:`4 </chapters/4_neuron_sparsity>`.")
    assert restructured("Chapters 2.2 and 3.").count(":doc:") == 2


def test_a_source_may_be_followed_by_words():
    text = restructured("Source: hu2023comparative, reconstructed.")
    assert text == "Source: :cite:t:`hu2023comparative`, reconstructed."


def test_a_key_anywhere_becomes_a_citation():
    text = restructured("The Gini index is hurley2009comparing's, and nobody2009nothing is none.")
    assert text == (
        "The Gini index is :cite:t:`hurley2009comparing`\\ 's, and nobody2009nothing is none."
    )


@pytest.mark.parametrize("name", ON_PAGE)
def test_what_is_returned_has_no_colon_that_would_end_its_type(name):
    for thing in ast.walk(ast.parse(inspect.getsource(importlib.import_module(name)))):
        if not isinstance(thing, ast.FunctionDef):
            continue
        said = ast.get_docstring(thing) or ""
        first = re.search(r"^Returns:\n +(.*)", said, re.MULTILINE)
        is_property = "property" in " ".join(map(ast.unparse, thing.decorator_list))
        line = first[1] if first else said.partition("\n")[0] * is_property
        assert ":" not in re.sub(r"`[^`]*`", "", line), f"{name}.{thing.name}: {line}"


def test_a_chapter_that_is_not_written_is_no_link():
    assert restructured("Chapter 9.") == "Chapter 9."


def test_examples_and_the_names_of_parameters_are_left_as_they_are():
    text = "Args:\n    *args: a*b\n\nExample:\n    >>> print(`x`, 2 * 3)  # Chapter 3\n    6_\n\nx_"
    marked = restructured(text)
    assert marked == text.replace("a*b", "a\\*b").removesuffix("x_") + "x\\_"


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """The entries of the reference page: signature, and its parameters' names among the fields."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "chapters").mkdir()
    for chapter in CHAPTERS.glob("*.ipynb"):  # what is linked to
        (folder / f"chapters/{chapter.stem}.rst").write_text(":orphan:\n\nA\n=\n", encoding="utf-8")
    blocks = re.findall(r"```\{eval-rst\}\n(.*?)```", PAGE, re.DOTALL)
    (folder / "index.rst").write_text("Page\n====\n\n" + "\n".join(blocks), encoding="utf-8")
    (folder / "b.rst").write_text(
        ":orphan:\n\nB\n=\n\n.. bibliography::\n   :all:\n", encoding="utf-8"
    )
    shutil.copy(ROOT / "references.bib", folder)
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]["config"]
    options = {key: value for key, value in config.items() if key.startswith("napoleon_")}
    extensions = ["sphinx.ext.napoleon", "utils.book.reference"]
    assert set(extensions) < set(config["extensions"])
    options |= {"extensions": [*extensions, "sphinxcontrib.bibtex"]}
    options |= {"bibtex_bibfiles": ["references.bib"]}
    warnings = io.StringIO()
    places = (folder, None, folder / "out", folder / "doctrees", "dummy")
    app = Sphinx(*places, confoverrides=options, status=None, warning=warnings)
    app.build()
    return app.env.get_doctree("index"), warnings.getvalue()


@pytest.mark.slow
def test_the_page_is_rendered_without_a_warning(rendered):
    assert rendered[1] == ""


def _entries(page):
    """Name → (names in the signature, names in the lists of parameters and attributes)."""
    found = {}
    for entry in page.findall(addnodes.desc):
        signature = entry.next_node(addnodes.desc_signature)
        names = [
            parameter.next_node(addnodes.desc_sig_name).astext()
            for parameter in signature.findall(addnodes.desc_parameter)
            if parameter.next_node(addnodes.desc_sig_name)
        ]
        content = next(
            child for child in entry.children if isinstance(child, addnodes.desc_content)
        )
        lists = [child for child in content.children if isinstance(child, nodes.field_list)]
        items = {item.astext() for each in lists for item in each.findall(addnodes.literal_strong)}
        found[f"{signature['module']}.{signature['fullname']}"] = (names, items)
    return found


@pytest.mark.slow
def test_every_parameter_of_a_signature_is_an_item_of_a_list(rendered):
    rooms = tuple(f"utils.{room}." for room in ("stimuli", "models", "probes", "measures"))
    entries = {name: of for name, of in _entries(rendered[0]).items() if name.startswith(rooms)}
    names, items = entries["utils.measures.sparsity.gini"]
    assert set(names) == {"x", "dim"} <= items
    lacking = {name: set(names) - items for name, (names, items) in entries.items()}
    assert {name: some for name, some in lacking.items() if some} == {}


def _used() -> set[str]:
    """The modules of utils that code cells import, or import names from."""
    used = set()
    for chapter in CHAPTERS.glob("*.ipynb"):
        cells = json.loads(chapter.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code")
        for line in re.findall(r"^ *(from utils[^(\n]*(?:\([^)]*\))?)", code, re.MULTILINE):
            (statement,) = ast.parse(line).body
            module = importlib.import_module(statement.module)
            for name in (alias.name for alias in statement.names):
                inner = inspect.ismodule(getattr(module, name, inspect))  # not yet imported: one
                used.add(f"{module.__name__}.{name}" if inner else module.__name__)
    return used


def test_every_module_that_a_chapter_imports_is_on_the_page():
    used = _used()
    assert {"utils.models.zoo", "utils.probes", "utils.measures.sparsity"} <= used
    assert used <= set(ON_PAGE)


def test_every_module_on_the_page_has_its_heading():
    assert re.findall(r"^### `(\S+)`$", PAGE, re.MULTILINE) == ON_PAGE
