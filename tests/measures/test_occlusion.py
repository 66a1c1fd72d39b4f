"""Hiding a window costs what the window gave, and nothing where the network does not look."""

import pytest
import torch
from torch import nn

from utils.measures.occlusion import fall_when_hidden


class Corner(nn.Module):
    """Two classes; the logit of the first is the mean of the top left 8 × 8 pixels, in red."""

    def forward(self, images):
        seen = images[:, 0, :8, :8].mean((1, 2))
        return torch.stack([seen, torch.zeros_like(seen)], dim=1)


def bright_corner():
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, :8, :8] = 1
    return images


def test_only_windows_over_what_a_network_looks_at_cost_it_something():
    fall = fall_when_hidden(Corner(), bright_corner(), torch.tensor([0]))
    assert fall.shape == (1, 7, 7)
    assert (fall[0, :2, :2] > 0).all()
    assert fall[0, 2:].abs().max() == fall[0, :, 2:].abs().max() == 0


def test_the_fall_is_the_difference_of_log_probabilities_in_nats():
    fall = fall_when_hidden(Corner(), bright_corner(), torch.tensor([0]), step=8)
    mean = 64 / 32**2  # of the image, which the window takes
    before, after = (torch.tensor(x).sigmoid().log() for x in (1.0, mean))
    assert fall[0, 0, 0] == pytest.approx(float(before - after))


def test_hiding_what_speaks_against_a_class_helps_it():
    fall = fall_when_hidden(Corner(), bright_corner(), torch.tensor([1]), step=8)
    assert fall[0, 0, 0] < 0


@pytest.mark.parametrize(("window", "step"), [(33, 4), (0, 4), (8, 0)])
def test_a_window_has_to_fit(window, step):
    with pytest.raises(ValueError, match="does not fit images of 32 × 32"):
        fall_when_hidden(Corner(), bright_corner(), torch.tensor([0]), window, step)


def test_images_and_labels_are_as_many():
    with pytest.raises(ValueError, match="1 images need as many labels, not 2"):
        fall_when_hidden(Corner(), bright_corner(), torch.tensor([0, 1]))
