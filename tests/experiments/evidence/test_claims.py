"""The rules that judge the claims, and that they were there before the results."""

import math
from pathlib import Path

import pandas as pd
import pytest
from helpers.history import before_first, module_at

from experiments.evidence import claims
from experiments.evidence.claims import (
    MIXED,
    NOT_SUPPORTED,
    NOT_TESTED,
    SUPPORTED,
    UNDECIDED,
    Above,
    Below,
    Effect,
    Equivalence,
    Share,
    holm,
    verdicts,
)

ROOT = Path(__file__).resolve().parents[3]
MODULE = "utils/book/claims.py"  # where it was then


def evidence(*rows) -> pd.DataFrame:
    """Rows of (claim, criterion, variant, estimate, low, high[, p]) on the objects rung."""
    return pd.DataFrame(
        [(c, k, "objects", v, *numbers, *[float("nan")] * (4 - len(numbers)))
         for c, k, v, *numbers in rows],
        columns=claims.EVIDENCE,
    )  # fmt: skip


def verdict(claim: str, table: pd.DataFrame, rung: str = "objects") -> claims.Verdict:
    return next(v for v in verdicts(table) if v.claim == claim and v.rung == rung)


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
        (Share(), (0.75, 0, 0), SUPPORTED),
        (Share(), (0.5, 0, 0), MIXED),
        (Share(), (0.2, 0, 0), NOT_SUPPORTED),
    ],
)
def test_a_rule_judges_an_interval(rule, interval, expected):
    assert rule.judge(*interval) == expected


def test_every_claim_has_criteria_or_a_reason_not_to_be_tested():
    assert len({claim.id for claim in claims.CLAIMS}) == len(claims.CLAIMS)
    assert all(bool(claim.criteria) != bool(claim.reason) for claim in claims.CLAIMS)
    assert sum(claim.holm for claim in claims.CLAIMS) == 9


def test_every_source_of_a_claim_is_in_the_bibliography():
    entries = (ROOT / "references.bib").read_text(encoding="utf-8")
    assert all(f"{{{key}," in entries for claim in claims.CLAIMS for key in claim.sources)


def test_without_evidence_nothing_is_tested():
    assert {v.verdict for v in verdicts(evidence())} == {NOT_TESTED}


def test_variants_that_disagree_are_mixed():
    rows = [("hu3", "necessity", v, 0.3, 0.2, 0.4) for v in ("zero", "renormalise")]
    place = ("hu3", "place", "main", 0.2, 0.1, 0.3)
    assert verdict("hu3", evidence(*rows, place)).verdict == SUPPORTED
    rows[1] = ("hu3", "necessity", "renormalise", -0.1, -0.2, -0.05)
    assert verdict("hu3", evidence(*rows, place)).verdict == MIXED


def test_a_missing_variant_leaves_the_claim_untested():
    rows = [("hu3", "necessity", "zero", 0.3, 0.2, 0.4), ("hu3", "place", "main", 0.2, 0.1, 0.3)]
    assert verdict("hu3", evidence(*rows)).verdict == NOT_TESTED


def test_what_is_recorded_but_gives_no_number_is_named():
    first, *others = claims.BY_ID["hu4"].criteria[0].variants
    none = math.nan
    rows = [("hu4", "trend", v, 0.1, 0.05, 0.15) for v in others]
    assert verdict("hu4", evidence(*rows)).because == "not recorded on this rung"
    found = verdict("hu4", evidence(*rows, ("hu4", "trend", first, none, none, none)))
    assert (found.verdict, found.because) == (NOT_TESTED, f"too few models for {first}")
    rows[0] = ("hu4", "trend", others[0], none, none, none)
    found = verdict("hu4", evidence(*rows, ("hu4", "trend", first, none, none, none)))
    assert found.because == f"too few models for {first} and 1 more"


def test_a_weaker_criterion_turns_not_supported_into_mixed_with_its_reason():
    rows = [("hu3", "necessity", v, 0.3, 0.2, 0.4) for v in ("zero", "renormalise")]
    rows += [("hu3", "place", "main", -0.2, -0.3, -0.1)]
    assert verdict("hu3", evidence(*rows)).verdict == NOT_SUPPORTED
    found = verdict("hu3", evidence(*rows, ("hu3", "plain", "main", 0.3, 0.2, 0.4)))
    assert (found.verdict, found.because) == (MIXED, "explained by mass")


def test_one_of_two_halves_is_mixed():
    rows = [
        ("ra4", "pooling", "main", 0.3, 0.2, 0.4),
        ("ra4", "family", "main", 0.0, -0.05, 0.05),
    ]
    assert verdict("ra4", evidence(*rows)).verdict == MIXED


def test_a_claim_that_needs_another_is_judged_only_where_that_is_supported():
    rows = [
        ("hu7", "overlap", "main", 0.1, 0.05, 0.15),
        ("hu7", "mediation", "main", 0.2, 0.1, 0.3),
        ("hu7", "removal", "main", 0.2, 0.1, 0.3),
        ("hu7", "keeping", "main", -0.2, -0.3, -0.1),
    ]
    trends = claims.BY_ID["hu6"].criteria[0].variants
    falling = [("hu6", "decoupled", v, -0.1, -0.15, -0.05) for v in trends]
    rising = [("hu6", "decoupled", v, 0.1, 0.05, 0.15) for v in trends]
    assert verdict("hu7", evidence(*rows, *falling)).verdict == SUPPORTED
    assert verdict("hu7", evidence(*rows, *rising)).verdict == NOT_TESTED


def test_holm_gives_the_values_of_a_worked_example():
    # .01·4, .02·3, .03·2, .05·1, made monotone
    adjusted = holm({"a": 0.01, "b": 0.03, "c": 0.02, "d": 0.05})
    assert adjusted == pytest.approx({"a": 0.04, "c": 0.06, "b": 0.06, "d": 0.06})


def test_holms_adjustment_can_leave_a_hu_claim_undecided():
    strong = [("hu2", k, "main", 0.5, 0.35, 0.6, 0.04) for k in ("heads", "layers", "distance")]
    alone = verdict("hu2", evidence(*strong))
    necessity = [("hu3", "necessity", v, 0.3, 0.1, 0.5, 0.045) for v in ("zero", "renormalise")]
    both = evidence(*strong, *necessity, ("hu3", "place", "main", 0.3, 0.1, 0.5, 0.045))
    assert alone.verdict == SUPPORTED
    assert verdict("hu2", both).verdict == UNDECIDED


@pytest.mark.parametrize(
    ("p", "expected"), [(0.0499, SUPPORTED), (0.05, UNDECIDED), (0.055, UNDECIDED)]
)
def test_an_adjusted_p_of_five_per_cent_or_more_leaves_a_hu_claim_undecided(p, expected):
    criteria = ("heads", "layers", "distance")
    rows = [("hu2", criterion, "main", 0.5, 0.35, 0.6, p) for criterion in criteria]
    assert verdict("hu2", evidence(*rows)).verdict == expected  # alone, so not adjusted
    far = [("hu3", "necessity", v, 0.3, 0.1, 0.5, 0.9) for v in ("zero", "renormalise")]
    halved = [(*row[:-1], p / 2) for row in rows]  # and doubled by the other test
    found = verdict("hu2", evidence(*halved, *far, ("hu3", "place", "main", 0.3, 0.1, 0.5, 0.9)))
    assert found.verdict == expected
    assert found.because == ("" if expected == SUPPORTED else "after Holm's adjustment")


def test_evidence_for_an_undeclared_criterion_is_refused():
    with pytest.raises(ValueError, match=r"No rule was declared for \('hu3', 'magic', 'main'\)"):
        verdicts(evidence(("hu3", "magic", "main", 1, 1, 1)))


def test_evidence_without_a_column_is_refused():
    with pytest.raises(ValueError, match="lacks the columns p"):
        verdicts(evidence().drop(columns="p"))


def test_evidence_given_twice_is_refused():
    row = ("hu8", "layers", "main", 1, 1, 1)
    with pytest.raises(ValueError, match="twice"):
        verdicts(evidence(row, row))


def test_the_claims_are_those_that_stood_before_the_first_result():
    # The parent: the claims were committed before the results, not with them.
    before = module_at(before_first("results/*.csv"), MODULE)
    changed = {
        claim.id
        for claim in claims.CLAIMS
        if repr(claim) != repr(before.BY_ID.get(claim.id))
    }  # fmt: skip
    changed |= set(before.BY_ID) - set(claims.BY_ID)
    assert changed == set(claims.AMENDMENTS), (
        "A claim that was added, changed or dropped after the first result is listed in "
        "claims.AMENDMENTS with the day and the reason, and no other."
    )
