import math

import numpy as np
import pytest
import torch

from utils.measures import sparsity
from utils.measures.sparsity.controls import overlap


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def sparse_rows(*shape, spread=1.36, seed=0):
    return sparsity.gaussian_logit_rows(spread, shape, seeded(seed))


def test_identical_heads_overlap_entirely():
    maps = sparse_rows(6, 1, 196).expand(6, 4, 196)
    result = sparsity.placement_overlap(maps, seeded())
    assert result.overlap.item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(result.averaged, result.per_head)


def test_independently_placed_heads_do_not_overlap():
    result = sparsity.placement_overlap(sparse_rows(200, 6, 196), seeded(1))
    assert result.overlap.item() == pytest.approx(0, abs=0.02)
    assert result.averaged.shape == result.per_head.shape == result.permuted.shape == (200,)


def test_heads_that_avoid_each_other_overlap_less_than_by_chance():
    maps = torch.eye(4).repeat_interleave(5, 1).expand(3, 4, 20) / 5  # disjoint places
    assert sparsity.placement_overlap(maps, seeded()).overlap.item() < -0.2


def test_mixtures_of_shared_and_own_places_lie_between():
    shared, own = sparse_rows(50, 1, 196), sparse_rows(50, 6, 196, seed=1)
    overlaps = [
        sparsity.placement_overlap(w * shared + (1 - w) * own, seeded()).overlap.item()
        for w in (0.0, 0.3, 0.6, 1.0)
    ]
    assert overlaps == sorted(overlaps)


def test_averaging_independent_heads_hides_sparsity():
    # Gaussian logits of spread 1.36 have a Gini of about .65; 2, 4 … 32 such heads average to less.
    maps = sparse_rows(200, 32, 196)
    assert sparsity.gini(maps).mean().item() == pytest.approx(0.64, abs=0.02)
    for heads, expected in {2: 0.55, 4: 0.44, 8: 0.35, 16: 0.26, 32: 0.19}.items():
        average = maps[:, :heads].mean(1)
        assert sparsity.gini(average).mean().item() == pytest.approx(expected, abs=0.02)


def test_the_overlap_is_the_ratio_of_the_ginis_and_depends_on_the_seed_alone():
    maps = sparse_rows(10, 3, 50)
    first, second = (sparsity.placement_overlap(maps, seeded(3)) for _ in range(2))
    assert first.overlap == second.overlap
    head, averaged, permuted = (g.mean() for g in first[1:])
    torch.testing.assert_close(first.overlap, (averaged - permuted) / (head - permuted))


def test_the_overlap_of_three_ginis_is_the_share_of_the_way_from_permuted_to_per_head():
    # Of heads, of their average, of the average of permuted ones: (.5 − .3)/(.8 − .3), and so on.
    per_head, averaged, permuted = torch.tensor(
        [[0.8, 0.5, 0.3], [0.8, 0.8, 0.3], [0.8, 0.3, 0.3], [0.8, 0.2, 0.4], [0.3, 0.3, 0.3]],
        dtype=torch.float64,
    ).T
    found = overlap(per_head, averaged, permuted)
    expected = torch.tensor([0.4, 1.0, 0.0, -0.5, math.nan], dtype=torch.float64)
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_uniform_heads_have_no_placement():
    assert sparsity.placement_overlap(torch.full((2, 3, 50), 1 / 50), seeded()).overlap.isnan()


def test_bad_maps_have_no_overlap():
    for bad in (torch.ones(4, 1, 9), torch.ones(4, 9), torch.ones(2, 3, 9, 9)):
        with pytest.raises(ValueError, match=r"needs maps \[batch, heads, keys\] with at least 2"):
            sparsity.placement_overlap(bad, seeded())
    with pytest.raises(ValueError, match="at least 1 permutation, got 0"):
        sparsity.placement_overlap(torch.ones(4, 2, 9), seeded(), permutations=0)
    with pytest.raises(ValueError, match="NaN or infinite"):
        sparsity.placement_overlap(torch.full((4, 2, 9), math.nan), seeded())


def test_patch_rows_sum_to_one_and_report_what_the_prefix_held():
    maps = torch.tensor([[0.4, 0.1, 0.2, 0.3]])
    rows, prefix_mass = sparsity.patch_rows(maps, prefix=2)
    torch.testing.assert_close(rows, torch.tensor([[0.4, 0.6]]))
    torch.testing.assert_close(prefix_mass, torch.tensor([0.5]))
    whole = sparsity.patch_rows(maps, prefix=0)
    torch.testing.assert_close(whole.rows, maps)
    assert whole.prefix_mass.item() == 0


def test_a_row_spent_on_the_prefix_is_nan():
    rows, prefix_mass = sparsity.patch_rows(torch.tensor([1.0, 0.0, 0.0]).half(), prefix=1)
    assert rows.isnan().all()
    assert prefix_mass.item() == 1


@pytest.mark.parametrize("prefix", [-1, 3, 5])
def test_patch_rows_refuses_a_prefix_that_leaves_no_row(prefix):
    with pytest.raises(ValueError, match=f"cannot drop {prefix} prefix keys from 4 keys"):
        sparsity.patch_rows(torch.full((4,), 0.25), prefix)


def test_gaussian_logit_rows_have_the_gini_of_a_lognormal_of_that_spread():
    for spread in (0.5, 1.0):
        rows = sparsity.gaussian_logit_rows(spread, (50, 10_000), seeded())
        torch.testing.assert_close(rows.sum(-1), torch.ones(50))
        # the Gini of a lognormal with spread σ is erf(σ/2)
        assert sparsity.gini(rows).mean().item() == pytest.approx(math.erf(spread / 2), abs=0.005)


def test_the_gini_expected_of_a_spread_is_that_of_rows_drawn_with_it():
    for keys in (16, 64):
        rows = sparsity.gaussian_logit_rows(2.0, (20_000, keys), seeded())
        expected = sparsity.gaussian_gini(rows.log().std(-1, correction=0), keys)
        # Row by row on average: each row's own spread varies, and its index with it.
        assert sparsity.gini(rows).mean() == pytest.approx(float(expected.mean()), abs=0.004)
    many = sparsity.gaussian_gini(torch.tensor([0.0, 0.5, 1.0, math.nan]), 8192)
    closed = [0.0, math.erf(0.25), math.erf(0.5), math.nan]
    assert many.tolist() == pytest.approx(closed, abs=2e-3, nan_ok=True)


@pytest.mark.parametrize(
    ("spread", "keys", "sentence"),
    [(-1.0, 9, "at least 0"), (math.inf, 9, "finite"), (1.0, 1, "1 keys has no spread")],
)
def test_no_gini_is_expected_of_what_is_no_spread(spread, keys, sentence):
    with pytest.raises(ValueError, match=sentence):
        sparsity.gaussian_gini(torch.tensor(spread), keys)


def test_gaussian_logit_rows_take_one_spread_per_head():
    spread = torch.tensor([[0.0], [2.0]])
    rows = sparsity.gaussian_logit_rows(spread, (30, 2, 100), seeded())
    dense, sparse = sparsity.gini(rows).mean(0)
    assert dense.item() == pytest.approx(0, abs=1e-6)
    assert sparse > 0.6


@pytest.mark.parametrize("spread", [-1.0, math.nan, math.inf])
def test_gaussian_logits_need_a_spread(spread):
    with pytest.raises(ValueError, match="logit_std must be finite and at least 0"):
        sparsity.gaussian_logit_rows(spread, (2, 5), seeded())


def test_permuting_heads_keeps_every_row_measure_and_moves_every_row_its_own_way():
    maps = torch.arange(40.0).expand(5, 4, 40)
    permuted = sparsity.permute_heads(maps, seeded())
    torch.testing.assert_close(permuted.sort(-1).values, maps)
    assert len({tuple(row) for row in permuted.flatten(0, 1).tolist()}) == 20
    assert torch.equal(sparsity.gini(permuted), sparsity.gini(maps))


def test_shuffling_stimuli_keeps_lifetime_sparseness_and_changes_population_sparseness():
    gain = torch.from_numpy(np.random.default_rng(0).exponential(size=(300, 1)))
    silence = torch.rand(300, 40, generator=seeded(), dtype=torch.float64) > 0.5
    responses = gain * silence  # a common drive by each stimulus
    shuffled = sparsity.shuffle_stimuli(responses, seeded(1))
    torch.testing.assert_close(
        sparsity.treves_rolls(shuffled, dim=0), sparsity.treves_rolls(responses, dim=0)
    )
    before, after = (sparsity.gini(r).mean().item() for r in (responses, shuffled))
    assert after > before + 0.1


def test_the_mean_map_is_the_mean_over_images():
    maps = sparse_rows(7, 3, 20)
    np.testing.assert_allclose(sparsity.mean_map(maps), maps.numpy().mean(0), rtol=1e-5)
    assert sparsity.mean_map(maps.half()).dtype == torch.float32
