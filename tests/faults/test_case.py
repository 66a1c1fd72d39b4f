"""The judge of the catalogue itself: each verdict is given where it is due."""

import warnings

import numpy as np
import pytest
import torch

from faults.case import Case, judge

SENTENCE = "The folder x is empty: put images into it."


def _raise(error):
    raise error


def _warned(value):
    warnings.warn(SENTENCE, stacklevel=2)
    return value


@pytest.mark.parametrize(
    ("case", "verdict"),
    [
        (Case("the value", lambda folder: torch.tensor([1.0]), np.array([1.0])), "right"),
        (Case("another value", lambda folder: 1.1, 1.0), "silent"),
        (Case("another shape", lambda folder: [1.0, 1.0], [1.0]), "silent"),
        (Case("answered", lambda folder: 1.0), "silent"),
        (Case("warned", lambda folder: _warned(1), 1, ("empty",)), "right"),
        (Case("not warned", lambda folder: 1, 1, ("empty",)), "silent"),
        (Case("refused", lambda folder: _raise(ValueError(SENTENCE)), says=("x",)), "one sentence"),
        (
            Case("other words", lambda folder: _raise(ValueError(SENTENCE)), says=("z",)),
            "unclear",
        ),
        (Case("no sentence", lambda folder: _raise(ValueError("bad input"))), "unclear"),
        (Case("needlessly", lambda folder: _raise(ValueError(SENTENCE)), right=1), "unclear"),
        (Case("raw", lambda folder: _raise(KeyError("x"))), "traceback"),
        (Case("foreign", lambda folder: _raise(AssertionError(SENTENCE))), "traceback"),
        (Case("lost", lambda folder: 1, 1, kept=lambda folder: False), "lost"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_verdict_is(case, verdict, tmp_path):
    assert judge(case, tmp_path)[0] == verdict
