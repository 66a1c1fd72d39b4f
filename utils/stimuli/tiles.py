"""Tiles of photographs: each is dealt to one split, which alone may cut its textures from it."""

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from scipy.ndimage import uniform_filter

from .photographs import luminance

SIZE = 32  # of a picture, in pixels
SPLITS = {"train": 50_000, "validation": 5_000, "test": 10_000}
# Parts of a photograph, (top, left, bottom, right), that hold one texture and nothing else: the
# grain around the cell and not the cell, the vessels of the retina and not its rim.
PARTS = {
    "cell": ((0, 0, 660, 330),),
    "retina": ((250, 250, 1160, 1160),),
}
TILE = 1.1  # least side of a tile, in sides of a crop
DEALS = 20_000  # random deals of the tiles, of which the one with the most similar splits is taken


class Tile(NamedTuple):
    """A part of a photograph, in its pixels, and the split that may cut from it.

    Attributes:
        split: Which may cut from it.
        top: First row.
        left: First column.
        bottom: Row after the last.
        right: Column after the last.
    """

    split: str
    top: int
    left: int
    bottom: int
    right: int


@cache
def tiles(photograph: str, side: int) -> tuple[Tile, ...]:
    """The tiles of a photograph for crops of one size, as they are dealt to the splits.

    Tiles form a grid over the photograph, or over its PARTS; those that are blank all over are left
    out. A crop lies within one tile, so that no two splits share a pixel, and the places of the
    crops of different splits are at least a crop's side apart. Half of the tiles go to train, a
    quarter each to validation and test, by that one of `DEALS` random deals in which the textures
    of the splits are most similar.

    Args:
        photograph: Name of a photograph.
        side: Of the crops, in its pixels.

    Returns:
        The tiles, row by row.
    """
    boxes = [
        box
        for part in PARTS.get(photograph, ((0, 0, *luminance(photograph).shape),))
        for box in _grid(*part, TILE * side)
    ]
    boxes = [box for box in boxes if _within(photograph, side, box).any()]
    parts = np.stack([_texture(photograph, side, box) for box in boxes])
    parts = (parts - parts.mean(0)) / parts.std(0)
    parts = np.concatenate([parts, parts**2 - 1], axis=1)  # [tiles, statistics], all of mean 0
    quarter = (len(boxes) + 2) // 4
    counts = (len(boxes) - 2 * quarter, quarter, quarter)  # of train, validation and test
    order = np.tile(np.repeat(np.arange(3), counts), (DEALS, 1))
    deals = np.random.default_rng(0).permuted(order, axis=1)  # [deals, tiles]
    apart = sum((((deals == k) @ parts) ** 2).sum(1) / counts[k] for k in range(3))
    dealt = [tuple(SPLITS)[k] for k in deals[apart.argmin()]]
    return tuple(Tile(split, *box) for split, box in zip(dealt, boxes, strict=True))


def _grid(top: int, left: int, bottom: int, right: int, least: float) -> Iterator[tuple]:
    """Cut a rectangle into as many as possible with sides of at least that."""
    rows, columns = (
        np.linspace(start, stop, max(1, int((stop - start) / least)) + 1).round().astype(int)
        for start, stop in ((top, bottom), (left, right))
    )
    for upper, lower in pairwise(rows.tolist()):
        for near, far in pairwise(columns.tolist()):
            yield upper, near, lower, far


def _texture(photograph: str, side: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """Statistics of a tile at the size at which it is shown, whatever its mean and contrast.

    How much it varies within 1, 2, 4 and 8 pixels, its skewness and its kurtosis.
    """
    zoom, (top, left, bottom, right) = side // SIZE, box
    part = luminance(photograph)[top:bottom, left:right]
    height, width = (extent // zoom * zoom for extent in part.shape)
    part = part[:height, :width].reshape(height // zoom, zoom, width // zoom, zoom).mean((1, 3))
    part = (part - part.mean()) / part.std()
    near = [
        np.mean((part[d:] - part[:-d]) ** 2) + np.mean((part[:, d:] - part[:, :-d]) ** 2)
        for d in (1, 2, 4, 8)
    ]
    return np.array([*np.log(near), np.mean(part**3), np.log(np.mean(part**4))])


@cache
def _rich(photograph: str, side: int) -> np.ndarray:
    """Which top-left corners have crops that are not nearly blank, bool [height, width]."""
    picture = luminance(photograph)
    mean = uniform_filter(picture, side)
    variance = uniform_filter(picture**2, side) - mean**2
    half = side // 2  # uniform_filter centres its window on pixel side // 2
    variance = variance[half:, half:][: picture.shape[0] - side + 1, : picture.shape[1] - side + 1]
    return variance >= 0.5 * np.median(variance)


def _within(photograph: str, side: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """Top-left corners of the crops of a box that are not nearly blank, [M, 2] as (top, left)."""
    top, left, bottom, right = box
    rich = _rich(photograph, side)[top : bottom - side + 1, left : right - side + 1]
    return np.argwhere(rich) + np.array([top, left])


@cache
def corners(photograph: str, split: str, side: int) -> np.ndarray:
    """Top-left corners of a split's crops, [M, 2] as (top, left).

    Args:
        photograph: Name of a photograph.
        split: One of SPLITS.
        side: Of the crops, in pixels of the photograph.
    """
    boxes = [box for owner, *box in tiles(photograph, side) if owner == split]
    return np.concatenate([_within(photograph, side, box) for box in boxes])
