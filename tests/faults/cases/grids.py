"""Images of other shapes than a model's nominal one: which patch lies where."""

import math
from functools import cache
from itertools import product

import numpy as np
import timm
import torch
from torch import nn

from experiments.tasks.measure import Measurement
from experiments.tasks.represent import Representation
from faults.case import Case
from utils.measures.agreement import patch_maps
from utils.measures.frequency import change_across_sub_blocks, delta_log_amplitude
from utils.measures.receptive_field import effective_receptive_field, field_of
from utils.probes import AttentionProbe, TokenLayout, attention_maps, token_layout
from utils.probes.anatomy import places

SMALL = dict(depth=2, embed_dim=48, num_heads=3, num_classes=5)
# Name → model for images of any shape, nominally 64 × 64, and pixels from one patch to the next.
DYNAMIC = {
    "ViT": ("vit_tiny_patch16_224", SMALL, 16),
    "ViT with registers": ("vit_small_patch14_reg4_dinov2", SMALL | dict(img_size=56), 14),
    "ViT without class token": ("vit_base_patch16_siglip_224", SMALL, 16),
    "ViT, patches of 8": ("vit_tiny_patch16_224", SMALL | dict(patch_size=8), 8),
    "BEiT-like EVA": ("eva02_tiny_patch14_224", SMALL | dict(img_size=56), 14),
}
SHAPES = ((2, 8), (8, 2), (1, 16), (3, 5), (4, 4), (2, 3), (5, 3), (7, 1))  # in patches


@cache
def dynamic(name):
    torch.manual_seed(0)
    kind, options, patch = DYNAMIC[name]
    options = dict(img_size=64, dynamic_img_size=True) | options
    return timm.create_model(kind, **options).eval(), patch


def images(shape, patch, number=1):
    sides = [count * patch for count in shape]
    return torch.rand(number, 3, *sides, generator=torch.Generator().manual_seed(1))


def corner(name, shape):
    """(rows, columns) that the field of the last patch of the embedding covers."""
    model, patch = dynamic(name)
    layer = "pos_drop" if "EVA" in name else "norm_pre"
    last = (shape[0] - 1, shape[1] - 1)
    field = effective_receptive_field(model, images(shape, patch), layer, last)
    rows, columns = (field.sum(axis).nonzero().flatten() for axis in (1, 0))
    return [rows.min(), rows.max(), columns.min(), columns.max()]


def last_patch(name, shape):
    patch = DYNAMIC[name][2]
    return [(shape[0] - 1) * patch, shape[0] * patch - 1,
            (shape[1] - 1) * patch, shape[1] * patch - 1]  # fmt: skip


def middle(name, shape):
    model, patch = dynamic(name)
    return field_of(model, images(shape, patch), "blocks.1")[1]


def middle_by_hand(name, shape):
    patch = DYNAMIC[name][2]
    return tuple((count // 2 + 0.5) * patch - 0.5 for count in shape)


@torch.no_grad()
def distance(name, shape):
    """Attention distance of every layer and head, in pixels."""
    model, patch = dynamic(name)
    measurement = Measurement(model, ["distance"])
    x = images(shape, patch, 2)
    measurement.update(x, torch.zeros(2).long(), torch.arange(2))
    found = {key[1]: m.compute().mean for key, m in measurement.metrics.items()
             if key[0] == "distance"}  # fmt: skip
    return list(found.values())


@torch.no_grad()
def distance_by_hand(name, shape):
    model, patch = dynamic(name)
    prefix = {"ViT with registers": 5, "ViT without class token": 0}.get(name, 1)
    with AttentionProbe(model, "blocks.*", rows="all") as probe:
        model(images(shape, patch, 2))
    places_ = np.array([(y, x) for y in range(shape[0]) for x in range(shape[1])]) * patch
    apart = np.sqrt(((places_[:, None] - places_) ** 2).sum(-1))
    found = []
    for maps in probe.maps.values():
        weights = maps[..., prefix:, prefix:].double().numpy()
        weights = weights / weights.sum(-1, keepdims=True)
        found.append((weights * apart).sum(-1).mean(-1).mean(0))
    return found


@torch.no_grad()
def final_places(name, shape):
    """The grid of the last block, as decoding takes it, and its first patch."""
    model, patch = dynamic(name)
    tokens, grid = Representation(model, [])._final(images(shape, patch))
    return [list(grid), tokens[:, 0]]


@torch.no_grad()
def last_block(name, shape):
    model, patch = dynamic(name)
    seen = {}
    prefix = {"ViT with registers": 5, "ViT without class token": 0}.get(name, 1)
    with model.blocks[-1].register_forward_hook(lambda m, args, out: seen.update(out=out)):
        model(images(shape, patch))
    return [list(shape), seen["out"][:, prefix]]


@torch.no_grad()
def frequencies(name, shape):
    model, patch = dynamic(name)
    found = change_across_sub_blocks(model, images(shape, patch, 2))
    return [found["mlp"]["blocks.1"]]


@torch.no_grad()
def frequencies_by_hand(name, shape):
    """Of the second MLP: what comes out less what goes in, on the grid of the images."""
    model, patch = dynamic(name)
    prefix = {"ViT with registers": 5, "ViT without class token": 0}.get(name, 1)
    seen, block = {}, model.blocks[1]
    with (
        block.norm2.register_forward_pre_hook(lambda m, args: seen.update(before=args[0])),
        block.register_forward_hook(lambda m, args, out: seen.update(after=out)),
    ):
        model(images(shape, patch, 2))
    maps = [seen[k][:, prefix:].mT.unflatten(-1, shape) for k in ("before", "after")]
    before, after = (delta_log_amplitude(x)[:, -1] for x in maps)
    return [after - before]


@torch.no_grad()
def mapped(name, shape):
    model, patch = dynamic(name)
    return {k: list(v.shape[-1:]) for k, v in patch_maps(model, images(shape, patch)).items()}


CASES = []
for name, shape in product(DYNAMIC, SHAPES):
    args = (name, shape)
    said = f"{name}, {shape[0]} × {shape[1]} patches"
    CASES += [
        Case(f"{said}: the field of the last patch", lambda _, a=args: corner(*a),
             last_patch(*args)),
        Case(f"{said}: the last block by places", lambda _, a=args: final_places(*a),
             lambda _, a=args: last_block(*a)),
    ]  # fmt: skip
for name, shape in product(("ViT", "ViT with registers"), ((2, 8), (8, 2), (3, 5), (4, 4))):
    args = (name, shape)
    said = f"{name}, {shape[0]} × {shape[1]} patches"
    CASES += [
        Case(f"{said}: attention distance", lambda _, a=args: distance(*a),
             lambda _, a=args: distance_by_hand(*a)),
        Case(f"{said}: the middle of the field", lambda _, a=args: middle(*a),
             middle_by_hand(*args)),
        Case(f"{said}: maps by patches", lambda _, a=args: mapped(*a),
             {f"blocks.{i}.attn": [math.prod(shape)] for i in range(2)}),
        Case(f"{said}: frequencies", lambda _, a=args: frequencies(*a),
             (lambda _, a=args: frequencies_by_hand(*a)) if shape[0] == shape[1] else None,
             () if shape[0] == shape[1] else ("fill no square", "use square images")),
    ]  # fmt: skip


# --- the grid as the embedding makes it, for sizes that no patch divides


def embedded(kind, size, stride):
    """The grid that a network's own convolutions make of an image."""
    x = torch.zeros(1, 1, *size)
    if kind == "cut off":
        return nn.Conv2d(1, 1, stride, stride)(x).shape[-2:]
    if kind == "filled up":
        return nn.Conv2d(1, 1, stride, stride)(_padded(x, stride)).shape[-2:]
    if kind == "overlapping":
        return nn.Conv2d(1, 1, 2 * stride, stride)(x).shape[-2:]
    for _ in range(int(math.log2(stride))):  # a stem of several, as in PVT, LeViT and MViT
        x = nn.Conv2d(1, 1, 3, 2, 1)(x)
    return x.shape[-2:]


def _padded(x, stride):
    down, right = (-side % stride for side in x.shape[-2:])
    return nn.functional.pad(x, (0, right, 0, down))


def grids(kind, stride, known):
    """Those of a hundred random sizes whose grid is told wrongly, and whether most are told."""
    rng, wrong, untold = np.random.default_rng(stride), [], 0
    for _ in range(100):
        size = tuple(int(side) for side in rng.integers(2 * stride + 1, 20 * stride, 2))
        grid = tuple(embedded(kind, size, stride))
        nominal = (4, 4) if known and kind != "overlapping" else None
        layout = TokenLayout(1, True, "token", nominal, patch=(stride, stride) if known else None)
        told = layout.grid_in(math.prod(grid), size)
        wrong += [] if told in (grid, None) else [(size, grid, told)]
        untold += told is None
    return [wrong, untold <= 20]


CASES += [
    Case(
        f"a hundred sizes, patches of {stride} {kind}, {'their size known' if known else 'unsaid'}",
        lambda _, args=(kind, stride, known): grids(*args),
        [[], True],
    )
    for kind, stride, known in product(
        ("cut off", "filled up", "overlapping", "a stem of several"), (8, 16), (True, False)
    )
]


# --- numbers that could be several grids, or none


def told(patches, size, **layout):
    return TokenLayout(1, True, "token", layout.pop("grid", None), **layout).grid_in(patches, size)


P16 = dict(patch=(16, 16))
CASES += [
    Case("16 patches of 32 × 128", lambda _: told(16, (32, 128), grid=(4, 4), **P16), (2, 8)),
    Case("16 patches of 128 × 32", lambda _: told(16, (128, 32), grid=(4, 4), **P16), (8, 2)),
    Case("16 patches of a nominal image", lambda _: told(16, None, grid=(2, 8)), (2, 8)),
    Case("16 patches of nothing known", lambda _: told(16, None), (4, 4)),
    Case("15 patches of nothing known", lambda _: str(told(15, None)), "None"),
    Case("no patches", lambda _: str(told(0, (32, 32))), "None"),
    Case("7 patches of a square", lambda _: str(told(7, (32, 32), **P16)), "None"),
    Case("12 patches of a square", lambda _: str(told(12, (64, 64))), "None"),
    Case("196 patches of a model that resizes",
         lambda _: told(196, (300, 500), grid=(14, 14), patch=(16, 16)), (14, 14)),
    Case("49 patches of a later stage",
         lambda _: told(49, (224, 224), grid=(56, 56), patch=(4, 4)), (7, 7)),
    Case("98 patches of a later stage",
         lambda _: told(98, (224, 448), grid=(56, 56), patch=(4, 4)), (7, 14)),
    Case("patches that are not square",
         lambda _: told(16, (32, 64), patch=(8, 16)), (4, 4)),
]  # fmt: skip
CASES += [
    Case(
        f"prefix of {tokens} tokens, {size}, late",
        lambda _, a=(tokens, size): TokenLayout(
            1, True, "token", (4, 4), late=True, patch=(16, 16)
        ).prefix_in(*a),
        prefix,
    )
    for tokens, size, prefix in (
        *((16, (64, 64), 0), (17, (64, 64), 1), (16, (32, 128), 0), (17, (32, 128), 1)),
        *((12, (48, 64), 0), (13, (48, 64), 1), (9, (64, 64), 0), (17, None, 1), (16, None, 0)),
    )
]
CASES += [
    Case("prefix of a patch embedding",
         lambda _: TokenLayout(1, True, "token", (4, 4), **P16).prefix_in(16, (64, 64)), 0),
    Case("prefix where patches were dropped",
         lambda _: TokenLayout(1, True, "token", (4, 4), **P16).prefix_in(9, (64, 64)), 1),
    Case("late tokens of an unknown grid",
         lambda _: TokenLayout(1, True, "token", None, late=True).prefix_in(99),
         says=("99 tokens", "use square images")),
]  # fmt: skip


# --- late class tokens in images of another shape


@torch.no_grad()
def xcit(size):
    torch.manual_seed(0)
    model = timm.create_model("xcit_nano_12_p16_224", depth=1, num_classes=5).eval()
    maps = attention_maps(model, torch.rand(1, 3, *size), "cls_attn_blocks.*")
    return list(maps.shape[-2:])


@torch.no_grad()
def position_out_of_the_grid():
    model, patch = dynamic("ViT")
    effective_receptive_field(model, images((2, 8), patch), "norm_pre", (3, 3))


def embedding_by_places():
    model, patch = dynamic("ViT")
    x = images((2, 8), patch)
    made = model.patch_embed(x).flatten(1, 2)
    tokens, grid, prefix = places(model, "patch_embed", made, (32, 128))
    return [list(grid), prefix, tokens.shape[1]]


CASES += [
    *(Case(f"class rows of XCiT, {size}", lambda _, size=size: xcit(size),
           [1, size[0] * size[1] // 256 + 1]) for size in ((64, 64), (32, 128), (48, 80))),
    Case("a position of the nominal grid alone", lambda _: position_out_of_the_grid(),
         says=("grid of 2 × 8", "no position (3, 3)")),
    Case("the patch embedding by places", lambda _: embedding_by_places(), [[2, 8], 0, 16]),
    Case("the nominal patch of a wrapped model",
         lambda _: token_layout(nn.Sequential(nn.Identity(), dynamic("ViT")[0])).patch, (16, 16)),
]  # fmt: skip
