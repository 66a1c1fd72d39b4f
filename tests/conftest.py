"""What all tests share. Nothing here or in any test asks the network."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real images and recordings: `BOOK_DATA`, or `../shared/data`.

    Where there is none the test is skipped; in CI that fails if `../shared` is there, because
    then the data went missing. A test that gets the folder opens its files without asking
    whether they exist, so that a missing one fails.
    """
    folder = Path(os.environ.get("BOOK_DATA") or ROOT.parent / "shared/data")
    if folder.is_dir():
        return folder
    sentence = f"There are no data at {folder}: set BOOK_DATA to the folder that holds them."
    if os.environ.get("CI") == "true" and (ROOT.parent / "shared").is_dir():
        pytest.fail(sentence)
    pytest.skip(sentence)


@pytest.fixture(scope="session")
def tiny_data():
    """A problem that a tiny model learns in a second: 300 images, the class told by brightness."""
    import torch

    from experiments.training.views import Fixed

    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (300,), generator=generator)
    noise = 0.1 * torch.rand(300, 3, 32, 32, generator=generator)
    return Fixed(labels.view(-1, 1, 1, 1) / 10 + noise, labels)


@pytest.fixture(scope="session")
def tiny_recipe():
    """How a tiny model is trained on tiny_data."""
    from experiments.training.recipes import Recipe

    return Recipe(
        "adamw", lr=1e-2, weight_decay=0.05, batch_size=32, epochs=3, warmup=0.5, descent=2.5
    )
