"""The outlines of the ten shapes, of arbitrary blobs, and the pixels that an outline covers."""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw

SHAPES = (
    "disc",
    "square",
    "triangle",
    "star",
    "cross",
    "ring",
    "crescent",
    "heart",
    "hourglass",
    "bar",
)


@cache
def outlines() -> tuple[np.ndarray, ...]:
    """The ten shapes as closed polygons [P, 2] of unit area around their centroid."""
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    wheel = np.stack([np.sin(turn), -np.cos(turn)], -1)
    spikes = np.deg2rad(36 * np.arange(10))
    spikes = np.where(np.arange(10) % 2, 0.52, 1)[:, None] * np.stack(
        [np.sin(spikes), -np.cos(spikes)], -1
    )
    a = 0.36
    quarter = np.array([[a, 1], [a, a], [1, a]])
    corner = [quarter @ np.array([[c, s], [-s, c]]) for c, s in ((1, 0), (0, -1), (-1, 0), (0, 1))]
    horn = np.arccos(0.625)
    outer, inner = np.linspace(horn, 2 * np.pi - horn, 48), np.arctan2(np.sin(horn), 0.175)
    inner = np.linspace(2 * np.pi - inner, inner, 48)
    heart = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
    shapes = {
        "disc": wheel,
        "square": [[-1, -1], [1, -1], [1, 1], [-1, 1]],
        "triangle": wheel[[0, 21, 43]],
        "star": spikes,
        "cross": np.concatenate(corner),
        "ring": np.concatenate([wheel, wheel[:1], 0.55 * wheel[:1], 0.55 * wheel[::-1]]),
        "crescent": np.concatenate(
            [
                np.stack([np.cos(outer), np.sin(outer)], -1),
                np.stack([0.45 + 0.8 * np.cos(inner), 0.8 * np.sin(inner)], -1),
            ]
        ),
        "heart": np.stack([16 * np.sin(turn) ** 3, -heart], -1),
        "hourglass": [[-1, -1], [1, -1], [0.22, 0], [1, 1], [-1, 1], [-0.22, 0]],
        "bar": [[-1.05, -0.5], [1.05, -0.5], [1.05, 0.5], [-1.05, 0.5]],
    }
    return tuple(_unit(np.asarray(shapes[name], float)) for name in SHAPES)


def _unit(polygon: np.ndarray) -> np.ndarray:
    """Move a polygon's centroid to the origin and scale its area to one."""
    following = np.roll(polygon, -1, axis=0)
    cross = polygon[:, 0] * following[:, 1] - following[:, 0] * polygon[:, 1]
    area = cross.sum() / 2
    centroid = ((polygon + following) * cross[:, None]).sum(0) / (6 * area)
    return (polygon - centroid) / np.sqrt(abs(area))


def blob(rng: np.random.Generator) -> np.ndarray:
    """An arbitrary smooth outline that belongs to no class, [P, 2] of unit area."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    k = np.arange(2, 6)
    waves = rng.uniform(0.05, 0.35, 4) / np.sqrt(k)
    radius = 1 + (waves * np.cos(k * angle[:, None] + rng.uniform(0, 2 * np.pi, 4))).sum(-1)
    return _unit(np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1))


def raster(outline: np.ndarray, size: int, supersampling: int = 4) -> np.ndarray:
    """The share of each pixel that an outline covers, float64 [size, size] in [0, 1].

    Args:
        outline: [P, 2] corners (x, y) in pixels, origin at the top left.
        size: Of the picture.
        supersampling: How many times finer the outline is drawn.
    """
    canvas = Image.new("L", (size * supersampling,) * 2)
    corners = np.round(outline * supersampling - 0.5, 3)
    ImageDraw.Draw(canvas).polygon(corners.ravel().tolist(), fill=255)
    return np.asarray(canvas.reduce(supersampling), float) / 255
