"""Attention by relative position alone, next to the convolution that it approaches."""

import pytest
import torch
from torch.nn import functional as F

from utils.models.convolutional_attention import ConvolutionalAttention


@pytest.fixture
def normal():
    draw = torch.Generator().manual_seed(1)
    return lambda *shape: torch.randn(*shape, generator=draw, dtype=torch.float64)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_sharp_attention_is_the_convolution_to_the_border(normal, size):
    kernel, images = normal(4, 3, size, size), normal(2, 3, 6, 7)
    found = ConvolutionalAttention(kernel, 50)(images)
    torch.testing.assert_close(
        found, F.conv2d(images, kernel, padding=size // 2), atol=1e-12, rtol=0
    )


def test_without_a_head_its_weight_is_missing(normal):
    kernel, images = normal(4, 3, 3, 3), normal(2, 3, 6, 6)
    found = ConvolutionalAttention(kernel, 50, [h for h in range(9) if h != 5])(images)
    kernel[..., 1, 2] = 0  # the sixth place, row by row
    torch.testing.assert_close(found, F.conv2d(images, kernel, padding=1), atol=1e-12, rtol=0)


def test_attention_is_a_distribution_with_its_peak_at_the_heads_shift(normal):
    attention = ConvolutionalAttention(normal(1, 1, 3, 3), 0.5).attention(4, 4)
    torch.testing.assert_close(attention.sum(-1), torch.ones(9, 16, dtype=torch.float64))
    # Head 0 looks up and left: from the first token to the first of the six by six keys.
    assert attention[0, 0].argmax() == 0
    assert attention[8, 15].argmax() == 35


def test_a_kernel_without_a_middle_is_refused(normal):
    with pytest.raises(ValueError, match="4×4 has no middle"):
        ConvolutionalAttention(normal(1, 1, 4, 4), 1)


def test_attention_without_sharpness_is_refused(normal):
    with pytest.raises(ValueError, match="sharpness of 0 attends nowhere"):
        ConvolutionalAttention(normal(1, 1, 3, 3), 0)
