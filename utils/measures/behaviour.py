"""What a model decides, trial by trial: shape or texture, like whom, and despite what changes.

Decisions are int64 [trials]; −1 stands for none of the classes. Models take images in 0 … 1: where
one wants them normalised, measure `nn.Sequential(Normalize(mean, std), model)`. What is found for
an image depends on no other, so that parts of a set can be joined. Chapters 2.3 and 2.5.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor, nn
from torch.nn import functional as F

from ..stimuli import psychophysics
from .statistics import percentiles

# The sixteen everyday categories as classes of ImageNet-1k, 207 in all, as geirhos2019imagenet
# published them (human_categories.py in rgeirhos/texture-vs-shape). It cannot be derived: classes
# were left out by hand; eight breeds, such as the boxer and the chow, are missing from the dogs.
_NO_DOG = {192, 204, 227, 242, 251, 258, 260, 264}
CATEGORIES: dict[str, tuple[int, ...]] = {
    "airplane": (404,),
    "bear": (294, 295, 296, 297),
    "bicycle": (444, 671),
    "bird": (
        *(8, *range(10, 17), *range(18, 21), *range(22, 25), *range(80, 84), *range(87, 97)),
        *(*range(98, 101), *range(127, 134), *range(135, 146)),
    ),
    "boat": (472, 554, 625, 814, 914),
    "bottle": (440, 720, 737, 898, 899, 901, 907),
    "car": (436, 511, 817),
    "cat": tuple(range(281, 287)),
    "chair": (423, 559, 765, 857),
    "clock": (409, 530, 892),
    "dog": tuple(i for i in range(152, 269) if i not in _NO_DOG),
    "elephant": (385, 386),
    "keyboard": (508, 878),
    "knife": (499,),
    "oven": (766,),
    "truck": (555, 569, 656, 675, 717, 734, 864, 867),
}


def categories_of(logits: Tensor) -> Tensor:
    """The category [batch], an index into CATEGORIES, that ImageNet logits [batch, 1000] decide.

    The category with the largest mean probability of its classes, as in geirhos2019imagenet.
    ValueError for other numbers of classes.
    """
    if logits.ndim != 2 or logits.shape[1] != 1000:
        raise ValueError(f"ImageNet logits are [batch, 1000], not {list(logits.shape)}.")
    p = logits.softmax(-1)
    means = [p[:, list(classes)].mean(1) for classes in CATEGORIES.values()]
    return torch.stack(means, 1).argmax(1)


class ShapeBias(NamedTuple):
    """`bias` = shape / (shape + texture) with its 95 % interval, and the share of `decided` trials:
    those in which either cue was named; `trials` in conflict."""

    bias: float
    low: float
    high: float
    decided: float
    trials: int


def shape_bias(decisions: Tensor, shape: Tensor, texture: Tensor) -> ShapeBias:
    """How often, where shape and texture conflict and either is named, it is the shape.

    decisions, shape, texture : int64 [trials]; trials without conflict are left out. Wilson's
    interval, of trials that are independent: one observer's, each image once. Bias NaN if no trial
    was decided. ValueError for unequal lengths and no conflict. Source: geirhos2019imagenet.
    Chapter 2.5.
    """
    _same_length(decisions, shape, texture)
    conflict = shape != texture
    trials = int(conflict.sum())
    if not trials:
        raise ValueError("Shape and texture agree in all trials: show stimuli in conflict.")
    by_shape = int((decisions == shape)[conflict].sum())
    decided = by_shape + int((decisions == texture)[conflict].sum())
    if not decided:
        return ShapeBias(math.nan, math.nan, math.nan, 0.0, trials)
    low, high = map(float, binomtest(by_shape, decided).proportion_ci(method="wilson"))
    return ShapeBias(by_shape / decided, low, high, decided / trials, trials)


class ErrorConsistency(NamedTuple):
    """`kappa`, and its `lowest` and `highest` possible value at these two accuracies."""

    kappa: float
    lowest: float
    highest: float
    observed: float
    expected: float


def error_consistency(right_a: Tensor, right_b: Tensor) -> ErrorConsistency:
    """Whether two observers are right and wrong in the same trials, beyond their accuracies: κ.

    right_a, right_b : bool [trials]. κ = (c_obs − c_exp) / (1 − c_exp), where c_exp = pₐp_b +
    (1 − pₐ)(1 − p_b): 0 for independent errors, 1 for the same ones; NaN where both are always
    right or always wrong. ValueError for unequal lengths and answers that are not bool.
    Source: geirhos2020beyond. Chapter 2.5.
    """
    _right(right_a, right_b)
    a, b = right_a.double(), right_b.double()
    p, q = a.mean().item(), b.mean().item()
    observed = (a == b).double().mean().item()
    expected = p * q + (1 - p) * (1 - q)
    if 1 - expected < 1e-12:
        return ErrorConsistency(math.nan, math.nan, math.nan, observed, expected)
    # Two sets of shares p and q agree most where one holds the other, least where they are apart.
    bounds = (abs(p + q - 1), 1 - abs(p - q))
    kappa, lowest, highest = ((c - expected) / (1 - expected) for c in (observed, *bounds))
    return ErrorConsistency(kappa, lowest, highest, observed, expected)


class PeopleConsistency(NamedTuple):
    """The mean `kappa` with several people, its 95 % interval and its standard error."""

    kappa: float
    low: float
    high: float
    se: float


def consistency_with_people(
    right: Tensor, people: Tensor, samples: int = 2000, seed: int = 0
) -> PeopleConsistency:
    """How far errors are those of people: the mean over people of the error consistency κ.

    right : bool [trials]; people : bool [people, trials], who was right in the same trials

    A bootstrap over trials and people together, from the draws in which every κ is defined; NaN
    where one is not in the trials as they are (see `error_consistency`). ValueError for unequal
    lengths, answers that are not bool, and nobody.
    Source: geirhos2020beyond. Chapter 2.5.
    """
    if not len(people):
        raise ValueError("There is nobody to compare with: give the answers of one person or more.")
    _right(right, *people)
    a, b = right.double().numpy(), people.double().numpy().T  # [trials], [trials, people]
    n, observers = b.shape
    rng = np.random.default_rng(seed)
    weights = np.vstack([np.ones(n), rng.multinomial(n, np.full(n, 1 / n), samples)])
    drawn = rng.multinomial(observers, np.full(observers, 1 / observers), samples)
    among = np.vstack([np.ones(observers), drawn]) / observers
    p, q, agree = (weights @ x / n for x in (a[:, None], b, a[:, None] == b))
    expected = p * q + (1 - p) * (1 - q)
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa = ((agree - expected) / (1 - expected) * among).sum(1)
    found = percentiles(kappa, n)
    se = float(np.nanstd(kappa[1:], ddof=1)) if np.isfinite(found.low) else math.nan
    return PeopleConsistency(found.estimate, found.low, found.high, se)


def _same_length(*parts: Tensor) -> None:
    lengths = {len(part) for part in parts}
    if len(lengths) > 1 or 0 in lengths:
        raise ValueError(
            f"Decisions of {sorted(lengths)} trials cannot be compared: give the same trials, at "
            "least one."
        )


def _right(*parts: Tensor) -> None:
    _same_length(*parts)
    for part in parts:
        if part.dtype != torch.bool:
            raise ValueError(
                f"Give which answers were right as bool, decisions == labels, not {part.dtype}."
            )


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients for parameters; afterwards all is as it was."""
    modes = [(module, module.training) for module in model.modules()]
    wanted = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield
    finally:
        for module, training in modes:
            module.training = training
        for parameter, flag in wanted:
            parameter.requires_grad_(flag)


@torch.no_grad()
def decisions(model: nn.Module, images: Tensor, batch: int = 250) -> Tensor:
    """The class [n] that the model decides for images [n, 3, h, w], on the CPU."""
    device = next(model.parameters()).device
    with _undisturbed(model):
        return torch.cat([model(x.to(device)).argmax(1).cpu() for x in images.split(batch)])


class Retained(NamedTuple):
    """`share` of the accuracy that is left, with its 95 % interval, and both accuracies."""

    share: float
    low: float
    high: float
    clean: float
    changed: float


def retained_accuracy(
    right_clean: Tensor, right_changed: Tensor, chance: float = 0.0, seed: int = 0
) -> Retained:
    """What is left of the accuracy above chance when the same images are changed: (A−c)/(A₀−c).

    right_clean, right_changed : bool [images]; chance : c, 0 for a plain ratio of accuracies

    1 is unharmed, 0 is chance. Paired bootstrap over images (9,999 draws, percentiles). NaN where
    A₀ is not above chance; an interval of NaN where it is not in every draw. ValueError for unequal
    lengths and answers that are not bool. Chapter 2.5; 2.3 for permuted patches.
    """
    _right(right_clean, right_changed)
    a, b = right_clean.numpy(force=True), right_changed.numpy(force=True)
    # Images count only by their outcome, hence one draw of n images is one multinomial of four.
    counts = np.array([(a & b).sum(), (a & ~b).sum(), (~a & b).sum(), (~a & ~b).sum()])
    draws = np.random.default_rng(seed).multinomial(len(a), counts / len(a), 9_999)

    def share(outcomes: np.ndarray) -> np.ndarray:
        above = (outcomes[..., 0] + outcomes[..., 1]) / len(a) - chance
        left = (outcomes[..., 0] + outcomes[..., 2]) / len(a) - chance
        return np.divide(left, above, out=np.full_like(above, np.nan), where=above > 0)

    low, high = np.quantile(share(draws), (0.025, 0.975))
    found = share(counts[None])[0]
    return Retained(float(found), float(low), float(high), float(a.mean()), float(b.mean()))


def shift_consistency(model: nn.Module, images: Tensor, pixels: int) -> Tensor:
    """The share of decisions [n] that stay when images [n, 3, h, w] move up, down, left and right.

    pixels : how far. float64 in 0 … 1, one of each image, so that parts can be joined; its mean is
    the model's consistency. Raises as `psychophysics.shift`. Chapter 2.3.
    """
    still = decisions(model, images)
    moves = [(pixels, 0), (-pixels, 0), (0, pixels), (0, -pixels)]
    kept = [decisions(model, psychophysics.shift(images, *move)) == still for move in moves]
    return torch.stack(kept).double().mean(0)  # [moves, n] → [n]


def pgd(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    steps: int = 20,
    seed: int = 0,
    index: Tensor | None = None,
) -> Tensor:
    """Adversarial images [n, 3, h, w]: projected gradient ascent of the loss within ±epsilon.

    images : in 0 … 1, where the result stays; epsilon : the largest change of a value
    index : int64 [n], keys the random start with the seed; 0 … n − 1 if None

    Steps of 2.5 · epsilon / steps along the sign of the gradient, in evaluation mode. The model is
    left as it was. ValueError for images outside of 0 … 1, a negative epsilon and no step.
    Source: madry2018towards, and bai2021are for its use. Chapter 2.5.
    """
    if not 0 <= float(images.min()) <= float(images.max()) <= 1:
        raise ValueError(
            "PGD takes images in 0 … 1: where a model wants them normalised, attack "
            "nn.Sequential(Normalize(mean, std), model)."
        )
    if epsilon < 0 or steps < 1:
        raise ValueError(f"PGD takes an epsilon ≥ 0 and steps ≥ 1, not {epsilon} and {steps}.")
    keys = range(len(images)) if index is None else index.tolist()
    starts = [np.random.default_rng((seed, i)).uniform(-1, 1, images.shape[1:]) for i in keys]
    x = images + epsilon * torch.from_numpy(np.stack(starts)).float().to(images)
    x = x.clamp(0, 1)
    with _undisturbed(model), torch.enable_grad():
        for _ in range(steps):
            x.requires_grad_(True)
            loss = F.cross_entropy(model(x), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x)
            moved = x.detach() + 2.5 * epsilon / steps * gradient.sign()
            x = (images + (moved - images).clamp(-epsilon, epsilon)).clamp(0, 1)
    return x
