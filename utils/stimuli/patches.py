"""Patches of natural photographs, as they are and whitened. Chapter 2.1."""

import torch
from torch import Tensor

from . import photographs


def natural(n: int, edge: int, seed: int = 0) -> Tensor:
    """Square patches of the photographs in `photographs.NAMES`, equally many of each.

    Chapter 2.1.

    Args:
        n: How many, a multiple of the number of photographs.
        edge: Of a patch, in pixels.
        seed: Of the places.

    Returns:
        [n, edge²], float32, the logarithm of luminance, each patch less its mean.

    Raises:
        ValueError: For another number, and patches that do not fit into the photographs.

    Example:
        >>> from utils.stimuli import patches
        >>> x = patches.natural(50, edge=10)
        >>> x.shape, bool(x.mean(1).abs().max() < 1e-5)
        (torch.Size([50, 100]), True)
    """
    each, rest = divmod(n, len(photographs.NAMES))
    if rest or each < 1:
        raise ValueError(f"{n} patches are not a multiple of {len(photographs.NAMES)} photographs.")
    draw, cut = torch.Generator().manual_seed(seed), []
    for name in photographs.NAMES:
        log = torch.from_numpy(photographs.luminance(name) + 0.05).log().float()
        if not 1 <= edge <= min(log.shape):
            raise ValueError(f"Patches of {edge} pixels do not fit into {name}, {log.shape}.")
        every = log.unfold(0, edge, 1).unfold(1, edge, 1).flatten(2)  # [rows, columns, pixels]
        row, column = (torch.randint(k, (each,), generator=draw) for k in every.shape[:2])
        cut.append(every[row, column])
    x = torch.cat(cut)
    return x - x.mean(1, keepdim=True)


def whitened(x: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Patches that vary equally in the directions of largest variance, and not in the others.

    Chapter 2.1.

    Args:
        x: [n, pixels], of mean zero.
        kept: How many directions.

    Returns:
        The patches [n, pixels], with a standard deviation of 1 over all values, and the projection
        [pixels, pixels] onto the directions that are kept.

    Raises:
        ValueError: For more directions than the patches vary in.

    Example:
        >>> from utils.stimuli import patches
        >>> white, kept = patches.whitened(patches.natural(500, edge=6), kept=20)
        >>> white.shape, round(kept.trace().item())
        (torch.Size([500, 36]), 20)
    """
    values, directions = torch.linalg.eigh(x.T @ x / len(x))
    values, directions = values[-kept:], directions[:, -kept:]
    if not 1 <= kept <= x.shape[1] or values[0] <= 1e-6 * values[-1]:
        raise ValueError(f"The patches do not vary in {kept} directions: keep fewer.")
    white = x @ directions * values.rsqrt() @ directions.T
    return white / white.std(), directions @ directions.T
