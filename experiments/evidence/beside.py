"""What is not judged: variants next to the primary one that is, each with whether it agrees."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from experiments.catalogue import RUNGS
from experiments.engine.results import RESULTS
from experiments.evidence import claims
from experiments.evidence.behaviour import on_enough, paired, pairs_of
from experiments.evidence.recorded import BLOCKS, HALF, LOST, Recorded, row
from experiments.evidence.representation import between
from experiments.evidence.sparsity import ATTENTION, IN_GROUPS, mean_of, of_attention, readings
from experiments.evidence.table import COLUMNS, evidence
from experiments.evidence.trends import SOME, SWEEPS
from experiments.training.groups import GROUPS
from utils.measures.statistics import Estimate
from utils.models.architectures import Spec

# What stands next to each reading of a trend.
OTHERWISE = {
    "N": {"in KL": "N", "on the margin": "N, margin"},
    HALF: {"in KL": HALF, "on the margin": f"{HALF}, margin"},
    LOST: {"in KL": f"{LOST}, KL"},
}
# What stands next to the primary variant: (criterion, variant, estimate), not judged.
Beside = Iterator[tuple[str, str, Estimate | None]]


def _of_trend(recorded: Recorded, group: str, primary: dict, changes: dict) -> Beside:
    """The readings of a trend under other settings: name → columns, or how to choose otherwise."""
    smallest = min(getattr(Spec.parse(name), SWEEPS[group]) for name in GROUPS[group].names)
    for criterion, measure in readings(primary["unit"]).items():
        for name, change in changes.items():
            found = recorded.trend(recorded.values(), group, measure=measure, **primary | change)
            yield criterion, name, found
        for name, other in OTHERWISE[criterion].items():
            found = recorded.trend(recorded.values(), group, measure=other, **primary)
            yield criterion, name, found
        if (loss := recorded.equal_loss(group)) is not None:
            found = recorded.trend(recorded.values(loss), group, measure=measure, **primary)
            yield criterion, "equal loss", found
        chosen = dict(primary, measure=measure, least=smallest + 1)
        yield (
            criterion,
            "without the smallest",
            recorded.trend(recorded.values(), group, **chosen),
        )
        if primary["unit"] == "attention":
            for order in ("head-averaged", "contribution"):
                found = recorded.values(order=order)
                found = recorded.trend(found, group, measure=measure, **primary)
                yield criterion, f"{order} order", found


ELSEWHERE = {
    **{f"block at {scope}" if "/" in scope else "last block": {"scope": scope} for scope in BLOCKS},
    **{value: {"replaced_by": value} for value in ("zero", "mean", "resample")},
}


def _hu3(recorded: Recorded) -> Beside:
    for value in ("zero", "mean", "resample"):
        for criterion, measure in (("necessity", "N, probability"), ("place", "place")):
            found = mean_of(of_attention(recorded, measure=measure, replaced_by=value))
            yield criterion, value, found
    for criterion, variant, measure in (
        ("necessity", "in KL", "N"),
        ("necessity", "on the margin", "N, margin"),
        ("necessity", "the same central disc for all images", "N, centre"),
        ("place", "the same mass spread evenly", "place, spread evenly"),
    ):
        yield criterion, variant, mean_of(of_attention(recorded, measure=measure))
    for order in ("head-averaged", "contribution", "centre", "mean-map"):
        found = of_attention(recorded, order, measure="N, probability")
        yield "necessity", f"{order} order", mean_of(found)


def _hu4(recorded: Recorded) -> Beside:
    return _of_trend(recorded, "depth", ATTENTION, ELSEWHERE)


def _hu5(recorded: Recorded) -> Beside:
    primary = dict(IN_GROUPS, scope="single layers")
    changes = {f"layer at {scope}": {"scope": scope} for scope in BLOCKS}
    changes |= {value: {"replaced_by": value} for value in ("zero", "resample")}
    changes |= {f"unit {unit}": {"unit": unit} for unit in ("position", "unit")}
    return _of_trend(recorded, "cnn-depth", primary, changes)


def _hu6(recorded: Recorded) -> Beside:
    yield from _of_trend(recorded, "decoupled", ATTENTION, ELSEWHERE | {SOME: {"sizes": SOME}})
    for group, name in (("heads", "fixed width"), ("width", "fixed head dimension")):
        for criterion, measure in readings("attention").items():
            chosen = dict(ATTENTION, measure=measure)
            yield criterion, name, recorded.trend(recorded.values(), group, **chosen)


def _ti(recorded: Recorded) -> Beside:
    """Pairs without the CNNs trained on fewer images, and all networks at any accuracy."""
    found = on_enough(recorded, "behaviour", "consistency")
    if not len(found):
        return
    means = found[found["kind"] == "shift"].groupby("model")["value"].mean()
    chosen = pairs_of(recorded, means.index, fewer=False)
    yield "consistency", "without CNNs of fewer images", paired(means, chosen, sign=-1)
    gap = between(recorded, -means)  # of minus the values, ViT − CNN is CNN − ViT
    yield "consistency", "at any accuracy", gap


BESIDE: dict[str, Callable[[Recorded], Beside]] = {
    "hu3": _hu3,
    "hu4": _hu4,
    "hu5": _hu5,
    "hu6": _hu6,
    "ti": _ti,
}


def beside(out: Path = RESULTS) -> pd.DataFrame:
    """The variants that are not judged, next to the primary one that is.

    Columns as of `evidence`, and `beside`: "agrees" where the criterion's rule would say of it what
    it says of the primary variant, "differs" where not, NaN where the primary one is not recorded;
    of tu1 and tu2 on the rung imagenet claims.ONE_PAIR.
    """
    primary = evidence(out)
    primary = primary[primary["variant"] == "main"].set_index(["claim", "rung", "criterion"])
    rows = []
    for rung in RUNGS:
        recorded = Recorded(rung, out)
        for name, variants in BESIDE.items() if rung != "imagenet" else ():
            judged = {each.name: each.rule for each in claims.BY_ID[name].criteria}
            for criterion, variant, found in variants(recorded):
                if found is None or math.isnan(found.estimate):
                    continue
                said = math.nan
                if (name, rung, criterion) in primary.index:
                    decided = primary.loc[(name, rung, criterion)]
                    outcomes = {
                        judged[criterion].judge(x.estimate, x.low, x.high) for x in (decided, found)
                    }
                    said = "agrees" if len(outcomes) == 1 else "differs"
                about = {"claim": name, "rung": rung, "beside": said}
                rows.append(about | row(criterion, found, variant))
    rows += list(_one_pair(Recorded("imagenet", out)))
    return pd.DataFrame(rows, columns=[*COLUMNS, "beside"])


def _one_pair(recorded: Recorded) -> Iterator[dict]:
    """Each number of the published cue conflicts, of each model by itself: no difference is taken
    of models that were trained differently."""
    for claim, criterion, quantity in (
        ("tu1", "consistency", "error_consistency"),
        ("tu2", "bias", "shape_bias"),
        ("tu2", "decided", "decided"),
    ):
        found = recorded.numbers("cue-conflict", quantity)
        found = found[found["kind"] == "conflict"] if len(found) else found
        for each in found.to_dict("records"):
            low, high = each.get("low", math.nan), each.get("high", math.nan)
            shown = Estimate(each["value"], low, high, math.nan, 1)
            about = {"claim": claim, "rung": recorded.rung, "beside": claims.ONE_PAIR}
            yield about | row(criterion, shown, each["model"])
