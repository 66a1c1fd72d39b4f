"""Sphinx extension: figures are numbered by chapter, "Figure 4.3", and can be linked.

A cell says what its figure is called and shows in its metadata, `mystnb.figure.name` and
`mystnb.figure.caption`; the same figure in Jupyter stands without them.
"""

import re

from docutils import nodes


def _number(app, doctree):
    title = next(doctree.findall(nodes.title), None)
    chapter = re.match(r"\d[\w.]*", title.astext()) if title else None
    captioned = [each for each in doctree.findall(nodes.figure) if each.next_node(nodes.caption)]
    for place, figure in enumerate(captioned, start=1):
        number = f"{chapter[0]}.{place}" if chapter else str(place)
        if not figure["ids"]:
            figure["ids"].append(f"figure-{place}")
        caption = figure.next_node(nodes.caption)
        link = nodes.reference(
            "", f"Figure {number}", refid=figure["ids"][0], internal=True, classes=["figure-number"]
        )
        caption[:0] = [link, nodes.Text(". ")]


def setup(app):
    """Register with Sphinx."""
    app.connect("doctree-read", _number)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
