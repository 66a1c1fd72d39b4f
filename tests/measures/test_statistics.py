"""Intervals that cover what they should, against closed forms, SciPy, and draws from known laws."""

import math

import numpy as np
import pytest
from scipy import stats

from utils.measures.statistics import (
    Estimate,
    bootstrap_means,
    contrast,
    mean_over,
    percentiles,
    rank_correlation,
    share_over,
    slope_per_doubling,
    unequal,
)

RNG = np.random.default_rng


def test_a_difference_of_two_conditions_is_students():
    a, b = RNG(0).normal(1, 1, 4), RNG(1).normal(0, 1, 3)
    found = contrast([*a, *b], ["a"] * 4 + ["b"] * 3, {"a": 1, "b": -1})
    expected = stats.ttest_ind(a, b)
    assert found.estimate == pytest.approx(a.mean() - b.mean())
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_a_mean_over_models_has_the_t_interval_of_scipy_and_leaves_nan_out():
    values = RNG(0).normal(1, 1, 6)
    found = mean_over([*values, math.nan])
    expected = stats.ttest_1samp(values, 0)
    assert (found.estimate, found.p) == pytest.approx((values.mean(), expected.pvalue))
    assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert (found.n, found.undefined) == (6, 1)


def test_one_model_has_a_mean_without_bounds_and_none_has_no_mean():
    found = mean_over([0.3])
    assert (found.low, found.high) == (-math.inf, math.inf)
    with pytest.raises(ValueError, match="No model has a value"):
        mean_over([math.nan])


def test_kinds_that_scatter_unlike_keep_their_own_scatter():
    a, b = [0.1, 0.5, 0.9, 0.3], [0.30, 0.31, 0.29, 0.30, 0.32, math.nan]
    found = unequal(a, b)
    known = stats.ttest_ind(a, b[:-1], equal_var=False)
    interval = known.confidence_interval()
    assert (found.low, found.high, found.p) == pytest.approx((*interval, known.pvalue))
    assert (found.n, found.undefined) == (9, 1)
    assert unequal([1.0], b).high == math.inf


def test_a_share_of_few_networks_has_no_bounds_and_of_equal_ones_no_width():
    few = share_over([1.0, 0.5, 1.0])
    assert (few.low, few.high) == (0.0, 1.0)
    same = share_over([0.8] * 6)
    assert (same.estimate, same.low, same.high) == pytest.approx((0.8, 0.8, 0.8))
    assert math.isnan(same.p)


def test_the_interval_of_three_seeds_covers_with_the_spread_of_the_family_pooled():
    means, conditions = np.repeat([0.0, 2.0, 5.0], 3), np.repeat(["x", "y", "z"], 3)
    rng, hits = RNG(0), 0
    for _ in range(1000):
        found = contrast(rng.normal(means, 0.3), conditions, {"x": 0.5, "z": -1, "y": 0.5})
        hits += found.low <= 1 - 5 <= found.high
    assert hits / 1000 == pytest.approx(0.95, abs=0.02)


def test_a_condition_with_one_seed_borrows_the_spread_of_the_others():
    found = contrast([0, 2, 7], ["a", "a", "b"], {"b": 1})
    half = stats.t.ppf(0.975, 1) * math.sqrt(2)  # SD √2 with one degree of freedom
    assert (found.low, found.high) == pytest.approx((7 - half, 7 + half))


def test_models_without_a_value_are_left_out_and_counted():
    found = contrast([0, 2, np.nan, 7], ["a", "a", "a", "b"], {"a": 1})
    assert (found.estimate, found.n, found.undefined) == (1, 3, 1)
    found = slope_per_doubling([1, 2, 4, 8], [0, 1, 2, np.nan])
    assert (found.estimate, found.n, found.undefined) == (pytest.approx(1), 3, 1)


def test_the_slope_per_doubling_is_that_of_the_normal_equations():
    x, y = np.array([2, 4, 4, 8, 12, 16.0]), RNG(2).normal(size=6)
    design = np.stack([np.ones(6), np.log(x) / math.log(2)], 1)
    inverse = np.linalg.inv(design.T @ design)
    beta = inverse @ design.T @ y
    error = math.sqrt(((y - design @ beta) ** 2).sum() / 4 * inverse[1, 1])
    found = slope_per_doubling(x, y)
    assert found.estimate == pytest.approx(beta[1])
    assert found.high - found.estimate == pytest.approx(stats.t.ppf(0.975, 4) * error)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(beta[1]) / error, 4))


def test_with_another_size_held_the_slope_is_that_of_the_regression_on_both():
    heads, size = np.tile([1, 2, 4, 8.0], 4), np.repeat([4, 8, 16, 32.0], 4)
    heads, size = np.append(heads, [2, 4, 8]), np.append(size, [32, 16, 8])  # not independent
    y = RNG(6).normal(size=19)
    design = np.stack([np.ones(19), np.log2(heads), np.log2(size)], 1)
    beta, rest, *_ = np.linalg.lstsq(design, y, rcond=None)
    error = math.sqrt(rest[0] / 16 * np.linalg.inv(design.T @ design)[1, 1])
    found = slope_per_doubling(heads, y, held=size)
    assert found.estimate == pytest.approx(beta[1])
    assert found.high - found.estimate == pytest.approx(stats.t.ppf(0.975, 16) * error)
    assert found.detectable / error == pytest.approx(2.99, abs=0.02)  # t₁₆ at .975, and at .8


def test_a_doubling_that_adds_one_has_slope_one_without_doubt():
    found = slope_per_doubling([1, 2, 4, 8], [3, 4, 5, 6])
    assert found.estimate == pytest.approx(1)
    assert found.p < 1e-9
    assert found.detectable < 1e-9


def test_the_smallest_detectable_slope_is_found_in_four_of_five_experiments():
    x, rng = np.repeat([1, 2, 4, 8], 3), RNG(3)
    spread = math.sqrt(np.var(np.log2(x)) * 12)
    # of noise with SD 1; each experiment has its own SD, so take the slope that they would name
    named = np.median([slope_per_doubling(x, rng.normal(size=12)).detectable for _ in range(300)])
    y = named * np.log2(x) + rng.normal(size=(1500, 12))
    found = np.mean([slope_per_doubling(x, each).p < 0.05 for each in y])
    assert found == pytest.approx(0.8, abs=0.05)
    assert named == pytest.approx((2.23 + 0.88) / spread, rel=0.06)  # t₁₀ at .975, and at .8


@pytest.mark.parametrize("models", [3, 4, 100])
def test_a_detectable_slope_exists_for_few_models_and_many(models):
    x = np.arange(1, models + 1)
    found = slope_per_doubling(x, RNG(4).normal(size=models))
    assert 0 < found.detectable < math.inf


def test_equivalence_needs_the_whole_interval_inside():
    assert Estimate(0.0, -0.01, 0.02, 1.0, 9).equivalent(0.03)
    assert not Estimate(0.0, -0.01, 0.04, 1.0, 9).equivalent(0.03)
    assert not Estimate(math.nan, math.nan, math.nan, math.nan, 9).equivalent(0.03)


def test_a_rank_correlation_has_an_interval_that_covers():
    rng = RNG(1)
    covered = 0
    for _ in range(300):
        x, y = rng.standard_normal((2, 20))
        found = rank_correlation(x, y)
        covered += found.low < 0 < found.high
    assert covered / 300 == pytest.approx(0.95, abs=0.03)


def test_a_rank_correlation_is_spearmans_with_ties():
    x, y = [1, 1, 2, 2, 3, 3], [0.1, 0.2, 0.2, 0.5, 0.4, 0.9]
    assert rank_correlation(x, y).estimate == pytest.approx(stats.spearmanr(x, y).statistic)
    assert rank_correlation(range(6), [0, -1, -2, -3, -4, -6]).estimate == -1
    assert math.isnan(rank_correlation(x, [1] * 6).estimate)


def test_a_bootstrap_is_paired_over_all_tables():
    values = RNG(6).normal(size=(30, 2))
    found = bootstrap_means({"a": values, "b": -values[:, 0], "one": np.ones(30)}, 500)
    np.testing.assert_allclose(found["a"][:, 0], -found["b"], atol=1e-12)
    np.testing.assert_allclose(found["one"], 1)
    np.testing.assert_allclose(found["a"][0], values.mean(0))
    assert found["a"].shape == (501, 2)


def test_bootstrapped_means_do_not_depend_on_how_many_are_held_at_once(monkeypatch):
    tables = {"a": RNG(7).normal(size=(50, 3))}
    whole = bootstrap_means(tables, 300)["a"]
    monkeypatch.setattr("utils.measures.statistics.AT_ONCE", 333)
    np.testing.assert_allclose(bootstrap_means(tables, 300)["a"], whole)


def test_the_interval_of_a_ratio_agrees_with_scipys():
    rng = RNG(8)
    a = rng.exponential(size=80)
    b = a + rng.exponential(size=80)
    means = bootstrap_means({"a": a, "b": b}, 4000)
    found = percentiles(means["a"] / means["b"], 80)
    expected = stats.bootstrap(
        (a, b),
        lambda a, b, axis: a.mean(axis) / b.mean(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=4000,
        random_state=rng,
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.004)


def test_a_bootstrap_over_images_covers_a_ratio_of_means_as_it_says():
    rng, hits = RNG(9), 0
    for seed in range(300):
        share = rng.exponential(size=(100, 2)) * [1, 4]
        means = bootstrap_means({"part": share[:, 0], "whole": share.sum(1)}, 300, seed)
        found = percentiles(means["part"] / means["whole"], 100)
        hits += found.low <= 1 / 5 <= found.high
    assert hits / 300 == pytest.approx(0.94, abs=0.035)


def test_the_p_of_a_bootstrap_is_uniform_under_no_effect_and_small_under_one():
    rng = RNG(10)

    def p(mean, seed):
        values = rng.normal(mean, 1, 60)
        return percentiles(bootstrap_means({"x": values}, 300, seed)["x"], 60).p

    under_none = [p(0, seed) for seed in range(200)]
    assert np.mean(np.array(under_none) < 0.5) == pytest.approx(0.5, abs=0.12)
    assert p(2, 0) == pytest.approx(2 / 301)


def test_what_has_no_interval_is_refused():
    cases = [
        (lambda: contrast([1, 2], ["a", "b"], {"a": 1}), "two seeds"),
        (lambda: contrast([1, 2], ["a", "a"], {"b": 1}), "no model of the condition 'b'"),
        (lambda: slope_per_doubling([1, 2], [1, 2]), "at least 3 models"),
        (lambda: slope_per_doubling([0, 1, 2], [1, 2, 3]), "above 0"),
        (lambda: slope_per_doubling([4, 4, 4], [1, 2, 3]), "at least 2 sizes"),
        (lambda: slope_per_doubling([1, 2, 4], [1, 2]), "one value of each kind"),
        (lambda: slope_per_doubling([1, 2, 4], [1, 2, 3], held=[4, 2, 2]), "at least 4 models"),
        (lambda: slope_per_doubling([1, 2, 4, 8], [1, 2, 3, 4], held=[8, 4, 2, 1]), "determines"),
        (lambda: rank_correlation([1, 2, 3], [1, 2, 3]), "at least 5"),
        (lambda: unequal([], [1, 2]), "no model with a value"),
        (lambda: share_over([math.nan]), "No model has a share"),
        (lambda: bootstrap_means({"a": np.ones(3), "b": np.ones(4)}), r"not \[3, 4\]"),
        (lambda: bootstrap_means({"a": np.ones(1)}), r"not \[1\]"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
