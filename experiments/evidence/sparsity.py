"""The evidence on the claims about sparsity, hu1 to hu10; each function answers for one of them."""

from collections.abc import Iterator
from contextlib import suppress

import pandas as pd

from experiments.evidence.recorded import (
    CNN,
    CNNS,
    HALF,
    LOST,
    SURE,
    VIT,
    VITS,
    Recorded,
    judged_from,
    known_rows,
    row,
    share_of_networks,
)
from experiments.evidence.trends import HELD
from experiments.training.recipes import VIEWS, recipe_of
from utils.measures.statistics import (
    Estimate,
    mean_over,
    rank_correlation,
    slope_per_doubling,
)
from utils.models.architectures import Spec

ATTENTION = dict(unit="attention", scope="all", replaced_by="renormalise")
IN_GROUPS = dict(unit="group", replaced_by="mean")
DATA = (3, 10, 30, 100)  # per cent of the training images


def _layers(table: pd.DataFrame, quantity: str, models: set[str], unit: str) -> pd.DataFrame:
    """Rows model and layer, of those recorded with both kinds of weights; columns value and se,
    trained and random, means over heads."""
    chosen = table[(table["quantity"] == quantity) & table["model"].isin(models)]
    chosen = chosen[chosen["unit"] == unit]
    means = chosen.groupby(["model", "layer", "weights"])[["value", "se"]].mean()
    both = pd.MultiIndex.from_product([["value", "se"], ["trained", "random"]])
    return means.unstack("weights").reindex(columns=both).dropna()


def _beside_random(found: pd.DataFrame, above: float, by: float) -> pd.Series:
    """Whether a value is above a bound, and above that of random weights, by the lower bounds."""
    value, error = found["value"], found["se"]
    difference = value["trained"] - value["random"]
    spread = (error["trained"] ** 2 + error["random"] ** 2) ** 0.5
    return (value["trained"] - SURE * error["trained"] > above) & (difference - SURE * spread >= by)


def readings(unit: str) -> dict[str, str]:
    """The two readings of a trend, criterion → measure. With one patch of each head a network may
    keep more than half of its function, so that f₅₀⁺ would be at its floor."""
    enough = {LOST: LOST} if unit == "attention" else {HALF: f"{HALF}, probability"}
    return {"N": "N, probability", **enough}


def _readings(recorded: Recorded, group: str, **chosen: str) -> Iterator[dict]:
    for criterion, measure in readings(chosen["unit"]).items():
        found = recorded.trend(recorded.values(), group, measure=measure, **chosen)
        yield from known_rows((criterion, found, "main"))


@judged_from("sparseness", groups=VITS)
def hu1(recorded: Recorded) -> Iterator[dict]:
    """Attention is sparse."""
    table = recorded.table("sparseness")
    if table is None:
        return
    vits = set(recorded.models(table["model"], *VITS))
    found = _layers(_one_twin(table), "gini", vits, "class")
    if len(found):
        yield share_of_networks("layers", _beside_random(found, 0.5, 0.1))
    found = table[(table["quantity"] == "gini_beyond_gaussian") & (table["unit"] == "class")]
    found = found[(found["weights"] == "trained") & found["model"].isin(vits)]
    if len(found):
        means = found.groupby(["model", "layer"])[["value", "se"]].mean()
        yield share_of_networks("beyond", means["value"] - SURE * means["se"] > 0)


def _one_twin(table: pd.DataFrame) -> pd.DataFrame:
    """With the mean of all random twins in the place of each."""
    twin = table["weights"].str.startswith("random")
    return table.assign(weights=table["weights"].where(~twin, "random"))


@judged_from("representation", groups=VITS)
def hu2(recorded: Recorded) -> Iterator[dict]:
    """Heads agree with one another, and so do neighbouring layers."""
    for criterion, quantity, kind, variant, bound in (
        ("heads", "head_agreement", "centred", "main", 0.3),
        ("layers", "neighbour_agreement", "centred", "main", 0.3),
        ("distance", "neighbour_advantage", "centred", "main", 0.0),
        ("raw", "head_agreement", "raw", "heads", 0.3),
        ("raw", "neighbour_agreement", "raw", "layers", 0.3),
    ):
        found = recorded.numbers("representation", quantity)
        if not len(found):
            continue
        found = found[found["layer"].isna() & (found["unit"] == kind)]
        found = found[found["model"].isin(recorded.models(found["model"], *VITS))]
        if len(found):
            yield row(criterion, mean_over(found["value"], against=bound), variant)


def of_attention(recorded: Recorded, order: str = "own", **chosen: str) -> pd.DataFrame:
    """What is recorded of ablated attention in the ViTs of the sweeps, by the primary settings."""
    found = recorded.values(order=order)
    for column, wanted in {**ATTENTION, "weights": "trained", **chosen}.items():
        found = found[found[column] == wanted]
    return found[found["model"].isin(recorded.models(found["model"], *VITS))]


def mean_of(found: pd.DataFrame) -> Estimate | None:
    return mean_over(found["value"]) if found["value"].notna().any() else None


@judged_from("ablation-heads-all", "ablation-depth-all", groups=VITS)
def hu3(recorded: Recorded) -> Iterator[dict]:
    """The units with the largest responses matter more than random ones."""
    for criterion, measure in (("necessity", "N, probability"), ("place", "place")):
        found = mean_of(of_attention(recorded, measure=measure))
        yield from known_rows((criterion, found, "main"))


@judged_from("ablation-depth-all", groups=("depth",))
def hu4(recorded: Recorded) -> Iterator[dict]:
    """Deeper ViTs are sparser."""
    yield from _readings(recorded, "depth", **ATTENTION)


@judged_from("ablation-cnn", groups=CNNS)
def hu5(recorded: Recorded) -> Iterator[dict]:
    """Deeper CNNs are sparser."""
    yield from _readings(recorded, "cnn-depth", scope="single layers", **IN_GROUPS)


@judged_from("ablation-heads-all", groups=("decoupled",))
def hu6(recorded: Recorded) -> Iterator[dict]:
    """Too many heads make a ViT less sparse."""
    yield from _readings(recorded, "decoupled", **ATTENTION)


@judged_from("sparseness", "ablation-heads-all", groups=("decoupled",))
def hu7(recorded: Recorded) -> Iterator[dict]:
    """More heads are less sparse because the effects of units overlap; one sample for all parts.

    A network with a single head has no overlap of heads and is in none of them.
    """
    measures = {"placement overlap O": "", "N, probability": ATTENTION["replaced_by"]}
    measures |= dict.fromkeys(("I_rem", "I_keep"), ATTENTION["replaced_by"])
    if recorded.rung == "imagenet":  # where no models differ in one thing at a time
        return
    found = recorded.values()
    found = found[found["model"].isin(recorded.models(found["model"], "decoupled"))]
    found = found[(found["weights"] == "trained") & (found["scope"] == "all")]
    found = found[found["unit"].isin(("attention", "class"))]
    found = found[found["replaced_by"].fillna("") == found["measure"].map(measures)]
    wide = found.pivot_table("value", "model", "measure")
    if not set(measures) <= set(wide.columns):
        return
    wide = wide.dropna()
    overlap, n = wide["placement overlap O"], wide["N, probability"]
    specs = [Spec.parse(name) for name in wide.index]
    heads = [spec.heads for spec in specs]
    held = [getattr(spec, HELD["decoupled"]) for spec in specs]
    with suppress(ValueError):  # too few networks, or too similar
        yield row("overlap", slope_per_doubling(heads, overlap, held=held))
    with suppress(ValueError):
        yield row("association", rank_correlation(overlap, n))
    if len(wide):
        yield row("removal", mean_over(wide["I_rem"]))
        yield row("keeping", mean_over(wide["I_keep"]))


@judged_from("sparseness", groups=CNNS)
def hu8(recorded: Recorded) -> Iterator[dict]:
    """The neurons of CNNs are sparse."""
    table = recorded.table("sparseness")
    if table is None:
        return
    table = _one_twin(table)
    cnns = set(recorded.models(table["model"], *CNNS))
    gini, active = (
        _layers(table, quantity, cnns, "position")
        for quantity in ("population_gini", "active_share")
    )
    if not len(gini):
        return
    # With a share z of dead units, G = z + (1 − z) G', and the active share is (1 − z) of that of
    # the others.
    dead = table[(table["quantity"] == "dead_share") & (table["unit"] == "position")]
    z = dead.groupby(["model", "layer", "weights"])["value"].mean().unstack("weights")
    z = z.reindex(gini.index)
    for found, from_dead in ((gini, z), (active, 0)):
        found["value"] = (found["value"] - from_dead) / (1 - z)
        found["se"] = found["se"] / (1 - z)
    few = active["value"]["trained"] + SURE * active["se"]["trained"] < 0.5
    yield share_of_networks("layers", _beside_random(gini, 0.5, 0.05) & few)


def pictures(name: str) -> float:
    """How many different pictures a network was trained on.

    A share is of the pictures of one epoch, seen again and again; all of the objects are new in
    every epoch.
    """
    spec = Spec.parse(name)
    share = VIEWS[spec.rung] * spec.data_percent / 100
    fresh = spec.rung == "objects" and spec.data_percent == 100
    return share * recipe_of(spec).epochs if fresh else share


@judged_from("accuracy", groups=("data", "pair"))
def hu10(recorded: Recorded) -> Iterator[dict]:
    """Transformers have less bias for vision: one point for each pair of equal seed and share."""
    found = recorded.numbers("accuracy", "accuracy").set_index("model")["value"]
    shares, seen, gaps = set(), [], []
    for n in DATA:
        ending = "" if n == max(DATA) else f"-n{n}"
        for seed in ("", *(f"-s{i}" for i in range(1, 10))):
            cnn, vit = (recorded.name(f"{name}{ending}{seed}") for name in (CNN, VIT))
            if {cnn, vit} <= set(found.index):
                shares.add(n)
                seen.append(pictures(vit))
                gaps.append(100 * (found[cnn] - found[vit]))
    if shares == set(DATA):
        yield row("gap", slope_per_doubling(seen, gaps))


CLAIMS = (hu1, hu2, hu3, hu4, hu5, hu6, hu7, hu8, hu10)
