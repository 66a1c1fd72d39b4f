"""The evidence on the claims about what two kinds of network represent; one function for each.

Where one model stands for its kind, it is VIT or CNN, with all seeds that are recorded.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from experiments.catalogue import ALTERED, IMAGENET
from experiments.evidence.recorded import (
    CNN,
    CNNS,
    EXACT,
    SURE,
    VIT,
    VITS,
    Recorded,
    difference,
    exact,
    judged_from,
    known_rows,
    row,
    share_row,
)
from utils.measures.statistics import mean_over, slope_per_doubling

MIXER = "mixer-d6"
SAMPLED = 6  # equally spaced blocks of a model
CLOSE = 1e-6  # depths are recorded with eight digits: 4/6 is a little more than 2/3 there


def _contrasts(recorded: Recorded, of, plus: str, minus: str) -> tuple:
    """The difference of two models, trained, and that less the same with random weights.

    of : "trained" or "random" → one number for every model
    """
    trained, random = of("trained"), of("random")
    learned = (trained - random).dropna()
    each = ((recorded.seeds(plus, x), recorded.seeds(minus, x)) for x in (trained, learned))
    return tuple(difference(*pair) for pair in each)


@judged_from("similarity")
def ra1(recorded: Recorded) -> Iterator[dict]:
    """The layers of a ViT are more uniform than those of a CNN."""

    def uniformity(weights: str) -> pd.Series:
        found = recorded.numbers("similarity", "cka", weights)
        return pd.Series(
            {m: _off_diagonal(rows) for m, rows in found.groupby("model")}, dtype=float
        )

    gap, learned = _contrasts(recorded, uniformity, VIT, CNN)
    yield from known_rows(("uniformity", gap, "main"), ("learned", learned, "main"))


def _off_diagonal(found: pd.DataFrame) -> float:
    """Mean CKA of all pairs of equally spaced blocks."""
    matrix = found.pivot(index="layer", columns="other", values="value")
    order = found.drop_duplicates("layer").sort_values("depth")["layer"]
    chosen = np.unique(np.linspace(0, len(order) - 1, min(SAMPLED, len(order))).round().astype(int))
    values = matrix.loc[order, order].to_numpy()[np.ix_(chosen, chosen)]
    return float(values[~np.eye(len(values), dtype=bool)].mean())


@judged_from("similarity")
def ra2(recorded: Recorded) -> Iterator[dict]:
    """Early layers of a ViT mix local and global heads."""
    for criterion, values in _reach(recorded.numbers("similarity", "relative_distance")):
        yield from known_rows((criterion, recorded.mean(VIT, values), "main"))


def _reach(found: pd.DataFrame) -> Iterator[tuple[str, pd.Series]]:
    """What the criteria ask of each model's heads, in the first and the last quarter of its blocks
    (one block or more); nothing if there are no rows."""
    if not len(found):
        return
    blocks = found.groupby("model")["layer"].transform("nunique")
    quarter = (blocks / 4).round().clip(lower=1)
    place = (found["depth"] * blocks).round()  # 1, 2, …
    early = found[place <= quarter].groupby("model")["value"]
    late = found[place > blocks - quarter].groupby("model")["value"]
    yield "range", early.max() - early.min()
    yield "local", early.min()
    yield "global", early.max()
    yield "late", late.min() - early.min()


@judged_from("representation")
def ra3(recorded: Recorded) -> Iterator[dict]:
    """Skip connections carry features far, in ViTs above all."""
    found = recorded.numbers("representation", "skip_fall")
    if not len(found):
        return
    block = found[found["unit"] == "block"].set_index("model")["value"]
    skips = found[found["unit"] != "block"].groupby("model")["value"].mean()
    falls = (skips - block).dropna()
    gap = difference(recorded.seeds(VIT, falls), recorded.seeds(CNN, falls))
    yield from known_rows(("skip", recorded.mean(VIT, falls), "main"), ("family", gap, "main"))


@judged_from("representation", groups=(*VITS, *CNNS, *ALTERED))
def ra4(recorded: Recorded) -> Iterator[dict]:
    """ViTs keep location, and pooling loses it."""
    found = recorded.numbers("representation", "location")
    if not len(found):
        return
    found = found[found["unit"] == "interior"].set_index("model")["value"]
    vit = recorded.seeds(VIT, found)
    for criterion, other in (("pooling", f"{VIT}-gap"), ("family", CNN)):
        yield from known_rows((criterion, difference(vit, recorded.seeds(other, found)), "main"))


@judged_from("pairs", groups=(*VITS, *CNNS, "data"))
def ra5(recorded: Recorded) -> Iterator[dict]:
    """The size of the training set shapes late layers most."""
    found = recorded.numbers("pairs", "matched_cka")
    if not len(found):
        return
    means = _by_thirds(found)
    falls = []
    for model in (VIT, CNN):
        pairs = means.index.to_frame(index=False)
        part = means[(pairs["model"] == f"{model}-n10").to_numpy()].mean()
        whole = means[(pairs["model"] == model).to_numpy()]
        whole = whole[whole.index.get_level_values("beside").str.startswith(f"{model}-s")].mean()
        fall = whole - part
        if not fall[["early", "late"]].isna().any():
            falls.append(fall["late"] - fall["early"])
    if falls:
        yield row("late", mean_over(falls))


def _by_thirds(found: pd.DataFrame) -> pd.DataFrame:
    """Means over the layers of each third of the depth; rows model and beside."""
    ends = [0, 1 / 3 + CLOSE, 2 / 3 + CLOSE, 1]
    thirds = pd.cut(found["depth"], ends, labels=["early", "middle", "late"])
    return found.groupby(["model", "beside", thirds], observed=True)["value"].mean().unstack()


@judged_from("pairs", groups=(*VITS, *CNNS, "variants"))
def ra6(recorded: Recorded) -> Iterator[dict]:
    """MLP-Mixer is nearer to ViT than to ResNet."""
    found = recorded.numbers("pairs", "matched_cka")
    if not len(found):
        return
    means = found[found["model"].str.startswith(MIXER)].groupby("beside")["value"].mean()
    gap = difference(recorded.seeds(VIT, means), recorded.seeds(CNN, means), fewest=3)
    yield from known_rows(("nearness", gap, "main"))


@judged_from("representation")
def ra7(recorded: Recorded) -> Iterator[dict]:
    """The receptive fields of ViTs are global early."""

    def radius(weights: str) -> pd.Series:
        found = recorded.numbers("representation", "field_radius", weights)
        if not len(found):
            return pd.Series(dtype=float)
        return found[found["depth"] <= 1 / 3 + CLOSE].groupby("model")["value"].mean()

    gap, learned = _contrasts(recorded, radius, VIT, CNN)
    own = recorded.mean(VIT, radius("trained"))
    yield from known_rows(
        ("radius", own, "main"), ("family", gap, "main"), ("learned", learned, "main")
    )


@judged_from("representation")
def pk(recorded: Recorded) -> Iterator[dict]:
    """Attention is a low-pass filter, convolution a high-pass filter."""
    found = recorded.numbers("representation", "frequency")
    if not len(found):
        return
    change, error = found["value"], SURE * found["se"]
    models = recorded.members("heads", "depth", "cnn-depth") | set(IMAGENET)
    for kind, passes in (("attention", change + error < 0), ("convolution", change - error > 0)):
        chosen = (found["unit"] == kind) & found["model"].isin(models)
        if chosen.any():
            yield share_row(kind, passes[chosen], found.loc[chosen, "model"].nunique())


@judged_from("convolution", groups=())
def co(recorded: Recorded) -> Iterator[dict]:
    """Attention can be a convolution."""
    table = recorded.table("convolution") if recorded.rung == EXACT else None
    if table is None:
        return
    nine, eight = (table[table["heads"] == heads] for heads in (9, 8))
    sharpest = nine[nine["sharpness"] == nine["sharpness"].max()].set_index("place")["value"]
    for place in ("interior", "border"):
        yield row("error", exact(sharpest[place], 0), place)
    errors = nine.groupby("sharpness")["value"].max()
    # With each unit of the sharpness, 2 to the power of it doubles.
    yield row("sharpness", slope_per_doubling(2**errors.index, np.log(errors)))
    yield row("eight heads", exact(eight.groupby("sharpness")["value"].max().min(), 0))


CLAIMS = (ra1, ra2, ra3, ra4, ra5, ra6, ra7, pk, co)
