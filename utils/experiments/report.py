"""`python -m utils.experiments.report`: the trends that the recorded results show, with intervals.

Every number is of trained models: one point each, intervals over seeds and sizes, never images.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from utils.experiments.catalogue import EXPERIMENTS
from utils.experiments.layers import SCOPES, at_scope
from utils.experiments.replicating import RESULTS, file_of
from utils.measures.statistics import rank_trend, slope_per_doubling
from utils.models.architectures import Spec
from utils.models.families import FAMILIES

# Family → what is doubled, as Spec names it; the models of a CIFAR-10 sweep have the same names.
SWEEPS = {
    "heads": "heads",
    "width": "heads",
    "decoupled": "heads",
    "depth": "depth",
    "cnn-depth": "depth",
}
FEW, SOME = "all", "h ≥ 4"  # the whole range of heads, and where "too many" may begin
OF_LAYERS = {
    "gini": "Gini, per head",
    "gini_head_average": "Gini, head-averaged",
    "overlap": "placement overlap O",
    "population_gini": "Gini, population",
    "active_share": "active share",
}
OF_PROFILES = {
    "necessity N": "N",
    "sufficiency K": "K",
    "place index": "N_place",
    "I_rem": "I_rem",
    "I_keep": "I_keep",
}
KEYS = ["measure", "unit", "scope", "replaced_by", "weights"]


def values(rung: str, loss: float | None = None, out: Path = RESULTS) -> pd.DataFrame:
    """One row for every model and number: model, KEYS, value; what is not recorded yet is left out.

    scope : one of layers.SCOPES; of sparseness "all" is the mean over layers, of ablations all
        layers at once. loss : of models at equal loss, as `replicate` recorded them
    """
    parts = [pd.DataFrame(columns=["model", *KEYS, "value"])]
    for name, declared in EXPERIMENTS.items():
        file = file_of(name, rung, loss, out)
        if not file.exists():
            continue
        table = pd.read_csv(file)
        if declared.command == "ablate":
            chosen = table[table["quantity"].isin(OF_PROFILES)]
            chosen = chosen.assign(measure=chosen["quantity"].map(OF_PROFILES))
            parts.append(chosen[["model", *KEYS, "value"]])
        elif declared.command == "measure":
            parts.append(pd.DataFrame(_by_scope(table[table["quantity"].isin(OF_LAYERS)])))
    found = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    # Models of two families are in the tables of two experiments, with the same numbers.
    return found.drop_duplicates(["model", *KEYS])


def _by_scope(table: pd.DataFrame) -> Iterator[dict]:
    """From rows for every layer and head to one for every scope, the mean over its layers."""
    keys = ["model", "weights", "quantity", "unit"]
    for (model, weights, quantity, unit), rows in table.groupby(keys, sort=False):
        layers = rows.groupby("layer", sort=False)["value"].mean()  # over heads
        for scope in SCOPES:
            yield {
                "model": model,
                "measure": OF_LAYERS[quantity],
                "unit": unit,
                "scope": scope,
                "replaced_by": "",
                "weights": weights,
                "value": layers[at_scope(list(layers.index), scope)].mean(),
            }


def trends(rung: str, loss: float | None = None, out: Path = RESULTS) -> pd.DataFrame:
    """The slope per doubling of heads or depth of every family, measure and scope.

    Columns family, varied, range, KEYS, missing (designs of the family without a recorded model),
    models (with a value), undefined (recorded without one), slope, low, high, p, detectable (see
    statistics.slope_per_doubling), tau, tau_p. NaN with fewer than three models or two sizes.
    """
    found = values(rung, loss, out)
    rows = []
    for family, varied in SWEEPS.items():
        designs = [Spec.parse(name) for name in FAMILIES[family].names]
        declared = {spec.design: float(getattr(spec, varied)) for spec in designs}
        own = found.assign(design=found["model"].map(lambda name: _design(name, rung)))
        own = own[own["design"].isin(declared)]
        own = own.assign(size=own["design"].map(declared))
        for label, least in {FEW: 1, SOME: 4}.items() if varied == "heads" else [(FEW, 1)]:
            wanted = {name for name, size in declared.items() if size >= least}
            for keys, models in own[own["size"] >= least].groupby(KEYS, sort=False):
                about = {"family": family, "varied": varied, "range": label}
                about |= dict(zip(KEYS, keys, strict=True))
                about["missing"] = len(wanted - set(models["design"]))
                rows.append(about | _trend(models))
    return pd.DataFrame(rows)


def _design(model: str, rung: str) -> str | None:
    spec = Spec.parse(model)
    return spec.design if spec is not None and spec.rung == rung else None


def _trend(models: pd.DataFrame) -> dict:
    known = models.dropna(subset="value")
    counts = {"models": len(known), "undefined": len(models) - len(known)}
    numbers = dict.fromkeys(("slope", "low", "high", "p", "detectable", "tau", "tau_p"), math.nan)
    if len(known) >= 3 and known["size"].nunique() >= 2:
        line = slope_per_doubling(known["size"], known["value"])
        numbers |= {"slope": line.estimate, "low": line.low, "high": line.high, "p": line.p}
        ranks = rank_trend(known["size"], known["value"])
        numbers |= {"detectable": line.detectable, "tau": ranks.estimate, "tau_p": ranks.p}
    return counts | numbers


def report(rung: str, loss: float | None = None, out: Path = RESULTS) -> str:
    """The table of `trends` as Markdown, for results/README.md."""
    table = trends(rung, loss, out)
    at = "training ended" if loss is None else f"the training loss fell below {loss:g} nats"
    lines = [
        f"Slope per doubling, rung {rung}, models as they were when {at}: 95 % t-interval, one",
        "point per trained model; the residuals about the line supply it. Smallest: the slope that",
        "the design finds in 80 % of its repetitions. τ: Kendall's τ-b, p by permutation.",
        "",
        "| family | doubled | measure | scope | ablated by | weights | models | slope | p "
        "| smallest | τ (p) |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table.itertuples():
        doubled = row.varied if row.range == FEW else f"{row.varied}, {row.range}"
        unit = f" ({row.unit})" if row.unit not in ("class", "all", "attention") else ""
        undefined = f" ({row.undefined} undefined)" if row.undefined else ""
        if math.isnan(row.slope):
            numbers = ["–"] * 4
        else:
            numbers = [
                f"{row.slope:+.3f} [{row.low:+.3f}, {row.high:+.3f}]",
                f"{row.p:.3f}",
                f"{row.detectable:.3f}",
                f"{row.tau:+.2f} ({row.tau_p:.3f})",
            ]
        cells = [row.family, doubled, row.measure + unit, row.scope, row.replaced_by, row.weights]
        lines.append("| " + " | ".join([*cells, f"{row.models}{undefined}", *numbers]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser("python -m utils.experiments.report", description=__doc__)
    parser.add_argument("--rung", choices=("objects", "cifar10"), default="objects")
    parser.add_argument("--loss", type=float, help="of models at equal loss (default: as trained)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the tables")
    options = parser.parse_args()
    print(report(options.rung, options.loss, options.results))


if __name__ == "__main__":
    main()
