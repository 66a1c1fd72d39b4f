"""How often a rule says what: known limits, and the Δ that the claims declare."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.evidence import claims, rules
from experiments.evidence.power import (
    TRENDS,
    Design,
    Reading,
    _combined,
    of_rules,
    scatter,
    smallest_delta,
    verdicts,
)

PILOTS = Path(__file__).resolve().parents[3] / "results" / "scatter.csv"
DEPTH = Design.of((2, 4, 6, 8, 12), 3)
CNN = Design.of((8, 14, 20, 32, 44), 3)
HEADS = Design.grid((1, 2, 4, 8, 16), (4, 8, 16, 32), 3)


def at(table, effect, verdict):
    return table.set_index("effect").loc[effect, verdict]


@pytest.mark.parametrize("correlation", [0.0, 0.9])
@pytest.mark.parametrize(
    ("claim", "design"),
    [("hu4", DEPTH), ("hu5", CNN), ("hu6", HEADS)],
    ids=["depth", "cnn-depth", "heads"],
)
def test_the_declared_deltas_are_found_at_twice_their_size(claim, design, correlation):
    readings = [
        Reading(claims.SEED_SD[each.name], each.rule.delta) for each in claims.BY_ID[claim].criteria
    ]
    table = verdicts(design, readings, correlation, tests=claims.TRENDS)
    assert at(table, 2, rules.SUPPORTED) >= 0.8
    assert at(table, 4, rules.SUPPORTED) > 0.99
    assert at(table, 0, rules.SUPPORTED) < 0.025  # in the claimed direction


def test_without_scatter_every_verdict_is_that_of_the_true_effect():
    table = verdicts(DEPTH, [Reading(1e-6, 0.05)], effects=(-2, 0, 2), repetitions=50)
    assert at(table, 2, rules.SUPPORTED) == 1
    assert at(table, 0, rules.NOT_SUPPORTED) == at(table, -2, rules.NOT_SUPPORTED) == 1


def test_without_power_no_verdict_is_possible():
    table = verdicts(DEPTH, [Reading(100.0, 0.05)], repetitions=2000)
    # The interval leaves 0 out in 5 %, on either side.
    for effect in (0, 1, 2):
        assert at(table, effect, rules.SUPPORTED) == pytest.approx(0.025, abs=0.01)
        assert at(table, effect, rules.NOT_SUPPORTED) == pytest.approx(0.025, abs=0.01)


def test_shares_of_verdicts_add_up_and_repeat():
    one, other = (verdicts(CNN, [Reading(0.1, 0.05)] * 2, 0.3, repetitions=500) for _ in range(2))
    assert one.equals(other)
    assert one.drop(columns="effect").sum(axis=1).tolist() == pytest.approx([1] * 4)


def test_more_seeds_need_a_smaller_delta_and_it_scales_with_the_scatter():
    few, many = (Design.of((2, 4, 8), seeds) for seeds in (3, 10))
    readings = [Reading(0.1, 1.0)]
    small, large = (smallest_delta(d, readings, repetitions=800)[0] for d in (many, few))
    assert small < large
    (doubled,) = smallest_delta(few, [Reading(0.2, 1.0)], repetitions=800)
    assert doubled == pytest.approx(2 * large, rel=0.03)


def test_adjusting_for_more_tests_can_only_take_support_away():
    alone, adjusted = (verdicts(CNN, [Reading(0.1, 0.05)], tests=n, seed=3) for n in (1, 4))
    assert (adjusted[rules.SUPPORTED] <= alone[rules.SUPPORTED]).all()
    assert adjusted[rules.NOT_SUPPORTED].equals(alone[rules.NOT_SUPPORTED])


def test_scatter_of_designs_is_not_made_up_for_by_seeds():
    straight, bent = (
        verdicts(CNN, [Reading(0.02, 0.05, design_sd=sd)], repetitions=1000) for sd in (0.0, 0.2)
    )
    assert at(bent, 2, rules.SUPPORTED) < at(straight, 2, rules.SUPPORTED)


def test_readings_are_combined_as_the_claims_are():
    names = [rules.SUPPORTED, rules.MIXED, rules.UNDECIDED, rules.NOT_SUPPORTED]
    for first in (0, 2, 3):
        for second in (0, 2, 3):
            found = names[_combined(np.array([[first], [second]]))[0]]
            assert found == rules._combined([names[first], names[second]])


def test_too_few_networks_and_sizes_that_do_not_vary_are_refused():
    with pytest.raises(ValueError, match="too few for a line"):
        verdicts(Design.of((2, 4), 1), [Reading(0.1, 0.05)])
    with pytest.raises(ValueError, match="do not vary"):
        verdicts(Design((2.0, 4.0, 8.0, 16.0), (2.0, 4.0, 8.0, 16.0)), [Reading(0.1, 0.05)])


def test_the_declared_families_are_simulated_by_the_declared_rules():
    table = of_rules(repetitions=400)
    assert set(table["claim"]) == set(TRENDS)
    for claim, design in (("hu4", DEPTH), ("hu5", CNN)):
        own = table[table["claim"] == claim]
        assert set(own["networks"]) == {len(design.sizes)}
        assert at(own, 2, rules.SUPPORTED) >= 0.75
    assert Design.of_group("depth").sizes == tuple(3 * [2.0, 4.0, 6.0, 8.0, 12.0])
    assert set(Design.of_group("decoupled").held) == {4.0, 8.0, 16.0, 32.0}


def test_the_scatter_of_pilots_is_pooled_within_designs():
    rng = np.random.default_rng(0)
    shared = rng.standard_normal(4000)
    found = pd.DataFrame({"N": 0.1 * shared, "half kept": 0.3 * shared})
    found["N"] += np.repeat(rng.standard_normal(1000), 4)  # of designs
    sds, correlation = scatter(found, np.repeat(np.arange(1000), 4))
    assert sds == pytest.approx({"N": 0.1, "half kept": 0.3}, rel=0.05)
    assert correlation == pytest.approx(1.0)
    with pytest.raises(ValueError, match="no scatter"):
        scatter(found[:3], [0, 1, 2])


def test_the_declared_deltas_allow_for_more_scatter_than_the_pilots_have():
    found = pd.read_csv(PILOTS)
    kinds = found["model"].str.partition("-")[0]
    for (kind, reading), each in found.groupby([kinds, "reading"]):
        assert len(each) == 3, (kind, reading)  # seeds of one design
        assert each["value"].std() < claims.SEED_SD[reading], (kind, reading)
    assert set(found["reading"]) == set(claims.SEED_SD)
