"""Made-up tables of results, and what an edition of the book finds in them."""

import pandas as pd

from experiments.engine.results import file_of
from experiments.evidence import claims, rules, second, table
from experiments.evidence.recorded import Recorded
from experiments.evidence.second import Second

# Edition → what computes evidence, the tables that it computes from, and the rules.
EDITIONS = {
    "first": (table.CLAIMS, Recorded, claims.CLAIMS),
    "second": (second.CLAIMS, Second, rules.CLAIMS),
}


def write(folder, experiment, rows, rung="objects"):
    file = file_of(experiment, rung, out=folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(file, index=False)


def found(claim, folder, edition="first", rung="objects"):
    """The evidence on a claim: columns as of `table.COLUMNS`."""
    functions, tables, _ = EDITIONS[edition]
    rows = [{"claim": claim, "rung": rung, **row} for row in functions[claim](tables(rung, folder))]
    return pd.DataFrame(rows, columns=list(table.COLUMNS))


def judged(evidence, claim, edition="first"):
    """What the rules say of a claim on the rung of some evidence, and why."""
    rung = evidence["rung"].iloc[0]
    said = claims.verdicts(evidence[claims.EVIDENCE], EDITIONS[edition][2])
    (verdict,) = [v for v in said if (v.claim, v.rung) == (claim, rung)]
    return verdict.verdict, verdict.because


def by_criterion(evidence):
    return evidence.set_index(["criterion", "variant"])


def row(model, quantity, value, weights="trained", **more):
    """A row of a task's table, without a place unless it is given one."""
    about = {"model": model, "weights": weights, "quantity": quantity, "value": value, "se": 0.001}
    about |= dict.fromkeys(("layer", "other", "depth", "head", "unit", "beside", "n"))
    return about | more


def seeds(design, count=3):
    return [design, *(f"{design}-s{seed}" for seed in range(1, count))]
