"""The evidence on the claims about compute; each function answers for one of them."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import curve_fit

from experiments.evidence.recorded import Recorded, difference, exact, judged_from, row, share_row
from experiments.training.groups import BUDGETS
from utils.measures.statistics import Estimate
from utils.models import zoo

EXACT_FIT = 1e-24  # squared log loss: below it there is rounding alone


@judged_from("accuracy", groups=("compute", "compute-seeds"))
def zh(recorded: Recorded) -> Iterator[dict]:
    """Hybrids of convolution and attention win at equal budget."""
    accuracy = recorded.numbers("accuracy", "accuracy").set_index("model")["value"]
    wins, models = [], 0
    for budget in BUDGETS:
        vit, cnn, hybrid = kinds = [recorded.seeds(name, accuracy) for name in budget]
        if min(map(len, kinds)) < 3:
            continue
        gaps = [difference(hybrid, other) for other in (vit, cnn)]
        wins.append(all(gap.low > 0 and gap.estimate >= 0.01 for gap in gaps))
        models += sum(map(len, kinds))
    if len(wins) >= 3:
        yield share_row("budgets", pd.Series(wins, dtype=float), models)


@judged_from("accuracy", groups=("compute", "compute-seeds"))
def sm1(recorded: Recorded) -> Iterator[dict]:
    """At equal compute, CNNs and ViTs reach the same accuracy."""
    accuracy = recorded.numbers("accuracy", "accuracy").set_index("model")["value"]
    gaps = []
    for vit, cnn, _ in BUDGETS:
        each = [[100 * (1 - a) for a in recorded.seeds(name, accuracy)] for name in (vit, cnn)]
        gaps.append(difference(*each))
    if None not in gaps:
        yield row("parity", max(gaps, key=lambda gap: abs(gap.estimate)))


@judged_from("accuracy", groups=("compute", "compute-seeds"))
def sm2(recorded: Recorded) -> Iterator[dict]:
    """Loss falls as a power of compute: the worse of ViT and CNN."""
    loss = recorded.numbers("accuracy", "cross_entropy").set_index("model")["value"]
    built = zoo.manifest()
    errors, offsets, models = [], [], 0
    for names in list(zip(*BUDGETS, strict=True))[:2]:
        each = [recorded.seeds(name, loss) for name in names]
        own = [recorded.name(name) for name in names]
        if not (all(each) and set(own) <= set(built)):
            return
        flops = np.array([built[name]["flops"] for name in own], dtype=float)
        errors.append(extrapolation(flops, each))
        x = np.repeat(flops, [len(seeds) for seeds in each])
        y = np.concatenate(each)
        offsets.append(_aicc(x, y, offset=False) - _aicc(x, y, offset=True))
        models += len(y)
    worst = {name: max(getattr(e, name) for e in errors) for name in ("estimate", "low", "high")}
    yield row("prediction", Estimate(**worst, p=math.nan, n=models))
    yield row("offset", exact(max(offsets), models))


def extrapolation(flops: np.ndarray, losses: list[list[float]]) -> Estimate:
    """The relative error of a power law at the largest budget, fitted without it.

    flops [budgets], the largest last; losses : of the seeds of each. The interval is that of the
    log error by the seeds' scatter in log loss, pooled over budgets, folded at 0; infinite if no
    budget has two seeds.
    """
    logs = [np.log(each) for each in losses]
    x, counts = np.log(flops), np.array([len(each) for each in logs])
    # The error is a weighted sum of log losses: a line through all but the last, at the last.
    line = np.linalg.pinv(np.stack([x[:-1], np.ones(len(x) - 1)], 1))
    weights = np.append(np.array([x[-1], 1.0]) @ line, -1.0)
    found = float(weights @ [each.mean() for each in logs])
    estimate, freedom, n = abs(math.expm1(found)), int((counts - 1).sum()), int(counts.sum())
    if freedom < 1:
        return Estimate(estimate, 0.0, math.inf, math.nan, n)
    spread = math.sqrt(sum(((each - each.mean()) ** 2).sum() for each in logs) / freedom)
    half = stats.t.ppf(0.975, freedom) * spread * math.sqrt((weights**2 / counts).sum())
    ends = [math.expm1(found - half), math.expm1(found + half)]
    low = 0.0 if ends[0] <= 0 <= ends[1] else min(map(abs, ends))
    return Estimate(estimate, low, max(map(abs, ends)), math.nan, n)


def _aicc(x: np.ndarray, y: np.ndarray, offset: bool) -> float:
    """Akaike's criterion for few points, of a power law, with or without an offset, in log loss."""
    x = x / x[0]

    def law(x, a, b, c=0.0):
        return np.log(np.exp(a) * x**-b + (abs(c) if offset else 0.0))

    slope, intercept = np.polyfit(np.log(x), np.log(y), 1)
    start = [intercept, -slope, 0.1 * y.min()] if offset else [intercept, -slope]
    fitted, _ = curve_fit(law, x, np.log(y), start, maxfev=20_000)
    residual = max(float(((law(x, *fitted) - np.log(y)) ** 2).sum()), EXACT_FIT)
    n, k = len(x), len(start) + 1  # with the variance
    return n * math.log(residual / n) + 2 * k + 2 * k * (k + 1) / (n - k - 1)


CLAIMS = (zh, sm1, sm2)
