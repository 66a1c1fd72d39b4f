import numpy as np
import pytest

from utils.stimuli.outlines import blob, outlines, raster


def test_outlines_have_unit_area_and_their_centroid_at_the_origin():
    for outline in (*outlines(), blob(np.random.default_rng(0))):
        following = np.roll(outline, -1, axis=0)
        cross = outline[:, 0] * following[:, 1] - outline[:, 1] * following[:, 0]
        assert abs(cross.sum()) / 2 == pytest.approx(1)
        centroid = ((outline + following) * cross[:, None]).sum(0)
        assert centroid == pytest.approx([0, 0], abs=1e-9)


def test_a_raster_covers_the_area_of_the_outline():
    square = np.array([[4, 4], [12, 4], [12, 20], [4, 20]], float)
    covered = raster(square, 32)
    grain = 1 / 4  # a drawn polygon holds both of its edges, at four times the resolution
    assert covered.sum() == pytest.approx((8 + grain) * (16 + grain), rel=0.005)
    assert covered[5:19, 5:11].min() == 1
    assert covered[:3].max() == covered[:, 14:].max() == 0
