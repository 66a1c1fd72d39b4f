"""The embedded stimulus set: ten shapes × ten textures, generated, the same on every machine.

A label y is drawn; the shape shows y with probability 0.95 and, independently, the texture shows y
with probability 0.95 (otherwise any of the other nine). Both cues therefore predict the class
equally well and neither perfectly: whoever sees both cues without error is right on
`ACCURACY_CEILING` of the images, so no model should do better, and stimuli whose cues
conflict reveal which cue a model goes by.
"""

from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.ndimage import uniform_filter
from tqdm.auto import tqdm

from .photographs import luminance

SIZE = 32
SPLITS = {"train": 50_000, "validation": 5_000, "test": 10_000}
CUE_VALIDITY = 0.95
# Agreeing cues are right with .95² of all images, conflicting ones half of the time that either is
# right: .95² + .95 · .05. A model that reads one cue alone, perfectly, reaches the same value.
ACCURACY_CEILING = CUE_VALIDITY**2 + CUE_VALIDITY * (1 - CUE_VALIDITY)

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
# Texture name → (scikit-image photograph, photograph pixels per image pixel).
SOURCES = {
    "brick": ("brick", 3),
    "grass": ("grass", 2),
    "gravel": ("gravel", 2),
    "galaxies": ("hubble_deep_field", 2),
    "cell": ("cell", 3),
    "handwriting": ("text", 2),
    "moon": ("moon", 1),
    "coins": ("coins", 3),
    "print": ("page", 2),
    "fur": ("chelsea", 2),
}
TEXTURES = tuple(SOURCES)
BACKGROUNDS = ("astronaut", "camera", "coffee", "rocket", "stereo_motorcycle")
BACKGROUND_ZOOM = 2

AREA = (0.29, 0.40)  # share of the image that the object covers before clipping at the border
ROTATION = 30.0  # degrees to either side
SHIFT = 2.5  # pixels to either side, in each direction
OBJECT_CONTRAST = (0.10, 0.20)  # standard deviation of luminance inside the object
GROUND_CONTRAST = (0.08, 0.16)
TINT = 0.25  # largest relative gain of a colour channel
GAP = 32  # pixels of every photograph that no split uses, between the regions of two splits
_STREAMS = {"train": 0, "validation": 1, "test": 2, "cue_conflict": 3}


@dataclass(frozen=True)
class Stimuli:
    """Images with what is true of them.

    Attributes:
        images: float32 [N, 3, 32, 32] in [0, 1], multiples of 1/255.
        labels: int64 [N], the class; for cue conflict the class of the shape.
        shape: int64 [N], index into SHAPES; −1 where the shape is neutral.
        texture: int64 [N], index into TEXTURES; −1 where the texture is neutral.
        centre: float32 [N, 2], (x, y) of the object's centroid in pixels, origin at the top left.
    """

    images: torch.Tensor
    labels: torch.Tensor
    shape: torch.Tensor
    texture: torch.Tensor
    centre: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index) -> "Stimuli":
        """The stimuli that a slice, mask or index tensor selects."""
        return Stimuli(*(getattr(self, field.name)[index] for field in fields(self)))


def load(split: str = "test", n: int | None = 1000, seed: int = 0, cue: str = "both") -> Stimuli:
    """The first n stimuli of a split; image i depends only on (split, seed, i).

    Explained in chapter 1.

    Args:
        split: "train" (50,000), "validation" (5,000) or "test" (10,000); each cuts its textures and
            backgrounds from its own region of every photograph.
        n: How many; None for the whole split.
        seed: Another seed gives other stimuli of the same split.
        cue: "both", "shape" (the texture is noise) or "texture" (the shape is an arbitrary blob).

    Returns:
        The Stimuli.

    Raises:
        ValueError: For an unknown split or cue, or an n outside 1 … size of the split.

    Example:
        >>> from utils.stimuli import objects
        >>> stimuli = objects.load("test", n=3)
        >>> stimuli.images.shape, [objects.SHAPES[i] for i in stimuli.labels]
        (torch.Size([3, 3, 32, 32]), ['bar', 'bar', 'square'])
    """
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
    return _render_all([draw(split, seed, i, cue=cue) for i in range(n)])


def cue_conflict(n: int = 900, seed: int = 0) -> Stimuli:
    """Stimuli with the shape of one class and the texture of another.

    Every run of 90 stimuli holds each ordered pair of classes once; textures and backgrounds come
    from the test regions. `labels` holds the class of the shape. The idea is that of
    geirhos2019imagenet. Explained in chapter 1.

    Args:
        n: How many.
        seed: Another seed gives other stimuli.

    Returns:
        The Stimuli.

    Raises:
        ValueError: If n < 1.

    Example:
        >>> from utils.stimuli import objects
        >>> stimuli = objects.cue_conflict(n=5)
        >>> bool((stimuli.shape != stimuli.texture).all())
        True
    """
    if n < 1:
        raise ValueError(f"cue_conflict needs n of at least 1, got {n}.")
    pairs = np.array([(s, t) for s in range(10) for t in range(10) if s != t])
    order = [
        np.random.default_rng([seed, _STREAMS["cue_conflict"], block]).permutation(90)
        for block in range(-(-n // 90))
    ]
    pairs = pairs[np.concatenate(order)[:n]]
    return _render_all(
        [draw("cue_conflict", seed, i, pair=tuple(pair)) for i, pair in enumerate(pairs.tolist())]
    )


@dataclass(frozen=True)
class Scene:
    """Everything that was drawn for one stimulus, before any pixel is made.

    Attributes:
        label: The class.
        shape: Index into SHAPES, −1 for an arbitrary blob.
        texture: Index into TEXTURES, −1 for noise.
        centre: (x, y) of the object's centroid in pixels.
        area: Share of the image that the whole object would cover.
        rotation: Of the object, in degrees.
        object_crop: (photograph, left, top, side) of the texture.
        ground_crop: That of the background; None for 1/f noise.
        flips: Element of the square's symmetry group for object and ground.
        luminance: Mean of object and ground.
        contrast: Standard deviation of luminance in object and ground.
        tint: [2, 3] gains of the colour channels of object and ground.
        noise: What noise is drawn from.
    """

    label: int
    shape: int
    texture: int
    centre: tuple[float, float]
    area: float
    rotation: float
    object_crop: tuple[str, int, int, int]
    ground_crop: tuple[str, int, int, int] | None
    flips: tuple[int, int]
    luminance: tuple[float, float]
    contrast: tuple[float, float]
    tint: np.ndarray
    noise: np.random.Generator


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
    rng = np.random.default_rng([seed, _STREAMS[split], i])
    label = int(rng.integers(10))
    shape, texture = (_cue(rng, label) for _ in range(2))
    if pair is not None:
        label, texture = pair
        shape = label
    region = "test" if split == "cue_conflict" else split
    angle, area, x, y = rng.uniform(
        [-ROTATION, AREA[0], -SHIFT, -SHIFT], [ROTATION, AREA[1], SHIFT, SHIFT]
    )
    # Object and ground differ in mean luminance by a random amount of random sign.
    middle, half = rng.uniform([0.42, 0.04], [0.58, 0.12])
    half *= rng.choice([-1, 1])
    natural = rng.random() < 0.5
    ground = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
    photograph, zoom = SOURCES[TEXTURES[texture]]
    return Scene(
        label=label,
        shape=-1 if cue == "texture" else shape,
        texture=-1 if cue == "shape" else texture,
        centre=(float(SIZE / 2 + x), float(SIZE / 2 + y)),
        area=float(area),
        rotation=float(angle),
        object_crop=_crop(rng, photograph, region, zoom),
        ground_crop=_crop(rng, ground, region, BACKGROUND_ZOOM) if natural else None,
        flips=tuple(rng.integers(8, size=2).tolist()),
        luminance=(middle + half, middle - half),
        contrast=(float(rng.uniform(*OBJECT_CONTRAST)), float(rng.uniform(*GROUND_CONTRAST))),
        tint=1 + rng.uniform(-TINT, TINT, size=(2, 3)),
        noise=rng,
    )


def labels(split: str, seed: int = 0) -> torch.Tensor:
    """The labels of a whole split, without drawing its pictures.

    Args:
        split: As for `load`.
        seed: As for `load`.

    Returns:
        int64 [n].
    """
    rngs = (np.random.default_rng([seed, _STREAMS[split], i]) for i in range(SPLITS[split]))
    return torch.tensor([int(rng.integers(10)) for rng in rngs])  # the first number of `draw`


def _cue(rng: np.random.Generator, label: int) -> int:
    other = (label + 1 + int(rng.integers(9))) % 10
    return label if rng.random() < CUE_VALIDITY else other


def region(photograph: str, split: str) -> tuple[int, int]:
    """The columns of a photograph that a split may use.

    Args:
        photograph: Name of a photograph.
        split: As for `load`.

    Returns:
        The first column, and the column after the last.
    """
    width = luminance(photograph).shape[1]
    share = (width - 2 * GAP) // 10
    start = {"train": 0, "validation": 4 * share + GAP, "test": 7 * share + 2 * GAP}[split]
    stop = {"train": 4 * share, "validation": 7 * share + GAP, "test": width}[split]
    return start, stop


@cache
def _corners(photograph: str, split: str, side: int) -> np.ndarray:
    """Top-left corners of the crops that are not nearly blank, [M, 2] as (top, left)."""
    start, stop = region(photograph, split)
    picture = luminance(photograph)[:, start:stop]
    mean = uniform_filter(picture, side)
    variance = uniform_filter(picture**2, side) - mean**2
    half = side // 2  # uniform_filter centres its window on pixel side // 2
    inner = variance[
        half : picture.shape[0] - side + half + 1, half : stop - start - side + half + 1
    ]
    return np.argwhere(inner >= 0.5 * np.median(inner)) + np.array([0, start])


def _crop(rng, photograph: str, split: str, zoom: int) -> tuple[str, int, int, int]:
    side = zoom * SIZE
    corners = _corners(photograph, split, side)
    top, left = corners[rng.integers(len(corners))]
    return photograph, int(left), int(top), side


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


def _blob(rng: np.random.Generator) -> np.ndarray:
    """An arbitrary smooth outline that belongs to no class."""
    angle = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    k = np.arange(2, 6)
    waves = rng.uniform(0.05, 0.35, 4) / np.sqrt(k)
    radius = 1 + (waves * np.cos(k * angle[:, None] + rng.uniform(0, 2 * np.pi, 4))).sum(-1)
    return _unit(np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1))


def mask(scene: Scene, supersampling: int = 4) -> np.ndarray:
    """The share of each pixel that the object covers, float64 [32, 32] in [0, 1].

    Args:
        scene: Of the stimulus.
        supersampling: How many times finer the outline is drawn.
    """
    outline = outlines()[scene.shape] if scene.shape >= 0 else _blob(scene.noise)
    c, s = np.cos(np.deg2rad(scene.rotation)), np.sin(np.deg2rad(scene.rotation))
    points = outline @ np.array([[c, s], [-s, c]]) * np.sqrt(scene.area) * SIZE + scene.centre
    canvas = Image.new("L", (SIZE * supersampling,) * 2)
    corners = np.round(points * supersampling - 0.5, 3)
    ImageDraw.Draw(canvas).polygon(corners.ravel().tolist(), fill=255)
    return np.asarray(canvas.reduce(supersampling), float) / 255


def _noise(rng: np.random.Generator, exponent: float) -> np.ndarray:
    """Noise whose amplitude falls with spatial frequency f as f^−exponent, [32, 32]."""
    fy, fx = np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None]
    frequency = np.hypot(fy, fx)
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((SIZE, SIZE))) / frequency**exponent
    return np.fft.irfft2(spectrum, s=(SIZE, SIZE))


def _cut(crop: tuple[str, int, int, int], symmetry: int) -> np.ndarray:
    """Shrink a crop of a photograph to 32×32 and flip or turn it."""
    photograph, left, top, side = crop
    zoom = side // SIZE
    patch = luminance(photograph)[top : top + side, left : left + side]
    patch = patch.reshape(SIZE, zoom, SIZE, zoom).mean((1, 3))
    patch = np.rot90(patch, symmetry % 4)
    return patch.T if symmetry >= 4 else patch


def render(scene: Scene) -> np.ndarray:
    """The picture of a scene.

    Args:
        scene: Of the stimulus.

    Returns:
        uint8 [3, 32, 32].
    """
    alpha = mask(scene)
    surfaces = (
        _cut(scene.object_crop, scene.flips[0])
        if scene.texture >= 0
        else _noise(scene.noise, exponent=0.5),
        _cut(scene.ground_crop, scene.flips[1])
        if scene.ground_crop
        else _noise(scene.noise, exponent=1.0),
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
    """Give a surface mean 0 and standard deviation 1 where it is seen."""
    mean = np.average(surface, weights=weight)
    return (surface - mean) / np.sqrt(np.average((surface - mean) ** 2, weights=weight))


def _render_all(scenes: list[Scene]) -> Stimuli:
    pixels = np.empty((len(scenes), 3, SIZE, SIZE), np.uint8)
    hidden = True if len(scenes) < 10_000 else None  # None: on a terminal only
    for i, scene in enumerate(tqdm(scenes, desc="stimuli", disable=hidden)):
        pixels[i] = render(scene)
    integers = [[r.label, r.shape, r.texture] for r in scenes]
    labels, shape, texture = torch.tensor(integers).T.contiguous()
    centre = torch.tensor([r.centre for r in scenes], dtype=torch.float32)
    return Stimuli(torch.from_numpy(pixels).float() / 255, labels, shape, texture, centre)
