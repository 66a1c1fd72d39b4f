"""The checks of the exercises: they accept what is right, and say what is wrong with other answers.

A check's wrong answers stand in its metadata, as `wrong`: plausible misconceptions, not blanks. So
do, as `right`, answers that are written otherwise than the solution.
"""

import ast
import gc
import re
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import pytest
import torch

from utils.book.exercises import RIGHT, UNANSWERED, WRONG, Verdict
from utils.book.grading import exercises, judge, parsed, prepared, worth

CHAPTERS = Path(__file__).resolve().parents[1] / "chapters"
FEWEST_WRONG, FEWEST_RIGHT = 5, 2
held = {}  # of the one chapter that is being tried: what `known` gives


def known(chapter: str) -> tuple[dict, bool]:
    """What those cells leave behind: names, and whether gradients are kept."""
    if chapter not in held:
        held.clear()
        gc.collect()  # networks and pictures of the chapter before, which refer to themselves
        notebook = nbformat.read(CHAPTERS / f"{chapter}.ipynb", as_version=4)
        held[chapter] = prepared(notebook), torch.is_grad_enabled()
        plt.close("all")
    return held[chapter]


@pytest.fixture(autouse=True)
def as_it_was():
    learning = torch.is_grad_enabled()
    yield
    torch.set_grad_enabled(learning)
    plt.close("all")


def every_exercise():
    for path in sorted(CHAPTERS.glob("*.ipynb")):
        for each in exercises(nbformat.read(path, as_version=4)):
            yield pytest.param(path.stem, each, id=f"{path.stem}-{each.number}")


@pytest.mark.slow
@pytest.mark.parametrize(("chapter", "exercise"), list(every_exercise()))
def test_a_check_accepts_what_is_right_and_says_what_is_wrong_with_others(chapter, exercise):
    space, learning = known(chapter)
    torch.set_grad_enabled(learning)

    def verdict(*answers: str) -> Verdict:
        return judge(exercise, answers, space, {})

    assert verdict().state == UNANSWERED
    statements = parsed(exercise.solution).body[:-1]  # but for the call of the check
    solution = ast.unparse(ast.Module(statements, []))
    said = verdict(solution)
    assert (said.state, said.points) == (RIGHT, worth(exercise.text)), said.sentence
    written = exercise.check.metadata
    right, wrong = (list(dict.fromkeys(written.get(key, []))) for key in ("right", "wrong"))
    for answer in right:
        assert verdict(answer).state == RIGHT, answer
    for answer in wrong:
        said = verdict(solution, answer)
        assert said.state == WRONG, f"{answer}: {said.sentence}"
        assert re.search(r"not yet\. \S+.* \w+ \w+", said.sentence, re.DOTALL)
    for name, values in exercise.stub.metadata.get("variants", {}).items():
        for value in values:
            said = judge(exercise, [solution], space, {name: value})
            assert said.state == RIGHT, f"{name} = {value}: {said.sentence}"
    assert len(right) >= FEWEST_RIGHT
    assert len(wrong) >= FEWEST_WRONG


class Frozen(ast.NodeTransformer):
    """Code in which a name has become the number that it stood for."""

    def __init__(self, name: str, value: ast.expr):
        self.name, self.value, self.met = name, value, False

    def visit_Name(self, node):
        if node.id != self.name or not isinstance(node.ctx, ast.Load):
            return node
        self.met = True
        return self.value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chapter", "exercise"),
    [case for case in every_exercise() if case.values[1].stub.metadata.get("variants")],
)
def test_an_answer_for_one_value_is_wrong_for_another(chapter, exercise):
    space, learning = known(chapter)
    torch.set_grad_enabled(learning)
    for name, values in exercise.stub.metadata["variants"].items():
        (book,) = re.findall(rf"(?m)^{name} = ([^#\n]+)", exercise.stub.source)
        for copied in (ast.literal_eval(book), *values):
            frozen = Frozen(name, ast.parse(repr(copied)).body[0].value)
            nodes = [frozen.visit(each) for each in parsed(exercise.solution).body[:-1]]
            if not frozen.met:  # it looks at what the value has made
                break
            code = ast.unparse(ast.Module(nodes, []))
            for value in values:
                if value != copied:
                    said = judge(exercise, [code], space, {name: value})
                    assert said.state == WRONG, f"{copied} for {value}: {said.sentence}"
