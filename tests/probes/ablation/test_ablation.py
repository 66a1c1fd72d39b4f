"""Every plan gives the logits of the naive loop, for the price that it states."""

from collections import OrderedDict

import pytest
import timm
import torch
import torchvision
from captum.attr import LayerFeatureAblation
from helpers.naive_ablation import lively, naive_all
from helpers.small_models import (
    BATCH,
    DEPTH,
    Counter,
    embedded,
    hooks_on,
    noise,
    random_keys,
    row,
    vit,
)
from torch import nn

from utils.models.zoo import load
from utils.probes import AblationSpec, Ablator, AttentionProbe


def check(model, images, conditions, means=None):
    """The logits are those of the naive loop, intact ones too, at the price that the plan says."""
    expected = naive_all(model, images, conditions, means)
    with torch.no_grad():
        plain = model(images)
    assert ((expected - plain).abs().amax((1, 2)) > 1e-3).all(), "an ablation without effect"
    ablator = Ablator(model, means)
    before = hooks_on(model), list(model.named_modules())
    for intact in (False, True):
        plan = ablator.plan(conditions, intact)
        with Counter(model) as counter:
            if intact:
                whole, found = ablator.run_with_intact(images, conditions)
            else:
                found = ablator.run(images, conditions)
        if intact:
            torch.testing.assert_close(whole, plain, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
        assert counter.calls == plan.block_calls
    assert (hooks_on(model), list(model.named_modules())) == before
    return plan


# -- Vision Transformers: which plan, and that it is exact ----------------------------------------

CLASS_TOKEN = {
    "class token": {},
    "registers": dict(reg_tokens=4),
    "query and key norm, layer scale, drop path": dict(
        qk_norm=True, init_values=0.7, drop_path_rate=0.2
    ),
    "ReLU": dict(act_layer=nn.ReLU),
    "norm behind the pool": dict(fc_norm=True),
    "distilled": dict(name="deit_tiny_distilled_patch16_224"),
}


@pytest.mark.parametrize("options", CLASS_TOKEN.values(), ids=CLASS_TOKEN)
def test_class_rows_of_the_last_two_blocks_take_the_class_token_suffix(options):
    model = vit(**options)
    last, before = DEPTH - 1, DEPTH - 2
    conditions = [
        row(last),
        row(before, seed=1),
        [row(before, seed=2), row(last, seed=3)],
        row(last, seed=4, query_rows="all"),
        row(last, heads=[0, 2]),
    ]
    plan = check(model, noise(48), conditions)
    assert plan.name == "class-token suffix"


def test_sixteen_conditions_in_the_last_two_blocks_cost_fewer_than_two_passes_of_blocks():
    model = vit()
    ablator, images = Ablator(model), noise(48)
    for block in (DEPTH - 1, DEPTH - 2):
        for _ in range(2):
            with Counter(model) as counter:
                ablator.run(images, [row(block, seed=seed) for seed in range(16)])
            assert counter.calls < 2 * DEPTH
    with Counter(model) as counter:
        ablator.run(images, [row(DEPTH - 1, seed=seed) for seed in range(16)])
    assert counter.calls == DEPTH


@pytest.mark.parametrize("block", [1, 2, 3])
def test_sixteen_conditions_at_block_l_cost_the_blocks_before_once_and_those_behind_each(block):
    model = vit(global_pool="avg")
    conditions = [row(block, seed=seed, query_rows="all") for seed in range(16)]
    ablator = Ablator(model)
    once = DEPTH + (DEPTH - block)  # the look at one image: a full pass, and one from the cache
    for look in (once, 0):
        plan = ablator.plan(conditions)
        price = block + 16 * (DEPTH - block) + look
        assert (plan.name, plan.block_calls) == ("cached prefix", price)
        with Counter(model) as counter:
            ablator.run(noise(48), conditions)
        assert counter.calls == plan.block_calls


OTHER_VITS = {
    "average pool, with a class token": lambda: vit(global_pool="avg", fc_norm=True),
    "embedded, no class token": lambda: embedded("vit-d4-h4-gap"),
    "embedded, heads of another width": lambda: embedded("vit-d4-h4-k8"),
    "embedded, four registers": lambda: embedded("vit-d4-h4-reg4"),
    "embedded, ReLU": lambda: embedded("vit-d4-h4-relu"),
    "embedded, convolutional stem": lambda: embedded("hybrid-d4-h4"),
}


@pytest.mark.parametrize("make", OTHER_VITS.values(), ids=OTHER_VITS)
def test_attention_anywhere_in_a_vit_is_ablated_as_by_the_naive_loop(make):
    model = make()
    size = 48 if hasattr(model.patch_embed, "grid_size") and model.num_classes == 5 else 32
    images = noise(size)
    heads = model.blocks[0].attn.num_heads
    keys = [random_keys(heads, 9, seed=seed) for seed in range(6)]
    rows = "class" if model.cls_token is not None and model.global_pool == "token" else "all"
    options = dict(query_rows=rows)
    plan = check(
        model,
        images,
        [
            row(0, keys=keys[0], **options),
            row(1, keys=keys[1], **options),
            row(2, keys=keys[2][:, 0], **options),
            row(3, keys=keys[3], query_rows="all"),
            [row(block, keys=keys[block], **options) for block in range(4)],
            AblationSpec("blocks.1.attn", heads=[heads - 1], **options),
            [row(2, keys=keys[4], **options), row(3, keys=keys[5], query_rows="all")],
        ],
    )
    assert plan.each[0] == "full run"
    assert plan.each[1] == "cached prefix"


def test_an_average_pooled_model_and_its_reason():
    plan = Ablator(vit(global_pool="avg")).plan([row(DEPTH - 1)])
    assert plan.name == "cached prefix"
    assert "its head reads more than the class token" in plan.reason
    assert plan.reason.count(". ") == 0


def test_an_unfused_model_is_ablated_alike_and_stays_unfused():
    model, images = vit(), noise(48)
    conditions = [row(1), row(2), row(3)]
    expected = Ablator(model).run(images, conditions)
    for block in model.blocks:
        block.attn.fused_attn = False
    torch.testing.assert_close(Ablator(model).run(images, conditions), expected)
    assert not any(block.attn.fused_attn for block in model.blocks)


class ReadsPatches(timm.models.VisionTransformer):
    """Says that it pools by the class token, and does not."""

    def forward_head(self, x, pre_logits=False):
        return self.head(x.mean(1))


class Leaky(nn.Module):
    """An MLP in whose place all tokens are mixed."""

    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        return self.linear(x) + x.mean(1, keepdim=True)


def test_a_model_that_is_not_what_it_seems_is_found_out_and_run_from_a_cached_prefix():
    reading = ReadsPatches(48, 16, num_classes=5, embed_dim=48, depth=DEPTH, num_heads=3)
    mixing = vit(embed_dim=48)
    mixing.blocks[3].mlp = Leaky(48)
    earlier = vit(embed_dim=48)
    earlier.blocks[2].mlp = Leaky(48)
    for model in (reading, mixing, earlier):
        lively(model, noise(48))
        ablator, conditions = Ablator(model), [row(DEPTH - 2), row(DEPTH - 2, seed=1)]
        if model is earlier:  # the last block alone is as it seems
            ablator.run(noise(48), [row(DEPTH - 1)])
        assert ablator.plan(conditions).name == "class-token suffix"
        found = ablator.run(noise(48), conditions)
        torch.testing.assert_close(
            found, naive_all(model, noise(48), conditions), atol=1e-5, rtol=1e-5
        )
        assert ablator.plan(conditions).name == "cached prefix"
        assert "not those of a full pass" in ablator.plan(conditions).reason


# -- what is put in place, and how sets are given -------------------------------------------------


def means_of(model, images, layers):
    return Ablator(model).fit_means([images[:2], images[2:]], layers)


@pytest.mark.parametrize("block", range(DEPTH))
@pytest.mark.parametrize("value", ["zero", "mean", "renormalise"])
@pytest.mark.parametrize("rows", ["class", "all"])
def test_values_and_shares_are_those_of_the_naive_loop(block, value, rows):
    model, images = vit(), noise(48)
    means = means_of(model, images, "*.attn")
    shares = torch.rand(BATCH, 3, 10, generator=torch.Generator().manual_seed(2)).square()
    options = dict(value=value, query_rows=rows)
    check(
        model,
        images,
        [
            row(block, **options),
            row(block, keys=random_keys()[:, 0], **options),
            row(block, keys=shares, **options),
            row(block, keys=shares[:, 0], heads=[1], **options),
        ],
        means,
    )


@pytest.mark.parametrize("value", ["zero", "mean"])
def test_whole_heads_are_ablated_prefix_included(value):
    model, images = vit(), noise(48)
    means = means_of(model, images, "*.attn")
    check(
        model,
        images,
        [
            AblationSpec(f"blocks.{block}.attn", heads=[0, 2], query_rows=rows, value=value)
            for block in range(DEPTH)
            for rows in ("class", "all")
        ],
        means,
    )


def test_a_head_without_its_class_row_adds_nothing_to_the_class_token():
    model, images = vit(), noise(48)
    spec = AblationSpec(f"blocks.{DEPTH - 1}.attn", heads=[1])
    found = Ablator(model).run(images, [spec])[0]
    with torch.no_grad():
        model.blocks[-1].attn.proj.weight[:, 64:128] = 0
        torch.testing.assert_close(found, model(images), atol=1e-5, rtol=1e-5)


def test_a_function_chooses_the_keys_from_the_weights_that_are_about_to_be_ablated():
    model, images = vit(), noise(48)

    def largest(weights):  # [batch, heads, keys]
        return weights[..., 1:].topk(3).indices + 1

    with AttentionProbe(model) as probe, torch.no_grad():
        model(images)
    for block in range(DEPTH):
        layer = f"blocks.{block}.attn"
        given = AblationSpec(layer, keys=largest(probe.maps[layer][:, :, 0]))
        by_function = AblationSpec(layer, keys=largest)
        found = Ablator(model).run(images, [given, by_function])
        torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)
    every_row = AblationSpec("blocks.3.attn", keys=lambda w: largest(w.mean(2)), query_rows="all")
    with AttentionProbe(model, rows="all") as probe, torch.no_grad():
        model(images)
    given = row(3, keys=largest(probe.maps["blocks.3.attn"].mean(2)), query_rows="all")
    found = Ablator(model).run(images, [given, every_row])
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)


def test_an_empty_set_changes_nothing():
    model, images = vit(), noise(48)
    empty = [
        row(3, keys=torch.zeros(BATCH, 3, 0, dtype=torch.long)),
        row(0, keys=[[], [], []], query_rows="all"),
        AblationSpec("blocks.1.attn", heads=[]),
        AblationSpec("blocks.1.mlp.act", channels=[]),
        [],
    ]
    with torch.no_grad():
        plain = model(images)
    found = Ablator(model).run(images, empty)
    assert all(logits.equal(plain) for logits in found)
    assert Ablator(model).plan(empty).name == "plain forward"
    assert Ablator(model).plan(empty).block_calls == DEPTH
    with_others, (nothing, something) = Ablator(model).run_with_intact(images, [empty[0], row(3)])
    torch.testing.assert_close(nothing, plain, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(with_others, plain, atol=1e-5, rtol=1e-5)
    assert not something.allclose(plain)


def test_the_intact_logits_are_those_of_the_model():
    model, images = vit(), noise(48)
    with torch.no_grad():
        assert Ablator(model).intact(images).equal(model(images))


def test_means_are_the_means_over_images_of_maps_and_outputs():
    model, images = vit(), noise(48)
    ablator = Ablator(model)
    means = ablator.fit_means(
        [images[:2], (images[2:], torch.zeros(1))], ["blocks.1.attn", "blocks.2.mlp.act"]
    )
    kept = []
    hook = model.blocks[2].mlp.act.register_forward_hook(lambda m, a, out: kept.append(out))
    with AttentionProbe(model, "blocks.1.attn", rows="all") as probe, torch.no_grad():
        model(images)
    hook.remove()
    torch.testing.assert_close(means["blocks.1.attn"], probe.maps["blocks.1.attn"].mean(0))
    torch.testing.assert_close(means["blocks.2.mlp.act"], kept[0].mean(0))
    assert ablator.means.keys() == means.keys()
    assert ablator.plan([row(1, value="mean")]).name == "cached prefix"


# -- neurons, channels and units ------------------------------------------------------------------


def units(layer, total, k=40, seed=0, **options):
    generator = torch.Generator().manual_seed(seed)
    index = torch.rand(BATCH, total, generator=generator).argsort(-1)[:, :k]
    return AblationSpec(layer, units=index, **options)


def test_mlp_neurons_and_their_units_at_single_tokens():
    model, images = vit(act_layer=nn.ReLU), noise(48)
    means = means_of(model, images, "*.mlp.act")
    layer, total = "blocks.2.mlp.act", 10 * 768
    each = [[3, 5, 7], [1, 2, 3], [700, 701, 702]]
    conditions = [
        AblationSpec(layer, channels=range(200)),
        AblationSpec(layer, channels=range(200), value="mean"),
        AblationSpec("blocks.0.mlp.act", channels=each),
        units(layer, total, k=2000),
        units(layer, total, k=2000, value="mean"),
        [AblationSpec(f"blocks.{block}.mlp.act", channels=range(9)) for block in range(DEPTH)],
        [row(1), AblationSpec(layer, channels=range(50))],
    ]
    check(model, images, conditions, means)


def test_shares_and_masks_of_units():
    model, images = vit(), noise(48)
    shares = torch.rand(BATCH, 10 * 768, generator=torch.Generator().manual_seed(0))
    layer = "blocks.2.mlp.act"
    check(model, images, [AblationSpec(layer, units=shares)])
    mask = shares > 0.5
    found = Ablator(model).run(
        images, [AblationSpec(layer, units=mask), AblationSpec(layer, units=mask.float())]
    )
    assert found[0].equal(found[1])


def small_vgg():
    layers = dict(
        features=torchvision.models.vgg.make_layers([8, "M", 16, "M", 32], batch_norm=True),
        pool=nn.AdaptiveAvgPool2d(2),
        flat=nn.Flatten(),
        head=nn.Linear(128, 5),
    )
    return nn.Sequential(OrderedDict(layers))


CNNS = {
    "embedded ResNet": (
        lambda: embedded("resnet-d14"),
        [("layer1.1.act1", 16, 32), ("layer2.0", 32, 16), ("layer3.1.act2", 64, 8)],
    ),
    "embedded plain net": (
        lambda: embedded("plain-d14"),
        [("act1", 16, 32), ("layer3.0", 64, 8)],
    ),
    "torchvision ResNet": (
        lambda: lively(torchvision.models.resnet18(num_classes=5), noise(32)),
        [("layer2.0.bn1", 128, 4), ("layer3.1", 256, 2), ("relu", 64, 16)],
    ),
    "timm ResNet, bottlenecks": (
        lambda: lively(timm.create_model("resnet26d", num_classes=5), noise(32)),
        [("layer2.0.act2", 128, 4), ("layer3.1", 1024, 2)],
    ),
    "VGG": (
        lambda: lively(small_vgg(), noise(32)),
        [("features.4", 16, 16), ("features.6", 16, 16), ("features.9", 32, 8)],
    ),
    "DenseNet": (
        lambda: lively(torchvision.models.densenet121(num_classes=5), noise(64)),
        [("features.denseblock2.denselayer3.conv1", 128, 4), ("features.denseblock3", 1024, 2)],
    ),
    "ConvNeXt": (
        lambda: lively(timm.create_model("convnext_atto", num_classes=5), noise(32)),
        [("stages.1.blocks.0", 80, 4), ("stages.2.blocks.1.conv_dw", 160, 2)],
    ),
    "EfficientNet-Lite0": (
        lambda: lively(load("efficientnet-lite0"), noise(64)),
        [("blocks.1.0.bn1", 96, 32), ("blocks.3.1", 80, 4)],
    ),
    "MLP-Mixer": (
        lambda: embedded("mixer-d4"),
        [("blocks.2", 64, 1), ("blocks.1.mlp_channels.act", 256, 1)],
    ),
}


@pytest.mark.parametrize("case", CNNS.values(), ids=CNNS)
def test_channels_and_units_of_other_models_are_those_of_the_naive_loop(case):
    make, layers = case
    model = make()
    large = isinstance(model, torchvision.models.DenseNet) or hasattr(model, "conv_head")
    images = noise(64 if large else 32)
    means = means_of(model, images, [layer for layer, *_ in layers])
    conditions = []
    for layer, channels, side in layers:
        half = list(range(0, channels, 2))
        total = channels * side**2 if side > 1 else channels * 64
        conditions += [
            AblationSpec(layer, channels=half),
            AblationSpec(layer, channels=half, value="mean"),
            units(layer, total, k=total // 2),
            units(layer, total, k=total // 2, value="mean"),
        ]
    plan = check(model, images, conditions, means)
    assert "cached prefix" in plan.name


def test_channels_agree_with_captum():
    model, images = embedded("resnet-d8"), noise()
    layer = model.layer2[0]
    mask = torch.arange(32).reshape(1, 32, 1, 1)
    with torch.no_grad():
        drop = LayerFeatureAblation(model, layer).attribute(
            images, target=2, layer_mask=mask, layer_baselines=0
        )  # [batch, channels, rows, columns], constant within a channel
    intact, ablated = Ablator(model).run_with_intact(
        images, [AblationSpec("layer2.0", channels=[c]) for c in range(32)]
    )
    torch.testing.assert_close((intact - ablated)[..., 2].T, drop[:, :, 0, 0], atol=1e-5, rtol=1e-5)


def test_channels_last_maps_have_their_channels_last():
    size = dict(depths=(1, 1, 1, 1), dims=(16, 32, 48, 64), num_classes=5)
    convnext = lively(timm.create_model("convnext_tiny", **size), noise())
    size = dict(img_size=32, window_size=2, patch_size=2, embed_dim=32, num_heads=(1, 2, 4, 8))
    swin = lively(timm.create_model("swin_tiny_patch4_window7_224", **size), noise())

    def first_seven(module, args, output):
        output = output.clone()
        output[..., :7] = 0  # [batch, rows, columns, channels]
        return output

    for model, layer in (
        (convnext, "stages.1.blocks.0.mlp.act"),
        (convnext, "stages.1.blocks.0.norm"),
        (swin, "layers.2.blocks.1"),
        (swin, "layers.0.blocks.1.mlp.act"),
    ):
        found = Ablator(model).run(noise(), [AblationSpec(layer, channels=range(7))])
        handle = model.get_submodule(layer).register_forward_hook(first_seven)
        with torch.no_grad():
            torch.testing.assert_close(found[0], model(noise()), atol=1e-5, rtol=1e-5)
        handle.remove()


def test_later_calls_of_a_module_are_named_as_by_the_recorder():
    model = lively(torchvision.models.resnet18(num_classes=5), noise())
    images, calls = noise(), []

    def second(module, args, output):
        calls.append(1)
        return output * 0 if len(calls) == 2 else output

    found = Ablator(model).run(images, [AblationSpec("layer2.1.relu#2", channels=range(128))])
    handle = model.layer2[1].relu.register_forward_hook(second)
    with torch.no_grad():
        torch.testing.assert_close(found[0], model(images), atol=1e-5, rtol=1e-5)
    handle.remove()
