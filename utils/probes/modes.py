"""Training and evaluation mode, as the parts of a model are in it that it makes a difference to."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

from torch import nn

from .hooks import listed

CHANCES = ("p", "drop_prob", "drop_rate", "dropout", "dropout_p")  # what dropout calls its own


def in_training(model: nn.Module) -> list[str]:
    """The names of the parts in training mode that have parameters, buffers or a chance to drop.

    A part that only holds others does not count: what it says of itself changes nothing.

    Args:
        model: Any model.

    Returns:
        The names, in model order; that of the model itself is its class.

    Example:
        >>> from torch import nn
        >>> from utils.probes.modes import in_training
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval()
        >>> in_training(nn.Sequential(model, nn.Dropout(0.5)))
        ['1']
    """
    owner = type(model).__name__
    parts = model.named_modules()
    return [name or owner for name, part in parts if part.training and _makes_a_difference(part)]


def _makes_a_difference(part: nn.Module) -> bool:
    own = chain(part.parameters(recurse=False), part.buffers(recurse=False))
    chances = (vars(part).get(name) for name in CHANCES)
    drops = any(isinstance(each, int | float) and 0 < each <= 1 for each in chances)
    return drops or isinstance(part, nn.RReLU) or next(own, None) is not None


def refuse_training(model: nn.Module) -> None:
    """Refuse a model of which any part is in training mode, for its answers then change.

    Args:
        model: Any model.

    Raises:
        ValueError: If there is such a part, with its name.
    """
    if parts := in_training(model):
        all_parts = sum(map(_makes_a_difference, model.modules()))
        which = "" if len(parts) == all_parts else f" (of its parts, {listed(parts)})"
        raise ValueError(
            f"{type(model).__name__} is in training mode{which}: call its eval() first."
        )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, all parts of a model are in evaluation mode; afterwards each is as it was."""
    training = [part for part in model.modules() if part.training]
    try:
        for part in training:
            part.training = False
        yield
    finally:
        for part in training:
            part.training = True
