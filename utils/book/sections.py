"""The index of the search: prose by sections, without code, set-up and outputs."""

import copy
import json
import re
from collections.abc import Iterator
from textwrap import shorten

from bs4 import BeautifulSoup, Tag

# Found by name, each a section of its own: claims, terms, functions and references.
NAMED = ".claim-card[id], dl.glossary > dt[id], dl.py > dt[id], .citation[id]"
LEFT_OUT = "script, style, pre, details, button, form, .headerlink, .math, .source, .label"

TITLE = 90  # characters, at most


def write(site) -> None:
    """Write all sections of all pages for the script of the search.

    Args:
        site: A `finish.Site`.
    """
    found = [
        section
        for page in site.pages.values()
        if page.html.select_one("article.bd-article")
        for section in sections(page.html, page.name)
    ]
    text = json.dumps(found, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    (site.folder / "_static/sections.js").write_text(f"SECTIONS = {text};\n", encoding="utf-8")


def sections(page: BeautifulSoup, name: str) -> Iterator[dict[str, str]]:
    """What can be found on a page.

    Args:
        page: Its HTML.
        name: Its path without the ending.

    Yields:
        Of each section its address, title and prose, and the title of the page.
    """
    article = copy.copy(page.select_one("article.bd-article"))
    for element in article.select(LEFT_OUT):
        element.decompose()
    heading = article.find("h1")
    title = _said(heading) if heading else name
    for named in article.select(NAMED):
        described = named.find_next_sibling("dd") if named.name == "dt" else named
        label = named.h3 or (named if named.name == "dt" else None)  # else a reference
        code = "sig" in named.get("class", [])
        yield {
            "url": f"{name}.html#{named['id']}",
            "title": named["id"]
            if code
            else shorten(_said(label or named), TITLE, placeholder=" …"),
            "page": title,
            "text": _said(described) if described else "",
        }
    for named in article.select(".claim-card, dl.glossary, dl.py, .citation"):
        named.decompose()
    for output in article.select(".cell_output"):
        captions = output.find_all("figcaption")
        output.clear()
        output.extend(captions)
    for section in reversed(article.select("section[id]")):  # the innermost first
        label = section.find(["h1", "h2", "h3", "h4"])
        if label is None:
            continue
        yield {
            "url": f"{name}.html#{section['id']}",
            "title": _said(label.extract()),
            "page": title,
            "text": _said(section),
        }
        section.decompose()


def _said(element: Tag) -> str:
    said = " ".join(element.get_text(" ").split())
    return re.sub(r" (?=[.,;:!?)\]])|(?<=[(\[]) ", "", said)
