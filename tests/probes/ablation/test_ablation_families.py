"""Attention of every family is ablated as in its own eager code, from the plan that is chosen."""

import warnings
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
import torchvision
from helpers.eager import ARRANGE, build, every_softmax
from helpers.model_families import FAMILIES
from helpers.naive_ablation import lively

from utils.probes import AblationSpec, Ablator, AttentionProbe

pytestmark = pytest.mark.slow  # small models, but a hundred of them


@contextmanager
def eager(model, monkeypatch, layer, raw, change):
    """The model unfused, with the softmax of one layer changed in place by `change`."""
    wanted, _, number = layer.partition("#")
    seen = []

    def changed(name, owner, weights):
        if name != wanted:
            return weights
        lead = weights.shape[:-2]
        places = torch.arange(lead.numel()).reshape(*lead, 1, 1)
        flat = weights.flatten(0, -3)
        for part in ARRANGE[raw](places, getattr(owner, "num_heads", 1)):
            seen.append(layer)
            if len(seen) == int(number or 1):
                maps = flat[part.flatten()].unflatten(0, part.shape[:2])
                flat[part.flatten()] = change(maps).flatten(0, 1)
        return flat.view_as(weights)

    with every_softmax(model, monkeypatch, changed):
        yield


def half_the_keys(shape):
    """Keys [maps, heads, k] at random, and which they are, [maps, heads, 1, keys]."""
    maps, heads, _, keys = shape
    order = torch.rand(maps, heads, keys, generator=torch.Generator().manual_seed(0)).argsort(-1)
    index = order[..., : (keys + 1) // 2]
    return index, torch.zeros(maps, heads, keys).scatter(-1, index, 1.0).bool().unsqueeze(2)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.model)
@torch.inference_mode()
def test_half_of_each_row_is_ablated_as_in_eager_code(family, monkeypatch):
    model, images = build(family)
    model, images = lively(model, images).double(), images.double()
    with warnings.catch_warnings(), AttentionProbe(model, rows="all") as probe:
        warnings.simplefilter("ignore")  # families in which channel attention is left out
        plain = model(images)
        shapes = {layer: weights.shape for layer, weights in probe.maps.items()}
    layer = list(shapes)[len(shapes) // 2]
    index, chosen = half_the_keys(shapes[layer])
    ablator = Ablator(model)
    found = ablator.run(images, [AblationSpec(layer, keys=index, query_rows="all")])[0]

    with eager(model, monkeypatch, layer, family.raw, lambda maps: maps * ~chosen):
        expected = model(images)
    # In float64, for the rounding of float32 grows with the depth of some of these models.
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    assert (expected - plain).abs().max() > 1e-6


@pytest.mark.parametrize("name", ["vit_b_16", "swin_t", "maxvit_t"])
@torch.inference_mode()
def test_models_of_torchvision(name, monkeypatch):
    torch.manual_seed(0)
    small = dict(
        vit_b_16=lambda: torchvision.models.VisionTransformer(32, 8, 3, 2, 24, 48, num_classes=5),
        swin_t=lambda: torchvision.models.SwinTransformer(
            [4, 4], 24, [2, 2], [2, 4], [2, 2], num_classes=5
        ),
        maxvit_t=lambda: torchvision.models.MaxVit(
            (64, 64), 16, 2, [16, 32], [1, 1], 8, 0.0, num_classes=5
        ),
    )[name]()
    images = torch.randn(3, 3, 64 if name == "maxvit_t" else 32, 64 if name == "maxvit_t" else 32)
    model = lively(small, images)
    with AttentionProbe(model, rows="all") as probe:
        plain = model(images)
        shapes = {layer: weights.shape for layer, weights in probe.maps.items()}
    for layer, shape in list(shapes.items())[::2]:
        index, chosen = half_the_keys(shape)
        spec = AblationSpec(layer, keys=index, query_rows="all", value="renormalise")
        found = Ablator(model).run(images, [spec])[0]
        expected = reference(model, images, layer, chosen, monkeypatch)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert (expected - plain).abs().max() > 1e-4


def reference(model, images, layer, chosen, monkeypatch):
    """The softmax of one layer masked and renormalised where torchvision computes it."""
    running = []
    module = model.get_submodule(layer)
    softmax, kernel = F.softmax, F.scaled_dot_product_attention

    def masked(weights):
        shaped = weights.reshape(chosen.shape[0], chosen.shape[1], *weights.shape[-2:]) * ~chosen
        return (shaped / shaped.sum(-1, keepdim=True)).reshape(weights.shape)

    def changed(x, dim=None, **options):
        weights = softmax(x, dim=dim, **options)
        return masked(weights) if running else weights

    def eager_kernel(q, k, v, *args, **options):
        if not running:
            return kernel(q, k, v, *args, **options)
        return masked((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)) @ v

    handles = [
        module.register_forward_pre_hook(lambda m, args: running.append(m)),
        module.register_forward_hook(lambda m, args, output: running.pop() and None),
    ]
    with monkeypatch.context() as patch:
        patch.setattr(F, "softmax", changed)
        patch.setattr(F, "scaled_dot_product_attention", eager_kernel)
        patch.setattr("torch.nn.functional.softmax", changed)
        patch.setattr("torch.nn.functional.scaled_dot_product_attention", eager_kernel)
        patch.setattr("torch.backends.mha.get_fastpath_enabled", lambda: False)
        logits = model(images)
    for handle in handles:
        handle.remove()
    return logits


def test_a_window_of_swin_has_keys_of_its_own_and_its_plan_is_a_cached_prefix():
    family = next(f for f in FAMILIES if f.model.startswith("swin_tiny"))
    model, images = build(family)
    layer = "layers.2.blocks.3.attn"
    with AttentionProbe(model, layer, rows="all") as probe, torch.no_grad():
        model(images)
    maps, _, _, keys = probe.maps[layer].shape
    ablator = Ablator(model)
    first = torch.zeros(maps, keys)
    first[0] = 1
    spec = AblationSpec(layer, keys=first, query_rows="all")
    plan = ablator.plan([spec] * 16)
    assert plan.name == "cached prefix"
    look = 12 + (12 - 7)  # at one image, once
    assert plan.block_calls == 7 + 16 * (12 - 7) + look
    intact, ablated = ablator.run_with_intact(images, [spec])
    assert not ablated[0, 0].allclose(intact[0])
    torch.testing.assert_close(ablated[0, 1:], intact[1:])
