"""The half-peak fraction of Tang et al. (2018): how rarely a unit comes near its own best response.

The mask "above half of the unit's peak" has one mean, whether taken over units first (population)
or over stimuli first (lifetime). A stream needs two passes, one for the peaks and one for the mask.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from ..responses import check_range, float64, float_responses
from .streaming import StreamingMeasure, mean_and_sd


class HalfPeakFraction(NamedTuple):
    """`population` [stimuli] over live units, `lifetime` [units] (NaN if dead), `dead` units."""

    population: Tensor
    lifetime: Tensor
    dead: int


def half_peak_fraction(responses: Tensor) -> HalfPeakFraction:
    """Share of responses above half of their unit's own peak over the stimulus set: low is sparse.

    `responses` [stimuli, units], any unit → HalfPeakFraction, 0 … 1. Both means of the one mask
    are the same number; it falls with the number of stimuli m (exponential: about 0.886/√m), so
    compare at equal m. Units that never exceed zero are dead: NaN, counted, in no mean.
    ValueError for NaN or infinite responses, other shapes and fewer than 2 stimuli.
    Source: tang2018large. Chapter 2.2.
    """
    x = float_responses(responses, "half_peak_fraction")
    if x.ndim != 2 or x.shape[0] < 2:
        raise ValueError(
            "half_peak_fraction needs responses [stimuli, units] with at least 2 stimuli, "
            f"got shape {tuple(x.shape)}: flatten positions into units first."
        )
    low, high = (bound.item() for bound in x.aminmax())
    check_range(low, high, "half_peak_fraction", signed=True)
    peaks = x.amax(0)  # [units]
    live = peaks > 0
    active = ((x > peaks / 2) & live).float()  # [stimuli, units]
    lifetime = active.mean(0).masked_fill(~live, math.nan)
    return HalfPeakFraction(active.sum(1) / live.sum(), lifetime, int((~live).sum()))


class PeakResponse(StreamingMeasure):
    """The largest response of every unit: the first of the two passes of HalfPeak.

    `update(responses)` as for LifetimeSparseness; `compute()` → peaks, one per unit, float64.
    ValueError for NaN or infinite responses, other shapes and fewer than 2 stimuli.
    Source: tang2018large. Chapter 2.2.
    """

    signed = True

    def __init__(self, unit: str | None = None, *, channel_dim: int = 1):
        super().__init__((), unit, channel_dim)
        self.add_state("peaks", torch.tensor(-math.inf).double(), dist_reduce_fx="max")

    def update(self, responses: Tensor) -> None:
        """Add the responses of one minibatch of stimuli."""
        x = self._units(responses)
        self._announce(x, states=1)
        peaks = float64(x.amax(0))
        self._check_shape("peaks", peaks)
        self.peaks = torch.maximum(self.peaks.to(peaks.device), peaks)

    def compute(self) -> Tensor:
        """Return the peak of every unit over all stimuli seen, on every rank alike."""
        self._check()
        return self.peaks


class HalfPeakSummary(NamedTuple):
    """`lifetime` fraction per unit (NaN if dead), its mean, the SD over stimuli, dead, stimuli."""

    lifetime: Tensor
    mean: Tensor
    sd: Tensor
    dead: int
    stimuli: int


class HalfPeak(StreamingMeasure):
    """Share of responses above half of each unit's peak: the second of two exact passes.

    `peaks` come from PeakResponse over the same stimuli; `unit`, `channel_dim` and `update` as
    there. `compute()` → HalfPeakSummary, float64, 0 … 1: `mean` is both the population and the
    lifetime mean, `sd` is over stimuli. Dead units (peak ≤ 0) are NaN, counted, in no mean.
    ValueError for NaN or infinite responses, < 2 stimuli, other stimuli than gave the peaks.
    Source: tang2018large. Chapter 2.2.
    """

    signed = True

    def __init__(self, peaks: Tensor, unit: str | None = None, *, channel_dim: int = 1):
        super().__init__(("counts", "total", "squares"), unit, channel_dim)
        self.add_state("excess", torch.tensor(-math.inf).double(), dist_reduce_fx="max")
        self.peaks = peaks

    def update(self, responses: Tensor) -> None:
        """Add the responses of one minibatch of the stimuli that gave the peaks."""
        x = self._units(responses)
        if x.shape[1:] != self.peaks.shape:
            raise ValueError(
                f"HalfPeak got units of shape {tuple(x.shape[1:])} for peaks of shape "
                f"{tuple(self.peaks.shape)}: take both passes with the same unit and layer."
            )
        self._announce(x, states=2)
        peaks = self.peaks.to(x)
        live = peaks > 0
        # Rounding may differ between the passes (other minibatches), other stimuli by far more.
        excess = float64((x - peaks.abs() * 1.001).amax())
        self.excess = torch.maximum(self.excess.to(excess.device), excess)
        active = ((x > peaks / 2) & live).float()  # [batch, …]
        fraction = float64(active.flatten(1).sum(1)) / float64(live.sum())  # [batch]
        self._add("counts", active.sum(0))
        self._add("total", fraction.sum())
        self._add("squares", fraction.square().sum())

    def compute(self) -> HalfPeakSummary:
        """Return the HalfPeakSummary of all stimuli seen, on every rank alike."""
        self._check()
        if self.excess > 0:
            raise ValueError(
                "HalfPeak saw responses above the peaks: both passes must see the same stimuli, "
                "with the model in eval mode."
            )
        m = int(self.stimuli)
        dead = self.peaks.to(self.counts.device) <= 0
        lifetime = (self.counts / m).masked_fill(dead, math.nan)
        mean, sd = mean_and_sd(self.total, self.squares, self.stimuli)
        return HalfPeakSummary(lifetime, mean, sd, int(dead.sum()), m)
