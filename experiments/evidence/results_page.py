"""`python -m experiments.evidence.results_page`: what the recorded tables answer, in results/.

README.md, a page that begins with one row for each sweep and measure; values.csv, one row for each
model, measure, scope and setting; slopes.csv, the slope of every sweep in each of these. All
numbers are computed from the tables. The verdicts on the claims are the book's (chapter 6).
"""

import math
from pathlib import Path

import pandas as pd

from experiments.engine.results import RESULTS, record_of
from experiments.evidence.claims import DELTA_HALF, DELTA_LOST, DELTA_N
from experiments.evidence.recorded import HALF, LOST, Recorded
from experiments.evidence.sparsity import ATTENTION, IN_GROUPS
from experiments.evidence.trends import FEW, KEYS, SWEEPS, slopes
from experiments.training.groups import declared_on

RUNGS = ("objects", "cifar10")  # those with models that differ in one thing at a time
GROUPS = {
    "depth": "layers of a ViT",
    "cnn-depth": "layers of a ResNet",
    "heads": "heads at a fixed width (the more, the smaller)",
    "width": "heads at a fixed head dimension (the more, the wider)",
    "decoupled": "heads and head dimension apart",
}
TOGETHER = dict(ATTENTION, order="own")
LAYERS = dict(IN_GROUPS, scope="single layers", order="own")
OF_MAPS = dict(unit="class", scope="all", replaced_by="", order="own")
OF_UNITS = dict(unit="position", scope="all", replaced_by="", order="own")
# Measure as the page calls it → (measure, primary setting, smallest slope of interest).
OF_ATTENTION = {
    "Gini of attention rows": ("Gini, per head", OF_MAPS, 0.03),
    "N": ("N, probability", TOGETHER, DELTA_N),
    "log₂ of what is lost with 1 % kept": (LOST, TOGETHER, DELTA_LOST),
}
OF_CNNS = {
    "Gini of populations": ("Gini, population", OF_UNITS, 0.03),
    "N": ("N, probability", LAYERS, DELTA_N),
    "log₂ f₅₀⁺": (f"{HALF}, probability", LAYERS, DELTA_HALF),
}
VALUES = {"attention": ("zero", "mean", "resample"), "group": ("zero", "resample")}
HEAD = """\
# Recorded results

| what varies | measure | objects | other values | equal loss | CIFAR-10 |
|---|---|---|---|---|---|
{rows}

A slope is per **doubling** of heads or layers: least squares over trained models, one point each
(of *heads and head dimension apart* at an equal head dimension, which is in the fit too), with a
95 % interval over them. *Rises* and *falls*: the interval excludes 0. *Level*: it lies within the
smallest slope of interest to either side ({deltas}). *Undecided*: neither. *–*: a design of the
sweep is not recorded yet. Nothing is adjusted for the number of lines.

*Objects* and *CIFAR-10* show the setting that decides claims: attention is ablated in all layers
together, each head's own order, and the rest of a row takes the place of what is removed
(*renormalise*); units of CNNs in random groups, replaced by their mean, one layer at a time, mean
over the layers at a third, two thirds and the end of the depth. *Other values* puts something else
in the place of what is removed. *Equal loss* takes all models of a sweep where their training loss
first fell below the lowest level that all of them reach.

[values.csv](values.csv) has a row for every model, measure, scope and setting, and
[slopes.csv](slopes.csv) every slope. Chapter 6 of the book judges the claims, by rules that were
fixed before any table was recorded; [first-edition.csv](first-edition.csv) has what the first
edition said, on pictures of which one texture was broken and on networks that were not finished.
[pilots.csv](pilots.csv) are the trials by which the recipe of training was chosen, and
[scatter.csv](scatter.csv) those by which the rules were.

`python -m experiments replicate --status` says what is missing, `python -m experiments replicate`
records it, and `python -m experiments.evidence.results_page` writes this page and both files again.

## The tables

One for every experiment and rung, and next to each a .json that says where its numbers come from:
commit, versions, device, seconds, weights.

{tables}
"""


def _tables(out: Path) -> str:
    lines = [
        "| table | conditions | models | images | seconds | commits |",
        "|---|---|---|---|---|---|",
    ]
    for file in sorted(out.rglob("*.json")):
        record = record_of(file)
        done = record["conditions"]
        models = {name.split(" ")[0] for name in done} if file.parent != out else "–"
        seconds = sum(each["seconds"] for each in done.values())
        commits = sorted({record["sources"][each["source"]]["commit"] for each in done.values()})
        packed = file.with_suffix(".csv.gz")
        table = packed if packed.exists() else file.with_suffix(".csv")
        name = table.relative_to(out).as_posix()
        about = record["configuration"]
        cells = [
            f"[{name}]({name})",
            len(done),
            models if models == "–" else len(models),
            f"{about.get('images', about['n'])} of {about['data']}" if "n" in about else "–",
            f"{seconds:,.0f}",
            ", ".join(commits) if len(commits) <= 3 else f"{len(commits)} commits",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def values_of(rung: str, out: Path = RESULTS) -> pd.DataFrame:
    """Every number of a rung: model, KEYS, order, loss (NaN at the end of training), value."""
    recorded, parts = Recorded(rung, out), []
    lowest = {recorded.equal_loss(group) for group in SWEEPS} - {None}
    for loss in (None, *sorted(lowest)):
        for order in ("own", "head-averaged", "contribution", "centre", "mean-map"):
            found = recorded.values(loss, order)
            if order != "own":  # what is not ablated has no order, and is there once
                found = found[found["replaced_by"] != ""]
            parts.append(found.assign(order=order, loss=math.nan if loss is None else loss))
    return pd.concat(parts, ignore_index=True)[["model", *KEYS, "order", "loss", "value"]]


def slopes_of(rung: str, found: pd.DataFrame) -> pd.DataFrame:
    """The slope of every sweep in each measure and setting of `values_of`."""
    parts = []
    for (order, loss), own in found.groupby(["order", "loss"], dropna=False):
        parts.append(slopes(own, rung, SWEEPS).assign(order=order, loss=loss))
    if not parts:
        return slopes(found, rung, SWEEPS).assign(order="", loss=math.nan)
    lines = pd.concat(parts, ignore_index=True)
    return lines[lines["weights"] == "trained"].drop(columns=["sizes", "values"])


def answer(line, delta: float) -> str:
    """What a row of `slopes_of` says, in a word."""
    if math.isnan(line["slope"]):
        return "–"
    if line["low"] > 0 or line["high"] < 0:
        return "rises" if line["low"] > 0 else "falls"
    return "level" if max(-line["low"], line["high"]) < delta else "undecided"


def _line(lines: pd.DataFrame, group: str, measure: str, setting: dict, loss: float | None = None):
    """The one slope of a sweep under a setting; None while a design of it lacks."""
    chosen = (lines["group"] == group) & (lines["measure"] == measure) & (lines["range"] == FEW)
    chosen &= lines["missing"] == 0
    chosen &= lines["loss"].isna() if loss is None else lines["loss"] == loss
    for column, wanted in setting.items():
        chosen &= lines[column] == wanted
    found = lines[chosen].dropna(subset="slope")
    return None if found.empty else found.iloc[0]


def _rows(lines: dict[str, pd.DataFrame], levels: dict[str, float | None]) -> list[str]:
    """lines : of each rung; levels : of loss, at which a sweep on objects is equal"""
    rows = []
    for group, varied in GROUPS.items():
        for name, (measure, setting, delta) in (
            OF_CNNS if group == "cnn-depth" else OF_ATTENTION
        ).items():

            def said(rung, wanted, group=group, measure=measure, delta=delta, loss=None):
                line = _line(lines[rung], group, measure, wanted, loss)
                return None if line is None else (answer(line, delta), line)

            cells = [varied, name]
            for rung in RUNGS:
                found = said(rung, setting) if declared_on(rung, group) else None
                numbers = "{slope:+.3f} [{low:+.3f}, {high:+.3f}]"
                cells.append("–" if found is None else f"{found[0]}: {numbers.format(**found[1])}")
            others = {
                value: said("objects", setting | {"replaced_by": value})
                for value in VALUES.get(setting["unit"], ())
            }
            others = [f"{value} {found[0]}" for value, found in others.items() if found]
            level = levels[group]
            equal = None if level is None else said("objects", setting, loss=level)
            cells[3:3] = [", ".join(others) or "–", equal[0] if equal else "–"]
            rows.append(f"| {' | '.join(cells)} |")
    return rows


def written(out: Path = RESULTS) -> dict[str, str]:
    """The text of each file, by its name."""
    found = {rung: values_of(rung, out) for rung in RUNGS}
    lines = {rung: slopes_of(rung, found[rung]) for rung in RUNGS}
    objects = Recorded("objects", out)
    levels = {group: objects.equal_loss(group) for group in GROUPS}
    deltas = f"{DELTA_N:g}; {DELTA_LOST:g} and {DELTA_HALF:g} of the logarithms"
    page = HEAD.format(rows="\n".join(_rows(lines, levels)), deltas=deltas, tables=_tables(out))

    def table(parts: dict[str, pd.DataFrame]) -> str:
        every = [part.assign(rung=rung) for rung, part in parts.items() if len(part)]
        whole = pd.concat(every, ignore_index=True) if every else pd.DataFrame()
        return whole.to_csv(index=False, float_format="%.5g", lineterminator="\n")

    return {"README.md": page, "values.csv": table(found), "slopes.csv": table(lines)}


if __name__ == "__main__":
    for name, text in written().items():
        (RESULTS / name).write_text(text, encoding="utf-8")
