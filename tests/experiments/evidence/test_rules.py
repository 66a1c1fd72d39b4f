"""The rules that judge claims, on claims that are made up."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from experiments.evidence import rules
from experiments.evidence.rules import (
    MIXED,
    NOT_SUPPORTED,
    NOT_TESTED,
    SUPPORTED,
    UNDECIDED,
    Above,
    Below,
    Claim,
    Counted,
    Criterion,
    Effect,
    Equivalence,
    Share,
    ShareOf,
    holm,
    verdicts,
)

NONE = math.nan
YES, OPEN, NO = (0.3, 0.2, 0.4), (0.1, -0.2, 0.4), (-0.3, -0.4, -0.2)  # of an effect above 0.1
POSITIVE = Effect(+1, 0.1)


def claim(*criteria, name="grows", **more) -> Claim:
    """A claim of these criteria, each by its name or whole."""
    made = [
        c if isinstance(c, Criterion) else Criterion(c, f"slope of {c}", POSITIVE) for c in criteria
    ]
    return Claim(name, "All grows.", (), tuple(made), rungs="O", **more)


def evidence(*rows, of="grows") -> pd.DataFrame:
    """Rows of (criterion, variant, (estimate, low, high)[, p])."""
    return pd.DataFrame(
        [(of, c, "objects", v, *numbers, *(p or [NONE])) for c, v, numbers, *p in rows],
        columns=rules.EVIDENCE,
    )


def judged(one: Claim, *rows) -> tuple[str, str]:
    (found,) = verdicts(evidence(*rows, of=one.id), [one])
    return found.verdict, found.because


# One rule and one interval.


@pytest.mark.parametrize(
    ("rule", "interval", "expected"),
    [
        (Effect(+1, 0.03), (0.05, 0.01, 0.09), SUPPORTED),
        (Effect(+1, 0.03), (0.02, 0.01, 0.04), UNDECIDED),  # too small, yet not shown to be
        (Effect(+1, 0.03), (0.02, 0.01, 0.025), NOT_SUPPORTED),  # inside ±Δ
        (Effect(+1, 0.03), (0.05, -0.01, 0.11), UNDECIDED),
        (Effect(+1, 0.03), (-0.05, -0.09, -0.01), NOT_SUPPORTED),  # the other direction
        (Effect(-1, 0.03), (-0.05, -0.09, -0.01), SUPPORTED),
        (Effect(-1, 0.03), (0.05, 0.01, 0.09), NOT_SUPPORTED),
        (Above(0.3), (0.5, 0.31, 0.7), SUPPORTED),
        (Above(0.3), (0.5, 0.2, 0.7), UNDECIDED),
        (Above(0.3), (0.1, 0.0, 0.2), NOT_SUPPORTED),
        (Below(0.0), (-0.5, -0.7, -0.1), SUPPORTED),
        (Below(0.0), (0.5, 0.1, 0.7), NOT_SUPPORTED),
        (Below(0.0), (-0.1, -0.7, 0.1), UNDECIDED),
        (Equivalence(2.0), (0.5, -1.0, 1.9), SUPPORTED),
        (Equivalence(2.0), (0.5, -1.0, 2.1), UNDECIDED),
        (Equivalence(2.0), (4.0, 2.1, 6.0), NOT_SUPPORTED),
        (Equivalence(2.0), (-4.0, -6.0, -2.1), NOT_SUPPORTED),
        (Share(), (0.75, NONE, NONE), SUPPORTED),
        (Share(), (0.5, NONE, NONE), MIXED),
        (Share(), (0.2, NONE, NONE), NOT_SUPPORTED),
        (ShareOf(), (0.9, 0.75, 1.0), SUPPORTED),
        (ShareOf(), (0.9, 0.7, 1.0), UNDECIDED),
        (ShareOf(), (0.5, 0.3, 0.7), MIXED),
        (ShareOf(), (0.3, 0.2, 0.4), UNDECIDED),
        (ShareOf(), (0.1, 0.0, 0.2), NOT_SUPPORTED),
        (ShareOf(), (1.0, 0.0, 1.0), UNDECIDED),  # too few networks
        (Counted(0.7, 0.08), (0.79, NONE, NONE), SUPPORTED),
        (Counted(0.7, 0.08), (0.73, NONE, NONE), UNDECIDED),
        (Counted(0.7, 0.08), (0.15, NONE, NONE), NOT_SUPPORTED),
    ],
)
def test_a_rule_judges_an_interval(rule, interval, expected):
    assert rule.judge(*interval) == expected


# Variants of a criterion.

TWO = Criterion("both", "slope of both", POSITIVE, ("one", "other"))


@pytest.mark.parametrize(
    ("one", "other", "verdict"),
    [
        (YES, YES, SUPPORTED),
        (YES, OPEN, UNDECIDED),
        (YES, NO, MIXED),
        (NO, OPEN, NOT_SUPPORTED),
        (NO, NO, NOT_SUPPORTED),
    ],
)
def test_a_criterion_holds_in_all_of_its_variants(one, other, verdict):
    rows = ("both", "one", one), ("both", "other", other)
    assert judged(claim(TWO), *rows) == (verdict, "" if verdict == SUPPORTED else "both")


def test_a_missing_variant_leaves_the_claim_untested():
    found = judged(claim(TWO), ("both", "one", YES))
    assert found == (NOT_TESTED, "not recorded on this rung")


def test_what_is_recorded_but_gives_no_number_is_named():
    none = (NONE, NONE, NONE)
    found = judged(claim(TWO), ("both", "one", none), ("both", "other", YES))
    assert found == (NOT_TESTED, "too few models for one")
    found = judged(claim(TWO), ("both", "one", none), ("both", "other", none))
    assert found == (NOT_TESTED, "too few models for one and 1 more")
    assert judged(claim("length"), ("length", "main", none))[1] == "too few models for length"


# Criteria of a claim.


@pytest.mark.parametrize(
    ("length", "width", "verdict", "because"),
    [
        (YES, YES, SUPPORTED, ""),
        (YES, OPEN, UNDECIDED, "width"),
        (YES, NO, NOT_SUPPORTED, "width"),
        (OPEN, NO, NOT_SUPPORTED, "width"),
        (NO, NO, NOT_SUPPORTED, "length, width"),
    ],
)
def test_each_criterion_must_hold_and_those_that_do_not_are_named(length, width, verdict, because):
    rows = ("length", "main", length), ("width", "main", width)
    assert judged(claim("length", "width"), *rows) == (verdict, because)


@pytest.mark.parametrize(
    ("length", "width", "verdict", "because"),
    [
        (YES, YES, SUPPORTED, ""),
        (YES, OPEN, UNDECIDED, ""),
        (YES, NO, MIXED, "only one"),
        (OPEN, NO, NOT_SUPPORTED, ""),
    ],
)
def test_one_of_two_halves_is_mixed(length, width, verdict, because):
    halves = claim("length", "width", halves=True, because="only one")
    rows = ("length", "main", length), ("width", "main", width)
    assert judged(halves, *rows) == (verdict, because)


def test_a_weaker_criterion_turns_not_supported_into_mixed_with_its_reason():
    weaker = Criterion("weight", "slope of weight", POSITIVE)
    one = claim("length", fallback=weaker, because="explained by weight")
    rows = [("length", "main", NO)]
    assert judged(one, *rows) == (NOT_SUPPORTED, "length")
    assert judged(one, *rows, ("weight", "main", NO)) == (NOT_SUPPORTED, "length")
    assert judged(one, *rows, ("weight", "main", YES)) == (MIXED, "explained by weight")
    open_one = ("length", "main", OPEN)
    assert judged(one, open_one, ("weight", "main", YES)) == (UNDECIDED, "length")


def test_a_claim_without_criteria_is_not_tested_for_its_reason():
    assert judged(claim(reason="no animals are compared")) == (
        NOT_TESTED,
        "no animals are compared",
    )


def test_without_evidence_nothing_is_tested():
    assert judged(claim("length")) == (NOT_TESTED, "not recorded on this rung")


@pytest.mark.parametrize("numbers", [YES, OPEN, NO])
def test_a_claim_that_needs_another_is_judged_only_where_that_is_supported(numbers):
    claims = [claim("length"), claim("width", name="widens", needs="grows")]
    table = pd.concat(
        [evidence(("length", "main", numbers)), evidence(("width", "main", YES), of="widens")]
    )
    first, second = verdicts(table, claims)
    if first.verdict == SUPPORTED:
        assert second.verdict == SUPPORTED
    else:
        assert (second.verdict, second.because) == (NOT_TESTED, f"grows is {first.verdict}")


def test_each_claim_has_a_verdict_on_each_of_its_rungs():
    claims = [claim("length"), replace(claim("width", name="widens"), rungs="OI")]
    table = evidence(("length", "main", YES))
    table = pd.concat(
        [table, evidence(("width", "main", YES), of="widens").assign(rung="imagenet")]
    )
    assert [(v.claim, v.rung, v.verdict) for v in verdicts(table, claims)] == [
        ("grows", "objects", SUPPORTED),
        ("widens", "objects", NOT_TESTED),
        ("widens", "imagenet", SUPPORTED),
    ]


# Tests of many claims.


def test_holm_gives_the_values_of_a_worked_example():
    # .01·4, .02·3, .03·2, .05·1, made monotone
    adjusted = holm({"a": 0.01, "b": 0.03, "c": 0.02, "d": 0.05})
    assert adjusted == pytest.approx({"a": 0.04, "c": 0.06, "b": 0.06, "d": 0.06})


def family(p, *others) -> rules.Verdict:
    """What is said of a claim with two p, next to claims with these p, all adjusted together."""
    claims = [claim("length", "width", holm=True)]
    tables = [evidence(("length", "main", YES, p / 10), ("width", "main", YES, p))]
    for i, other in enumerate(others):
        claims.append(claim("length", name=f"other {i}", holm=True))
        tables.append(evidence(("length", "main", YES, other), of=f"other {i}"))
    return verdicts(pd.concat(tables), claims)[0]


@pytest.mark.parametrize(
    ("p", "expected"), [(0.0499, SUPPORTED), (0.05, UNDECIDED), (0.055, UNDECIDED)]
)
def test_an_adjusted_p_of_five_per_cent_or_more_leaves_a_claim_undecided(p, expected):
    alone, doubled = family(p), family(p / 2, 0.9)
    assert alone.verdict == doubled.verdict == expected
    assert alone.because == ("" if expected == SUPPORTED else "after Holm's adjustment")


def test_other_claims_of_the_family_can_leave_a_claim_undecided():
    assert family(0.04).verdict == SUPPORTED
    assert family(0.04, 0.045).verdict == UNDECIDED
    assert family(0.04, NONE).verdict == SUPPORTED  # what is no test is not adjusted for


def test_a_claim_apart_from_the_family_is_not_adjusted():
    alone = claim("length")
    assert judged(alone, ("length", "main", YES, 0.9)) == (SUPPORTED, "")


# What is refused.


@pytest.mark.parametrize("row", [("magic", "main", YES), ("length", "other", YES)])
def test_evidence_that_was_not_declared_is_refused(row):
    criterion, variant, _ = row
    with pytest.raises(
        ValueError, match=rf"No rule was declared for \('grows', '{criterion}', '{variant}'\)"
    ):
        judged(claim("length"), row)


def test_evidence_without_a_column_is_refused():
    with pytest.raises(ValueError, match="lacks the columns p"):
        verdicts(evidence().drop(columns="p"), [claim("length")])


def test_evidence_given_twice_is_refused():
    row = ("length", "main", YES)
    with pytest.raises(ValueError, match="twice"):
        judged(claim("length"), row, row)
