"""What rendered pages say to those who do not see them, or use no mouse."""

import re

from bs4 import Tag

NUMBER = re.compile(r"[-+−±<>~≈]?\s?\.?\d")  # begins one


def mend(page) -> None:
    """Mend names, roles and tables of a page.

    Args:
        page: A `finish.Page`.
    """
    html = page.html
    for fold in html.select("summary[aria-label='Toggle hidden content']"):
        del fold["aria-label"]  # its name is what it shows: set-up, check, solution
    for button in html.select(".search-button-field"):
        # What it says is its name; the tooltip would name it once more.
        del button["aria-label"], button["title"], button["data-bs-toggle"]
    for icon in html.select(".theme-switch[title]"):
        del icon["title"]  # the button that it stands in has a name
    for button in html.select("button[title]:not([aria-label])"):
        button["aria-label"] = button["title"]
    for sidebar in html.select("#pst-primary-sidebar"):
        sidebar["role"], sidebar["aria-label"] = "region", "Book"
    for table in html.select("table.dataframe"):
        table["tabindex"] = "0"  # a wide one scrolls, by keyboard too
        _name_the_index_in_the_header(table)
        _mark_words(table)
    for corner in html.select("thead th"):
        if not corner.get_text(strip=True):
            corner.name = "td"
    _list_the_bibliography(html)
    _number_once(html)


def _name_the_index_in_the_header(table: Tag) -> None:
    """One row of heads: pandas writes the names of the index in a row of their own, below.

    Where the columns have a name as well, it stands above that of the index: "layer, by model".
    """
    rows = table.select("thead tr")
    if len(rows) < 2:
        return
    above, below = (row.find_all("th", recursive=False) for row in rows[-2:])
    named = [bool(cell.get_text(strip=True)) for cell in below]
    fits = len(above) == len(below) and not any(cell.has_attr("colspan") for cell in above)
    if not fits or all(named):
        return
    if any(named):
        for cell, own, lower in zip(above, named, below, strict=True):
            if own:
                words = lower.get_text(strip=True), cell.get_text(strip=True)
                cell.string = ", by ".join(filter(None, words))
        rows[-1].decompose()


def _mark_words(table: Tag) -> None:
    """Columns in which no cell is a number are of words, which read better from the left."""
    heads = table.select("thead tr:last-child > :is(th, td)")
    rows = [row.find_all("td", recursive=False) for row in table.select("tbody tr")]
    if len({len(row) for row in rows}) != 1:
        return
    columns = list(zip(*rows, strict=True))
    for head, cells in zip(reversed(heads), reversed(columns), strict=False):
        said = [cell.get_text(strip=True) for cell in cells]
        if any(map(str.isalpha, "".join(said))) and not any(map(NUMBER.match, said)):
            for cell in (head, *cells):
                cell["class"] = "words"


def _list_the_bibliography(html: Tag) -> None:
    for entry in html.select(".citation-list > [role=doc-biblioentry]"):
        entry["role"] = "listitem"


def _number_once(html: Tag) -> None:
    seen: set[str] = set()
    for element in html.select("[id]"):
        if element["id"] in seen:
            del element["id"]
        seen.add(element.get("id", ""))
