"""What every chapter keeps to, as functions from a notebook to a list of faults.

Longer than two screens because the rules are many, though each is short.

The conventions, for authors:

- The title begins with the number in the file's name: `2_1_visual_system` with `# 2.1 `.
- The first code cell is `utils.book.runtime.SETUP_CELL`, letter for letter, with
  its metadata; `python -m utils.book.runtime` writes both.
- A code cell has at most 15 lines, a folded one 30, the check of an exercise 60; blank lines,
  comments and imports do not count.
- A cell that draws has `mystnb.image.alt` in its metadata: what is seen, in 40 characters or more,
  different from every other. Images in the text have theirs as `![alt](…)`, under the same rule.
- Interactive figures come from `utils.book.widgets.choose`, which takes the alternative texts as
  `alts=`. A cell that calls it shows no other figure.
- A figure has a caption and a name: `mystnb.figure.caption` and `.name` (`fig-…`). One that shows
  scenes, or amounts as colours, has `mystnb.image.classes: pictures`, by which it keeps its colours
  in the dark. Its cell leaves nothing else: it ends with `;` where its last line has a value.
- A chapter with a number says "About 25 minutes to read, less than a minute to run", for the card
  of the landing page.
- A chapter shows at most 150 lines of code, none wider than 84 characters. A cell that only draws
  is folded: tagged `hide-input`, titled `# @title The code of this figure`; so are the asserts that
  guard the text, in cells tagged `hide-cell` and titled `# @title Checks of the text`.
- Nothing is stored but the outputs of cells tagged `nbval-check-output`, and those always; they
  are text. The kernel is python3.
- An exercise is five cells in this order: a text cell tagged `exercise` with `points`, `minutes`
  and `difficulty` (1 to 3) in its metadata, a heading `### Exercise 2.1.3: Title`, numbered by
  chapter, and below it a line that says the three; a code cell tagged `exercise-stub`, where `...`
  stands for what is asked, and which raises nothing; a code cell tagged `check` and `hide-input`,
  titled `# @title Check 2.1.3`, with a function `check_2_1_3` of what the stub left open, made by
  `utils.book.exercises.exercise`, whose asserts say in words which idea is wrong, and a call of it;
  a text cell tagged `hint` with a `<details>` block; a code cell tagged `solution` and `hide-cell`,
  titled `# @title Solution 2.1.3`, which defines what the stub left open and calls the check again.
  The metadata of a check list `wrong` answers that it refuses, which are misconceptions, and
  `right` ones that it accepts (see test_exercises.py). Where words are asked for, a text cell
  tagged `answer` follows the check, and `rubric` in the metadata of the exercise says what gets
  which points. A chapter with a number has at least three exercises.
- Text must read well without MyST: citations are the only roles, and there are no directives.
- No heading has a formula: the contents of the page show it from the start, and to typeset it
  every formula before it is compiled.
"""

import ast
import re

from utils.book.grading import ANSWER, PARTS, parsed, tags, worth
from utils.book.runtime import SETUP_CELL, SETUP_METADATA

MOST_LINES, MOST_FOLDED, MOST_OF_A_CHECK = 15, 30, 60
MINUTES = re.compile(r"\bAbout \d+ minutes to read, [^.;]+ to run[.;]")
MOST_OPEN, WIDEST = 150, 84  # lines of code that a chapter shows; characters of the widest
# A last line with one of these leaves the figure alone.
QUIET = ("face", "print", "widgets.choose", "widgets.live", "lab.figure", "pyplot.show")
PICTURES = {"imshow", "image_grid", "overlay", "heatmap"}  # scenes and colours, not lines
SHORTEST_ALT = 40
# Calls into these modules draw, whatever name they were imported under, and so do these methods.
DRAWING_MODULES = (
    "matplotlib",
    "seaborn",
    "utils.book.plotting",
    "utils.book.widgets.live",
    "utils.book.lab",
    "IPython.display.Image",
)
DRAWING_METHODS = {"bar", "barh", "boxplot", "errorbar", "hist", "imshow", "plot", "scatter"}
HARMLESS = {
    "utils.book.plotting.use_style",
    "experiments.evidence.captions.source",
    "matplotlib.pyplot.close",
}
WIDGETS = "utils.book.widgets"
# Known without an import, so that nothing depends on finding one.
USUAL_NAMES = {
    "plt": "matplotlib.pyplot",
    "sns": "seaborn",
    "plotting": "utils.book.plotting",
    "widgets": WIDGETS,
}
MACHINE_PATH = re.compile(
    r"(?<![\w./~-])/(?:home|root|work|tmp|Users|mnt|opt|content|kaggle)/|[A-Z]:\\\\?\w"
)
CITATION = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
ROLE = re.compile(r"(?<!`)\{(\w[\w:-]*)\}`")
FORMULA_IN_HEADING = re.compile(r"^#+ .*\$.*$", re.MULTILINE)
IMAGE = re.compile(
    r"!\[([^\]]*)\]\(|<img\b(?:[^>]*?\balt=\"([^\"]*)\")?[^>]*>|^:alt:(.*)$", re.MULTILINE
)


def code_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text_cells(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "markdown"]


def first_line(cell) -> str:
    return cell.source.split("\n", 1)[0][:60]


def chapter_number(notebook) -> str:
    """The number at the head of a chapter's title, such as 2.1 or 2.2b; empty if there is none."""
    title = re.match(r"# (\d[\w.]*) ", notebook.cells[0].source)
    return title[1] if title else ""


def setup_faults(notebook) -> list[str]:
    cells = code_cells(notebook)
    if not cells or cells[0].source.strip() != SETUP_CELL.strip():
        return ["The first code cell is not the set-up cell (utils.book.runtime.SETUP_CELL)."]
    same = dict(cells[0].metadata) == SETUP_METADATA
    return [] if same else ["The set-up cell is not folded as utils.book.runtime says."]


def length_faults(notebook) -> list[str]:
    faults = []
    for cell in code_cells(notebook):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        lines = [line for line in lines if not line.strip().startswith(("#", "import ", "from "))]
        most = MOST_FOLDED if tags(cell) & {"hide-input", "hide-cell"} else MOST_LINES
        most = MOST_OF_A_CHECK if "check" in tags(cell) else most
        if len(lines) > most and cell.source.strip() != SETUP_CELL.strip():
            faults.append(f"{len(lines)} lines of code in the cell {first_line(cell)!r}.")
    return faults


def learn_names(tree, names: dict[str, str]) -> None:
    """Note what each imported name stands for: plt → matplotlib.pyplot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {item.asname: item.name for item in node.names if item.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {i.asname or i.name: f"{node.module}.{i.name}" for i in node.names}


def called(node, names: dict[str, str]) -> str:
    """The full dotted name of what a call calls; empty if it has none."""
    parts, function = [], node.func
    while isinstance(function, ast.Attribute):
        parts.append(function.attr)
        function = function.value
    if not isinstance(function, ast.Name):
        return ""
    return ".".join([names.get(function.id, function.id), *reversed(parts)])


def draws(tree, names: dict[str, str], drawers: set[str]) -> bool:
    """Whether running this leaves a figure; learns the chapter's own functions that draw."""
    found = False
    for statement in tree.body:
        calls = [node for node in ast.walk(statement) if isinstance(node, ast.Call)]
        drawing = any(_is_drawing(call, names, drawers) for call in calls)
        if isinstance(statement, ast.FunctionDef):
            drawers |= {statement.name} if drawing else set()
        else:
            found |= drawing
    return found


def _is_drawing(call, names, drawers) -> bool:
    name = called(call, names)
    if name in HARMLESS:
        return False
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    return name.startswith(DRAWING_MODULES) or name in drawers or method in DRAWING_METHODS


def own_alt(cell) -> str | None:
    return cell.metadata.get("mystnb", {}).get("image", {}).get("alt")


def image_alts(text: str) -> list[str]:
    """The alternative texts of the images in a text, empty where one has none."""
    return ["".join(groups).strip() for groups in IMAGE.findall(text)]


def alt_texts(notebook) -> list[str]:
    found = [own_alt(cell) for cell in notebook.cells if own_alt(cell) is not None]
    return found + [alt for cell in text_cells(notebook) for alt in image_alts(cell.source)]


def alt_faults(notebook) -> list[str]:
    faults, names, drawers = [], dict(USUAL_NAMES), set()
    for cell in code_cells(notebook):
        tree, name = parsed(cell), first_line(cell)
        learn_names(tree, names)
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        interactive = [call for call in calls if called(call, names) == f"{WIDGETS}.choose"]
        figure = draws(tree, names, drawers) and not interactive
        if figure and len((own_alt(cell) or "").strip()) < SHORTEST_ALT:
            faults.append(f"The figure of the cell {name!r} needs an alt text of {SHORTEST_ALT}.")
        if own_alt(cell) and own_alt(cell) == cell.metadata.mystnb.get("figure", {}).get("caption"):
            faults.append(f"Alt text and caption of the cell {name!r} are the same.")
        if any("alts" not in {key.arg for key in call.keywords} for call in interactive):
            faults.append(f"The interactive figure of the cell {name!r} is given no alts=.")
        if any(called(call, names).startswith("ipywidgets") for call in calls):
            faults.append(f"The cell {name!r} calls ipywidgets: take a figure of {WIDGETS}.")
    for cell in text_cells(notebook):
        if any(len(alt) < SHORTEST_ALT for alt in image_alts(cell.source)):
            faults.append(f"An image in {first_line(cell)!r} needs an alt text of {SHORTEST_ALT}.")
    return faults


def open_code(notebook) -> list:
    """The cells whose code a reader sees, without the set-up."""
    return [c for c in code_cells(notebook)[1:] if not tags(c) & {"hide-input", "hide-cell"}]


def reading_faults(notebook) -> list[str]:
    """What makes a chapter hard to read: too much code, too wide, asserts in the way."""
    faults = []
    said = any(MINUTES.search(cell.source) for cell in text_cells(notebook))
    if chapter_number(notebook) and not said:
        faults.append("It does not say 'About … minutes to read, … to run.'")
    seen = [line for cell in open_code(notebook) for line in cell.source.splitlines()]
    if (count := sum(bool(line.strip()) for line in seen)) > MOST_OPEN:
        faults.append(f"{count} lines of open code; a chapter shows {MOST_OPEN} at most.")
    for cell in code_cells(notebook)[1:]:
        widest = max(map(len, cell.source.splitlines()), default=0)
        if widest > WIDEST:
            faults.append(f"A line of {widest} characters in the cell {first_line(cell)!r}.")
    for cell in open_code(notebook):
        if any(isinstance(node, ast.Assert) for node in ast.walk(parsed(cell))):
            faults.append(f"An assert in the open cell {first_line(cell)!r}: fold it.")
    for cell in code_cells(notebook)[1:]:
        if tags(cell) & {"hide-input", "hide-cell"} and not first_line(cell).startswith("# @title"):
            faults.append(f"The folded cell {first_line(cell)!r} has no '# @title'.")
    for cell in text_cells(notebook):
        for heading in FORMULA_IN_HEADING.findall(cell.source):
            faults.append(f"A formula in the heading {heading!r}: say it in words.")
    return faults


def figure_faults(notebook) -> list[str]:
    """What a figure lacks: a caption, a name to link to, or the class that keeps its colours."""
    faults, names, drawers = [], dict(USUAL_NAMES), set()
    for cell in code_cells(notebook):
        tree, shown = parsed(cell), cell.metadata.get("mystnb", {})
        learn_names(tree, names)
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        if not draws(tree, names, drawers) or "solution" in tags(cell):
            continue
        figure = shown.get("figure", {})
        if not figure.get("caption") or not str(figure.get("name", "")).startswith("fig-"):
            faults.append(f"The figure of {first_line(cell)!r} needs a caption and a name, fig-….")
        last = tree.body[-1]
        if isinstance(last, ast.Expr) and not cell.source.rstrip().endswith(";"):
            value = last.value
            if not isinstance(value, ast.Call) or not called(value, names).endswith(QUIET):
                faults.append(f"The figure of {first_line(cell)!r} leaves text too: end with ';'.")
        scenes = any(called(call, names).rpartition(".")[2] in PICTURES for call in calls)
        if scenes and "classes" not in shown.get("image", {}):
            faults.append(f"The figure of {first_line(cell)!r} does not say: pictures or chart.")
    return faults


def storage_faults(notebook) -> list[str]:
    faults = ["Widget states are stored."] if "widgets" in notebook.metadata else []
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        faults.append("The kernel is not python3.")
    for cell in code_cells(notebook):
        kinds = {kind for output in cell.outputs for kind in output.get("data", {})}
        if "nbval-check-output" in tags(cell):
            if not cell.outputs or cell.execution_count is None:
                faults.append(f"The cell {first_line(cell)!r} is to be compared with no output.")
            if not kinds <= {"text/plain", "text/html"}:
                faults.append(f"The cell {first_line(cell)!r} is to be compared with an image.")
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
        if re.search(r"^\s*(```+|~~~+|:::+)\s*\{", cell.source, re.MULTILINE):
            faults.append(f"A directive in the cell {first_line(cell)!r}.")
        if re.search(r"^\([\w-]+\)=\s*$", cell.source, re.MULTILINE):
            faults.append(f"A label in the cell {first_line(cell)!r}.")
    return faults


def left_open(stub) -> set[str]:
    """What a stub asks for: names set to `...`, and functions with `...` inside."""
    return {
        name.id if isinstance(name, ast.Name) else statement.name
        for statement in parsed(stub).body
        if any(isinstance(n, ast.Constant) and n.value is ... for n in ast.walk(statement))
        for name in getattr(statement, "targets", [statement])
    }


def defined(cell) -> set[str]:
    """The names that a cell sets or defines at its top level."""
    nodes = [node for statement in parsed(cell).body for node in _outside_functions(statement)]
    names = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return names | {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}


def _outside_functions(node):
    yield node
    if not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda):
        for child in ast.iter_child_nodes(node):
            yield from _outside_functions(child)


def exercises(notebook) -> list[list]:
    """The cells of each exercise: text, stub, check, hint, solution, if none is missing."""
    cells = [cell for cell in notebook.cells if ANSWER not in tags(cell)]
    starts = [i for i, cell in enumerate(cells) if "exercise" in tags(cell)]
    return [cells[i : i + len(PARTS)] for i in starts]


def asks_for_words(notebook, text) -> bool:
    """Whether an exercise has a cell for an answer in words."""
    after = notebook.cells[notebook.cells.index(text) :]
    return any(ANSWER in tags(cell) for cell in after[: len(PARTS)])


def exercise_faults(notebook, fewest: int = 3) -> list[str]:
    faults, cells, chapter = [], notebook.cells, chapter_number(notebook)
    groups = exercises(notebook)
    if chapter and len(groups) < fewest:
        faults.append(f"{len(groups)} exercises; a chapter has at least {fewest}.")
    parts = [tag for cell in cells for tag in PARTS if tag in tags(cell)]
    if len(parts) > len(PARTS) * len(groups):
        faults.append("A stub, check, hint or solution stands outside an exercise.")
    for place, group in enumerate(groups, start=1):
        number = f"{chapter}.{place}".lstrip(".")
        if len(group) < len(PARTS) or any(
            tag not in tags(cell) for tag, cell in zip(PARTS, group, strict=True)
        ):
            faults.append(f"Exercise {number} is not followed by stub, check, hint, solution.")
            continue
        faults += [f"Exercise {number} {fault}" for fault in _faults_of_exercise(*group, number)]
        if ("rubric" in group[0].metadata) != asks_for_words(notebook, group[0]):
            faults.append(f"Exercise {number} has a rubric or a cell for words, and not both.")
    return faults


def facts(text) -> str:
    """The line that says what an exercise is worth, how long it takes and how hard it is."""
    points, minutes, difficulty = (
        text.metadata.get(key) for key in ("points", "minutes", "difficulty")
    )
    plural = "s" * (points != 1)
    return f"*{points} point{plural} · {minutes} minutes · difficulty {difficulty} of 3*"


def _faults_of_exercise(text, stub, check, hint, solution, number):
    heading = rf"^### Exercise {re.escape(number)}: \S.*\n\n{re.escape(facts(text))}$"
    if not re.search(heading, text.source, re.MULTILINE):
        yield f"has no heading '### Exercise {number}: …' with {facts(text)!r} below it."
    for key in ("points", "minutes", "difficulty"):
        if type(text.metadata.get(key)) is not int:
            yield f"does not say its {key} as a whole number."
    if not re.search(r"<details>.*<summary>.+</summary>.+</details>", hint.source, re.DOTALL):
        yield "has a hint that is not hidden in <details>."
    for cell, name, tag in ((check, "Check", "hide-input"), (solution, "Solution", "hide-cell")):
        yield from _faults_of_fold(cell, f"{name} {number}", tag)
    yield from _faults_of_check(text, stub, check, number)
    asked, last = left_open(stub), parsed(solution).body[-1]
    if not asked or not asked <= defined(solution):
        yield f"leaves {sorted(asked)} open, but its solution defines {sorted(defined(solution))}."
    if ast.unparse(last) != ast.unparse(parsed(check).body[-1]):
        yield "has a solution that does not end with the call of its check."


def _faults_of_fold(cell, label, tag):
    """A folded cell says what it is in the page, in JupyterLab and in Colab."""
    if first_line(cell) != f"# @title {label}":
        yield f"has a cell that does not begin with '# @title {label}'."
    folded = {"cellView": "form", "jupyter": {"source_hidden": True}}
    if any(cell.metadata.get(key) != value for key, value in folded.items()):
        yield f"has a {label} that is not folded everywhere: {folded} in its metadata."
    prompts = {
        f"code_prompt_{key}": text
        for key, text in (("show", label), ("hide", f"Hide {label[0].lower()}{label[1:]}"))
    }
    if tag not in tags(cell) or not prompts.items() <= cell.metadata.get("mystnb", {}).items():
        yield f"has a {label} without the tag {tag} or its prompts: {prompts}."


def _faults_of_check(text, stub, check, number):
    body, asked = parsed(check).body, left_open(stub)
    name = f"check_{number.replace('.', '_')}"
    functions = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == name]
    made = f"@exercise('{number}', points={worth(text)})"
    if not functions or made not in ast.unparse(functions[0]):
        yield f"has no check made by {made} and called {name}."
        return
    taken = [argument.arg for argument in functions[0].args.args]
    if set(taken) != asked or ast.unparse(body[-1]) != f"{name}({', '.join(taken)})":
        yield f"has a check that does not end with {name} of {sorted(asked)}."
    asserts = [node for node in ast.walk(functions[0]) if isinstance(node, ast.Assert)]
    if not asserts or not all(node.msg for node in asserts):
        yield "has a check that asserts nothing, or does not say in words what is wrong."


RULES = (
    setup_faults,
    length_faults,
    alt_faults,
    reading_faults,
    figure_faults,
    storage_faults,
    path_faults,
    plain_text_faults,
    exercise_faults,
)
