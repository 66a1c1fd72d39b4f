"""Reading attention and activations: ours, the ways others do it, and the floor.

Each contender is a function of a model and a list of batches; it runs the model over all of them
and does its work. `CONTENDERS` maps a suite to its contenders, the plain forward pass first.
"""

from collections.abc import Callable

import timm
import torch
from captum.attr import LayerActivation
from timm.utils import AttentionExtract
from torch import nn
from torchvision.models import resnet18
from torchvision.models.feature_extraction import create_feature_extractor

from utils.measures import sparsity
from utils.probes import ActivationRecorder, AttentionProbe

BATCH = 8
BATCHES = 4  # a turn, so that making the metrics does not count for much


def attention_model() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("deit_tiny_patch16_224").eval()


def activation_model() -> nn.Module:
    torch.manual_seed(0)
    return resnet18().eval()


def plain(model: nn.Module) -> Callable:
    return lambda batches: [model(x) for x in batches]


def class_row_sparseness(model):
    def run(batches):
        metrics = {}

        def update(layer, rows):  # [batch, heads, 1, keys]
            metrics.setdefault(layer, sparsity.PopulationSparseness(unit="key")).update(rows)

        with AttentionProbe(model, rows="class", reduce=update):
            for x in batches:
                model(x)
        return {layer: metric.compute() for layer, metric in metrics.items()}

    return run


def all_rows_streamed(model):
    def run(batches):
        metrics = {}

        def update(layer, rows):  # [batch, heads, queries, keys]
            metric = metrics.setdefault(
                layer, sparsity.PopulationSparseness("treves_rolls", unit="key")
            )
            metric.update(rows)

        with AttentionProbe(model, rows="all", reduce=update):
            for x in batches:
                model(x)
        return {layer: metric.compute() for layer, metric in metrics.items()}

    return run


def all_maps_kept(model):
    def run(batches):
        with AttentionProbe(model, rows="all") as probe:
            for x in batches:
                model(x)
        return probe.maps

    return run


def unfused(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    return model


def timm_extract(method: str):
    def make(model):
        extract = AttentionExtract(unfused(model), method=method)
        return lambda batches: [extract(x) for x in batches]

    return make


def hooks_that_copy(model):
    """As vit-explain does: a hook on the dropout after each softmax copies its output."""
    drops = [block.attn.attn_drop for block in unfused(model).blocks]

    def run(batches):
        kept = []
        handles = [
            drop.register_forward_hook(lambda _m, _i, out: kept.append(out.detach().clone()))
            for drop in drops
        ]
        for x in batches:
            model(x)
        for handle in handles:
            handle.remove()
        return kept

    return run


def captum_layers(layers_of: Callable) -> Callable:
    def make(model):
        reader = LayerActivation(model, layers_of(model))
        return lambda batches: [reader.attribute(x) for x in batches]

    return make


def torchvision_extractor(nodes_of: Callable) -> Callable:
    def make(model):
        extractor = create_feature_extractor(unfused(model), nodes_of(model)).eval()
        return lambda batches: [extractor(x) for x in batches]

    return make


def channel_moments(model):
    def run(batches):
        metrics = {}

        def update(layer, responses):  # [batch, channels, rows, columns]
            metrics.setdefault(layer, sparsity.LifetimeSparseness(unit="channel")).update(responses)

        with ActivationRecorder(model, layers="*relu*", reduce=update):
            for x in batches:
                model(x)
        return {layer: metric.compute() for layer, metric in metrics.items()}

    return run


def relus(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.ReLU)]


def relu_nodes(model: nn.Module) -> list[str]:
    names = [name for name, module in model.named_modules() if isinstance(module, nn.ReLU)]
    return names + [f"{name}_1" for name in names if "." in name]


CONTENDERS = {
    "attention (deit_tiny, 224 px, batch 8)": (
        attention_model,
        {
            "plain forward": plain,
            "class-row sparseness": class_row_sparseness,
            "all rows, streamed": all_rows_streamed,
            "all maps kept": all_maps_kept,
            "timm AttentionExtract, fx": timm_extract("fx"),
            "timm AttentionExtract, hooks": timm_extract("hook"),
            "copying hooks": hooks_that_copy,
            "Captum LayerActivation": captum_layers(
                lambda model: [block.attn.attn_drop for block in unfused(model).blocks]
            ),
            "torchvision extractor": torchvision_extractor(
                lambda model: [f"blocks.{i}.attn.softmax" for i in range(len(model.blocks))]
            ),
        },
    ),
    "activations (resnet18, 17 ReLU calls, 224 px, batch 8)": (
        activation_model,
        {
            "plain forward": plain,
            "channel moments": channel_moments,
            "Captum LayerActivation": captum_layers(relus),
            "torchvision extractor": torchvision_extractor(relu_nodes),
        },
    ),
}
