"""The checks of the exercises: they accept what is right, and say what is wrong with other answers.

A check's wrong answers stand in its metadata, as `wrong`: plausible misconceptions, not blanks. So
do, as `right`, answers that are written otherwise than the solution.
"""

import ast
import re
import symtable
from functools import cache
from pathlib import Path

import lint
import matplotlib.pyplot as plt
import nbformat
import pytest
import torch

from utils.book.exercises import RIGHT, UNANSWERED, WRONG, Verdict

CHAPTERS = Path(__file__).resolve().parents[1] / "chapters"
FEWEST_WRONG, FEWEST_RIGHT = 3, 0


def names(source: str) -> tuple[set[str], set[str]]:
    """The names of a chapter that code gives a value, wholly or in part, and those it needs."""
    given, needs = set(), set()
    for statement in ast.parse(source).body:
        gives, reads = set(), set()
        tables = [symtable.symtable(ast.unparse(statement), "", "exec")]
        while tables:  # the statement's own names, then what its functions take from outside
            table = tables.pop()
            tables += table.get_children()
            outside = [n for n in table.get_symbols() if n.is_global() or n.is_local()]
            if table.get_type() == "module":
                gives = {n.get_name() for n in outside if n.is_assigned() or n.is_imported()}
                reads |= {n.get_name() for n in outside if n.is_referenced()}
            else:
                reads |= {n.get_name() for n in outside if n.is_global()}
        # An assignment reads a name as it was before; a loop or a function names its own.
        needs |= reads - given - (set() if isinstance(statement, ast.Assign) else gives)
        given |= gives
        for node in ast.walk(statement):  # x[0] = …, x.y = …
            if isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store):
                given |= {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
    return given, needs


def needed(notebook) -> list[str]:
    """The code of a chapter without which its exercises cannot be solved and checked."""
    groups = lint.exercises(notebook)
    left = {cell.id for _, stub, check, *_ in groups for cell in (stub, check)}
    left.add(lint.code_cells(notebook)[0].id)  # the set-up cell, which imports utils anew
    wanted = set()
    for _, stub, check, _, solution in groups:
        wanted |= names("\n".join(cell.source for cell in (stub, solution, check)))[1]
    chosen = []
    for cell in reversed([c for c in lint.code_cells(notebook) if c.id not in left]):
        given, needs = names(cell.source)
        if given & wanted or "set_grad_enabled" in cell.source:
            wanted |= needs
            chosen.append(cell.source)
    return chosen[::-1]


@cache
def known(chapter: str) -> tuple[dict, bool]:
    """What those cells leave behind: names, and whether gradients are kept."""
    notebook = nbformat.read(CHAPTERS / f"{chapter}.ipynb", as_version=4)
    space = {"__name__": "__main__", "device": torch.device("cpu")}
    for source in needed(notebook):
        exec(compile(source, chapter, "exec"), space)
        plt.close("all")
    return space, torch.is_grad_enabled()


@pytest.fixture(autouse=True)
def as_it_was():
    learning = torch.is_grad_enabled()
    yield
    torch.set_grad_enabled(learning)
    plt.close("all")


def every_exercise():
    for path in sorted(CHAPTERS.glob("*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        for number, group in enumerate(lint.exercises(notebook), 1):
            yield pytest.param(path.stem, group, id=f"{path.stem}-{number}")


def judged(check, space: dict, *answers: str) -> tuple[Verdict, dict]:
    """What the check says after these cells were run, one after another; and what they left."""
    own = dict(space)
    *definition, call = lint.parsed(check).body
    for answer in answers:
        exec(answer, own)
    exec(compile(ast.Module(definition, []), "check", "exec"), own)
    asked = [own[argument.id] for argument in call.value.args]
    return own[call.value.func.id].verdict(*asked), own


@pytest.mark.slow
@pytest.mark.parametrize(("chapter", "group"), list(every_exercise()))
def test_a_check_accepts_what_is_right_and_says_what_is_wrong_with_other_answers(chapter, group):
    text, stub, check, _, solution = group
    space, learning = known(chapter)
    torch.set_grad_enabled(learning)
    assert judged(check, space, stub.source)[0].state == UNANSWERED
    statements = lint.parsed(solution).body[:-1]  # but for the call of the check
    solved = f"{stub.source}\n{ast.unparse(ast.Module(statements, []))}"
    verdict, _ = judged(check, space, solved)
    assert (verdict.state, verdict.points) == (RIGHT, lint.by_check(text)), verdict.sentence
    right, wrong = (list(dict.fromkeys(check.metadata.get(key, []))) for key in ("right", "wrong"))
    for answer in right:
        assert judged(check, space, stub.source, answer)[0].state == RIGHT, answer
    for answer in wrong:
        said = judged(check, space, solved, answer)[0]
        assert said.state == WRONG, f"{answer}: {said.sentence}"
        assert re.search(r"not yet\. \S+.* \w+ \w+", said.sentence, re.DOTALL)
    assert len(right) >= FEWEST_RIGHT
    assert len(wrong) >= FEWEST_WRONG
