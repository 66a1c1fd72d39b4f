"""Made-up tables of results, and what the book finds in them."""

import pandas as pd

from experiments.engine.results import file_of
from experiments.evidence import claims, rules, table
from experiments.evidence.recorded import Recorded
from experiments.evidence.table import COLUMNS


def write(folder, experiment, rows, rung="objects"):
    file = file_of(experiment, rung, out=folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(file, index=False)


def found(claim, folder, rung="objects"):
    """The evidence on a claim: columns as of `table.COLUMNS`."""
    rows = table.CLAIMS[claim](Recorded(rung, folder))
    return pd.DataFrame(
        [{"claim": claim, "rung": rung, **row} for row in rows], columns=list(COLUMNS)
    )


def judged(evidence, claim):
    """What the rules say of a claim on the rung of some evidence, and why."""
    rung = evidence["rung"].iloc[0]
    said = rules.verdicts(evidence[rules.EVIDENCE], claims.CLAIMS)
    (verdict,) = [v for v in said if (v.claim, v.rung) == (claim, rung)]
    return verdict.verdict, verdict.because


def by_criterion(evidence):
    return evidence.set_index(["criterion", "variant"])


def row(model, quantity, value, weights="trained", **more):
    """A row of a task's table, without a place unless it is given one."""
    about = {"model": model, "weights": weights, "quantity": quantity, "value": value, "se": 0.001}
    about |= dict.fromkeys(("layer", "other", "depth", "head", "unit", "beside", "n"))
    return about | more


def layer(model, quantity, value, weights="trained", place=0, unit="class", **more):
    """A row of one layer."""
    about = {"layer": f"blocks.{place}", "depth": 1.0, "head": 0, "unit": unit}
    return row(model, quantity, value, weights, **about | more)


def profile(model, quantity, value, unit="attention", scope="all", by="renormalise", **more):
    """A row of an ablation, by the primary settings of attention unless others are given."""
    about = {"model": model, "weights": "trained", "unit": unit, "scope": scope}
    return about | {"replaced_by": by, "quantity": quantity, "value": value} | more


def accuracy(name, value):
    """A row of accuracy on so many images that networks can be paired by it."""
    return row(name, "accuracy", value, n=10_000)


def behaviour(model, quantity, kind, value, level=1, n=5000):
    """A row of what a network decides on enough images."""
    return row(model, quantity, value, kind=kind, level=level, n=n)


def seeds(design, count=3):
    return [design, *(f"{design}-s{seed}" for seed in range(1, count))]


def jitter(name):
    """A scatter of seeds that is the same every time, −1, 0 or 1."""
    return sum(map(ord, name)) % 3 - 1
