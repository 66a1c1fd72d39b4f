"""Evidence on equal budgets: made-up accuracies and laws of which the answer is known."""

import math

import numpy as np
import pytest
from helpers.tables import by_criterion, found, judged, row, seeds, write
from scipy import optimize, stats

from experiments.evidence import rules
from experiments.evidence.scale import extrapolation
from experiments.training.groups import BUDGETS
from utils.models import zoo

SPREAD = np.array([-0.001, 0.0, 0.001])


def accuracies(levels, spread=SPREAD, quantity="accuracy"):
    """A table of (ViT, CNN, hybrid) at each budget, each with seeds about its level."""
    for names, each in zip(BUDGETS, levels, strict=True):
        for design, level in zip(names, each, strict=True):
            for name, shift in zip(seeds(design, len(spread)), spread, strict=True):
                yield row(name, quantity, level + shift)
                yield row(name, quantity, 0.0, "random")


AHEAD, LITTLE, BEHIND_ONE = (0.7, 0.7, 0.75), (0.7, 0.7, 0.709), (0.7, 0.8, 0.75)


def test_a_hybrid_wins_a_budget_where_it_is_a_point_above_both_for_certain(tmp_path):
    levels = (AHEAD, AHEAD, LITTLE, BEHIND_ONE, AHEAD, AHEAD)
    write(tmp_path, "accuracy", list(accuracies(levels)))
    evidence = found("zh", tmp_path)
    assert by_criterion(evidence).loc[("budgets", "main"), "estimate"] == pytest.approx(4 / 6)
    assert evidence["models"].tolist() == [54]
    assert judged(evidence, "zh") == (rules.SUPPORTED, "")
    write(tmp_path, "accuracy", list(accuracies((*levels[:5], LITTLE))))
    assert judged(found("zh", tmp_path), "zh")[0] == rules.MIXED


def test_seeds_that_scatter_widely_win_no_budget(tmp_path):
    # By a t-test of 3 and 3 seeds, a gap of 5 points is found up to an SD of about 2.2 points.
    for spread, share in ((0.021, 1), (0.023, 0)):
        assert (stats.ttest_ind(SPREAD, SPREAD + 0.05 * 0.001 / spread).pvalue < 0.05) == share
        write(tmp_path, "accuracy", list(accuracies([AHEAD] * 6, spread * SPREAD / 0.001)))
        assert found("zh", tmp_path)["estimate"].tolist() == [share]


def without(rows, budgets):
    """Rows without the third seed of the CNN at some budgets."""
    left_out = {f"{BUDGETS[i][1]}-s2" for i in budgets}
    return [row for row in rows if row["model"] not in left_out]


def test_two_seeds_at_a_budget_are_too_few_for_the_claim_on_hybrids(tmp_path):
    levels = (AHEAD, LITTLE, BEHIND_ONE, LITTLE, LITTLE, AHEAD)
    write(tmp_path, "accuracy", without(accuracies(levels), (1, 3, 4)))
    evidence = found("zh", tmp_path)
    assert evidence["estimate"].tolist() == [pytest.approx(2 / 3)]
    assert evidence["models"].tolist() == [27]
    write(tmp_path, "accuracy", without(accuracies([AHEAD] * 6), (1, 2, 3, 4)))
    assert found("zh", tmp_path).empty


def test_parity_is_judged_at_the_budget_with_the_largest_gap_in_error(tmp_path):
    levels = [(0.70, 0.70 + gap, 0.9) for gap in (0.002, -0.001, 0.003, -0.006, 0.0, 0.001)]
    write(tmp_path, "accuracy", list(accuracies(levels)))
    evidence = found("sm1", tmp_path)
    # Errors of the ViT less those of the CNN, in points.
    test = stats.ttest_ind(100 * (0.3 + SPREAD), 100 * (0.306 + SPREAD))
    bounds = test.confidence_interval()
    said = by_criterion(evidence).loc[("parity", "main")]
    assert said["estimate"] == pytest.approx(-0.6)
    assert tuple(said[["low", "high", "p"]]) == pytest.approx((*bounds, test.pvalue))
    assert judged(evidence, "sm1") == (rules.SUPPORTED, "")
    levels[0] = (0.70, 0.72, 0.9)
    write(tmp_path, "accuracy", list(accuracies(levels)))
    evidence = found("sm1", tmp_path)
    assert evidence["estimate"].tolist() == [pytest.approx(2.0)]
    assert judged(evidence, "sm1")[0] == rules.NOT_SUPPORTED


def test_parity_waits_for_every_budget(tmp_path):
    rows = [r for r in accuracies([AHEAD] * 6) if not r["model"].startswith(BUDGETS[5][0])]
    write(tmp_path, "accuracy", rows)
    assert found("sm1", tmp_path).empty


FLOPS = 1e7 * 2.0 ** np.arange(6)


@pytest.fixture
def counted(monkeypatch):
    """A zoo that knows the operations of each network: double of the last at each budget."""
    entries = {
        rung + name: {"flops": flops}
        for rung in ("", "cifar10/")
        for names, flops in zip(BUDGETS, FLOPS, strict=True)
        for name in names
    }
    monkeypatch.setattr(zoo, "manifest", lambda: entries)


def losses(vit, cnn, spread=(0.0,), rung=""):
    """Log losses of seeds about those of each kind at each budget."""
    for names, *levels in zip(BUDGETS, vit, cnn, strict=True):
        for design, level in zip(names, levels, strict=False):
            for name, shift in zip(seeds(design, len(spread)), spread, strict=True):
                yield row(rung + name, "cross_entropy", level * math.exp(shift))


def law(a, b, c=0.0):
    return a * (FLOPS / FLOPS[0]) ** -b + c


def aicc_gain(x, y):
    """By how much AICc falls with an offset, of least squares in log loss.

    The law with an offset by a search over its exponent and its offset in units of the first term,
    for the best factor is then a mean.
    """
    logs, x = np.log(y), x / x[0]

    def residual(parameters):
        shape = np.log(x ** -parameters[0] + abs(parameters[1]))
        return float((((logs - shape) - (logs - shape).mean()) ** 2).sum())

    starts = [(b, r) for b in (0.1, 0.3, 0.6, 1.2) for r in (0.0, 0.1, 0.5, 2.0)]
    options = dict(xatol=1e-10, fatol=1e-16, maxiter=20_000, maxfev=20_000)
    found = [optimize.minimize(residual, s, method="Nelder-Mead", options=options) for s in starts]
    plain = stats.linregress(np.log(x), logs)
    sums = ((1 - plain.rvalue**2) * ((logs - logs.mean()) ** 2).sum(), min(r.fun for r in found))
    n = len(x)
    aicc = [
        n * math.log(total / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1)
        for total, k in zip(sums, (3, 4), strict=True)
    ]
    return aicc[0] - aicc[1]


BUMPS = np.exp(0.01 * np.array([1, -1, 1, 1, -1, -1]))


SCATTER = (-0.001, 0.0, 0.001)


def test_a_law_is_extrapolated_to_the_largest_budget_and_the_worse_kind_counts(counted, tmp_path):
    vit, cnn = law(2.0, 0.3), law(3.0, 0.2)
    vit[-1], cnn[-1] = vit[-1] * 1.02, cnn[-1] / 1.1
    write(tmp_path, "accuracy", list(losses(vit, cnn, SCATTER)))
    evidence = found("sm2", tmp_path)
    said = by_criterion(evidence).loc[("prediction", "main")]
    assert said["estimate"] == pytest.approx(0.1)  # 1.1 − 1
    assert 0.05 < said["low"] < 0.1 < said["high"] < 0.15
    assert said["models"] == 36
    assert judged(evidence, "sm2")[0] == rules.NOT_SUPPORTED
    write(tmp_path, "accuracy", list(losses(law(2.0, 0.3), law(3.0, 0.2), SCATTER)))
    evidence = found("sm2", tmp_path)
    assert by_criterion(evidence).loc[("prediction", "main"), "estimate"] < 1e-9
    assert judged(evidence, "sm2") == (rules.SUPPORTED, "")


def test_of_single_seeds_a_prediction_has_no_interval(counted, tmp_path):
    write(tmp_path, "accuracy", list(losses(law(2.0, 0.3), law(3.0, 0.2))))
    evidence = found("sm2", tmp_path)
    said = by_criterion(evidence).loc[("prediction", "main")]
    assert said[["low", "high"]].tolist() == [0.0, math.inf]
    assert judged(evidence, "sm2") == (rules.UNDECIDED, "prediction")


def test_an_offset_counts_by_what_aicc_gains_with_it(counted, tmp_path):
    plain, bent = law(2.0, 0.3) * BUMPS, law(2.0, 0.6, 0.5) * np.exp(0.002 * np.log(BUMPS) / 0.01)
    gains = [aicc_gain(FLOPS, y) for y in (plain, bent)]
    assert gains[0] < 4 < gains[1]
    for kinds in ((plain, bent), (bent, plain)):
        write(tmp_path, "accuracy", list(losses(*kinds)))
        evidence = found("sm2", tmp_path)
        offset = by_criterion(evidence).loc[("offset", "main")]
        assert offset["estimate"] == offset["low"] == offset["high"]
        assert offset["estimate"] == pytest.approx(gains[1], abs=0.01)
        assert judged(evidence, "sm2") == (rules.NOT_SUPPORTED, "offset")
    write(tmp_path, "accuracy", list(losses(plain, plain)))
    offset = by_criterion(found("sm2", tmp_path)).loc[("offset", "main"), "estimate"]
    assert offset == pytest.approx(gains[0], abs=0.01)


def test_a_line_that_bends_the_other_way_gains_nothing_and_pays_for_its_offset(counted, tmp_path):
    steeper = law(2.0, 0.2) * np.exp(-0.02 * np.arange(6.0) ** 2)
    write(tmp_path, "accuracy", list(losses(steeper, steeper)))
    offset = by_criterion(found("sm2", tmp_path)).loc[("offset", "main"), "estimate"]
    # With 6 points: 2·3 + 24/2 without it, 2·4 + 40/1 with it.
    assert offset == pytest.approx(18 - 48, abs=1e-3)


def test_a_law_waits_for_every_budget(counted, tmp_path):
    rows = [r for r in losses(law(2.0, 0.3), law(3.0, 0.2)) if r["model"] != BUDGETS[4][1]]
    write(tmp_path, "accuracy", rows)
    assert found("sm2", tmp_path).empty


def test_a_law_waits_for_networks_whose_operations_are_known(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "manifest", dict)
    write(tmp_path, "accuracy", list(losses(law(2.0, 0.3), law(3.0, 0.2))))
    assert found("sm2", tmp_path).empty


def test_a_law_is_fitted_to_each_network_on_each_rung(counted, tmp_path):
    spread = (-0.03, 0.01, 0.02)
    for rung, kinds in (("objects", (2.0, 3.0)), ("cifar10", (4.0, 5.0))):
        levels = [law(a, 0.4, 0.1 * a) for a in kinds]
        prefix = "" if rung == "objects" else f"{rung}/"
        write(tmp_path, "accuracy", list(losses(*levels, spread, prefix)), rung)
        evidence = by_criterion(found("sm2", tmp_path, rung))
        x = np.repeat(FLOPS, 3)
        y = [np.concatenate([v * np.exp(spread) for v in level]) for level in levels]
        gain = max(aicc_gain(x, each) for each in y)
        assert evidence.loc[("offset", "main"), "estimate"] == pytest.approx(gain, abs=0.01)
        # The line through five budgets, at the sixth; the same for both kinds, which differ in a.
        logs = np.log(levels[0])
        line = np.poly1d(np.polyfit(np.arange(5.0), logs[:5], 1))
        error = abs(math.expm1(line(5) - logs[5]))
        assert evidence.loc[("prediction", "main"), "estimate"] == pytest.approx(error)
        assert evidence["models"].tolist() == [36, 36]


def test_an_extrapolation_has_the_interval_of_the_seeds():
    flops = 2.0 ** np.arange(6)
    plain = 3 * flops**-0.3
    seeds = [[x * math.exp(0.05 * s) for s in (-1, 0, 1)] for x in plain]
    error = extrapolation(flops, seeds)
    assert error.estimate == pytest.approx(0.0, abs=1e-9)
    assert error.low == 0.0 < error.high
    # By hand: the line's weights at the last of equally spaced points, and the point itself.
    x = np.arange(5.0)
    weights = 1 / 5 + (5 - x.mean()) * (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    half = 0.05 * math.sqrt(((weights**2).sum() + 1) / 3)
    assert error.high == pytest.approx(math.expm1(stats.t.ppf(0.975, 12) * half))
    broken = [*seeds[:-1], [2 * x for x in seeds[-1]]]
    assert extrapolation(flops, broken).low > 0.3
    assert extrapolation(flops, [[x] for x in plain]).high == math.inf


def test_a_true_law_of_noisy_seeds_is_seldom_refuted():
    rng, flops = np.random.default_rng(0), 2.0 ** np.arange(6)
    rule, said = rules.Below(0.05), []
    for _ in range(200):
        noise = 0.1 * rng.standard_normal((6, 3))
        error = extrapolation(flops, list(flops[:, None] ** -0.3 * np.exp(noise)))
        said.append(rule.judge(error.estimate, error.low, error.high))
    assert said.count(rules.NOT_SUPPORTED) <= 10
