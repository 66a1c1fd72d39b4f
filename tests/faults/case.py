"""What a case is, and the verdict on how it was answered."""

import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from experiments.__main__ import main

REFUSALS = (ValueError, TypeError, LookupError, OSError, RuntimeError)  # with a sentence of ours
RAW = (KeyError, IndexError, UnicodeError)  # of Python's own, whatever they say
VERDICTS = ("right", "one sentence", "unclear", "traceback", "silent", "lost")
GOOD = VERDICTS[:2]
LONGEST = 600  # characters of a sentence that a person reads


class Case(NamedTuple):
    """One fault and what it must be answered with.

    Attributes:
        name: What is wrong with what.
        act: What the user does, in an empty folder of its own; it returns what the user gets.
        right: The value that must come out, computed independently: a number, an array, a tensor,
            text, or any structure of these; None where the input must be refused. A function is
            called, with the folder, after `act`.
        says: Words that the refusal, or the warning where there is a right value, must hold: what
            was wrong, with what, what to do.
        kept: Whether what was there before is still there and whole, asked of the folder after
            `act`; None where nothing can be lost.
        tolerance: Absolute, of numbers.
        slow: More than about two seconds.
    """

    name: str
    act: Callable[[Path], object]
    right: object = None
    says: tuple[str, ...] = ()
    kept: Callable[[Path], bool] | None = None
    tolerance: float = 1e-5
    slow: bool = False


class CommandRefused(ValueError):
    """A command ended with another status than 0; what it said last on stderr."""


def command(*arguments: object) -> str:
    """Run `python -m experiments` with these arguments in this process; what it printed.

    Raises CommandRefused, with the last line on stderr, where the status is not 0.
    """
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse's way to refuse
            status = stop.code
    if status:
        raise CommandRefused(err.getvalue().strip().splitlines()[-1])
    return out.getvalue()


def judge(case: Case, folder: Path) -> tuple[str, str]:
    """Let the case happen; one of VERDICTS and, for a bad one, why."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        try:
            answer = case.act(folder)
        except Exception as error:
            verdict, why = _of_error(case, error)
        else:
            verdict, why = _of_answer(case, answer, folder, [str(w.message) for w in heard])
    if case.kept is not None and not case.kept(folder):
        return "lost", f"what was there is gone or changed ({verdict}: {why})"
    return verdict, why


def _of_error(case: Case, error: Exception) -> tuple[str, str]:
    said = str(error)
    if isinstance(error, RAW) or not isinstance(error, REFUSALS):
        return "traceback", f"{type(error).__name__}: {said}"
    if case.right is not None:
        return "unclear", f"refused, though there is an answer: {said}"
    return ("one sentence", "") if is_a_sentence(said, case.says) else ("unclear", said)


def _of_answer(case: Case, answer, folder: Path, heard: list[str]) -> tuple[str, str]:
    if case.right is None:
        return "silent", f"answered with {answer!r:.200} where it should refuse"
    right = case.right(folder) if callable(case.right) else case.right
    if not same(answer, right, case.tolerance):
        return "silent", f"answered with {answer!r:.200}, but {right!r:.200} is right"
    if case.says and not any(is_a_sentence(sentence, case.says) for sentence in heard):
        return "silent", f"right, but no warning with {case.says}: {heard}"
    return "right", ""


def is_a_sentence(said: str, words: tuple[str, ...]) -> bool:
    """Whether a message is one that a person can read, and holds these words."""
    readable = "\n" not in said and said.endswith(".") and len(said) <= LONGEST
    return readable and " " in said and all(word in said for word in words)


def same(one, other, tolerance: float) -> bool:
    """Whether two structures hold the same, numbers within the tolerance, nan equal to nan."""
    if isinstance(one, dict) and isinstance(other, dict):
        return list(one) == list(other) and same(
            list(one.values()), list(other.values()), tolerance
        )
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(same(a, b, tolerance) for a, b in pairs)
    numeric = torch.Tensor | np.ndarray | float | int | np.number
    if isinstance(one, numeric) and isinstance(other, numeric):
        one, other = (
            np.asarray(x.detach().cpu() if isinstance(x, torch.Tensor) else x) for x in (one, other)
        )
        close = {"rtol": tolerance, "atol": tolerance, "equal_nan": True}
        return one.shape == other.shape and bool(np.allclose(one, other, **close))
    return type(one) is type(other) and one == other
