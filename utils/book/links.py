"""Words that lead somewhere: terms to the glossary, code to the reference, that to its source."""

import importlib
import inspect
import re
from functools import cache
from pathlib import Path

from bs4 import NavigableString, Tag
from docutils.nodes import make_id

from . import launch

GLOSSARY, REFERENCE = "chapters/appendix_glossary", "chapters/appendix_reference"
WHERE = re.compile(r"\s*(Chapter \d|Experimental details|The same on).*$")  # ends a definition
LONGEST = 260  # characters of a definition that is shown next to its term


def mend(page) -> None:
    """Link what a page says to where it is explained.

    Args:
        page: A `finish.Page`. Links of outputs lead to pages, where in Jupyter they lead to
            notebooks; the first italics of a term lead to the glossary, and the first mention of
            a function to the reference, in the text and in the code that is not folded.
    """
    article = page.html.select_one("article.bd-article")
    if page.name == REFERENCE:
        _link_sources(page)
    if article is None:
        return
    for link in article.select(".cell_output a[href*='.ipynb']"):
        notebook, _, heading = link["href"].partition(".ipynb")
        anchor = heading.removeprefix("#")
        link["href"] = f"{notebook}.html" + (f"#{make_id(anchor)}" if anchor else "")
    if page.name in (GLOSSARY, REFERENCE):
        return
    terms, names, seen = definitions(page.site), entries(page.site), set()
    for word in article.select(":is(p, li, td) > em"):
        if word.get_text().endswith((".", ":")):  # "Compute." begins an exercise
            continue
        target, definition = terms.get(_plain(word.get_text()), (None, None))
        if target and target not in seen:
            seen.add(target)
            link = _lead(page, word, f"{page.to(f'{GLOSSARY}.html')}#{target}", "term")
            link.attrs |= {"data-bs-toggle": "tooltip", "title": definition}
    own = {name.get_text() for name in article.select(".cell_input .nf")}  # that the page defines
    for code in article.select(":is(p, li, td) > code"):
        name, called, _ = code.get_text().partition("(")
        known = (called or "." in name) and name not in own  # not a variable, nor asked for here
        target = names.get(name) if known else None
        if target and target not in seen:
            seen.add(target)
            _lead(page, code, f"{page.to(f'{REFERENCE}.html')}#{target}", "name")
    seen.clear()
    for cell in article.select("div.cell > div.cell_input pre"):
        for name, token in _calls(cell):
            target = names.get(name)
            if target and name not in own and target not in seen:
                seen.add(target)
                _lead(page, token, f"{page.to(f'{REFERENCE}.html')}#{target}", "name")


def _calls(code: Tag) -> list[tuple[str, Tag]]:
    """What a cell calls, as `sparsity.gini`, and the last word of it."""
    tokens, found = list(code.children), []
    words = [token.get_text() for token in tokens]
    for at, token in enumerate(tokens[:-1]):
        named = isinstance(token, Tag) and token.get_attribute_list("class") == ["n"]
        if named and words[at + 1].startswith("("):
            start = at
            while start >= 2 and words[start - 1] == ".":
                start -= 2
            found.append(("".join(words[start : at + 1]), token))
    return found


@cache
def definitions(site) -> dict[str, tuple[str, str]]:
    """Every term of the glossary, in small letters.

    Args:
        site: A `finish.Site`.

    Returns:
        Term → its anchor and what it means, in one paragraph; empty without a glossary.
    """
    if GLOSSARY not in site.pages:
        return {}
    found = {}
    for term in site.pages[GLOSSARY].html.select("dl.glossary > dt[id]"):
        said = " ".join(term.find_next_sibling("dd").get_text().split())
        said = WHERE.sub("", said)
        if len(said) > LONGEST:
            said = said[:LONGEST].rsplit(" ", 1)[0] + " …"
        found[_plain(term.find(string=True))] = (term["id"], said)
    return found


@cache
def entries(site) -> dict[str, str]:
    """Every way to name an entry of the reference that no other entry shares.

    Args:
        site: A `finish.Site`.

    Returns:
        Name, from all parts to the last, such as `sparsity.gini` → its anchor.
    """
    if REFERENCE not in site.pages:
        return {}
    ways: dict[str, set[str]] = {}
    for entry in site.pages[REFERENCE].html.select("dl.py > dt[id]"):
        parts = entry["id"].split(".")
        for start in range(len(parts)):
            ways.setdefault(".".join(parts[start:]), set()).add(entry["id"])
    return {way: anchors.copy().pop() for way, anchors in ways.items() if len(anchors) == 1}


def source(root: Path, name: str) -> str | None:
    """Where the code of an entry is published.

    Args:
        root: The checkout.
        name: Of a function, a class or a method, with its module.

    Returns:
        The address of its first line; None for what has no lines, and a book that is not published.
    """
    if not (published := launch.published(root)):
        return None
    url, version = published
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        try:
            for part in parts[end:]:
                found = inspect.unwrap(getattr(found, part))
            file = Path(inspect.getsourcefile(found)).resolve().relative_to(root.resolve())
            lines, first = inspect.getsourcelines(found)
        except (AttributeError, OSError, TypeError, ValueError):
            return None
        return f"{url}/blob/{version}/{file.as_posix()}#L{first}-L{first + len(lines) - 1}"
    return None


def _link_sources(page) -> None:
    for entry in page.html.select("dl.py > dt[id]"):
        if url := source(page.site.root, entry["id"]):
            link = page.html.new_tag("a", href=url, attrs={"class": "source"})
            link.string = "[source]"
            entry.append(link)


def _lead(page, element: Tag, href: str, kind: str) -> Tag:
    link = page.html.new_tag("a", href=href, attrs={"class": f"to-{kind}"})
    return element.wrap(link)


def _plain(word: str | NavigableString) -> str:
    """A term as it is looked up: IT is not "it", and CNNs are a CNN."""
    word = " ".join(word.split()).strip(".,:;")
    one = word.removesuffix("s") if not word.endswith("ss") else word
    return one if one.isupper() else one.lower()
