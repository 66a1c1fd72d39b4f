"""Small models that put out channels first and last, wrapped as people do, and where they are.

The truth needs no knowledge of a model: of two sizes of picture, the axis that stays is the
channels'.
"""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import timm
import torch
import torchvision
from timm.models.focalnet import FocalNet
from timm.models.metaformer import (
    Attention,
    LayerNorm2dNoBias,
    LayerNormNoBias,
    MetaFormer,
    SepConv,
)
from torch import nn
from torchvision.models.convnext import CNBlockConfig


class Kind(NamedTuple):
    """How a model is made, and two sizes of picture that it takes."""

    make: Callable[[], nn.Module]
    size: int = 64
    other: int = 96


def _timm(name: str, **options) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, num_classes=7, **options)


def _torchvision(name: str, **options) -> Callable[[], nn.Module]:
    return lambda: getattr(torchvision.models, name)(num_classes=7, **options)


FOUR = dict(depths=(1, 1, 1, 1), dims=(8, 12, 16, 24))
SMALL_CONVNEXT = [CNBlockConfig(12, 20, 1), CNBlockConfig(20, None, 2)]
CONV_AND_ATTENTION = dict(
    token_mixers=[SepConv, SepConv, Attention, Attention],
    norm_layers=[LayerNorm2dNoBias] * 2 + [LayerNormNoBias] * 2,
)
META = dict(depths=(1, 1, 1, 1), dims=(8, 12, 32, 64), num_classes=7)
MODELS = {
    "torchvision ConvNeXt": Kind(lambda: torchvision.models.ConvNeXt(SMALL_CONVNEXT, 0, 1, 7)),
    "torchvision Swin": Kind(
        lambda: torchvision.models.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [2, 2], 4, 0, 0, 0)
    ),
    "torchvision ResNet": Kind(_torchvision("resnet18")),
    "torchvision MobileNet": Kind(_torchvision("mobilenet_v3_small")),
    "torchvision ShuffleNet": Kind(_torchvision("shufflenet_v2_x0_5")),
    "torchvision SqueezeNet": Kind(_torchvision("squeezenet1_1")),
    "ConvNeXt": Kind(_timm("convnext_atto", **FOUR)),
    "ConvNeXt V2": Kind(_timm("convnextv2_atto", **FOUR)),
    "MambaOut": Kind(_timm("mambaout_femto", **FOUR)),
    "CAFormer": Kind(lambda: MetaFormer(**CONV_AND_ATTENTION, **META)),
    "ConvFormer": Kind(lambda: MetaFormer(token_mixers=SepConv, **META)),
    "PoolFormer": Kind(lambda: MetaFormer(**META)),
    "EfficientViT": Kind(_timm("efficientvit_b0"), 64, 128),
    "EdgeNeXt": Kind(_timm("edgenext_xx_small", **FOUR)),
    "FocalNet": Kind(lambda: FocalNet(depths=(1, 1, 1, 1), embed_dim=12, num_classes=7)),
    "ResNet": Kind(_timm("resnet10t")),
    "EfficientNet": Kind(_timm("test_efficientnet")),
}


@cache
def model(name: str) -> nn.Module:
    """A model with random weights, in eval mode; the same one each time."""
    torch.manual_seed(0)
    made = MODELS[name].make().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 1 or parameter.abs().max() < 2e-2:  # layer scale, say
                parameter.uniform_(0.2, 0.9)
    return made


@cache
def shapes(name: str, size: int) -> dict[str, torch.Size]:
    """What each layer puts out, in its first call, where that has four axes."""
    found: dict[str, torch.Size] = {}
    whole = model(name)

    def note(layer):
        def hook(module, args, output):
            found.setdefault(layer, getattr(output, "shape", torch.Size()))

        return hook

    handles = [m.register_forward_hook(note(layer)) for layer, m in whole.named_modules() if layer]
    with torch.no_grad():
        whole(torch.zeros(1, 3, size, size))
    for handle in handles:
        handle.remove()
    return {layer: shape for layer, shape in found.items() if len(shape) == 4}


@cache
def true_axes(name: str) -> dict[str, int]:
    """Layer → the axis of its channels, where two sizes of picture tell."""
    one, other = (shapes(name, size) for size in MODELS[name][1:])
    stay = {layer: [i for i in (1, 2, 3) if one[layer][i] == other[layer][i]] for layer in one}
    return {layer: axes[0] for layer, axes in stay.items() if len(axes) == 1}


def some(names: list[str], count: int) -> list[str]:
    """So many of some names, spread evenly over them."""
    return [names[i * len(names) // count] for i in range(count)] if len(names) > count else names


class Normalize(nn.Module):
    """Images as a model was trained with them; means and deviations are no buffers."""

    def __init__(self):
        super().__init__()
        self.shift = 0.1

    def forward(self, images):
        return (images - self.shift) / 0.9


class OneOfMyOwn(nn.Module):
    """What people write around a backbone."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone

    def forward(self, images):
        return 2 * self.backbone(images)


WRAPPERS = {  # how, and what that puts before the names of layers
    "bare": (lambda inner: inner, ""),
    "after Normalize": (lambda inner: nn.Sequential(Normalize(), inner), "1."),
    "in a module of one's own": (lambda inner: OneOfMyOwn(inner).eval(), "backbone."),
    "in DataParallel": (lambda inner: nn.DataParallel(inner), "module."),
}


def by_a_hook(whole: nn.Module, layer: str, images: torch.Tensor, change) -> torch.Tensor:
    """Logits with the first output of a layer changed: the slow way, which needs no plan."""
    calls = []

    def first(module, args, output):
        calls.append(1)
        return change(output.clone()) if len(calls) == 1 else output

    handle = whole.get_submodule(layer).register_forward_hook(first)
    try:
        with torch.no_grad():
            return whole(images)
    finally:
        handle.remove()


def without_channels(axis: int, channels) -> Callable[[torch.Tensor], torch.Tensor]:
    """A change of an output: these channels along an axis are zero."""
    return lambda output: output.index_fill_(axis, torch.tensor(channels), 0.0)
