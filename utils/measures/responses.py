"""Responses and logits as measures take them: real, finite, of one sign where it matters."""

import math

import torch
from torch import Tensor, nn


def float_responses(x, what: str) -> Tensor:
    """Responses as float32, or float64 if they came so; half is upcast before any square.

    Args:
        x: A tensor, an array or a list.
        what: The name of the measure, for the error.

    Returns:
        The responses, detached.

    Raises:
        ValueError: For what is no tensor of numbers, and for an empty or complex one.
    """
    try:
        x = torch.as_tensor(x).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{what} needs a tensor, an array or a list of numbers of one shape, got "
            f"{type(x).__name__}: give such responses."
        ) from error
    if x.is_complex():
        raise ValueError(f"{what} needs real responses, got {x.dtype}: give their modulus.")
    if x.numel() == 0:
        raise ValueError(f"{what} got an empty tensor of shape {tuple(x.shape)}: give responses.")
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def check_range(low: float, high: float, what: str, signed: bool) -> None:
    """Refuse responses whose extremes show NaN, infinity or forbidden signs.

    Args:
        low: The smallest response.
        high: The largest.
        what: The name of the measure, for the error.
        signed: Whether responses below zero are allowed.

    Raises:
        ValueError: With what to do about it.
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(
            f"{what} got NaN or infinite responses: find the layer that makes them "
            "(half precision overflows above 65504) before measuring."
        )
    if low < 0 and not signed:
        raise ValueError(
            f"{what} is defined for responses of zero or more, got a minimum of {low:.3g}: "
            "rectify them, or use a measure of signed responses (excess_kurtosis)."
        )


def checked(x, what: str, signed: bool = False) -> Tensor:
    """`float_responses` that are finite and, unless `signed`, not negative; one pass.

    Args:
        x: A tensor, an array or a list.
        what: The name of the measure, for the error.
        signed: Whether responses below zero are allowed.

    Returns:
        The responses, detached.

    Raises:
        ValueError: As `float_responses` and `check_range`.
    """
    x = float_responses(x, what)
    low, high = (bound.item() for bound in x.aminmax())  # carries NaN along
    check_range(low, high, what, signed)
    return x


def finite_logits(logits: Tensor, model: nn.Module | None = None) -> Tensor:
    """Logits as they are, if a decision or a loss can be made of them: the argmax of NaN is 0.

    Args:
        logits: [batch, classes].
        model: Whose they are, for the error.

    Returns:
        The logits.

    Raises:
        ValueError: For NaN or infinite logits.
    """
    if not bool(logits.isfinite().all()):
        while isinstance(model, nn.Sequential) and len(model):
            model = model[-1]  # behind a Normalize
        owner = "The model" if model is None else type(model).__name__
        bad = int((~logits.isfinite()).flatten(1).any(1).sum())
        raise ValueError(
            f"{owner} gave NaN or infinite logits for {bad} of {len(logits)} images, which decide "
            "nothing: check its weights and images, or use a wider precision."
        )
    return logits


def scaled(x: Tensor, dim: int = -1) -> Tensor:
    """Responses in float64 over their largest where their powers would leave its range.

    For measures that do not depend on the scale. Float32 needs none, for its powers are in range.

    Args:
        x: Responses.
        dim: The axis of those that are measured together.

    Returns:
        The same responses, or multiples of them.
    """
    if x.dtype != torch.float64:
        return x
    largest = x.abs().amax(dim, keepdim=True)
    extreme = (largest > 1e50) | ((largest < 1e-50) & (largest > 0))
    return x / torch.where(extreme, largest, 1.0)


def float64(x: Tensor) -> Tensor:
    """`x` in float64, on the CPU where its device has no float64 (MPS)."""
    return (x.cpu() if x.device.type == "mps" else x).double()
