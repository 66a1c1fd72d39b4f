import numpy as np
import pytest
from skimage import color, data

from utils.stimuli import photographs


@pytest.mark.parametrize("name", photographs.NAMES)
def test_photographs_load_without_a_download_as_rgb(name):
    picture = photographs.load(name)
    assert picture.mode == "RGB"
    assert min(picture.size) >= 300


def test_luminance_is_that_of_scikit_image_and_cannot_be_overwritten():
    grey = photographs.luminance("coffee")
    assert np.array_equal(grey, color.rgb2gray(data.coffee()))
    with pytest.raises(ValueError, match="read-only"):
        grey[0, 0] = 1


def test_an_unknown_photograph_is_answered_by_one_sentence():
    with pytest.raises(ValueError, match="no photograph 'cofee'; the book uses chelsea, coffee"):
        photographs.load("cofee")
