import lint
import nbformat
import pytest

from utils.book.grading import worth
from utils.book.runtime import SETUP_CELL, SETUP_METADATA

ALT = "A line that rises from the lower left to the upper right corner."


def code(source, *tags, **metadata):
    metadata |= {"tags": list(tags)} if tags else {}
    return nbformat.v4.new_code_cell(source, metadata=metadata)


def text(source, *tags, **metadata):
    return nbformat.v4.new_markdown_cell(source, metadata={"tags": list(tags)} | metadata)


SOLVED = "answer = 1\ncheck_7_3(answer)"
FACTS = "*1 point · 5 minutes · difficulty 2 of 3*"


def asking(heading, facts=FACTS, **changes):
    known = {"points": 1, "minutes": 5, "difficulty": 2} | changes
    return text(f"### Exercise {heading}\n\n{facts}\n\nWhat?", "exercise", **known)


def folded(label, source, *tags):
    prompts = {"code_prompt_show": label, "code_prompt_hide": f"Hide {label.lower()}"}
    everywhere = {"cellView": "form", "jupyter": {"source_hidden": True}, "mystnb": prompts}
    return code(f"# @title {label}\n{source}", *tags, **everywhere)


def checking(asserts, place=3, points=1, call="answer"):
    name = f"check_7_{place}"
    made = f'@exercise("7.{place}", points={points})\ndef {name}(answer: float):\n    {asserts}'
    return folded(f"Check 7.{place}", f"{made}\n\n\n{name}({call})", "check", "hide-input")


def solving(source, place=3):
    label = f"Solution 7.{place}"
    return folded(label, f"{source}\ncheck_7_{place}(answer)", "solution", "hide-cell")


def untitled():
    cell = solving("answer = 1")
    cell.source = cell.source.removeprefix("# @title Solution 7.3\n")
    return cell


def exercise(place=1, **changes):
    cells = {
        "text": asking(f"7.{place}: One"),
        "stub": code("answer = ...", "exercise-stub"),
        "check": checking("assert answer == 1, 'One is one.'", place),
        "words": None,
        "hint": text("<details><summary>Hint</summary>\n\nx\n\n</details>", "hint"),
        "solution": solving("answer = 1", place),
    }
    return [cell for cell in (cells | changes).values() if cell is not None]


TITLE = "# 7 Seven\n\nAbout 5 minutes to read, one to run."


def chapter(*cells, exercises=3, title=TITLE):
    parts = [cell for place in range(1, exercises + 1) for cell in exercise(place)]
    return nbformat.v4.new_notebook(
        cells=[
            text(title),
            nbformat.v4.new_code_cell(SETUP_CELL, metadata=SETUP_METADATA),
            *cells,
            *parts,
        ],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
    )


def with_exercise(**changes):
    notebook = chapter(exercises=2)
    notebook.cells += exercise(3, **changes)
    return notebook


def shown(source, **image):
    figure = {"caption": "A line that rises.", "name": "fig-line"}
    return code(source, mystnb={"image": image, "figure": figure})


def drawing(alt):
    return shown("fig, ax = plt.subplots()", alt=alt)


def stored(*tags):
    cell = code("print(1)", *tags)
    cell.outputs, cell.execution_count = [nbformat.v4.new_output("stream", text="1")], 1
    return cell


def stored_image():
    cell = stored("nbval-check-output")
    cell.outputs = [nbformat.v4.new_output("display_data", data={"image/png": "AAAA"})]
    return cell


def changed(change):
    notebook = chapter()
    change(notebook)
    return notebook


GOOD = chapter(
    text("Sparse {cite:p}`hu2023comparative`."),
    drawing(ALT),
    stored("nbval-check-output"),
    code("\n".join(["x = 1", "", "# why"] * 15)),
    code("def panel(i):\n    return plt.subplots()"),
    code("widgets.choose(list(map(panel, range(3))), steps, captions, alts=alts)"),
    code("# @title Checks of the text\nassert x", "hide-cell"),
    code("plotting.use_style()\n%matplotlib inline"),
    text(f"![{ALT[::-1]}](line.png) and a [link](https://example.org/home/page)"),
)


@pytest.mark.parametrize("rule", lint.RULES, ids=lambda rule: rule.__name__)
def test_a_good_chapter_has_no(rule):
    assert rule(GOOD) == []


@pytest.mark.parametrize(
    ("rule", "notebook", "says"),
    [
        (lint.setup_faults, changed(lambda n: n.cells.pop(1)), "not the set-up cell"),
        (lint.setup_faults, changed(lambda n: n.cells[1].metadata.clear()), "not folded as"),
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
        (lint.alt_faults, chapter(code("table.plot()")), "needs an alt text"),
        (
            lint.alt_faults,
            chapter(code("from utils.book.plotting import heatmap as h"), code("h([[1]]);")),
            "needs an alt text",
        ),
        (lint.alt_faults, chapter(code("# widgets.\nsns.lineplot(x)")), "needs an alt text"),
        (lint.alt_faults, chapter(drawing(" " * 50)), "needs an alt text"),
        (lint.alt_faults, chapter(code("widgets.choose(pictures)")), "no alts="),
        (lint.alt_faults, chapter(code("widgets.live(draw, k=[1])")), "needs an alt text"),
        (lint.reading_faults, chapter(*[code("x = 1\n" * 15)] * 11), "168 lines of open code"),
        (lint.reading_faults, chapter(code(f"x = {'1' * 81}")), "A line of 85 characters"),
        (lint.reading_faults, chapter(title="# 7 Seven"), "minutes to read"),
        (lint.reading_faults, chapter(code("assert x")), "An assert in the open cell"),
        (lint.reading_faults, chapter(code("assert x", "hide-cell")), "no '# @title'"),
        (lint.reading_faults, chapter(text("## What $n$ does")), "A formula in the heading"),
        (lint.figure_faults, chapter(code("plt.plot(x);")), "needs a caption and a name"),
        (lint.figure_faults, chapter(shown("plt.plot(x)")), "leaves text too"),
        (lint.figure_faults, chapter(shown("ax.imshow(x);")), "pictures or chart"),
        (lint.alt_faults, chapter(code("import ipywidgets as w\nw.Play()")), "calls ipywidgets"),
        (lint.alt_faults, chapter(text("![A line](line.png)")), "An image"),
        (lint.alt_faults, chapter(text('<img src="line.png">')), "An image"),
        (lint.storage_faults, changed(lambda n: n.metadata.update(widgets={})), "Widget states"),
        (lint.storage_faults, changed(lambda n: n.metadata.clear()), "not python3"),
        (lint.storage_faults, chapter(stored_image()), "with an image"),
        (lint.storage_faults, chapter(stored()), "has a stored output"),
        (lint.storage_faults, chapter(code("1", "nbval-check-output")), "with no output"),
        (lint.path_faults, chapter(code('open("/home/me/x")')), "/home/"),
        (lint.path_faults, chapter(code(r'open("C:\\data")')), "C:"),
        (lint.plain_text_faults, chapter(text("See {ref}`here`.")), "Role {ref}"),
        (lint.plain_text_faults, chapter(text("```{note}\nx\n```")), "A directive"),
        (lint.plain_text_faults, chapter(text("(here)=\n## Here")), "A label"),
        (lint.exercise_faults, chapter(exercises=2), "2 exercises"),
        (lint.exercise_faults, with_exercise(hint=None), "not followed by"),
        (lint.exercise_faults, chapter(code("1", "solution")), "outside an exercise"),
        (
            lint.exercise_faults,
            with_exercise(text=asking("7.3: Three", FACTS.replace("5", "None"), minutes=None)),
            "minutes",
        ),
        (lint.exercise_faults, with_exercise(text=asking("7.4: Four")), "'### Exercise 7.3"),
        (lint.exercise_faults, with_exercise(text=asking("7.3: Three", "")), "difficulty 2 of 3"),
        (lint.exercise_faults, with_exercise(hint=text("x", "hint")), "not hidden"),
        (
            lint.exercise_faults,
            with_exercise(solution=folded("Solution 7.3", SOLVED, "solution")),
            "without the tag hide-cell",
        ),
        (
            lint.exercise_faults,
            with_exercise(solution=untitled()),
            "# @title Solution 7.3",
        ),
        (
            lint.exercise_faults,
            with_exercise(solution=solving("other = 1")),
            "leaves ['answer'] open, but its solution defines ['other']",
        ),
        (lint.exercise_faults, with_exercise(check=checking("print(answer)")), "asserts nothing"),
        (lint.exercise_faults, with_exercise(check=checking("assert answer == 1")), "in words"),
        (
            lint.exercise_faults,
            with_exercise(check=checking("assert answer, 'One is one.'", points=2)),
            "no check made by @exercise('7.3', points=1)",
        ),
        (
            lint.exercise_faults,
            with_exercise(words=text("*Your answer:*", "answer")),
            "a rubric or a cell for words",
        ),
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


def test_words_are_asked_for_with_a_rubric_whose_points_the_check_does_not_give():
    rubric = [{"points": 1, "for": "names the sum"}]
    asked = asking("7.3: Three", FACTS.replace("1 point", "2 points"), points=2, rubric=rubric)
    assert worth(asked) == 1
    words = text("*Your answer:*", "answer")
    assert lint.exercise_faults(with_exercise(text=asked, words=words)) == []


def test_an_appendix_needs_no_exercises():
    assert lint.exercise_faults(chapter(exercises=0, title="# Appendix")) == []


def test_what_a_stub_gives_its_solution_need_not_repeat():
    assert lint.left_open(code("given = 2\nanswer = ...")) == {"answer"}
    assert lint.left_open(code("def double(x):\n    return ...")) == {"double"}


def test_alternative_texts_are_found_on_figures_and_in_text():
    other = "Two lines that cross in the middle of a square."
    notebook = chapter(drawing(ALT), text(f'![{other}](a.png) <img src="b" alt="{ALT}">'))
    assert lint.alt_texts(notebook) == [ALT, other, ALT]
    assert lint.image_alts(f"```{{figure}} a.png\n:alt: {ALT}\n```") == [ALT]
