"""The evidence on the claims about what two kinds of network decide; one function for each."""

import math
from collections.abc import Iterator

import pandas as pd

from experiments.catalogue import ALTERED
from experiments.evidence.recorded import (
    CNN,
    CNNS,
    SURE,
    VIT,
    VITS,
    Recorded,
    difference,
    judged_from,
    known_rows,
    row,
    share_row,
)
from utils.measures.statistics import Estimate, mean_over


def _changed(
    recorded: Recorded, quantity: str, kind: str | None = None, experiment: str = "behaviour"
) -> pd.DataFrame:
    found = recorded.numbers(experiment, quantity)
    return found[found["kind"] == kind] if kind and len(found) else found


@judged_from("attack")
def ba1(recorded: Recorded) -> Iterator[dict]:
    """Transformers have no adversarial advantage.

    At the ε of the grid at which the CNN keeps nearest to half of its accuracy, and between the ViT
    and the CNN of the sweeps whose accuracies are nearest, if they are within a point.
    """
    clean = _changed(recorded, "accuracy", "clean", "attack").set_index("model")["value"]
    if not len(clean):
        return
    under, kept = (
        _changed(recorded, quantity, "pgd", "attack").pivot(
            index="model", columns="level", values="value"
        )
        for quantity in ("accuracy", "kept")
    )
    vits = [name for name in clean.index if name in recorded.members("heads", "depth")]
    cnns = [name for name in clean.index if name in recorded.members("cnn-depth")]
    pairs = [(abs(clean[v] - clean[c]), v, c) for v in vits for c in cnns]
    near = [pair for pair in sorted(pairs) if pair[0] <= 0.01]
    gaps = []
    for _, vit, cnn in near[:3]:
        epsilon = (kept.loc[cnn] - 0.5).abs().idxmin()
        gaps.append(100 * (under.loc[vit, epsilon] - under.loc[cnn, epsilon]))
    if gaps:
        yield row("attack", mean_over(gaps))


@judged_from("behaviour")
def ba2(recorded: Recorded) -> Iterator[dict]:
    """Transformers have an advantage out of distribution."""
    found = _changed(recorded, "kept")
    found = found[found["kind"] != "permutation"] if len(found) else found
    holds = []
    for _, rows in found.groupby("kind") if len(found) else ():
        means = rows.groupby("model")["value"].mean()  # over severities
        gap = difference(recorded.seeds(VIT, means), recorded.seeds(CNN, means))
        if gap is None or math.isinf(gap.low):
            return
        holds.append(gap.estimate >= 0.02 and gap.low > 0)
    if holds:
        yield share_row("corruptions", pd.Series(holds, dtype=float), found["model"].nunique())


@judged_from("cue-conflict")
def tu1(recorded: Recorded) -> Iterator[dict]:
    """The errors of ViTs are nearer to those of humans.

    The interval is over images and people, from the models' standard errors: as if those of one
    kind varied together and the two kinds apart, which is wider than for the same images it is.
    """
    found = _changed(recorded, "error_consistency", "conflict", "cue-conflict")
    if not len(found):
        return
    found = found.set_index("model")
    each = [[recorded.seeds(kind, found[of]) for kind in (VIT, CNN)] for of in ("value", "se")]
    if all(each[0]):
        (vit, cnn), errors = ([sum(x) / len(x) for x in kinds] for kinds in each)
        gap, half = vit - cnn, SURE * math.hypot(*errors)
        models = sum(map(len, each[0]))
        yield row("consistency", Estimate(gap, gap - half, gap + half, math.nan, models))


@judged_from("cue-conflict")
def tu2(recorded: Recorded) -> Iterator[dict]:
    """The shape bias of ViTs is nearer to that of humans."""
    bias, decided = (
        recorded.numbers("cue-conflict", quantity).set_index("model")["value"]
        for quantity in ("shape_bias", "decided")
    )
    gap = difference(recorded.seeds(VIT, bias), recorded.seeds(CNN, bias))
    yield from known_rows(
        ("bias", gap, "main"),
        ("decided", recorded.mean(VIT, decided), "ViT"),
        ("decided", recorded.mean(CNN, decided), "CNN"),
    )


@judged_from("behaviour", groups=(*VITS, *CNNS, *ALTERED))
def pe(recorded: Recorded) -> Iterator[dict]:
    """CNNs live on local order, and ViTs bear the permutation of patches."""
    found = _changed(recorded, "kept_above_chance", "permutation")
    if not len(found):
        return
    smaller = found["level"] < (16 if recorded.rung == "imagenet" else 4)  # pixels of a token
    for blocks, rows in (("not smaller", found[~smaller]), ("smaller", found[smaller])):
        means = rows.groupby("model")["value"].mean()
        cnn = recorded.seeds(CNN, means)
        for variant, vit in (
            ("with position embedding", VIT),
            ("without position embedding", f"{VIT}-nopos"),
        ):
            gap = difference(recorded.seeds(vit, means), cnn)
            yield from known_rows((f"{blocks} tokens", gap, variant))


@judged_from("behaviour")
def ti(recorded: Recorded) -> Iterator[dict]:
    """CNNs are invariant to translation."""
    found = _changed(recorded, "consistency", "shift")
    means = found.groupby("model")["value"].mean()
    gap = difference(recorded.seeds(CNN, means), recorded.seeds(VIT, means))
    yield from known_rows(("consistency", gap, "main"))


CLAIMS = (ba1, ba2, tu1, tu2, pe, ti)
