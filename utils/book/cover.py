"""Draws the cover, from the cells of chapter 1: `python -m utils.book.cover`.

It is a figure of that chapter, under "Where each looks", whose rows the chapter chooses by a rule.
"""

import argparse
from pathlib import Path

import matplotlib
import nbformat

ROOT = Path(__file__).resolve().parents[2]
COVER = ROOT / "_static/cover.png"
CHAPTER, FIGURE = ROOT / "chapters/1_introduction.ipynb", "cover"  # the id of a cell
WIDTH = 1280  # pixels


def draw(path: Path) -> None:
    """Run the chapter up to the figure, and save that."""
    matplotlib.use("Agg")
    cells = [c for c in nbformat.read(CHAPTER, as_version=4).cells if c.cell_type == "code"]
    last = next(i for i, cell in enumerate(cells) if cell.id == FIGURE)
    names = {}
    for cell in cells[: last + 1]:
        exec(compile(cell.source, f"{CHAPTER.stem}, cell {cell.id}", "exec"), names)
    figure = names["plt"].gcf()
    width = figure.get_size_inches()[0]
    small = {"metadata": {"Software": None}, "pil_kwargs": {"optimize": True}}
    figure.savefig(path, dpi=WIDTH / width, **small)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the cover.")
    parser.add_argument("path", nargs="?", type=Path, default=COVER)
    draw(parser.parse_args().path)
