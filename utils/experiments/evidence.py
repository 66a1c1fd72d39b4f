"""From the recorded tables to the evidence that the claims are judged by: one row a criterion.

A function below answers for one claim on one rung; its rows are named like the criteria that were
declared before the results (book.claims). What is not recorded gives no row. Where there are too
few seeds for an interval, it is infinite, and the verdict is undecided.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from utils.experiments.catalogue import PINNED_CNNS, PINNED_VITS, RUNGS
from utils.experiments.replicating import RESULTS, file_of
from utils.experiments.report import FEW, SOME, trends, values
from utils.measures.statistics import (
    Estimate,
    contrast,
    mean_over,
    slope_per_doubling,
    slope_shrinkage,
)
from utils.models.families import FAMILIES
from utils.models.training import LOSS_LEVELS

COLUMNS = ("claim", "criterion", "rung", "variant", "estimate", "low", "high", "p", "models")
SCOPES = {"all": "all layers", "2/3": "block at two thirds"}
SURE = 1.96  # standard errors over images to either side of a mean


class Recorded:
    """The tables of one rung, each read once."""

    def __init__(self, rung: str, out: Path) -> None:
        self.rung, self.out = rung, out
        self._tables: dict[str, pd.DataFrame | None] = {}
        self._trends: dict[float | None, pd.DataFrame] = {}

    def table(self, experiment: str) -> pd.DataFrame | None:
        """The table of an experiment, None if it is not recorded."""
        if experiment not in self._tables:
            file = file_of(experiment, self.rung, out=self.out)
            self._tables[experiment] = pd.read_csv(file) if file.exists() else None
        return self._tables[experiment]

    def members(self, *families: str) -> set[str]:
        """The names of a family's models on this rung."""
        prefix = "" if self.rung == "objects" else f"{self.rung}/"
        return {prefix + name for family in families for name in FAMILIES[family].members()}

    def trends(self, loss: float | None = None) -> pd.DataFrame:
        """The slopes per doubling, of models as trained or at equal loss."""
        if loss not in self._trends:
            self._trends[loss] = trends(self.rung, loss, self.out)
        return self._trends[loss]

    def values(self) -> pd.DataFrame:
        """One number for every model, measure and scope."""
        return values(self.rung, None, self.out)

    def equal_loss(self, family: str) -> float | None:
        """The lowest training loss at which all models of a family are ablated that are so at the
        end of their training."""
        ends = self._models(None, family)
        return next(
            (loss for loss in sorted(LOSS_LEVELS) if ends and self._models(loss, family) == ends),
            None,
        )

    def _models(self, loss: float | None, family: str) -> int:
        found = self.trends(loss)
        if not len(found):
            return 0
        own = found[(found["family"] == family) & (found["measure"] == "N")]
        return int((own["models"] + own["undefined"]).max()) if len(own) else 0


def _row(criterion: str, found: Estimate, variant: str = "main") -> dict:
    return {
        "criterion": criterion,
        "variant": variant,
        **{name: getattr(found, name) for name in ("estimate", "low", "high", "p")},
        "models": found.n,
    }


def _share(criterion: str, holds: pd.Series, models: int) -> dict:
    share = holds.mean() if len(holds) else math.nan
    return _row(criterion, Estimate(float(share), math.nan, math.nan, math.nan, models))


def _layers(table: pd.DataFrame, quantity: str, models: set[str], unit: str) -> pd.DataFrame:
    """Rows model and layer; columns value and se, trained and random, means over heads."""
    chosen = table[(table["quantity"] == quantity) & table["model"].isin(models)]
    chosen = chosen[chosen["unit"] == unit]
    means = chosen.groupby(["model", "layer", "weights"])[["value", "se"]].mean()
    return means.unstack("weights").dropna()


def _beside_random(found: pd.DataFrame, above: float, by: float) -> pd.Series:
    """Whether a value is above a bound, and above that of random weights, by the lower bounds."""
    value, error = found["value"], found["se"]
    difference = value["trained"] - value["random"]
    spread = (error["trained"] ** 2 + error["random"] ** 2) ** 0.5
    return (value["trained"] - SURE * error["trained"] > above) & (difference - SURE * spread >= by)


def hu1(recorded: Recorded) -> Iterator[dict]:
    """Attention is sparse."""
    table = recorded.table("sparseness")
    if table is None:
        return
    vits = recorded.members("heads", "depth") | set(PINNED_VITS)
    found = _layers(table, "gini", vits, "class")
    models = found.index.get_level_values("model").nunique()
    if models:
        yield _share("layers", _beside_random(found, 0.5, 0.1), models)


def hu3(recorded: Recorded) -> Iterator[dict]:
    """The units with the largest responses matter more than random ones."""
    vits = recorded.members("heads", "depth") | set(PINNED_VITS)
    found = recorded.values()
    found = found[(found["model"].isin(vits)) & (found["scope"] == "all")]
    found = found.set_index(["measure", "replaced_by"]).sort_index()["value"]
    for criterion, measure, value, variant in (
        ("necessity", "N", "zero", "zero"),
        ("necessity", "N", "renormalise", "renormalise"),
        ("place", "N_place", "zero", "main"),
        ("plain", "N", "zero", "main"),
    ):
        if (measure, value) in found.index:
            yield _row(criterion, mean_over(found.loc[[(measure, value)]]), variant)


def _slope(found: pd.DataFrame, family: str, **chosen) -> Estimate | None:
    found = found[found["family"] == family] if len(found) else found
    for column, wanted in {"range": FEW, "weights": "trained", **chosen}.items():
        found = found[found[column] == wanted] if len(found) else found
    if len(found) != 1:
        return None
    row = found.iloc[0]
    return Estimate(row["slope"], row["low"], row["high"], row["p"], row["models"])


def _matched(recorded: Recorded, family: str, units: dict[str, str]) -> Iterator[dict]:
    for at, loss in (("equal epochs", None), ("equal loss", recorded.equal_loss(family))):
        if at == "equal loss" and loss is None:
            continue
        found = recorded.trends(loss)
        for measure in ("N", "K"):
            for scope, name in SCOPES.items():
                for unit, ending in units.items():
                    chosen = dict(measure=measure, scope=scope, unit=unit, replaced_by="zero")
                    slope = _slope(found, family, **chosen)
                    if slope is not None:
                        yield _row("trend", slope, f"{measure}, {name}, {at}{ending}")


def hu4(recorded: Recorded) -> Iterator[dict]:
    """Deeper ViTs are sparser."""
    yield from _matched(recorded, "depth", {"attention": ""})


def hu5(recorded: Recorded) -> Iterator[dict]:
    """Deeper CNNs are sparser."""
    units = {"position": ", positions", "unit": ", ReLU units"}
    yield from _matched(recorded, "cnn-depth", units)


def hu6(recorded: Recorded) -> Iterator[dict]:
    """Too many heads make a ViT less sparse."""
    found = recorded.trends()
    for heads in (FEW, SOME):
        for measure in ("N", "K"):
            for scope, name in SCOPES.items():
                chosen = dict(measure=measure, scope=scope, replaced_by="zero", range=heads)
                slope = _slope(found, "decoupled", **chosen)
                if slope is not None:
                    yield _row("decoupled", slope, f"{measure}, {name}, {heads}")
        slope = _slope(
            found, "decoupled", measure="Gini, per head", unit="class", scope="all", range=heads
        )
        if slope is not None:
            yield _row("decoupled", slope, f"Gini, {heads}")
    slope = _slope(found, "heads", measure="N", scope="all", replaced_by="zero")
    if slope is not None:
        yield _row("fixed width", slope)


def hu7(recorded: Recorded) -> Iterator[dict]:
    """More heads are less sparse because the effects of units overlap."""
    chosen = dict(measure="placement overlap O", unit="class", scope="all")
    slope = _slope(recorded.trends(), "decoupled", **chosen)
    if slope is None:
        return
    yield _row("overlap", slope)
    found = recorded.values()
    found = found[found["model"].isin(recorded.members("decoupled")) & (found["scope"] == "all")]
    found = found[(found["weights"] == "trained") & found["replaced_by"].isin(("", "zero"))]
    wide = found.pivot_table("value", "model", "measure")
    if not {"N", "I_rem", "I_keep"} <= set(wide.columns):
        return
    heads = [int(name.split("-h")[1].split("-")[0]) for name in wide.index]
    overlap = wide["placement overlap O"]
    if len(wide[["N", "placement overlap O"]].dropna()) >= 6:
        share = slope_shrinkage(heads, wide["N"], overlap)
        half = {name: getattr(share, name) - 0.5 for name in ("estimate", "low", "high")}
        yield _row("mediation", replace(share, **half))
    yield _row("removal", mean_over(wide["I_rem"]))
    yield _row("keeping", mean_over(wide["I_keep"]))


def hu8(recorded: Recorded) -> Iterator[dict]:
    """The neurons of CNNs are sparse."""
    table = recorded.table("sparseness")
    if table is None:
        return
    cnns = recorded.members("cnn-depth") | set(PINNED_CNNS)
    gini = _layers(table, "population_gini", cnns, "position")
    active = _layers(table, "active_share", cnns, "position")
    if len(gini):
        few = active["value"]["trained"] + SURE * active["se"]["trained"] < 0.5
        models = gini.index.get_level_values("model").nunique()
        yield _share("layers", _beside_random(gini, 0.5, 0.05) & few, models)


def hu10(recorded: Recorded) -> Iterator[dict]:
    """Transformers have less bias for vision."""
    table = recorded.table("sparseness")
    if table is None:
        return
    chosen = (table["quantity"] == "accuracy") & (table["weights"] == "trained")
    accuracy = table[chosen].set_index("model")["value"]
    prefix = "" if recorded.rung == "objects" else f"{recorded.rung}/"
    ends = {3: "-n3", 10: "-n10", 30: "-n30", 100: ""}
    names = {n: (f"{prefix}resnet-d20{e}", f"{prefix}vit-d6-h4{e}") for n, e in ends.items()}
    gaps = {
        n: 100 * (accuracy[cnn] - accuracy[vit])
        for n, (cnn, vit) in names.items()
        if {cnn, vit} <= set(accuracy.index)
    }
    if len(gaps) == len(ends):
        yield _row("gap", slope_per_doubling(list(gaps), list(gaps.values())))


def difference(values: dict[str, list[float]], plus: str, minus: str) -> Estimate:
    """The difference of two family means [one value a seed] with a seed interval, infinite where
    no family has two seeds."""
    pairs = [(family, value) for family, each in values.items() for value in each]
    families, numbers = zip(*pairs, strict=True)
    if max(len(each) for each in values.values()) > 1:
        return contrast(numbers, families, {plus: 1, minus: -1})
    estimate = values[plus][0] - values[minus][0]
    return Estimate(estimate, -math.inf, math.inf, math.nan, len(numbers))


CLAIMS: dict[str, Callable[[Recorded], Iterator[dict]]] = {
    claim.__name__: claim for claim in (hu1, hu3, hu4, hu5, hu6, hu7, hu8, hu10)
}


def evidence(out: Path = RESULTS) -> pd.DataFrame:
    """The evidence on all rungs, as `book.claims.verdicts` takes it: columns COLUMNS.

    out : the folder of the tables. An empty table if nothing is recorded.
    """
    rows = [
        {"claim": name, "rung": rung, **row}
        for rung in RUNGS
        for recorded in [Recorded(rung, out)]
        for name, claim in CLAIMS.items()
        for row in claim(recorded)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))
