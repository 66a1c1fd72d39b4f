"""The evidence on the claims about what two kinds of network represent; one function for each.

Where one model stands for its kind, it is VIT or CNN, with all seeds that are recorded.
"""

import math
from collections.abc import Callable, Iterator
from statistics import fmean

import numpy as np
import pandas as pd

from experiments.catalogue import ALTERED
from experiments.evidence import claims
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
    share_of_networks,
)
from utils.measures.statistics import (
    Estimate,
    contrast,
    mean_over,
    slope_per_doubling,
    unequal,
)
from utils.models.architectures import Spec

MIXER = "mixer-d6"
SAMPLED = 6  # equally spaced blocks of a model
CLOSE = 1e-6  # depths are recorded with eight digits: 4/6 is a little more than 2/3 there


def between(recorded: Recorded, found: pd.Series) -> Estimate | None:
    """ViT − CNN over all networks of the sweeps, each kind with its own scatter."""
    vit, cnn = ([found[name] for name in names] for names in recorded.kinds(found.index))
    return unequal(vit, cnn) if vit and cnn else None


def _learned(trained: pd.Series, twins: pd.Series) -> pd.Series:
    """What each network has beyond the mean of its design's random twins, if these are enough.

    twins : by (model, weights)
    """

    def design(model: str) -> str:
        spec = Spec.parse(model)
        return model if spec is None else f"{spec.rung}/{spec.design}"

    each = twins.groupby(lambda key: design(key[0])).agg(["mean", "count"])
    known = each.loc[each["count"] >= claims.TWINS, "mean"]
    return (trained - trained.index.map(design).map(known.to_dict())).dropna()


def _by_twins(table: pd.DataFrame | None, quantity: str, of: Callable) -> tuple:
    """Trained, by model, and random, by (model, weights): what `of` makes of a network's rows."""
    if table is None:
        return pd.Series(dtype=float), pd.Series(dtype=float)
    table = table[table["quantity"] == quantity]
    keys = ["model", "weights"]
    found = {key: of(rows) for key, rows in table.groupby(keys, sort=False)}
    trained = {model: x for (model, weights), x in found.items() if weights == "trained"}
    random = {key: x for key, x in found.items() if key[1].startswith("random")}
    return tuple(pd.Series(each, dtype=float).dropna() for each in (trained, random))


@judged_from("similarity")
def ra1(recorded: Recorded) -> Iterator[dict]:
    """The layers of a ViT are more uniform than those of a CNN."""
    table = recorded.table("similarity")
    trained, twins = _by_twins(table, "cka", _off_diagonal)
    yield from known_rows(("uniformity", between(recorded, trained), "main"))
    if len(twins):
        learned = between(recorded, _learned(trained, twins))
        yield from known_rows(("learned", learned, "main"))


def _off_diagonal(found: pd.DataFrame) -> float:
    """Mean CKA of all pairs of equally spaced blocks."""
    matrix = found.pivot(index="layer", columns="other", values="value")
    order = found.drop_duplicates("layer").sort_values("depth")["layer"]
    chosen = np.unique(np.linspace(0, len(order) - 1, min(SAMPLED, len(order))).round().astype(int))
    values = matrix.loc[order, order].to_numpy()[np.ix_(chosen, chosen)]
    return float(values[~np.eye(len(values), dtype=bool)].mean())


@judged_from("similarity")
def ra2(recorded: Recorded) -> Iterator[dict]:
    """Early layers of a ViT mix local and global heads; on imagenet in any published ViT."""
    for criterion, values in _reach(recorded.numbers("similarity", "relative_distance")):
        published = recorded.rung == "imagenet"
        found = mean_over(values) if published else recorded.mean(VIT, values)
        yield from known_rows((criterion, found, "main"))


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


def _fall(rows: pd.DataFrame) -> float:
    """The fall without a skip, mean over its kinds, less that without the whole block."""
    block = rows["unit"] == "block"
    return rows.loc[~block, "value"].mean() - rows.loc[block, "value"].mean()


@judged_from("representation")
def ra3(recorded: Recorded) -> Iterator[dict]:
    """Skip connections carry features far, in ViTs above all."""
    trained, twins = _by_twins(recorded.table("representation"), "skip_fall", _fall)
    vit, _ = recorded.kinds(trained.index)
    if vit:
        yield row("skip", mean_over([trained[name] for name in vit]))
    yield from known_rows(("family", between(recorded, trained), "main"))
    if len(twins):
        learned = between(recorded, _learned(trained, twins))
        yield from known_rows(("learned", learned, "main"))


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
    """The size of the training set shapes late layers most: each seed is one case of its kind.

    A seed's fall is from its CKA with the other seeds of all data to that of its namesake of 10 %
    with the same others, by thirds of the depth.
    """
    found = recorded.numbers("pairs", "matched_cka")
    if not len(found):
        return
    means = _by_thirds(found)
    if not {"early", "late"} <= set(means.columns):
        return
    change = means["late"] - means["early"]
    falls: dict[str, list[float]] = {}
    for kind in (VIT, CNN):
        seeds = ["", *(f"-s{i}" for i in range(1, 10))]
        part, whole = (
            {seed: recorded.name(f"{kind}{end}{seed}") for seed in seeds} for end in ("-n10", "")
        )
        for seed in seeds:
            pairs = [
                (change.get((part[seed], whole[other])), _either(change, whole[seed], whole[other]))
                for other in seeds
                if other != seed
            ]
            known = [b - a for a, b in pairs if a is not None and b is not None]
            known = [value for value in known if not math.isnan(value)]
            if known:
                falls.setdefault(kind, []).append(fmean(known))
    if len(falls) < 2:
        return
    conditions = [kind for kind, each in falls.items() for _ in each]
    numbers = [value for each in falls.values() for value in each]
    weights = {kind: 1 / len(falls) for kind in falls}
    try:
        yield row("late", contrast(numbers, conditions, weights))
    except ValueError:  # one seed of each
        yield row("late", Estimate(fmean(numbers), -math.inf, math.inf, math.nan, len(numbers)))


def _either(found: pd.Series, one: str, other: str) -> float | None:
    """The number of a pair, whichever of them comes first."""
    return found.get((one, other), found.get((other, one)))


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
    """The receptive fields of ViTs are global early: numbers without an interval."""

    def early(rows: pd.DataFrame) -> float:
        return rows.loc[rows["depth"] <= 1 / 3 + CLOSE, "value"].mean()

    trained, twins = _by_twins(recorded.table("representation"), "field_radius", early)
    twins = twins.groupby(level=0).mean() if len(twins) else twins
    learned = (trained - twins).dropna()
    each = {}
    for name, found in (("trained", trained), ("learned", learned)):
        each[name] = [recorded.seeds(kind, found) for kind in (VIT, CNN)]
    vit, cnn = each["trained"]
    if vit:
        yield row("radius", _counted(fmean(vit), len(vit)))
    for criterion, name in (("family", "trained"), ("learned", "learned")):
        vit, cnn = each[name]
        if vit and cnn:
            yield row(criterion, _counted(fmean(vit) - fmean(cnn), len(vit) + len(cnn)))


def _counted(value: float, models: int) -> Estimate:
    return Estimate(value, math.nan, math.nan, math.nan, models)


@judged_from("representation")
def pk(recorded: Recorded) -> Iterator[dict]:
    """Attention is a low-pass filter, convolution a high-pass filter."""
    found = recorded.numbers("representation", "frequency")
    if not len(found):
        return
    sweeps = {*recorded.models(found["model"], *VITS), *recorded.models(found["model"], *CNNS)}
    found = found[found["model"].isin(sweeps)].set_index("model")
    change, error = found["value"], SURE * found["se"]
    for kind, passes in (("attention", change + error < 0), ("convolution", change - error > 0)):
        if (chosen := found["unit"] == kind).any():
            yield share_of_networks(kind, passes[chosen])


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
