"""From the second edition's tables to the evidence for its rules (`rules`): one row a criterion.

One function for each claim whose evidence changed; the others are those of the first edition.
`evidence` gives what is judged, `beside` the variants that are not: each next to the primary one,
with whether it agrees. What is not recorded gives no row. Longer than two screens because each
claim has its own estimator, all of which were fixed before the first result.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import linear_sum_assignment

from experiments.catalogue import PINNED_CNNS, RUNGS
from experiments.engine.results import RESULTS
from experiments.evidence import representation, rules, scale, sparsity
from experiments.evidence import table as first
from experiments.evidence.recorded import (
    CNN,
    CNNS,
    EXACT,
    PUBLISHED,
    SURE,
    VIT,
    VITS,
    Recorded,
    exact,
    known_rows,
    row,
)
from experiments.evidence.trends import FEW, HELD, OF_PROFILES, SOME, SWEEPS, slopes, values
from experiments.training.groups import BUDGETS, GROUPS
from utils.measures.statistics import (
    Estimate,
    contrast,
    mean_over,
    rank_correlation,
    share_over,
    slope_per_doubling,
    unequal,
)
from utils.models import zoo
from utils.models.architectures import Spec

HALF, LOST = "half kept", "lost with 1 % kept"
PROFILES = {
    **OF_PROFILES,
    "necessity N, margin": "N, margin",
    "necessity N, probability": "N, probability",
    "sufficiency K, margin": "K, margin",
    "half kept, top": HALF,
    "half kept, top, margin": f"{HALF}, margin",
    "half kept, top, probability": f"{HALF}, probability",
    "effect, top kept at 1%": f"{LOST}, KL",
    "effect, top kept at 1%, probability": LOST,
    "necessity N, centre": "N, centre",
    "damage, permuted − removed, KL": "place",
    "damage, uniform − removed, KL": "place, spread evenly",
}
# What stands next to each reading of a trend.
OTHERWISE = {
    "N": {"in KL": "N", "on the margin": "N, margin"},
    HALF: {"in KL": HALF, "on the margin": f"{HALF}, margin"},
    LOST: {"in KL": f"{LOST}, KL"},
}
ATTENTION = dict(unit="attention", scope="all", replaced_by="renormalise")
BLOCKS = ("1/3", "2/3", "last")
IN_GROUPS = dict(unit="group", replaced_by="mean")
DATA = (3, 10, 30, 100)  # per cent of the training images


class Second(Recorded):
    """The tables of one rung of the second edition."""

    def values(self, loss: float | None = None, order: str = "own") -> pd.DataFrame:
        """As `Recorded.values`, with the means over single layers, and logarithms of f₅₀⁺ and of
        what is lost with 1 % kept."""
        if (loss, order) not in self._values:
            found = values(self.rung, loss, self.out, PROFILES, order, self._read)
            kept = found["measure"].str.startswith(LOST).fillna(False).astype(bool)
            found.loc[kept, "value"] = 1 - found.loc[kept, "value"].astype(float)
            logs = found["measure"].str.startswith((HALF, LOST)).fillna(False).astype(bool)
            shares = found.loc[logs, "value"].astype(float)
            found.loc[logs, "value"] = np.log2(shares.where(shares > 0))
            found["value"] = found["value"].astype(float)
            self._values[loss, order] = pd.concat([found, _over_blocks(found)], ignore_index=True)
        return self._values[loss, order]

    def models(self, found: Iterable[str], *groups: str) -> list[str]:
        """Those of the models whose design is one of a group's, however many seeds there are; on
        the rung imagenet all of their kind."""
        names = sorted(set(found))
        if self.rung == "imagenet":
            return [n for n in names if (n in PINNED_CNNS) == (groups == CNNS)]
        designs = {Spec.parse(name).design for group in groups for name in GROUPS[group].names}
        parsed = {name: Spec.parse(name) for name in names}
        return [
            name
            for name, spec in parsed.items()
            if spec is not None and spec.rung == self.rung and spec.design in designs
        ]


def _over_blocks(found: pd.DataFrame) -> pd.DataFrame:
    """The mean over the single layers of a network, NaN unless each of them has a value."""
    chosen = found[found["scope"].isin(BLOCKS)]
    keys = [name for name in found.columns if name not in ("scope", "value")]
    if chosen.empty:
        return found.iloc[:0]
    each = chosen.groupby(keys, sort=False, dropna=False)["value"]
    means = each.mean().where(each.count() == len(BLOCKS)).reset_index()
    return means.assign(scope="single layers")


def _trend(
    recorded: Second,
    found: pd.DataFrame,
    group: str,
    least: float = 0,
    sizes: str = FEW,
    **chosen: str,
) -> Estimate | None:
    """The slope of a group; None while one of its designs has no recorded model, or if too few.

    least : only designs of this size or more; sizes : a range of trends; chosen : columns
    """
    for column, wanted in {"weights": "trained", **chosen}.items():
        found = found[found[column] == wanted]
    if least:
        own = (Spec.parse(name) for name in found["model"])
        keep = [spec is not None and getattr(spec, SWEEPS[group]) >= least for spec in own]
        found = found[keep]
    if found.empty:
        return None
    line = slopes(found, recorded.rung, (group,))
    line = line[line["range"] == sizes]
    if len(line) != 1 or (line.iloc[0]["missing"] and not least):
        return None
    line = line.iloc[0]
    return Estimate(line["slope"], line["low"], line["high"], line["p"], line["models"])


def readings(unit: str) -> dict[str, str]:
    """The two readings of a trend, criterion → measure. With one patch of each head a network may
    keep more than half of its function, so that f₅₀⁺ would be at its floor."""
    enough = {LOST: LOST} if unit == "attention" else {HALF: f"{HALF}, probability"}
    return {"N": "N, probability", **enough}


def _readings(recorded: Second, group: str, **chosen: str) -> Iterator[dict]:
    for criterion, measure in readings(chosen["unit"]).items():
        found = _trend(recorded, recorded.values(), group, measure=measure, **chosen)
        yield from known_rows((criterion, found, "main"))


def hu1(recorded: Second) -> Iterator[dict]:
    """Attention is sparse."""
    table = recorded.table("sparseness")
    if table is None:
        return
    vits = set(recorded.models(table["model"], *VITS))
    found = sparsity._layers(_one_twin(table), "gini", vits, "class")
    if len(found):
        yield _share("layers", sparsity._beside_random(found, 0.5, 0.1))
    found = table[(table["quantity"] == "gini_beyond_gaussian") & (table["unit"] == "class")]
    found = found[(found["weights"] == "trained") & found["model"].isin(vits)]
    if len(found):
        means = found.groupby(["model", "layer"])[["value", "se"]].mean()
        yield _share("beyond", means["value"] - SURE * means["se"] > 0)


def _one_twin(table: pd.DataFrame) -> pd.DataFrame:
    """With the mean of all random twins in the place of each."""
    twin = table["weights"].str.startswith("random")
    return table.assign(weights=table["weights"].where(~twin, "random"))


def _share(criterion: str, holds: pd.Series) -> dict:
    """The mean over networks of the share of a network's cases, with its interval."""
    shares = holds.astype(float).groupby(level="model").mean()
    return row(criterion, share_over(shares.tolist()))


def hu2(recorded: Second) -> Iterator[dict]:
    """Heads agree with one another, and so do neighbouring layers."""
    for criterion, quantity, kind, variant in (
        ("heads", "head_agreement", "centred", "main"),
        ("layers", "neighbour_agreement", "centred", "main"),
        ("distance", "neighbour_advantage", "centred", "main"),
        ("raw", "head_agreement", "raw", "heads"),
        ("raw", "neighbour_agreement", "raw", "layers"),
    ):
        found = recorded.numbers("representation", quantity)
        if not len(found):
            continue
        found = found[found["layer"].isna() & (found["unit"] == kind)]
        found = found[found["model"].isin(recorded.models(found["model"], *VITS))]
        if len(found):
            yield row(criterion, mean_over(found["value"]), variant)


def _attention(recorded: Second, order: str = "own", **chosen: str) -> pd.DataFrame:
    """What is recorded of ablated attention in the ViTs of the sweeps, by the primary settings."""
    found = recorded.values(order=order)
    for column, wanted in {**ATTENTION, "weights": "trained", **chosen}.items():
        found = found[found[column] == wanted]
    return found[found["model"].isin(recorded.models(found["model"], *VITS))]


def _mean(found: pd.DataFrame) -> Estimate | None:
    return mean_over(found["value"]) if found["value"].notna().any() else None


def hu3(recorded: Second) -> Iterator[dict]:
    """The units with the largest responses matter more than random ones."""
    for criterion, measure in (("necessity", "N, probability"), ("place", "place")):
        found = _mean(_attention(recorded, measure=measure))
        yield from known_rows((criterion, found, "main"))


def hu4(recorded: Second) -> Iterator[dict]:
    """Deeper ViTs are sparser."""
    yield from _readings(recorded, "depth", **ATTENTION)


def hu5(recorded: Second) -> Iterator[dict]:
    """Deeper CNNs are sparser."""
    yield from _readings(recorded, "cnn-depth", scope="single layers", **IN_GROUPS)


def hu6(recorded: Second) -> Iterator[dict]:
    """Too many heads make a ViT less sparse."""
    yield from _readings(recorded, "decoupled", **ATTENTION)


def hu7(recorded: Second) -> Iterator[dict]:
    """More heads are less sparse because the effects of units overlap; one sample for all parts.

    A network with a single head has no overlap of heads and is in none of them.
    """
    measures = {"placement overlap O": "", "N, probability": ATTENTION["replaced_by"]}
    measures |= dict.fromkeys(("I_rem", "I_keep"), ATTENTION["replaced_by"])
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


def hu8(recorded: Second) -> Iterator[dict]:
    """The neurons of CNNs are sparse."""
    table = recorded.table("sparseness")
    if table is None:
        return
    table = _one_twin(table)
    cnns = set(recorded.models(table["model"], *CNNS))
    gini, active = (
        sparsity._layers(table, quantity, cnns, "position")
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
    yield _share("layers", sparsity._beside_random(gini, 0.5, 0.05) & few)


def hu10(recorded: Second) -> Iterator[dict]:
    """Transformers have less bias for vision: one point for each pair of equal seed and share."""
    found = recorded.numbers("accuracy", "accuracy").set_index("model")["value"]
    shares, gaps = [], []
    for n in DATA:
        ending = "" if n == max(DATA) else f"-n{n}"
        for seed in ("", *(f"-s{i}" for i in range(1, 10))):
            cnn, vit = (recorded.name(f"{name}{ending}{seed}") for name in (CNN, VIT))
            if {cnn, vit} <= set(found.index):
                shares.append(n)
                gaps.append(100 * (found[cnn] - found[vit]))
    if set(shares) == set(DATA):
        yield row("gap", slope_per_doubling(shares, gaps))


def _kinds(recorded: Second, found: pd.Series) -> tuple[list[str], list[str]]:
    """The ViTs and the CNNs of the sweeps that have a value; on imagenet those of one recipe."""
    if recorded.rung == "imagenet":
        return tuple([n for n in PUBLISHED[kind] if n in found.index] for kind in (VIT, CNN))
    return tuple(recorded.models(found.index, *groups) for groups in (VITS, CNNS))


def _between(recorded: Second, found: pd.Series) -> Estimate | None:
    """ViT − CNN over all networks of the sweeps, each kind with its own scatter."""
    vit, cnn = ([found[name] for name in names] for names in _kinds(recorded, found))
    return unequal(vit, cnn) if vit and cnn else None


def _learned(trained: pd.Series, twins: pd.Series) -> pd.Series:
    """What each network has beyond the mean of its design's random twins, if these are enough.

    twins : by (model, weights)
    """

    def design(model: str) -> str:
        spec = Spec.parse(model)
        return model if spec is None else f"{spec.rung}/{spec.design}"

    each = twins.groupby(lambda key: design(key[0])).agg(["mean", "count"])
    known = each.loc[each["count"] >= rules.TWINS, "mean"]
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


def ra1(recorded: Second) -> Iterator[dict]:
    """The layers of a ViT are more uniform than those of a CNN."""
    table = recorded.table("similarity")
    trained, twins = _by_twins(table, "cka", representation._off_diagonal)
    yield from known_rows(("uniformity", _between(recorded, trained), "main"))
    if len(twins):
        learned = _between(recorded, _learned(trained, twins))
        yield from known_rows(("learned", learned, "main"))


def ra2(recorded: Second) -> Iterator[dict]:
    """Early layers of a ViT mix local and global heads; on imagenet in any published ViT."""
    if recorded.rung != "imagenet":
        yield from representation.ra2(recorded)
        return
    found = recorded.numbers("similarity", "relative_distance")
    for criterion, numbers in representation._reach(found):
        yield row(criterion, mean_over(numbers))


def _fall(rows: pd.DataFrame) -> float:
    """The fall without a skip, mean over its kinds, less that without the whole block."""
    block = rows["unit"] == "block"
    return rows.loc[~block, "value"].mean() - rows.loc[block, "value"].mean()


def ra3(recorded: Second) -> Iterator[dict]:
    """Skip connections carry features far, in ViTs above all."""
    trained, twins = _by_twins(recorded.table("representation"), "skip_fall", _fall)
    vit, _ = _kinds(recorded, trained)
    if vit:
        yield row("skip", mean_over([trained[name] for name in vit]))
    yield from known_rows(("family", _between(recorded, trained), "main"))
    if len(twins):
        learned = _between(recorded, _learned(trained, twins))
        yield from known_rows(("learned", learned, "main"))


def ra5(recorded: Second) -> Iterator[dict]:
    """The size of the training set shapes late layers most: each seed is one case of its kind.

    A seed's fall is from its CKA with the other seeds of all data to that of its namesake of 10 %
    with the same others, by thirds of the depth.
    """
    found = recorded.numbers("pairs", "matched_cka")
    if not len(found):
        return
    means = representation._by_thirds(found)
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


def ra7(recorded: Second) -> Iterator[dict]:
    """The receptive fields of ViTs are global early: numbers without an interval."""

    def early(rows: pd.DataFrame) -> float:
        return rows.loc[rows["depth"] <= 1 / 3 + representation.CLOSE, "value"].mean()

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


def pk(recorded: Second) -> Iterator[dict]:
    """Attention is a low-pass filter, convolution a high-pass filter."""
    found = recorded.numbers("representation", "frequency")
    if not len(found):
        return
    sweeps = {*recorded.models(found["model"], *VITS), *recorded.models(found["model"], *CNNS)}
    found = found[found["model"].isin(sweeps)].set_index("model")
    change, error = found["value"], SURE * found["se"]
    for kind, passes in (("attention", change + error < 0), ("convolution", change - error > 0)):
        if (chosen := found["unit"] == kind).any():
            yield _share(kind, passes[chosen])


def pairs(accuracy: Mapping[str, float], vits: Iterable[str], cnns: Iterable[str]) -> list[tuple]:
    """(ViT, CNN) of nearly equal accuracy, each network in one pair at most: as many pairs as there
    can be, and of these the nearest."""
    vits, cnns = ([name for name in names if name in accuracy] for names in (vits, cnns))
    if not (vits and cnns):
        return []
    gap = np.abs(np.subtract.outer(*([accuracy[n] for n in names] for names in (vits, cnns))))
    near = gap <= rules.EQUAL + 1e-9
    chosen = linear_sum_assignment(np.where(near, gap, 1e6))
    return [(vits[i], cnns[j]) for i, j in zip(*chosen, strict=True) if near[i, j]]


def _clean(recorded: Second) -> pd.Series:
    """The accuracy of each model on enough images."""
    found = recorded.numbers("accuracy", "accuracy")
    found = found[found["n"] >= rules.IMAGES] if "n" in found else found
    return found.drop_duplicates("model").set_index("model")["value"]


def _pairs(recorded: Second, having: Iterable[str], fewer: bool = True) -> list[tuple]:
    """Pairs of the sweeps' networks; fewer : and of CNNs that fewer images make as accurate."""
    clean, having = _clean(recorded), set(having)
    clean = clean[clean.index.isin(having)]
    vits, cnns = _kinds(recorded, clean)
    if fewer and recorded.rung != "imagenet":
        cnns += recorded.models(clean.index, "matched")
    return pairs(clean.to_dict(), vits, cnns)


def _behaviour(recorded: Second, experiment: str, quantity: str) -> pd.DataFrame:
    """The rows of a quantity that are of enough images."""
    found = recorded.numbers(experiment, quantity)
    return found[found["n"] >= rules.IMAGES] if "n" in found else found


def _paired(found: pd.Series, chosen: list[tuple], sign: int = 1) -> Estimate | None:
    """ViT − CNN (sign −1: CNN − ViT) over pairs of networks."""
    return mean_over([sign * (found[v] - found[c]) for v, c in chosen]) if chosen else None


def ba1(recorded: Second) -> Iterator[dict]:
    """Transformers have no adversarial advantage."""
    under, kept = (_behaviour(recorded, "attack", name) for name in ("accuracy", "kept"))
    if not (len(under) and len(kept)):
        return
    under, kept = (
        each[each["kind"] == "pgd"].pivot(index="model", columns="level", values="value")
        for each in (under, kept)
    )
    gaps = []
    for vit, cnn in _pairs(recorded, set(under.index) & set(kept.index)):
        epsilon = (kept.loc[cnn] - 0.5).abs().idxmin()
        gaps.append(100 * (under.loc[vit, epsilon] - under.loc[cnn, epsilon]))
    if gaps:
        yield row("attack", mean_over(gaps))


def ba2(recorded: Second) -> Iterator[dict]:
    """Transformers have an advantage out of distribution."""
    found = _behaviour(recorded, "behaviour", "kept")
    if not len(found):
        return
    found = found[~found["kind"].isin(("clean", "permutation", "shift"))]
    means = found.groupby(["model", "kind"])["value"].mean().unstack().dropna()  # over severities
    chosen = _pairs(recorded, means.index)
    if not chosen:
        return
    rule = rules.Effect(+1, 0.02)
    outcomes = []
    for kind in means.columns:
        gap = _paired(means[kind], chosen)
        outcomes.append(rule.judge(gap.estimate, gap.low, gap.high))
    shown = fmean(outcome == rules.SUPPORTED for outcome in outcomes)
    possible = fmean(outcome != rules.NOT_SUPPORTED for outcome in outcomes)
    yield row("corruptions", Estimate(shown, shown, possible, math.nan, 2 * len(chosen)))


def tu2(recorded: Second) -> Iterator[dict]:
    """The shape bias of ViTs is nearer to that of humans."""
    if recorded.rung == "imagenet":
        return
    bias, decided = (
        recorded.numbers("cue-conflict", quantity).set_index("model")["value"]
        for quantity in ("shape_bias", "decided")
    )
    chosen = _pairs(recorded, bias.dropna().index)
    if not chosen:
        return
    yield row("bias", _paired(bias, chosen))
    for variant, names in zip(("ViT", "CNN"), zip(*chosen, strict=True), strict=True):
        yield row("decided", mean_over([decided[name] for name in names]), variant)


def ti(recorded: Second) -> Iterator[dict]:
    """CNNs are invariant to translation."""
    found = _behaviour(recorded, "behaviour", "consistency")
    if not len(found):
        return
    means = found[found["kind"] == "shift"].groupby("model")["value"].mean()
    gap = _paired(means, _pairs(recorded, means.index), sign=-1)
    yield from known_rows(("consistency", gap, "main"))


def sm2(recorded: Second) -> Iterator[dict]:
    """Loss falls as a power of compute: the worse of ViT and CNN."""
    loss = recorded.numbers("accuracy", "cross_entropy").set_index("model")["value"]
    built = zoo.manifest()
    errors, offsets, models = [], [], 0
    for names in list(zip(*BUDGETS, strict=True))[:2]:
        each = [recorded.seeds(name, loss) for name in names]
        own = [recorded.name(name) for name in names]
        if not (all(each) and set(own) <= set(built)):
            return
        flops = np.array([built[name]["flops"] for name in own], dtype=float)
        errors.append(extrapolation(flops, each))
        x = np.repeat(flops, [len(seeds) for seeds in each])
        y = np.concatenate(each)
        offsets.append(scale._aicc(x, y, offset=False) - scale._aicc(x, y, offset=True))
        models += len(y)
    worst = {name: max(getattr(e, name) for e in errors) for name in ("estimate", "low", "high")}
    yield row("prediction", Estimate(**worst, p=math.nan, n=models))
    yield row("offset", exact(max(offsets), models))


def extrapolation(flops: np.ndarray, losses: list[list[float]]) -> Estimate:
    """The relative error of a power law at the largest budget, fitted without it.

    flops [budgets], the largest last; losses : of the seeds of each. The interval is that of the
    log error by the seeds' scatter in log loss, pooled over budgets, folded at 0; infinite if no
    budget has two seeds.
    """
    logs = [np.log(each) for each in losses]
    x, counts = np.log(flops), np.array([len(each) for each in logs])
    # The error is a weighted sum of log losses: a line through all but the last, at the last.
    line = np.linalg.pinv(np.stack([x[:-1], np.ones(len(x) - 1)], 1))
    weights = np.append(np.array([x[-1], 1.0]) @ line, -1.0)
    found = float(weights @ [each.mean() for each in logs])
    estimate, freedom, n = abs(math.expm1(found)), int((counts - 1).sum()), int(counts.sum())
    if freedom < 1:
        return Estimate(estimate, 0.0, math.inf, math.nan, n)
    spread = math.sqrt(sum(((each - each.mean()) ** 2).sum() for each in logs) / freedom)
    half = stats.t.ppf(0.975, freedom) * spread * math.sqrt((weights**2 / counts).sum())
    ends = [math.expm1(found - half), math.expm1(found + half)]
    low = 0.0 if ends[0] <= 0 <= ends[1] else min(map(abs, ends))
    return Estimate(estimate, low, max(map(abs, ends)), math.nan, n)


CHANGED = {
    each.__name__: each
    for each in (
        *(hu1, hu2, hu3, hu4, hu5, hu6, hu7, hu8, hu10),
        *(ra1, ra2, ra3, ra5, ra7, pk, ba1, ba2, tu2, ti, sm2),
    )
}
CLAIMS = {name: CHANGED.get(name, claim) for name, claim in first.CLAIMS.items() if name != "tu1"}


def evidence(out: Path = RESULTS) -> pd.DataFrame:
    """The evidence on all rungs, as `claims.verdicts` takes it with `rules.CLAIMS`.

    out : the folder of the tables. Columns of `evidence.COLUMNS`; empty if nothing is recorded.
    """
    rows = [
        {"claim": name, "rung": rung, **found}
        for rung in (*RUNGS, EXACT)
        for recorded in [Second(rung, out)]
        for name, claim in CLAIMS.items()
        for found in claim(recorded)
    ]
    return pd.DataFrame(rows, columns=list(first.COLUMNS))


# What stands next to the primary variant: (criterion, variant, estimate), not judged.
Beside = Iterator[tuple[str, str, Estimate | None]]


def _beside_trend(recorded: Second, group: str, primary: dict, changes: dict) -> Beside:
    """The readings of a trend under other settings: name → columns, or how to choose otherwise."""
    smallest = min(getattr(Spec.parse(name), SWEEPS[group]) for name in GROUPS[group].names)
    for criterion, measure in readings(primary["unit"]).items():
        for name, change in changes.items():
            found = _trend(recorded, recorded.values(), group, measure=measure, **primary | change)
            yield criterion, name, found
        for name, other in OTHERWISE[criterion].items():
            found = _trend(recorded, recorded.values(), group, measure=other, **primary)
            yield criterion, name, found
        if (loss := recorded.equal_loss(group)) is not None:
            found = _trend(recorded, recorded.values(loss), group, measure=measure, **primary)
            yield criterion, "equal loss", found
        chosen = dict(primary, measure=measure, least=smallest + 1)
        yield (
            criterion,
            "without the smallest",
            _trend(recorded, recorded.values(), group, **chosen),
        )
        if primary["unit"] == "attention":
            for order in ("head-averaged", "contribution"):
                found = recorded.values(order=order)
                found = _trend(recorded, found, group, measure=measure, **primary)
                yield criterion, f"{order} order", found


ELSEWHERE = {
    **{f"block at {scope}" if "/" in scope else "last block": {"scope": scope} for scope in BLOCKS},
    **{value: {"replaced_by": value} for value in ("zero", "mean", "resample")},
}


def _beside_hu3(recorded: Second) -> Beside:
    for value in ("zero", "mean", "resample"):
        for criterion, measure in (("necessity", "N, probability"), ("place", "place")):
            found = _mean(_attention(recorded, measure=measure, replaced_by=value))
            yield criterion, value, found
    for criterion, variant, measure in (
        ("necessity", "in KL", "N"),
        ("necessity", "on the margin", "N, margin"),
        ("necessity", "the same central disc for all images", "N, centre"),
        ("place", "the same mass spread evenly", "place, spread evenly"),
    ):
        yield criterion, variant, _mean(_attention(recorded, measure=measure))
    for order in ("head-averaged", "contribution", "centre", "mean-map"):
        found = _attention(recorded, order, measure="N, probability")
        yield "necessity", f"{order} order", _mean(found)


def _beside_hu4(recorded: Second) -> Beside:
    return _beside_trend(recorded, "depth", ATTENTION, ELSEWHERE)


def _beside_hu5(recorded: Second) -> Beside:
    primary = dict(IN_GROUPS, scope="single layers")
    changes = {f"layer at {scope}": {"scope": scope} for scope in BLOCKS}
    changes |= {value: {"replaced_by": value} for value in ("zero", "resample")}
    changes |= {f"unit {unit}": {"unit": unit} for unit in ("position", "unit")}
    return _beside_trend(recorded, "cnn-depth", primary, changes)


def _beside_hu6(recorded: Second) -> Beside:
    yield from _beside_trend(recorded, "decoupled", ATTENTION, ELSEWHERE | {SOME: {"sizes": SOME}})
    for group, name in (("heads", "fixed width"), ("width", "fixed head dimension")):
        for criterion, measure in readings("attention").items():
            chosen = dict(ATTENTION, measure=measure)
            yield criterion, name, _trend(recorded, recorded.values(), group, **chosen)


def _beside_ti(recorded: Second) -> Beside:
    """Pairs without the CNNs trained on fewer images, and all networks at any accuracy."""
    found = _behaviour(recorded, "behaviour", "consistency")
    if not len(found):
        return
    means = found[found["kind"] == "shift"].groupby("model")["value"].mean()
    chosen = _pairs(recorded, means.index, fewer=False)
    yield "consistency", "without CNNs of fewer images", _paired(means, chosen, sign=-1)
    gap = _between(recorded, -means)  # of minus the values, ViT − CNN is CNN − ViT
    yield "consistency", "at any accuracy", gap


BESIDE: dict[str, Callable[[Second], Beside]] = {
    "hu3": _beside_hu3,
    "hu4": _beside_hu4,
    "hu5": _beside_hu5,
    "hu6": _beside_hu6,
    "ti": _beside_ti,
}


def beside(out: Path = RESULTS) -> pd.DataFrame:
    """The variants that are not judged, next to the primary one that is.

    Columns as of `evidence`, and `beside`: "agrees" where the criterion's rule would say of it what
    it says of the primary variant, "differs" where not, NaN where the primary one is not recorded;
    of tu1 and tu2 on the rung imagenet rules.ONE_PAIR.
    """
    primary = evidence(out)
    primary = primary[primary["variant"] == "main"].set_index(["claim", "rung", "criterion"])
    rows = []
    for rung in RUNGS:
        recorded = Second(rung, out)
        for name, variants in BESIDE.items() if rung != "imagenet" else ():
            judged = {each.name: each.rule for each in rules.BY_ID[name].criteria}
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
    rows += list(_one_pair(Second("imagenet", out)))
    return pd.DataFrame(rows, columns=[*first.COLUMNS, "beside"])


def _one_pair(recorded: Second) -> Iterator[dict]:
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
            about = {"claim": claim, "rung": recorded.rung, "beside": rules.ONE_PAIR}
            yield about | row(criterion, shown, each["model"])
