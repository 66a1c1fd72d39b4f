"""`python -m benchmarks.starting`: what it takes until something is there, next to plain imports.

Each contender is a process of its own, and they take turns. A chapter's first cells are compared
with what they import from other packages; `measure` and the evidence for the board with importing
torch and timm. Printed are medians of the seconds, and of the ratios within a turn.
"""

import argparse
import ast
import statistics
import subprocess
import sys
import tempfile
import time

import nbformat
from tqdm import tqdm

from utils.book.build import ROOT

CHAPTER, OURS = "3_attention_sparsity", ("utils", "experiments")
FLOOR = "import torch, timm"
LOOKS = "import ipywidgets, seaborn"  # what every chapter's figures are made with
EVIDENCE = "from experiments.evidence import table; print(len(table.evidence()))"
MEASURE = ("-m", "experiments", "measure", "vit-d6-h4", "-n", "20", "--out")


def first_cells(chapter: str) -> tuple[str, str]:
    """What a chapter runs first, set-up and imports, and its imports of others' packages."""
    cells = nbformat.read(ROOT / f"chapters/{chapter}.ipynb", as_version=4).cells
    setup, imports = [cell.source for cell in cells if cell.cell_type == "code"][:2]
    lines = [n for n in ast.parse(imports).body if isinstance(n, ast.Import | ast.ImportFrom)]
    others = [n for n in lines if not getattr(n, "module", "").startswith(OURS)]
    ours, theirs = ("\n".join(map(ast.unparse, some)) for some in (lines, others))
    return f"{setup}\n{ours}", f"{FLOOR}\n{LOOKS}\n{theirs}"


def seconds(words: tuple[str, ...]) -> float:
    """How long a fresh Python takes for this."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.starting", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender")
    rounds = parser.parse_args().rounds
    ours, theirs = first_cells(CHAPTER)
    floors = {
        "imports of torch and timm": {
            "measure vit-d6-h4 -n 20": MEASURE,
            "the board's evidence": ("-c", EVIDENCE),
        },
        "imports of a chapter's packages": {"the chapter's first two cells": ("-c", ours)},
    }
    alone = dict(zip(floors, (("-c", FLOOR), ("-c", theirs)), strict=True))
    took: dict[str, list[float]] = {}
    for _ in tqdm(range(rounds), "starting", disable=None):
        for floor, contenders in floors.items():
            for name, words in {floor: alone[floor], **contenders}.items():
                with tempfile.TemporaryDirectory() as folder:
                    out = (f"{folder}/out.csv",) if words is MEASURE else ()
                    took.setdefault(name, []).append(seconds((*words, *out)))
    print(f"{'':34}{'seconds':>8}{'ratio':>8}")
    for floor, contenders in floors.items():
        for name in (floor, *contenders):
            pairs = zip(took[name], took[floor], strict=True)
            ratio = statistics.median(here / there for here, there in pairs)
            print(f"{name:34}{statistics.median(took[name]):8.2f}{ratio:8.2f}")


if __name__ == "__main__":
    main()
