"""What a model is made of: tokens, blocks, attention layers, activations, places in the image."""

import inspect
from dataclasses import dataclass
from functools import cache
from math import isqrt

import torch
from torch import Tensor, nn

# Attributes of models whose class token joins only after some attention layers (CaiT, XCiT, VOLO,
# ConViT) or whose inner attention never sees it (TNT).
LATE_CLASS_TOKEN = (
    "blocks_token_only",
    "cls_attn_blocks",
    "post_network",
    "local_up_to_layer",
    "pixel_embed",
)


@dataclass(frozen=True)
class TokenLayout:
    """Where the tokens of a model are: the prefix, with the class token first, then the patches.

    Attributes:
        prefix: How many class, distillation and register tokens there are.
        has_class_token: Whether the first of them is a class token.
        pool: How the head reads the tokens: "token", "avg", "map", …; None if the model does not
            say.
        grid: (rows, columns) of patches at the model's nominal image size; None if the model does
            not say.
        late: Whether some attention layers see no prefix: ask `prefix_in`.

    Example:
        >>> from utils.probes import TokenLayout
        >>> layout = TokenLayout(5, True, "token", (14, 14))  # a class token and four registers
        >>> layout.prefix_in(201)
        5
    """

    prefix: int
    has_class_token: bool
    pool: str | None
    grid: tuple[int, int] | None
    late: bool = False

    def prefix_in(self, tokens: int) -> int:
        """How many of a layer's tokens are prefix tokens.

        In a `late` model all or none: `grid` decides or, where it is unknown, whether the rest is a
        square.

        Args:
            tokens: How many tokens the layer has: the length of a map's key axis.

        Returns:
            Their number, 0 … prefix.

        Raises:
            ValueError: If the rest is a square neither with nor without the prefix.
        """
        if not self.late:
            return self.prefix
        if self.grid:
            return self.prefix if tokens - self.prefix == self.grid[0] * self.grid[1] else 0
        for prefix in (0, self.prefix):
            if isqrt(tokens - prefix) ** 2 == tokens - prefix:
                return prefix
        raise ValueError(
            f"Whether {self.prefix} of {tokens} tokens are prefix tokens cannot be told, for the "
            "model does not say its grid of patches: use square images."
        )


def token_layout(model: nn.Module) -> TokenLayout:
    """Read off a timm or torchvision model how many prefix tokens it has and what they are.

    Correct for distilled models (2 prefix tokens), registers with and without a class token, and
    models without tokens (prefix 0). Explained in chapter 3.

    Args:
        model: The model, which is not run.

    Returns:
        The layout of its tokens.

    Example:
        >>> import timm
        >>> from utils.probes import token_layout
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=48, depth=2)
        >>> token_layout(model)
        TokenLayout(prefix=1, has_class_token=True, pool='token', grid=(3, 3), late=False)
    """
    tokens = {"class": 0, "dist": 0, "reg": 0}
    for path, parameter in model.named_parameters():
        # cls_token, class_token, and CrossViT's and CoaT's cls_token_0, cls_token1.
        name = path.rpartition(".")[2].rstrip("_0123456789").replace("cls", "class")
        kind = name.removesuffix("_token")
        if name.endswith("_token") and kind in tokens and parameter.ndim >= 2:
            tokens[kind] = parameter.shape[-2]
    has_class_token = tokens["class"] > 0
    prefix = getattr(model, "num_prefix_tokens", sum(tokens.values()))
    pool = getattr(model, "global_pool", None)
    if not isinstance(pool, str):
        pool = "token" if has_class_token else None
    late = any(hasattr(model, name) for name in LATE_CLASS_TOKEN)
    return TokenLayout(prefix, has_class_token, pool, _grid(model), late)


def _grid(model: nn.Module) -> tuple[int, int] | None:
    for name in ("patch_embed", "pixel_embed"):
        if grid := getattr(getattr(model, name, None), "grid_size", None):
            return tuple(grid)
    position = getattr(model, "pos_embed", None)
    if isinstance(position, torch.Tensor) and position.ndim == 4:  # VOLO: [1, rows, columns, width]
        return position.shape[1], position.shape[2]
    image, patch = (getattr(model, name, None) for name in ("image_size", "patch_size"))
    if isinstance(image, int) and isinstance(patch, int):  # torchvision
        return image // patch, image // patch
    return None


ATTENTION_CALLS = {"softmax", "scaled_dot_product_attention", "multi_head_attention_forward"}


@cache
def _calls_attention(kind: type[nn.Module]) -> bool:
    """Whether a method of the class, or a function it names, calls one of ATTENTION_CALLS."""
    for name in dir(kind):
        method = inspect.getattr_static(kind, name)
        if isinstance(method, staticmethod | classmethod):
            method = method.__func__
        method = inspect.unwrap(method)
        if not inspect.isfunction(method) or method is vars(nn.Module).get(name):
            continue
        used = set(method.__code__.co_names)
        helpers = [method.__globals__.get(name) for name in used]
        for helper in filter(inspect.isfunction, helpers):
            used.update(helper.__code__.co_names)
        if used & ATTENTION_CALLS:
            return True
    return False


def attention_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The modules whose own code calls a softmax or an attention kernel, by name, in model order.

    Found from the code of their classes, so new models need no entry here. Some have no map over
    positions (channel attention, selective kernels): only a forward pass tells.

    Args:
        model: The model, which is not run.

    Returns:
        Name → module; the name of a model that is itself an attention layer is its class name.

    Example:
        >>> import timm
        >>> from utils.probes import attention_layers
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=48, depth=2)
        >>> list(attention_layers(model))
        ['blocks.0.attn', 'blocks.1.attn']
    """
    layers = {}
    for name, module in model.named_modules():
        kind: type[nn.Module] = type(module)
        library = kind.__module__.startswith("torch.nn.")
        if isinstance(module, nn.MultiheadAttention) or (
            not library
            and (
                _calls_attention(kind)  # type: ignore[arg-type]  # a class can be hashed
                or any(isinstance(child, nn.Softmax) for child in module.children())
            )
        ):
            layers[name or kind.__name__] = module
    return layers


# Activation functions whose rectified output can be read as a rate; sigmoids and softmaxes gate.
RATES = (
    *("ReLU", "ReLU6", "LeakyReLU", "StarReLU", "ELU", "GELU", "GELUTanh", "QuickGELU"),
    *("SiLU", "Swish", "Hardswish", "HardSwish", "Mish"),
)


def activation_layers(model: nn.Module) -> list[str]:
    """The names of the modules that are activation functions (ReLU, GELU and their kin).

    Args:
        model: The model, which is not run.

    Returns:
        The names, in model order; none where activations are functions and not modules.

    Example:
        >>> import timm
        >>> from utils.probes import activation_layers
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=48, depth=2)
        >>> activation_layers(model)
        ['blocks.0.mlp.act', 'blocks.1.mlp.act']
    """
    return [name for name, module in model.named_modules() if type(module).__name__ in RATES]


def block_names(model: nn.Module) -> list[str]:
    """The names of the blocks that a model is a chain of, in the order in which it lists them.

    They are the modules with parts of their own in an nn.Sequential or nn.ModuleList, stages being
    opened up; where there are no two of them (VGG), all modules in such lists.

    Args:
        model: The model, which is not run.

    Returns:
        The names; none for a model without such lists.

    Example:
        >>> import timm
        >>> from utils.probes.anatomy import block_names
        >>> block_names(timm.create_model("resnet18"))[:3]
        ['layer1.0', 'layer1.1', 'layer2.0']
    """

    def search(module: nn.Module, path: str, composite: bool) -> list[str]:
        found = []
        listed = isinstance(module, nn.Sequential | nn.ModuleList)
        for name, child in module.named_children():
            inner = search(child, f"{path}{name}.", composite)
            if inner:
                found += inner
            elif listed and (not composite or any(child.children())):
                found.append(f"{path}{name}")
        return found

    blocks = search(model, "", True)
    return blocks if len(blocks) > 1 else search(model, "", False)


def middle_block(model: nn.Module) -> tuple[str, tuple[str, ...]] | None:
    """The block nearest to the middle whose skip connections can be removed, and which it has.

    Args:
        model: The model, which is not run. Its first and last block do not count.

    Returns:
        The block's name and its skip connections: "attention" and "mlp" in timm's Transformer
        blocks, "skip" in residual blocks that change nothing but their branch. None if no block
        has any.
    """
    names = block_names(model)
    found: list[tuple[int, str, tuple[str, ...]]] = []
    for i, name in enumerate(names[1:-1], 1):
        block = model.get_submodule(name)
        if all(hasattr(block, part) for part in ("attn", "mlp", "drop_path1", "drop_path2")):
            found.append((abs(2 * i + 1 - len(names)), name, ("attention", "mlp")))
        elif hasattr(block, "conv2") and getattr(block, "downsample", block) is None:
            found.append((abs(2 * i + 1 - len(names)), name, ("skip",)))
    return min(found, key=lambda each: each[0])[1:] if found else None


def channel_axis(model: nn.Module, layer: str, ndim: int) -> int:
    """Along which axis of a layer's output its channels lie.

    Args:
        model: The model that the layer is part of.
        layer: The name of the layer.
        ndim: How many axes its output has.

    Returns:
        1 for feature maps [batch, channels, rows, columns], −1 for tokens [batch, tokens, channels]
        and channels-last maps [batch, rows, columns, channels].
    """
    if ndim != 4:
        return -1
    path = layer.split(".")
    for depth in range(len(path), 0, -1):  # the layer, then what it is part of
        inner = list(model.get_submodule(".".join(path[:depth])).modules())
        if any(isinstance(module, nn.Conv2d | nn.BatchNorm2d) for module in inner):
            return 1
        if any(type(module) in (nn.Linear, nn.LayerNorm) for module in inner):
            return -1
    return 1


def places(model: nn.Module, layer: str, output: Tensor) -> tuple[Tensor, tuple[int, int], int]:
    """A layer's output place by place, with the grid of places.

    Args:
        model: The model that the layer is part of.
        layer: The name of the layer.
        output: What it put out: tokens [batch, tokens, channels] or maps with four axes.

    Returns:
        The output [batch, rows · columns, channels] without prefix tokens, the grid (rows,
        columns), and how many prefix tokens were dropped.

    Raises:
        ValueError: For what is neither tokens nor maps, and tokens that do not fill a grid.
    """
    if output.ndim == 4:
        maps = output.movedim(channel_axis(model, layer, 4), -1)
        return maps.flatten(1, 2), (maps.shape[1], maps.shape[2]), 0
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


def interior_and_edge(grid: tuple[int, int]) -> dict[str, Tensor]:
    """The places on the border of a grid, and those inside it.

    Args:
        grid: (rows, columns).

    Returns:
        "interior" and "edge" → numbers of places, counted row by row; a group of fewer than two is
        left out.
    """
    border = torch.ones(grid, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    found = {"interior": ~border, "edge": border}
    found = {name: mask.flatten().nonzero()[:, 0] for name, mask in found.items()}
    return {name: numbers for name, numbers in found.items() if len(numbers) > 1}
