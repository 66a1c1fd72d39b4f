"""Intervals and trends: what a given number of images, or of trained networks, can show.

Two kinds of interval, never mixed. Drawing other images (`bootstrap_means`) says how well one
network is known. Training other networks (`contrast`, `slope_per_doubling`) says what holds of an
architecture; a bootstrap over three seeds would cover 75 % instead of 95, so these are t-intervals
with the SD of all conditions pooled. NaN is a case without a value, which is left out and counted;
an infinite value has no mean and is refused, but for ranks. Chapter 2.2b.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy import stats
from scipy.optimize import brentq

AT_ONCE = 2**22  # numbers held at once: 32 MiB


@dataclass(frozen=True)
class Estimate:
    """An estimate, its interval, and the two-sided p of "it is 0".

    Attributes:
        estimate: The value.
        low: Lower end of the interval.
        high: Upper end of the interval.
        p: Of "it is 0", two-sided.
        n: How many cases (models or images) had a value.
        undefined: How many had none (NaN) and were left out.
    """

    estimate: float
    low: float
    high: float
    p: float
    n: int
    undefined: int = 0

    def equivalent(self, delta: float) -> bool:
        """Whether the whole interval lies inside ±delta; False where it is NaN.

        Args:
            delta: The largest value that still counts as none.
        """
        return -delta < self.low and self.high < delta


@dataclass(frozen=True)
class Trend(Estimate):
    """A slope, and the smallest that these models would have detected.

    Attributes:
        estimate: The slope.
        low: As for `Estimate`.
        high: As for `Estimate`.
        p: As for `Estimate`.
        n: As for `Estimate`.
        undefined: As for `Estimate`.
        detectable: The smallest slope that is found with the power asked for.
    """

    detectable: float = np.nan


def _finite(values: np.ndarray) -> np.ndarray:
    """Values that have a mean; ValueError for infinite ones."""
    if infinite := int(np.isinf(values).sum()):
        raise ValueError(
            f"{infinite} of {values.size} values are infinite, so that there is no mean: leave "
            "them out and say so, or compare ranks."
        )
    return values


def _defined(*columns: Sequence[float], ranks: bool = False) -> tuple[list[np.ndarray], int]:
    """The cases in which no column is NaN, as float64, and the number of the others.

    Infinite values are refused unless only `ranks` of them count.
    """
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    if len({array.shape for array in arrays}) > 1 or arrays[0].ndim != 1:
        raise ValueError(
            f"Give one value of each kind a model, not {[list(a.shape) for a in arrays]}."
        )
    known = ~np.isnan(arrays).any(0)
    arrays = [array[known] if ranks else _finite(array[known]) for array in arrays]
    return arrays, int((~known).sum())


def _doublings(x: np.ndarray) -> np.ndarray:
    if (x <= 0).any():
        raise ValueError(f"Only sizes above 0 can be doubled, not {x.min():g}.")
    if len(np.unique(x)) < 2:
        raise ValueError("A trend needs models of at least 2 sizes.")
    return np.log2(x)


def contrast(
    values: Sequence[float],
    conditions: Sequence[Hashable],
    weights: Mapping[Hashable, float],
    confidence: float = 0.95,
) -> Estimate:
    """Σ weight · mean over seeds, with a t-interval from the SD within conditions, pooled.

    Seeds count, not images. Chapter 2.2b.

    Args:
        values: One of each trained model [models].
        conditions: Of the same models [models]; models of one condition differ in seed.
        weights: Of conditions. {a: 1} gives a mean, {a: 1, b: −1} a difference, {a: ½, b: ½, c: −1}
            one of families. Conditions without a weight lend their SD, so give the whole family.
        confidence: Of the interval.

    Returns:
        The contrast.

    Raises:
        ValueError: If no condition has 2 models with a value, or a weighted one has none, and for
            infinite values.

    Example:
        >>> from utils.measures import statistics
        >>> values, kinds = [0.70, 0.72, 0.80, 0.82], ["vit", "vit", "cnn", "cnn"]
        >>> gap = statistics.contrast(values, kinds, {"cnn": 1, "vit": -1})
        >>> [round(x, 3) for x in (gap.estimate, gap.low, gap.high)]
        [0.1, 0.039, 0.161]
    """
    known = [(c, v) for c, v in zip(conditions, values, strict=True) if not np.isnan(v)]
    _finite(np.array([value for _, value in known], dtype=np.float64))
    groups: dict[Hashable, list[float]] = {}
    for condition, value in known:
        groups.setdefault(condition, []).append(float(value))
    if missing := [condition for condition in weights if condition not in groups]:
        raise ValueError(f"There is no model of the condition {missing[0]!r} with a value.")
    freedom = len(known) - len(groups)
    if freedom < 1:
        raise ValueError("Without two seeds of some condition there is no seed interval.")
    within = sum(np.var(group) * len(group) for group in groups.values())  # sum of squares
    estimate = float(sum(weight * np.mean(groups[c]) for c, weight in weights.items()))
    spread = sum(weight**2 / len(groups[c]) for c, weight in weights.items())
    error = np.sqrt(within / freedom * spread)
    undefined = len(values) - len(known)
    return Estimate(*_t_interval(estimate, error, freedom, confidence), len(known), undefined)


def mean_over(values: Sequence[float], confidence: float = 0.95, against: float = 0.0) -> Estimate:
    """The mean over models with a t-interval, which is infinite for a single one.

    Args:
        values: [models].
        confidence: Of the interval.
        against: The mean that p is tested against.

    Returns:
        The mean.

    Raises:
        ValueError: If none has a value, and for infinite ones.

    Example:
        >>> from utils.measures import statistics
        >>> found = statistics.mean_over([0.4, 0.5, 0.6, float("nan")])
        >>> round(found.estimate, 3), round(found.low, 3), found.n, found.undefined
        (0.5, 0.252, 3, 1)
    """
    (known,), undefined = _defined(values)
    if not len(known):
        raise ValueError("No model has a value to take the mean of.")
    if len(known) == 1:
        return Estimate(float(known[0]), -np.inf, np.inf, np.nan, 1, undefined)
    error = stats.sem(known)
    mean, freedom = float(known.mean()), len(known) - 1
    interval = _t_interval(mean, error, freedom, confidence)[:3]
    p = _t_interval(mean - against, error, freedom, confidence)[3]
    return Estimate(*interval, p, len(known), undefined)


def unequal(plus: Sequence[float], minus: Sequence[float], confidence: float = 0.95) -> Estimate:
    """The difference of two means over models, each kind with an SD of its own (Welch).

    For kinds that scatter differently; see `contrast` for conditions that share one SD.

    Args:
        plus: Values of one kind [models].
        minus: Values of the other [models].
        confidence: Of the interval.

    Returns:
        The difference, with an infinite interval where a kind has a single model with a value.

    Raises:
        ValueError: Where a kind has no model with a value, and for infinite ones.

    Example:
        >>> from utils.measures import statistics
        >>> found = statistics.unequal([0.80, 0.82, 0.84], [0.60, 0.70, 0.80])
        >>> round(found.estimate, 3), bool(found.low < 0 < found.high)
        (0.12, True)
    """
    kinds = [_defined(values) for values in (plus, minus)]
    (a,), (b,) = (known for known, _ in kinds)
    undefined = sum(lacking for _, lacking in kinds)
    if not (len(a) and len(b)):
        raise ValueError("One of the two kinds has no model with a value.")
    gap, n = float(a.mean() - b.mean()), len(a) + len(b)
    if min(len(a), len(b)) < 2:
        return Estimate(gap, -np.inf, np.inf, np.nan, n, undefined)
    parts = [(np.var(x, ddof=1) / len(x), len(x) - 1) for x in (a, b)]
    error = sum(part for part, _ in parts)
    freedom = error**2 / sum(part**2 / df for part, df in parts) if error else n - 2
    return Estimate(*_t_interval(gap, np.sqrt(error), freedom, confidence), n, undefined)


def rank_correlation(x: Sequence[float], y: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Spearman's correlation, with an interval and p by Fisher's z.

    Its error is taken as √((1 + r²/2) / (n − 3)) (Bonett and Wright).

    Args:
        x: [models].
        y: [models].
        confidence: Of the interval.

    Returns:
        The correlation, −1 … 1; NaN where x or y does not vary.

    Raises:
        ValueError: For fewer than 5 models with both values.

    Example:
        >>> from utils.measures import statistics
        >>> found = statistics.rank_correlation([1, 2, 3, 4, 5, 6], [2, 1, 4, 3, 6, 5])
        >>> round(found.estimate, 3), round(found.p, 3)
        (0.829, 0.077)
    """
    (xs, ys), undefined = _defined(x, y, ranks=True)
    n = len(xs)
    if n < 5:
        raise ValueError(f"A correlation needs at least 5 models with both values, not {n}.")
    if min(len(np.unique(xs)), len(np.unique(ys))) == 1:
        return Estimate(np.nan, np.nan, np.nan, np.nan, n, undefined)
    r = float(stats.spearmanr(xs, ys).statistic)
    z = np.arctanh(np.clip(r, -1 + 1e-12, 1 - 1e-12))
    error = np.sqrt((1 + r**2 / 2) / (n - 3))
    half = stats.norm.ppf((1 + confidence) / 2) * error
    low, high, p = np.tanh(z - half), np.tanh(z + half), 2 * stats.norm.sf(abs(z) / error)
    return Estimate(r, float(low), float(high), float(p), n, undefined)


def share_over(
    values: Sequence[float], fewest: int = 5, samples: int = 2000, seed: int = 0
) -> Estimate:
    """The mean of shares, such as of a model's layers, bootstrapped over models.

    Args:
        values: Shares in 0 … 1 [models].
        fewest: Models for a bootstrap; one over three covers far too little.
        samples: Bootstrap samples.
        seed: Of the samples.

    Returns:
        The mean, without p; its interval is 0 to 1 for fewer than `fewest` models.

    Raises:
        ValueError: If no model has a value, and for infinite ones.

    Example:
        >>> from utils.measures import statistics
        >>> found = statistics.share_over([0.5, 0.75, 1.0])
        >>> found.estimate, found.low, found.high
        (0.75, 0.0, 1.0)
    """
    (known,), undefined = _defined(values)
    if not len(known):
        raise ValueError("No model has a share to take the mean of.")
    if len(known) < fewest:
        return Estimate(float(known.mean()), 0.0, 1.0, np.nan, len(known), undefined)
    drawn = bootstrap_means({"share": known}, samples, seed)["share"]
    found = percentiles(drawn, len(known), undefined=undefined)
    return replace(found, p=np.nan)


def _t_interval(
    estimate: float, error: float, freedom: int, confidence: float
) -> tuple[float, float, float, float]:
    """Estimate, low, high and p; without any spread, p is 0 unless the estimate is.

    NaN where a number is out of the range of float64.
    """
    if not (np.isfinite(estimate) and np.isfinite(error)):
        return float(estimate), np.nan, np.nan, np.nan
    half = stats.t.ppf((1 + confidence) / 2, freedom) * error
    t = estimate / error if error > 0 else np.copysign(np.inf, estimate) if estimate else 0.0
    p = 2 * stats.t.sf(abs(t), freedom)
    return float(estimate), float(estimate - half), float(estimate + half), float(p)


def slope_per_doubling(
    x: Sequence[float],
    y: Sequence[float],
    confidence: float = 0.95,
    power: float = 0.8,
    held: Sequence[float] | None = None,
) -> Trend:
    """By how much y grows as x doubles: least squares on log₂ x, with a t-interval.

    The smallest detectable slope is the one that a two-sided test at 1 − confidence finds with that
    power, at the residual SD that was found. Chapter 2.2b.

    Args:
        x: Sizes > 0 [models], such as depth or heads.
        y: [models], one point for each trained model.
        confidence: Of the interval.
        power: Of the smallest detectable slope.
        held: Another size > 0 [models] that varies too; the slope is that of x where it is equal.

    Returns:
        The slope, with what was `detectable`.

    Raises:
        ValueError: For fewer than 3 models (4 with `held`), fewer than 2 sizes, sizes not above 0,
            infinite values, and an x that `held` determines.

    Example:
        >>> from utils.measures import statistics
        >>> found = statistics.slope_per_doubling([2, 4, 8, 16], [0.1, 0.31, 0.49, 0.7])
        >>> [round(x, 3) for x in (found.estimate, found.low, found.high)]
        [0.198, 0.18, 0.216]
    """
    (sizes, ys, *fixed), undefined = _defined(x, y, *([] if held is None else [held]))
    n = len(sizes)
    freedom = n - 2 - len(fixed)
    if freedom < 1:
        need = 3 + len(fixed)
        raise ValueError(f"A trend needs at least {need} models with a value, not {n}.")
    xs = _doublings(sizes)
    for size in map(_doublings, fixed):  # what is left of x and y where it is equal
        xs, ys = (each - np.polyval(np.polyfit(size, each, 1), size) for each in (xs, ys))
        if np.ptp(xs) < 1e-9:
            raise ValueError("The size that is held determines the one whose slope is asked.")
    fit = stats.linregress(xs, ys)
    error = fit.stderr * np.sqrt((n - 2) / freedom)
    interval = _t_interval(fit.slope, error, freedom, confidence)
    detectable = _found_at(freedom, confidence, power) * error
    return Trend(*interval, n, undefined, detectable=float(detectable))


@cache
def _found_at(freedom: int, confidence: float, power: float) -> float:
    """The standard errors away from 0 at which a slope is found with that power."""
    critical = stats.t.ppf((1 + confidence) / 2, freedom)

    def missed(shift: float) -> float:  # in standard errors; the wrong sign is not found
        return power - stats.nct.sf(critical, freedom, shift)

    return brentq(missed, 0.0, 4 * critical + 10)


def bootstrap_means(
    tables: Mapping[Hashable, np.ndarray], samples: int = 2000, seed: int = 0
) -> dict[Hashable, np.ndarray]:
    """A paired bootstrap: means over images, with the same draws of images for all tables.

    Whatever is computed from means, row by row, gets its interval from `percentiles`. Memory does
    not grow with samples × images. Chapter 2.2b.

    Args:
        tables: Name → [images, …].
        samples: How many times the images are drawn.
        seed: Of the draws.

    Returns:
        Name → [1 + samples, …] in float64; the first is the mean of the images as they are.

    Raises:
        ValueError: For tables of different lengths, fewer than 2 images, and infinite values.

    Example:
        >>> import numpy as np
        >>> from utils.measures import statistics
        >>> tables = {"intact": np.ones(100), "ablated": np.arange(100) < 60}  # right or wrong
        >>> means = statistics.bootstrap_means(tables, samples=500)
        >>> found = statistics.percentiles(means["intact"] - means["ablated"], n=100)
        >>> [round(x, 2) for x in (found.estimate, found.low, found.high)]
        [0.4, 0.3, 0.49]
    """
    lengths = {len(table) for table in tables.values()}
    if len(lengths) != 1 or min(lengths) < 2:
        raise ValueError(
            f"A paired bootstrap needs tables of the same images, 2 or more, not {sorted(lengths)}."
        )
    images = lengths.pop()
    rng = np.random.default_rng(seed)
    flat = {name: np.reshape(table, (images, -1)) for name, table in tables.items()}
    columns = _finite(np.concatenate(list(flat.values()), axis=1, dtype=np.float64))
    means = [columns.mean(0, keepdims=True)]
    rows = max(1, AT_ONCE // images)
    for start in range(0, samples, rows):
        counts = [
            np.bincount(rng.integers(images, size=images), minlength=images)
            for _ in range(min(rows, samples - start))
        ]
        means.append(np.stack(counts) @ columns / images)
    split = np.split(np.concatenate(means), np.cumsum([f.shape[1] for f in flat.values()])[:-1], 1)
    return {
        name: part.reshape(samples + 1, *np.shape(table)[1:])
        for part, (name, table) in zip(split, tables.items(), strict=True)
    }


def percentiles(
    values: np.ndarray, n: int, confidence: float = 0.95, undefined: int = 0
) -> Estimate:
    """The Estimate of bootstrapped values.

    The interval is that of percentiles; p is twice the share of samples on the other side of 0, at
    least 2/(samples + 1). Samples that are NaN are left out. Chapter 2.2b.

    Args:
        values: [1 + samples], the estimate first, as `bootstrap_means` gives them.
        n: How many cases they are of.
        confidence: Of the interval.
        undefined: How many cases had no value.

    Returns:
        The Estimate, without an interval and p if the first value is NaN or infinite.

    Example:
        >>> import numpy as np
        >>> from utils.measures import statistics
        >>> found = statistics.percentiles(np.array([0.5, *np.linspace(0, 1, 101)]), n=20)
        >>> round(found.low, 3), round(found.high, 3)
        (0.025, 0.975)
    """
    estimate, drawn = float(values[0]), values[1:][~np.isnan(values[1:])]
    if not np.isfinite(estimate) or not len(drawn):
        return Estimate(estimate, np.nan, np.nan, np.nan, n, undefined)
    low, high = np.quantile(drawn, ((1 - confidence) / 2, (1 + confidence) / 2))
    beyond = 1 + min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = min(1.0, 2 * beyond / (len(drawn) + 1))
    return Estimate(estimate, float(low), float(high), float(p), n, undefined)
