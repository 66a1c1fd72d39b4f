"""The evidence on the claims about two kinds of network; each function answers for one of them.

Where one model stands for its kind, it is VIT or CNN, with all seeds that are recorded.
"""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from utils.experiments.recorded import EXACT, SURE, Recorded, difference, exact, row, share_row
from utils.measures.statistics import Estimate, mean_over, slope_per_doubling

VIT, CNN, MIXER = "vit-d6-h4", "resnet-d20", "mixer-d6"
SAMPLED = 6  # equally spaced blocks of a model
TOKEN = 4  # pixels, on the rungs with our own models


def _rows(*found: tuple[str, Estimate | None, str]) -> Iterator[dict]:
    for criterion, estimate, variant in found:
        if estimate is not None:
            yield row(criterion, estimate, variant)


def _mean(recorded: Recorded, name: str, found: pd.Series) -> Estimate | None:
    values = recorded.seeds(name, found)
    return mean_over(values) if values else None


def _contrasts(recorded: Recorded, of, plus: str, minus: str) -> tuple:
    """The difference of two models, trained, and that less the same with random weights.

    of : "trained" or "random" → one number for every model
    """
    trained, random = of("trained"), of("random")
    learned = (trained - random).dropna()
    each = ((recorded.seeds(plus, x), recorded.seeds(minus, x)) for x in (trained, learned))
    return tuple(difference(*pair) for pair in each)


def ra1(recorded: Recorded) -> Iterator[dict]:
    """The layers of a ViT are more uniform than those of a CNN."""

    def uniformity(weights: str) -> pd.Series:
        found = recorded.numbers("similarity", "cka", weights)
        return pd.Series(
            {m: _off_diagonal(rows) for m, rows in found.groupby("model")}, dtype=float
        )

    gap, learned = _contrasts(recorded, uniformity, VIT, CNN)
    yield from _rows(("uniformity", gap, "main"), ("learned", learned, "main"))


def _off_diagonal(found: pd.DataFrame) -> float:
    """Mean CKA of all pairs of equally spaced blocks."""
    matrix = found.pivot(index="layer", columns="other", values="value")
    order = found.drop_duplicates("layer").sort_values("depth")["layer"]
    chosen = np.unique(np.linspace(0, len(order) - 1, min(SAMPLED, len(order))).round().astype(int))
    values = matrix.loc[order, order].to_numpy()[np.ix_(chosen, chosen)]
    return float(values[~np.eye(len(values), dtype=bool)].mean())


def ra2(recorded: Recorded) -> Iterator[dict]:
    """Early layers of a ViT mix local and global heads."""
    found = recorded.numbers("similarity", "relative_distance")
    if not len(found):
        return
    blocks = found.groupby("model")["layer"].transform("nunique")
    quarter = (blocks / 4).round().clip(lower=1) / blocks  # of the depth, a block at least
    early = found[found["depth"] <= quarter + 1e-9].groupby("model")["value"]
    late = found[found["depth"] > 1 - quarter + 1e-9].groupby("model")["value"]
    for criterion, values in (
        ("range", early.max() - early.min()),
        ("local", early.min()),
        ("global", early.max()),
        ("late", late.min() - early.min()),
    ):
        yield from _rows((criterion, _mean(recorded, VIT, values), "main"))


def ra3(recorded: Recorded) -> Iterator[dict]:
    """Skip connections carry features far, in ViTs above all."""
    found = recorded.numbers("representation", "skip_fall")
    if not len(found):
        return
    block = found[found["unit"] == "block"].set_index("model")["value"]
    skips = found[found["unit"] != "block"].groupby("model")["value"].mean()
    falls = (skips - block).dropna()
    gap = difference(recorded.seeds(VIT, falls), recorded.seeds(CNN, falls))
    yield from _rows(("skip", _mean(recorded, VIT, falls), "main"), ("family", gap, "main"))


def ra4(recorded: Recorded) -> Iterator[dict]:
    """ViTs keep location, and pooling loses it."""
    found = recorded.numbers("representation", "location")
    if not len(found):
        return
    found = found[found["unit"] == "interior"].set_index("model")["value"]
    vit = recorded.seeds(VIT, found)
    for criterion, other in (("pooling", f"{VIT}-gap"), ("family", CNN)):
        yield from _rows((criterion, difference(vit, recorded.seeds(other, found)), "main"))


def ra5(recorded: Recorded) -> Iterator[dict]:
    """The size of the training set shapes late layers most."""
    found = recorded.numbers("pairs", "matched_cka")
    if not len(found):
        return
    thirds = pd.cut(found["depth"], [0, 1 / 3, 2 / 3, 1], labels=["early", "middle", "late"])
    means = found.groupby(["model", "beside", thirds], observed=True)["value"].mean().unstack()
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


def ra6(recorded: Recorded) -> Iterator[dict]:
    """MLP-Mixer is nearer to ViT than to ResNet."""
    found = recorded.numbers("pairs", "matched_cka")
    if not len(found):
        return
    means = found[found["model"] == MIXER].groupby("beside")["value"].mean()
    gap = difference(recorded.seeds(VIT, means), recorded.seeds(CNN, means), fewest=3)
    yield from _rows(("nearness", gap, "main"))


def ra7(recorded: Recorded) -> Iterator[dict]:
    """The receptive fields of ViTs are global early."""

    def radius(weights: str) -> pd.Series:
        found = recorded.numbers("representation", "field_radius", weights)
        if not len(found):
            return pd.Series(dtype=float)
        return found[found["depth"] <= 1 / 3 + 1e-9].groupby("model")["value"].mean()

    gap, learned = _contrasts(recorded, radius, VIT, CNN)
    own = _mean(recorded, VIT, radius("trained"))
    yield from _rows(("radius", own, "main"), ("family", gap, "main"), ("learned", learned, "main"))


def pk(recorded: Recorded) -> Iterator[dict]:
    """Attention is a low-pass filter, convolution a high-pass filter."""
    found = recorded.numbers("representation", "frequency")
    if not len(found):
        return
    change, error = found["value"], SURE * found["se"]
    for kind, passes in (("attention", change + error < 0), ("convolution", change - error > 0)):
        chosen = (found["unit"] == kind) & found["model"].isin(
            recorded.members("heads", "depth", "cnn-depth")
        )
        if chosen.any():
            yield share_row(kind, passes[chosen], found.loc[chosen, "model"].nunique())


def _changed(
    recorded: Recorded, quantity: str, kind: str | None = None, experiment: str = "behaviour"
) -> pd.DataFrame:
    found = recorded.numbers(experiment, quantity)
    return found[found["kind"] == kind] if kind and len(found) else found


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


def tu2(recorded: Recorded) -> Iterator[dict]:
    """The shape bias of ViTs is nearer to that of humans."""
    bias, decided = (
        recorded.numbers("cue-conflict", quantity).set_index("model")["value"]
        for quantity in ("shape_bias", "decided")
    )
    gap = difference(recorded.seeds(VIT, bias), recorded.seeds(CNN, bias))
    yield from _rows(
        ("bias", gap, "main"),
        ("decided", _mean(recorded, VIT, decided), "ViT"),
        ("decided", _mean(recorded, CNN, decided), "CNN"),
    )


def pe(recorded: Recorded) -> Iterator[dict]:
    """CNNs live on local order, and ViTs bear the permutation of patches."""
    found = _changed(recorded, "kept_above_chance", "permutation")
    if not len(found):
        return
    smaller = found["level"] < TOKEN
    for blocks, rows in (("not smaller", found[~smaller]), ("smaller", found[smaller])):
        means = rows.groupby("model")["value"].mean()
        cnn = recorded.seeds(CNN, means)
        for variant, vit in (
            ("with position embedding", VIT),
            ("without position embedding", f"{VIT}-nopos"),
        ):
            gap = difference(recorded.seeds(vit, means), cnn)
            yield from _rows((f"{blocks} tokens", gap, variant))


def ti(recorded: Recorded) -> Iterator[dict]:
    """CNNs are invariant to translation."""
    found = _changed(recorded, "consistency", "shift")
    means = found.groupby("model")["value"].mean()
    gap = difference(recorded.seeds(CNN, means), recorded.seeds(VIT, means))
    yield from _rows(("consistency", gap, "main"))


CLAIMS = (ra1, ra2, ra3, ra4, ra5, ra6, ra7, pk, co, ba1, ba2, tu2, pe, ti)
