"""Which spatial frequencies a network passes on: Fourier amplitudes of its feature maps."""

from contextlib import ExitStack

import torch
from torch import Tensor, nn

from ..probes.anatomy import channel_axis, places
from ..probes.channels import follow_channels
from ..probes.hooks import refuse_compiled
from .responses import checked, float64, float_responses, scaled

FLOOR = 1e-6  # amplitudes are told apart down to this share of a channel's mean amplitude


def _amplitudes(maps: Tensor, what: str, scale: bool = True) -> Tensor:
    """|FFT| of maps [batch, channels, h, h] in float64, not below the floor, or a multiple."""
    x = float_responses(maps, what)
    if x.ndim != 4 or x.shape[-1] != x.shape[-2] or x.shape[-1] < 2:
        raise ValueError(
            f"{what} needs square maps [batch, channels, h, h], got shape {tuple(x.shape)}: bring "
            "tokens to the grid of patches, and channels to the second axis."
        )
    x = checked(x, what, signed=True)
    x = x if scale else scaled(x.flatten(2)).view_as(x)
    amplitude = checked(torch.fft.fft2(float64(x)).abs(), what)
    return torch.maximum(amplitude, FLOOR * amplitude.mean((-1, -2), keepdim=True))


def delta_log_amplitude(maps: Tensor) -> Tensor:
    """Log amplitude along the diagonal of the spectrum, less that at zero: Δ log amplitude.

    The mean over channels, in which a channel of zeros does not count. 0 at zero, below it for maps
    in which slow changes prevail; scale does not matter. Source: park2022how. Chapter 2.3.

    Args:
        maps: [batch, channels, h, h].

    Returns:
        [batch, h // 2 + 1], natural logarithm, float64. Entry j is at 2j/h · π in both directions,
        the
        last one at 1.0π (where h is odd, at (1 − 1/h)π). NaN for an image of zeros.

    Raises:
        ValueError: For maps that are not square, NaN or infinite values.

    Example:
        >>> import torch
        >>> from utils.measures import frequency
        >>> maps = torch.zeros(1, 1, 8, 8)
        >>> maps[..., 3, 3] = 1.0  # a point holds all frequencies equally
        >>> frequency.delta_log_amplitude(maps).abs().round(decimals=3)
        tensor([[0., 0., 0., 0., 0.]], dtype=torch.float64)
    """
    amplitude = _amplitudes(maps, "delta_log_amplitude", scale=False)
    diagonal = amplitude.diagonal(dim1=-2, dim2=-1)[..., : maps.shape[-1] // 2 + 1].log()
    return (diagonal - diagonal[..., :1]).nanmean(1)


def radial_amplitude(maps: Tensor) -> Tensor:
    """Amplitude spectrum of images or maps, averaged over all directions.

    Source: park2022how.

    Args:
        maps: [batch, channels, h, h].

    Returns:
        [batch, h // 2 + 1] float64, in the unit of the maps times pixels. Entry j is the mean |FFT|
        over the ring of the spectrum within half a step of j cycles an image (2j/h · π), and over
        channels. The corners beyond 1.0π are left out.

    Raises:
        ValueError: For maps that are not square, NaN or infinite values.

    Example:
        >>> from utils.measures import frequency
        >>> from utils.stimuli import psychophysics
        >>> bars = psychophysics.grating(16, cycles=4)
        >>> frequency.radial_amplitude(bars[None, None]).argmax().item()
        4
    """
    amplitude = _amplitudes(maps, "radial_amplitude").mean(1)  # [batch, h, h]
    h = maps.shape[-1]
    cycles = torch.fft.fftfreq(h, 1 / h, dtype=torch.float64, device=amplitude.device)
    ring = torch.hypot(cycles[:, None], cycles).round().long().flatten()
    inside = ring <= h // 2
    sums = amplitude.new_zeros(len(amplitude), h // 2 + 1)
    sums.index_add_(1, ring[inside], amplitude.flatten(1)[:, inside])
    return sums / ring[inside].bincount()


def change_across_sub_blocks(model: nn.Module, images: Tensor) -> dict[str, dict[str, Tensor]]:
    """How much each sub-block raises the highest frequency: its change of Δ log amplitude at 1.0π.

    Attention and MLP are the halves of timm's Transformer blocks, each with its skip connection;
    convolution is a whole residual block of a ResNet, except for those that change the size of the
    map. Prefix tokens are dropped. Source: park2022how. Chapter 2.3.

    Args:
        model: A Transformer or a ResNet.
        images: [batch, 3, height, width], prepared for the model.

    Returns:
        Kind ("attention", "mlp", "convolution") → name of the block → [batch], in nats, float64.
        Below
        0 for a low-pass filter, above it for a high-pass one.

    Raises:
        ValueError: For a compiled model, one without such blocks, tokens that fill no square of the
            image, NaN or infinite features.

    Example:
        >>> import torch
        >>> from utils.measures import frequency
        >>> from utils.models import zoo
        >>> images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        >>> found = frequency.change_across_sub_blocks(zoo.load("vit-d6-h4"), images)
        >>> {kind: len(blocks) for kind, blocks in found.items()}
        {'attention': 6, 'mlp': 6}
    """
    refuse_compiled(model)
    follow_channels(model, images)
    size = images.shape[-2], images.shape[-1]
    found: dict[str, dict[str, Tensor]] = {}

    def highest(x: Tensor, kind: str, name: str) -> Tensor:
        """Δ log amplitude at 1.0π of what goes into or comes out of a sub-block [batch]."""
        if x.ndim == 3:
            patches, grid, _ = places(model, name, x, size)
            x = _as_maps(patches, grid)
        elif kind != "convolution":
            x = x.movedim(channel_axis(model, name, 4), 1)
        return delta_log_amplitude(x)[:, -1]

    def add(kind: str, name: str, before: Tensor, after: Tensor) -> None:
        change = highest(after, kind, name) - highest(before, kind, name)
        found.setdefault(kind, {})[name] = change

    with ExitStack() as stack:
        for name, block in model.named_modules():
            if all(hasattr(block, part) for part in ("attn", "mlp", "drop_path1")):
                _watch_transformer(stack, name, block, add)
            elif all(hasattr(block, part) for part in ("conv1", "conv2", "downsample")):
                _watch_residual(stack, name, block, add)
        with torch.inference_mode():
            model(images)
    if not found:
        raise ValueError(
            f"{type(model).__name__} has no Transformer blocks of timm's and no residual blocks of "
            "a ResNet that keep the size of their map: measure its layers by delta_log_amplitude."
        )
    return found


def _as_maps(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Patches [batch, h², channels] as maps [batch, channels, h, h]."""
    if grid[0] != grid[1]:
        raise ValueError(
            f"{grid[0]} × {grid[1]} patches fill no square, and a spectrum is measured on squares: "
            "use square images."
        )
    return patches.mT.unflatten(-1, grid)


def _watch_transformer(stack: ExitStack, name: str, block: nn.Module, add) -> None:
    seen: dict[str, Tensor] = {}

    def enter(module, args):
        seen["before"] = args[0]

    def attended(module, args, output):  # what the skip connection is added to
        seen["between"] = seen["before"] + output

    def leave(module, args, output):
        before, between = seen.pop("before"), seen.pop("between")
        if before.shape == between.shape == output.shape:
            add("attention", name, before, between)
            add("mlp", name, between, output)

    stack.callback(block.register_forward_pre_hook(enter).remove)
    stack.callback(block.get_submodule("drop_path1").register_forward_hook(attended).remove)
    stack.callback(block.register_forward_hook(leave).remove)


def _watch_residual(stack: ExitStack, name: str, block: nn.Module, add) -> None:
    def leave(module, args, output):
        if args[0].shape[-2:] == output.shape[-2:]:
            add("convolution", name, args[0], output)

    stack.callback(block.register_forward_hook(leave).remove)
