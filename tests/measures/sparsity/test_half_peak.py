import math
import warnings

import numpy as np
import pytest
import torch

from utils.measures.sparsity import HalfPeak, PeakResponse, half_peak_fraction


def exponential(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).exponential(size=shape)).float()


def two_passes(minibatches, unit=None, **options):
    peaks = PeakResponse(unit, **options)
    for responses in minibatches:
        peaks.update(responses)
    half = HalfPeak(peaks.compute(), unit, **options)
    for responses in minibatches:
        half.update(responses)
    return half.compute()


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


@pytest.mark.parametrize("sizes", [(100,), (1, 99), (33, 33, 34)])
def test_two_passes_over_a_stream_equal_one_over_the_whole(sizes):
    responses = exponential(100, 40)
    responses[:, 5] = 0
    expected = half_peak_fraction(responses)
    result = two_passes(responses.split(sizes))
    torch.testing.assert_close(result.lifetime.float(), expected.lifetime, equal_nan=True)
    assert result.mean.item() == pytest.approx(expected.population.double().mean().item())
    assert result.mean.item() == pytest.approx(result.lifetime.nanmean().item())
    assert result.sd.item() == pytest.approx(expected.population.double().std().item())
    assert (result.dead, result.stimuli) == (1, 100)


def test_ranks_that_merge_their_peaks_and_then_their_counts_equal_one():
    responses = exponential(90, 12)
    ranks = [PeakResponse(), PeakResponse()]
    for rank, part in zip(ranks, responses.split([50, 40]), strict=True):
        rank.update(part)
    ranks[0].merge_state(ranks[1])
    halves = [HalfPeak(ranks[0].compute()) for _ in range(2)]
    for half, part in zip(halves, responses.split([50, 40]), strict=True):
        half.update(part)
    halves[0].merge_state(halves[1])
    expected = half_peak_fraction(responses)
    torch.testing.assert_close(halves[0].compute().lifetime.float(), expected.lifetime)


def test_channels_are_pooled_over_positions_and_positions_are_units_of_their_own():
    maps = exponential(20, 3, 4, 5)
    channel = two_passes(maps.split(7), unit="channel")
    expected = half_peak_fraction(maps.double().mean((2, 3)))
    torch.testing.assert_close(channel.lifetime, expected.lifetime.double(), rtol=1e-6, atol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        position = two_passes(maps.split(7), unit="position")
    assert position.lifetime.shape == (3, 4, 5)
    expected = half_peak_fraction(maps.flatten(1)).lifetime.double()
    torch.testing.assert_close(position.lifetime.flatten(), expected, rtol=1e-6, atol=0)


def test_only_dead_units_have_no_half_peak_fraction():
    result = two_passes([torch.zeros(4, 3)])
    assert result.mean.isnan()
    assert result.dead == 3


def test_other_stimuli_in_the_second_pass_are_noticed():
    half = HalfPeak(torch.ones(3))
    half.update(torch.full((4, 3), 1.5))
    with pytest.raises(ValueError, match="both passes must see the same stimuli"):
        half.compute()


def test_peaks_of_other_units_are_refused():
    with pytest.raises(ValueError, match=r"units of shape \(5,\) for peaks of shape \(3,\)"):
        HalfPeak(torch.ones(3)).update(torch.ones(4, 5))


def test_bad_responses_are_refused():
    with pytest.raises(ValueError, match="half_peak_fraction got NaN or infinite"):
        half_peak_fraction(torch.tensor([[1.0, math.nan], [1.0, 1.0]]))
    for bad in (torch.ones(1, 5), torch.ones(5), torch.ones(5, 2, 3)):
        with pytest.raises(ValueError, match=r"needs responses \[stimuli, units\]"):
            half_peak_fraction(bad)
    peaks = PeakResponse()
    peaks.update(torch.tensor([[1.0, math.nan], [1.0, 1.0]]))
    with pytest.raises(ValueError, match="PeakResponse got NaN or infinite"):
        peaks.compute()
    half = HalfPeak(torch.ones(2))
    half.update(torch.tensor([[1.0, math.nan], [1.0, 1.0]]))
    with pytest.raises(ValueError, match="HalfPeak got NaN or infinite"):
        half.compute()
