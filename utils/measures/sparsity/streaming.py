"""Sparseness over a stream of minibatches and over ranks, in memory that does not grow.

Every metric takes `update(responses)` once a minibatch and `compute()` once at the end; states are
float64 sums (and extremes), so minibatches may be split, and ranks merged, in any way. Checks wait
for `compute()`: an update neither raises on values nor waits for a GPU. Chapter 4.
"""

import functools
import math
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.distributed import gather_all_tensors

from ..responses import check_range, float64, float_responses
from .vector import MEASURES, checked_threshold, treves_rolls_of_sums

AT_ONCE = 2**16  # responses that are widened at a time, so that they stay in the cache


def gather_states(state: Tensor, group=None) -> list[Tensor]:
    """The states of all ranks, for torchmetrics.

    A rank that saw no minibatch still holds 0-dim states: it joins in with the others' shape.

    Args:
        state: This rank's, of any shape.
        group: The process group; None for all ranks.

    Returns:
        One tensor for each rank, all of the same shape.
    """
    shapes: list[tuple[int, ...]] = [()] * dist.get_world_size(group)
    dist.all_gather_object(shapes, tuple(state.shape), group=group)
    return gather_all_tensors(state.expand(max(shapes, key=len)).contiguous(), group)


def mean_and_sd(total: Tensor, squares: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (n − 1) from Σv and Σv² in float64.

    Args:
        total: Σv [...].
        squares: Σv² [...].
        n: How many values were summed [...].

    Returns:
        Mean and standard deviation, [...] each.
    """
    mean = total / n
    return mean, ((squares - n * mean**2).clamp(min=0) / (n - 1)).sqrt()


def sums_in_float64(x: Tensor) -> tuple[Tensor, Tensor]:
    """Σr and Σr² over the first axis.

    Args:
        x: Responses [stimuli, units, …].

    Returns:
        Both [units, …], float64.
    """
    pieces = x.split(max(1, AT_ONCE * x.shape[1] // x.numel()), 1)
    wide = ((y.sum(0), y.square().sum(0)) for y in map(float64, pieces))
    totals, squares = zip(*wide, strict=True)
    return torch.cat(totals), torch.cat(squares)


class Shaped(Metric):
    """A metric whose results keep the shape that it says; torchmetrics makes [1] a number."""

    def _wrap_compute(self, compute: Callable) -> Callable:
        wrapped = super()._wrap_compute(functools.wraps(compute)(lambda: _Box(value=compute())))
        return functools.wraps(compute)(lambda: wrapped().value)


class _Box(SimpleNamespace):
    """What torchmetrics does not look into."""


class StreamingMeasure(Shaped):
    """What the metrics share: states that take the shape of the first minibatch, and checks.

    Args:
        sums: Names of the states to be summed.
        unit: What a unit of a feature map is, one of `units`; None for responses [stimuli, units].
        channel_dim: The axis of the channels.
    """

    full_state_update = False
    signed = False  # whether responses below zero are allowed
    units: tuple[str, ...] = ("channel", "position")
    stimuli: Tensor
    low: Tensor
    high: Tensor

    def __init__(self, sums: tuple[str, ...], unit: str | None, channel_dim: int):
        super().__init__(dist_sync_fn=gather_states)
        if unit is not None and unit not in self.units:
            raise ValueError(
                f"{type(self).__name__} does not know unit={unit!r}: "
                f"choose one of {', '.join(self.units)}."
            )
        self.unit, self.channel_dim = unit, channel_dim
        for name in ("stimuli", *sums):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("low", torch.tensor(math.inf).double(), dist_reduce_fx="min")
        self.add_state("high", torch.tensor(-math.inf).double(), dist_reduce_fx="max")

    def _units(self, responses: Tensor) -> Tensor:
        """Return responses [batch, …] of the stated unit; note how many, and their range."""
        x = float_responses(responses, type(self).__name__)
        if x.ndim < 2 or (x.ndim > 2 and self.unit is None):
            raise ValueError(
                f"{type(self).__name__} got responses of shape {tuple(x.shape)}, not "
                "[stimuli, units]: give such responses, or say what a unit of a feature map is, "
                "'channel' (pooled over positions) or 'position' (channel × position)."
            )
        if self.unit == "channel":
            kept = (0, self.channel_dim % x.ndim)
            positions = [axis for axis in range(x.ndim) if axis not in kept]
            x = float64(x.mean(positions) if positions else x)  # [batch, channels]
        low, high = (float64(bound) for bound in x.aminmax())  # one pass; carries NaN along
        self.low = torch.minimum(self.low.to(low.device), low)
        self.high = torch.maximum(self.high.to(high.device), high)
        self.stimuli = self.stimuli.to(low.device) + len(x)
        return x

    def _check_shape(self, name: str, value: Tensor) -> None:
        before = getattr(self, name).shape
        if before and before != value.shape:
            raise ValueError(
                f"{type(self).__name__} got units of shape {tuple(value.shape)} after "
                f"{tuple(before)}: use one metric per layer, and stimuli of one size."
            )

    def _add(self, name: str, value: Tensor) -> None:
        self._check_shape(name, value)
        setattr(self, name, getattr(self, name) + float64(value))

    def _announce(self, responses: Tensor, states: int) -> None:
        if self.unit == "position" and self.update_count == 1:
            mebibytes = states * 8 * responses[0].numel() / 2**20
            warnings.warn(
                f"{type(self).__name__} with unit='position' keeps {mebibytes:.1f} MiB for units "
                f"of shape {tuple(responses.shape[1:])}.",
                stacklevel=4,  # the line that called update()
            )

    def _check(self) -> None:
        name, stimuli = type(self).__name__, int(self.stimuli)
        if stimuli < 2:
            raise ValueError(f"{name} needs at least 2 stimuli, got {stimuli}: update it first.")
        check_range(float(self.low), float(self.high), name, self.signed)


class LifetimeSummary(NamedTuple):
    """The sparseness of every unit.

    Attributes:
        treves_rolls: Treves–Rolls a, one value per unit.
        vinje_gallant: Vinje–Gallant S, one value per unit.
        active_fraction: Share of stimuli above the threshold, one value per unit.
        mean: Mean response, one value per unit.
        dead: How many units never responded.
        stimuli: How many stimuli were seen.
    """

    treves_rolls: Tensor
    vinje_gallant: Tensor
    active_fraction: Tensor
    mean: Tensor
    dead: int
    stimuli: int


class LifetimeSparseness(StreamingMeasure):
    """Sparseness of every unit over the stimuli, from Σr, Σr² and the count of active stimuli.

    `update(responses)` takes [stimuli, units], or feature maps [stimuli, channels, …] with `unit`.
    `compute()` gives a LifetimeSummary in float64, one value per unit; dead units are NaN and
    counted. Source: treves1991what, vinje2000sparse. Chapter 4.

    Args:
        unit: "channel" (mean over positions) or "position" (every channel × position; announces its
            memory) for feature maps.
        channel_dim: The axis of the channels, −1 for tokens and channels-last maps.
        threshold: Above which a stimulus is active, in the unit of the responses.

    Raises:
        ValueError: For responses of other shapes, a threshold that is no finite number and, in
            `compute`, for NaN, infinite or negative responses, such whose squares leave the range
            of float64, and fewer than 2 stimuli.

    Example:
        >>> import torch
        >>> from utils.measures import sparsity
        >>> lifetime = sparsity.LifetimeSparseness()
        >>> for minibatch in torch.eye(4).split(2):  # four stimuli, each of which drives one unit
        ...     lifetime.update(minibatch)
        >>> lifetime.compute().vinje_gallant
        tensor([1., 1., 1., 1.], dtype=torch.float64)
    """

    total: Tensor
    squares: Tensor
    active: Tensor

    def __init__(self, unit: str | None = None, *, channel_dim: int = 1, threshold: float = 0.0):
        super().__init__(("total", "squares", "active"), unit, channel_dim)
        self.threshold = checked_threshold(threshold)

    def update(self, responses: Tensor) -> None:
        """Add the responses of one minibatch of stimuli.

        Args:
            responses: [stimuli, units] or feature maps, as the class says.
        """
        x = self._units(responses)
        self._announce(x, states=3)
        total, squares = sums_in_float64(x)
        self._add("total", total)
        self._add("squares", squares)
        self._add("active", torch.gt(x, self.threshold, out=torch.empty_like(x)).sum(0))

    def compute(self) -> LifetimeSummary:
        """The LifetimeSummary of all stimuli seen, the same on every rank."""
        self._check()
        m = int(self.stimuli)
        dead = self.total == 0
        if not self.squares.isfinite().all() or (self.squares < 1e-290)[~dead].any():
            raise ValueError(
                f"LifetimeSparseness got responses between {float(self.low):.3g} and "
                f"{float(self.high):.3g}, some so large or small that their squares leave the "
                "range of float64: scale them."
            )
        a = treves_rolls_of_sums(self.total, self.squares, m)  # NaN where dead
        active = (self.active / m).masked_fill(dead, math.nan)
        return LifetimeSummary(a, (1 - a) / (1 - 1 / m), active, self.total / m, int(dead.sum()), m)


class PopulationSummary(NamedTuple):
    """The sparseness over the units, over the stimuli.

    Attributes:
        mean: The mean over the stimuli.
        sd: The standard deviation over the stimuli.
        se: The standard error of the mean.
        stimuli: How many stimuli were seen.
        undefined: How many of them had no defined value.
    """

    mean: Tensor
    sd: Tensor
    se: Tensor
    stimuli: int
    undefined: Tensor


class PopulationSparseness(StreamingMeasure):
    """Sparseness over the units for each stimulus, as its mean and spread over the stimuli.

    `update(responses)` takes [stimuli, units], or feature maps or attention with `unit`.
    `compute()` gives a PopulationSummary in float64, unit and range of the measure; all-zero
    stimuli have no value: they are counted in `undefined` and are not in the mean. Source:
    willmore2001characterizing. Chapter 4.

    Args:
        measure: Name of a measure of a vector, such as "gini".
        unit: For feature maps "channel" (mean over positions) or "position" (channel × position);
            "key" for attention [stimuli, heads, queries, keys], which reduces the last axis and
            keeps heads and queries apart.
        channel_dim: The axis of the channels, −1 for tokens and channels-last maps.
        threshold: For "active_fraction".

    Raises:
        ValueError: For an unknown measure, fewer than 2 units and, in `compute`, for NaN, infinite
            or forbidden negative responses and fewer than 2 stimuli.

    Example:
        >>> import torch
        >>> from utils.measures import sparsity
        >>> population = sparsity.PopulationSparseness("gini")
        >>> population.update(torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]))
        >>> found = population.compute()
        >>> found.mean.item(), found.undefined.item()
        (0.25, 1)
    """

    units = ("channel", "position", "key")
    total: Tensor
    squares: Tensor
    defined: Tensor

    def __init__(
        self,
        measure: str = "gini",
        unit: str | None = None,
        *,
        channel_dim: int = 1,
        threshold: float | None = None,
    ):
        if measure not in MEASURES:
            raise ValueError(f"measure={measure!r} is not known: choose {', '.join(MEASURES)}.")
        if threshold is not None and measure != "active_fraction":
            raise ValueError(f"measure={measure!r} has no threshold: only active_fraction has one.")
        super().__init__(("total", "squares", "defined"), unit, channel_dim)
        self.measure = measure
        self._function, self.signed = MEASURES[measure]
        self.options = {} if threshold is None else {"threshold": checked_threshold(threshold)}

    def update(self, responses: Tensor) -> None:
        """Add the responses of one minibatch of stimuli.

        Args:
            responses: [stimuli, units], feature maps or attention, as the class says.
        """
        x = self._units(responses)
        x = x.flatten(1) if self.unit == "position" else x
        if x.shape[-1] < 2:
            raise ValueError(f"{self.measure} needs at least 2 units, got {x.shape[-1]}.")
        values = self._function(x, **self.options)  # [batch] or [batch, heads, queries]
        self._add("total", values.nan_to_num(0).sum(0))
        self._add("squares", values.nan_to_num(0).square().sum(0))
        self._add("defined", (~values.isnan()).sum(0))

    def compute(self) -> PopulationSummary:
        """The PopulationSummary of all stimuli seen, the same on every rank."""
        self._check()
        mean, sd = mean_and_sd(self.total, self.squares, self.defined)
        undefined = (self.stimuli - self.defined).long()
        return PopulationSummary(mean, sd, sd / self.defined.sqrt(), int(self.stimuli), undefined)
