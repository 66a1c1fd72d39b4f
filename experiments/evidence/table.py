"""From the recorded tables to the evidence that the claims are judged by: one row a criterion.

One function answers for each claim on one rung; its rows are named like the criteria that were
declared before the results (`claims`). What is not recorded gives no row. Where there are too
few seeds for an interval, it is infinite, and the verdict is undecided.
"""

from pathlib import Path

import pandas as pd

from experiments.catalogue import RUNGS
from experiments.engine.results import RESULTS
from experiments.evidence import behaviour, representation, scale, sparsity
from experiments.evidence.recorded import EXACT, Recorded

COLUMNS = ("claim", "criterion", "rung", "variant", "estimate", "low", "high", "p", "models")
ROOMS = (sparsity, representation, behaviour, scale)
CLAIMS = {claim.__name__: claim for room in ROOMS for claim in room.CLAIMS}


def evidence(out: Path = RESULTS) -> pd.DataFrame:
    """The evidence on all rungs, as `rules.verdicts` takes it.

    Args:
        out: The folder of the tables.

    Returns:
        A table with columns COLUMNS, empty if nothing is recorded.
    """
    rows = [
        {"claim": name, "rung": rung, **row}
        for rung in (*RUNGS, EXACT)
        for recorded in [Recorded(rung, out)]
        for name, claim in CLAIMS.items()
        for row in claim(recorded)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))
