"""Responses as measures take them: real, floating, finite, of one sign where it matters."""

import math

import torch
from torch import Tensor


def float_responses(x, what: str) -> Tensor:
    """Responses as float32, or float64 if they came so; half is upcast before any square.

    Args:
        x: A tensor, an array or a list.
        what: The name of the measure, for the error.

    Returns:
        The responses, detached.

    Raises:
        ValueError: For an empty or complex input.
    """
    x = torch.as_tensor(x).detach()
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


def float64(x: Tensor) -> Tensor:
    """`x` in float64, on the CPU where its device has no float64 (MPS)."""
    return (x.cpu() if x.device.type == "mps" else x).double()
