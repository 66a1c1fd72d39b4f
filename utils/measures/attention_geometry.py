"""Where attention goes: how far, in pixels, and from which tokens through all layers."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from .responses import checked, float64, float_responses, scaled


def mean_attention_distance(
    maps: Tensor, grid: tuple[int, int], patch_size: float, prefix: int
) -> Tensor:
    """Distance in pixels from query patch to key patch, weighted by attention, for every head.

    Prefix queries and keys are dropped, rows renormalised over patches. Source: raghu2021do.
    Chapters 2.4 and 3.

    Args:
        maps: [batch, heads, queries, keys] of all rows, for the special tokens and then the
            patches.
        grid: (rows, columns) of patches.
        patch_size: Width of a patch in pixels.
        prefix: Number of special tokens.

    Returns:
        [batch, heads], the mean over patch queries, from 0 to the grid's diagonal; NaN for a head
        with
        a row that has all its mass on the prefix.

    Raises:
        ValueError: For other shapes, NaN, infinite or negative weights.

    Example:
        >>> import torch
        >>> from utils.measures import attention_geometry
        >>> identity = torch.eye(16).expand(1, 2, 16, 16)  # every patch attends to itself
        >>> attention_geometry.mean_attention_distance(identity, (4, 4), patch_size=8, prefix=0)
        tensor([[0., 0.]])
    """
    patches = _patch_rows(maps, grid, prefix, "mean_attention_distance")
    axes = [torch.arange(length, dtype=torch.float64) for length in grid]
    places = torch.cartesian_prod(*axes).to(patches.device)  # [patches, 2]
    pixels = patch_size * (places[:, None] - places).norm(dim=-1)  # [patches, patches]
    distance = torch.einsum("bhqk,qk->bhq", patches, pixels)
    return distance.mean(-1).to(maps)


def uniform_attention_distance(grid: tuple[int, int], patch_size: float) -> float:
    """Mean attention distance in pixels of a head that attends to all patches equally.

    It is the mean distance of all pairs of patches, each with itself included: the reference for
    `mean_attention_distance`. Chapter 2.4.

    Args:
        grid: (rows, columns) of patches.
        patch_size: Width of a patch in pixels.

    Returns:
        The distance in pixels.

    Raises:
        ValueError: For a grid without patches.

    Example:
        >>> from utils.measures import attention_geometry
        >>> attention_geometry.uniform_attention_distance((1, 2), patch_size=8)
        4.0
    """
    rows, columns = grid
    if min(grid) < 1:
        raise ValueError(f"A grid has one row and one column at least, not {rows} × {columns}.")
    # An offset of (i, j) patches occurs (rows − i)(columns − j) times in each direction.
    total = sum(
        (1 + (i > 0)) * (1 + (j > 0)) * (rows - i) * (columns - j) * math.hypot(i, j)
        for i in range(rows)
        for j in range(columns)
    )
    return patch_size * total / (rows * columns) ** 2


def offset_shares(maps: Tensor, grid: tuple[int, int], prefix: int, reach: int = 1) -> Tensor:
    """How much of its attention a head gives to the patch at each fixed offset from the query.

    The mean over queries whose key lies in the image. Prefix queries and keys are dropped, rows
    renormalised over patches. A head that acted as one weight of a convolution would have 1 at one
    offset; attention without any preference has 1 / patches everywhere. Own definition. Chapter
    2.3.

    Args:
        maps: [batch, heads, queries, keys] of all rows, for the special tokens and then the
            patches.
        grid: (rows, columns) of patches.
        prefix: Number of special tokens.
        reach: The largest offset down and to the right, and back.

    Returns:
        [batch, heads, 2 · reach + 1, 2 · reach + 1] float64, offsets down, then to the right, each
        from −reach to reach; NaN for a head with a row that has all its mass on the prefix.

    Raises:
        ValueError: For other shapes, NaN, infinite or negative weights, and a reach that no two
            patches of the grid have.

    Example:
        >>> import torch
        >>> from utils.measures import attention_geometry
        >>> identity = torch.eye(16).expand(1, 1, 16, 16)  # every patch attends to itself
        >>> attention_geometry.offset_shares(identity, (4, 4), prefix=0)[0, 0, 1]
        tensor([0., 1., 0.], dtype=torch.float64)
    """
    if not 0 <= reach < min(grid):
        raise ValueError(f"No two patches of a {grid[0]} × {grid[1]} grid are {reach} apart.")
    patches = _patch_rows(maps, grid, prefix, "offset_shares")
    whole = patches.unflatten(-1, grid).unflatten(2, grid)  # [batch, heads, r, c, r, c]
    steps = range(-reach, reach + 1)
    shares = [
        whole.diagonal(down, 2, 4).diagonal(right, 2, 3).mean((-2, -1))
        for down in steps
        for right in steps
    ]
    return torch.stack(shares, -1).unflatten(-1, (len(steps), len(steps)))


def _patch_rows(maps: Tensor, grid: tuple[int, int], prefix: int, what: str) -> Tensor:
    """Rows of patches over patches, which sum to one [batch, heads, patches, patches], float64."""
    x = float_responses(maps, what)
    rows, columns = grid
    tokens = prefix + rows * columns
    if x.ndim != 4 or x.shape[-2:] != (tokens, tokens):
        raise ValueError(
            f"{what} needs maps [batch, heads, {tokens}, {tokens}] for {prefix} prefix tokens and "
            f"a {rows} × {columns} grid, got shape {tuple(x.shape)}: read all rows (rows='all'), "
            "and check grid and prefix."
        )
    patches = float64(scaled(checked(x, what)[..., prefix:, prefix:]))
    return patches / patches.sum(-1, keepdim=True)


def rollout(maps: Iterable[Tensor]) -> Tensor:
    """Attention rollout: how much of each input token reaches each output token.

    Heads are averaged, the residual path is half of every layer, layers are multiplied. A
    heuristic: it ignores values, MLPs and norms. Source: abnar2020quantifying.

    Args:
        maps: One [batch, heads, tokens, tokens] for each layer, first layer first.

    Returns:
        [batch, tokens, tokens], rows that sum to 1; row 0 is the class token's.

    Raises:
        ValueError: For no maps, other or unequal shapes, NaN, infinite or negative weights.

    Example:
        >>> import torch
        >>> from utils.measures import attention_geometry
        >>> uniform = torch.full((1, 3, 4, 4), 0.25)
        >>> attention_geometry.rollout([uniform])[0, 0]
        tensor([0.6250, 0.1250, 0.1250, 0.1250])
    """
    result = None
    for layer, weights in enumerate(maps):
        x = float_responses(weights, "rollout")
        if x.ndim != 4 or x.shape[-1] != x.shape[-2]:
            raise ValueError(
                f"rollout needs maps [batch, heads, tokens, tokens], got shape {tuple(x.shape)} "
                f"in map {layer}: read all rows of layers that attend over all tokens."
            )
        mixed = float64(checked(x, "rollout")).mean(1)  # [batch, tokens, tokens]
        mixed = mixed / mixed.sum(-1, keepdim=True)
        mixed = (mixed + torch.eye(x.shape[-1]).to(mixed)) / 2
        if result is not None and result.shape != mixed.shape:
            raise ValueError(
                f"rollout got {tuple(mixed.shape)} tokens in map {layer} after "
                f"{tuple(result.shape)}: it needs the same tokens in every layer."
            )
        result = mixed if result is None else mixed @ result
    if result is None:
        raise ValueError("rollout got no maps: give one map per layer, first layer first.")
    return result.to(x)
