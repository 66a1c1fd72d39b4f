"""Whether heads, and layers, attend to the same places: rank correlations of their maps."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..probes import AttentionProbe, token_layout
from . import sparsity


def patch_maps(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Attention to patches, layer by layer.

    The queries are the class token or, without one, all patches. Layers that attend within windows
    are left out.

    Args:
        model: A Transformer, in eval mode.
        images: [batch, 3, height, width], prepared for the model.

    Returns:
        Layer → maps [batch, heads, queries, patches], float64 on the CPU, rows that sum to 1.

    Example:
        >>> import torch
        >>> from utils.measures import agreement
        >>> from utils.models import zoo
        >>> maps = agreement.patch_maps(zoo.load("vit-d6-h4"), torch.zeros(2, 3, 32, 32))
        >>> len(maps), maps["blocks.0.attn"].shape
        (6, torch.Size([2, 4, 1, 64]))
    """
    layout, found = token_layout(model), {}
    size = images.shape[-2], images.shape[-1]

    def take(layer: str, weights: Tensor) -> None:
        prefix = layout.prefix_in(weights.shape[-1], size)
        rows = weights[:, :, :1] if layout.has_class_token and prefix else weights[:, :, prefix:]
        if len(weights) == len(images) and weights.shape[-1] >= prefix + 2:
            found[layer] = sparsity.patch_rows(rows, prefix)[0].double().cpu()

    with AttentionProbe(model, rows="class" if layout.has_class_token else "all", reduce=take):
        model(images)
    return found


def standard_ranks(maps: Tensor) -> Tensor:
    """Ranks along the last axis, ties sharing theirs, centred and of length one.

    The inner product of two of them is their Spearman correlation.

    Args:
        maps: [..., n].

    Returns:
        Ranks [..., n], float64; NaN for what is NaN or constant.

    Example:
        >>> import torch
        >>> from utils.measures import agreement
        >>> a, b = torch.tensor([[1.0, 2.0, 9.0], [3.0, 1.0, 2.0]])
        >>> round(float(agreement.standard_ranks(a) @ agreement.standard_ranks(b)), 3)
        -0.5
    """
    ordered = maps.sort(-1).values
    low, high = (torch.searchsorted(ordered, maps, right=right) for right in (False, True))
    ranks = (low + high).double()  # twice the rank, and an offset
    ranks = (ranks - ranks.mean(-1, keepdim=True)).masked_fill(maps.isnan(), torch.nan)
    return ranks / ranks.norm(dim=-1, keepdim=True)


def agreement(maps: dict[str, Tensor]) -> Iterator[tuple[tuple, Tensor]]:
    """Spearman correlation of heads and of layers, quantity by quantity.

    "head_agreement" of a layer is the mean over pairs of heads and over queries, without a layer
    the mean over layers; "layer_agreement" is that of two layers, averaged over heads.
    "neighbour_agreement" is its mean over layers one apart, "distant_agreement" over those at least
    half of the depth (and two) apart, "neighbour_advantage" the difference.

    Args:
        maps: Layer → [batch, heads, queries, patches], as `patch_maps` gives them, or less their
            means over images.

    Returns:
        Pairs of (quantity, layer, other layer), None where there is none, and the correlation
        [batch].

    Example:
        >>> import torch
        >>> from utils.measures import agreement
        >>> maps = {"first": torch.rand(1, 2, 1, 9), "last": torch.rand(1, 2, 1, 9)}
        >>> maps["last"] = 2 * maps["first"]  # the same ranks
        >>> found = dict(agreement.agreement(maps))
        >>> found["layer_agreement", "first", "last"].round(decimals=3)
        tensor([1.], dtype=torch.float64)
    """
    heads = {}
    for layer, x in maps.items():
        if (count := x.shape[1]) > 1:
            z = standard_ranks(x)
            pairs = torch.einsum("bhqk,bgqk->bhgq", z, z)
            first, second = torch.triu_indices(count, count, 1)
            heads[layer] = pairs[:, first, second].flatten(1).nanmean(1)
            yield ("head_agreement", layer, None), heads[layer]
    if heads:
        yield ("head_agreement", None, None), torch.stack([*heads.values()]).mean(0)
    layers = {layer: standard_ranks(x.mean(1)) for layer, x in maps.items()}  # [batch, q, patches]
    names = list(layers)
    apart: dict[str, list[Tensor]] = {"neighbour": [], "distant": []}
    for i, layer in enumerate(names):
        for j, other in enumerate(names[i + 1 :], i + 1):
            if layers[layer].shape != layers[other].shape:
                continue
            found = (layers[layer] * layers[other]).sum(-1).nanmean(1)
            yield ("layer_agreement", layer, other), found
            if j - i == 1:
                apart["neighbour"].append(found)
            elif j - i >= len(names) / 2:
                apart["distant"].append(found)
    means = {kind: torch.stack(each).mean(0) for kind, each in apart.items() if each}
    for kind, mean in means.items():
        yield (f"{kind}_agreement", None, None), mean
    if len(means) == 2:
        yield ("neighbour_advantage", None, None), means["neighbour"] - means["distant"]
