"""Submissions of every kind are judged, and cost nobody but themselves anything."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
import torch

from utils.book import grading
from utils.book.exercises import BROKEN, RIGHT, UNANSWERED, WRONG

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="grading forks processes")

CHECK = """# @title Check 7.1
@exercise("7.1", points=2)
def check_7_1(answer: float):
    assert answer != 5, "Five is their sum: multiply."
    assert answer == twice(n), "Twice n."

check_7_1(answer)
"""
CELLS = (
    ("code", "setup()", []),
    ("code", "from utils.book.exercises import exercise\nunused = 1 / 0 if False else 1", []),
    ("code", "def twice(x):\n    return 2 * x", []),
    ("code", "raise ValueError('this cell defines nothing that an exercise needs')", []),
    ("markdown", "### Exercise 7.1: Double\n\n*2 points*\n\nWhat is twice `n`?", ["exercise"]),
    ("code", "n = 3\nanswer = ...", ["exercise-stub"]),
    ("code", CHECK, ["check"]),
    ("markdown", "*Your answer:*", ["answer"]),
    ("markdown", "<details>…</details>", ["hint"]),
    ("code", "answer = 2 * n\ncheck_7_1(answer)", ["solution"]),
)


def notebook(**changed):
    """A chapter of one exercise; `stub=` is what stands in the place of its stub."""
    cells = []
    for kind, source, tags in CELLS:
        make = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
        source = changed.get("stub", source) if tags == ["exercise-stub"] else source
        source = changed.get("check", source) if tags == ["check"] else source
        cells.append(make(source, metadata={"tags": tags, "points": 2}))
    return nbformat.v4.new_notebook(cells=cells)


def verdict(stub, **options):
    return grading.grade(notebook(), notebook(stub=stub), **options)["7.1"]


@pytest.mark.parametrize(
    ("stub", "state", "words"),
    [
        ("n = 3\nanswer = 6", RIGHT, "right (2 points)"),
        ("n = 3\nanswer = 5", WRONG, "Five is their sum"),
        ("n = 3\nanswer = ...", UNANSWERED, "not answered yet"),
        ("", UNANSWERED, "not answered yet"),
        ("answer = 6", RIGHT, "right"),
        ("%matplotlib inline\nanswer = 6", RIGHT, "right"),
        ("answer = 1 / 0", BROKEN, "ZeroDivisionError"),
        ("answer = (", BROKEN, "SyntaxError"),
        ("import not_there", BROKEN, "No module named 'not_there'"),
        ("import sys\nsys.exit(0)", BROKEN, "SystemExit"),
        ("raise KeyboardInterrupt", BROKEN, "ended before it was judged"),
        ("import os\nos._exit(0)", BROKEN, "ended before it was judged"),
        ("print('x' * 10_000_000)\nanswer = 6", RIGHT, "right"),
        ("twice = lambda x: 5\nanswer = 5", WRONG, "Five is their sum"),
        ("import os\nos.system('true')", BROKEN, "PermissionError"),
        ("import subprocess\nsubprocess.run(['true'])", BROKEN, "PermissionError"),
        ("import socket\nsocket.socket()", BROKEN, "PermissionError"),
        ("open('own.txt', 'w').write('x')\nanswer = 6", RIGHT, "right"),
    ],
)
def test_an_answer_is_judged_and_what_is_none_costs_its_own_points(stub, state, words):
    found = verdict(stub)
    assert found.state == state, found.sentence
    assert words in found.sentence
    assert (found.points, found.of) == (2 if state == RIGHT else 0, 2)


def test_an_endless_answer_is_ended_and_the_next_submission_judged():
    submissions = [notebook(stub=stub) for stub in ("while True: pass", "answer = 6")]
    first, second = grading.grade_all(notebook(), submissions, seconds=1)
    assert first["7.1"].state == BROKEN
    assert "took longer than is allowed (1 s" in first["7.1"].sentence
    assert second["7.1"].state == RIGHT


@pytest.mark.parametrize(
    "harm",
    [
        "import os\nos.remove({0!r})",
        "open({0!r}, 'w')",
        "import shutil\nshutil.rmtree({1!r})",
        "from pathlib import Path\nPath({0!r}).write_text('')",
        "import os\nos.truncate({0!r}, 0)",
        "import os\nos.rename({0!r}, 'x')",
    ],
)
def test_files_elsewhere_are_safe(harm, tmp_path):
    kept = tmp_path / "mine" / "kept.txt"
    kept.parent.mkdir()
    kept.write_text("kept", encoding="utf-8")
    before, place = sys.stdout, Path.cwd()
    found = verdict(harm.format(str(kept), str(kept.parent)) + "\nanswer = 6")
    assert found.state == BROKEN
    assert "PermissionError" in found.sentence
    assert kept.read_text(encoding="utf-8") == "kept"
    assert (sys.stdout, Path.cwd()) == (before, place)


def test_a_check_that_was_edited_is_not_the_one_that_judges():
    easy = CHECK.replace("answer == twice(n)", "True")
    handed_in = notebook(stub="answer = 7", check=easy)
    assert grading.grade(notebook(), handed_in)["7.1"].state == WRONG


@pytest.mark.parametrize(
    "trick",
    [
        "from utils.book.exercises import Check, Verdict\n"
        "Check.verdict = lambda *a: Verdict('right', 2, 2, '')",
        "import utils.book.exercises as e\ne._fit = lambda *a: 6",
        "import torch\ntorch.allclose = lambda *a, **k: True",
        "import torch\ntorch.Tensor.__eq__ = lambda *a: True",
        "import builtins\nbuiltins.abs = lambda x: 0",
        "from utils.book.exercises import Check, Verdict\n"
        "def easy(*a):\n    return ('right', 2, 2, '')\n"
        "Check.verdict.__code__ = easy.__code__",
    ],
)
def test_who_tampers_with_what_judges_scores_nothing_and_spoils_no_other_exercise(trick):
    chapter = notebook()
    cells = [cell.copy() for cell in notebook().cells[4:]]
    for cell in cells:
        cell.source = cell.source.replace("7.1", "7.2").replace("7_1", "7_2")
        cell.id = f"{cell.id}-2"
    chapter.cells += cells
    handed_in = nbformat.from_dict(chapter)
    stubs = [cell for cell in handed_in.cells if cell.metadata["tags"] == ["exercise-stub"]]
    chapter = nbformat.from_dict(chapter)
    stubs[0].source, stubs[1].source = trick + "\nanswer = 7", "answer = 6"
    found = grading.grade(chapter, handed_in)
    assert (found["7.1"].state, found["7.1"].points) in [(BROKEN, 0), (WRONG, 0)]
    assert (found["7.2"].state, found["7.2"].points) == (RIGHT, 2)


def test_a_verdict_that_an_answer_writes_itself_is_none(monkeypatch):
    ends = os.pipe()
    monkeypatch.setattr(os, "pipe", lambda: ends)
    said = "import json, os\nsaid = json.dumps(['right', 2, 2, '']).encode()"
    found = verdict(f"{said}\nos.write({ends[1]}, said)\nos._exit(0)")
    assert (found.state, found.points) == (BROKEN, 0)


def test_values_given_to_a_student_are_those_that_count():
    given = {"7.1": {"n": 10}}
    for stub, state in (("n = 10\nanswer = 2 * n", RIGHT), ("n = 3\nanswer = 2 * n", WRONG)):
        assert verdict(stub, given=given).state == state
    assert verdict("n = 3", given=given).state == UNANSWERED


def test_what_a_stub_makes_of_a_given_value_is_made_of_it():
    chapter = notebook(stub="n = 3\nmany = 2 * n\nanswer = ...")
    (each,) = grading.exercises(chapter)
    found = grading.judge(each, ["answer = many"], grading.prepared(chapter), {"n": 10})
    assert found.state == RIGHT


def test_a_submission_without_the_exercise_has_not_answered_it():
    empty = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("Nothing.")])
    assert grading.grade(notebook(), empty)["7.1"].state == UNANSWERED


def test_helpers_in_cells_of_their_own_and_words_are_part_of_an_answer():
    handed_in = notebook(stub="answer = helper(3)")
    handed_in.cells.insert(5, nbformat.v4.new_code_cell("def helper(x):\n    return x + x"))
    assert grading.grade(notebook(), handed_in)["7.1"].state == RIGHT
    code, words = grading.answers(handed_in)["7.1"]
    assert len(code) == 2
    assert words == "*Your answer:*"


def test_a_chapter_that_switches_gradients_off_does_so_for_its_exercises_alone():
    chapter = notebook()
    off = nbformat.v4.new_code_cell("import torch\ntorch.set_grad_enabled(False)\nn = 3")
    chapter.cells.insert(1, off)
    kept = "answer = 6 if not torch.is_grad_enabled() else 5"
    assert grading.grade(chapter, notebook(stub=f"import torch\n{kept}"))["7.1"].state == RIGHT
    assert torch.is_grad_enabled()


def test_only_what_exercises_need_of_a_chapter_is_run():
    assert grading.needed(notebook()) == [CELLS[1][1], CELLS[2][1]]
