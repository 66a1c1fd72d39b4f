"""Sphinx extension: docstrings, which are written to be read in an editor, as pages of the book.

What a docstring says of its parameters, `name : meaning`, becomes a list; `Source: key` a citation;
a chapter's number a link to the chapter.
"""

import re
from pathlib import Path

CHAPTERS = Path(__file__).resolve().parents[2] / "chapters"
PARAMETERS = re.compile(r"^(\w+(?:, \w+)*) : ")  # "x, y : sizes", and on indented lines below
KEY = r"[a-z]+\d{4}\w+"
SOURCE = re.compile(rf"Source: ({KEY}(?:, {KEY})*)")
CHAPTER = re.compile(r"[Cc]hapters? \d(?:\.\d)?(?:(?:, | and |; )\d(?:\.\d)?)*")
CODE = re.compile(r"`([^`]+)`")


def _linked(mention: re.Match) -> str:
    def link(number: re.Match) -> str:
        name = number[0].replace(".", "_")
        files = [file.stem for file in CHAPTERS.glob(f"{name}_[a-z]*.ipynb")]
        return f":doc:`{number[0]} </chapters/{files[0]}>`" if files else number[0]

    return re.sub(r"\d(?:\.\d)?", link, mention[0])


def restructured(text: str) -> str:
    """One paragraph as reStructuredText: what is marked up stays, all else is plain."""
    marked = []

    def keep(markup: str) -> str:
        marked.append(markup)
        return f"\0{len(marked) - 1}\0"

    text = CODE.sub(lambda m: keep(f"``{m[1]}``"), text)
    text = SOURCE.sub(lambda m: keep(f"Source: :cite:t:`{m[1].replace(', ', ',')}`"), text)
    text = CHAPTER.sub(lambda m: keep(_linked(m)), text)
    text = re.sub(r"([\\*|_`])", r"\\\1", text)
    return re.sub(r"\0(\d+)\0", lambda m: marked[int(m[1])], text)


def _paragraphs(lines: list[str]) -> list[str]:
    """The lines joined to paragraphs; each parameter, with its indented lines, is one."""
    found = [""]
    for line in lines:
        after = PARAMETERS.match(found[-1]) and not line.startswith(" ")
        if not line.strip() or PARAMETERS.match(line) or after:
            found.append("")
        found[-1] = f"{found[-1]} {line.strip()}".strip()
    return [paragraph for paragraph in found if paragraph]


def _restructure(app, what, name, obj, options, lines):
    made = []
    for paragraph in _paragraphs(lines):
        names = PARAMETERS.match(paragraph)
        if names:
            meaning = restructured(paragraph[names.end() :])
            made += [f"* **{restructured(names[1])}**: {meaning}"]
        else:
            made += ["", restructured(paragraph), ""]
    lines[:] = [*made, ""]


def setup(app):
    """Register with Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", _restructure)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
