"""Responses of visual cortex to natural images, where the data are available: numbers, no images.

Looked for in `datasets.folder()`; never needed by the chapters' default run. The macaque data are
the figure data of tang2018large (Apache-2.0), MATLAB files that hold one array each, named as the
file::

    Fig1d, Fig1e  float64 [cells, 1]   ΔF/F of all cells to one image, descending; monkeys A and B
    Fig1f, Fig1g  uint8 [1, 2250]      cells above half of their own peak, for each image
    Fig2a, Fig2c  float64 [1, 2250]    ΔF/F of one cell to all images, unordered
    Fig2e, Fig2f  uint8 [1, cells]     images for which a cell is above half of its peak

The mouse data (antolik2016model) state no licence: they are for measuring only.
"""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import scipy.io

from . import datasets

_COUNTS = {"A": ("Fig1f", "Fig2e"), "B": ("Fig1g", "Fig2f")}
_RANKED = {"A": ("Fig1d", "Fig2a"), "B": ("Fig1e", "Fig2c")}
_PARTS = ("training", "validation")


class HalfPeakCounts(NamedTuple):
    """Counts of responses above half of a cell's own peak, int64, of one macaque.

    Attributes:
        cells_per_image: [2250].
        images_per_cell: [cells], never 0.
    """

    cells_per_image: np.ndarray
    images_per_cell: np.ndarray

    @property
    def cells(self) -> int:
        """How many cells were recorded."""
        return len(self.images_per_cell)

    @property
    def population(self) -> np.ndarray:
        """The share of cells above half of their peak, for each image [2250], in [0, 1]."""
        return self.cells_per_image / self.cells

    @property
    def lifetime(self) -> np.ndarray:
        """The share of images above half of the peak, for each cell [cells], in (0, 1]."""
        return self.images_per_cell / len(self.cells_per_image)


class RankedResponses(NamedTuple):
    """ΔF/F of one macaque, largest first.

    Attributes:
        cells: Of all cells to one image.
        images: Of one cell to all images.
    """

    cells: np.ndarray
    images: np.ndarray


class MouseResponses(NamedTuple):
    """Responses float64 [images, neurons], arbitrary units ≥ 0, to natural images.

    Attributes:
        training: To 1,800 or 1,260 images.
        validation: To 50 others, averaged over repeats.
    """

    training: np.ndarray
    validation: np.ndarray


def macaque_half_peak(monkey: str) -> HalfPeakCounts:
    """How many cells in layer 2 of V1 were above half of their own peak, picture by picture.

    Their means are 6.0 and 4.1 cells an image, 0.49 % and (from the rounded count) 0.42 % in the
    paper. Population and lifetime are means of one and the same mask. Source: tang2018large.

    Args:
        monkey: "A" (1,225 cells) or "B" (982).

    Returns:
        The counts.

    Raises:
        ValueError: For another monkey, or from a damaged file.
        FileNotFoundError: Without the data.
    """
    return HalfPeakCounts(*(_figure(name).astype(np.int64) for name in _COUNTS[_known(monkey)]))


def macaque_ranked(monkey: str) -> RankedResponses:
    """The ranked responses that the paper shows as examples, one image's and one cell's.

    Source: tang2018large.

    Args:
        monkey: "A" or "B".

    Returns:
        The responses.

    Raises:
        ValueError: For another monkey, or from a damaged file.
        FileNotFoundError: Without the data.
    """
    cells, images = (np.sort(_figure(name))[::-1] for name in _RANKED[_known(monkey)])
    return RankedResponses(cells, images)


def mouse(region: int) -> MouseResponses:
    """The responses of a local population in mouse V1.

    Source: antolik2016model.

    Args:
        region: 1 (103 neurons, 1,800 images) or 2 (55 neurons, 1,260 images).

    Returns:
        The responses.

    Raises:
        ValueError: For another region, or from a damaged file.
        FileNotFoundError: Without the data.
    """
    if region not in (1, 2):
        raise ValueError(f"There is no region {region!r} of mouse V1; choose 1 or 2.")
    place = f"v1_mouse/region{region}"
    parts = (_file(f"{place}/{part}_set.npy") for part in _PARTS)
    return MouseResponses(*(_read(np.load, file) for file in parts))


def fingerprint(animal: str | int) -> str:
    """The sha256 of the files that hold the recordings of one animal.

    Args:
        animal: A macaque, "A" or "B", or a region of the mouse, 1 or 2.

    Returns:
        The hash, hex.

    Raises:
        FileNotFoundError: Without the data.
    """
    if animal in _COUNTS:
        names = [f"v1_macaque/{name}.mat" for name in (*_COUNTS[animal], *_RANKED[animal])]
    else:
        names = [f"v1_mouse/region{animal}/{part}_set.npy" for part in _PARTS]
    return sha256(b"".join(_file(name).read_bytes() for name in names)).hexdigest()


def _known(monkey: str) -> str:
    if monkey not in _COUNTS:
        raise ValueError(f"There is no monkey {monkey!r}; choose A or B.")
    return monkey


def _file(name: str) -> Path:
    file = datasets.folder() / name
    if not file.is_file():
        raise FileNotFoundError(
            f"The recordings are not here: looked for {datasets.shown(file)}; set BOOK_DATA to the "
            f"folder that holds {Path(name).parts[0]}."
        )
    return file


def _figure(name: str) -> np.ndarray:
    file = _file(f"v1_macaque/{name}.mat")
    return _read(lambda file: scipy.io.loadmat(file)[name].ravel(), file)


def _read(how: Callable[[Path], np.ndarray], file: Path) -> np.ndarray:
    try:
        return how(file)
    except Exception as error:  # of a damaged file, of any kind
        raise ValueError(
            f"{datasets.shown(file)} is damaged ({type(error).__name__}): fetch it again."
        ) from error
