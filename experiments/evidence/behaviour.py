"""The evidence on the claims about what two kinds of network decide; one function for each."""

import math
from collections.abc import Iterable, Iterator, Mapping
from statistics import fmean

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from experiments.catalogue import ALTERED
from experiments.evidence import claims, rules
from experiments.evidence.recorded import (
    CNN,
    CNNS,
    VIT,
    VITS,
    Recorded,
    difference,
    judged_from,
    known_rows,
    row,
)
from utils.measures.statistics import Estimate, mean_over

PAIRED = (*VITS, *CNNS, "matched")


def pairs(accuracy: Mapping[str, float], vits: Iterable[str], cnns: Iterable[str]) -> list[tuple]:
    """(ViT, CNN) of nearly equal accuracy, each network in one pair at most: as many pairs as there
    can be, and of these the nearest."""
    vits, cnns = ([name for name in names if name in accuracy] for names in (vits, cnns))
    if not (vits and cnns):
        return []
    gap = np.abs(np.subtract.outer(*([accuracy[n] for n in names] for names in (vits, cnns))))
    near = gap <= claims.EQUAL + 1e-9
    chosen = linear_sum_assignment(np.where(near, gap, 1e6))
    return [(vits[i], cnns[j]) for i, j in zip(*chosen, strict=True) if near[i, j]]


def _clean(recorded: Recorded) -> pd.Series:
    """The accuracy of each model on enough images."""
    found = recorded.numbers("accuracy", "accuracy")
    found = found[found["n"] >= claims.IMAGES] if "n" in found else found
    return found.drop_duplicates("model").set_index("model")["value"]


def pairs_of(recorded: Recorded, having: Iterable[str], fewer: bool = True) -> list[tuple]:
    """Pairs of the sweeps' networks; fewer : and of CNNs that fewer images make as accurate."""
    clean, having = _clean(recorded), set(having)
    clean = clean[clean.index.isin(having)]
    vits, cnns = recorded.kinds(clean.index)
    if fewer and recorded.rung != "imagenet":
        cnns += recorded.models(clean.index, "matched")
    return pairs(clean.to_dict(), vits, cnns)


def on_enough(recorded: Recorded, experiment: str, quantity: str) -> pd.DataFrame:
    """The rows of a quantity that are of enough images."""
    found = recorded.numbers(experiment, quantity)
    return found[found["n"] >= claims.IMAGES] if "n" in found else found


def paired(found: pd.Series, chosen: list[tuple], sign: int = 1) -> Estimate | None:
    """ViT − CNN (sign −1: CNN − ViT) over pairs of networks."""
    return mean_over([sign * (found[v] - found[c]) for v, c in chosen]) if chosen else None


@judged_from("attack", "accuracy", groups=PAIRED)
def ba1(recorded: Recorded) -> Iterator[dict]:
    """Transformers have no adversarial advantage."""
    under, kept = (on_enough(recorded, "attack", name) for name in ("accuracy", "kept"))
    if not (len(under) and len(kept)):
        return
    under, kept = (
        each[each["kind"] == "pgd"].pivot(index="model", columns="level", values="value")
        for each in (under, kept)
    )
    gaps = []
    for vit, cnn in pairs_of(recorded, set(under.index) & set(kept.index)):
        epsilon = (kept.loc[cnn] - 0.5).abs().idxmin()
        gaps.append(100 * (under.loc[vit, epsilon] - under.loc[cnn, epsilon]))
    if gaps:
        yield row("attack", mean_over(gaps))


@judged_from("behaviour", "accuracy", groups=PAIRED)
def ba2(recorded: Recorded) -> Iterator[dict]:
    """Transformers have an advantage out of distribution."""
    found = on_enough(recorded, "behaviour", "kept")
    if not len(found):
        return
    found = found[~found["kind"].isin(("clean", "permutation", "shift"))]
    means = found.groupby(["model", "kind"])["value"].mean().unstack().dropna()  # over severities
    chosen = pairs_of(recorded, means.index)
    if not chosen:
        return
    rule = rules.Effect(+1, 0.02)
    outcomes = []
    for kind in means.columns:
        gap = paired(means[kind], chosen)
        outcomes.append(rule.judge(gap.estimate, gap.low, gap.high))
    shown = fmean(outcome == rules.SUPPORTED for outcome in outcomes)
    possible = fmean(outcome != rules.NOT_SUPPORTED for outcome in outcomes)
    yield row("corruptions", Estimate(shown, shown, possible, math.nan, len(chosen)))


@judged_from()
def tu1(recorded: Recorded) -> Iterator[dict]:
    """The errors of ViTs are nearer to those of humans: of one published pair there is no verdict
    (see `beside`)."""
    yield from ()


@judged_from("cue-conflict", "accuracy", groups=PAIRED)
def tu2(recorded: Recorded) -> Iterator[dict]:
    """The shape bias of ViTs is nearer to that of humans."""
    if recorded.rung == "imagenet":
        return
    bias, decided = (
        recorded.numbers("cue-conflict", quantity).set_index("model")["value"]
        for quantity in ("shape_bias", "decided")
    )
    chosen = pairs_of(recorded, bias.dropna().index)
    if not chosen:
        return
    yield row("bias", paired(bias, chosen))
    for variant, names in zip(("ViT", "CNN"), zip(*chosen, strict=True), strict=True):
        yield row("decided", mean_over([decided[name] for name in names]), variant)


@judged_from("behaviour", groups=(*VITS, *CNNS, *ALTERED))
def pe(recorded: Recorded) -> Iterator[dict]:
    """CNNs live on local order, and ViTs bear the permutation of patches."""
    found = recorded.numbers("behaviour", "kept_above_chance")
    if not len(found):
        return
    found = found[found["kind"] == "permutation"]
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


@judged_from("behaviour", "accuracy", groups=PAIRED)
def ti(recorded: Recorded) -> Iterator[dict]:
    """CNNs are invariant to translation."""
    found = on_enough(recorded, "behaviour", "consistency")
    if not len(found):
        return
    means = found[found["kind"] == "shift"].groupby("model")["value"].mean()
    gap = paired(means, pairs_of(recorded, means.index), sign=-1)
    yield from known_rows(("consistency", gap, "main"))


CLAIMS = (ba1, ba2, tu1, tu2, pe, ti)
