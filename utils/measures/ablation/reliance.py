"""Whether a network relies on some layers at all, told on any number of images."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from ...probes import Ablator
from ..statistics import Estimate, bootstrap_means, percentiles
from .curves import ABOVE_CHANCE, NO_RELIANCE_KL
from .outcomes import Batches, Others, outcomes, ready
from .units import units_of


@dataclass
class Reliance:
    """What removing everything does to each image; parts of different images can be `merged`.

    `index` [images]; `kl` [images], KL(intact ‖ all removed) in nats; `intact`, `removed` [images],
    whether the answer was right; `chance`, 0 … 1.
    """

    index: np.ndarray
    kl: np.ndarray
    intact: np.ndarray
    removed: np.ndarray
    chance: float

    @classmethod
    def merged(cls, parts: Sequence["Reliance"]) -> "Reliance":
        """That of all images, sorted by index, from those of minibatches or ranks."""
        order = np.argsort(np.concatenate([part.index for part in parts]))
        tables = (
            np.concatenate([getattr(part, field.name) for part in parts])[order]
            for field in fields(cls)[:-1]
        )
        return cls(*tables, parts[0].chance)

    def estimate(self, samples: int = 2000, seed: int = 0, confidence: float = 0.95) -> Estimate:
        """D_all, the mean KL in nats, with a bootstrap interval over images; ValueError for one."""
        means = bootstrap_means({"kl": self.kl}, samples, seed)["kl"]
        return percentiles(means, len(self.index), confidence)

    def exists(self, samples: int = 2000, seed: int = 0, confidence: float = 0.95) -> bool:
        """Whether the lower bound of D_all is 0.01 nats or more, and the intact accuracy 10 points
        above chance."""
        above = self.intact.mean(dtype=np.float64) - self.chance
        low = self.estimate(samples, seed, confidence).low
        return bool(above >= ABOVE_CHANCE and low >= NO_RELIANCE_KL)


def reliance(
    model: nn.Module,
    batches: Batches,
    layers: str | Iterable[str],
    unit: str = "attention",
    value: str = "zero",
    *,
    seed: int = 0,
    ablator: Ablator | None = None,
    others: Others | None = None,
) -> Reliance:
    """Remove all units of some layers at once, for two forward passes an image.

    Arguments as for `ablation_profile`, whose D_all this is: a few hundred images tell how units
    compare, and many more whether they matter at all. ValueError for batches without images.
    Chapter 5.1.
    """
    units = units_of(model, layers, unit, seed=seed)
    ablator = ablator or Ablator(model)
    batches, others = ready(value, units.layers, batches, ablator, others, seed)
    shapes: dict[str, torch.Size] = {}
    parts = []
    for images, labels, index in tqdm(batches, "reliance", disable=None, leave=False):
        if not shapes:
            first = units.read(images[:1])
            shapes = {layer: found.scores.shape[1:] for layer, found in first.items()}
        put = dict.fromkeys(shapes, value)
        if value == "resample":
            put = units.held(others(index).to(images))
        specs = [
            units.spec(layer, images.new_ones(len(images), *shape), put[layer])
            for layer, shape in shapes.items()
        ]
        _, found = outcomes(ablator, images, labels, [("all", specs)])
        kl, right = found.kl.astype(np.float32), found.right
        parts.append(Reliance(index.numpy(force=True), kl[1], *right, 1 / found.classes))
    if not parts:
        raise ValueError("Nothing shows a reliance: the batches hold no images.")
    return Reliance.merged(parts)
