"""What the representations of one model are read by: maps in agreement, places known from a token,
fields of blocks, and what a skip connection carries."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import isqrt

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from utils.measures import sparsity
from utils.measures.receptive_field import effective_receptive_field, middle_of
from utils.models.architectures import NoShortcut
from utils.probes import ActivationRecorder, AttentionProbe, token_layout
from utils.probes.ablation_edits import channel_axis
from utils.probes.ablation_plans import block_names

RIDGE = 1e-3  # of the mean variance, added to every direction before whitening


def patch_maps(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Attention to patches: layer → [batch, heads, queries, patches].

    The queries are the class token or, without one, all patches. Layers that attend within windows
    are left out.
    """
    layout, found = token_layout(model), {}

    def take(layer: str, weights: Tensor) -> None:
        prefix = layout.prefix_in(weights.shape[-1])
        rows = weights[:, :, :1] if layout.has_class_token and prefix else weights[:, :, prefix:]
        if len(weights) == len(images) and weights.shape[-1] >= prefix + 2:
            found[layer] = sparsity.patch_rows(rows, prefix)[0].double().cpu()

    with AttentionProbe(model, rows="class" if layout.has_class_token else "all", reduce=take):
        model(images)
    return found


def standard_ranks(maps: Tensor) -> Tensor:
    """Ranks along the last axis, ties sharing theirs, centred and of length one.

    The inner product of two is their Spearman correlation; NaN for what is NaN or constant.
    """
    ordered = maps.sort(-1).values
    low, high = (torch.searchsorted(ordered, maps, right=right) for right in (False, True))
    ranks = (low + high).double()  # twice the rank, and an offset
    ranks = (ranks - ranks.mean(-1, keepdim=True)).masked_fill(maps.isnan(), torch.nan)
    return ranks / ranks.norm(dim=-1, keepdim=True)


def agreement(maps: dict[str, Tensor]) -> Iterator[tuple[tuple, Tensor]]:
    """Spearman correlation of heads and of layers: ((quantity, layer, other), [batch]) each.

    `maps` as `patch_maps` gives them, or less their means over images. "head_agreement" of a layer
    is the mean over pairs of heads and over queries, without a layer the mean over layers;
    "layer_agreement" is that of two layers, averaged over heads. "neighbour_agreement" is its mean
    over layers one apart, "distant_agreement" over those at least half of the depth (and two)
    apart, "neighbour_advantage" the difference.
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
    names, apart = list(layers), {"neighbour": [], "distant": []}
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


def places(model: nn.Module, layer: str, output: Tensor) -> tuple[Tensor, tuple[int, int], int]:
    """A layer's output as [batch, rows · columns, channels], its grid, and its prefix tokens.

    The prefix is dropped. ValueError for what is neither tokens nor maps, and for tokens that do
    not fill a grid.
    """
    if output.ndim == 4:
        maps = output.movedim(channel_axis(model, layer, 4), -1)
        return maps.flatten(1, 2), tuple(maps.shape[1:3]), 0
    layout = token_layout(model)
    prefix = layout.prefix_in(output.shape[1]) if output.ndim == 3 else 0
    count = output.shape[1] - prefix
    grid = layout.grid or (isqrt(count), isqrt(count))
    if output.ndim != 3 or grid[0] * grid[1] != count:
        raise ValueError(
            f"The output of {layer!r}, {tuple(output.shape)}, has no places in the image: it is "
            "neither a map nor the tokens of a grid."
        )
    return output[:, prefix:], grid, prefix


def groups(grid: tuple[int, int]) -> dict[str, Tensor]:
    """The places on the border of a grid and those inside it, as numbers; groups of two or more."""
    border = torch.ones(grid, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    found = {"interior": ~border, "edge": border}
    found = {name: mask.flatten().nonzero()[:, 0] for name, mask in found.items()}
    return {name: numbers for name, numbers in found.items() if len(numbers) > 1}


class PlaceDecoder(Metric):
    """Which place a token is from, by linear discriminant analysis: sums over images, merged.

    `update(tokens)` [images, places, channels] to learn from; `decode(tokens)` → [images, places],
    the number of the nearest mean token once the variation about the means is whitened. ValueError
    in `decode` if it has learnt from fewer than two images.
    """

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in ("images", "total", "products"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, tokens: Tensor) -> None:
        """Add images [images, places, channels]."""
        tokens = tokens.detach().cpu().double()
        flat = tokens.flatten(0, 1)
        self.images = self.images + len(tokens)
        self.total, self.products = self.total + tokens.sum(0), self.products + flat.mT @ flat

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return the weights [channels, places] and offsets [places] of the discriminant."""
        if self.images < 2:
            raise ValueError(
                "A place cannot be decoded from what fewer than two images have taught: give more "
                "images."
            )
        means = self.total / self.images  # [places, channels]
        size, channels = means.shape[0] * self.images, means.shape[1]
        within = (self.products - self.images * means.mT @ means) / (size - means.shape[0])
        scale = within.trace().clamp(min=0) * RIDGE + self.products.trace() / size * 1e-9
        ridge = (scale / channels).clamp(min=torch.finfo(torch.float64).tiny)
        weights = torch.linalg.solve(within + ridge * torch.eye(channels).double(), means.mT)
        return weights, (means * weights.mT).sum(1) / 2

    def decode(self, tokens: Tensor) -> Tensor:
        """Return the most likely place of every token."""
        weights, offsets = self.compute()
        return (tokens.detach().cpu().double() @ weights - offsets).argmax(-1)


def field_of(model: nn.Module, images: Tensor, layer: str) -> tuple[Tensor, tuple[float, float]]:
    """The effective receptive field of a layer's central position, and its middle in pixels."""
    with torch.no_grad(), ActivationRecorder(model, layer) as record:
        model(images[:1])
    _, grid, prefix = places(model, layer, record.values[layer])
    y, x = grid[0] // 2, grid[1] // 2
    axis = channel_axis(model, layer, 4)
    position = (y, x) if record.values[layer].ndim == 4 else prefix + y * grid[1] + x
    field = effective_receptive_field(model, images, layer, position, channel_dim=axis)
    return field, middle_of((y, x), grid, tuple(images.shape[-2:]))


def middle_block(model: nn.Module) -> tuple[str, tuple[str, ...]] | None:
    """The block nearest to the middle whose skip connections can be removed, and which it has.

    They are "attention" and "mlp" in timm's Transformer blocks, "skip" in residual blocks that
    change nothing but their branch; the first and the last block do not count.
    """
    names, found = block_names(model), []
    for i, name in enumerate(names[1:-1], 1):
        block = model.get_submodule(name)
        if all(hasattr(block, part) for part in ("attn", "mlp", "drop_path1", "drop_path2")):
            found.append((abs(2 * i + 1 - len(names)), name, ("attention", "mlp")))
        elif hasattr(block, "conv2") and getattr(block, "downsample", block) is None:
            found.append((abs(2 * i + 1 - len(names)), name, ("skip",)))
    return min(found, key=lambda each: each[0])[1:] if found else None


@contextmanager
def removed(block: nn.Module, what: str) -> Iterator[None]:
    """A block without one skip connection ("attention", "mlp", "skip") or as if it were not there.

    "block" makes it pass on what it gets; "intact" changes nothing.
    """
    seen: dict[str, Tensor] = {}

    def enter(module, args):
        seen["before"] = args[0]

    def attended(module, args, output):
        seen["between"] = seen["before"] + output
        return output - seen["before"] if what == "attention" else output

    def mixed(module, args, output):
        return output - seen["between"].reshape_as(output)

    with ExitStack() as stack:
        if what == "block":
            handle = block.register_forward_hook(lambda module, args, output: args[0])
            stack.callback(handle.remove)
        elif what == "skip":
            block.downsample = NoShortcut()
            stack.callback(lambda: setattr(block, "downsample", None))
        elif what in ("attention", "mlp"):
            stack.callback(block.register_forward_pre_hook(enter).remove)
            stack.callback(block.drop_path1.register_forward_hook(attended).remove)
            if what == "mlp":
                stack.callback(block.drop_path2.register_forward_hook(mixed).remove)
        yield
