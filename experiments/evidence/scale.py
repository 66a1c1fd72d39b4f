"""The evidence on the claims about compute; each function answers for one of them."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.optimize import curve_fit

from experiments.evidence.recorded import Recorded, difference, exact, judged_from, row, share_row
from experiments.training.groups import BUDGETS
from utils.models import zoo

EXACT_FIT = 1e-24  # squared log loss: below it there is rounding alone


@judged_from("accuracy", groups=("compute",))
def zh(recorded: Recorded) -> Iterator[dict]:
    """Hybrids of convolution and attention win at equal budget."""
    accuracy = recorded.numbers("accuracy", "accuracy").set_index("model")["value"]
    wins = []
    for budget in BUDGETS:
        vit, cnn, hybrid = (recorded.seeds(name, accuracy) for name in budget)
        if min(map(len, (vit, cnn, hybrid))) < 3:
            return
        gaps = [difference(hybrid, other) for other in (vit, cnn)]
        wins.append(all(gap.low > 0 and gap.estimate >= 0.01 for gap in gaps))
    yield share_row("budgets", pd.Series(wins, dtype=float), 3 * len(BUDGETS))


@judged_from("accuracy", groups=("compute",))
def sm1(recorded: Recorded) -> Iterator[dict]:
    """At equal compute, CNNs and ViTs reach the same accuracy."""
    accuracy = recorded.numbers("accuracy", "accuracy").set_index("model")["value"]
    gaps = []
    for vit, cnn, _ in BUDGETS:
        each = [[100 * (1 - a) for a in recorded.seeds(name, accuracy)] for name in (vit, cnn)]
        gaps.append(difference(*each))
    if None not in gaps:
        yield row("parity", max(gaps, key=lambda gap: abs(gap.estimate)))


@judged_from("accuracy", groups=("compute",))
def sm2(recorded: Recorded) -> Iterator[dict]:
    """Loss falls as a power of compute: the worse of ViT and CNN."""
    loss = recorded.numbers("accuracy", "cross_entropy").set_index("model")["value"]
    built = zoo.manifest()
    errors, offsets = [], []
    for names in list(zip(*BUDGETS, strict=True))[:2]:
        each = [recorded.seeds(name, loss) for name in names]
        if not all(each):
            return
        y = np.array([np.mean(values) for values in each])
        x = np.array([built[recorded.name(name)]["flops"] for name in names], dtype=float)
        slope, intercept = np.polyfit(np.log(x[:-1]), np.log(y[:-1]), 1)
        errors.append(abs(math.exp(intercept + slope * math.log(x[-1])) / y[-1] - 1))
        offsets.append(_aicc(x, y, offset=False) - _aicc(x, y, offset=True))
    for criterion, value in (("prediction", max(errors)), ("offset", max(offsets))):
        yield row(criterion, exact(value, 2 * len(BUDGETS)))


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
