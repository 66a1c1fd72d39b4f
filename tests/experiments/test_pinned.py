"""The pinned ImageNet models with random weights: with the trained ones, all else is the same."""

import pytest
import torch
from torch import nn

from experiments.catalogue import IMAGENET
from experiments.metrics import merged
from experiments.tasks.ablate import ablatable
from experiments.tasks.measure import Measurement
from experiments.tasks.tables import rows
from utils.models import zoo
from utils.probes.anatomy import activation_layers

pytestmark = pytest.mark.slow
PATCHES = 14 * 14


def read(model):
    """All that is read of attention and activations from two images of noise."""
    measurement = Measurement(model, ["accuracy", "attention", "distance", "activation"])
    images = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    measurement.update(images, torch.tensor([0, 1]), torch.tensor([0, 1]))
    return list(rows(merged([measurement.metrics])))


@pytest.mark.parametrize("name", [n for n, model in IMAGENET.items() if model.heads])
def test_every_head_of_a_pinned_vit_is_read(name):
    declared, model = IMAGENET[name], zoo.architecture(name)
    blocks = [f"blocks.{i}.attn" for i in range(declared.depth)]
    assert ablatable(model, "attention") == blocks
    assert model.embed_dim == declared.width
    ginis = {
        (row["layer"], row["head"]): row["value"]
        for row in read(model)
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
    ginis = {
        row["layer"]: row["value"]
        for row in read(model)
        if (row["quantity"], row.get("unit")) == ("population_gini", "channel")
    }
    assert list(ginis) == ablatable(model, "unit") == activation_layers(model)
    assert all(0 < value < 1 for value in ginis.values())
