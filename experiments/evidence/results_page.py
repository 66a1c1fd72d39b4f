"""`python -m experiments.evidence.results_page`: writes results/README.md from the tables there.

Every sentence with a number is computed. The verdicts on the claims are the book's (chapter 6).
"""

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from experiments.engine.results import RESULTS, record_of
from experiments.evidence.trends import FEW, trends
from experiments.tasks import textures
from experiments.training.groups import declared_on
from experiments.training.recipes import LOSS_LEVELS
from utils.measures.statistics import rank_trend

LEVEL = 0.03  # per doubling: what the claims take to be worth finding
RUNGS = ("objects", "cifar10")  # those with models that differ in one thing at a time
SPARSITY = ("Gini, per head", "Gini, head-averaged", "Gini, population", "N", "K", "N_place")
OVERLAP = ("placement overlap O", "I_rem", "I_keep")
# Question → the groups that answer it, and the measures in which they do.
QUESTIONS = {
    "Does depth raise sparsity?": (("depth", "cnn-depth"), SPARSITY),
    "Do heads lower it, at a fixed width (so that heads shrink as their number grows)?": (
        ("heads",),
        SPARSITY,
    ),
    "… at a fixed head dimension (so that the width grows)?": (("width",), SPARSITY),
    "… heads and head dimension decoupled?": (("decoupled",), SPARSITY),
    "Does overlap explain it?": (("heads", "decoupled"), OVERLAP),
}
COLUMNS = """\
| group | models at | measure | scope | models | slope per doubling | τ (p) | answer |
|---|---|---|---|---|---|---|---|"""
HEAD = """\
# Recorded results

What the recorded tables answer, with intervals; chapter 6 of the book judges the claims by rules
that were fixed before any table was recorded. `python -m experiments replicate --status` says what
is missing, `python -m experiments replicate` records it, and
`python -m experiments.evidence.results_page` writes this page again.

## How to read the answers

A slope is per **doubling** of heads or depth, least squares over trained models, one point each
(in the group *decoupled* at an equal head dimension, which is in the fit too), with a 95 %
t-interval from the residuals; where there is one seed, these hold chance and any bend of the true
curve. *Rises* and *falls*: the interval excludes zero. *Level*: it lies within
±{level:g}, the smallest slope of interest. *Undecided*: neither; then follows the smallest slope
that the design would have found in 80 % of its repetitions. τ is Kendall's τ-b, p by permuting
the models. Nothing is adjusted for the number of lines: of a hundred without a slope, about five
rise or fall by chance.

Trained weights; ablations by zero. Scope *all*: Gini indices averaged over layers, ablations of all
layers together; the same of one layer, at a share of the depth, is folded away below each. N is
necessity, K sufficiency, N_place the place index, which is small even where place is all that
counts; "undefined" counts models without the number, such as those that do not surely rely on what
is ablated, by the accuracy lost on the pictures at hand. A group is listed once each of its
designs is recorded.
"""
TEXTURES_HEAD = """\
## A fault of the test pictures of objects

A tenth of these pictures has the texture *cell*. The photograph shows its cell in the region of the
test pictures alone; those of training and validation are cut from the background. So on this
texture networks are tested with what none of them has seen, and accuracies on test pictures of
objects are too low, by more for some networks than for others. Right answers, in per cent:

| model | validation: cell | the other nine | all | test: cell | the other nine | all |
|---|---|---|---|---|---|---|
"""
TABLES = """\
## The tables

One for every experiment and rung, and next to each a .json that says where its numbers come from:
commit, versions, device, seconds, weights.

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


def _textures(out: Path) -> str:
    """Accuracy on the texture cell and on the others; empty as long as that is not recorded."""
    file = out / textures.FILE
    if not file.exists():
        return ""
    lines, table = [], pd.read_csv(file)
    for model, own in table.groupby("model", sort=False):
        cells = [model]
        for split in textures.SPLITS:
            shown = own[own["split"] == split]
            cell = shown["texture"] == "cell"
            for part in (shown[cell], shown[~cell], shown):
                right = (part["value"] * part["n"]).sum() / part["n"].sum()
                cells.append(f"{100 * right:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return TEXTURES_HEAD + "\n".join(lines) + "\n"


def answer(line) -> str:
    """What a row of `trends.trends` says, in words."""
    if math.isnan(line.slope):
        return "no line: too few models with a value"
    if line.low > 0 or line.high < 0:
        return "rises" if line.low > 0 else "falls"
    if max(-line.low, line.high) < LEVEL:
        return "level"
    return f"undecided; {line.detectable:.3f} would have been found"


def _chosen(found: pd.DataFrame, groups: Iterable[str], measures: tuple[str, ...]) -> pd.DataFrame:
    own = found[found["group"].isin(groups) & found["measure"].isin(measures)]
    own = own[(own["weights"] == "trained") & (own["range"] == FEW) & (own["missing"] == 0)]
    return own[own["replaced_by"].isin(("", "zero")) & (own["unit"] != "channel")]


def _table(lines: pd.DataFrame) -> str:
    rows = [COLUMNS]
    for line in lines.itertuples():
        unit = f" ({line.unit}s)" if line.unit in ("position", "unit") else ""
        undefined = f" ({line.undefined} undefined)" if line.undefined else ""
        slope = tau = "–"
        if not math.isnan(line.slope):
            slope = f"{line.slope:+.3f} [{line.low:+.3f}, {line.high:+.3f}]"
            ranks = rank_trend(line.sizes, line.values)
            tau = f"{ranks.estimate:+.2f} ({ranks.p:.3f})"
        cells = [
            line.group,
            line.at,
            line.measure + unit,
            line.scope,
            f"{line.models}{undefined}",
            slope,
            tau,
            answer(line),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def page(out: Path = RESULTS) -> str:
    """The page of all recorded results, Markdown."""
    parts = [HEAD.format(level=LEVEL), *filter(None, [_textures(out)])]
    for rung in RUNGS:
        parts.append(f"## The rung {rung}\n")
        ends = {None: "end of training"} | {loss: f"loss {loss:g}" for loss in LOSS_LEVELS}
        found = pd.concat(trends(rung, loss, out).assign(at=at) for loss, at in ends.items())
        for question, (asked, measures) in QUESTIONS.items():
            groups = [name for name in asked if declared_on(rung, name)]
            if not groups:
                continue
            lines = _chosen(found, groups, measures)
            parts.append(f"### {question}\n")
            together = lines["scope"] == "all"
            if together.any():
                parts.append(_table(lines[together]))
            if (~together).any():
                summary = f"One layer at a time: {(~together).sum()} lines"
                parts.append(f"<details><summary>{summary}</summary>\n")
                parts.append(_table(lines[~together]) + "\n</details>\n")
            absent = [name for name in groups if name not in set(lines["group"])]
            parts += [f"Not recorded for every design: {', '.join(absent)}.\n"] * bool(absent)
    return "\n".join([*parts, TABLES + _tables(out) + "\n"])


if __name__ == "__main__":
    (RESULTS / "README.md").write_text(page(), encoding="utf-8")
