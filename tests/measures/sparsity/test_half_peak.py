import math

import numpy as np
import pytest
import torch

from utils.measures.sparsity import half_peak_fraction


def exponential(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).exponential(size=shape)).float()


def test_half_peak_counts_by_hand():
    responses = torch.tensor([[4.0, 0.0, 1.0], [2.0, 0.0, 0.6], [3.0, 0.0, 0.4]])
    result = half_peak_fraction(responses)
    # half peaks 2 and 0.5; the second unit is dead
    torch.testing.assert_close(result.population, torch.tensor([1.0, 0.5, 0.5]))
    torch.testing.assert_close(
        result.lifetime, torch.tensor([2 / 3, math.nan, 2 / 3]), equal_nan=True
    )
    assert result.dead == 1


def test_population_and_lifetime_means_of_one_mask_are_the_same_number():
    responses = exponential(200, 30)
    responses[:, 3:7] = 0
    result = half_peak_fraction(responses)
    assert result.population.mean().item() == pytest.approx(result.lifetime.nanmean().item())


def test_exponential_responses_fall_as_the_root_of_the_number_of_stimuli():
    for m in (500, 2250):
        fraction = half_peak_fraction(exponential(m, 4000)).population.mean().item()
        assert fraction == pytest.approx(0.886 / math.sqrt(m), rel=0.02)
    assert fraction == pytest.approx(0.0187, abs=0.0002)


def test_half_peak_is_at_least_one_over_m():
    assert half_peak_fraction(torch.eye(8)).lifetime.tolist() == [1 / 8] * 8


def test_signed_responses_count_against_a_positive_peak():
    result = half_peak_fraction(torch.tensor([[-1.0, -2.0], [2.0, -1.0]]))
    assert result.lifetime[0].item() == 0.5
    assert result.dead == 1


def test_bad_responses_are_refused():
    with pytest.raises(ValueError, match="half_peak_fraction got NaN or infinite"):
        half_peak_fraction(torch.tensor([[1.0, math.nan], [1.0, 1.0]]))
    for bad in (torch.ones(1, 5), torch.ones(5), torch.ones(5, 2, 3)):
        with pytest.raises(ValueError, match=r"needs responses \[stimuli, units\]"):
            half_peak_fraction(bad)
