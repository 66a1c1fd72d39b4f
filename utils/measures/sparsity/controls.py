"""The controls that belong to a sparseness value, and the placement overlap of heads.

Shuffling within one attention row is no control: it leaves every measure of the row unchanged.
Shuffling a unit's responses over stimuli also leaves its lifetime sparseness unchanged, but not the
population sparseness. All draws come from the `generator` given. Chapters 2.2 and 3.
"""

import math
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from ..responses import checked, float_responses
from .vector import gini

DRAWN = 2**17  # logits
MOST_SPREAD = 10.0  # of logits: the largest weight is then next to all of a row


class PatchRows(NamedTuple):
    """Attention rows without their prefix.

    Attributes:
        rows: [..., patches], which sum to 1.
        prefix_mass: [...], what was taken from them, in 0 … 1.
    """

    rows: Tensor
    prefix_mass: Tensor


def patch_rows(maps: Tensor, prefix: int) -> PatchRows:
    """Drop the first `prefix` keys (class, distillation, registers) and renormalise over patches.

    Chapter 3.

    Args:
        maps: [..., keys], rows that sum to 1.
        prefix: How many keys to drop.

    Returns:
        The PatchRows; a row with all its mass on the prefix becomes NaN.

    Raises:
        ValueError: If fewer than 2 patches would be left, and for NaN, infinite or negative
            weights.

    Example:
        >>> import torch
        >>> from utils.measures import sparsity
        >>> found = sparsity.patch_rows(torch.tensor([0.5, 0.25, 0.25]), prefix=1)
        >>> found.rows, found.prefix_mass
        (tensor([0.5000, 0.5000]), tensor(0.5000))
    """
    maps = float_responses(maps, "patch_rows")
    if not 0 <= prefix <= maps.shape[-1] - 2:
        raise ValueError(
            f"patch_rows cannot drop {prefix} prefix keys from {maps.shape[-1]} keys: give the "
            "model's number of prefix tokens, which leaves at least 2 patches."
        )
    rows = checked(maps, "patch_rows")[..., prefix:]  # [..., patches]
    return PatchRows(rows / rows.sum(-1, keepdim=True), maps[..., :prefix].sum(-1))


def gaussian_logit_rows(
    logit_std: float | Tensor, shape: tuple[int, ...], generator: torch.Generator
) -> Tensor:
    """Softmax of independent Gaussian logits: how sparse a row is from its logits' spread alone.

    Chapter 3.

    Args:
        logit_std: Standard deviation ≥ 0, one number or broadcastable to `shape` (say [heads, 1]).
        shape: [..., keys].
        generator: What the logits are drawn from.

    Returns:
        Rows of that shape, float32, which sum to 1.

    Raises:
        ValueError: For a negative or non-finite spread.

    Example:
        >>> import torch
        >>> from utils.measures import sparsity
        >>> draw = torch.Generator().manual_seed(0)
        >>> sparsity.gini(sparsity.gaussian_logit_rows(0.0, (2, 64), draw))  # equal logits
        tensor([0., 0.])
    """
    std = torch.as_tensor(logit_std, dtype=torch.float32, device=generator.device)
    if not ((std >= 0) & std.isfinite()).all():
        raise ValueError(f"logit_std must be finite and at least 0, got {logit_std}.")
    return (std * torch.randn(shape, generator=generator, device=generator.device)).softmax(-1)


def gaussian_gini(spread: Tensor, keys: int) -> Tensor:
    """Mean Gini index of a softmax of so many Gaussian logits with exactly the given spread.

    For many keys erf(spread / 2); for few it is lower. Taken from rows of 131,072 drawn logits
    in all, each brought to mean 0 and standard deviation 1 first, at 101 spreads, and interpolated
    between these.

    Args:
        spread: Standard deviation ≥ 0 of a row's own logits [...], which is that of the logarithm
            of its weights. Above 10 the value at 10 is taken.
        keys: How many logits a row has, at least 2.

    Returns:
        The index in [0, 1), float64 [...], NaN where the spread is NaN.

    Raises:
        ValueError: For a negative or infinite spread, or fewer than two keys.

    Example:
        >>> import torch
        >>> from utils.measures import sparsity
        >>> sparsity.gaussian_gini(torch.tensor([0.0, 1.0]), 4096)  # erf(1/2) is .5205
        tensor([0.0000, 0.5194], dtype=torch.float64)
    """
    if keys < 2:
        raise ValueError(f"A row of {keys} keys has no spread: give at least 2 keys.")
    spread = spread.double()
    if (spread < 0).any() or spread.isinf().any():
        raise ValueError("The spread of logits must be finite and at least 0.")
    table = _gaussian_ginis(keys).to(spread.device)
    place = spread.clamp(max=MOST_SPREAD) * ((len(table) - 1) / MOST_SPREAD)
    below = place.nan_to_num(0).floor().clamp(max=len(table) - 2).long()
    return torch.lerp(table[below], table[below + 1], place - below)


@cache
def _gaussian_ginis(keys: int) -> Tensor:
    """The mean index at equally spaced spreads from 0 to MOST_SPREAD, float64 [101]."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(max(16, DRAWN // keys), keys, generator=generator, dtype=torch.float64)
    logits -= logits.mean(-1, keepdim=True)
    logits /= logits.std(-1, correction=0, keepdim=True)
    spreads = torch.linspace(0, MOST_SPREAD, 101, dtype=torch.float64)
    return torch.stack([gini((spread * logits).softmax(-1)).mean() for spread in spreads])


def mean_map(maps: Tensor) -> Tensor:
    """Mean over images: what the maps have in common, so that the rest is image-specific.

    Chapter 3.

    Args:
        maps: [images, ...].

    Returns:
        The mean map [...], whose rows still sum to 1.

    Raises:
        ValueError: For NaN, infinite or negative weights.

    Example:
        >>> import torch
        >>> from utils.measures import sparsity
        >>> sparsity.mean_map(torch.eye(2)).tolist()
        [0.5, 0.5]
    """
    return checked(maps, "mean_map").mean(0)


def permute_heads(maps: Tensor, generator: torch.Generator) -> Tensor:
    """Permute the key positions independently in every row, so that heads agree only by chance.

    Chapter 3.

    Args:
        maps: [batch, heads, keys].
        generator: What the permutations are drawn from.

    Returns:
        The same values in new places, same shape.

    Example:
        >>> import torch
        >>> from utils.measures import sparsity
        >>> maps = torch.eye(4)[:1].expand(1, 3, 4)  # three heads that look at one place
        >>> moved = sparsity.permute_heads(maps, torch.Generator().manual_seed(0))
        >>> moved.sum(-1).tolist(), moved.amax(-1).tolist()
        ([[1.0, 1.0, 1.0]], [[1.0, 1.0, 1.0]])
    """
    draws = torch.rand(maps.shape, generator=generator, device=generator.device)
    return maps.gather(-1, draws.argsort(-1).to(maps.device))


def shuffle_stimuli(responses: Tensor, generator: torch.Generator) -> Tensor:
    """Permute every unit's responses over the stimuli, so that units fire together by chance.

    Every lifetime measure stays the same; population measures change as far as units respond to the
    same stimuli. Chapter 2.2.

    Args:
        responses: [stimuli, ...units].
        generator: What the permutations are drawn from.

    Returns:
        The same values in new places, same shape.

    Example:
        >>> import torch
        >>> from utils.measures import sparsity
        >>> responses = torch.eye(3)
        >>> shuffled = sparsity.shuffle_stimuli(responses, torch.Generator().manual_seed(0))
        >>> bool((shuffled.sum(0) == responses.sum(0)).all())
        True
    """
    draws = torch.rand(responses.shape, generator=generator, device=generator.device)
    return responses.gather(0, draws.argsort(0).to(responses.device))


class PlacementOverlap(NamedTuple):
    """The placement overlap, and the Gini indices that it is made of.

    Attributes:
        overlap: O.
        per_head: [batch], the mean of the heads' own Gini indices.
        averaged: [batch], the Gini index of the heads' average.
        permuted: [batch], that of the average of permuted heads.
    """

    overlap: Tensor
    per_head: Tensor
    averaged: Tensor
    permuted: Tensor


def placement_overlap(
    maps: Tensor, generator: torch.Generator, permutations: int = 8
) -> PlacementOverlap:
    """Placement overlap O = (G_avg − G_perm)/(G_per-head − G_perm): 0 independent, 1 identical.

    The average of sparse maps is denser than the maps themselves; O says how much of that loss the
    heads avoid by attending to the same places. Negative O: heads avoid each other's places. The
    Gini indices in O are means over the batch. The Gini index is hurley2009comparing's; O is the
    book's own. Chapter 3.

    Args:
        maps: [batch, heads, keys], non-negative (see `patch_rows`).
        generator: What the permutations are drawn from.
        permutations: How many to average over.

    Returns:
        The PlacementOverlap; O is NaN where permuting changes nothing (uniform maps).

    Raises:
        ValueError: For other shapes, one head, NaN or negative values.

    Example:
        >>> import torch
        >>> from utils.measures import sparsity
        >>> draw = torch.Generator().manual_seed(0)
        >>> one = torch.rand(5, 1, 64, generator=draw)
        >>> sparsity.placement_overlap(one.expand(-1, 4, -1), draw).overlap.round(decimals=3)
        tensor(1.)
    """
    maps = float_responses(maps, "placement_overlap")
    if maps.ndim != 3 or maps.shape[1] < 2:
        raise ValueError(
            "placement_overlap needs maps [batch, heads, keys] with at least 2 heads, got shape "
            f"{tuple(maps.shape)}: choose one query (the class row) of one layer."
        )
    if permutations < 1:
        raise ValueError(f"placement_overlap needs at least 1 permutation, got {permutations}.")
    per_head = gini(maps).mean(1)  # [batch]
    averaged = gini(maps.mean(1))
    permuted = torch.stack(
        [gini(permute_heads(maps, generator).mean(1)) for _ in range(permutations)]
    ).mean(0)
    found = overlap(per_head.mean(), averaged.mean(), permuted.mean())
    return PlacementOverlap(found, per_head, averaged, permuted)


def overlap(per_head: Tensor, averaged: Tensor, permuted: Tensor) -> Tensor:
    """Placement overlap O of three mean Gini indices, as `placement_overlap` defines it.

    Args:
        per_head: [...], the mean of the heads' own.
        averaged: [...], that of the heads' average.
        permuted: [...], that of the average of permuted heads.

    Returns:
        O [...]; NaN where permuting changes nothing.
    """
    spread = per_head - permuted
    # Rounding alone separates the Ginis of uniform maps.
    return (averaged - permuted) / torch.where(spread > 1e-5, spread, math.nan)
