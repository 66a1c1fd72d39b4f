"""The controls that stand beside a sparseness value, and the placement overlap of heads.

Shuffling within one attention row is no control: it leaves every measure of the row unchanged.
Shuffling a unit's responses over stimuli likewise leaves its lifetime sparseness unchanged, but
not the population sparseness. All draws come from the `generator` given. Chapters 2.2 and 3.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..responses import float_responses
from .vector import gini


class PatchRows(NamedTuple):
    """`rows` [..., patches] that sum to 1, and the `prefix_mass` [...] (0 … 1) taken from them."""

    rows: Tensor
    prefix_mass: Tensor


def patch_rows(maps: Tensor, prefix: int) -> PatchRows:
    """Drop the `prefix` first keys (class, distillation, registers) and renormalise over patches.

    `maps` [..., keys], rows summing to 1 → PatchRows. A row with all its mass on the prefix
    becomes NaN. ValueError if fewer than 2 patches would be left. Chapter 3.
    """
    maps = float_responses(maps, "patch_rows")
    if not 0 <= prefix <= maps.shape[-1] - 2:
        raise ValueError(
            f"patch_rows cannot drop {prefix} prefix keys from {maps.shape[-1]} keys: give the "
            "model's number of prefix tokens, which leaves at least 2 patches."
        )
    rows = maps[..., prefix:]  # [..., patches]
    return PatchRows(rows / rows.sum(-1, keepdim=True), maps[..., :prefix].sum(-1))


def gaussian_logit_rows(
    logit_std: float | Tensor, shape: tuple[int, ...], generator: torch.Generator
) -> Tensor:
    """Softmax of independent Gaussian logits: how sparse a row is from its logits' spread alone.

    `logit_std` ≥ 0, one number or broadcastable to `shape` [..., keys] (say [heads, 1]) → float32
    rows that sum to 1. ValueError for a negative or non-finite spread. Chapter 3.
    """
    std = torch.as_tensor(logit_std, dtype=torch.float32, device=generator.device)
    if not ((std >= 0) & std.isfinite()).all():
        raise ValueError(f"logit_std must be finite and at least 0, got {logit_std}.")
    return (std * torch.randn(shape, generator=generator, device=generator.device)).softmax(-1)


def mean_map(maps: Tensor) -> Tensor:
    """Mean over images: what the maps have in common, so that the rest is image-specific.

    `maps` [images, ...] → [...], rows still sum to 1. Chapter 3.
    """
    return float_responses(maps, "mean_map").mean(0)


def permute_heads(maps: Tensor, generator: torch.Generator) -> Tensor:
    """Permute the key positions independently in every row, so that heads agree only by chance.

    `maps` [batch, heads, keys] → the same values in new places, same shape. Chapter 3.
    """
    draws = torch.rand(maps.shape, generator=generator, device=generator.device)
    return maps.gather(-1, draws.argsort(-1).to(maps.device))


def shuffle_stimuli(responses: Tensor, generator: torch.Generator) -> Tensor:
    """Permute every unit's responses over the stimuli, so that units fire together by chance.

    `responses` [stimuli, ...units] → same shape. Every lifetime measure stays the same; population
    measures change as far as units respond to the same stimuli. Chapters 2.2 and 4.
    """
    draws = torch.rand(responses.shape, generator=generator, device=generator.device)
    return responses.gather(0, draws.argsort(0).to(responses.device))


class PlacementOverlap(NamedTuple):
    """`overlap` O, and the Gini [batch] of heads (mean), of their average, and of it permuted."""

    overlap: Tensor
    per_head: Tensor
    averaged: Tensor
    permuted: Tensor


def placement_overlap(
    maps: Tensor, generator: torch.Generator, permutations: int = 8
) -> PlacementOverlap:
    """Placement overlap O = (G_avg − G_perm)/(G_per-head − G_perm): 0 independent, 1 identical.

    The mean of sparse maps is denser than they are on average; O says how much of that the heads'
    placement spares. `maps` [batch, heads, keys] non-negative (see patch_rows) → PlacementOverlap;
    the Ginis in O are means over the batch; negative O: heads avoid each other's places. NaN where
    permuting changes nothing (uniform maps). ValueError for other shapes, one head, NaN or negative
    values.
    The Gini index is hurley2009comparing's; O is the book's own. Chapter 3.
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
    """Placement overlap O of three mean Ginis, as `placement_overlap` defines it.

    The mean over heads of each head's own, that of the heads' average, and that of the average of
    permuted heads → O, of the same shape. NaN where permuting changes nothing.
    """
    spread = per_head - permuted
    # Rounding alone separates the Ginis of uniform maps.
    return (averaged - permuted) / torch.where(spread > 1e-5, spread, math.nan)
