"""The pinned ImageNet models with random weights: with the trained ones, all else is the same."""

import re

import pytest
import timm
import torch
from torch import nn

from experiments.catalogue import IMAGENET
from experiments.engine.metrics import merged
from experiments.tasks.ablate import ablatable
from experiments.tasks.measure import Measurement
from experiments.tasks.tables import rows
from utils.models import zoo
from utils.probes.anatomy import activation_layers

pytestmark = pytest.mark.slow
PATCHES = 14 * 14


def vit(name):
    """A ViT whose blocks share the weights of one: a large one would fill a gigabyte otherwise."""
    with torch.device("meta"):
        model = zoo.architecture(name)
    one = timm.create_model(name, depth=1).state_dict()
    shared = {key: one[re.sub(r"^blocks\.\d+\.", "blocks.0.", key)] for key in model.state_dict()}
    model.load_state_dict(shared, assign=True)
    return model.eval()


def read(model, measures, size=224):
    """What is read from two images of noise."""
    measurement = Measurement(model, measures)
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    measurement.update(images, torch.tensor([0, 1]), torch.tensor([0, 1]))
    return list(rows(merged([measurement.metrics])))


def activity(model, size=224):
    """The population sparseness of each layer over its channels."""
    return {
        row["layer"]: row["value"]
        for row in read(model, ["activation"], size)
        if (row["quantity"], row.get("unit")) == ("population_gini", "channel")
    }


@pytest.mark.parametrize("name", [n for n, model in IMAGENET.items() if model.heads])
def test_every_head_of_a_pinned_vit_is_read(name):
    declared, model = IMAGENET[name], vit(name)
    blocks = [f"blocks.{i}.attn" for i in range(declared.depth)]
    assert ablatable(model, "attention") == blocks
    assert model.embed_dim == declared.width
    ginis = {
        (row["layer"], row["head"]): row["value"]
        for row in read(model, ["accuracy", "attention", "distance"])
        if (row["quantity"], row.get("unit")) == ("gini", "class")
    }
    assert set(ginis) == {(block, head) for block in blocks for head in range(declared.heads)}
    assert all(0 < value < 1 - 1 / PATCHES for value in ginis.values())


@pytest.mark.parametrize("name", [n for n in IMAGENET if n.startswith("resnet")])
def test_every_activation_of_a_pinned_resnet_is_read(name):
    model = zoo.architecture(name)
    layers = [
        layer
        for layer, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and "downsample" not in layer
    ]
    assert len(layers) == IMAGENET[name].depth
    ginis = activity(model, 96)  # at 224 the moments of all positions fill a gigabyte
    assert list(ginis) == ablatable(model, "unit") == activation_layers(model)
    assert all(0 < value < 1 for value in ginis.values())


def test_every_activation_of_a_pinned_vit_is_read():
    model = vit("deit_tiny_patch16_224.fb_in1k")
    ginis = activity(model)
    assert list(ginis) == activation_layers(model) == [f"blocks.{i}.mlp.act" for i in range(12)]
    assert all(0 < value < 1 for value in ginis.values())
