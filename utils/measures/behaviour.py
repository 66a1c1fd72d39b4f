"""What a model decides, trial by trial: shape or texture, like whom, and despite what changes.

Decisions are int64 [trials]; −1 stands for none of the classes. Models take images in 0 … 1: where
one wants them normalised, measure `nn.Sequential(Normalize(mean, std), model)`. Results are per
image, so parts of a set can be concatenated. Chapters 2.3 and 2.5.
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
from .responses import finite_logits
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

# What the trials published with the cue-conflict stimuli give, counted as `shape_bias` counts
# [geirhos2019imagenet]: the shape bias, and the share of the trials in conflict that it decides.
PUBLISHED_TRIALS = {"people": (0.9587, 0.803), "ResNet-50": (0.2207, 0.612)}


def categories_of(logits: Tensor) -> Tensor:
    """The everyday category that ImageNet logits decide for.

    The category with the largest mean probability of its classes, as in geirhos2019imagenet.

    Args:
        logits: [batch, 1000].

    Returns:
        Indices into CATEGORIES [batch].

    Raises:
        ValueError: For other numbers of classes, NaN and infinite logits.

    Example:
        >>> import torch
        >>> from utils.measures import behaviour
        >>> logits = torch.zeros(1, 1000)
        >>> logits[0, 281] = 20.0  # a tabby cat
        >>> list(behaviour.CATEGORIES)[behaviour.categories_of(logits).item()]
        'cat'
    """
    if logits.ndim != 2 or logits.shape[1] != 1000:
        raise ValueError(f"ImageNet logits are [batch, 1000], not {list(logits.shape)}.")
    p = finite_logits(logits).softmax(-1)
    means = [p[:, list(classes)].mean(1) for classes in CATEGORIES.values()]
    return torch.stack(means, 1).argmax(1)


class ShapeBias(NamedTuple):
    """How often the shape was named, of the trials in which either cue was.

    Attributes:
        bias: Shape / (shape + texture).
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        decided: The share of the trials in conflict in which either cue was named.
        trials: How many trials were in conflict.
    """

    bias: float
    low: float
    high: float
    decided: float
    trials: int


def shape_bias(decisions: Tensor, shape: Tensor, texture: Tensor) -> ShapeBias:
    """How often, where shape and texture conflict and either is named, it is the shape.

    Trials without conflict are left out. Wilson's interval, of trials that are independent: one
    observer's, each image once. Source: geirhos2019imagenet. Chapter 2.5.

    Args:
        decisions: int64 [trials].
        shape: int64 [trials], the class of the shape.
        texture: int64 [trials], the class of the texture.

    Returns:
        The ShapeBias; NaN if no trial was decided.

    Raises:
        ValueError: For unequal lengths and no conflict.

    Example:
        >>> import torch
        >>> from utils.measures import behaviour
        >>> shape, texture = torch.tensor([0, 0, 0, 0]), torch.tensor([1, 1, 1, 1])
        >>> found = behaviour.shape_bias(torch.tensor([0, 0, 1, 2]), shape, texture)
        >>> round(found.bias, 3), found.decided
        (0.667, 0.75)
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
    """The error consistency κ, and what it could be at these two accuracies.

    Attributes:
        kappa: κ.
        lowest: The lowest possible κ.
        highest: The highest possible κ.
        observed: The share of trials in which both are right or both are wrong.
        expected: That share for independent errors.
    """

    kappa: float
    lowest: float
    highest: float
    observed: float
    expected: float


def error_consistency(right_a: Tensor, right_b: Tensor) -> ErrorConsistency:
    """Whether two observers are right and wrong in the same trials, beyond their accuracies: κ.

    κ = (c_obs − c_exp) / (1 − c_exp), where c_exp = pₐp_b + (1 − pₐ)(1 − p_b): 0 for independent
    errors, 1 for the same ones. Source: geirhos2020beyond. Chapter 2.5.

    Args:
        right_a: bool [trials], where one observer was right.
        right_b: bool [trials], where the other was.

    Returns:
        The ErrorConsistency; NaN where both are always right or always wrong.

    Raises:
        ValueError: For unequal lengths and answers that are not bool.

    Example:
        >>> import torch
        >>> from utils.measures import behaviour
        >>> a = torch.tensor([True, True, False, False])
        >>> b = torch.tensor([True, False, True, False])
        >>> behaviour.error_consistency(a, a).kappa, behaviour.error_consistency(a, b).kappa
        (1.0, 0.0)
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
    """The error consistency with several people.

    Attributes:
        kappa: The mean κ.
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        se: Its standard error.
    """

    kappa: float
    low: float
    high: float
    se: float


def consistency_with_people(
    right: Tensor, people: Tensor, samples: int = 2000, seed: int = 0
) -> PeopleConsistency:
    """How far errors are those of people: the mean over people of the error consistency κ.

    A bootstrap over trials and people together, from the draws in which every κ is defined. Source:
    geirhos2020beyond. Chapter 2.5.

    Args:
        right: bool [trials].
        people: bool [people, trials], who was right in the same trials.
        samples: Bootstrap samples.
        seed: Of the samples.

    Returns:
        The PeopleConsistency; NaN where one κ is not defined in the trials as they are (see
        `error_consistency`).

    Raises:
        ValueError: For unequal lengths, answers that are not bool, and nobody.

    Example:
        >>> import torch
        >>> from utils.measures import behaviour
        >>> right = torch.arange(40) % 3 > 0
        >>> found = behaviour.consistency_with_people(right, torch.stack([right, right]))
        >>> round(found.kappa, 3)
        1.0
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
    """The class that the model decides for each image, on the CPU.

    Args:
        model: Takes images and gives logits; its mode is left as it was.
        images: [n, 3, h, w].
        batch: How many are taken at a time.

    Returns:
        int64 [n].

    Raises:
        ValueError: For NaN and infinite logits.

    Example:
        >>> import torch
        >>> from utils.measures import behaviour
        >>> from utils.models import zoo
        >>> behaviour.decisions(zoo.load("vit-d6-h4"), torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2])
    """
    device = next(model.parameters()).device
    with _undisturbed(model):
        logits = torch.cat([model(x.to(device)).cpu() for x in images.split(batch)])
    return finite_logits(logits, model).argmax(1)


class Retained(NamedTuple):
    """What is left of an accuracy.

    Attributes:
        share: Of the accuracy above chance.
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        clean: The accuracy on the images as they are.
        changed: The accuracy on the changed ones.
    """

    share: float
    low: float
    high: float
    clean: float
    changed: float


def retained_accuracy(
    right_clean: Tensor, right_changed: Tensor, chance: float = 0.0, seed: int = 0
) -> Retained:
    """What is left of the accuracy above chance when the same images are changed: (A−c)/(A₀−c).

    1 is unharmed, 0 is chance. Paired bootstrap over images (9,999 draws, percentiles). Chapter
    2.5; 2.3 for permuted patches.

    Args:
        right_clean: bool [images].
        right_changed: bool [images].
        chance: c, 0 for a plain ratio of accuracies.
        seed: Of the bootstrap.

    Returns:
        What is Retained; NaN where A₀ is not above chance, with an interval of NaN where it is not
        in
        every draw.

    Raises:
        ValueError: For unequal lengths and answers that are not bool.

    Example:
        >>> import torch
        >>> from utils.measures import behaviour
        >>> clean, changed = torch.arange(100) < 80, torch.arange(100) < 40
        >>> behaviour.retained_accuracy(clean, changed).share
        0.5
    """
    _right(right_clean, right_changed)
    a, b = right_clean.numpy(force=True), right_changed.numpy(force=True)
    # Images count only by their outcome, so one draw of n images is one multinomial of four.
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
    """The share of decisions that stay when images move up, down, left and right.

    Its mean is the model's consistency. Chapter 2.3.

    Args:
        model: Takes images and gives logits.
        images: [n, 3, h, w].
        pixels: How far they move.

    Returns:
        float64 in 0 … 1 [n], one value for each image.

    Raises:
        ValueError: As `psychophysics.shift`.

    Example:
        >>> import torch
        >>> from utils.measures import behaviour
        >>> from utils.models import zoo
        >>> behaviour.shift_consistency(zoo.load("vit-d6-h4"), torch.zeros(2, 3, 32, 32), pixels=1)
        tensor([1., 1.], dtype=torch.float64)
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
    """Adversarial images: projected gradient ascent of the loss within ±epsilon.

    Steps of 2.5 · epsilon / steps along the sign of the gradient, in evaluation mode. The model is
    left as it was. Source: madry2018towards, and bai2021are for its use. Chapter 2.5.

    Args:
        model: Takes images in 0 … 1 and gives logits.
        images: [n, 3, h, w] in 0 … 1, where the result stays.
        labels: int64 [n].
        epsilon: The largest change of a value.
        steps: How many.
        seed: Of the random start.
        index: int64 [n], keys the random start with the seed; 0 … n − 1 if None.

    Returns:
        The changed images [n, 3, h, w].

    Raises:
        ValueError: For images outside of 0 … 1, a negative epsilon, no step, logits that are
            NaN or infinite, and gradients that are NaN.

    Example:
        >>> import torch
        >>> from utils.measures import behaviour
        >>> from utils.models import zoo
        >>> images, labels = torch.full((2, 3, 32, 32), 0.5), torch.tensor([0, 1])
        >>> changed = behaviour.pgd(zoo.load("vit-d6-h4"), images, labels, epsilon=0.01, steps=2)
        >>> round((changed - images).abs().max().item(), 4)
        0.01
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
            logits = finite_logits(model(x), model)
            loss = F.cross_entropy(logits, labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, x)
            if gradient.isnan().any():  # the sign of NaN is 0: nothing would be attacked
                raise ValueError(
                    f"The gradient of {type(model).__name__} is NaN, so that no image can be made "
                    "of it: find the layer that makes it (a square root of 0, say)."
                )
            moved = x.detach() + 2.5 * epsilon / steps * gradient.sign()
            x = (images + (moved - images).clamp(-epsilon, epsilon)).clamp(0, 1)
    return x
