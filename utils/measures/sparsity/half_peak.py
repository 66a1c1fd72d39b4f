"""The half-peak fraction of Tang et al. (2018): how rarely a unit comes near its own best response.

The mask "above half of the unit's peak" has one mean, whether taken over units first (population)
or over stimuli first (lifetime).
"""

import math
from typing import NamedTuple

from torch import Tensor

from ..responses import checked, float_responses


class HalfPeakFraction(NamedTuple):
    """The share of responses above half of their unit's peak, taken both ways.

    Attributes:
        population: [stimuli], over live units.
        lifetime: [units], NaN for dead ones.
        dead: How many units never exceeded zero.
    """

    population: Tensor
    lifetime: Tensor
    dead: int


def half_peak_fraction(responses: Tensor) -> HalfPeakFraction:
    """Share of responses above half of their unit's own peak over the stimulus set: low is sparse.

    Both means of the one mask are the same number; it falls with the number of stimuli m
    (exponential: about 0.886/√m), so compare at equal m. Units that never exceed zero are dead:
    NaN, counted, in no mean. Source: tang2018large. Chapter 2.2.

    Args:
        responses: [stimuli, units], in any unit.

    Returns:
        The HalfPeakFraction, shares in 0 … 1.

    Raises:
        ValueError: For NaN or infinite responses, other shapes and fewer than 2 stimuli.

    Example:
        >>> import torch
        >>> from utils.measures import sparsity
        >>> responses = torch.tensor([[4.0, 0.0, 1.0], [2.0, 0.0, 0.6], [1.0, 0.0, 0.4]])
        >>> found = sparsity.half_peak_fraction(responses)
        >>> found.population, found.dead
        (tensor([1.0000, 0.5000, 0.0000]), 1)
    """
    x = float_responses(responses, "half_peak_fraction")
    if x.ndim != 2 or x.shape[0] < 2:
        raise ValueError(
            "half_peak_fraction needs responses [stimuli, units] with at least 2 stimuli, "
            f"got shape {tuple(x.shape)}: flatten positions into units first."
        )
    peaks = checked(x, "half_peak_fraction", signed=True).amax(0)  # [units]
    live = peaks > 0
    active = ((2 * x > peaks) & live).float()  # [stimuli, units]
    lifetime = active.mean(0).masked_fill(~live, math.nan)
    return HalfPeakFraction(active.sum(1) / live.sum(), lifetime, int((~live).sum()))
