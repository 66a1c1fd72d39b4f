"""How often the whole rule of a trend claim says what, at a true effect that is given.

Networks are made up: each reading of a network is its true line plus the scatter of seeds (and of
designs, if there is any), correlated between readings. `verdicts` counts what the claim's rule says
of repetitions; `smallest_delta` finds the Δ at which a true 2Δ is found often enough. What is
simulated is the verdict of a claim, not the significance of one line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from scipy import stats

from experiments.evidence import claims
from experiments.evidence.rules import MIXED, NOT_SUPPORTED, SUPPORTED, UNDECIDED
from experiments.evidence.trends import HELD, SWEEPS
from experiments.training.groups import GROUPS
from utils.models.architectures import Spec

OUTCOMES = (SUPPORTED, MIXED, UNDECIDED, NOT_SUPPORTED)
EFFECTS = (0, 1, 2, 4)  # in Δ
FOUND = 0.8  # of repetitions in which 2Δ is to be found
TRENDS = {"hu4": "depth", "hu5": "cnn-depth", "hu6": "decoupled"}  # claim → its group


@dataclass(frozen=True)
class Design:
    """The networks of one trend: `sizes` > 0, one for each network, equal where they differ in seed
    alone; `held` the sizes > 0 that the regression holds, if any."""

    sizes: tuple[float, ...]
    held: tuple[float, ...] | None = None

    @classmethod
    def of(cls, sizes: Sequence[float], seeds: int | Sequence[int]) -> "Design":
        """Each size with so many seeds, or with as many as are listed for it."""
        return cls(tuple(float(x) for x in np.repeat(sizes, seeds)))

    @classmethod
    def grid(cls, sizes: Sequence[float], held: Sequence[float], seeds: int) -> "Design":
        """Every size at every held size, with so many seeds."""
        pairs = [(x, y) for x in sizes for y in held for _ in range(seeds)]
        return cls(*(tuple(map(float, each)) for each in zip(*pairs, strict=True)))

    @classmethod
    def of_group(cls, group: str) -> "Design":
        """The networks that a group of sweeps declares."""
        specs = [Spec.parse(name) for name in GROUPS[group].members()]
        columns = [SWEEPS[group], *([HELD[group]] if group in HELD else [])]
        return cls(*(tuple(float(getattr(s, column)) for s in specs) for column in columns))


@dataclass(frozen=True)
class Reading:
    """One criterion of a trend: the SD of seeds at one design, the smallest effect of interest, and
    that of designs about the line (0: a straight one)."""

    seed_sd: float
    delta: float
    design_sd: float = 0.0


def verdicts(
    design: Design,
    readings: Sequence[Reading],
    correlation: float = 0.0,
    effects: Sequence[float] = EFFECTS,
    repetitions: int = 4000,
    tests: int = 1,
    seed: int = 0,
) -> pd.DataFrame:
    """The share of repetitions in which a claim of several readings gets each verdict.

    correlation : of the readings' scatter, −1 … 1, in the directions that the claim counts as one
    effects : true slopes, in Δ of each reading, in the claimed direction
    tests : of how many claims the p values are adjusted together, at worst (Holm's first step)

    One row for each effect: effect, OUTCOMES. The rule is that of `rules.Claim` with `halves`, its
    criteria `Effect`s. ValueError for fewer networks than a line needs.
    """
    x, basis = _regressor(design)
    freedom = len(x) - basis.shape[1] - 1
    if freedom < 1:
        raise ValueError(f"{len(x)} networks are too few for a line with an interval.")
    noise = _noise(design, readings, correlation, repetitions, np.random.default_rng(seed))
    # noise [readings, repetitions, networks] → slopes and errors [readings, repetitions]
    scatter = noise @ x / (x @ x)
    full = np.linalg.qr(np.column_stack([basis, x]))[0]
    left = noise - (noise @ full) @ full.T
    error = np.sqrt((left**2).sum(-1) / freedom / (x @ x))
    rows = []
    for effect in effects:
        delta = np.array([reading.delta for reading in readings])[:, None]
        slope = effect * delta + scatter
        outcome, p = _outcomes(slope, error, delta, freedom)
        counted = _combined(outcome)
        counted[(counted == 0) & (p.max(0) * tests >= 0.05)] = OUTCOMES.index(UNDECIDED)
        shares = np.bincount(counted, minlength=len(OUTCOMES)) / repetitions
        rows.append({"effect": effect, **dict(zip(OUTCOMES, shares, strict=True))})
    return pd.DataFrame(rows)


def smallest_delta(
    design: Design,
    readings: Sequence[Reading],
    correlation: float = 0.0,
    found: float = FOUND,
    **options,
) -> list[float]:
    """The smallest Δ of each reading at which a true 2Δ gives *supported* often enough.

    All Δ are that multiple of those of `readings`; options as of `verdicts`. Within 1 %.
    """

    def power(factor: float) -> float:
        scaled = [Reading(r.seed_sd, factor * r.delta, r.design_sd) for r in readings]
        table = verdicts(design, scaled, correlation, (2,), **options)
        return float(table[SUPPORTED].iloc[0])

    low, high = 1e-3, 1e3
    if power(high) < found:
        raise ValueError("No Δ up to a thousand times the given ones is found so often.")
    while high / low > 1.01:
        middle = (low * high) ** 0.5
        low, high = (low, middle) if power(middle) >= found else (middle, high)
    return [high * reading.delta for reading in readings]


def of_rules(
    seed_sd: Mapping[str, float] = claims.SEED_SD, correlation: float = 0.0, **options
) -> pd.DataFrame:
    """`verdicts` of each of TRENDS by the declared Δ and groups, with a column claim.

    seed_sd : criterion → SD of seeds, such as `scatter` finds in pilots; options as of `verdicts`,
        with claims.TRENDS claims adjusted together
    """
    parts = []
    for claim, group in TRENDS.items():
        readings = [
            Reading(seed_sd[each.name], each.rule.delta) for each in claims.BY_ID[claim].criteria
        ]
        design = Design.of_group(group)
        found = verdicts(design, readings, correlation, **{"tests": claims.TRENDS} | options)
        parts.append(found.assign(claim=claim, networks=len(design.sizes)))
    return pd.concat(parts, ignore_index=True)


def scatter(readings: pd.DataFrame, designs: Sequence) -> tuple[dict[str, float], float]:
    """The SD of seeds of each reading, pooled over designs, and their mean correlation.

    readings : one row a network, one column a reading, in the direction that the claim counts as
        one; designs : of the rows, equal for seeds of one. ValueError if none has two seeds.
    """
    groups = readings.groupby(list(designs), sort=False)
    left = readings - groups.transform("mean")
    freedom = len(readings) - groups.ngroups
    if freedom < 1:
        raise ValueError("Without two seeds of some design there is no scatter to simulate.")
    sds = ((left**2).sum() / freedom) ** 0.5
    related = left.corr()
    pairs = [float(related.loc[a, b]) for a, b in combinations(readings.columns, 2)]
    return sds.to_dict(), float(np.mean(pairs)) if pairs else 0.0


def _regressor(design: Design) -> tuple[np.ndarray, np.ndarray]:
    """What is left of log₂ size without the mean and what is held, and a basis of these."""
    x = np.log2(design.sizes)
    columns = [np.ones(len(x))]
    if design.held is not None:
        columns.append(np.log2(design.held))
    basis = np.linalg.qr(np.column_stack(columns))[0]
    left = x - basis @ (basis.T @ x)
    if np.ptp(left) < 1e-9:
        raise ValueError("The sizes do not vary once what is held is taken out.")
    return left, basis


def _noise(
    design: Design,
    readings: Sequence[Reading],
    correlation: float,
    repetitions: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Scatter of networks [readings, repetitions, networks]: of seeds, and of designs."""
    count = len(readings)
    shared = np.full((count, count), correlation)
    np.fill_diagonal(shared, 1.0)
    root = np.linalg.cholesky(shared + 1e-12 * np.eye(count))
    keys = list(zip(design.sizes, design.held or design.sizes, strict=True))
    place = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    own = [place[key] for key in keys]

    def drawn(columns: int, sds: list[float]) -> np.ndarray:
        normal = rng.standard_normal((count, repetitions * columns))
        return (np.array(sds)[:, None] * (root @ normal)).reshape(count, repetitions, columns)

    seeds = drawn(len(keys), [reading.seed_sd for reading in readings])
    designs = drawn(len(place), [reading.design_sd for reading in readings])
    return seeds + designs[:, :, own]


def _outcomes(
    slope: np.ndarray, error: np.ndarray, delta: np.ndarray, freedom: int
) -> tuple[np.ndarray, np.ndarray]:
    """What `Effect(+1, delta)` says of each slope, as a number of OUTCOMES, and its p."""
    half = stats.t.ppf(0.975, freedom) * error
    low, high = slope - half, slope + half
    supported = (low > 0) & (slope >= delta)
    against = (high < 0) | (np.maximum(abs(low), abs(high)) < delta)
    outcome = np.where(supported, 0, np.where(against, 3, 2))
    return outcome, 2 * stats.t.sf(abs(slope / error), freedom)


def _combined(outcome: np.ndarray) -> np.ndarray:
    """Of all readings together [repetitions]: as rules._combined."""
    some, against = (outcome == 0).any(0), (outcome == 3).any(0)
    same = (outcome == outcome[:1]).all(0)
    parted = np.where(some & against, 1, np.where(against, 3, 2))
    return np.where(same, outcome[0], parted)
