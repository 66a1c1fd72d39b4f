"""The claims: what their rules can say, why they are these, and that they came first."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from helpers.history import before_first, files_at

from experiments.evidence import changes, claims, rules
from experiments.evidence.claims import wording
from experiments.evidence.rules import (
    MIXED,
    NOT_SUPPORTED,
    NOT_TESTED,
    SUPPORTED,
    UNDECIDED,
    Counted,
    ShareOf,
)

ROOT = Path(__file__).resolve().parents[3]
# Where the first tables on the claims were added.
RESULTS = [f"results/second/{rung}/*.csv*" for rung in ("objects", "cifar10", "imagenet")]
NONE = math.nan
HUGE = 1e3


def evidence(*rows, rung="objects") -> pd.DataFrame:
    """Rows of (claim, criterion, variant, estimate, low, high[, p])."""
    return pd.DataFrame(
        [(c, k, rung, v, *numbers, *[NONE] * (4 - len(numbers))) for c, k, v, *numbers in rows],
        columns=rules.EVIDENCE,
    )


def verdict(claim: str, table: pd.DataFrame, rung="objects") -> rules.Verdict:
    found = rules.verdicts(table, claims.CLAIMS)
    return next(v for v in found if v.claim == claim and v.rung == rung)


def interval(rule, outcome) -> tuple[float, float, float]:
    """Numbers of which a rule says that."""
    if isinstance(rule, rules.Effect):
        found = {
            SUPPORTED: (2, 1.5, 2.5),
            UNDECIDED: (2, -HUGE, HUGE),
            NOT_SUPPORTED: (-2, -2.5, -1.5),
        }[outcome]
        estimate, *ends = (rule.delta * rule.direction * x for x in found)
        return estimate, min(ends), max(ends)
    if isinstance(rule, rules.Equivalence):
        unit = rule.margin
        return {
            SUPPORTED: (0, -0.5 * unit, 0.5 * unit),
            UNDECIDED: (0, -2 * unit, 2 * unit),
            NOT_SUPPORTED: (3 * unit, 2 * unit, 4 * unit),
        }[outcome]
    if isinstance(rule, Counted):
        side = {SUPPORTED: 2, UNDECIDED: 0, NOT_SUPPORTED: -2}[outcome]
        return rule.bound + side * rule.step, NONE, NONE
    if isinstance(rule, ShareOf):
        return {SUPPORTED: (1, 0.9, 1), UNDECIDED: (0.5, 0, 1), NOT_SUPPORTED: (0, 0, 0.1)}[outcome]
    if isinstance(rule, rules.Share):
        return (1.0 if outcome == SUPPORTED else 0.0), NONE, NONE
    sign = +1 if isinstance(rule, rules.Above) else -1
    middle = {SUPPORTED: 2, UNDECIDED: 0, NOT_SUPPORTED: -2}[outcome] * sign + rule.bound
    return middle, middle - 1, middle + 1


OUTCOMES = (SUPPORTED, UNDECIDED, NOT_SUPPORTED)
JUDGED = [claim for claim in claims.CLAIMS if claim.criteria]


# All claims.


def test_every_claim_has_criteria_or_a_reason_not_to_be_tested():
    assert len(claims.BY_ID) == len(claims.CLAIMS)
    assert all(bool(claim.criteria) != bool(claim.reason) for claim in claims.CLAIMS)


def test_every_source_of_a_claim_is_in_the_bibliography():
    entries = (ROOT / "references.bib").read_text(encoding="utf-8")
    assert all(f"{{{key}," in entries for claim in claims.CLAIMS for key in claim.sources)


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("claim", JUDGED, ids=lambda claim: claim.id)
def test_every_rule_can_be_supported_undecided_and_not_supported(claim, outcome):
    if outcome == UNDECIDED and claim.id == "zh":
        pytest.skip("A share of budgets is decided at each of them.")
    rung = rules.RUNGS[claim.rungs[0]]
    rows = [
        (claim.id, criterion.name, variant, *interval(criterion.rule, outcome), 1e-6)
        for criterion in claim.criteria
        for variant in criterion.variants
    ]
    if claim.needs:
        rows += [
            (claim.needs, each.name, "main", *interval(each.rule, SUPPORTED), 1e-6)
            for each in claims.BY_ID[claim.needs].criteria
        ]
    assert verdict(claim.id, evidence(*rows, rung=rung), rung).verdict == outcome


def test_what_hu_and_colleagues_claim_is_adjusted_together_but_for_what_more_data_show():
    theirs = {claim.id for claim in claims.CLAIMS if claim.sources == claims.HU}
    assert {claim.id for claim in claims.CLAIMS if claim.holm} == theirs - {"hu10", "ti"}


def test_every_criterion_has_one_primary_variant_where_a_trend_is_judged():
    for claim in ("hu4", "hu5", "hu6", "hu7", "hu10"):
        assert all(each.variants == ("main",) for each in claims.BY_ID[claim].criteria)


# Single claims.


@pytest.mark.parametrize("claim", ["hu4", "hu5", "hu6"])
def test_sparser_is_both_readings_and_parted_ones_are_mixed(claim):
    needed, enough = claims.BY_ID[claim].criteria
    for one, two, expected in (
        (SUPPORTED, SUPPORTED, SUPPORTED),
        (SUPPORTED, NOT_SUPPORTED, MIXED),
        (SUPPORTED, UNDECIDED, UNDECIDED),
        (UNDECIDED, NOT_SUPPORTED, NOT_SUPPORTED),
    ):
        rows = [
            (claim, each.name, "main", *interval(each.rule, outcome), 1e-6)
            for each, outcome in ((needed, one), (enough, two))
        ]
        assert verdict(claim, evidence(*rows)).verdict == expected
    # With more depth N rises and fewer units keep half; with more heads the other way round.
    assert needed.rule.direction == -enough.rule.direction == (-1 if claim == "hu6" else 1)


def test_sparse_weights_and_sparse_beyond_the_spread_of_logits_are_two_wordings():
    layers = ("hu1", "layers", "main", 1.0, 0.9, 1.0)
    beyond = {x: ("hu1", "beyond", "main", x, x, x) for x in (0.0, 1.0)}
    found = verdict("hu1", evidence(layers, beyond[1.0]))
    assert (found.verdict, wording(found)) == (SUPPORTED, "sparse beyond the spread of logits")
    found = verdict("hu1", evidence(layers, beyond[0.0]))
    assert (found.verdict, wording(found)) == (MIXED, "sparse weights")
    few = ("hu1", "layers", "main", 0.5, 0.3, 0.7)
    found = verdict("hu1", evidence(few, beyond[1.0]))
    assert (found.verdict, wording(found)) == (MIXED, "layers")
    neither = verdict("hu1", evidence(("hu1", "layers", "main", 0.0, 0.0, 0.1), beyond[0.0]))
    assert (neither.verdict, wording(neither)) == (NOT_SUPPORTED, "layers, beyond")


def test_place_is_needed_besides_necessity():
    rows = [("hu3", "necessity", "main", 0.3, 0.2, 0.4, 1e-6)]
    assert verdict("hu3", evidence(*rows)).verdict == NOT_TESTED
    rows.append(("hu3", "place", "main", -0.3, -0.4, -0.2, 1e-6))
    found = verdict("hu3", evidence(*rows))
    assert (found.verdict, found.because) == (NOT_SUPPORTED, "place")


def test_overlap_explains_only_what_is_there():
    rows = [
        ("hu7", each.name, "main", *interval(each.rule, SUPPORTED), 1e-6)
        for each in claims.BY_ID["hu7"].criteria
    ]
    for outcome in OUTCOMES:
        of_heads = [
            ("hu6", each.name, "main", *interval(each.rule, outcome), 1e-6)
            for each in claims.BY_ID["hu6"].criteria
        ]
        found = verdict("hu7", evidence(*rows, *of_heads)).verdict
        assert found == (SUPPORTED if outcome == SUPPORTED else NOT_TESTED)


def test_one_pair_on_photographs_gives_no_verdict_on_architecture():
    (found,) = [v for v in rules.verdicts(evidence(), claims.CLAIMS) if v.claim == "tu1"]
    assert (found.verdict, found.rung) == (NOT_TESTED, "imagenet")
    assert claims.ONE_PAIR in found.because
    assert claims.BY_ID["tu2"].rungs == "O"


# Where the rules come from.


def test_each_rule_that_changed_has_a_reason_and_the_verdicts_before_are_kept():
    assert set(changes.SINCE_FIRST_EDITION) <= set(claims.BY_ID)
    assert all(changes.SINCE_FIRST_EDITION.values())
    before = pd.read_csv(ROOT / "results/first-edition.csv")
    assert list(before) == ["claim", "rung", "verdict", "because"]
    added = set(claims.BY_ID) - set(before["claim"])
    assert set(before["claim"]) <= set(claims.BY_ID)
    assert added <= set(changes.AMENDMENTS) & set(changes.SINCE_FIRST_EDITION), (
        "A claim that is new is listed in changes.AMENDMENTS and changes.SINCE_FIRST_EDITION."
    )
    assert set(before["verdict"]) <= set(rules.VERDICTS)
    assert set(before["rung"]) <= set(rules.RUNGS.values())
    assert not before.duplicated(["claim", "rung"]).any()


def test_changes_after_the_first_result_name_what_there_is_and_why():
    assert set(changes.AMENDMENTS) <= set(claims.BY_ID)
    assert set(changes.ESTIMATOR_CHANGES) <= set(changes.ESTIMATORS)
    assert all((*changes.AMENDMENTS.values(), *changes.ESTIMATOR_CHANGES.values()))
    assert all((ROOT / name).is_file() for name in changes.ESTIMATORS)


# The rules were in another module then.
DECLARED = """
import json
from experiments.evidence.rules import CLAIMS
print(json.dumps({claim.id: repr(claim) for claim in CLAIMS}))
"""


def test_rules_and_estimators_are_those_that_stood_before_the_first_result(tmp_path):
    commit = before_first(*RESULTS)
    before = files_at(commit, tmp_path, "experiments", "utils")
    said = subprocess.run(
        [sys.executable, "-c", DECLARED],
        cwd=before,
        check=True,
        capture_output=True,
        encoding="utf-8",
    )
    declared, now = json.loads(said.stdout), {c.id: repr(c) for c in claims.CLAIMS}
    changed = {name for name in {*declared, *now} if declared.get(name) != now.get(name)}
    assert changed == set(changes.AMENDMENTS), (
        "A claim that was added, changed or dropped after the first result is listed in "
        "changes.AMENDMENTS with the day and the reason, and no other."
    )

    def differs(name: str) -> bool:
        file = before / name
        return not file.is_file() or file.read_bytes() != (ROOT / name).read_bytes()

    assert set(filter(differs, changes.ESTIMATORS)) == set(changes.ESTIMATOR_CHANGES), (
        "What computes evidence and changed after the first result is listed in "
        "changes.ESTIMATOR_CHANGES with what and why, and nothing else."
    )
