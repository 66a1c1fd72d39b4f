"""The second edition's rules: what they can say, what changed, and that they came first."""

import math
from pathlib import Path

import pandas as pd
import pytest
from helpers.history import before_first, git, module_at

from experiments.evidence import claims, rules
from experiments.evidence.claims import MIXED, NOT_SUPPORTED, NOT_TESTED, SUPPORTED, UNDECIDED
from experiments.evidence.rules import Counted, ShareOf, wording

ROOT = Path(__file__).resolve().parents[3]
MODULE = "experiments/evidence/rules.py"
# Where the second edition's tables on the claims are; pilots lie elsewhere.
RESULTS = [f"results/second/{rung}/*.csv*" for rung in ("objects", "cifar10", "imagenet")]
NONE = math.nan
HUGE = 1e3


def evidence(*rows, rung="objects") -> pd.DataFrame:
    """Rows of (claim, criterion, variant, estimate, low, high[, p])."""
    return pd.DataFrame(
        [(c, k, rung, v, *numbers, *[NONE] * (4 - len(numbers))) for c, k, v, *numbers in rows],
        columns=claims.EVIDENCE,
    )


def verdict(claim: str, table: pd.DataFrame, rung="objects") -> claims.Verdict:
    found = claims.verdicts(table, rules.CLAIMS)
    return next(v for v in found if v.claim == claim and v.rung == rung)


def interval(rule, outcome) -> tuple[float, float, float]:
    """Numbers of which a rule says that."""
    if isinstance(rule, claims.Effect):
        found = {
            SUPPORTED: (2, 1.5, 2.5),
            UNDECIDED: (2, -HUGE, HUGE),
            NOT_SUPPORTED: (-2, -2.5, -1.5),
        }[outcome]
        estimate, *ends = (rule.delta * rule.direction * x for x in found)
        return estimate, min(ends), max(ends)
    if isinstance(rule, claims.Equivalence):
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
    if isinstance(rule, claims.Share):
        return (1.0 if outcome == SUPPORTED else 0.0), NONE, NONE
    sign = +1 if isinstance(rule, claims.Above) else -1
    middle = {SUPPORTED: 2, UNDECIDED: 0, NOT_SUPPORTED: -2}[outcome] * sign + rule.bound
    return middle, middle - 1, middle + 1


OUTCOMES = (SUPPORTED, UNDECIDED, NOT_SUPPORTED)
JUDGED = [claim for claim in rules.CLAIMS if claim.criteria]


@pytest.mark.parametrize("outcome", OUTCOMES)
@pytest.mark.parametrize("claim", JUDGED, ids=lambda claim: claim.id)
def test_every_rule_can_be_supported_undecided_and_not_supported(claim, outcome):
    if outcome == UNDECIDED and claim.id == "zh":
        pytest.skip("A share of budgets is decided at each of them.")
    rung = claims.RUNGS[claim.rungs[0]]
    rows = [
        (claim.id, criterion.name, variant, *interval(criterion.rule, outcome), 1e-6)
        for criterion in claim.criteria
        for variant in criterion.variants
    ]
    if claim.needs:
        rows += [
            (claim.needs, each.name, "main", *interval(each.rule, SUPPORTED), 1e-6)
            for each in rules.BY_ID[claim.needs].criteria
        ]
    assert verdict(claim.id, evidence(*rows, rung=rung), rung).verdict == outcome


@pytest.mark.parametrize(
    ("rule", "numbers", "expected"),
    [
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
def test_a_share_and_a_count_are_judged(rule, numbers, expected):
    assert rule.judge(*numbers) == expected


@pytest.mark.parametrize("claim", ["hu4", "hu5", "hu6"])
def test_sparser_is_both_readings_and_parted_ones_are_mixed(claim):
    needed, enough = rules.BY_ID[claim].criteria
    both = {
        outcome: [(claim, c.name, "main", *interval(c.rule, outcome), 1e-6)]
        for c in (needed,)
        for outcome in OUTCOMES
    }
    other = {
        outcome: [(claim, enough.name, "main", *interval(enough.rule, outcome), 1e-6)]
        for outcome in OUTCOMES
    }
    for one, two, expected in (
        (SUPPORTED, SUPPORTED, SUPPORTED),
        (SUPPORTED, NOT_SUPPORTED, MIXED),
        (SUPPORTED, UNDECIDED, UNDECIDED),
        (UNDECIDED, NOT_SUPPORTED, NOT_SUPPORTED),
    ):
        assert verdict(claim, evidence(*both[one], *other[two])).verdict == expected
    # With more depth N rises and fewer units keep half; with more heads the other way round.
    assert needed.rule.direction == -enough.rule.direction == (-1 if claim == "hu6" else 1)


def test_sparse_weights_and_sparse_beyond_the_spread_of_logits_are_two_wordings():
    layers = ("hu1", "layers", "main", 1.0, 0.9, 1.0)
    beyond = {x: ("hu1", "beyond", "main", x, x, x) for x in (0.0, 1.0)}
    found = verdict("hu1", evidence(layers, beyond[1.0]))
    assert (found.verdict, wording(found)) == (SUPPORTED, "sparse beyond the spread of logits")
    found = verdict("hu1", evidence(layers, beyond[0.0]))
    assert (found.verdict, wording(found)) == (MIXED, "sparse weights")
    neither = verdict("hu1", evidence(("hu1", "layers", "main", 0.0, 0.0, 0.1), beyond[0.0]))
    assert (neither.verdict, wording(neither)) == (NOT_SUPPORTED, "layers, beyond")


def test_place_is_needed_besides_necessity():
    rows = [("hu3", "necessity", "main", 0.3, 0.2, 0.4, 1e-6)]
    assert verdict("hu3", evidence(*rows)).verdict == NOT_TESTED
    rows.append(("hu3", "place", "main", -0.3, -0.4, -0.2, 1e-6))
    found = verdict("hu3", evidence(*rows))
    assert (found.verdict, found.because) == (NOT_SUPPORTED, "place")


def test_one_pair_on_photographs_gives_no_verdict_on_architecture():
    (found,) = [v for v in claims.verdicts(evidence(), rules.CLAIMS) if v.claim == "tu1"]
    assert (found.verdict, found.rung) == (NOT_TESTED, "imagenet")
    assert rules.ONE_PAIR in found.because
    assert rules.BY_ID["tu2"].rungs == "O"


def test_the_claims_are_the_same_and_each_change_has_a_reason():
    assert [c.id for c in rules.CLAIMS] == [c.id for c in claims.CLAIMS]
    assert all(
        (c.statement, c.sources, c.holm, c.needs)
        == (claims.BY_ID[c.id].statement, claims.BY_ID[c.id].sources,
            claims.BY_ID[c.id].holm, claims.BY_ID[c.id].needs)
        for c in rules.CLAIMS
    )  # fmt: skip
    changed = {c.id for c in rules.CLAIMS if c != claims.BY_ID[c.id]}
    assert changed == set(rules.CHANGES)
    assert all(rules.CHANGES.values())


def test_every_criterion_has_one_primary_variant_where_a_trend_is_judged():
    for claim in ("hu4", "hu5", "hu6", "hu7", "hu10"):
        assert all(each.variants == ("main",) for each in rules.BY_ID[claim].criteria)


def test_the_first_editions_rules_judge_as_before():
    row = ("hu8", "layers", "main", 0.8, NONE, NONE)
    first = {v.claim: v.verdict for v in claims.verdicts(evidence(row)) if v.rung == "objects"}
    assert first["hu8"] == SUPPORTED


def test_rules_and_estimators_are_those_that_stood_before_the_first_result():
    commit = before_first(*RESULTS)
    before = module_at(commit, MODULE)
    changed = {c.id for c in rules.CLAIMS if repr(c) != repr(before.BY_ID.get(c.id))}
    assert changed | set(before.BY_ID) - set(rules.BY_ID) == set(rules.AMENDMENTS)
    touched = git("diff", "--name-only", commit, "--", *rules.ESTIMATORS).split()
    assert set(touched) <= set(rules.ESTIMATOR_CHANGES)
