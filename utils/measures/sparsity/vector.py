"""Sparseness of one vector of responses, reduced along `dim`; all other axes are a batch.

Reduced over units, for one stimulus, a measure gives *population* sparseness; over stimuli, for one
unit, *lifetime* sparseness. The two need not correlate [willmore2001characterizing]: say which.
All-zero vectors give NaN. Chapter 2.2 explains every measure.
"""

import math

import numpy as np
import torch
from torch import Tensor

from ..responses import checked, float64, float_responses, scaled


def _gini(x: Tensor) -> Tensor:
    x = scaled(x)
    if x.device.type == "cpu":  # NumPy's vectorised sort is over ten times faster than torch's here
        ordered = torch.from_numpy(np.sort(x.numpy(), axis=-1))
    else:
        ordered = x.sort(-1).values
    ordered = float64(ordered)
    n = x.shape[-1]
    # Σᵢⱼ|rᵢ−rⱼ| = 2 Σᵢ (2i−n−1) r₍ᵢ₎ for ascending r₍₁₎ … r₍ₙ₎
    ranks = torch.arange(1 - n, n, 2, dtype=torch.float64, device=ordered.device)
    return ((ordered @ ranks) / (n * ordered.sum(-1))).clamp(min=0)


def treves_rolls_of_sums(total: Tensor, squares: Tensor, n: int | Tensor) -> Tensor:
    """(Σr/n)² / (Σr²/n) from the two sums in float64.

    Args:
        total: Σr [...].
        squares: Σr² [...].
        n: How many responses were summed.

    Returns:
        Treves–Rolls a [...], NaN where all responses were zero.
    """
    return (total**2 / (n * squares)).clamp(max=1)  # rounding may exceed 1 for equal responses


def _treves_rolls(x: Tensor) -> Tensor:
    x = scaled(x.cpu() if x.device.type == "mps" else x)
    # Accumulating in float64 without a float64 copy of x, which would cost forty times as much.
    total = x.sum(-1, dtype=torch.float64)
    squares = torch.linalg.vector_norm(x, dim=-1, dtype=torch.float64).square()
    return treves_rolls_of_sums(total, squares, x.shape[-1])


def _vinje_gallant(x: Tensor) -> Tensor:
    return (1 - _treves_rolls(x)) / (1 - 1 / x.shape[-1])


def _hoyer(x: Tensor) -> Tensor:
    root = math.sqrt(x.shape[-1])
    return (root - root * _treves_rolls(x).sqrt()) / (root - 1)  # ‖r‖₁/‖r‖₂ = √(n·a)


def _excess_kurtosis(x: Tensor) -> Tensor:
    x = float64(scaled(x))
    squared = (x - x.mean(-1, keepdim=True)).square()
    kurtosis = squared.square().mean(-1) / squared.mean(-1).square() - 3
    # The rounded mean of a constant differs from it, so its spread must be tested, not divided by.
    return kurtosis.masked_fill(x.amax(-1) == x.amin(-1), math.nan)


def _normalised_entropy(x: Tensor) -> Tensor:
    x = float64(scaled(x))
    return torch.special.entr(x / x.sum(-1, keepdim=True)).sum(-1) / math.log(x.shape[-1])


def checked_threshold(threshold: float) -> float:
    """A threshold of active responses, if it is one.

    Args:
        threshold: A number.

    Returns:
        The number.

    Raises:
        ValueError: For NaN, infinity and what is no number.
    """
    number = isinstance(threshold, int | float | np.number) and not isinstance(threshold, bool)
    if not (number and math.isfinite(threshold)):
        raise ValueError(
            f"A threshold of active responses is a finite number, not {threshold!r}: give one in "
            "the unit of the responses."
        )
    return float(threshold)


def _active_fraction(x: Tensor, threshold: float = 0.0) -> Tensor:
    share = float64((x > threshold).float().sum(-1)) / x.shape[-1]  # float: an integer sum is slow
    silent = (x != 0).float().amax(-1) == 0
    return share.masked_fill(silent.to(share.device), math.nan)


# name → (function of the last axis, returning float64; whether it takes signed responses)
MEASURES = {
    "gini": (_gini, False),
    "treves_rolls": (_treves_rolls, False),
    "vinje_gallant": (_vinje_gallant, False),
    "hoyer": (_hoyer, False),
    "excess_kurtosis": (_excess_kurtosis, True),
    "normalised_entropy": (_normalised_entropy, False),
    "active_fraction": (_active_fraction, True),
}


def _measure(name: str, x, dim: int, **options) -> Tensor:
    function, signed = MEASURES[name]
    x = float_responses(x, name)
    if not -max(x.ndim, 1) <= dim < max(x.ndim, 1):
        raise ValueError(f"{name} got responses {list(x.shape)}, which have no axis {dim}.")
    n = x.shape[dim] if x.ndim else 1
    if n < 2:
        raise ValueError(
            f"{name} needs at least 2 responses along dim {dim}, got {n} "
            f"(shape {tuple(x.shape)}): reduce over the axis of units or stimuli."
        )
    return function(checked(x, name, signed).movedim(dim, -1), **options).to(x)


def gini(x: Tensor, dim: int = -1) -> Tensor:
    """Gini index Σᵢⱼ|rᵢ−rⱼ| / (2 n Σr): the book's default, from 0 (dense) to 1 − 1/n (sparse).

    Source: hurley2009comparing. Chapter 2.2.

    Args:
        x: Responses [..., n, ...], non-negative, in any unit.
        dim: The axis of the n responses.

    Returns:
        The index, of the shape of `x` without `dim`; NaN for an all-zero vector.

    Raises:
        ValueError: For NaN, infinite or negative responses and for n < 2.

    Example:
        >>> from utils.measures import sparsity
        >>> sparsity.gini([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 5.0]])
        tensor([0.0000, 0.7500])
    """
    return _measure("gini", x, dim)


def treves_rolls(x: Tensor, dim: int = -1) -> Tensor:
    """Treves–Rolls a = (Σr/n)² / (Σr²/n), from 1/n (sparse) to 1 (dense): low is sparse.

    Source: treves1991what, rolls1995sparseness. Chapter 2.2.

    Args:
        x: Responses [..., n, ...], non-negative, in any unit.
        dim: The axis of the n responses.

    Returns:
        The value a, of the shape of `x` without `dim`; NaN for an all-zero vector.

    Raises:
        ValueError: For NaN, infinite or negative responses and for n < 2.

    Example:
        >>> from utils.measures import sparsity
        >>> sparsity.treves_rolls([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 5.0]])
        tensor([1.0000, 0.2500])
    """
    return _measure("treves_rolls", x, dim)


def vinje_gallant(x: Tensor, dim: int = -1) -> Tensor:
    """Vinje–Gallant S = (1 − a)/(1 − 1/n), a Treves–Rolls, from 0 (dense) to 1 (sparse).

    Source: vinje2000sparse. Chapter 2.2.

    Args:
        x: Responses [..., n, ...], non-negative, in any unit.
        dim: The axis of the n responses.

    Returns:
        The value S, of the shape of `x` without `dim`; NaN for an all-zero vector.

    Raises:
        ValueError: For NaN, infinite or negative responses and for n < 2.

    Example:
        >>> from utils.measures import sparsity
        >>> sparsity.vinje_gallant([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 5.0]])
        tensor([0., 1.])
    """
    return _measure("vinje_gallant", x, dim)


def hoyer(x: Tensor, dim: int = -1) -> Tensor:
    """Hoyer sparseness (√n − ‖r‖₁/‖r‖₂)/(√n − 1), from 0 (dense) to 1 (sparse).

    For one vector at one n it ranks as Treves–Rolls does: it is no independent evidence. Source:
    hoyer2004nonnegative. Chapter 2.2.

    Args:
        x: Responses [..., n, ...], non-negative, in any unit.
        dim: The axis of the n responses.

    Returns:
        The sparseness, of the shape of `x` without `dim`; NaN for an all-zero vector.

    Raises:
        ValueError: For NaN, infinite or negative responses and for n < 2.

    Example:
        >>> from utils.measures import sparsity
        >>> sparsity.hoyer([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 5.0]])
        tensor([0., 1.])
    """
    return _measure("hoyer", x, dim)


def excess_kurtosis(x: Tensor, dim: int = -1) -> Tensor:
    """Excess kurtosis m₄/m₂² − 3 with moments about the mean: high is sparse, a Gaussian has 0.

    Source: willmore2001characterizing. Chapter 2.2.

    Args:
        x: Responses [..., n, ...] of either sign, in any unit.
        dim: The axis of the n responses.

    Returns:
        The kurtosis, of the shape of `x` without `dim`; NaN for a constant vector.

    Raises:
        ValueError: For NaN or infinite responses and for n < 2.

    Example:
        >>> from utils.measures import sparsity
        >>> sparsity.excess_kurtosis([[-1.0, 1.0, -1.0, 1.0], [0.0, 0.0, 0.0, 5.0]])
        tensor([-2.0000, -0.6667])
    """
    return _measure("excess_kurtosis", x, dim)


def normalised_entropy(x: Tensor, dim: int = -1) -> Tensor:
    """Entropy of r/Σr divided by log n, from 0 (sparse) to 1 (dense).

    Do not compare it across different n. Source: hurley2009comparing, which compares related
    entropies. Chapter 2.2.

    Args:
        x: Responses [..., n, ...], non-negative, in any unit.
        dim: The axis of the n responses.

    Returns:
        The entropy, of the shape of `x` without `dim`; NaN for an all-zero vector.

    Raises:
        ValueError: For NaN, infinite or negative responses and for n < 2.

    Example:
        >>> from utils.measures import sparsity
        >>> sparsity.normalised_entropy([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 5.0]])
        tensor([1., 0.])
    """
    return _measure("normalised_entropy", x, dim)


def active_fraction(x: Tensor, threshold: float = 0.0, dim: int = -1) -> Tensor:
    """Share of responses above `threshold`, from 0 (sparse) to 1 (dense).

    A threshold of 0 suits only ReLU: softmax and GELU have no exact zeros, so give and state one.
    Source: willmore2001characterizing (activity sparseness). Chapter 2.2.

    Args:
        x: Responses [..., n, ...] of either sign.
        threshold: What a response must exceed, in the unit of `x`.
        dim: The axis of the n responses.

    Returns:
        The share, of the shape of `x` without `dim`; NaN for an all-zero vector.

    Raises:
        ValueError: For NaN or infinite responses, n < 2 and a threshold that is no finite number.

    Example:
        >>> from utils.measures import sparsity
        >>> sparsity.active_fraction([0.1, 0.2, 0.0, 5.0], threshold=0.15)
        tensor(0.5000)
    """
    return _measure("active_fraction", x, dim, threshold=checked_threshold(threshold))
