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

    They are the same on every device and rank, in any minibatch. Explained in chapter 5.1.

    Args:
        seed: Any whole number.
        index: The global indices of the images, int64 [batch].
        draw: The number of the order: another one gives other orders.
        shape: (n,) for one order of n units an image, (heads, n) for one a head.

    Returns:
        Orders, int64 [batch, *shape]; each row of the last axis is a permutation of 0 … n − 1.

    Raises:
        ValueError: If `index` holds no whole numbers or is not one-dimensional.

    Example:
        >>> import torch
        >>> from utils.probes import keyed_orders
        >>> orders = keyed_orders(0, torch.arange(100), draw=0, shape=(3, 9))
        >>> orders.shape
        torch.Size([100, 3, 9])
        >>> keyed_orders(0, torch.tensor([42]), draw=0, shape=(3, 9)).equal(orders[42:43])
        True
    """
    keys = _keys(seed, index, draw, math.prod(shape))
    return keys.unflatten(1, shape).argsort(dim=-1, stable=True)


def keyed_others(seed: int, index: Tensor, among: int) -> Tensor:
    """For each image another one, at random.

    Depends on nothing but (seed, image index, among), on every device and rank, in any minibatch.

    Args:
        seed: Any whole number.
        index: The global indices of the images, int64 [batch] in 0 … among − 1.
        among: How many images there are.

    Returns:
        Indices in 0 … among − 1, int64 [batch], none of them the image's own.

    Raises:
        ValueError: As `keyed_orders`, for an index that is not among them, and for fewer than two
            images.

    Example:
        >>> import torch
        >>> from utils.probes.ablation.draws import keyed_others
        >>> others = keyed_others(0, torch.arange(100), among=100)
        >>> bool((others == torch.arange(100)).any())
        False
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
    """Shares that ablate entries along an order until they hold a given attention mass.

    Explained in chapter 5.1.

    Args:
        weights: Attention rows [batch, heads, keys].
        mass: How much to ablate of each row [batch, heads].
        order: The entries that may be ablated, first to last: int64 [batch, heads, n] or
            [batch, n].

    Returns:
        Shares [batch, heads, keys] in 0 … 1, for `AblationSpec(keys=…)`; 1 along the order, a
        fraction at its last entry, so that the mass is exact.

    Raises:
        ValueError: If the entries hold less than `mass`, and for other shapes.

    Example:
        >>> import torch
        >>> from utils.probes import mass_matched
        >>> weights = torch.tensor([[[0.5, 0.2, 0.2, 0.1]]])
        >>> mass_matched(weights, torch.tensor([[0.3]]), torch.tensor([[1, 2, 3]]))
        tensor([[[0.0000, 1.0000, 0.5000, 0.0000]]])
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
    """Shares that take a given mass from each row by shrinking all its entries equally.

    Args:
        weights: Attention rows [batch, heads, keys].
        mass: How much to take from each row [batch, heads].
        prefix: How many keys at the beginning (class token, registers) are left alone.

    Returns:
        Shares [batch, heads, keys] in 0 … 1, for `AblationSpec(keys=…)`.

    Raises:
        ValueError: If the entries hold less than `mass`, and for other shapes.

    Example:
        >>> import torch
        >>> from utils.probes import uniform_shrink
        >>> weights = torch.tensor([[[0.5, 0.2, 0.2, 0.1]]])
        >>> uniform_shrink(weights, torch.tensor([[0.1]]), prefix=1)
        tensor([[[0.0000, 0.2000, 0.2000, 0.2000]]])
    """
    _check(weights, mass)
    total = weights[..., prefix:].sum(-1)
    _refuse_excess(mass, total)
    share = (mass / total.clamp(min=torch.finfo(total.dtype).tiny)).clamp(0, 1)  # [batch, heads]
    shares = share.unsqueeze(-1).expand_as(weights).clone()
    shares[..., :prefix] = 0
    return shares
