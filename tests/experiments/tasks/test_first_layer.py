"""What is recorded of the filters of a first layer."""

import base64

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

from experiments.tasks import first_layer
from utils.measures import filters


def test_filters_and_noise_of_their_colours_are_recorded_one_by_one(tmp_path):
    weights = torch.randn(30, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    safetensors.torch.save_file({first_layer.TENSOR: weights}, tmp_path / "w.safetensors")
    first_layer.record(tmp_path / "w.safetensors", "made", tmp_path / "table.csv")

    table = pd.read_csv(tmp_path / "table.csv")
    assert table["condition"].tolist() == ["made"] * 30 + ["made noise"] * 30
    own = table[table["condition"] == "made"].set_index("filter")
    assert own["gabor_fit"].to_numpy() == pytest.approx(filters.gabor_fit(weights).numpy())
    assert own["norm"].to_numpy() == pytest.approx(weights.flatten(1).norm(dim=1).numpy())
    assert own["pixels"].notna().sum() == first_layer.SHOWN
    extremes = own["gabor_fit"].idxmin(), own["gabor_fit"].idxmax()
    for shown in extremes:
        stored = np.frombuffer(base64.b64decode(own["pixels"][shown]), np.int8).reshape(3, 5, 5)
        scaled = weights[shown] / weights[shown].abs().max()
        np.testing.assert_allclose(stored / 127, scaled, atol=0.5 / 127)
