"""Citations written out, for notebooks that leave the book and its bibliography behind."""

import re
from pathlib import Path

import nbformat

CITATION = re.compile(r"\{cite(?::(\w+))?\}`([^`]+)`")


def written_out(notebook, bibliography: Path):
    """A notebook in which citations are names and years, with the works listed at its end.

    Args:
        notebook: It is changed in place.
        bibliography: A BibTeX file.

    Returns:
        The notebook.

    Raises:
        KeyError: For a work that is not in the bibliography.
    """
    from pybtex.database import parse_file
    from pybtex.plugin import find_plugin

    works = parse_file(str(bibliography), bib_format="bibtex").entries
    cited: dict[str, None] = {}

    def named(match: re.Match) -> str:
        keys = [key.strip() for key in match[2].split(",")]
        cited.update(dict.fromkeys(keys))
        if match[1] == "t":
            return "; ".join(f"{_names(works[key], ' and ')} ({_year(works[key])})" for key in keys)
        shown = [f"{_names(works[key], ' & ')}, {_year(works[key])}" for key in keys]
        return f"({'; '.join(shown)})"

    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = CITATION.sub(named, cell.source)
    if cited:
        style = find_plugin("pybtex.style.formatting", "plain")()
        write = find_plugin("pybtex.backends", "markdown")()
        wanted = sorted(cited, key=lambda key: (_names(works[key], " "), _year(works[key])))
        entries = style.format_entries([works[key] for key in wanted])
        lines = [f"- {entry.text.render(write)}" for entry in entries]
        source = "\n".join(["## References", "", *sorted(lines)])
        notebook.cells.append(nbformat.v4.new_markdown_cell(source))
    return notebook


def _names(work, joined: str) -> str:
    """Family names: one, two, or the first and others."""
    persons = work.persons.get("author") or work.persons.get("editor") or []
    families = [" ".join([*p.prelast_names, *p.last_names]).strip("{}") for p in persons]
    if not families:
        return work.fields["title"].strip("{}")
    return f"{families[0]} et al." if len(families) > 2 else joined.join(families)


def _year(work) -> str:
    return work.fields.get("year", "n.d.")
