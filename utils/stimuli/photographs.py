"""Natural photographs: those that scikit-image ships, and those in a folder or archive of yours."""

import io
import tarfile
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
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
    damaged, found = [], files(path)
    for name, content in found.items():
        picture = decode(name, content())
        if picture is None:
            damaged.append(name)
        else:
            yield name, picture
    if damaged:
        warnings.warn(
            f"{len(damaged)} of {len(found)} images in {Path(path).name} were damaged and left "
            f"out: {', '.join(damaged)}.",
            stacklevel=2,
        )


def files(path: str | Path) -> dict[str, Callable[[], bytes]]:
    """The images of a folder or .tar archive: name inside `path` → a function that reads it.

    Sorted by name; raises what `read` raises, and ValueError for a compressed archive.
    """
    path = Path(path)
    if path.is_dir():
        names = sorted(f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file())
        contents = {name: (path / name).read_bytes for name in names}
    elif path.is_file():
        try:
            with tarfile.open(path, "r:") as archive:  # uncompressed: any file can be read at once
                members = sorted((m for m in archive if m.isfile()), key=lambda m: m.name)
        except tarfile.ReadError as error:
            raise ValueError(f"{path.name} is no uncompressed .tar archive: {error}.") from None
        contents = {m.name: partial(_part, path, m.offset_data, m.size) for m in members}
    else:
        raise FileNotFoundError(f"There is no folder or archive at {path}.")
    endings = Image.registered_extensions()
    images = {n: content for n, content in contents.items() if Path(n).suffix.lower() in endings}
    if not images:
        raise ValueError(f"There are no images in {path}: expected files such as .jpg or .png.")
    return images


def decode(name: str, content: bytes) -> Image.Image | None:
    """The RGB picture in a file's content; None, with a warning that names it, if damaged."""
    try:
        return Image.open(io.BytesIO(content)).convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        warnings.warn(f"{name} is damaged and left out: {error}.", stacklevel=3)
        return None


def _part(path: Path, offset: int, size: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)


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
