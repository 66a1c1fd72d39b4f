"""The page of recorded results: what it says of a slope, and that it is of the tables beside it."""

import math
from types import SimpleNamespace

import pytest

from utils.book import claims
from utils.experiments.readme import LEVEL, answer, page
from utils.experiments.replicating import RESULTS


@pytest.mark.parametrize(
    ("slope", "low", "high", "words"),
    [
        (0.05, 0.01, 0.09, "rises"),
        (-0.05, -0.09, -0.01, "falls"),
        (0.001, -0.02, 0.025, "level"),
        (0.05, -0.01, 0.11, "undecided; 0.080 would have been found"),
        (0.0, -0.01, 0.031, "undecided; 0.080 would have been found"),
        (math.nan, math.nan, math.nan, "no line: too few models with a value"),
    ],
)
def test_a_slope_is_answered_by_its_interval(slope, low, high, words):
    assert answer(SimpleNamespace(slope=slope, low=low, high=high, detectable=0.08)) == words


def test_a_level_slope_is_one_that_the_claims_would_not_look_for():
    for claim in ("hu4", "hu5", "hu6"):
        assert {c.rule.delta for c in claims.BY_ID[claim].criteria} == {LEVEL}


@pytest.mark.slow
def test_the_page_is_of_the_tables_beside_it():
    assert (RESULTS / "README.md").read_text() == page(), (
        "Write it anew: python -m utils.experiments.readme"
    )
