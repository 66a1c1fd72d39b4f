"""Natural photographs: those that scikit-image ships, and those in a folder or archive of yours."""

import io
import tarfile
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import color, data

# Everyday scenes, in colour, that an ImageNet model can be asked about.
NAMES = ("chelsea", "coffee", "astronaut", "rocket", "stereo_motorcycle")


def load(name: str) -> Image.Image:
    """Return one of scikit-image's photographs as an RGB picture.

    name : a photograph that ships inside scikit-image, such as those in NAMES.
    Raises ValueError if scikit-image has no such photograph.
    """
    return Image.fromarray(_pixels(name))


def read(path: str | Path) -> Iterator[tuple[str, Image.Image]]:
    """Read every image of a folder or .tar archive, in the order of their names.

    path : a folder, searched at any depth, or an archive; files count as images by their ending
    yields (name inside `path`, RGB picture)

    A damaged image is left out and named in a warning; a last warning counts them. Raises
    FileNotFoundError where there is nothing at `path`, and ValueError if it holds no image.
    """
    path, damaged, count = Path(path), [], 0
    for name, content in _files(path):
        if Path(name).suffix.lower() not in Image.registered_extensions():
            continue
        count += 1
        try:
            picture = Image.open(io.BytesIO(content)).convert("RGB")
        except (OSError, SyntaxError) as error:
            damaged.append(name)
            warnings.warn(f"{name} is damaged and left out: {error}.", stacklevel=2)
            continue
        yield name, picture
    if not count:
        raise ValueError(f"There are no images in {path}: expected files such as .jpg or .png.")
    if damaged:
        warnings.warn(
            f"{len(damaged)} of {count} images in {path.name} were damaged and left out: "
            f"{', '.join(damaged)}.",
            stacklevel=2,
        )


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield file.relative_to(path).as_posix(), file.read_bytes()
    elif path.is_file():
        with tarfile.open(path) as archive:
            for member in sorted(archive.getmembers(), key=lambda member: member.name):
                if member.isfile():
                    yield member.name, archive.extractfile(member).read()
    else:
        raise FileNotFoundError(f"There is no folder or archive at {path}.")


@cache
def luminance(name: str) -> np.ndarray:
    """Return the luminance of a photograph, float64 [height, width] in [0, 1], read-only."""
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
