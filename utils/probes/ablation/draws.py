"""Controls of an ablation: random orders keyed by image, mass-matched sets, uniform shrink."""

import math

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15  # splitmix64's increment and multipliers
_OTHERS = -(2**31)  # a draw that no order has
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, None))


def _signed(number: int) -> int:
    """The int64 with the same bits as `number` modulo 2⁶⁴."""
    return (number + 2**63) % 2**64 - 2**63


def _mix(x: Tensor) -> Tensor:
    """splitmix64's finaliser on int64 bits, in wrapping arithmetic."""
    for shift, factor in _MIX:
        x = x ^ ((x >> shift) & (2 ** (64 - shift) - 1))  # a logical shift
        if factor is not None:
            x = x * _signed(factor)
    return x


def _keys(seed: int, index: Tensor, draw: int, count: int) -> Tensor:
    """Random int64 [batch, count] that depend on nothing but (seed, image index, draw)."""
    if index.ndim != 1 or index.is_floating_point() or index.dtype == torch.bool:
        raise ValueError(
            f"Random orders are keyed by whole image indices [batch], not by a {index.dtype} "
            f"tensor of shape {list(index.shape)}."
        )
    state = _mix(torch.tensor(_signed(seed * _GOLDEN), device=index.device) + draw)
    state = _mix(state + _signed(_GOLDEN) * (index.long() + 1))
    numbers = torch.arange(1, count + 1, device=index.device)
    return _mix(state[:, None] + _signed(_GOLDEN) * numbers)


def keyed_orders(seed: int, index: Tensor, draw: int, shape: tuple[int, ...]) -> Tensor:
    """Random orders that depend on nothing but (seed, image index, draw).

    index: int64 [batch], the global indices of the images; shape: (n,) for one order of n units an
    image, (heads, n) for one a head. Returns int64 [batch, *shape], each row of the last axis a
    permutation of 0 … n − 1: the same on every device and rank, in any minibatch. ValueError if
    `index` holds no whole numbers or is not one-dimensional. Explained in chapter 5.1.
    """
    keys = _keys(seed, index, draw, math.prod(shape))
    return keys.unflatten(1, shape).argsort(dim=-1, stable=True)


def keyed_others(seed: int, index: Tensor, among: int) -> Tensor:
    """For each image another one of 0 … among − 1, at random: int64 [batch].

    index: int64 [batch] in 0 … among − 1. Depends on nothing but (seed, image index, among), on
    every device and rank, in any minibatch. ValueError as `keyed_orders`, for an index that is not
    among them, and for fewer than 2 images. Explained in chapter 5.1.
    """
    if among < 2 or (len(index) and not 0 <= int(index.min()) <= int(index.max()) < among):
        raise ValueError(f"No image of {index.tolist()} has another one among {among}.")
    step = (_keys(seed, index, _OTHERS, 1)[:, 0] & (2**62 - 1)) % (among - 1)
    return (index + 1 + step) % among


def _check(weights: Tensor, mass: Tensor) -> None:
    if weights.ndim != 3 or mass.shape != weights.shape[:2]:
        raise ValueError(
            "Weights are [batch, heads, keys] and mass [batch, heads], not "
            f"{list(weights.shape)} and {list(mass.shape)}."
        )


def _refuse_excess(mass: Tensor, total: Tensor) -> None:
    if bool((mass > total * (1 + 1e-5) + 1e-7).any()):
        raise ValueError(
            f"A mass of {float(mass.max()):.6g} cannot be ablated: the entries that may be ablated "
            "hold less in some row."
        )


def mass_matched(weights: Tensor, mass: Tensor, order: Tensor) -> Tensor:
    """Shares that ablate entries along an order until their attention mass equals `mass`.

    weights: [batch, heads, keys]; mass: [batch, heads]; order: int64 [batch, heads, n] or
    [batch, n], the entries that may be ablated, first to last. Returns shares [batch, heads, keys]
    in [0, 1], for `AblationSpec(keys=…)`: 1 along the order, a fraction at its last entry, so that
    the mass is exact. ValueError if the entries hold less than `mass`. Explained in chapter 5.1.
    """
    _check(weights, mass)
    order = order[:, None] if order.ndim == 2 else order
    order = order.expand(-1, weights.shape[1], -1)
    wide = torch.float32 if weights.device.type == "mps" else torch.float64
    along = weights.to(wide).gather(-1, order)  # [batch, heads, n]
    target = mass.to(wide).unsqueeze(-1)
    reached = along.cumsum(-1)
    _refuse_excess(target, reached[..., -1:])
    missing = target - (reached - along)  # before each entry
    # An entry without mass goes with those before it.
    part = (missing / along.clamp(min=torch.finfo(wide).tiny)).clamp(0, 1)
    shares = torch.zeros_like(weights, dtype=wide).scatter(-1, order, part)
    return shares.to(torch.promote_types(weights.dtype, torch.float32))


def uniform_shrink(weights: Tensor, mass: Tensor, prefix: int = 0) -> Tensor:
    """Shares that take `mass` from each row by shrinking all its entries alike.

    weights: [batch, heads, keys]; mass: [batch, heads]; the first `prefix` keys (class token,
    registers) are left alone. Returns shares [batch, heads, keys] in [0, 1]. ValueError if the
    entries hold less than `mass`. Explained in chapter 5.1.
    """
    _check(weights, mass)
    total = weights[..., prefix:].sum(-1)
    _refuse_excess(mass, total)
    share = (mass / total.clamp(min=torch.finfo(total.dtype).tiny)).clamp(0, 1)  # [batch, heads]
    shares = share.unsqueeze(-1).expand_as(weights).clone()
    shares[..., :prefix] = 0
    return shares
