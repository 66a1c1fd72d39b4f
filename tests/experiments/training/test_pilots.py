"""The table of pilots says what was tried and what came of it."""

from dataclasses import replace

import pytest

from experiments.training import pilots
from experiments.training.trainer import train


def test_every_finished_pilot_has_a_row(tiny_data, tiny_recipe, tmp_path):
    for lr in (0.01, 0.02):
        recipe = replace(tiny_recipe, lr=lr, epochs=1, descent=0.5)
        train("vit-d1-h2-w8", tiny_data, tiny_data, recipe, tmp_path / f"lr-{lr}")
    (tmp_path / "unfinished" / "vit-d1-h2-w8").mkdir(parents=True)
    found = pilots.table(tmp_path)
    assert found["pilot"].tolist() == ["lr-0.01", "lr-0.02"]
    assert found["lr"].tolist() == [0.01, 0.02]
    assert found["views"].tolist() == [300, 300]
    assert set(found["model"]) == {"vit-d1-h2-w8"}
    assert found["accuracy"].between(0, 1).all()


def test_a_folder_without_pilots_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no finished run"):
        pilots.table(tmp_path)
