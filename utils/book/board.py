"""The claims board: every claim, its evidence on each rung, and the verdict by its rule.

Chapters show their own claims from it, and chapter 6 all of them; a verdict that prose states
stands beside an assert on `verdict_of`, so that the two cannot drift apart.
"""

import math
from functools import cache

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from utils.book import claims, plotting
from utils.experiments.evidence import evidence
from utils.experiments.replicating import RESULTS

# Colours that keep apart for colour-blind eyes, and marks for those who see none.
MARKS = {
    claims.SUPPORTED: ("✓", plotting.COLOURS["mixer"]),
    claims.NOT_SUPPORTED: ("✗", plotting.COLOURS["cnn"]),
    claims.MIXED: ("±", plotting.COLOURS["highlight"]),
    claims.UNDECIDED: ("?", plotting.COLOURS["control"]),
    claims.NOT_TESTED: ("·", "#d9d9d9"),
}
RUNG_NAMES = {
    "objects": "objects",
    "cifar10": "CIFAR-10",
    "imagenet": "ImageNet",
    "exact": "exact",
}


@cache
def recorded() -> pd.DataFrame:
    """The evidence in results/, read once."""
    return evidence(RESULTS)


def _exact(found: pd.DataFrame) -> pd.DataFrame:
    return found[list(claims.EVIDENCE)]


def verdicts(found: pd.DataFrame | None = None) -> pd.DataFrame:
    """One row for every claim and rung: claim, rung, verdict, because.

    found : evidence as experiments.evidence gives it (default: what is recorded). Chapter 6.
    """
    found = recorded() if found is None else found
    return pd.DataFrame([vars(verdict) for verdict in claims.verdicts(_exact(found))])


def verdict_of(claim: str, rung: str = "objects") -> str:
    """The verdict on a claim, one of claims.VERDICTS.

    KeyError for a claim or rung that the board does not have.
    """
    found = verdicts().set_index(["claim", "rung"])["verdict"]
    if (claim, rung) not in found.index:
        raise KeyError(f"The board has no claim {claim!r} on the rung {rung!r}.")
    return found.loc[claim, rung]


def table(*ids: str) -> pd.DataFrame:
    """Statement and verdict, on each rung, of some claims (all if none is named). Chapter 6."""
    wide = verdicts().pivot(index="claim", columns="rung", values="verdict")
    wide = wide.reindex(columns=list(RUNG_NAMES)).rename(columns=RUNG_NAMES).fillna("")
    wide = wide.loc[list(ids) or [claim.id for claim in claims.CLAIMS]]
    wide.insert(0, "says", [claims.BY_ID[claim].statement for claim in wide.index])
    return wide


def reasons(*ids: str) -> pd.DataFrame:
    """For every claim and rung: verdict, and the criterion or reason that decided. Chapter 6."""
    found = verdicts().set_index("claim")
    return found.loc[list(ids)] if ids else found


def effects(*ids: str) -> pd.DataFrame:
    """What was measured for some claims: quantity, variant, estimate, interval, models."""
    found = recorded()
    found = found[found["claim"].isin(ids or list(claims.BY_ID))]
    quantity = {
        (claim.id, criterion.name): criterion.quantity
        for claim in claims.CLAIMS
        for criterion in (*claim.criteria, *filter(None, [claim.fallback]))
    }
    names = [quantity[row.claim, row.criterion] for row in found.itertuples()]
    found = found.assign(quantity=names, interval=[_interval(row) for row in found.itertuples()])
    shown = ["claim", "rung", "quantity", "variant", "estimate", "interval", "models"]
    return found[shown].round(3).reset_index(drop=True)


def _interval(row) -> str:
    if math.isnan(row.low):
        return "share, no interval"
    if math.isinf(row.low):
        return "too few seeds"
    return f"[{row.low:+.3f}, {row.high:+.3f}]"


def figure(*ids: str, statements: bool = True) -> Figure:
    """A mark for every claim and rung; empty where the claim is not for that rung. Chapter 6."""
    wide = table(*ids)
    rungs = list(RUNG_NAMES.values())
    height = 0.34 * len(wide) + 0.9
    made, ax = plt.subplots(figsize=(plotting.WIDTH, height))
    for y in range(len(wide)):
        for x, rung in enumerate(rungs):
            if verdict := wide.iloc[y][rung]:
                mark, colour = MARKS[verdict]
                ax.scatter(x, y, s=230, color=colour, edgecolor="none")
                ax.text(x, y, mark, ha="center", va="center", color="white", weight="bold")
    names = [f"{row.says}  {claim}" if statements else claim for claim, row in wide.iterrows()]
    ax.set_yticks(range(len(wide)), names, fontsize=9)
    ax.xaxis.tick_top()
    ax.set_xticks(range(len(rungs)), rungs, rotation=40, ha="left", fontsize=9)
    ax.set(xlim=(-0.5, len(rungs) - 0.5), ylim=(len(wide) - 0.4, -0.6))
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    handles = [
        plt.Line2D([], [], marker="o", ls="", color=colour, label=f"{mark} {verdict}", ms=9)
        for verdict, (mark, colour) in MARKS.items()
    ]
    made.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=9)
    return made
