"""Natural photographs that scikit-image ships; `image_folder` reads yours."""

from functools import cache

import numpy as np
from PIL import Image
from skimage import color, data

# Everyday scenes, in colour, that an ImageNet model can be asked about.
NAMES = ("chelsea", "coffee", "astronaut", "rocket", "stereo_motorcycle")


def load(name: str) -> Image.Image:
    """One of scikit-image's photographs as an RGB picture.

    Args:
        name: A photograph that ships inside scikit-image, such as those in NAMES.

    Returns:
        The picture.

    Raises:
        ValueError: Scikit-image has no such photograph.

    Example:
        >>> from utils.stimuli import photographs
        >>> picture = photographs.load("coffee")
        >>> picture.mode, picture.size
        ('RGB', (600, 400))
    """
    return Image.fromarray(_pixels(name))


@cache
def luminance(name: str) -> np.ndarray:
    """The luminance of a photograph.

    Args:
        name: As for `load`.

    Returns:
        float64 [height, width] in [0, 1], read-only.

    Example:
        >>> from utils.stimuli import photographs
        >>> photographs.luminance("coffee").shape
        (400, 600)
    """
    grey = color.rgb2gray(_pixels(name))
    grey.flags.writeable = False
    return grey


@cache
def _pixels(name: str) -> np.ndarray:
    if name not in data.__all__:
        raise ValueError(
            f"scikit-image has no photograph {name!r}; the book uses {', '.join(NAMES)}."
        )
    picture = getattr(data, name)()
    picture = picture[0] if isinstance(picture, tuple) else picture  # left eye of a stereo pair
    picture = picture[..., :3] if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    return picture
