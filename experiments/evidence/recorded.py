"""The recorded tables as evidence is made of them: trends, shares and differences."""

import math
from collections.abc import Callable, Collection, Iterator
from functools import cache
from pathlib import Path

import pandas as pd

from experiments.catalogue import IMAGENET, PLAIN_RECIPES
from experiments.engine.results import file_of, with_apart
from experiments.evidence.trends import slopes, values
from experiments.training.groups import GROUPS
from experiments.training.recipes import LOSS_LEVELS
from utils.measures.statistics import Estimate, contrast, mean_over

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
        self._values: dict[float | None, pd.DataFrame] = {}

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

    def trends(
        self, group: str, loss: float | None = None, **asked: Collection[str]
    ) -> pd.DataFrame:
        """The `slopes` that are asked of a group, of models as trained or at equal loss."""
        return slopes(self.values(loss), self.rung, (group,), **asked)

    def values(self, loss: float | None = None) -> pd.DataFrame:
        """One number for every model, measure and scope, as trained or at equal loss."""
        if loss not in self._values:
            self._values[loss] = values(self.rung, loss, self.out, read=self._read)
        return self._values[loss]

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
    share = holds.mean() if len(holds) else math.nan
    return row(criterion, Estimate(float(share), math.nan, math.nan, math.nan, models))


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
