"""What a model is made of: tokens, blocks, attention layers, activations, places in the image."""

import inspect
import re
from dataclasses import dataclass, replace
from functools import cache, partial
from math import ceil, floor, inf, isqrt, log, prod
from types import CodeType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .channels import channel_axis

# Attributes of models whose class token joins only after some attention layers (CaiT, XCiT, VOLO,
# ConViT) or whose inner attention never sees it (TNT).
LATE_CLASS_TOKEN = (
    "blocks_token_only",
    "cls_attn_blocks",
    "post_network",
    "local_up_to_layer",
    "pixel_embed",
)
# What libraries call tokens, before "_token", "_tokens" or "_embedding".
TOKENS = {
    "class": ("cls", "class"),
    "distillation": ("dist", "distill", "distillation"),
    "register": ("reg", "register", "registers", "storage"),
}
NO_TOKENS = ("mask", "masked")  # stand for patches that are hidden in training
_TOKEN = re.compile(r"(?:(.*?)_)?(tokens?|embedding|embed|emb)[_\d]*")

Pair = tuple[int, int]


@dataclass(frozen=True)
class TokenLayout:
    """Where the tokens of a model are: the prefix, with the class token first, then the patches.

    Attributes:
        prefix: How many class, distillation and register tokens there are.
        has_class_token: Whether the first of them is a class token.
        pool: How the head reads the tokens: "token", "avg", "map", …; None if the model does not
            say.
        grid: (rows, columns) of patches at the model's nominal image size; None if the model does
            not say. An image of another shape has another grid: ask `grid_in`.
        late: Whether some attention layers see no prefix: ask `prefix_in`.
        patch: (rows, columns) of pixels from one patch to the next; None if the model does not say.

    Example:
        >>> from utils.probes import TokenLayout
        >>> layout = TokenLayout(5, True, "token", (14, 14))  # a class token and four registers
        >>> layout.prefix_in(201)
        5
        >>> TokenLayout(1, True, "token", (4, 4), patch=(16, 16)).grid_in(16, (32, 128))
        (2, 8)
    """

    prefix: int
    has_class_token: bool
    pool: str | None
    grid: Pair | None
    late: bool = False
    patch: tuple[float, float] | None = None

    def prefix_in(self, tokens: int, size: Pair | None = None) -> int:
        """How many of a layer's tokens are prefix tokens: all, or none where they have not joined.

        None are where the patches of the image are as many as the tokens, as in a patch embedding;
        in a `late` model also where the number is another.

        Args:
            tokens: How many tokens the layer has: the length of a map's key axis.
            size: (rows, columns) of the image; None for the nominal ones and, in a model that does
                not say them, for a square.

        Returns:
            Their number, 0 … prefix.

        Raises:
            ValueError: In a late model whose grid is not known, if the rest is one neither with nor
                without the prefix.
        """
        if size is None and not self.late:
            return self.prefix
        grids = [*(self._embedded(size) if size else []), *([self.grid] if self.grid else [])]
        known = [prod(grid) for grid in grids]
        for patches in known:
            if tokens in (patches, patches + self.prefix):
                return tokens - patches
        if known or not self.late:
            return 0 if self.late else self.prefix
        for prefix in (0, self.prefix):
            if self.grid_in(tokens - prefix, size):
                return prefix
        raise ValueError(
            f"Whether {self.prefix} of {tokens} tokens are prefix tokens cannot be told, for the "
            "model does not say its grid of patches: use square images."
        )

    def grid_in(self, patches: int, size: Pair | None = None) -> Pair | None:
        """Which grid a number of patches fills: that of the image, whatever the nominal one.

        Args:
            patches: How many there are, without the prefix.
            size: (rows, columns) of the image, as for `prefix_in`.

        Returns:
            (rows, columns); None where they fill none, or two that the image does not tell apart.
        """
        if patches < 1:
            return None
        if size is None:
            if self.grid and prod(self.grid) == patches:
                return self.grid
            side = isqrt(patches)
            return (side, side) if side**2 == patches else None
        for grid in self._embedded(size):
            if prod(grid) == patches:
                return grid
        # Patches of a later stage, of a model that does not say their size or brings images to its
        # own.
        height, width = self.patch or (1, 1)
        found = _grid_of_shape(patches, (size[0] / height, size[1] / width))
        if self.grid and prod(self.grid) == patches:
            return self.grid if found in (None, self.grid) else None
        return found

    def _embedded(self, size: Pair) -> list[Pair]:
        """The grids that the patch embedding may make of an image, the likeliest first."""
        if not self.patch:
            return []
        rows, columns = (side / patch for side, patch in zip(size, self.patch, strict=True))
        return [(int(near(rows)), int(near(columns))) for near in (floor, ceil, round)]


def _grid_of_shape(patches: int, size: tuple[float, float]) -> Pair | None:
    """The grid whose patches are nearest to squares, if no other comes near."""
    every = [(rows, patches // rows) for rows in range(1, patches + 1) if not patches % rows]
    fit = sorted((far, grid) for grid in every if (far := _misfit(grid, size)) is not None)
    clear = len(fit) == 1 or (len(fit) > 1 and 4 * fit[0][0] < fit[1][0])
    return fit[0][1] if clear else None


def _misfit(grid: Pair, size: tuple[float, float]) -> float | None:
    """How far from square the patches of a grid are; None if no square patches make that grid."""
    sides = [*zip(grid, size, strict=True)]
    exact = [side / count for count, side in sides]
    less = [side / (count + 1) for count, side in sides]  # a rest is cut off: larger than this
    least = [side / (count + 2) for count, side in sides]  # and a patch, if they overlap
    more = [side / (count - 1) if count > 1 else inf for count, side in sides]  # or filled up
    ranges = ((less, exact), (exact, more), (least, less))
    possible = any(max(low) < min(high) for low, high in ranges)
    return abs(log(exact[0] / exact[1])) if possible else None


def token_layout(model: nn.Module) -> TokenLayout:
    """Read off a model how many prefix tokens it has and what they are.

    Correct for distilled models (2 prefix tokens), registers with and without a class token, and
    models without tokens (prefix 0), also within a wrapper (`nn.Sequential(Normalize(…), model)`,
    `nn.DataParallel`, a module of one's own). Tokens are known by the names that timm,
    torchvision, transformers, open_clip and DINO give them; `num_prefix_tokens` of a model is
    believed. Explained in chapter 3.

    Args:
        model: The model, which is not run.

    Returns:
        The layout of its tokens.

    Raises:
        ValueError: For token parameters under another name, and for models within one whose tokens
            differ.

    Example:
        >>> import timm
        >>> from utils.probes import token_layout
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=48, depth=2)
        >>> layout = token_layout(model)
        >>> layout.prefix, layout.has_class_token, layout.grid
        (1, True, (3, 3))
    """
    parts = _with_tokens(model) or {"": model}
    layouts = {}
    for name, part in parts.items():
        beyond = (each for each in parts.values() if each is not part)
        elsewhere = {module for each in beyond for module in each.modules()}
        layouts[name or type(model).__name__] = _layout(
            part, name, [module for module in model.modules() if module not in elsewhere]
        )
    if len({*layouts.values()}) > 1:  # stages of a pyramid, say
        layouts = {name: replace(each, grid=None, patch=None) for name, each in layouts.items()}
    if len({*layouts.values()}) > 1:
        (one, first), *others = layouts.items()
        other, second = next(each for each in others if each[1] != first)
        raise ValueError(
            f"{type(model).__name__} holds models whose tokens differ ({one} has {first.prefix} "
            f"prefix tokens, {other} {second.prefix}): give one of them."
        )
    return next(iter(layouts.values()))


def _with_tokens(model: nn.Module, path: str = "") -> dict[str, nn.Module]:
    """The outermost modules that know something of tokens, by name: the models in a wrapper."""
    if _own_tokens(model, path) or _knows(model):
        return {path: model}
    found: dict[str, nn.Module] = {}
    for name, child in model.named_children():
        found |= _with_tokens(child, f"{path}.{name}" if path else name)
    return found


def _knows(model: nn.Module) -> bool:
    named = any(hasattr(model, name) for name in (*LATE_CLASS_TOKEN, "num_prefix_tokens"))
    return named or _grid(model) != (None, None)


def _own_tokens(module: nn.Module, path: str) -> list[tuple[str | None, str, int]]:
    """(kind, name, number) of the token parameters that are a module's own; None if unknown."""
    found = []
    for name, parameter in module.named_parameters(recurse=False):
        # A list of parameters, or an nn.Embedding of known tokens, is named by what holds it.
        listed, embedding = name.isdigit(), isinstance(module, nn.Embedding)
        name = path.rpartition(".")[2] if listed or embedding else name
        if not (match := _TOKEN.fullmatch(name.lower())):
            continue
        word, noun = (match[1] or "").rpartition("_")[2], match[2]
        number = parameter.shape[-2] if parameter.ndim > 1 else 1
        kind = next((kind for kind, words in TOKENS.items() if word in words), None)
        if noun.startswith("token"):
            if word not in NO_TOKENS and (kind or not embedding):
                found.append((kind, name, number))
        elif kind and number == 1:  # class_embedding, but no table of the classes
            found.append((kind, name, number))
    return found


def _layout(part: nn.Module, path: str, around: list[nn.Module]) -> TokenLayout:
    """The layout of a model that may be part of a larger one, with what is around it."""
    counts, unknown, owner = dict.fromkeys(TOKENS, 0), [], None
    for where, module in part.named_modules(prefix=path):
        for kind, name, number in _own_tokens(module, where):
            if kind is None:
                unknown.append(name)
                continue
            counts[kind] = max(counts[kind], number)
            owner = owner or (module if kind == "class" else None)
    stated, known = getattr(part, "num_prefix_tokens", None), sum(counts.values())
    if unknown and stated in (None, known):
        raise ValueError(
            f"{type(part).__name__} has tokens of an unknown kind ({', '.join(unknown[:3])}), so "
            "which of its tokens are patches cannot be told: set its num_prefix_tokens to the "
            "number of all tokens before the patches."
        )
    pools = (vars(module).get("global_pool") for module in around)
    pool = next((each for each in pools if isinstance(each, str)), None)
    pool = pool or ("token" if owner else None)
    late = any(hasattr(part, name) for name in LATE_CLASS_TOKEN)
    late = late or (owner is not None and _joins_late(owner, around))
    grid, patch = _grid(part)
    prefix = known if stated is None else stated
    return TokenLayout(prefix, owner is not None, pool, grid, late, patch)


def _joins_late(owner: nn.Module, modules: list[nn.Module]) -> bool:
    """Whether attention comes before the module whose own the class token is."""
    for module in modules:
        if module is owner or _is_attention(module):
            return module is not owner
    return False


def _grid(model: nn.Module) -> tuple[Pair | None, tuple[float, float] | None]:
    """The nominal grid of patches and the pixels from one to the next, as far as a model says."""
    for name in ("patch_embed", "pixel_embed", "patch_embeddings"):
        embed = getattr(model, name, None)
        image = _first_pair(embed, "img_size", "image_size")
        grid = _first_pair(embed, "grid_size", "patches_resolution")
        proj = getattr(embed, "proj", embed)
        patch = _first_pair(embed, "patch_size")
        if isinstance(proj, nn.Conv2d):
            patch = (proj.stride[0], proj.stride[1])
        if embed is not None and (grid or patch):
            break
    position = getattr(model, "pos_embed", None)
    if grid is None and isinstance(position, Tensor) and position.ndim == 4:
        return (position.shape[1], position.shape[2]), None  # VOLO: [1, rows, columns, width]
    if not (grid or patch):  # torchvision, open_clip
        image, patch = _first_pair(model, "image_size"), _first_pair(model, "patch_size")
        patch = image and patch
    if image and grid:
        return grid, (image[0] / grid[0], image[1] / grid[1])
    if image and patch:
        return (image[0] // patch[0], image[1] // patch[1]), patch
    return grid, patch


def _first_pair(owner: object, *names: str) -> Pair | None:
    """(rows, columns) of the first attribute that is a whole number or two."""
    for value in (getattr(owner, name, None) for name in names):
        value = (value, value) if isinstance(value, int) else value
        if isinstance(value, tuple | list) and [*map(type, value)] == [int, int]:
            return (value[0], value[1])
    return None


ATTENTION_CALLS = {"softmax", "scaled_dot_product_attention", "multi_head_attention_forward"}
_KERNELS = (torch.softmax, F.softmax, F.scaled_dot_product_attention)


def _names(code: CodeType) -> set[str]:
    """The names that code uses, in the functions and comprehensions within it too."""
    inner = [_names(each) for each in code.co_consts if isinstance(each, CodeType)]
    return set(code.co_names).union(*inner)


def _attends(thing: object, depth: int = 4) -> bool:
    """Whether something is a kernel, or a function that names one or calls a function that does."""
    if not callable(thing) or not depth:
        return False
    if thing in _KERNELS:
        return True
    if isinstance(thing, partial):
        return _attends(thing.func, depth)
    if not inspect.isfunction(thing):
        return False
    names = _names(thing.__code__)
    used = [thing.__globals__.get(name) for name in names]
    used += inspect.getclosurevars(thing).nonlocals.values()
    return bool(names & ATTENTION_CALLS) or any(_attends(each, depth - 1) for each in used)


@cache
def _calls_attention(kind: type[nn.Module]) -> bool:
    """Whether a method of the class, or a function it names, calls one of ATTENTION_CALLS."""
    for name in dir(kind):
        method = inspect.getattr_static(kind, name)
        if isinstance(method, staticmethod | classmethod):
            method = method.__func__
        method = inspect.unwrap(method)
        inherited = method is vars(nn.Module).get(name)
        if inspect.isfunction(method) and not inherited and _attends(method):
            return True
    return False


def _is_attention(module: nn.Module) -> bool:
    kind: type[nn.Module] = type(module)
    if isinstance(module, nn.MultiheadAttention):
        return True
    if kind.__module__.startswith("torch.nn."):
        return False
    own = any(isinstance(child, nn.Softmax) for child in module.children())
    own = own or any(map(_attends, vars(module).values()))  # functions that it was given
    return own or _calls_attention(kind)  # type: ignore[arg-type]  # a class can be hashed


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
    return {
        name or type(module).__name__: module
        for name, module in model.named_modules()
        if _is_attention(module)
    }


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
        The block's name and its skip connections, "attention" and "mlp" in timm's Transformer
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


def places(
    model: nn.Module, layer: str, output: Tensor, size: Pair | None = None
) -> tuple[Tensor, Pair, int]:
    """A layer's output place by place, with the grid of places.

    Args:
        model: The model that the layer is part of.
        layer: The name of the layer.
        output: What it put out: tokens [batch, tokens, channels] or maps with four axes.
        size: (rows, columns) of the images; None for the model's nominal ones.

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
    prefix = layout.prefix_in(output.shape[1], size) if output.ndim == 3 else 0
    grid = layout.grid_in(output.shape[1] - prefix, size) if output.ndim == 3 else None
    if grid is None:
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
