"""The embedded stimulus set: ten shapes × ten textures, generated, the same on every machine.

A label y is drawn; the shape shows y with probability 0.95 and, independently, the texture shows y
with probability 0.95 (otherwise any of the other nine). Both cues therefore predict the class
equally well and neither perfectly: whoever sees both cues without error is right on
`ACCURACY_CEILING` of the images at a loss of `BEST_LOSS` nats, so no model should do better, and
stimuli whose cues conflict reveal which cue a model goes by.

Objects roam over the whole picture (`outlines`), and the splits cut their textures from tiles that
are spread over the whole of every photograph (`tiles`).
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from tqdm.auto import tqdm

from .outlines import SHAPES, blob, outlines, raster
from .photographs import luminance
from .tiles import SIZE, SPLITS, corners

__all__ = [
    "SHAPES",
    "SIZE",
    "SPLITS",
    "TEXTURES",
    "Scene",
    "Stimuli",
    "conflicts",
    "cue_conflict",
    "draw",
    "image",
    "labels",
    "load",
    "mask",
    "render",
]

CUE_VALIDITY = 0.95


def _limits() -> tuple[float, float]:
    """The highest accuracy, and the lowest loss in nats, of a viewer who sees both cues."""
    cue = np.full((10, 10), (1 - CUE_VALIDITY) / 9)  # [label, cue]
    np.fill_diagonal(cue, CUE_VALIDITY)
    joint = cue[:, :, None] * cue[:, None, :] / 10  # [label, shape, texture]
    posterior = joint / joint.sum(0)
    return float(joint.max(0).sum()), float(-(joint * np.log(posterior)).sum())


ACCURACY_CEILING, BEST_LOSS = _limits()

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
BACKGROUNDS = ("astronaut", "camera", "coffee", "rocket", "stereo_motorcycle")
BACKGROUND_ZOOM = 2

AREA = (0.30, 0.40)  # share of the image that the whole object would cover
ROTATION = 20.0  # degrees to either side
OBJECT_CONTRAST = (0.11, 0.19)  # standard deviation of luminance inside the object
GROUND_CONTRAST = (0.05, 0.10)
TINT = 0.25  # largest relative gain of a colour channel
STEP = (0.08, 0.15)  # half the difference of mean luminance between object and ground
INSIDE = 0.8  # least share of the object that lies in the picture
EVEN = 1e-6  # of luminance: rounding, and no texture
_STREAMS = {"train": 0, "validation": 1, "test": 2, "cue_conflict": 3}
MIRRORED = 5  # the symmetry of a square, of eight, that swaps left and right
_BLOB, _OBJECT_NOISE, _GROUND_NOISE = 1, 2, 3


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
            backgrounds from its own tiles of every photograph.
        n: How many; None for the whole split.
        seed: Another seed gives other stimuli of the same split, so that training can draw a fresh
            image for every view.
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
    """The picture of a scene, as networks see it.

    Args:
        scene: Of the stimulus.

    Returns:
        float32 [3, 32, 32] in [0, 1].
    """
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

    Example:
        >>> from utils.stimuli import objects
        >>> stimuli = objects.cue_conflict(n=5)
        >>> bool((stimuli.shape != stimuli.texture).all())
        True
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
        symmetry: Which of the eight symmetries of a square, of object and ground.
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
    arbitrary = cue == "texture"
    outline = blob(np.random.default_rng([*key, _BLOB])) if arbitrary else outlines()[shape]
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
    canvas = raster(outline + SIZE, 2 * SIZE)  # the object in its midst
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


def _crop(rng, photograph: str, split: str, zoom: int) -> tuple[str, int, int, int]:
    side = zoom * SIZE
    places = corners(photograph, split, side)
    top, left = places[rng.integers(len(places))]
    return photograph, int(left), int(top), side


def mask(scene: Scene, supersampling: int = 4) -> np.ndarray:
    """The share of each pixel that the object covers, float64 [32, 32] in [0, 1].

    Args:
        scene: Of the stimulus.
        supersampling: How many times finer the outline is drawn.
    """
    return raster(scene.outline, SIZE, supersampling)


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
    """The picture of a scene, as it is drawn.

    Args:
        scene: Of the stimulus.

    Returns:
        uint8 [3, 32, 32].
    """
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
