"""Patches of photographs, and what whitening makes of them."""

import numpy as np
import pytest
import torch

from utils.stimuli import patches, photographs


def test_patches_are_pieces_of_the_logarithm_of_luminance_less_their_mean():
    x = patches.natural(5, edge=7, seed=3)
    for patch, name in zip(x, photographs.NAMES, strict=True):
        log = np.log(photographs.luminance(name) + 0.05)
        every = np.lib.stride_tricks.sliding_window_view(log, (7, 7)).reshape(-1, 49)
        every = every - every.mean(1, keepdims=True)
        assert np.abs(every - patch.numpy()).max(1).min() < 1e-4


def test_the_seed_decides_the_places():
    assert torch.equal(patches.natural(50, 5), patches.natural(50, 5))
    assert not torch.equal(patches.natural(50, 5), patches.natural(50, 5, seed=1))


def test_whitened_patches_vary_equally_in_the_largest_directions_alone():
    x = patches.natural(4000, edge=6)
    white, kept = patches.whitened(x, kept=20)
    covariance = (white.T @ white / len(white)).double()
    values = torch.linalg.eigvalsh(covariance)
    assert white.std().item() == pytest.approx(1, rel=1e-4)
    torch.testing.assert_close(
        values[-20:], torch.full((20,), values[-1].item()).double(), rtol=1e-4, atol=0
    )
    assert values[:-20].abs().max() < 1e-3
    largest = torch.linalg.eigh(x.T @ x).eigenvectors[:, -20:]
    torch.testing.assert_close(kept, largest @ largest.T, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("n", "edge"), [(7, 5), (0, 5), (5, 0), (5, 10_000)])
def test_numbers_that_do_not_fit_the_photographs_are_refused(n, edge):
    with pytest.raises(ValueError, match=r"not a multiple|do not fit"):
        patches.natural(n, edge)


def test_more_directions_than_there_are_cannot_be_kept():
    x = patches.natural(500, edge=4)  # 16 pixels, of which the mean is gone
    with pytest.raises(ValueError, match="do not vary in 16 directions"):
        patches.whitened(x, kept=16)
