import math

import numpy as np
import pytest
import scipy.stats
import torch

from utils.measures import sparsity
from utils.measures.sparsity import vector

MEASURES = {name: getattr(sparsity, name) for name in vector.MEASURES}
NON_NEGATIVE = [name for name in MEASURES if name not in ("excess_kurtosis", "active_fraction")]

# Written from the definitions, in float64, one vector at a time.
REFERENCES = {
    "gini": lambda r: np.abs(r[:, None] - r).sum() / (2 * len(r) * r.sum()),
    "treves_rolls": lambda r: r.mean() ** 2 / (r**2).mean(),
    "vinje_gallant": lambda r: (1 - r.mean() ** 2 / (r**2).mean()) / (1 - 1 / len(r)),
    "hoyer": lambda r: (
        (np.sqrt(len(r)) - np.linalg.norm(r, 1) / np.linalg.norm(r, 2)) / (np.sqrt(len(r)) - 1)
    ),
    "excess_kurtosis": lambda r: scipy.stats.kurtosis(r),
    "normalised_entropy": lambda r: scipy.stats.entropy(r, base=len(r)),
    "active_fraction": lambda r: np.count_nonzero(r) / len(r),
}


def exponential(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).exponential(size=shape))


@pytest.mark.parametrize("n", [2, 5, 196])
def test_one_hot_vectors_take_the_sparse_end(n):
    r = torch.eye(n)[0]
    assert sparsity.gini(r).item() == pytest.approx(1 - 1 / n)
    assert sparsity.treves_rolls(r).item() == pytest.approx(1 / n)
    assert sparsity.vinje_gallant(r).item() == pytest.approx(1)
    assert sparsity.hoyer(r).item() == pytest.approx(1)
    assert sparsity.normalised_entropy(r).item() == 0
    assert sparsity.active_fraction(r).item() == pytest.approx(1 / n)
    # m₂ = pq, m₄ = pq(1 − 3pq) for a share p = 1/n of ones
    pq = (1 / n) * (1 - 1 / n)
    assert sparsity.excess_kurtosis(r).item() == pytest.approx((1 - 3 * pq) / pq - 3, rel=1e-5)


@pytest.mark.parametrize("value", [0.1, 1.0, 1e-6])
def test_equal_responses_take_the_dense_end(value):
    r = torch.full((196,), value)
    assert sparsity.gini(r).item() == pytest.approx(0, abs=1e-12)
    assert sparsity.treves_rolls(r).item() == pytest.approx(1)
    assert sparsity.vinje_gallant(r).item() == pytest.approx(0, abs=1e-12)
    assert sparsity.hoyer(r).item() == pytest.approx(0, abs=1e-12)
    assert sparsity.normalised_entropy(r).item() == pytest.approx(1)
    assert sparsity.active_fraction(r).item() == 1
    assert sparsity.excess_kurtosis(r).isnan()


def test_exponential_responses_have_their_expected_values_at_finite_n():
    n = 196
    r = exponential(20_000, n)
    assert sparsity.gini(r).mean().item() == pytest.approx((n - 1) / (2 * n), abs=1e-3)
    assert sparsity.treves_rolls(r).mean().item() == pytest.approx((n + 1) / (2 * n), abs=3e-3)
    # 6 only in the limit: 4.90 here, and 5.06 were m₂ and m₄ corrected for bias
    assert sparsity.excess_kurtosis(r).mean().item() == pytest.approx(4.90, abs=0.08)
    entropy = 1 - (1 - np.euler_gamma) / math.log(n)
    assert sparsity.normalised_entropy(r).mean().item() == pytest.approx(entropy, abs=1e-3)


def test_gini_of_two_exponential_draws_is_a_quarter_on_average():
    assert sparsity.gini(exponential(400_000, 2)).mean().item() == pytest.approx(1 / 4, abs=1e-3)


def test_long_exponential_vectors_approach_the_limits():
    r = exponential(1_000_000)
    for name in ("treves_rolls", "gini", "vinje_gallant"):
        assert MEASURES[name](r).item() == pytest.approx(1 / 2, abs=3e-3)
    assert sparsity.hoyer(r).item() == pytest.approx(1 - 1 / math.sqrt(2), abs=3e-3)
    assert sparsity.excess_kurtosis(r).item() == pytest.approx(6, abs=0.4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", MEASURES)
def test_measures_equal_their_float64_references(name, dtype):
    r = exponential(20, 57)
    r[r < 0.3] = 0
    r = r.to(dtype)
    expected = [REFERENCES[name](row) for row in r.double().numpy()]
    tolerance = {"rtol": 1e-6, "atol": 0} if dtype is torch.float32 else {"rtol": 1e-12, "atol": 0}
    np.testing.assert_allclose(MEASURES[name](r).numpy(), expected, **tolerance)


def test_excess_kurtosis_takes_signed_responses():
    r = np.random.default_rng(0).laplace(size=(5, 300))
    expected = scipy.stats.kurtosis(r, axis=1)
    np.testing.assert_allclose(sparsity.excess_kurtosis(torch.from_numpy(r)), expected, rtol=1e-12)


def test_active_fraction_counts_strictly_above_the_threshold():
    r = torch.tensor([-1.0, 0.0, 0.2, 0.5, 0.7])
    assert sparsity.active_fraction(r).item() == pytest.approx(3 / 5)
    assert sparsity.active_fraction(r, threshold=0.5).item() == pytest.approx(1 / 5)


@pytest.mark.parametrize("name", MEASURES)
def test_measures_reduce_the_stated_dim_and_batch_the_others(name):
    r = exponential(3, 11, 4)
    values = MEASURES[name](r, dim=1)
    assert values.shape == (3, 4)
    assert values[2, 1].item() == pytest.approx(MEASURES[name](r[2, :, 1]).item(), rel=1e-12)


@pytest.mark.parametrize("name", MEASURES)
def test_measures_ignore_order_and_scale(name):
    r = exponential(8, 60).float()
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    for other in (r[:, order], r * 1000, r * 1e-25):
        torch.testing.assert_close(MEASURES[name](other), MEASURES[name](r), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", MEASURES)
def test_half_precision_is_upcast_before_squaring(name, dtype):
    r = (300 * exponential(4, 50)).to(dtype)  # squares overflow float16
    values = MEASURES[name](r)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, MEASURES[name](r.float()))


@pytest.mark.parametrize("name", MEASURES)
def test_integers_count_as_responses_and_the_input_is_left_alone(name):
    spikes = torch.tensor([[0, 3, 1, 0, 7]])
    assert MEASURES[name](spikes).item() == pytest.approx(REFERENCES[name](spikes[0].numpy()))
    assert spikes.tolist() == [[0, 3, 1, 0, 7]]


@pytest.mark.parametrize("name", MEASURES)
def test_all_zero_vectors_are_nan_and_leave_their_neighbours_alone(name):
    r = torch.stack([torch.zeros(6), torch.arange(6.0)])
    assert MEASURES[name](r).isnan().tolist() == [True, False]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", MEASURES)
def test_nan_and_infinite_responses_are_refused_by_name(name, bad):
    with pytest.raises(ValueError, match=f"{name} got NaN or infinite"):
        MEASURES[name](torch.tensor([1.0, bad, 2.0]))


@pytest.mark.parametrize("name", NON_NEGATIVE)
def test_negative_responses_are_refused_by_name(name):
    with pytest.raises(ValueError, match=rf"{name} is defined for .* minimum of -0\.5"):
        MEASURES[name](torch.tensor([1.0, -0.5]))


@pytest.mark.parametrize("name", MEASURES)
def test_a_single_response_has_no_sparseness(name):
    for r in (torch.ones(3, 1), torch.tensor(1.0)):
        with pytest.raises(ValueError, match=f"{name} needs at least 2 responses"):
            MEASURES[name](r)


def test_empty_and_complex_responses_are_refused():
    with pytest.raises(ValueError, match="gini got an empty tensor"):
        sparsity.gini(torch.empty(0, 5))
    with pytest.raises(ValueError, match="gini needs real responses"):
        sparsity.gini(torch.ones(5, dtype=torch.complex64))


# The six desiderata of Hurley and Rickard (2009), each as: sparseness before and after a change.


def robin_hood(s, c):
    rich, poor = c.argmax(), c.argmin()
    after = c.clone()
    gift = 0.3 * (c[rich] - c[poor])
    after[rich] -= gift
    after[poor] += gift
    return s(after) < s(c)


def scaling(s, c):
    return math.isclose(s(7.3 * c), s(c), rel_tol=1e-9, abs_tol=1e-9)


def rising_tide(s, c):
    return s(c + 0.4) < s(c)


def cloning(s, c):
    return math.isclose(s(torch.cat([c, c])), s(c), rel_tol=1e-9, abs_tol=1e-9)


def bill_gates(s, c):
    rich = c.clone()
    rich[0] += 100 * c.sum()
    richer = rich.clone()
    richer[0] *= 2
    return s(richer) > s(rich)


def babies(s, c):
    return s(torch.cat([c, torch.zeros(3, dtype=c.dtype)])) > s(c)


DESIDERATA = {
    d.__name__: d for d in (robin_hood, scaling, rising_tide, cloning, bill_gates, babies)
}
LOW_IS_SPARSE = ("treves_rolls", "normalised_entropy", "active_fraction")
FAILED = {
    "gini": set(),
    "treves_rolls": set(),
    "vinje_gallant": {"cloning"},
    "hoyer": {"cloning"},
    "normalised_entropy": {"cloning"},
    "excess_kurtosis": {"robin_hood", "rising_tide", "babies"},
    "active_fraction": {"robin_hood", "rising_tide", "bill_gates"},
}


@pytest.mark.parametrize("name", MEASURES)
def test_each_measure_fails_exactly_its_known_desiderata(name):
    sign = -1 if name in LOW_IS_SPARSE else 1
    vectors = [*exponential(20, 12), torch.tensor([0.0] + 9 * [1.0]).double()]

    def sparseness(c):
        return sign * MEASURES[name](c).item()

    failed = {
        d for d, holds in DESIDERATA.items() if not all(holds(sparseness, c) for c in vectors)
    }
    assert failed == FAILED.get(name), f"FAILED says which desiderata {name} fails, and only those."


def test_correcting_gini_for_n_would_break_cloning():
    c = exponential(12)
    corrected = lambda r: sparsity.gini(r).item() / (1 - 1 / len(r))  # noqa: E731
    assert not cloning(corrected, c)


def test_hoyer_and_vinje_gallant_rank_vectors_as_treves_rolls_does():
    r = exponential(50, 30)
    ranks = sparsity.treves_rolls(r).argsort(descending=True)
    assert torch.equal(sparsity.hoyer(r).argsort(), ranks)
    assert torch.equal(sparsity.vinje_gallant(r).argsort(), ranks)
