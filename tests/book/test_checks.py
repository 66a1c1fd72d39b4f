"""What a check of an exercise says of answers of every kind; it never raises."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from utils.book.exercises import BROKEN, RECEIVED, RIGHT, UNANSWERED, WRONG, exercise


@exercise("1.1", points=1)
def one_number(answer: float):
    assert answer != 2, "Two is their sum."
    assert answer == 3, "Three."


@exercise("1.2", points=3)
def whole(answer: int):
    assert answer == 3, "Three."


@exercise("1.3", points=2)
def numbers(answer: Tensor):
    assert answer.shape == (2,), "Two numbers."
    assert torch.allclose(answer, torch.tensor([1.0, 2.0]).to(answer)), "One and two."


@exercise("1.4", points=2)
def function(double: Callable[..., Tensor]):
    assert double(torch.ones(2)).tolist() == [2, 2], "Twice as much."


@exercise("1.5", points=2)
def pair(both: Callable[..., tuple[float, Tensor]]):
    number, rest = both(1)
    assert (number, rest.tolist()) == (1, [1, 2]), "The number and the rest."


@exercise("1.6", points=1)
def words(answer: str, other: list):
    assert (answer, other) == ("yes", ["a"]), "No."


@pytest.mark.parametrize(
    "answer",
    [3, 3.0, np.float64(3), np.array([3]), torch.tensor(3), torch.tensor([[3.0]]), [3], True + 2],
)
def test_whatever_is_one_number_is_taken_for_it(answer):
    assert one_number.verdict(answer).state == RIGHT
    assert whole.verdict(answer).points == 3


@pytest.mark.parametrize(
    "answer",
    [
        [1, 2],
        (1.0, 2.0),
        np.array([1, 2]),
        torch.tensor([1, 2]),
        [torch.tensor(1), torch.tensor(2)],
        torch.tensor([1.0, 2.0], dtype=torch.float64),
        torch.tensor([1.0, 2.0], requires_grad=True),
    ],
)
def test_whatever_is_numbers_is_taken_for_a_tensor(answer):
    assert numbers.verdict(answer).state == RIGHT


def test_an_untouched_stub_is_not_answered_yet():
    def stub(x):
        return ..., ...

    cases = [
        (one_number, ...),
        (one_number, None),
        (numbers, [..., 1]),
        (function, lambda x: ...),
        (pair, stub),
    ]
    for check, answer in cases:
        assert check.verdict(answer).state == UNANSWERED
    assert words.verdict("yes", ...).sentence == "Exercise 1.6: not answered yet."
    assert (
        words.verdict("yes", ("a",)).state == words.verdict("yes", np.array(["a"])).state == RIGHT
    )
    assert words.verdict("yes", pd.Series(["a"])).state == RIGHT
    assert numbers.verdict(pd.Series([1, 2])).state == RIGHT
    # An ellipsis in an index is none.
    assert function.verdict(lambda x: 2 * x[..., :]).state == RIGHT


@pytest.mark.parametrize(
    ("check", "answer", "words"),
    [
        (one_number, 2, "Exercise 1.1: not yet. Two is their sum."),
        (one_number, "three", "`answer` should be one number, and is a str of length 5."),
        (one_number, [1, 2], "should be one number, and is a list of length 2."),
        (one_number, {}, "should be one number, and is a dict of length 0."),
        (one_number, torch.ones(2, 3), "should be one number, and is of shape [2, 3]."),
        (one_number, float("nan"), "`answer` is nan"),
        (whole, 2.5, "should be a whole number, and is 2.5."),
        (numbers, "ab", "should be numbers, and is a str of length 2."),
        (numbers, [1, [2]], "should be numbers, and is a list of length 2."),
        (numbers, 3, "Two numbers."),
        (function, 3, "should be a function, and is an int."),
        (function, lambda x: None, "`double` returns nothing: end it with `return`."),
        (function, lambda x: "no", "should be numbers, and is a str of length 2."),
        (pair, lambda x: 1, "should be 2 values, and is an int."),
    ],
)
def test_an_answer_of_another_kind_is_told_what_it_is(check, answer, words):
    verdict = check.verdict(answer)
    assert verdict.state == WRONG
    assert words in verdict.sentence
    assert verdict.points == 0


def test_several_values_may_come_as_an_array():
    @exercise("1.8", points=1)
    def three(answer: tuple[float, float, float]):
        assert answer == (1, 2, 3), "One, two, three."

    for answer in ((1, 2, 3), [1, 2, 3], np.arange(1, 4), torch.arange(1, 4), pd.Series([1, 2, 3])):
        assert three.verdict(answer).state == RIGHT
    assert "should be 3 values" in three.verdict(np.arange(2)).sentence


def test_an_error_of_the_readers_function_is_named_and_not_raised(capsys):
    verdict = function.verdict(lambda x: {}["x"])
    assert verdict.state == BROKEN
    assert "KeyError: 'x'" in verdict.sentence
    function(lambda x: 1 / 0)
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_points_are_named_where_they_are_given(capsys):
    one_number(3)
    numbers([1, 2])
    out = capsys.readouterr().out
    assert out == "Exercise 1.1: right (1 point).\nExercise 1.3: right (2 points).\n"


def test_a_check_that_is_not_graded_only_asks_for_an_answer_of_the_right_kind():
    @exercise("1.7", points=2, graded=False)
    def received(answer: float):
        """Nothing that tells what is right."""

    assert received.verdict(3).state == RECEIVED
    assert received.verdict(3).points == 0
    assert received.verdict("three").state == WRONG
    assert received.verdict(...).state == UNANSWERED


def test_a_check_that_is_not_graded_knows_a_stub_of_a_function_without_calling_it():
    @exercise("1.8", points=2, graded=False)
    def received(answer: Callable[..., float]):
        """Takes any function."""

    def stub(a, b):
        """Adds."""
        return ...

    def two(a):
        return ..., ...  # both of them

    for untouched in (stub, two, lambda a: ...):
        assert received.verdict(untouched).state == UNANSWERED
    for answer in (lambda a: a[..., 0], lambda a: 5, lambda a: (a, ...), len, np.add):
        assert received.verdict(answer).state == RECEIVED
