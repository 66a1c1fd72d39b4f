"""How each model is trained: optimiser, rates and epochs, and the levels of equal loss."""

import math
from dataclasses import dataclass, replace

from utils.models.architectures import CNNS, Spec

LOSS_LEVELS = (2.0, 1.5, 1.2, 1.0, 0.9, 0.8, 0.6, 0.5, 0.4, 0.3)  # nats, compared at equal loss


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: cross-entropy, no augmentation; warm-up, a constant rate, descent.

    Attributes:
        optimizer: One of timm's; "nmuon" takes the weights of linear maps and convolutions,
            the classifier apart, and gives all else to NAdamW at `fallback` times the rate.
        lr: The constant rate.
        weight_decay: Of the optimizer.
        batch_size: Images a step.
        epochs: All in all.
        warmup: Epochs of the linear rise to `lr`.
        descent: Epochs of the fall to zero, which is linear or half a cosine.
        cosine: Whether it is half a cosine.
        fallback: Share of the rate for what "nmuon" leaves to NAdamW.
        branches: Nats; where the running mean of the training loss falls below one of these while
            the rate is constant, a copy of the model goes down to zero by itself within `branch`
            epochs, so that models can be compared at equal loss in the same phase of their
            training.
        branch: Epochs of their descent.
    """

    optimizer: str
    lr: float
    weight_decay: float
    batch_size: int = 128
    epochs: float = 6
    warmup: float = 0.5
    descent: float = 5.5
    cosine: bool = True
    fallback: float = 1.0
    branches: tuple[float, ...] = ()
    branch: float = 0.2

    def __post_init__(self) -> None:
        if self.descent <= 0 or self.warmup < 0 or self.warmup + self.descent > self.epochs + 1e-9:
            raise ValueError(
                f"A warm-up of {self.warmup:g} epochs and a descent of {self.descent:g} do not fit "
                f"into {self.epochs:g}: set epochs, warmup and descent together."
            )

    def lr_at(self, epochs: float) -> float:
        """The learning rate after that many epochs, which may be a fraction."""
        if epochs < self.warmup:
            return self.lr * epochs / self.warmup
        left = min(1.0, max(0.0, self.epochs - epochs) / self.descent)
        return self.lr * ((1 - math.cos(math.pi * left)) / 2 if self.cosine else left)

    def straight(self, epoch: float) -> "Recipe":
        """The recipe of a branch that leaves this one after so many epochs."""
        ends = dict(epochs=epoch + self.branch, descent=self.branch, cosine=False)
        return replace(self, **ends, branches=())

    def is_constant(self, epochs: float) -> bool:
        """Whether the rate has reached its peak and does not fall yet."""
        return self.warmup <= epochs <= self.epochs - self.descent


VIEWS = {"objects": 50_000, "cifar10": 45_000}  # of an epoch


# A sweep on objects is compared at the lowest of these levels that all its models reach.
BRANCHES = (0.9, 0.6)


# By the pilots in results/pilots.csv: 4 epochs bring a ViT of six layers within three points of a
# ResNet. The rate of CNNs is that of he2016deep, doubled.
MUON = Recipe(
    "nmuon",
    lr=0.01,
    weight_decay=0.01,
    batch_size=64,
    epochs=4,
    warmup=0.1,
    descent=1.6,
    cosine=False,
    fallback=0.3,
    branches=BRANCHES,
)


SGD = Recipe(
    "sgd",
    lr=0.2,
    weight_decay=5e-4,
    epochs=4,
    warmup=0.1,
    descent=1.6,
    cosine=False,
    branches=BRANCHES,
)


# On CIFAR-10 peak rates are the best on average, on validation after 100,000 views of objects, over
# the shallowest and the deepest model of a sweep (one seed): for Transformers of ½, 1 and 2 times
# it, for CNNs of 1 and 2 times that of he2016deep. How long to train is a choice and not tuned.
ADAMW = Recipe("adamw", lr=1e-3, weight_decay=0.05, epochs=10, descent=9.5)


LONG_SGD = Recipe("sgd", lr=0.2, weight_decay=5e-4, epochs=10, descent=9.5)


# Rung → recipe of Transformers (and mixers and hybrids), and of CNNs.
RECIPES = {"objects": (MUON, SGD), "cifar10": (ADAMW, LONG_SGD)}


def recipe_of(spec: Spec) -> Recipe:
    """How the model of that name is trained."""
    return RECIPES[spec.rung][spec.family in CNNS]
