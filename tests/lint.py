"""What every chapter keeps to, as functions from a notebook to a list of faults.

The conventions, for authors:

- The first code cell is `utils.book.runtime.SETUP_CELL`, letter for letter.
- A code cell has at most 15 lines; blank lines and comments do not count.
- A cell that draws has `mystnb.image.alt` in its metadata: what is seen, in 40 characters or more,
  different from every other. Sliders take theirs as `alts`.
- Nothing is stored but the outputs of cells tagged `nbval-check-output`, and those always.
- An exercise is five cells in this order: a text cell tagged `exercise` with `points` and
  `minutes` in its metadata, a code cell tagged `exercise-stub`, a text cell tagged `hint` with a
  `<details>` block, a code cell tagged `solution` and `hide-cell`, a code cell tagged
  `hidden-test`. A chapter has at least three.
- Text must read well without MyST: citations are the only roles, and there are no directives.
"""

import ast
import re

from utils.book.runtime import SETUP_CELL

MOST_LINES = 15
SHORTEST_ALT = 40
# Calls that leave a figure behind; `panel` and friends are found through their definitions.
DRAWING = {
    "plt": {"subplots", "figure", "plot", "imshow", "hist", "scatter", "bar", "show"},
    "plotting": {"image_grid", "heatmap", "overlay"},
    "sns": None,
}
EXERCISE = ("exercise", "exercise-stub", "hint", "solution", "hidden-test")
MACHINE_PATH = re.compile(
    r"(?<![\w./~-])/(?:home|root|work|tmp|Users|mnt|opt|content)/|[A-Z]:\\\\?\w"
)
CITATION = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
ROLE = re.compile(r"(?<!`)\{(\w[\w:-]*)\}`")


def tags(cell) -> set[str]:
    return set(cell.metadata.get("tags", []))


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def first_line(cell) -> str:
    return cell.source.split("\n", 1)[0][:60]


def setup_faults(notebook) -> list[str]:
    cells = code_cells(notebook)
    if not cells or cells[0].source.strip() != SETUP_CELL.strip():
        return ["The first code cell is not the set-up cell (utils.book.runtime.SETUP_CELL)."]
    return []


def length_faults(notebook) -> list[str]:
    faults = []
    for cell in code_cells(notebook):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        lines = [line for line in lines if not line.strip().startswith("#")]
        if len(lines) > MOST_LINES and cell.source.strip() != SETUP_CELL.strip():
            faults.append(f"{len(lines)} lines of code in the cell {first_line(cell)!r}.")
    return faults


def draws(source: str, drawers: set[str]) -> bool:
    """Whether running this source leaves a figure; learns functions that draw on the way."""
    tree = ast.parse("\n".join(line for line in source.split("\n") if line[:1] not in "%!"))
    found = False
    for statement in tree.body:
        drawing = any(_is_drawing(node, drawers) for node in ast.walk(statement))
        if isinstance(statement, ast.FunctionDef):
            drawers |= {statement.name} if drawing else set()
        else:
            found |= drawing
    return found


def _is_drawing(node, drawers: set[str]) -> bool:
    if not isinstance(node, ast.Call):
        return False
    function = node.func
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        known = DRAWING.get(function.value.id, set())
        return known is None or function.attr in known
    return isinstance(function, ast.Name) and function.id in drawers


def alt_texts(notebook) -> list[str]:
    found = [cell.metadata.get("mystnb", {}).get("image", {}).get("alt") for cell in notebook.cells]
    return [alt for alt in found if alt is not None]


def alt_faults(notebook) -> list[str]:
    faults, drawers = [], set()
    for cell in code_cells(notebook):
        figure = draws(cell.source, drawers) and "widgets." not in cell.source
        alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
        caption = cell.metadata.get("mystnb", {}).get("figure", {}).get("caption")
        if figure and len(alt) < SHORTEST_ALT:
            faults.append(f"The figure of the cell {first_line(cell)!r} needs an alt text of 40.")
        if alt and alt == caption:
            faults.append(f"Alt text and caption of the cell {first_line(cell)!r} are the same.")
    return faults


def storage_faults(notebook) -> list[str]:
    faults = ["Widget states are stored."] if "widgets" in notebook.metadata else []
    for cell in code_cells(notebook):
        stored = bool(cell.outputs) and cell.execution_count is not None
        if "nbval-check-output" in tags(cell):
            if not stored:
                faults.append(f"The cell {first_line(cell)!r} is to be compared with no output.")
        elif cell.outputs or cell.execution_count is not None:
            faults.append(f"The cell {first_line(cell)!r} has a stored output.")
    return faults


def path_faults(notebook) -> list[str]:
    texts = [cell.source for cell in notebook.cells]
    texts += [str(output) for cell in code_cells(notebook) for output in cell.outputs]
    return [
        f"Machine path: {match[0]!r}." for text in texts for match in MACHINE_PATH.finditer(text)
    ]


def cited(text: str) -> set[str]:
    return {key.strip() for group in CITATION.findall(text) for key in group.split(",")}


def plain_text_faults(notebook) -> list[str]:
    faults = []
    for cell in text_cells(notebook):
        faults += [f"Role {{{role}}}." for role in ROLE.findall(cell.source) if role[:4] != "cite"]
        if re.search(r"^(```+|:::+)\s*\{", cell.source, re.MULTILINE):
            faults.append(f"A directive in the cell {first_line(cell)!r}.")
    return faults


def exercise_faults(notebook, fewest: int = 3) -> list[str]:
    faults, cells = [], notebook.cells
    starts = [i for i, cell in enumerate(cells) if "exercise" in tags(cell)]
    if len(starts) < fewest:
        faults.append(f"{len(starts)} exercises; a chapter has at least {fewest}.")
    for start in starts:
        group, name = cells[start : start + 5], first_line(cells[start])
        if len(group) < 5 or any(
            tag not in tags(cell) for tag, cell in zip(EXERCISE, group, strict=True)
        ):
            faults.append(f"The exercise {name!r} is not followed by stub, hint, solution, check.")
            continue
        text, _, hint, solution, check = group
        for key in ("points", "minutes"):
            if not isinstance(text.metadata.get(key), int):
                faults.append(f"The exercise {name!r} does not say its {key}.")
        if "<details>" not in hint.source:
            faults.append(f"The hint of {name!r} is not hidden in <details>.")
        if "hide-cell" not in tags(solution):
            faults.append(f"The solution of {name!r} is not tagged hide-cell.")
        if "assert" not in check.source:
            faults.append(f"The check of {name!r} asserts nothing.")
    return faults


RULES = (
    setup_faults,
    length_faults,
    alt_faults,
    storage_faults,
    path_faults,
    plain_text_faults,
    exercise_faults,
)
