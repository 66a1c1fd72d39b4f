"""The tables of V1: made-up recordings, and the measures by naive loops."""

import math

import numpy as np
import pandas as pd
import pytest

from experiments.engine.results import OtherConfiguration
from experiments.tasks import cortex
from experiments.tasks.standalone import record
from utils.stimuli import recordings

COUNTS = {
    "A": recordings.HalfPeakCounts(np.array([3, 0, 2, 5]), np.array([1, 2, 1, 4, 2])),
    "B": recordings.HalfPeakCounts(np.array([1, 1, 1]), np.array([2, 1])),
}
RANKED = {
    "A": recordings.RankedResponses(np.array([4.0, 1.0, 1.0, -2.0]), np.array([2.0, 2.0, 2.0])),
    "B": recordings.RankedResponses(np.array([1.0, 0.0]), np.array([5.0, 0.0, 0.0, -1.0])),
}


@pytest.fixture
def recorded(monkeypatch):
    """Of the mouse: positive responses of the first region, and of the second some of zero."""
    rng = np.random.default_rng(0)
    responses = {1: rng.exponential(size=(6, 4)), 2: rng.exponential(size=(5, 3))}
    responses[2][2] = 0.0  # an image that nobody answers
    responses[2][:, 1] = 0.0  # a cell that responds to nothing
    monkeypatch.setattr(recordings, "macaque_half_peak", COUNTS.__getitem__)
    monkeypatch.setattr(recordings, "macaque_ranked", RANKED.__getitem__)
    monkeypatch.setattr(
        recordings, "mouse", lambda region: recordings.MouseResponses(responses[region], None)
    )
    monkeypatch.setattr(recordings, "fingerprint", lambda animal: f"recording of {animal}")
    return responses


def table(part):
    return pd.DataFrame(list(cortex.RECORDINGS[part]())).set_index(["quantity", "over"])


def gini(r):
    total = sum(abs(a - b) for a in r for b in r)
    return total / (2 * len(r) * sum(r)) if sum(r) else math.nan


def treves_rolls(r):
    squares = sum(x * x for x in r) / len(r)
    return (sum(r) / len(r)) ** 2 / squares if squares else math.nan


def vinje_gallant(r):
    return (1 - treves_rolls(r)) / (1 - 1 / len(r))


def assert_summary(row, values):
    known = [value for value in values if not math.isnan(value)]
    mean = sum(known) / len(known)
    sd = math.sqrt(sum((value - mean) ** 2 for value in known) / (len(known) - 1))
    assert row[["value", "sd"]].tolist() == pytest.approx([mean, sd])
    assert row[["n", "undefined"]].tolist() == [len(values), len(values) - len(known)]


@pytest.mark.parametrize("monkey", "AB")
def test_half_peak_fractions_of_a_macaque_are_shares_of_its_cells_and_of_its_images(
    monkey, recorded
):
    cells_per_image, images_per_cell = (counts.tolist() for counts in COUNTS[monkey])
    images, cells = len(cells_per_image), len(images_per_cell)
    found = table(f"macaque {monkey}")
    assert_summary(
        found.loc[("half_peak_fraction", "images")], [c / cells for c in cells_per_image]
    )
    assert_summary(
        found.loc[("half_peak_fraction", "cells")], [c / images for c in images_per_cell]
    )


@pytest.mark.parametrize("monkey", "AB")
def test_the_examples_of_a_macaque_have_a_gini_with_falls_of_fluorescence_cut_off(monkey, recorded):
    found = table(f"macaque {monkey}").loc["gini_of_one_example"]
    for over in ("cells", "images"):
        cut = [max(0.0, x) for x in getattr(RANKED[monkey], over)]
        assert found.loc[over, "value"] == pytest.approx(gini(cut))
        assert found.loc[over, "n"] == 1
    assert found.loc["images", "value"] == pytest.approx({"A": 0, "B": 3 / 4}[monkey])


@pytest.mark.parametrize("region", [1, 2])
@pytest.mark.parametrize("measure", [gini, treves_rolls, vinje_gallant])
def test_sparseness_of_the_mouse_is_over_cells_for_each_image_and_over_images_for_each_cell(
    region, measure, recorded
):
    found = table(f"mouse region {region}").loc[measure.__name__]
    responses = recorded[region]
    assert_summary(found.loc["images"], [measure(r) for r in responses.tolist()])
    assert_summary(found.loc["cells"], [measure(r) for r in responses.T.tolist()])
    silent = {1: 0, 2: 1}[region]
    assert found["undefined"].tolist() == [silent, silent]


@pytest.mark.parametrize("region", [1, 2])
def test_half_peak_fractions_of_the_mouse_count_live_cells(region, recorded):
    responses = recorded[region]
    live = [cell for cell in responses.T.tolist() if max(cell) > 0]
    above = [[x > max(cell) / 2 for x in cell] for cell in live]
    silent = [math.nan] * (responses.shape[1] - len(live))
    found = table(f"mouse region {region}").loc["half_peak_fraction"]
    assert_summary(found.loc["cells"], [sum(cell) / len(cell) for cell in above] + silent)
    by_image = list(zip(*above, strict=True))
    assert_summary(found.loc["images"], [sum(image) / len(image) for image in by_image])


def test_the_table_holds_each_animal_and_names_the_one_that_is_not_at_hand(
    recorded, monkeypatch, tmp_path
):
    def no_mouse(region):
        raise FileNotFoundError("The recordings are not here.")

    monkeypatch.setattr(recordings, "mouse", no_mouse)
    summary = record("v1", tmp_path / "v1.csv")
    assert set(summary.failed) == {"mouse region 1", "mouse region 2"}
    written = pd.read_csv(tmp_path / "v1.csv")
    assert list(written.columns) == ["condition", *cortex.COLUMNS]
    for monkey in "AB":
        own = written[written["condition"] == f"macaque {monkey}"].set_index(["quantity", "over"])
        np.testing.assert_allclose(own["value"], table(f"macaque {monkey}")["value"], rtol=1e-7)


def test_a_table_of_other_recordings_is_refused_and_one_without_them_is_kept(
    recorded, monkeypatch, tmp_path
):
    def not_here(animal):
        raise FileNotFoundError("The recordings are not here.")

    file = tmp_path / "v1.csv"
    record("v1", file)
    monkeypatch.setattr(recordings, "fingerprint", not_here)
    assert not record("v1", file).failed
    monkeypatch.setattr(recordings, "fingerprint", lambda animal: f"another of {animal}")
    with pytest.raises(OtherConfiguration, match="macaque A measured with other weights or rec"):
        record("v1", file)
