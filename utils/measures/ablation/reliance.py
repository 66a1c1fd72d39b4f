"""Whether a network relies on some layers at all, told on any number of images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ...probes import Ablator
from ..statistics import Estimate, bootstrap_means, percentiles
from .curves import ABOVE_CHANCE, NO_RELIANCE_KL
from .outcomes import Batches, Others, outcomes, ready
from .units import Named, Replacement, units_of


@dataclass
class Reliance:
    """What removing everything does to each image; parts of different images can be `merged`.

    Attributes:
        index: Global indices of the images [images].
        kl: KL(intact ‖ all removed) in nats [images].
        intact: Whether the answer was right [images].
        removed: Whether it was right with everything removed [images].
        chance: Accuracy of guessing, in 0 … 1.
    """

    index: np.ndarray
    kl: np.ndarray
    intact: np.ndarray
    removed: np.ndarray
    chance: float

    @classmethod
    def merged(cls, parts: Sequence["Reliance"]) -> "Reliance":
        """That of all images, sorted by index, from those of minibatches or ranks.

        Args:
            parts: Of different images.
        """
        order = np.argsort(np.concatenate([part.index for part in parts]))

        def whole(name: str) -> np.ndarray:
            return np.concatenate([getattr(part, name) for part in parts])[order]

        return cls(
            index=whole("index"),
            kl=whole("kl"),
            intact=whole("intact"),
            removed=whole("removed"),
            chance=parts[0].chance,
        )

    def estimate(self, samples: int = 2000, seed: int = 0, confidence: float = 0.95) -> Estimate:
        """D_all, the mean KL in nats, with a bootstrap interval over images.

        Args:
            samples: Bootstrap samples.
            seed: Of the samples.
            confidence: Of the interval.

        Raises:
            ValueError: For a single image.
        """
        means = bootstrap_means({"kl": self.kl}, samples, seed)["kl"]
        return percentiles(means, len(self.index), confidence)

    def exists(self, samples: int = 2000, seed: int = 0, confidence: float = 0.95) -> bool:
        """Whether the network relies on the layers.

        It does where the lower bound of D_all is 0.01 nats or more, and the intact accuracy 10
        points above chance.

        Args:
            samples: Bootstrap samples.
            seed: Of the samples.
            confidence: Of the interval.
        """
        above = self.intact.mean(dtype=np.float64) - self.chance
        low = self.estimate(samples, seed, confidence).low
        return bool(above >= ABOVE_CHANCE and low >= NO_RELIANCE_KL)


def reliance(
    model: nn.Module,
    batches: Batches,
    layers: str | Iterable[str],
    unit: str = "attention",
    value: Replacement = "zero",
    *,
    seed: int = 0,
    ablator: Ablator | None = None,
    others: Others | None = None,
) -> Reliance:
    """Remove all units of some layers at once, for two forward passes an image.

    This is D_all of `ablation_profile`, whose arguments it takes: a few hundred images tell how
    units compare, and many more whether they matter at all. Chapter 5.1.

    Args:
        model: Any network that Ablator takes, in eval mode.
        batches: (images [b, 3, h, w], labels [b], index [b]) each.
        layers: Glob or globs, the scope.
        unit: As for `ablation.units.units_of`.
        value: What replaces the units, as for `ablation_profile`.
        seed: Of the images that "resample" takes.
        ablator: As for `ablation_profile`.
        others: As for `ablation_profile`.

    Returns:
        The Reliance of all images.

    Raises:
        ValueError: For batches without images, and as Ablator.

    Example:
        >>> import torch
        >>> from utils.measures.ablation import reliance
        >>> from utils.models import zoo
        >>> from utils.stimuli import objects
        >>> stimuli = objects.load(n=8)
        >>> batches = [(stimuli.images, stimuli.labels, torch.arange(8))]
        >>> found = reliance(zoo.load("vit-d6-h4"), batches, "*.attn")
        >>> found.kl.shape, found.chance, bool((found.kl > 0).all())
        ((8,), 0.1, True)
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
        put: Mapping[str, Named | Tensor]
        if value == "resample":
            assert others is not None  # `ready` has found them
            put = units.held(others(index).to(images))
        else:
            put = dict.fromkeys(shapes, value)
        specs = [
            units.spec(layer, images.new_ones(len(images), *shape), put[layer])
            for layer, shape in shapes.items()
        ]
        _, found = outcomes(ablator, images, labels, [("all", specs)])
        kl = found.kl.astype(np.float32)[1]
        intact, removed = found.right
        parts.append(Reliance(index.numpy(force=True), kl, intact, removed, 1 / found.classes))
    if not parts:
        raise ValueError("Nothing shows a reliance: the batches hold no images.")
    return Reliance.merged(parts)
