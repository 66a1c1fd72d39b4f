"""The evidence on the claims about sparsity, hu1 to hu10; each function answers for one of them."""

from collections.abc import Iterator
from dataclasses import replace

import pandas as pd

from experiments.catalogue import PINNED_CNNS, PINNED_VITS
from experiments.evidence.recorded import CNNS, SURE, VITS, Recorded, judged_from, row, share_row
from experiments.evidence.trends import FEW, HELD, SOME
from utils.measures.statistics import Estimate, mean_over, slope_per_doubling, slope_shrinkage
from utils.models.architectures import Spec

SCOPES = {"all": "all layers", "2/3": "block at two thirds"}
PLACES = dict(scope=tuple(SCOPES), replaced_by=("", "zero"), weights=("trained",))


def _layers(table: pd.DataFrame, quantity: str, models: set[str], unit: str) -> pd.DataFrame:
    """Rows model and layer; columns value and se, trained and random, means over heads."""
    chosen = table[(table["quantity"] == quantity) & table["model"].isin(models)]
    chosen = chosen[chosen["unit"] == unit]
    means = chosen.groupby(["model", "layer", "weights"])[["value", "se"]].mean()
    return means.unstack("weights").dropna()


def _beside_random(found: pd.DataFrame, above: float, by: float) -> pd.Series:
    """Whether a value is above a bound, and above that of random weights, by the lower bounds."""
    value, error = found["value"], found["se"]
    difference = value["trained"] - value["random"]
    spread = (error["trained"] ** 2 + error["random"] ** 2) ** 0.5
    return (value["trained"] - SURE * error["trained"] > above) & (difference - SURE * spread >= by)


@judged_from("sparseness", groups=VITS)
def hu1(recorded: Recorded) -> Iterator[dict]:
    """Attention is sparse."""
    table = recorded.table("sparseness")
    if table is None:
        return
    vits = recorded.members("heads", "depth") | set(PINNED_VITS)
    found = _layers(table, "gini", vits, "class")
    models = found.index.get_level_values("model").nunique()
    if models:
        yield share_row("layers", _beside_random(found, 0.5, 0.1), models)


@judged_from("representation", groups=VITS)
def hu2(recorded: Recorded) -> Iterator[dict]:
    """Heads agree with one another, and so do neighbouring layers."""
    vits = recorded.members("heads", "depth") | set(PINNED_VITS)

    def over_models(quantity: str, kind: str) -> Estimate | None:
        found = recorded.numbers("representation", quantity)
        found = found[found["model"].isin(vits)] if len(found) else found
        if len(found):
            found = found[found["layer"].isna() & (found["unit"] == kind)]
        return mean_over(found["value"]) if len(found) else None

    for criterion, quantity, kind, variant in (
        ("heads", "head_agreement", "centred", "main"),
        ("layers", "neighbour_agreement", "centred", "main"),
        ("distance", "neighbour_advantage", "centred", "main"),
        ("raw", "head_agreement", "raw", "heads"),
        ("raw", "neighbour_agreement", "raw", "layers"),
    ):
        mean = over_models(quantity, kind)
        if mean is not None:
            yield row(criterion, mean, variant)


@judged_from("ablation-heads-all", "ablation-depth-all", groups=VITS)
def hu3(recorded: Recorded) -> Iterator[dict]:
    """The units with the largest responses matter more than random ones."""
    vits = recorded.members("heads", "depth") | set(PINNED_VITS)
    found = recorded.values()
    found = found[found["model"].isin(vits) & (found["scope"] == "all")]
    found = found[(found["weights"] == "trained") & (found["unit"] == "attention")]
    found = found.set_index(["measure", "replaced_by"]).sort_index()["value"]
    for criterion, measure, value, variant in (
        ("necessity", "N", "zero", "zero"),
        ("necessity", "N", "renormalise", "renormalise"),
        ("place", "N_place", "zero", "main"),
        ("plain", "N", "zero", "main"),
    ):
        if (measure, value) in found.index:
            yield row(criterion, mean_over(found.loc[[(measure, value)]]), variant)


def _slope(found: pd.DataFrame, **chosen) -> Estimate | None:
    """The slope over a group; None while one of its designs has no recorded model."""
    for column, wanted in {"range": FEW, "weights": "trained", **chosen}.items():
        found = found[found[column] == wanted]
    if len(found) != 1 or found.iloc[0]["missing"]:
        return None
    row = found.iloc[0]
    return Estimate(row["slope"], row["low"], row["high"], row["p"], row["models"])


def _matched(recorded: Recorded, group: str, units: dict[str, str]) -> Iterator[dict]:
    for at, loss in (("equal epochs", None), ("equal loss", recorded.equal_loss(group))):
        if at == "equal loss" and loss is None:
            continue
        found = recorded.trends(group, loss, measure=("N", "K"), unit=tuple(units), **PLACES)
        for measure in ("N", "K"):
            for scope, name in SCOPES.items():
                for unit, ending in units.items():
                    chosen = dict(measure=measure, scope=scope, unit=unit, replaced_by="zero")
                    slope = _slope(found, **chosen)
                    if slope is not None:
                        yield row("trend", slope, f"{measure}, {name}, {at}{ending}")


@judged_from("ablation-depth", "ablation-depth-all", groups=("depth",))
def hu4(recorded: Recorded) -> Iterator[dict]:
    """Deeper ViTs are sparser."""
    yield from _matched(recorded, "depth", {"attention": ""})


@judged_from("ablation-cnn", "ablation-cnn-all", groups=CNNS)
def hu5(recorded: Recorded) -> Iterator[dict]:
    """Deeper CNNs are sparser."""
    units = {"position": ", positions", "unit": ", ReLU units"}
    yield from _matched(recorded, "cnn-depth", units)


@judged_from("sparseness", "ablation-heads", "ablation-heads-all", groups=("decoupled", "heads"))
def hu6(recorded: Recorded) -> Iterator[dict]:
    """Too many heads make a ViT less sparse."""
    found = recorded.trends("decoupled", measure=("N", "K", "Gini, per head"), **PLACES)
    for heads in (FEW, SOME):
        for measure in ("N", "K"):
            for scope, name in SCOPES.items():
                chosen = dict(measure=measure, unit="attention", scope=scope, replaced_by="zero")
                slope = _slope(found, **chosen, range=heads)
                if slope is not None:
                    yield row("decoupled", slope, f"{measure}, {name}, {heads}")
        slope = _slope(found, measure="Gini, per head", unit="class", scope="all", range=heads)
        if slope is not None:
            yield row("decoupled", slope, f"Gini, {heads}")
    chosen = dict(measure="N", unit="attention", scope="all", replaced_by="zero")
    slope = _slope(recorded.trends("heads", measure=("N",), **PLACES), **chosen)
    if slope is not None:
        yield row("fixed width", slope)


@judged_from("sparseness", "ablation-heads", "ablation-heads-all", groups=("decoupled",))
def hu7(recorded: Recorded) -> Iterator[dict]:
    """More heads are less sparse because the effects of units overlap."""
    chosen = dict(measure="placement overlap O", unit="class", scope="all")
    found = recorded.trends("decoupled", measure=("placement overlap O",), **PLACES)
    slope = _slope(found, **chosen)
    if slope is None:
        return
    yield row("overlap", slope)
    found = recorded.values()
    found = found[found["model"].isin(recorded.members("decoupled")) & (found["scope"] == "all")]
    found = found[(found["weights"] == "trained") & found["replaced_by"].isin(("", "zero"))]
    found = found[found["unit"].isin(("attention", "class"))]
    wide = found.pivot_table("value", "model", "measure")
    if not {"N", "I_rem", "I_keep"} <= set(wide.columns):
        return
    specs = [Spec.parse(name) for name in wide.index]
    heads = [spec.heads for spec in specs]
    head_dims = [getattr(spec, HELD["decoupled"]) for spec in specs]
    overlap = wide["placement overlap O"]
    if len(wide[["N", "placement overlap O"]].dropna()) >= 6:
        share = slope_shrinkage(heads, wide["N"], overlap, held=head_dims)
        half = {name: getattr(share, name) - 0.5 for name in ("estimate", "low", "high")}
        yield row("mediation", replace(share, **half))
    yield row("removal", mean_over(wide["I_rem"]))
    yield row("keeping", mean_over(wide["I_keep"]))


@judged_from("sparseness", groups=CNNS)
def hu8(recorded: Recorded) -> Iterator[dict]:
    """The neurons of CNNs are sparse."""
    table = recorded.table("sparseness")
    if table is None:
        return
    cnns = recorded.members("cnn-depth") | set(PINNED_CNNS)
    gini = _layers(table, "population_gini", cnns, "position")
    active = _layers(table, "active_share", cnns, "position")
    if len(gini):
        # With a share z of dead units, G = z + (1 − z) G', and the active share is (1 − z) of that
        # of the others.
        dead = table[(table["quantity"] == "dead_share") & (table["unit"] == "position")]
        z = dead.set_index(["model", "layer", "weights"])["value"].unstack("weights")
        z = z.reindex(gini.index)
        for found, from_dead in ((gini, z), (active, 0)):
            found["value"] = (found["value"] - from_dead) / (1 - z)
            found["se"] = found["se"] / (1 - z)
        few = active["value"]["trained"] + SURE * active["se"]["trained"] < 0.5
        models = gini.index.get_level_values("model").nunique()
        yield share_row("layers", _beside_random(gini, 0.5, 0.05) & few, models)


@judged_from("accuracy", groups=("data", "depth", "cnn-depth"))
def hu10(recorded: Recorded) -> Iterator[dict]:
    """Transformers have less bias for vision."""
    found = recorded.numbers("accuracy", "accuracy").set_index("model")["value"]
    gaps = {}
    for n, ending in {3: "-n3", 10: "-n10", 30: "-n30", 100: ""}.items():
        cnn, vit = (recorded.seeds(name + ending, found) for name in ("resnet-d20", "vit-d6-h4"))
        if cnn and vit:
            gaps[n] = 100 * (sum(cnn) / len(cnn) - sum(vit) / len(vit))
    if len(gaps) == 4:
        yield row("gap", slope_per_doubling(list(gaps), list(gaps.values())))


CLAIMS = (hu1, hu2, hu3, hu4, hu5, hu6, hu7, hu8, hu10)
