"""Checks of exercises: they see the reader's answer, and say what is right or which idea is wrong.

A check is a function of the answers::

    @exercise("3.1", points=2)
    def check_3_1(answer: float):
        assert abs(answer - 1) > 1e-5, "That is each head by itself: average first."
        ...

    check_3_1(answer)

The parameters' annotations say what an answer may be: `float` takes whatever is one number,
`Tensor` whatever is numbers, `Callable` a function, whose result is taken in the same way if it is
annotated, as in `Callable[..., Tensor]`.
"""

import inspect
from collections.abc import Callable
from functools import update_wrapper
from typing import Any, NamedTuple, get_args, get_origin

import numpy as np
import pandas as pd
import torch
from torch import Tensor

RIGHT, WRONG, UNANSWERED, BROKEN = "right", "wrong", "not answered yet", "broken"
RECEIVED = "received"  # where only who grades knows what is right


class Verdict(NamedTuple):
    """What a check says of an answer.

    Attributes:
        state: One of RIGHT, WRONG, UNANSWERED, BROKEN, RECEIVED.
        points: Given, of `of`.
        of: What the exercise is worth.
        sentence: For the reader.
    """

    state: str
    points: int
    of: int
    sentence: str


class NotAnswered(Exception):
    """The answer, or what the reader's function returns, is still `...`."""


class Unfit(Exception):
    """The answer is not of the kind that the exercise asks for; the message says what it is."""


class Check:
    """A check of one exercise, made by `exercise`: call it with the answers.

    Args:
        number: Of the exercise, such as "3.1".
        points: What it is worth.
        asserts: A function of the answers whose asserts say, in words, which idea is wrong.
        graded: Whether it knows what is right; else it asks for an answer of the right kind only.
    """

    def __init__(
        self, number: str, points: int, asserts: Callable[..., None], graded: bool = True
    ) -> None:
        self.number, self.points, self.asserts, self.graded = number, points, asserts, graded
        self._kinds = {
            name: parameter.annotation
            for name, parameter in inspect.signature(asserts).parameters.items()
        }
        update_wrapper(self, asserts)

    def __call__(self, *answers: Any) -> None:
        """Say what is right, wrong or not answered yet; never raises."""
        print(self.verdict(*answers).sentence)

    def verdict(self, *answers: Any) -> Verdict:
        """What is to be said of the answers.

        Args:
            answers: As many as the check has parameters.

        Returns:
            The verdict; whatever the reader's functions raise is part of it.
        """
        try:
            named = zip(self._kinds.items(), answers, strict=True)
            self.asserts(*(_fit(answer, kind, f"`{name}`") for (name, kind), answer in named))
        except NotAnswered:
            return self._verdict(UNANSWERED, "not answered yet.")
        except Unfit as problem:
            return self._verdict(WRONG, f"not yet. {problem}")
        except AssertionError as problem:
            return self._verdict(WRONG, f"not yet. {problem or 'See the hint.'}")
        except Exception as problem:  # of the reader's function, or of what it returns
            said = (
                f"{type(problem).__name__}: {problem}" if str(problem) else type(problem).__name__
            )
            return self._verdict(BROKEN, f"not yet. With your answer the check stops at “{said}”.")
        if not self.graded:
            return self._verdict(RECEIVED, "answered; it is judged when you hand it in.")
        plural = "s" * (self.points != 1)
        return self._verdict(RIGHT, f"right ({self.points} point{plural}).", self.points)

    def _verdict(self, state: str, words: str, points: int = 0) -> Verdict:
        return Verdict(state, points, self.points, f"Exercise {self.number}: {words}")


def exercise(
    number: str, points: int, graded: bool = True
) -> Callable[[Callable[..., None]], Check]:
    """Make a check of a function whose asserts say which idea is wrong.

    Args:
        number: Of the exercise, such as "3.1".
        points: What it is worth.
        graded: Whether the function knows what is right; without, only the kind is looked at.

    Returns:
        The decorator.

    Example:
        >>> from utils.book.exercises import exercise
        >>> @exercise("0.1", points=2)
        ... def check_0_1(answer: float):
        ...     assert answer != 5, "Five is their sum: multiply."
        ...     assert answer == 6, "Two threes."
        >>> check_0_1(...)
        Exercise 0.1: not answered yet.
        >>> check_0_1(5)
        Exercise 0.1: not yet. Five is their sum: multiply.
        >>> check_0_1([6.0])
        Exercise 0.1: right (2 points).
    """
    return lambda asserts: Check(number, points, asserts, graded)


def _stub():
    return ...


def _open(value: Any) -> bool:
    """Whether a value, a part of it, or all that a function returns, is still `...`."""
    if isinstance(value, dict):
        value = list(value.values())
    if code := getattr(value, "__code__", None):  # a stub's returns a constant, which is `...`
        return code.co_code == _stub.__code__.co_code and _open(code.co_consts)
    return value is ... or (isinstance(value, list | tuple | set) and any(map(_open, value)))


def _fit(answer: Any, kind: Any, name: str = "What your function returns") -> Any:
    """The answer as the annotated kind; NotAnswered, or Unfit with what it is instead."""
    if answer is None or _open(answer):
        raise NotAnswered
    if kind in (float, int):
        return _number(answer, kind, name)
    if kind is Tensor:
        return _numbers(answer, name)
    if Callable in (kind, get_origin(kind)):
        return _function(answer, kind, name)
    if isinstance(answer, pd.Series | pd.DataFrame):
        answer = answer.to_numpy()
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        if isinstance(answer, Tensor | np.ndarray) and answer.ndim:
            answer = list(answer)
        if not isinstance(answer, list | tuple) or len(answer) != len(parts):
            raise Unfit(f"{name} should be {len(parts)} values, and is {_called(answer)}.")
        return tuple(_fit(*each, name) for each in zip(answer, parts, strict=True))
    if isinstance(answer, Tensor | np.ndarray | np.generic) and kind in (list, set, bool):
        answer = answer.tolist()
    if isinstance(answer, list | tuple | set) and kind in (list, set):
        return kind(answer)
    named = isinstance(kind, type) and kind is not inspect.Parameter.empty
    if named and not isinstance(answer, kind):
        raise Unfit(f"{name} should be {_a(kind.__name__)}, and is {_called(answer)}.")
    return answer


def _number(answer: Any, kind: type, name: str) -> float | int:
    try:
        array = np.asarray(answer.detach().cpu() if isinstance(answer, Tensor) else answer, float)
        (number,) = array.ravel().tolist()
    except (TypeError, ValueError):
        raise Unfit(f"{name} should be one number, and is {_called(answer)}.") from None
    if not np.isfinite(number):
        raise Unfit(f"{name} is {number}, which is no number to go on with.")
    if kind is int and number != int(number):
        raise Unfit(f"{name} should be a whole number, and is {number:g}.")
    return kind(number)


def _numbers(answer: Any, name: str) -> Tensor:
    try:
        if isinstance(answer, list | tuple) and any(isinstance(x, Tensor) for x in answer):
            answer = torch.stack([torch.as_tensor(x) for x in answer])
        found = answer if isinstance(answer, Tensor) else torch.as_tensor(np.array(answer))
        return found.detach().cpu() if found.is_floating_point() else found.detach().cpu().float()
    except (TypeError, ValueError, RuntimeError):
        raise Unfit(f"{name} should be numbers, and is {_called(answer)}.") from None


def _function(answer: Any, kind: Any, name: str) -> Callable:
    if not callable(answer):
        raise Unfit(f"{name} should be a function, and is {_called(answer)}.")
    result = (*get_args(kind), inspect.Parameter.empty)[1 if get_args(kind) else 0]

    def guarded(*arguments: Any, **options: Any) -> Any:
        found = answer(*arguments, **options)
        if found is None:
            raise Unfit(f"{name} returns nothing: end it with `return`.")
        return _fit(found, result)

    return guarded


def _called(answer: Any) -> str:
    """What something is, in a few words."""
    if isinstance(answer, Tensor | np.ndarray):
        return f"of shape {list(answer.shape)}"
    if isinstance(answer, list | tuple | set | dict | str):
        return f"{_a(type(answer).__name__)} of length {len(answer)}"
    return "a function" if callable(answer) else _a(type(answer).__name__)


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
