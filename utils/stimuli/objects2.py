"""The embedded stimulus set: ten shapes × ten textures, generated, the same on every machine.

A label y is drawn; the shape shows y with probability 0.95 and, independently, the texture shows y
with probability 0.95 (otherwise any of the other nine). Both cues therefore predict the class
equally well and neither perfectly: whoever sees both cues without error is right on
`ACCURACY_CEILING` of the images at a loss of `BEST_LOSS` nats, so no model should do better, and
stimuli whose cues conflict reveal which cue a model goes by.

The second edition of the set: objects roam over the whole picture, and the splits cut their
textures from tiles that are spread over the whole of every photograph.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.ndimage import uniform_filter
from tqdm.auto import tqdm

from .objects import (
    BACKGROUND_ZOOM,
    BACKGROUNDS,
    SHAPES,
    SIZE,
    SPLITS,
    TINT,
    Stimuli,
    _blob,
    _noise,
    outlines,
)
from .photographs import luminance

__all__ = ["SHAPES", "SIZE", "SPLITS", "TEXTURES", "cue_conflict", "draw", "load", "render"]

CUE_VALIDITY = 0.95


def _limits() -> tuple[float, float]:
    """The highest accuracy, and the lowest loss in nats, of a viewer who sees both cues."""
    cue = np.full((10, 10), (1 - CUE_VALIDITY) / 9)  # [label, cue]
    np.fill_diagonal(cue, CUE_VALIDITY)
    joint = cue[:, :, None] * cue[:, None, :] / 10  # [label, shape, texture]
    posterior = joint / joint.sum(0)
    return float(joint.max(0).sum()), float(-(joint * np.log(posterior)).sum())


ACCURACY_CEILING, BEST_LOSS = _limits()

# Parts of a photograph, (top, left, bottom, right), that hold one texture and nothing else: the
# grain around the cell and not the cell, the vessels of the retina and not its rim.
PARTS = {
    "cell": ((0, 0, 660, 330),),
    "retina": ((250, 250, 1160, 1160),),
}
# Texture name → (scikit-image photograph, photograph pixels per image pixel).
SOURCES = {
    "brick": ("brick", 3),
    "grass": ("grass", 3),
    "gravel": ("gravel", 2),
    "galaxies": ("hubble_deep_field", 2),
    "speckle": ("cell", 2),
    "handwriting": ("text", 2),
    "moon": ("moon", 1),
    "coins": ("coins", 2),
    "print": ("page", 2),
    "vessels": ("retina", 2),
}
TEXTURES = tuple(SOURCES)
UPRIGHT = ("brick", "coins", "handwriting", "print")  # are mirrored; the others are turned, too

AREA = (0.30, 0.40)  # share of the image that the whole object would cover
ROTATION = 20.0  # degrees to either side
OBJECT_CONTRAST = (0.11, 0.19)  # standard deviation of luminance inside the object
GROUND_CONTRAST = (0.05, 0.10)
STEP = (0.08, 0.15)  # half the difference of mean luminance between object and ground
INSIDE = 0.8  # least share of the object that lies in the picture
TILE = 1.1  # least side of a tile, in sides of a crop
EVEN = 1e-6  # of luminance: rounding, and no texture
DEALS = 20_000  # random deals of the tiles, of which the one with the most similar splits is taken
_STREAMS = {"train": 0, "validation": 1, "test": 2, "cue_conflict": 3}
MIRRORED = 5  # the symmetry of a square, of eight, that swaps left and right
_BLOB, _OBJECT_NOISE, _GROUND_NOISE = 1, 2, 3


def load(split: str = "test", n: int | None = 1000, seed: int = 0, cue: str = "both") -> Stimuli:
    """The first n stimuli of a split; image i depends only on (split, seed, i).

    Explained in chapter 1.

    Args:
        split: "train" (50,000), "validation" (5,000) or "test" (10,000); each cuts its textures and
            backgrounds from its own tiles of every photograph.
        n: How many; None for the whole split.
        seed: Another seed gives other stimuli of the same split, so that training can draw a fresh
            image for every view.
        cue: "both", "shape" (the texture is noise) or "texture" (the shape is an arbitrary blob).

    Returns:
        The Stimuli.

    Raises:
        ValueError: For an unknown split or cue, or an n outside 1 … size of the split.
    """
    n = _checked(split, n, cue)
    return _render_all([draw(split, seed, i, cue=cue) for i in range(n)])


def labels(split: str = "test", n: int | None = None, seed: int = 0) -> torch.Tensor:
    """The labels of the first n stimuli of a split, without rendering any.

    Args:
        split: As for `load`.
        n: How many; None for the whole split.
        seed: As for `load`.

    Returns:
        int64 [n].

    Raises:
        ValueError: As `load`.
    """
    n = _checked(split, n)
    return torch.tensor([int(_generator(split, seed, i).integers(10)) for i in range(n)])


def image(scene: "Scene") -> torch.Tensor:
    """The picture of a scene, float32 [3, 32, 32] in [0, 1]."""
    return torch.from_numpy(render(scene)).float() / 255


def cue_conflict(n: int = 900, seed: int = 0) -> Stimuli:
    """Stimuli with the shape of one class and the texture of another.

    Every run of 90 stimuli holds each ordered pair of classes once; textures and backgrounds come
    from the test tiles. `labels` holds the class of the shape. The idea is that of
    geirhos2019imagenet. Explained in chapter 1.

    Args:
        n: How many.
        seed: Another seed gives other stimuli.

    Returns:
        The Stimuli.

    Raises:
        ValueError: If n < 1.
    """
    return _render_all(conflicts(n, seed))


def conflicts(n: int = 900, seed: int = 0) -> list["Scene"]:
    """The scenes of `cue_conflict`.

    Args:
        n: How many.
        seed: As for `cue_conflict`.

    Returns:
        The scenes, in the order of the stimuli.

    Raises:
        ValueError: If n < 1.
    """
    if n < 1:
        raise ValueError(f"cue_conflict needs n of at least 1, got {n}.")
    pairs = np.array([(s, t) for s in range(10) for t in range(10) if s != t])
    order = [
        np.random.default_rng([seed, _STREAMS["cue_conflict"], block]).permutation(90)
        for block in range(-(-n // 90))
    ]
    pairs = pairs[np.concatenate(order)[:n]].tolist()
    return [draw("cue_conflict", seed, i, pair=tuple(pair)) for i, pair in enumerate(pairs)]


def _checked(split: str, n: int | None, cue: str = "both") -> int:
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}; choose one of {', '.join(SPLITS)}.")
    if cue not in ("both", "shape", "texture"):
        raise ValueError(f"There is no cue {cue!r}; choose 'both', 'shape' or 'texture'.")
    n = SPLITS[split] if n is None else n
    if not 1 <= n <= SPLITS[split]:
        raise ValueError(
            f"The {split} split has {SPLITS[split]:,} stimuli, so n must lie between 1 and that; "
            f"got {n}."
        )
    return n


@dataclass(frozen=True)
class Scene:
    """Everything that was drawn for one stimulus, before any pixel is made.

    Attributes:
        label: The class.
        shape: Index into SHAPES, −1 for an arbitrary blob.
        texture: Index into TEXTURES, −1 for noise.
        outline: [P, 2] corners of the object in pixels, origin at the top left.
        centre: (x, y) of the object's centroid in pixels.
        object_crop: (photograph, left, top, side) of the texture.
        ground_crop: That of the background; None for 1/f noise.
        symmetry: Which of the eight of a square, of object and ground.
        luminance: Mean of object and ground.
        contrast: Standard deviation of luminance in object and ground.
        tint: [2, 3] gains of the colour channels of object and ground.
        key: (seed, stream, i), from which noise is made.
    """

    label: int
    shape: int
    texture: int
    outline: np.ndarray
    centre: tuple[float, float]
    object_crop: tuple[str, int, int, int]
    ground_crop: tuple[str, int, int, int] | None
    symmetry: tuple[int, int]
    luminance: tuple[float, float]
    contrast: tuple[float, float]
    tint: np.ndarray
    key: tuple[int, int, int]


def _generator(split: str, seed: int, i: int) -> np.random.Generator:
    return np.random.default_rng([seed, _STREAMS[split], i])


def draw(
    split: str, seed: int, i: int, cue: str = "both", pair: tuple[int, int] | None = None
) -> Scene:
    """Draw the scene of stimulus i from a generator of its own, keyed by (seed, split, i).

    Args:
        split: "train", "validation", "test" or "cue_conflict".
        seed: As for `load`.
        i: Number of the stimulus.
        cue: As for `load`.
        pair: (shape, texture) that is to be shown; None to draw both.

    Returns:
        The Scene.
    """
    rng = _generator(split, seed, i)
    key = (seed, _STREAMS[split], i)
    label = int(rng.integers(10))
    shape, texture = (_cue(rng, label) for _ in range(2))
    if pair is not None:
        label, texture = pair
        shape = label
    tiles = "test" if split == "cue_conflict" else split
    angle, area = np.deg2rad(rng.uniform(-ROTATION, ROTATION)), rng.uniform(*AREA)
    where = np.sin(np.pi / 2 * rng.uniform(-1, 1, size=2))
    # Object and ground differ in mean luminance by a random amount of random sign.
    middle, half = rng.uniform([0.42, STEP[0]], [0.58, STEP[1]])
    half *= rng.choice([-1, 1])
    natural = rng.random() < 0.5
    ground = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    photograph, zoom = SOURCES[TEXTURES[texture]]
    blob = np.random.default_rng([*key, _BLOB]) if cue == "texture" else None
    outline = outlines()[shape] if blob is None else _blob(blob)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    outline = outline @ turn * np.sqrt(area) * SIZE
    centre = SIZE / 2 + _shift(outline, where)
    return Scene(
        label=label,
        shape=-1 if cue == "texture" else shape,
        texture=-1 if cue == "shape" else texture,
        outline=outline + centre,
        centre=tuple(centre.tolist()),
        object_crop=_crop(rng, photograph, tiles, zoom),
        ground_crop=_crop(rng, ground, tiles, BACKGROUND_ZOOM) if natural else None,
        symmetry=_symmetries(rng, TEXTURES[texture]),
        luminance=(middle + half, middle - half),
        contrast=(float(rng.uniform(*OBJECT_CONTRAST)), float(rng.uniform(*GROUND_CONTRAST))),
        tint=1 + rng.uniform(-TINT, TINT, size=(2, 3)),
        key=key,
    )


def _cue(rng: np.random.Generator, label: int) -> int:
    other = (label + 1 + int(rng.integers(9))) % 10
    return label if rng.random() < CUE_VALIDITY else other


def _symmetries(rng: np.random.Generator, texture: str) -> tuple[int, int]:
    of_object, of_ground = rng.integers(8, size=2).tolist()
    return MIRRORED * (of_object % 2) if texture in UPRIGHT else of_object, of_ground


def _shift(outline: np.ndarray, where: np.ndarray) -> np.ndarray:
    """How many pixels to move an object from the middle, (x, y).

    Where both axes together would cut off too much, the object is moved back towards the middle.

    Args:
        outline: Corners around its centroid.
        where: (x, y) in [−1, 1], the ends being as far out as `INSIDE` allows along that axis
            alone; drawn as sines of uniform angles, which fills the border as often as the middle.
    """
    canvas = _raster(outline + SIZE, 2 * SIZE)  # the object in its midst
    canvas /= canvas.sum()
    ends = []
    for axis in (0, 1):  # sums over rows leave x, sums over columns y
        share = canvas.sum(axis).cumsum()
        cut, kept = np.searchsorted(share, 1 - INSIDE), np.searchsorted(share, INSIDE)
        ends.append((SIZE // 2 - cut, 3 * SIZE // 2 - 1 - kept))
    low, high = np.array(ends).T
    out = (low + high) / 2 + (high - low) / 2 * where
    sums = np.pad(canvas.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    while _inside(sums, shift := out.round().astype(int)) < INSIDE:
        out *= 0.95
    return shift


def _inside(sums: np.ndarray, shift: np.ndarray) -> float:
    """The share of the object in the picture after a shift, from sums over its canvas."""
    left, top = SIZE // 2 - shift
    corners = np.clip([top, top + SIZE, left, left + SIZE], 0, 2 * SIZE)
    top, bottom, left, right = corners
    return sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]


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
def _corners(photograph: str, split: str, side: int) -> np.ndarray:
    """Top-left corners of a split's crops, [M, 2] as (top, left)."""
    boxes = [box for owner, *box in tiles(photograph, side) if owner == split]
    return np.concatenate([_within(photograph, side, box) for box in boxes])


def _crop(rng, photograph: str, split: str, zoom: int) -> tuple[str, int, int, int]:
    side = zoom * SIZE
    corners = _corners(photograph, split, side)
    top, left = corners[rng.integers(len(corners))]
    return photograph, int(left), int(top), side


def mask(scene: Scene, supersampling: int = 4) -> np.ndarray:
    """The share of each pixel that the object covers, float64 [32, 32] in [0, 1].

    Args:
        scene: Of the stimulus.
        supersampling: How many times finer the outline is drawn.
    """
    return _raster(scene.outline, SIZE, supersampling)


def _raster(outline: np.ndarray, size: int, supersampling: int = 4) -> np.ndarray:
    canvas = Image.new("L", (size * supersampling,) * 2)
    corners = np.round(outline * supersampling - 0.5, 3)
    ImageDraw.Draw(canvas).polygon(corners.ravel().tolist(), fill=255)
    return np.asarray(canvas.reduce(supersampling), float) / 255


def _cut(crop: tuple[str, int, int, int], symmetry: int) -> np.ndarray:
    """Shrink a crop of a photograph to 32×32 and flip or turn it."""
    photograph, left, top, side = crop
    zoom = side // SIZE
    patch = luminance(photograph)[top : top + side, left : left + side]
    patch = patch.reshape(SIZE, zoom, SIZE, zoom).mean((1, 3))
    patch = np.rot90(patch, symmetry % 4)
    return patch.T if symmetry >= 4 else patch


def render(scene: Scene) -> np.ndarray:
    """The picture of a scene, uint8 [3, 32, 32]."""
    alpha = mask(scene)
    surfaces = (
        _cut(scene.object_crop, scene.symmetry[0])
        if scene.texture >= 0
        else _noise(np.random.default_rng([*scene.key, _OBJECT_NOISE]), exponent=0.5),
        _cut(scene.ground_crop, scene.symmetry[1])
        if scene.ground_crop
        else _noise(np.random.default_rng([*scene.key, _GROUND_NOISE]), exponent=1.0),
    )
    layers = []
    for k, (surface, weight) in enumerate(zip(surfaces, (alpha, 1 - alpha), strict=True)):
        # Few very bright points would be clipped, and less contrast would give their texture away.
        relief = _standardise(np.tanh(0.5 * _standardise(surface, weight)), weight)
        grey = scene.luminance[k] + scene.contrast[k] * relief
        layers.append(grey * scene.tint[k][:, None, None])  # [3, 32, 32]
    picture = alpha * layers[0] + (1 - alpha) * layers[1]
    return np.round(255 * np.clip(picture, 0, 1)).astype(np.uint8)


def _standardise(surface: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Give a surface mean 0 and standard deviation 1 where it is seen; an even one stays even."""
    surface = surface - np.average(surface, weights=weight)
    spread = np.sqrt(np.average(surface**2, weights=weight))
    return surface / spread if spread > EVEN else np.zeros_like(surface)


def _render_all(scenes: list[Scene]) -> Stimuli:
    pixels = np.empty((len(scenes), 3, SIZE, SIZE), np.uint8)
    hidden = True if len(scenes) < 10_000 else None  # None: on a terminal only
    for i, scene in enumerate(tqdm(scenes, desc="stimuli", disable=hidden)):
        pixels[i] = render(scene)
    integers = [[r.label, r.shape, r.texture] for r in scenes]
    label, shape, texture = torch.tensor(integers).T.contiguous()
    centre = torch.tensor([r.centre for r in scenes], dtype=torch.float32)
    return Stimuli(torch.from_numpy(pixels).float() / 255, label, shape, texture, centre)
