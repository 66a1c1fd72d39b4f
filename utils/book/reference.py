"""Sphinx extension: what the docstrings say next to their sections, as pages of the book.

The sections (`Args:`, `Returns:`, `Raises:`, `Example:`) are napoleon's. Before it reads them,
`Source: key`, and a key of the bibliography anywhere, becomes a citation, a chapter's number a link
to the chapter, and what stands in backticks code; whatever else could be markup is plain.
"""

import re
from functools import cache
from pathlib import Path

CHAPTERS = Path(__file__).resolve().parents[2] / "chapters"
KEY = re.compile(r"[a-z]+\d{4}\w+")
SOURCE = re.compile(rf"Source:\s+({KEY.pattern}(?:,\s+{KEY.pattern})*)")
NUMBER = r"\d(?:\.\d[a-z]?)?"
CHAPTER = re.compile(rf"[Cc]hapters?\s+{NUMBER}(?:(?:,\s+|\s+and\s+|;\s+){NUMBER})*")
CODE = re.compile(r"`([^`]+)`")
EXAMPLE = re.compile(r"^ *>>> .*(?:\n *\S.*)*", re.MULTILINE)  # to the next empty line
STARRED = re.compile(r"^ +\*{1,2}\w+(?=:)", re.MULTILINE)  # the names of *args and **options


@cache
def _cited() -> frozenset[str]:
    """The keys of the bibliography."""
    entries = (CHAPTERS.parent / "references.bib").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^@\w+\{(\w+),", entries, re.MULTILINE))


def _literal(code: re.Match) -> str:
    before = code.string[: code.start()][-1:]
    return ("\\ " if re.match(r"[^\s(\[{<\"'/:-]", before) else "") + f"``{code[1]}``"


def _linked(mention: re.Match) -> str:
    def link(number: re.Match) -> str:
        name = number[0].replace(".", "_")
        files = [file.stem for file in CHAPTERS.glob(f"{name}_[a-z]*.ipynb")]
        return f":doc:`{number[0]} </chapters/{files[0]}>`" if files else number[0]

    return re.sub(NUMBER, link, mention[0])


def restructured(text: str) -> str:
    """A docstring as reStructuredText, but for its sections.

    Args:
        text: As it is written.

    Returns:
        The same lines, with citations, links and code marked up.
    """
    marked = []

    def keep(markup: str) -> str:
        marked.append(markup)
        return f"\0{len(marked) - 1}\0"

    text = EXAMPLE.sub(lambda m: keep(m[0]), text)
    text = STARRED.sub(lambda m: keep(m[0]), text)
    text = CODE.sub(lambda m: keep(_literal(m)), text)
    text = SOURCE.sub(lambda m: keep(f"Source: :cite:t:`{','.join(KEY.findall(m[1]))}`"), text)
    text = KEY.sub(lambda m: keep(f":cite:t:`{m[0]}`\\ ") if m[0] in _cited() else m[0], text)
    text = CHAPTER.sub(lambda m: keep(_linked(m)), text)
    text = re.sub(r"[\\*|`]|_(?!\w)", r"\\\g<0>", text)
    return re.sub(r"\0(\d+)\0", lambda m: marked[int(m[1])], text)


def _restructure(app, what, name, obj, options, lines):
    lines[:] = restructured("\n".join(lines)).split("\n")


def _skip_field(app, what, name, obj, skip, options):
    """Leave out the fields of named tuples, which the docstring of their class lists."""
    return True if (getattr(obj, "__doc__", None) or "").startswith("Alias for field ") else skip


def setup(app):
    """Register with Sphinx.

    Args:
        app: Sphinx's application.
    """
    app.setup_extension("sphinx.ext.napoleon")
    app.connect("autodoc-process-docstring", _restructure, priority=400)  # before napoleon
    app.connect("autodoc-skip-member", _skip_field)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
