"""How like a Gabor and how oriented filters are, and noise of their own colours to compare with.

Filters are [n, colours, h, w], such as the weights of a first layer. Chapter 2.1.
"""

import math
from functools import cache

import torch
from torch import Tensor

from ..stimuli import psychophysics
from .responses import checked, float64

FREQUENCIES = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)  # cycles a pixel
WIDTHS = (0.1, 0.15, 0.25)  # SD of a Gabor's window, as a share of the filter's side
ORIENTATIONS = 8


def gabor_fit(filters: Tensor) -> Tensor:
    """The share of each filter's variance that the best of many Gabor filters explains.

    The Gabors have all places, eight orientations, six frequencies and three widths; phase and
    colours are fitted. The mean of each colour is left out. The best of many fits noise, too, and
    the larger the filter, the worse: compare with `noise_like` of the same size. Definition of our
    own. Chapter 2.1.

    Args:
        filters: [n, colours, h, h].

    Returns:
        [n], float64, in 0 … 1.

    Raises:
        ValueError: For filters of another shape, of one value, NaN or infinite.

    Example:
        >>> from utils.measures import filters
        >>> from utils.stimuli import psychophysics
        >>> wave = psychophysics.gabor(10, cycles=2, width=0.3)
        >>> bool(filters.gabor_fit(wave[None, None]) > 0.9)
        True
    """
    x = _square(filters, "gabor_fit").flatten(2)  # [n, colours, pixels]
    x = x - x.mean(-1, keepdim=True)
    size = x.square().sum((1, 2))
    if not (size > 0).all():
        raise ValueError("gabor_fit needs filters that vary: one has a single value.")
    pairs = _gabor_pairs(filters.shape[-1])  # [pairs, pixels, 2]
    best = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for some in pairs.split(2048):
        explained = torch.einsum("ncp,gpk->ngck", x, some.to(x.device)).square().sum((2, 3))
        best = torch.maximum(best, explained.amax(1))
    return best / size


@cache
def _gabor_pairs(side: int) -> Tensor:
    """Orthonormal pairs, a quarter of a cycle apart, each less its mean: [pairs, side², 2]."""
    wide, pairs = 2 * side - 1, []  # a window of `side` pixels slides over it
    for frequency in FREQUENCIES:
        for width in WIDTHS:
            for k in range(ORIENTATIONS):
                about = frequency * wide, k * math.pi / ORIENTATIONS
                sd = 2 * width * side / wide
                two = [psychophysics.gabor(wide, *about, p, sd) for p in (0, math.pi / 2)]
                moved = [g.unfold(0, side, 1).unfold(1, side, 1) for g in two]
                both = torch.stack([g.reshape(-1, side**2).double() for g in moved], 2)
                pairs.append(torch.linalg.qr(both - both.mean(1, keepdim=True))[0])
    return torch.cat(pairs)


def orientation_selectivity(filters: Tensor) -> Tensor:
    """One minus the circular variance of each filter's tuning to the orientation of gratings.

    Of each orientation the best of six frequencies counts, and colours add up as energies. Source:
    ringach2002orientation. Chapter 2.1.

    Args:
        filters: [n, colours, h, h].

    Returns:
        [n], float64; 0 passes all orientations equally well, 1 only one.

    Raises:
        ValueError: For filters of another shape, NaN or infinite.

    Example:
        >>> import torch
        >>> from utils.measures import filters
        >>> edge = torch.tensor([[1.0, 0, -1]] * 3)
        >>> blob = torch.tensor([[0.0, 1, 0], [1, 2, 1], [0, 1, 0]])
        >>> both = torch.stack([edge, blob])[:, None]
        >>> [round(x, 2) for x in filters.orientation_selectivity(both).tolist()]
        [0.4, 0.0]
    """
    x = _square(filters, "orientation_selectivity")
    angles = torch.arange(16, dtype=torch.float64, device=x.device) * math.pi / 16
    line = torch.arange(x.shape[-1], dtype=torch.float64, device=x.device)
    down, right = torch.meshgrid(line, line, indexing="ij")
    along = angles.cos()[:, None, None] * right - angles.sin()[:, None, None] * down
    best = torch.zeros(len(x), len(angles), dtype=torch.float64, device=x.device)
    for frequency in (0.1, 0.15, 0.2, 0.25, 0.3, 0.35):  # cycles a pixel
        waves = torch.exp(2j * math.pi * frequency * along)  # [angles, h, h]
        passed = torch.einsum("nchw,ahw->nca", x.to(waves.dtype), waves).abs()
        best = torch.maximum(best, passed.square().sum(1).sqrt())
    return (best * torch.exp(2j * angles)).sum(1).abs() / best.sum(1)


def noise_like(filters: Tensor, n: int, seed: int = 0) -> Tensor:
    """Gaussian noise of the filters' size, with the covariance of their colours: their chance.

    Where a filter's colours are nearly the same, they add up as one, and noise of one colour is
    oriented more often than noise whose colours are independent. Definition of our own. Chapter
    2.1.

    Args:
        filters: [m, colours, h, w], at least as many values of a colour as there are colours.
        n: How many to draw.
        seed: What they are drawn from.

    Returns:
        [n, colours, h, w], float64, on the CPU.

    Raises:
        ValueError: For NaN or infinite filters, or colours of which one is the others' mixture.

    Example:
        >>> import torch
        >>> from utils.measures import filters
        >>> grey = torch.randn(500, 1, 3, 3) + 0.1 * torch.randn(500, 3, 3, 3)
        >>> noise = filters.noise_like(grey, 500)
        >>> bool(torch.corrcoef(noise.transpose(0, 1).flatten(1))[0, 1] > 0.9)
        True
    """
    x = float64(checked(filters.detach(), "noise_like", signed=True)).cpu()
    values = x.transpose(0, 1).flatten(1)  # [colours, filters · h · w]
    mix, singular = torch.linalg.cholesky_ex(values @ values.T / values.shape[1])
    if singular:
        raise ValueError("noise_like needs colours that vary each in its own way.")
    draw = torch.Generator().manual_seed(seed)
    plain = torch.randn(n, *x.shape[1:], generator=draw, dtype=torch.float64)
    return torch.einsum("cd,ndhw->nchw", mix, plain)


def _square(filters: Tensor, measure: str) -> Tensor:
    if filters.ndim != 4 or filters.shape[-1] != filters.shape[-2] or not filters.numel():
        raise ValueError(
            f"{measure} needs square filters [n, colours, h, h], not {tuple(filters.shape)}."
        )
    return float64(checked(filters.detach(), measure, signed=True))
