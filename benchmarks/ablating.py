"""Exact ablation: ours, the loop over whole forward passes, and Captum.

`CONTENDERS` maps a suite to its model and contenders, the one that all are compared with first.
K = 16 sets of 12 keys of the class row, the same for all images, since Captum knows no others.
"""

from collections.abc import Callable

import timm
import torch
from captum.attr import LayerFeatureAblation
from torch import Tensor, nn

from utils.probes import AblationSpec, Ablator

BATCH = 8
BATCHES = 1  # a turn
DEPTH, HEADS, KEYS, K, SIZE = 12, 3, 197, 16, 12
SETS = 1 + torch.randperm(KEYS - 1, generator=torch.Generator().manual_seed(0))[: K * SIZE]
SETS = SETS.view(K, SIZE)


def deit() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("deit_tiny_patch16_224").eval()


def plain(model: nn.Module) -> Callable:
    return lambda batches: [model(x) for x in batches]


def class_rows(*blocks: int, rows: str = "class") -> list[list[AblationSpec]]:
    keys = SETS[:, None].expand(-1, BATCH, -1)  # [K, batch, keys]
    return [
        [AblationSpec(f"blocks.{block}.attn", keys=k, query_rows=rows) for block in blocks]
        for k in keys
    ]


def channels(layer: str, count: int) -> list[AblationSpec]:
    return [AblationSpec(layer, channels=some) for some in torch.arange(count).view(K, -1)]


def ours(conditions: list) -> Callable:
    def make(model):
        ablator = Ablator(model)
        return lambda batches: [ablator.run(x, conditions) for x in batches]

    return make


def unfused(model: nn.Module, block: int) -> nn.Module:
    """The dropout behind the softmax of one block, which is seen only where it is not fused."""
    attention = model.blocks[block].attn
    attention.fused_attn = False
    return attention.attn_drop


def hooked(model: nn.Module, layer: nn.Module, x: Tensor, keys: Tensor, rows: slice) -> Tensor:
    def zero(module, args, weights):
        weights = weights.clone()
        weights[:, :, rows, keys] = 0
        return weights

    handle = layer.register_forward_hook(zero)
    logits = model(x)
    handle.remove()
    return logits


def loop(block: int, rows: slice = slice(0, 1)) -> Callable:
    def make(model):
        layer = unfused(model, block)
        return lambda batches: [
            torch.stack([hooked(model, layer, x, keys, rows) for keys in SETS]) for x in batches
        ]

    return make


def loop_over_channels(name: str, count: int, axis: int) -> Callable:
    def make(model):
        layer = model.get_submodule(name)

        def without(x, some):
            handle = layer.register_forward_hook(
                lambda module, args, out: out.index_fill(axis, some, 0)
            )
            logits = model(x)
            handle.remove()
            return logits

        def run(batches):
            sets = torch.arange(count, device=batches[0].device).view(K, -1)
            return [torch.stack([without(x, some) for some in sets]) for x in batches]

        return run

    return make


def captum(block: int) -> Callable:
    def make(model):
        mask = torch.zeros(1, 1, KEYS, KEYS, dtype=torch.long)  # group 0 is what stays, in vain
        for group, keys in enumerate(SETS, 1):
            mask[:, :, 0, keys] = group
        mask = mask.expand(1, HEADS, KEYS, KEYS).to(next(model.parameters()).device)
        ablation = LayerFeatureAblation(model, unfused(model, block))
        return lambda batches: [ablation.attribute(x, target=0, layer_mask=mask) for x in batches]

    return make


# -- The paper's experiment: the 20 largest entries of the class row, and three random sets --------


def vit() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224").eval()


def largest(weights: Tensor) -> Tensor:
    """The 20 patches with the largest weight, all heads together: [batch, heads, keys] → keys."""
    return weights[..., 1:].mean(1).topk(20).indices + 1


def random_patches(batch: int) -> Tensor:
    return torch.rand(batch, KEYS - 1).topk(20).indices + 1


def papers_loop(model):
    """One image a pass, four passes an image; only the ablated block is not fused."""
    layer = unfused(model, DEPTH - 1)

    def top(module, args, weights):
        weights = weights.clone()
        weights[0, :, 0, largest(weights[:, :, 0])[0]] = 0
        return weights

    def run(batches):
        found = []
        for image in (x[i : i + 1] for x in batches for i in range(len(x))):
            handle = layer.register_forward_hook(top)
            found.append(model(image))
            handle.remove()
            for _ in range(3):
                keys = random_patches(1)[0].to(image.device)
                found.append(hooked(model, layer, image, keys, slice(0, 1)))
        return found

    return run


def papers_conditions(together: int) -> Callable:
    def make(model):
        ablator, layer = Ablator(model), f"blocks.{DEPTH - 1}.attn"

        def run(batches):
            found = []
            for x in torch.cat(batches).split(together):
                sets = [largest, *(random_patches(len(x)) for _ in range(3))]
                found.append(ablator.run(x, [AblationSpec(layer, keys=keys) for keys in sets]))
            return found

        return run

    return make


# -- Channels of models whose blocks differ in cost -----------------------------------------------


def resnet() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("resnet18").eval()


def swin() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("swin_tiny_patch4_window7_224").eval()


CONTENDERS = {
    "16 ablations of class rows in the last two blocks (deit_tiny, 224 px, batch 8)": (
        deit,
        {
            "plain forward": plain,
            "ours, last block": ours(class_rows(11)),
            "ours, block before": ours(class_rows(10)),
            "ours, both": ours(class_rows(10, 11)),
            "loop, last block": loop(11),
            "Captum, last block": captum(11),
        },
    ),
    "16 ablations at block L of 12 (deit_tiny, 224 px, batch 8)": (
        deit,
        {
            "plain forward": plain,
            "ours, L = 3 (floor 12.25)": ours(class_rows(3)),
            "ours, L = 6 (floor 8.5)": ours(class_rows(6)),
            "ours, L = 9 (floor 4.75)": ours(class_rows(9)),
            "ours, L = 6, all rows": ours(class_rows(6, rows="all")),
            "ours, L = 6, neurons": ours(channels("blocks.6.mlp.act", 768)),
            "loop, L = 6": loop(6),
            "loop, L = 6, all rows": loop(6, slice(None)),
        },
    ),
    "16 ablations of a CNN's channels (resnet18, 224 px, batch 8)": (
        resnet,
        {
            "plain forward": plain,
            "ours, third of 4 stages": ours(channels("layer3.1.act2", 256)),
            "ours, last": ours(channels("layer4.1.act2", 512)),
            "loop, third of 4 stages": loop_over_channels("layer3.1.act2", 256, 1),
        },
    ),
    "16 ablations of a Swin's neurons (swin_tiny, 224 px, batch 8)": (
        swin,
        {
            "plain forward": plain,
            "ours, third of 4 stages": ours(channels("layers.2.blocks.3.mlp.act", 1536)),
            "ours, last": ours(channels("layers.3.blocks.1.mlp.act", 3072)),
            "loop, third of 4 stages": loop_over_channels("layers.2.blocks.3.mlp.act", 1536, -1),
        },
    ),
    "the paper's four conditions on 32 images (vit_tiny, 224 px)": (
        vit,
        {
            "one image a pass, 4 passes": papers_loop,
            "ours, batch 8": papers_conditions(8),
            "ours, batch 32": papers_conditions(32),
        },
    ),
}
# How many batches of 8 a turn takes, where it is not BATCHES.
TURNS = {"the paper's four conditions on 32 images (vit_tiny, 224 px)": 4}
