"""What conditions do to each image, and what must be known of the data before they are run."""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from ...probes import AblationSpec, Ablator
from ...probes.ablation.draws import keyed_others
from ...probes.ablation.memory import tensor_bytes
from ..responses import finite_logits, float64
from .units import Units

CONDITIONS_AT_ONCE = 64  # so that logits of a thousand classes stay small
Batches = Iterable[tuple[Tensor, Tensor, Tensor]]  # images, labels, index
Name = TypeVar("Name", bound=Hashable)  # of a condition
Others = Callable[[Tensor], Tensor]  # indices of images [b] → other images [b, 3, h, w]


class Outcome(NamedTuple):
    """What was done to each image, for each condition: [conditions, batch] each.

    Attributes:
        kl: KL(intact ‖ ablated) in nats.
        right: Whether the answer was right.
        margin: Log-odds of the true class in nats.
        classes: How many there are.
    """

    kl: np.ndarray
    right: np.ndarray
    margin: np.ndarray
    classes: int


def outcomes(
    ablator: Ablator,
    images: Tensor,
    labels: Tensor,
    conditions: Iterable[tuple[Name, list[AblationSpec]]],
) -> tuple[list[Name], Outcome]:
    """What each condition did to images.

    Args:
        ablator: Of the model.
        images: [batch, 3, h, w].
        labels: [batch].
        conditions: (key, specs) each.

    Returns:
        The keys, and the Outcome, in which the intact network comes first.
    """
    conditions = iter(conditions)
    keys: list[Name] = []
    parts: list[Outcome] = []
    while some := list(islice(conditions, CONDITIONS_AT_ONCE)):
        intact, ablated = ablator.run_with_intact(images, [specs for _, specs in some])
        if not parts:
            parts.append(compared(intact, intact[None], labels))
        parts.append(compared(intact, ablated, labels))
        keys += [key for key, _ in some]
    kl, right, margin = (np.concatenate(each) for each in list(zip(*parts, strict=True))[:3])
    return keys, Outcome(kl, right, margin, parts[0].classes)


def compared(intact: Tensor, ablated: Tensor, labels: Tensor) -> Outcome:
    """What is made of logits, intact and ablated.

    Args:
        intact: [batch, classes].
        ablated: [conditions, batch, classes].
        labels: [batch].

    Returns:
        The Outcome of the conditions.

    Raises:
        ValueError: For logits that are not finite, and labels that have none.
    """
    if int(labels.max()) >= intact.shape[-1]:
        raise ValueError(
            f"The network tells {intact.shape[-1]} classes apart, but the data have a label "
            f"{int(labels.max())}: choose data with the network's classes."
        )
    finite_logits(intact)
    finite_logits(ablated.flatten(0, 1))
    p, q = (float64(x).log_softmax(-1) for x in (intact, ablated))
    labels = labels.to(q.device)
    kl = (p.exp() * (p - q)).sum(-1).clamp(min=0)
    own = q.gather(-1, labels.expand(len(q), -1).unsqueeze(-1))
    others = q.scatter(-1, labels.expand(len(q), -1).unsqueeze(-1), -math.inf).logsumexp(-1)
    right = q.argmax(-1) == labels
    return Outcome(
        kl=kl.numpy(force=True),
        right=right.numpy(force=True),
        margin=(own.squeeze(-1) - others).numpy(force=True),
        classes=q.shape[-1],
    )


def affordable(units: Units, batches: Batches, ablator: Ablator) -> Iterator[tuple]:
    """Minibatches in parts so small that the sets of many conditions fit into memory together.

    Args:
        units: Of the layers.
        batches: Tuples that begin with images.
        ablator: Which knows the memory.

    Returns:
        Tuples like those of `batches`, for fewer images each.
    """
    of_one = 0  # bytes of one image's sets in all layers
    for images, *rest in batches:
        of_one = of_one or sum(
            tensor_bytes([spec.keys, spec.channels, spec.units])
            for layer, found in units.read(images[:1]).items()
            for spec in [units.spec(layer, torch.zeros_like(found.scores), "zero")]
        )
        size = max(1, ablator.available(images.device) // (CONDITIONS_AT_ONCE * of_one))
        yield from zip(*(each.split(size) for each in (images, *rest)), strict=True)


def ready(
    value: str, layers: list[str], batches: Batches, ablator: Ablator, others: Others | None, seed
) -> tuple[Batches, Others | None]:
    """The batches, gone through beforehand if the value needs the means or other images of them.

    Args:
        value: What replaces the units.
        layers: Names of layers.
        batches: (images, labels, index) each.
        ablator: Which takes the means.
        others: Gives other images, if known.
        seed: Of the choice of other images.

    Returns:
        The batches, and what gives other images (None unless needed).
    """
    if value == "mean" and any(layer not in ablator.means for layer in layers):
        batches = list(batches)
        ablator.fit_means((images for images, *_ in batches), layers)
    if value == "resample" and others is None:
        batches = list(batches)
        others = others_among(batches, seed)
    return batches, others


def others_among(batches: list[tuple[Tensor, Tensor, Tensor]], seed: int = 0) -> Others:
    """Gives each image of some batches another one of theirs, as `keyed_others` says.

    It is the same in any split into minibatches.

    Args:
        batches: (images, labels, index) each.
        seed: Of the choice.

    Returns:
        A function of indices [b] that gives images [b, 3, h, w].

    Raises:
        ValueError: For fewer than two images.
    """
    images = [image for images, *_ in batches for image in images]
    known, order = torch.cat([index.cpu() for *_, index in batches]).sort()

    def others(index: Tensor) -> Tensor:
        places = torch.searchsorted(known, index.cpu())
        return torch.stack([images[order[i]] for i in keyed_others(seed, places, len(known))])

    return others
