"""From the recorded tables to the evidence that the claims are judged by: one row a criterion.

One function answers for each claim on one rung; its rows are named like the criteria that were
declared before the results (book.claims). What is not recorded gives no row. Where there are too
few seeds for an interval, it is infinite, and the verdict is undecided.
"""

from pathlib import Path

import pandas as pd

from utils.experiments import (
    evidence_behaviour,
    evidence_kinds,
    evidence_scale,
    evidence_sparsity,
)
from utils.experiments.catalogue import RUNGS
from utils.experiments.recorded import EXACT, Recorded
from utils.experiments.replicating import RESULTS

COLUMNS = ("claim", "criterion", "rung", "variant", "estimate", "low", "high", "p", "models")
ROOMS = (evidence_sparsity, evidence_kinds, evidence_behaviour, evidence_scale)
CLAIMS = {claim.__name__: claim for room in ROOMS for claim in room.CLAIMS}


def evidence(out: Path = RESULTS) -> pd.DataFrame:
    """The evidence on all rungs, as `book.claims.verdicts` takes it: columns COLUMNS.

    out : the folder of the tables. An empty table if nothing is recorded.
    """
    rows = [
        {"claim": name, "rung": rung, **row}
        for rung in (*RUNGS, EXACT)
        for recorded in [Recorded(rung, out)]
        for name, claim in CLAIMS.items()
        for row in claim(recorded)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))
