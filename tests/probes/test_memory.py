"""What was probed is free as soon as nobody refers to it, without waiting for the collector."""

import gc
import weakref

import pytest
import timm
import torch

from utils.probes import AblationSpec, Ablator, ActivationRecorder, AttentionProbe

IMAGES = torch.rand(2, 3, 48, 48)


def attention(model):
    with AttentionProbe(model):
        model(IMAGES)


def activations(model):
    with ActivationRecorder(model, "*act"):
        model(IMAGES)


def ablated(model):
    specs = [AblationSpec(f"blocks.{block}.attn", keys=[1]) for block in range(2)]
    Ablator(model).run(IMAGES, [*specs, AblationSpec("blocks.0.mlp.act", channels=[1])])


@pytest.mark.parametrize("use", [attention, activations, ablated])
def test_a_model_that_was_probed_is_free_when_it_is_let_go(use):
    model = timm.create_model("vit_tiny_patch16_224", img_size=48, depth=2).eval()
    gone = weakref.ref(model)
    gc.disable()
    try:
        with torch.no_grad():
            use(model)
        del model
        assert gone() is None
    finally:
        gc.enable()
