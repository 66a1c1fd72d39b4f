"""The recorded tables as evidence is made of them: trends, shares and differences."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.catalogue import IMAGENET, PINNED_CNNS, PLAIN_RECIPES
from experiments.engine.results import file_of, with_apart
from experiments.evidence.trends import FEW, OF_PROFILES, SWEEPS, slopes, values
from experiments.training.groups import GROUPS
from experiments.training.recipes import LOSS_LEVELS
from utils.measures.statistics import Estimate, contrast, mean_over, share_over
from utils.models.architectures import Spec

EXACT = "exact"  # the rung of what needs no models and no images
VIT, CNN = "vit-d6-h4", "resnet-d20"  # where one model stands for its kind, with all seeds
# Published models of a kind have no seeds; several of one recipe stand for it together.
PUBLISHED = {
    kind: tuple(
        name
        for name, model in IMAGENET.items()
        if name.startswith(PLAIN_RECIPES) and (model.heads is not None) == (kind == VIT)
    )
    for kind in (VIT, CNN)
}
SURE = 1.96  # standard errors over images to either side of a mean
VITS, CNNS = ("heads", "depth"), ("cnn-depth",)  # the sweeps of each kind
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
BLOCKS = ("1/3", "2/3", "last")


def judged_from(*experiments: str, groups: tuple[str, ...] = (*VITS, *CNNS)) -> Callable:
    """Marks the evidence on a claim with what it is made of: the experiments whose tables it reads,
    and the groups of the models in them."""

    def mark(evidence: Callable) -> Callable:
        evidence.experiments, evidence.groups = experiments, groups
        return evidence

    return mark


class Recorded:
    """The tables of one rung, each read once."""

    def __init__(self, rung: str, out: Path) -> None:
        self.rung, self.out = rung, out
        self._read = cache(pd.read_csv)
        self._values: dict[tuple, pd.DataFrame] = {}

    def table(self, experiment: str) -> pd.DataFrame | None:
        """The table of an experiment, None if it is not recorded."""
        files = with_apart(file_of(experiment, self.rung, out=self.out))
        tables = [self._read(file) for file in files]
        return pd.concat(tables, ignore_index=True) if tables else None

    def name(self, model: str) -> str:
        """What a model is called on this rung."""
        return model if self.rung == "objects" else f"{self.rung}/{model}"

    def members(self, *groups: str) -> set[str]:
        """The names of a group's models on this rung."""
        return {self.name(model) for group in groups for model in GROUPS[group].members()}

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

    def kinds(self, found: Iterable[str]) -> tuple[list[str], list[str]]:
        """The ViTs and CNNs of the sweeps among some models; on imagenet those of one recipe."""
        if self.rung == "imagenet":
            return tuple([n for n in PUBLISHED[kind] if n in found] for kind in (VIT, CNN))
        return tuple(self.models(found, *groups) for groups in (VITS, CNNS))

    def values(self, loss: float | None = None, order: str = "own") -> pd.DataFrame:
        """One number for every model, measure and scope, as trained or at equal loss.

        With the means over single layers, and logarithms of f₅₀⁺ and of what is lost with 1 % kept.
        """
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

    def trend(
        self, found: pd.DataFrame, group: str, least: float = 0, sizes: str = FEW, **chosen: str
    ) -> Estimate | None:
        """The slope of a group; None while one of its designs has no recorded model, or if too few.

        found : some of `values`; least : only designs of this size or more; sizes : a range of
        trends; chosen : columns
        """
        for column, wanted in {"weights": "trained", **chosen}.items():
            found = found[found[column] == wanted]
        if least:
            own = (Spec.parse(name) for name in found["model"])
            keep = [spec is not None and getattr(spec, SWEEPS[group]) >= least for spec in own]
            found = found[keep]
        if found.empty:
            return None
        line = slopes(found, self.rung, (group,))
        line = line[line["range"] == sizes]
        if len(line) != 1 or (line.iloc[0]["missing"] and not least):
            return None
        line = line.iloc[0]
        return Estimate(line["slope"], line["low"], line["high"], line["p"], line["models"])

    def equal_loss(self, group: str) -> float | None:
        """The lowest training loss at which all models of a group are ablated that are so at the
        end of their training."""
        ends = self._ablated(None, group)
        return next(
            (loss for loss in sorted(LOSS_LEVELS) if ends and self._ablated(loss, group) >= ends),
            None,
        )

    def _ablated(self, loss: float | None, group: str) -> set[str]:
        found = self.values(loss)
        return set(found.loc[found["measure"] == "N", "model"]) & self.members(group)

    def numbers(self, experiment: str, quantity: str, weights: str = "trained") -> pd.DataFrame:
        """The rows of a table that hold a quantity, those of trained or of random weights; empty if
        it is not recorded."""
        table = self.table(experiment)
        if table is None:
            return pd.DataFrame(columns=["model", "value"])
        return table[(table["quantity"] == quantity) & (table["weights"] == weights)]

    def seeds(self, name: str, found: pd.Series) -> list[float]:
        """The values of all seeds of a model, of those by name in `found`; on the rung imagenet
        those of PUBLISHED, so that an interval is over published models, not over seeds."""
        if self.rung == "imagenet":
            names = PUBLISHED.get(name, ())
        else:
            names = [self.name(name), *(self.name(f"{name}-s{seed}") for seed in range(1, 10))]
        return [float(found[n]) for n in names if n in found.index and not math.isnan(found[n])]

    def mean(self, name: str, found: pd.Series) -> Estimate | None:
        """The mean over all seeds of a model, None if none has a value."""
        values = self.seeds(name, found)
        return mean_over(values) if values else None


def known_rows(*found: tuple[str, Estimate | None, str]) -> Iterator[dict]:
    """Rows of (criterion, estimate, variant), of those that have an estimate."""
    for criterion, estimate, variant in found:
        if estimate is not None:
            yield row(criterion, estimate, variant)


def row(criterion: str, found: Estimate, variant: str = "main") -> dict:
    return {
        "criterion": criterion,
        "variant": variant,
        **{name: getattr(found, name) for name in ("estimate", "low", "high", "p")},
        "models": found.n,
    }


def exact(value: float, models: int) -> Estimate:
    """A number without a spread, made of so many models."""
    return Estimate(float(value), float(value), float(value), math.nan, models)


def share_row(criterion: str, holds: pd.Series, models: int) -> dict:
    """A share of cases that has no interval."""
    share = holds.mean() if len(holds) else math.nan
    return row(criterion, Estimate(float(share), math.nan, math.nan, math.nan, models))


def share_of_networks(criterion: str, holds: pd.Series) -> dict:
    """The mean over networks of the share of a network's cases, with its interval.

    holds : bool, indexed by `model` among others
    """
    shares = holds.astype(float).groupby(level="model").mean()
    return row(criterion, share_over(shares.tolist()))


def _over_blocks(found: pd.DataFrame) -> pd.DataFrame:
    """The mean over the single layers of a network, NaN unless each of them has a value."""
    chosen = found[found["scope"].isin(BLOCKS)]
    keys = [name for name in found.columns if name not in ("scope", "value")]
    if chosen.empty:
        return found.iloc[:0]
    each = chosen.groupby(keys, sort=False, dropna=False)["value"]
    means = each.mean().where(each.count() == len(BLOCKS)).reset_index()
    return means.assign(scope="single layers")


def difference(plus: list[float], minus: list[float], fewest: int = 1) -> Estimate | None:
    """The difference of two means over seeds with a seed interval, None where one has no value.

    The interval is infinite where neither has two seeds, or one has fewer than `fewest`.
    """
    values = {"plus": plus, "minus": minus}
    if not (plus and minus):
        return None
    pairs = [(group, value) for group, each in values.items() for value in each]
    groups, numbers = zip(*pairs, strict=True)
    enough = min(len(plus), len(minus)) >= fewest
    if enough and max(len(plus), len(minus)) > 1:
        return contrast(numbers, groups, {"plus": 1, "minus": -1})
    estimate = sum(plus) / len(plus) - sum(minus) / len(minus)
    return Estimate(estimate, -math.inf, math.inf, math.nan, len(numbers))
