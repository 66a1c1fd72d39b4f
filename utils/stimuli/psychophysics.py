"""Stimuli made by formula or by changing images, as in the psychologist's laboratory.

Images are [n, 3, h, w] in [0, 1]. Whatever is random is keyed by (seed, index of the image), so a
picture is the same in any minibatch and on any rank. Chapters 2.1, 2.3 and 2.5.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import functional as F

SEVERITIES = (1, 2, 3, 4, 5)


def _plane(size: int) -> tuple[Tensor, Tensor]:
    """Coordinates of the pixels' centres, x rightwards and y downwards, −1 … 1 edge to edge."""
    line = (2 * torch.arange(size) + 1) / size - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return x, y


def grating(size: int, cycles: float, orientation: float = 0.0, phase: float = 0.0) -> Tensor:
    """A sinusoidal grating in −1 … 1.

    Args:
        size: Rows, and columns, in pixels.
        cycles: Over the width.
        orientation: In radians, anticlockwise from vertical bars.
        phase: In radians, 0 for a bright bar through the centre.

    Returns:
        [size, size].

    Example:
        >>> from utils.stimuli import psychophysics
        >>> psychophysics.grating(4, cycles=1)[0]
        tensor([-0.7071,  0.7071,  0.7071, -0.7071])
    """
    x, y = _plane(size)
    along = x * math.cos(orientation) - y * math.sin(orientation)
    return torch.cos(math.pi * cycles * along + phase)


def gabor(
    size: int, cycles: float, orientation: float = 0.0, phase: float = 0.0, width: float = 0.35
) -> Tensor:
    """A grating under a Gaussian window.

    Args:
        size: Rows, and columns, in pixels.
        cycles: Over the width.
        orientation: In radians, anticlockwise from vertical bars.
        phase: In radians, 0 for a bright bar through the centre.
        width: SD of the window, in halves of the image.

    Returns:
        [size, size] in −1 … 1.

    Example:
        >>> from utils.stimuli import psychophysics
        >>> patch = psychophysics.gabor(9, cycles=2)
        >>> patch.shape, patch[4, 4].item()
        (torch.Size([9, 9]), 1.0)
    """
    x, y = _plane(size)
    return torch.exp(-(x**2 + y**2) / (2 * width**2)) * grating(size, cycles, orientation, phase)


def difference_of_gaussians(size: int, centre: float = 0.15, surround: float = 0.3) -> Tensor:
    """A centre-surround field that sums to zero.

    Args:
        size: Rows, and columns, in pixels.
        centre: SD of the centre, in halves of the image.
        surround: SD of the surround, in halves of the image.

    Returns:
        [size, size].

    Example:
        >>> from utils.stimuli import psychophysics
        >>> field = psychophysics.difference_of_gaussians(33)
        >>> abs(round(field.sum().item(), 3)), bool(field[16, 16] > 0 > field[16, 24])
        (0.0, True)
    """
    x, y = _plane(size)
    bells = [torch.exp(-(x**2 + y**2) / (2 * sd**2)) for sd in (centre, surround)]
    return bells[0] / bells[0].sum() - bells[1] / bells[1].sum()


def _rng(seed: int, index: int, kind: str) -> np.random.Generator:
    return np.random.default_rng((seed, index, *kind.encode()))


def _indices(images: Tensor, index: Tensor | None) -> list[int]:
    if images.ndim != 4:
        raise ValueError(f"Images are [n, colours, h, w], not {list(images.shape)}.")
    if index is None:
        return list(range(len(images)))
    if len(index) != len(images):
        raise ValueError(
            f"There are {len(images)} images, but {len(index)} indices: give one each."
        )
    return index.tolist()


def phase_scramble(images: Tensor, seed: int = 0, index: Tensor | None = None) -> Tensor:
    """Give every image random phases, the same for its colours, and leave its amplitudes.

    Values may leave 0 … 1: what is clipped would change the amplitudes.

    Args:
        images: [n, colours, h, w].
        seed: Of the phases.
        index: Global indices of the images [n], which key the phases; 0 … n − 1 if None.

    Returns:
        The scrambled images, same shape.

    Raises:
        ValueError: For images of another shape, and indices of another number.

    Example:
        >>> import torch
        >>> from utils.stimuli import objects, psychophysics
        >>> images = objects.load(n=2).images
        >>> scrambled = psychophysics.phase_scramble(images)
        >>> amplitudes = [torch.fft.fft2(x).abs() for x in (images, scrambled)]
        >>> torch.allclose(*amplitudes, atol=1e-3), torch.allclose(images, scrambled)
        (True, False)
    """
    scrambled = []
    for image, i in zip(images, _indices(images, index), strict=True):
        noise = _rng(seed, i, "phase").standard_normal(image.shape[-2:])
        phases = torch.from_numpy(np.angle(np.fft.fft2(noise)))  # odd, so that images stay real
        phases[0, 0] = 0  # the mean stays
        turned = torch.fft.fft2(image.cpu().double()) * torch.exp(1j * phases)
        scrambled.append(torch.fft.ifft2(turned).real.to(image))
    return torch.stack(scrambled)


def permute_patches(
    images: Tensor, block: int, seed: int = 0, index: Tensor | None = None
) -> Tensor:
    """Cut every image into square blocks and put them into random order.

    Args:
        images: [n, colours, h, w].
        block: Side of a block in pixels.
        seed: Of the orders.
        index: As for `phase_scramble`.

    Returns:
        The changed images, same shape.

    Raises:
        ValueError: Unless the blocks fill the image, and as `phase_scramble`.

    Example:
        >>> import torch
        >>> from utils.stimuli import psychophysics
        >>> image = torch.arange(16.0).view(1, 1, 4, 4)
        >>> mixed = psychophysics.permute_patches(image, block=2)
        >>> mixed.shape, bool((mixed.flatten().sort().values == image.flatten()).all())
        (torch.Size([1, 1, 4, 4]), True)
    """
    indices = _indices(images, index)
    height, width = images.shape[-2:]
    if block < 1 or height % block or width % block:
        raise ValueError(f"Blocks of {block} pixels do not fill {height} × {width} pixels.")
    rows, columns = height // block, width // block
    cut = images.unflatten(-1, (columns, block)).unflatten(-3, (rows, block))
    cut = cut.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # [n, blocks, colours, block, block]
    orders = [_rng(seed, i, "patches").permutation(rows * columns) for i in indices]
    order = torch.from_numpy(np.stack(orders)).to(images.device)
    mixed = cut[torch.arange(len(images), device=images.device)[:, None], order]
    mixed = mixed.unflatten(1, (rows, columns)).permute(0, 3, 1, 4, 2, 5)
    return mixed.flatten(-2).flatten(-3, -2)


def shift(images: Tensor, down: int, right: int) -> Tensor:
    """Move images by whole pixels; what comes in at the border repeats the border's pixels.

    Args:
        images: [..., h, w].
        down: Pixels, negative for up.
        right: Pixels, negative for left.

    Returns:
        The moved images, same shape.

    Raises:
        ValueError: For a shift by as much as the image or more.

    Example:
        >>> import torch
        >>> from utils.stimuli import psychophysics
        >>> psychophysics.shift(torch.tensor([[[[1.0, 2.0, 3.0]]]]), down=0, right=1)
        tensor([[[[1., 1., 2.]]]])
    """
    height, width = images.shape[-2:]
    if abs(down) >= height or abs(right) >= width:
        raise ValueError(
            f"A shift by ({down}, {right}) leaves nothing of {height} × {width} pixels."
        )
    rows = (torch.arange(height, device=images.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - right).clamp(0, width - 1)
    return images[..., rows, :][..., columns]


def _noise(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    noise = torch.from_numpy(rng.standard_normal(image.shape, dtype=np.float32))
    return image + 0.04 * severity * noise.to(image.device)


def _impulse(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    drawn = torch.from_numpy(rng.random(image.shape[-2:], dtype=np.float32)).to(image.device)
    share = 0.02 * severity
    image = image.masked_fill(drawn < share / 2, 0.0)
    return image.masked_fill((drawn >= share / 2) & (drawn < share), 1.0)


def _blur(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    sd = severity * 0.01 * image.shape[-1]
    return F.gaussian_blur(image, 2 * math.ceil(3 * sd) + 1, sd)


def _contrast(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    middle = image.mean((-1, -2), keepdim=True)
    return middle + (image - middle) * (1 - 0.16 * severity)


def _brightness(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    return image + 0.1 * severity


def _pixelate(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    size = list(image.shape[-2:])
    small = [max(1, round(n / (1 + 0.5 * severity))) for n in size]
    coarse = F.resize(image, small, F.InterpolationMode.BILINEAR, antialias=True)
    return F.resize(coarse, size, F.InterpolationMode.NEAREST)


def _occlude(image: Tensor, severity: int, rng: np.random.Generator) -> Tensor:
    height, width = image.shape[-2:]
    tall, wide = (round(n * math.sqrt(0.06 * severity)) for n in (height, width))
    top, left = rng.integers(height - tall + 1), rng.integers(width - wide + 1)
    covered = image.clone()
    covered[..., top : top + tall, left : left + wide] = 0.5
    return covered


CORRUPTIONS: dict[str, Callable[[Tensor, int, np.random.Generator], Tensor]] = {
    "noise": _noise,
    "impulse": _impulse,
    "blur": _blur,
    "contrast": _contrast,
    "brightness": _brightness,
    "pixelate": _pixelate,
    "occlusion": _occlude,
}


def corrupt(
    images: Tensor, kind: str, severity: int, seed: int = 0, index: Tensor | None = None
) -> Tensor:
    """Corrupt images in 0 … 1; the result is clipped to 0 … 1.

    Args:
        images: [n, 3, h, w] in 0 … 1.
        kind: One of CORRUPTIONS.
        severity: 1 (slight) to 5 (strong), in steps of its parameter.
        seed: Of what is random.
        index: As for `phase_scramble`.

    Returns:
        The corrupted images, same shape.

    Raises:
        ValueError: For an unknown kind or severity, images outside of 0 … 1, and as
            `phase_scramble`.

    Example:
        >>> import torch
        >>> from utils.stimuli import psychophysics
        >>> grey = torch.full((1, 3, 8, 8), 0.5)
        >>> round(psychophysics.corrupt(grey, "brightness", severity=2).mean().item(), 3)
        0.7
    """
    if kind not in CORRUPTIONS:
        raise ValueError(
            f"There is no corruption {kind!r}; choose one of {', '.join(CORRUPTIONS)}."
        )
    if severity not in SEVERITIES:
        raise ValueError(f"A severity is a whole number from 1 to 5, not {severity!r}.")
    if not 0 <= float(images.min()) <= float(images.max()) <= 1:
        raise ValueError(
            "Images outside of 0 … 1 are not corrupted: do so before normalising them."
        )
    change = CORRUPTIONS[kind]
    return torch.stack(
        [
            change(image, severity, _rng(seed, i, kind)).clamp(0, 1)
            for image, i in zip(images, _indices(images, index), strict=True)
        ]
    )
