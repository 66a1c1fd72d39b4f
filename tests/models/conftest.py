"""A problem that a tiny model learns in a second."""

import pytest
import torch

from utils.models.training import Recipe
from utils.stimuli.views import Fixed


@pytest.fixture(scope="session")
def tiny_data():
    """300 images, the class told by brightness."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (300,), generator=generator)
    noise = 0.1 * torch.rand(300, 3, 32, 32, generator=generator)
    return Fixed(labels.view(-1, 1, 1, 1) / 10 + noise, labels)


@pytest.fixture(scope="session")
def tiny_recipe():
    return Recipe(
        "adamw", lr=1e-2, weight_decay=0.05, batch_size=32, epochs=3, warmup=0.5, descent=2.5
    )
