"""AttentionProbe reads every attention family of timm and torchvision, or says why not."""

import inspect
import re
import sys
import warnings
from collections import defaultdict
from contextlib import contextmanager

import pytest
import timm
import torch
import torchvision
from helpers.eager import ARRANGE, build, every_softmax
from helpers.model_families import FAMILIES, PAGE, UNREADABLE, page
from torch import nn
from torchvision.transforms import Normalize

from utils.probes import AttentionProbe, token_layout

pytestmark = pytest.mark.slow  # small models, but a hundred of them

# Attention classes of timm that no registered model uses, or only a larger sibling of one here.
IN_NO_SMALL_MODEL = {
    *("Attention2d", "AttentionPoolPrr", "MultiQueryAttentionV2", "MultiScaleAttentionPoolFirst"),
    *("NonLocalAttn", "RotAttentionPool2d", "SimPool1d", "SimPool2d"),
    *("ChannelAttentionV2", "EfficientViMDistilled"),
}


def arranged(maps: dict, model: nn.Module, raw: str, left_out=()) -> dict:
    """The recorded softmaxes under the names and in the order of axes that the probe gives them."""
    named = {}
    for layer in (layer for layer in maps if layer not in left_out):
        heads = getattr(model.get_submodule(layer), "num_heads", 1)
        each = [part for weights in maps[layer] for part in ARRANGE[raw](weights, heads)]
        named |= {f"{layer}#{i}" if i > 1 else layer: part for i, part in enumerate(each, 1)}
    return named


@contextmanager
def eager_maps(model, monkeypatch):
    """Every softmax over keys in the model's unfused code, by layer."""
    maps = defaultdict(list)

    def recorded(name, owner, weights):
        maps[name].append(weights.clone())
        return weights

    with every_softmax(model, monkeypatch, recorded):
        yield maps


def hooks_on(model) -> int:
    return sum(len(v) for m in model.modules() for k, v in vars(m).items() if "_hooks" in k)


def read(model, images, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # families in which channel attention is left out
        with AttentionProbe(model, **options) as probe:
            logits = model(images)
    return probe, logits


@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.model)
@torch.inference_mode()
def test_the_maps_of_a_family_are_those_of_its_eager_computation(family, monkeypatch):
    model, images = build(family)
    before, plain = hooks_on(model), model(images)
    close = dict(atol=1e-5 * max(1, plain.abs().max().item()), rtol=1e-5)
    probe, logits = read(model, images, rows="all")
    torch.testing.assert_close(logits, plain, **close)
    with eager_maps(model, monkeypatch) as eager:
        model(images)

    expected = arranged(eager, model, family.raw, left_out=probe.skipped)
    assert list(probe.maps) == list(expected)
    assert (len(probe.maps), len(probe.skipped)) == (family.maps, family.left_out)
    for name, weights in probe.maps.items():
        torch.testing.assert_close(weights, expected[name], atol=1e-5, rtol=0, msg=name)
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert max((w - w.mean(-1, keepdim=True)).abs().max() for w in expected.values()) > 1e-3

    if token_layout(model).has_class_token:
        row, logits = read(model, images, rows="class")
        torch.testing.assert_close(logits, plain, **close)
        assert len(row.maps) == family.class_rows
        for name, weights in row.maps.items():
            torch.testing.assert_close(weights, expected[name][:, :, :1], atol=1e-5, rtol=0)
    else:
        assert family.class_rows == 0
        with pytest.raises(ValueError, match=r'no class token.*rows="all"'):
            read(model, images, rows="class")

    def fail(layer, weights):
        raise KeyError(layer)

    with pytest.raises(KeyError):
        read(model, images, rows="all", reduce=fail)
    assert hooks_on(model) == before
    assert not torch.overrides.has_torch_function((images,))
    torch.testing.assert_close(model(images), plain, atol=0, rtol=0)


class Own(nn.Module):
    """A module of one's own around a model."""

    def __init__(self, model):
        super().__init__()
        self.backbone, self.dropout = model, nn.Dropout(0.5)

    def forward(self, x):
        return self.dropout(self.backbone(x))


WRAPPERS = (
    ("1.", lambda model: nn.Sequential(Normalize((0.0,) * 3, (1.0,) * 3), model)),
    ("module.", nn.DataParallel),
    ("backbone.", Own),
)


@pytest.mark.parametrize("number", range(len(FAMILIES)), ids=[f.model for f in FAMILIES])
@torch.inference_mode()
def test_a_family_is_read_within_a_wrapper_as_it_is_without(number, monkeypatch):
    family = FAMILIES[number]
    model, images = build(family)
    prefix, wrap = WRAPPERS[number % len(WRAPPERS)]
    wrapped = wrap(model).eval()
    assert token_layout(wrapped) == token_layout(model)
    with eager_maps(model, monkeypatch) as eager:
        model(images)
    for rows in ("all", "class") if token_layout(model).has_class_token else ("all",):
        probe, _ = read(wrapped, images, rows=rows)
        own = {layer.removeprefix(prefix): weights for layer, weights in probe.maps.items()}
        left_out = [layer.removeprefix(prefix) for layer in probe.skipped]
        expected = arranged(eager, model, family.raw, left_out)
        assert list(own) == list(expected)
        assert len(own) == (family.maps if rows == "all" else family.class_rows)
        for name, weights in own.items():
            queries = slice(None) if rows == "all" else slice(1)
            whole = expected[name][:, :, queries]
            torch.testing.assert_close(weights, whole, atol=1e-5, rtol=0, msg=name)


@pytest.mark.parametrize("refusal", UNREADABLE, ids=lambda r: r.model)
@torch.inference_mode()
def test_attention_without_a_map_is_refused_with_its_reason(refusal):
    model = timm.create_model(refusal.model).eval()
    images = torch.rand(2, 3, refusal.size, refusal.size)
    with pytest.raises((ValueError, RuntimeError), match=re.escape(refusal.says)):
        read(model, images, layers=refusal.layers, rows="all")


def _torchvision_vit():
    return torchvision.models.VisionTransformer(
        image_size=64, patch_size=16, num_layers=2, num_heads=3, hidden_dim=48, mlp_dim=96
    )


@torch.inference_mode()
def test_the_maps_of_torchvisions_vit_are_softmax_of_query_times_key():
    torch.manual_seed(0)
    model, images = _torchvision_vit().eval(), torch.randn(2, 3, 64, 64)
    plain = model(images)
    seen = {}
    attention = model.encoder.layers[1].self_attention
    with attention.register_forward_pre_hook(lambda m, args: seen.update(x=args[0])):
        probe, logits = read(model, images, rows="all")
    torch.testing.assert_close(logits, plain, atol=1e-5, rtol=1e-5)
    weight, bias = attention.in_proj_weight.double(), attention.in_proj_bias.double()
    q, k, _ = (seen["x"].double() @ weight.T + bias).unflatten(-1, (3, 3, 16)).unbind(-3)
    expected = (q.transpose(1, 2) @ k.permute(0, 2, 3, 1) / 4).softmax(-1)  # [2, 3, 17, 17]
    name = "encoder.layers.encoder_layer_1.self_attention"
    torch.testing.assert_close(probe.maps[name].double(), expected, atol=1e-5, rtol=0)
    row, logits = read(model, images)
    torch.testing.assert_close(logits, plain, atol=1e-5, rtol=1e-5)
    assert row.maps[name].equal(probe.maps[name][:, :, :1])


@pytest.mark.parametrize(
    ("build_model", "size", "shape", "raw"),
    [
        (lambda: torchvision.models.swin_t(), 64, (18, 3, 49, 49), ""),
        (
            lambda: torchvision.models.MaxVit(
                (64, 64), 32, 4, [32], [2], head_dim=16, stochastic_depth_prob=0
            ),
            64,
            (32, 2, 16, 16),
            "b w h q k",
        ),
    ],
    ids=["swin", "maxvit"],
)
@torch.inference_mode()
def test_windowed_attention_of_torchvision_is_read(build_model, size, shape, raw, monkeypatch):
    torch.manual_seed(0)
    model, images = build_model().eval(), torch.randn(2, 3, size, size)
    plain = model(images)
    probe, logits = read(model, images, rows="all")
    torch.testing.assert_close(logits, plain, atol=1e-5, rtol=1e-5)
    with eager_maps(model, monkeypatch) as eager:
        model(images)
    assert next(iter(probe.maps.values())).shape == shape
    expected = arranged(eager, model, raw)
    assert list(probe.maps) == list(expected)
    for name, weights in probe.maps.items():
        torch.testing.assert_close(weights, expected[name], atol=1e-5, rtol=0)


@pytest.mark.slow
def test_every_attention_class_of_timm_is_in_the_table():
    used = set()
    with torch.device("meta"):
        for entry in (*FAMILIES, *UNREADABLE):
            model = timm.create_model(entry.model, **getattr(entry, "options", {}))
            used |= {type(module) for module in model.modules()}
    missing = set()
    for module in {m for name, m in sys.modules.items() if name.startswith("timm.")}:
        for kind in vars(module).values():
            if inspect.isclass(kind) and issubclass(kind, nn.Module) and kind not in used:
                source = inspect.getsource(kind) if kind.__module__.startswith("timm.") else ""
                if re.search(r"softmax\(|scaled_dot_product_attention\(", source):
                    missing.add(kind.__name__)
    assert missing == IN_NO_SMALL_MODEL


def test_the_page_of_families_is_up_to_date():
    assert PAGE.read_text(encoding="utf-8") == page()
