"""The recordings give the numbers that were published from them."""

import numpy as np
import pytest

from experiments.engine.results import file_of, record_of
from experiments.tasks import cortex
from utils.stimuli import recordings


@pytest.mark.parametrize(("monkey", "cells", "published"), [("A", 1225, 0.49), ("B", 982, 0.42)])
def test_the_share_of_cells_above_half_of_their_peak_is_the_published_one(
    shared_data, monkey, cells, published
):
    counts = recordings.macaque_half_peak(monkey)
    assert counts.cells == cells
    assert counts.population.shape == (2250,)
    # The paper divides counts that it has rounded, 6.0 and 4.1 cells.
    assert round(100 * round(counts.cells_per_image.mean(), 1) / cells, 2) == published
    assert 100 * counts.population.mean() == pytest.approx(published, abs=0.006)


@pytest.mark.parametrize(("monkey", "published"), [("A", 0.49), ("B", 0.41)])
def test_population_and_lifetime_sparseness_are_two_means_of_one_mask(
    shared_data, monkey, published
):
    counts = recordings.macaque_half_peak(monkey)
    assert counts.cells_per_image.sum() == counts.images_per_cell.sum()
    assert counts.lifetime.mean() == pytest.approx(counts.population.mean(), rel=1e-12)
    assert round(100 * counts.lifetime.mean(), 2) == published


def test_every_cell_is_above_half_of_its_peak_for_one_image_at_least(shared_data):
    for monkey in "AB":
        assert recordings.macaque_half_peak(monkey).images_per_cell.min() >= 1


def test_ranked_responses_fall(shared_data):
    ranked = recordings.macaque_ranked("A")
    assert (len(ranked.cells), len(ranked.images)) == (1225, 2250)
    assert (np.diff(ranked.cells) <= 0).all()
    assert ranked.cells.max() == ranked.images.max()  # that image is that cell's best


@pytest.mark.parametrize(("region", "shape"), [(1, (1800, 103)), (2, (1260, 55))])
def test_mouse_responses_are_not_negative(shared_data, region, shape):
    responses = recordings.mouse(region)
    assert responses.training.shape == shape
    assert responses.validation.shape == (50, shape[1])
    assert responses.training.min() >= 0


@pytest.mark.parametrize("name", cortex.ANIMALS)
def test_the_table_of_v1_was_made_of_these_recordings(shared_data, name):
    table = record_of(file_of("v1", "objects"))
    assert table["conditions"][name]["weights"] == cortex.fingerprint(name)


def test_recordings_that_are_not_here_say_where_they_were_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"looked for .*Fig1f\.mat; set BOOK_DATA"):
        recordings.macaque_half_peak("A")
    with pytest.raises(FileNotFoundError, match=r"looked for .*training_set\.npy"):
        recordings.mouse(1)


def test_another_monkey_or_region_is_refused():
    with pytest.raises(ValueError, match="no monkey 'C'; choose A or B"):
        recordings.macaque_half_peak("C")
    with pytest.raises(ValueError, match="no region 3 of mouse V1"):
        recordings.mouse(3)
