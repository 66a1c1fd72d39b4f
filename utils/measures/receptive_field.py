"""What part of the image a unit sees: by its gradient, and by its responses to white noise."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..probes import ActivationRecorder
from ..probes.anatomy import channel_axis, places, token_layout
from ..probes.channels import follow_channels
from ..probes.hooks import closest, refuse_compiled
from .responses import checked, float64, float_responses, scaled


def effective_receptive_field(
    model: nn.Module,
    images: Tensor,
    layer: str,
    position: tuple[int, int] | int | None = None,
    *,
    channel_dim: int = 1,
    batch: int = 8,
) -> Tensor:
    """Where a change of the image changes what a layer says of one position.

    The mean over images and colours of |∂ mean over channels / ∂ pixel|, divided by its sum. Not
    for the output of a layer norm, whose mean over channels is fixed. The model's parameters get no
    gradient, and no hook stays. Source: luo2016understanding, raghu2021do.

    Args:
        model: Any network that takes images.
        images: [images, colours, rows, columns], normalised as the model wants them.
        layer: A module that puts out tokens [batch, tokens, channels] or maps [batch, channels, y,
            x].
        position: A token's number, prefix tokens included (0 is the class token), or (y, x) on the
            grid of patches that the images have, or of the map; None for its centre.
        channel_dim: The axis of the channels of a map, −1 for channels-last maps.
        batch: How many images are taken at a time.

    Returns:
        The field [rows, columns], float64, which sums to 1.

    Raises:
        ValueError: For a layer or position that does not exist, a compiled model, NaN or infinite
            gradients.
        RuntimeError: If the forward pass does not call the layer, or no pixel changes it.

    Example:
        >>> import torch
        >>> from utils.measures import receptive_field
        >>> convolution = torch.nn.Conv2d(3, 8, kernel_size=3, padding=1)
        >>> model, images = torch.nn.Sequential(convolution), torch.rand(2, 3, 9, 9)
        >>> field = receptive_field.effective_receptive_field(model, images, "0")
        >>> field.nonzero().amin(0), field.nonzero().amax(0)
        (tensor([3, 3]), tensor([5, 5]))
    """
    refuse_compiled(model)
    modules = dict(model.named_modules())
    if layer not in modules:
        raise ValueError(
            f"No layer of {type(model).__name__} is called {layer!r}: the closest names are "
            f"{closest(layer, modules)}."
        )
    answers: list[Tensor] = []
    size = images.shape[-2], images.shape[-1]

    def read(module, args, output):
        # Summed at once: an in-place layer may overwrite the output. Later calls do not count.
        if not answers:
            at = _at(output, position, layer, channel_dim, model, size)
            answers.append(at.mean(-1).sum())

    field = torch.zeros((), dtype=torch.float64, device="cpu")
    handle = modules[layer].register_forward_hook(read)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            for chunk in tqdm(images.split(batch), f"field of {layer}", leave=False, disable=None):
                pixels = chunk.detach().clone().requires_grad_()
                answers.clear()
                model(pixels)
                if not answers:
                    raise RuntimeError(
                        f"The forward pass of {type(model).__name__} never called {layer!r}: "
                        "measure another layer."
                    )
                gradient = torch.zeros_like(pixels)
                if answers[0].requires_grad:
                    (gradient,) = torch.autograd.grad(answers[0], pixels, materialize_grads=True)
                field = field + float64(gradient.abs().mean(1)).sum(0)  # [rows, columns]
    finally:
        handle.remove()
    if not checked(field, "effective_receptive_field").any():
        raise RuntimeError(
            f"No pixel changes {layer!r} at position {position}: its units are silent for these "
            "images, or the layer does not depend on the image."
        )
    return field / field.sum()


def _at(output, position, layer: str, channel_dim: int, model: nn.Module, size) -> Tensor:
    """The channels of one position [batch, channels] of tokens or maps."""
    if not isinstance(output, Tensor) or output.ndim not in (3, 4):
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"Layer {layer!r} puts out {shape}, neither tokens nor maps: measure another layer."
        )
    grid: tuple[int, int] | None
    if output.ndim == 4:
        maps = output.movedim(channel_dim, -1)  # [batch, y, x, channels]
        tokens, prefix, grid = maps.flatten(1, 2), 0, (maps.shape[1], maps.shape[2])
    else:
        layout, tokens = token_layout(model), output  # [batch, tokens, channels]
        prefix = layout.prefix_in(tokens.shape[1], size)
        grid = layout.grid_in(tokens.shape[1] - prefix, size)
    if isinstance(position, int):
        number, exists = position, output.ndim == 3 and 0 <= position < tokens.shape[1]
    else:
        if grid is None:
            raise ValueError(
                f"Layer {layer!r} puts out {tokens.shape[1]} tokens that form no grid of patches "
                f"of images of {size[0]} × {size[1]}: give the number of a token as position."
            )
        y, x = position if position is not None else (grid[0] // 2, grid[1] // 2)
        number, exists = prefix + y * grid[1] + x, 0 <= y < grid[0] and 0 <= x < grid[1]
    if not exists:
        what = f"{tokens.shape[1]} tokens" if output.ndim == 3 else "a map"
        what += f" and a grid of {grid[0]} × {grid[1]}" if grid else ""
        raise ValueError(f"Layer {layer!r} has {what}, but no position {position}.")
    return tokens[:, number]


def middle_of(
    position: tuple[int, int], grid: tuple[int, int], size: tuple[int, int]
) -> tuple[float, float]:
    """Where on an image the middle of a grid's position lies.

    Args:
        position: (y, x) on the grid.
        grid: (rows, columns) of equal patches.
        size: (rows, columns) of the image.

    Returns:
        (y, x) in pixels, (0, 0) being the middle of the first pixel.

    Example:
        >>> from utils.measures import receptive_field
        >>> receptive_field.middle_of((0, 1), grid=(2, 2), size=(8, 8))
        (1.5, 5.5)
    """
    y, x = ((p + 0.5) * s / g - 0.5 for p, g, s in zip(position, grid, size, strict=True))
    return y, x


def half_mass_radius(field: Tensor, centre: tuple[float, float] | None = None) -> float:
    """Radius in pixels of the circle about `centre` that holds half of a field's mass.

    Source: luo2016understanding.

    Args:
        field: [rows, columns] of zero or more.
        centre: (y, x) in pixels, (0, 0) being the middle of the first pixel; None for the middle of
            the image, which on an even grid is not the middle of any position (see `middle_of`).

    Returns:
        The radius, from 0 to the distance of the farthest pixel.

    Raises:
        ValueError: For other shapes, NaN, infinite or negative values, and a field of zeros.

    Example:
        >>> import torch
        >>> from utils.measures import receptive_field
        >>> field = torch.zeros(9, 9)
        >>> field[4, 1:8] = 1.0  # a line of seven pixels
        >>> receptive_field.half_mass_radius(field)
        2.0
    """
    x = float64(float_responses(field, "half_mass_radius"))
    if x.ndim != 2 or not x.any():
        raise ValueError(
            "half_mass_radius needs a field [rows, columns] with some mass, got "
            f"{'zeros' if x.ndim == 2 else f'shape {tuple(x.shape)}'}."
        )
    x = scaled(checked(x, "half_mass_radius").flatten()).view_as(x)
    if centre is None:
        centre = ((x.shape[0] - 1) / 2, (x.shape[1] - 1) / 2)
    y, z = (torch.arange(n, dtype=torch.float64, device=x.device) for n in x.shape)
    distance = torch.hypot(y[:, None] - centre[0], z - centre[1]).flatten()
    distance, order = distance.sort()
    mass = x.flatten()[order].cumsum(0)
    return distance[int((mass < mass[-1] / 2).sum())].item()


def relative_radius(field: Tensor, centre: tuple[float, float] | None = None) -> float:
    """The radius of half of a field's mass over that of a uniform field about the same centre.

    Source: luo2016understanding, for the field. Chapter 2.4.

    Args:
        field: As for `half_mass_radius`, which also says what is refused.
        centre: As for `half_mass_radius`.

    Returns:
        0 for a single pixel at the centre, 1 for an even field, above 1 for one that shuns the
        centre; NaN where the even field has no radius, in a single pixel.

    Example:
        >>> import torch
        >>> from utils.measures import receptive_field
        >>> receptive_field.relative_radius(torch.ones(9, 9))
        1.0
    """
    even = half_mass_radius(torch.ones_like(field), centre)
    return half_mass_radius(field, centre) / even if even else math.nan


def spike_triggered_average(
    respond: Callable[[Tensor], Tensor],
    size: tuple[int, int],
    images: int = 10_000,
    *,
    seed: int = 0,
    batch: int = 1_000,
) -> Tensor:
    """Receptive fields of units, from their responses to white noise.

    Each noise image is weighted by the response to it less the mean response: the mean is a linear
    unit's filter, half of the filter for a rectified one, and has a standard error of about (SD of
    the response) / √images in every pixel. Source: chichilnisky2001simple. Chapter 2.1.

    Args:
        respond: Takes noise [batch, rows, columns], standard normal, and returns responses [batch,
            units], such as counts of spikes.
        size: (rows, columns).
        images: How many images of noise are shown.
        seed: What they are drawn from, whatever the `batch`.
        batch: How many are shown at a time.

    Returns:
        [units, rows, columns], float64, in the unit of the responses.

    Raises:
        ValueError: For responses of another shape, NaN or infinite responses.

    Example:
        >>> from utils.measures import receptive_field
        >>> from utils.stimuli import psychophysics
        >>> unit = psychophysics.gabor(8, cycles=2)
        >>> found = receptive_field.spike_triggered_average(
        ...     lambda noise: noise.flatten(1) @ unit.flatten()[:, None], (8, 8)
        ... )
        >>> found.shape, bool((found[0] - unit).abs().max() < 0.2)
        (torch.Size([1, 8, 8]), True)
    """
    rng = np.random.default_rng(seed)  # torch's draws depend on how many are asked for at once
    products = spikes = shown = torch.zeros((), dtype=torch.float64, device="cpu")
    for start in range(0, images, batch):
        shape = (min(batch, images - start), *size)
        noise = torch.from_numpy(rng.standard_normal(shape, dtype=np.float32))
        r = float_responses(respond(noise), "spike_triggered_average")
        if r.ndim != 2 or len(r) != len(noise):
            raise ValueError(
                f"respond gave {tuple(r.shape)} for {len(noise)} images of noise: it should give "
                "[batch, units]."
            )
        r, x = (
            float64(checked(r, "spike_triggered_average", signed=True)).cpu(),
            noise.flatten(1).double(),
        )
        products, spikes, shown = products + r.mT @ x, spikes + r.sum(0), shown + x.sum(0)
    average = products / images - torch.outer(spikes, shown) / images**2  # [units, pixels]
    return checked(average, "spike_triggered_average", signed=True).unflatten(1, size)


def field_of(model: nn.Module, images: Tensor, layer: str) -> tuple[Tensor, tuple[float, float]]:
    """The effective receptive field of a layer's central position, and its middle in pixels.

    Chapter 2.4.

    Args:
        model: Any network that takes images.
        images: [images, colours, rows, columns], normalised as the model wants them.
        layer: A module that puts out tokens or maps.

    Returns:
        The field [rows, columns], as `effective_receptive_field` gives it, and (y, x) in pixels.

    Raises:
        ValueError: As `effective_receptive_field`, and for a layer without places in the image.
        RuntimeError: As `effective_receptive_field`.

    Example:
        >>> import torch
        >>> from utils.measures import receptive_field
        >>> from utils.models import zoo
        >>> images = torch.rand(2, 3, 32, 32)
        >>> field, middle = receptive_field.field_of(zoo.load("vit-d6-h4"), images, "blocks.2")
        >>> field.shape, middle
        (torch.Size([32, 32]), (17.5, 17.5))
    """
    with torch.no_grad(), ActivationRecorder(model, layer) as record:
        model(images[:1])
    output, size = record.outputs[layer], (images.shape[-2], images.shape[-1])
    follow_channels(model, images)
    _, grid, _ = places(model, layer, output, size)
    position, axis = (grid[0] // 2, grid[1] // 2), channel_axis(model, layer, output.ndim)
    field = effective_receptive_field(model, images, layer, position, channel_dim=axis)
    return field, middle_of(position, grid, size)
