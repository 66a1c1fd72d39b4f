"""Filters of which it is known how like a Gabor and how oriented they are."""

import math

import pytest
import torch

from utils.measures.filters import FREQUENCIES, gabor_fit, noise_like, orientation_selectivity
from utils.stimuli import psychophysics


def gabors(phase: float) -> torch.Tensor:
    """Those of the list that lie in the middle of 9 × 9 pixels: [48, 1, 9, 9]."""
    wide = [
        psychophysics.gabor(17, 17 * f, k * math.pi / 8, phase, width=0.3 * 9 / 17)
        for f in FREQUENCIES
        for k in range(8)
    ]
    return torch.stack(wide)[:, None, 4:-4, 4:-4]


@pytest.mark.parametrize("phase", [0.0, 1.0, math.pi / 2])
def test_gabors_of_the_list_fit_in_every_phase_and_colour(phase):
    listed = gabors(phase)
    tinted = listed * torch.tensor([1.0, -0.5, 0.2])[:, None, None]
    for filters in (listed, tinted, 7 * tinted + 3):
        assert (gabor_fit(filters) <= 1 + 1e-9).all()
    assert gabor_fit(listed).min() > 0.8  # the list's windows are 0.1, 0.15 and 0.25 wide
    torch.testing.assert_close(gabor_fit(listed), gabor_fit(7 * tinted + 3))


def test_the_fit_is_the_largest_share_over_pairs_found_one_by_one():
    from utils.measures.filters import _gabor_pairs

    filters = torch.randn(3, 2, 5, 5, dtype=torch.float64)
    flat = filters.flatten(2) - filters.flatten(2).mean(-1, keepdim=True)
    for found, colours in zip(gabor_fit(filters), flat, strict=True):
        best = 0.0
        for pair in _gabor_pairs(5):  # [pixels, 2]
            left = colours.T - pair @ torch.linalg.lstsq(pair, colours.T).solution
            best = max(best, 1 - (left.square().sum() / colours.square().sum()).item())
        assert found.item() == pytest.approx(best)


def test_noise_fits_worse_than_gabors_and_the_worse_the_larger_it_is():
    median = {n: gabor_fit(torch.randn(40, 1, n, n)).median() for n in (5, 9, 13)}
    assert 0.8 > median[5] > median[9] > median[13]


def test_a_grating_is_oriented_and_a_point_is_not():
    wave = psychophysics.grating(11, 2.2)[None, None]
    point = torch.zeros(1, 1, 11, 11)
    point[..., 5, 5] = 1
    assert orientation_selectivity(wave) > 0.6
    assert orientation_selectivity(point).item() == pytest.approx(0, abs=1e-9)


def test_a_quarter_turn_and_contrast_leave_the_selectivity_as_it_is():
    filters = torch.randn(20, 3, 6, 6, dtype=torch.float64)
    turned = -5 * filters.rot90(dims=(2, 3))
    torch.testing.assert_close(orientation_selectivity(filters), orientation_selectivity(turned))


def test_grey_noise_is_more_oriented_than_noise_of_three_colours():
    grey, colours = torch.randn(2000, 1, 3, 3).expand(-1, 3, -1, -1), torch.randn(2000, 3, 3, 3)
    line = orientation_selectivity(colours).quantile(0.95)
    assert (orientation_selectivity(grey) > line).double().mean() > 0.2


def test_noise_has_the_covariance_of_the_colours_and_nothing_else():
    mix = torch.tensor([[1.0, 0.0, 0.0], [0.9, 0.3, 0.0], [0.5, 0.5, 0.5]])
    filters = torch.einsum("cd,ndhw->nchw", mix, torch.randn(4000, 3, 4, 4))
    noise = noise_like(filters, 4000, seed=1)
    values = noise.transpose(0, 1).flatten(1)
    wanted = (mix @ mix.T).double()
    torch.testing.assert_close(values @ values.T / values.shape[1], wanted, atol=0.05, rtol=0)
    pixels = noise[:, 0].flatten(1)
    assert (torch.corrcoef(pixels.T) - torch.eye(16)).abs().max() < 0.08
    assert torch.equal(noise, noise_like(filters, 4000, seed=1))
    assert not torch.equal(noise, noise_like(filters, 4000, seed=2))


@pytest.mark.parametrize("measure", [gabor_fit, orientation_selectivity])
@pytest.mark.parametrize("shape", [(3, 3), (2, 1, 3, 4), (0, 1, 3, 3)])
def test_filters_of_another_shape_are_refused(measure, shape):
    with pytest.raises(ValueError, match="needs square filters"):
        measure(torch.ones(shape))


def test_a_filter_of_a_single_value_has_no_fit():
    with pytest.raises(ValueError, match="needs filters that vary"):
        gabor_fit(torch.ones(2, 1, 5, 5))


def test_colours_that_mix_without_remainder_are_refused():
    with pytest.raises(ValueError, match="each in its own way"):
        noise_like(torch.ones(5, 3, 3, 3), 10)
