"""The trends that recorded results show, with intervals.

Every number is of trained models: one point each, intervals over seeds and sizes, never images.
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from statistics import fmean

import pandas as pd

from experiments.catalogue import EXPERIMENTS
from experiments.engine.results import RESULTS, file_of, with_apart
from experiments.engine.scopes import SCOPES, at_scope
from experiments.training.groups import GROUPS
from utils.measures.statistics import slope_per_doubling
from utils.models.architectures import Spec

# Group → what is doubled, as Spec names it; the models of a CIFAR-10 sweep have the same names.
SWEEPS = {
    "heads": "heads",
    "width": "heads",
    "decoupled": "heads",
    "depth": "depth",
    "cnn-depth": "depth",
}
# What varies with it and is held in the regression: with more seeds in some cells of the grid
# than in others, the two are no longer uncorrelated.
HELD = {"decoupled": "head_dim"}
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
# What the numbers of one measurement of a model have in common; of ablations the unit too.
TOGETHER = ("scope", "replaced_by", "weights")
ABLATED = ("unit", *TOGETHER)
KEYS = ["measure", *ABLATED]
NUMBERS = ("slope", "low", "high", "p", "detectable")


def values(
    rung: str,
    loss: float | None = None,
    out: Path = RESULTS,
    profiles: Mapping[str, str] = OF_PROFILES,
    order: str = "own",
    read: Callable[[Path], pd.DataFrame] = pd.read_csv,
) -> pd.DataFrame:
    """One row for every model and number: model, KEYS, value; what is not recorded yet is left out.

    scope : one of scopes.SCOPES; of sparseness "all" is the mean over layers, of ablations all
        layers at once. loss : of models at equal loss, as `replicate` recorded them
    profiles : quantity of an ablation → measure; order : by which the units were ablated
    read : the table of a file
    """
    parts = [pd.DataFrame(columns=["model", *KEYS, "value"])]
    for name, declared in EXPERIMENTS.items():
        for table in map(read, with_apart(file_of(name, rung, loss, out))):
            if declared.command == "ablate":
                orders = table["ordered_by"].fillna("own") if "ordered_by" in table else "own"
                chosen = table[table["quantity"].isin(profiles) & (orders == order)]
                chosen = chosen.assign(measure=chosen["quantity"].map(profiles))
                parts.append(chosen[["model", *KEYS, "value"]])
            elif declared.command == "measure":
                parts.append(pd.DataFrame(_by_scope(table[table["quantity"].isin(OF_LAYERS)])))
    found = pd.concat([part for part in parts if len(part)] or parts, ignore_index=True)
    # Models of two groups are in the tables of two experiments, with the same numbers.
    return found.drop_duplicates(["model", *KEYS])


def _by_scope(table: pd.DataFrame) -> Iterator[dict]:
    """From rows for every layer and head to one for every scope, the mean over its layers."""
    keys = ["model", "weights", "quantity", "unit"]
    layers = table.groupby([*keys, "layer"], sort=False)["value"].mean()  # over heads
    of_model: dict[tuple, dict[str, float]] = {}
    for (*key, layer), value in layers.items():
        of_model.setdefault(tuple(key), {})[layer] = value
    for (model, weights, quantity, unit), by_layer in of_model.items():
        for scope in SCOPES:
            known = [by_layer[layer] for layer in at_scope(list(by_layer), scope)]
            known = [value for value in known if not math.isnan(value)]
            yield {
                "model": model,
                "measure": OF_LAYERS[quantity],
                "unit": unit,
                "scope": scope,
                "replaced_by": "",
                "weights": weights,
                "value": fmean(known) if known else math.nan,
            }


def trends(rung: str, loss: float | None = None, out: Path = RESULTS) -> pd.DataFrame:
    """The `slopes` of every group of SWEEPS, of models as trained or at equal loss."""
    return slopes(values(rung, loss, out), rung, SWEEPS)


def slopes(
    found: pd.DataFrame, rung: str, groups: Iterable[str], **asked: Collection[str]
) -> pd.DataFrame:
    """The slope per doubling of heads or depth of each group, measure and scope.

    found : as `values` gives it; asked : one of KEYS → those of its values that are wanted, all
    where it is not named. Columns group, varied, range, KEYS, missing (designs of the
    group without a recorded model), models (with a value), undefined (recorded without one),
    slope, low, high, p, detectable (see statistics.slope_per_doubling, at an equal size of HELD;
    NaN where the models with a value are too few or too similar), their sizes and values.
    """
    rows = [line for group in groups for line in _lines(found, rung, group, asked)]
    about = ["group", "varied", "range", *KEYS, "missing", "models", "undefined"]
    return pd.DataFrame(rows, columns=[*about, *NUMBERS, "sizes", "values"])


def _lines(
    found: pd.DataFrame, rung: str, group: str, asked: Mapping[str, Collection[str]]
) -> Iterator[dict]:
    designs = [Spec.parse(name) for name in GROUPS[group].names]
    sizes = {spec.design: float(getattr(spec, SWEEPS[group])) for spec in designs}
    own = found.assign(design=[_design(name, rung) for name in found["model"]])
    own = own[own["design"].isin(sizes)]
    own = own.assign(size=own["design"].map(sizes))
    if group in HELD:
        held = {spec.design: getattr(spec, HELD[group]) for spec in designs}
        own = own.assign(held=own["design"].map(held))
    measured = {of: own.groupby(list(of))["design"].agg(set) for of in (ABLATED, TOGETHER)}
    for column, wanted in asked.items():
        own = own[own[column].isin(wanted)]
    for label, least in {FEW: 1, SOME: 4}.items() if SWEEPS[group] == "heads" else [(FEW, 1)]:
        wanted = {name for name, size in sizes.items() if size >= least}
        for keys, models in own[own["size"] >= least].groupby(KEYS, sort=False):
            about = {"group": group, "varied": SWEEPS[group], "range": label}
            about |= dict(zip(KEYS, keys, strict=True))
            # What was measured of a model may lack one number: the average of a single head.
            of = ABLATED if about["replaced_by"] else TOGETHER
            about["missing"] = len(wanted - measured[of][tuple(about[key] for key in of)])
            yield about | _trend(models)


@cache
def _design(model: str, rung: str) -> str | None:
    spec = Spec.parse(model)
    return spec.design if spec is not None and spec.rung == rung else None


def _trend(models: pd.DataFrame) -> dict:
    known = models[models["value"].notna()]
    counts = {"models": len(known), "undefined": len(models) - len(known)}
    numbers = dict.fromkeys(NUMBERS, math.nan)
    numbers |= {"sizes": tuple(known["size"]), "values": tuple(known["value"])}
    with suppress(ValueError):  # too few models, or too similar
        line = slope_per_doubling(known["size"], known["value"], held=known.get("held"))
        numbers |= {"slope": line.estimate, "low": line.low, "high": line.high, "p": line.p}
        numbers["detectable"] = line.detectable
    return counts | numbers
