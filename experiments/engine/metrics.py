"""What is collected of a model, minibatch by minibatch, and merged over ranks once, at the end."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torchmetrics import Metric

from utils.measures.sparsity.streaming import PopulationSummary, mean_and_sd


class ImageMean(Metric):
    """Mean and spread over images of values [batch, …], as a PopulationSummary; NaN is counted."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in ("images", "defined", "total", "squares"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, values: Tensor) -> None:
        """Add the values of one minibatch."""
        values = values.detach().cpu().double()
        self.images = self.images + len(values)
        self.defined = self.defined + (~values.isnan()).sum(0)
        self.total = self.total + values.nan_to_num(0).sum(0)
        self.squares = self.squares + values.nan_to_num(0).square().sum(0)

    def compute(self) -> PopulationSummary:
        """Return mean, SD and standard error over all images seen; NaN where none was defined."""
        mean, sd = mean_and_sd(self.total, self.squares, self.defined)
        undefined = (self.images - self.defined).long()
        return PopulationSummary(mean, sd, sd / self.defined.sqrt(), int(self.images), undefined)


class Metrics(dict[tuple, Metric]):
    """Metrics by what they are of: (quantity, layer, …). None speaks to other ranks by itself."""

    def of(self, key: tuple, make: Callable[[], Metric] = ImageMean) -> Metric:
        """The metric of `key`, made when it is first asked for."""
        if key not in self:
            self[key] = make()
            self[key].distributed_available_fn = _alone
        return self[key]

    def parcel(self) -> "Metrics":
        """All of them on the CPU, to be sent to another rank."""
        return Metrics((key, metric.cpu()) for key, metric in self.items())


def _alone() -> bool:
    return False


def merged(parts: Iterable[Metrics]) -> Metrics:
    """The metrics of all ranks as one."""
    whole = Metrics()
    for part in parts:
        for key, metric in part.items():
            if key in whole:
                whole[key].merge_state(metric)
            else:
                whole[key] = metric
    return whole


def left_out(skipped: dict[str, str]) -> dict[str, dict]:
    """What a table's record says of measures that the model has nothing for, name → reason."""
    return {"left_out": skipped} if skipped else {}


def planned(measures: list[str], skipped: dict[str, str], how: str = "") -> str:
    """What `--dry-run` says: which measures, and which are left out and why."""
    lacking = [f"{name} left out: {why}" for name, why in skipped.items()]
    return "; ".join([", ".join(measures) + how, *lacking])
