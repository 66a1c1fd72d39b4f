import lint
import nbformat
import pytest

from utils.book.runtime import SETUP_CELL

ALT = "A line that rises from the lower left to the upper right corner."


def code(source, *tags, **metadata):
    metadata |= {"tags": list(tags)} if tags else {}
    return nbformat.v4.new_code_cell(source, metadata=metadata)


def text(source, *tags, **metadata):
    return nbformat.v4.new_markdown_cell(source, metadata={"tags": list(tags)} | metadata)


def exercise(**changes):
    cells = {
        "text": text("### Exercise", "exercise", points=1, minutes=5),
        "stub": code("answer = ...", "exercise-stub"),
        "hint": text("<details><summary>Hint</summary>\n\nx\n\n</details>", "hint"),
        "solution": code("answer = 1", "solution", "hide-cell"),
        "check": code("assert answer == 1", "hidden-test"),
    }
    return [cell for cell in (cells | changes).values() if cell is not None]


def chapter(*cells, exercises=3):
    cells = [code(SETUP_CELL), *cells, *(cell for _ in range(exercises) for cell in exercise())]
    return nbformat.v4.new_notebook(cells=list(cells))


def drawing(alt):
    return code("fig, ax = plt.subplots()", mystnb={"image": {"alt": alt}})


def stored(*tags):
    cell = code("print(1)", *tags)
    cell.outputs, cell.execution_count = [nbformat.v4.new_output("stream", text="1")], 1
    return cell


def without_setup():
    notebook = chapter()
    del notebook.cells[0]
    return notebook


GOOD = chapter(
    text("Sparse {cite:p}`hu2023comparative`."),
    drawing(ALT),
    stored("nbval-check-output"),
    code("\n".join(["x = 1", "", "# why"] * 15)),
    code("def panel(i):\n    return plt.subplots()"),
)


@pytest.mark.parametrize("rule", lint.RULES, ids=lambda rule: rule.__name__)
def test_a_good_chapter_has_no(rule):
    assert rule(GOOD) == []


@pytest.mark.parametrize(
    ("rule", "notebook", "says"),
    [
        (lint.setup_faults, without_setup(), "not the set-up cell"),
        (lint.length_faults, chapter(code("\n".join(["x = 1"] * 16))), "16 lines"),
        (lint.alt_faults, chapter(code("plt.plot(x)")), "needs an alt text"),
        (lint.alt_faults, chapter(drawing("A line.")), "needs an alt text"),
        (
            lint.alt_faults,
            chapter(code("def f():\n    return plt.subplots()"), code("f();")),
            "needs an alt text",
        ),
        (
            lint.alt_faults,
            chapter(code("x", mystnb={"image": {"alt": ALT}, "figure": {"caption": ALT}})),
            "are the same",
        ),
        (lint.storage_faults, chapter(stored()), "has a stored output"),
        (lint.storage_faults, chapter(code("1", "nbval-check-output")), "with no output"),
        (lint.path_faults, chapter(code('open("/home/me/x")')), "/home/"),
        (lint.path_faults, chapter(code(r'open("C:\\data")')), "C:"),
        (lint.plain_text_faults, chapter(text("See {ref}`here`.")), "Role {ref}"),
        (lint.plain_text_faults, chapter(text("```{note}\nx\n```")), "A directive"),
        (lint.exercise_faults, chapter(exercises=2), "2 exercises"),
        (lint.exercise_faults, chapter(*exercise(hint=None)), "not followed by"),
        (lint.exercise_faults, chapter(*exercise(text=text("E", "exercise", points=1))), "minutes"),
        (lint.exercise_faults, chapter(*exercise(hint=text("x", "hint"))), "not hidden"),
        (lint.exercise_faults, chapter(*exercise(solution=code("x", "solution"))), "hide-cell"),
        (lint.exercise_faults, chapter(*exercise(check=code("x", "hidden-test"))), "nothing"),
    ],
)
def test_a_faulty_chapter_is_told_so(rule, notebook, says):
    faults = rule(notebook)
    assert len(faults) == 1
    assert says in faults[0]


def test_several_keys_in_one_citation_are_all_seen():
    assert lint.cited("{cite:p}`a2020x, b2021y` and {cite}`c1999z`") == {
        "a2020x",
        "b2021y",
        "c1999z",
    }
