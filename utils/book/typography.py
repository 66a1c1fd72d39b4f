"""What stays on one line of a page: a number with its sign, a formula with its punctuation."""

import re

from bs4 import NavigableString, Tag

UNBROKEN = re.compile(r"(?<=\d) (?=%)|(?<=\d) (?=× \d)|(?<=\d ×) (?=\d)")
OPENING, CLOSING = re.compile(r"[(\[]+$"), re.compile(r"^[.,;:)\]?]+")
NOT_PROSE = ["pre", "code", "script", "style", "textarea"]


def mend(page) -> None:
    """Keep together what a narrow screen would take apart.

    Args:
        page: A `finish.Page`.
    """
    article = page.html.select_one("article.bd-article")
    if article is None:
        return
    for text in article.find_all(string=UNBROKEN):
        if not text.find_parent(NOT_PROSE) and not text.find_parent(class_="math"):
            text.replace_with(UNBROKEN.sub("\N{NO-BREAK SPACE}", text))
    for formula in article.select("span.math"):
        before = _cut(formula.previous_sibling, OPENING)
        after = _cut(formula.next_sibling, CLOSING)
        if before or after:
            whole = formula.wrap(page.html.new_tag("span", attrs={"class": "whole"}))
            whole.insert(0, before)
            whole.append(after)


def _cut(text: Tag | NavigableString | None, what: re.Pattern) -> str:
    """Take punctuation off the end of a text that touches a formula."""
    found = what.search(text) if isinstance(text, NavigableString) else None
    if not found:
        return ""
    text.replace_with(text[: found.start()] + text[found.end() :])
    return found[0]
