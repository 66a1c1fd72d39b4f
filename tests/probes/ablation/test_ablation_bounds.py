"""Memory, precision, exceptions and bad input of the Ablator; models that write into tensors."""

import re

import pytest
import timm
import torch
from helpers.naive_ablation import naive_all
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

from utils.probes import AblationSpec, Ablator, AttentionProbe

# -- memory ---------------------------------------------------------------------------------------


def batches_of(model, stem):
    sizes = []
    hook = model.get_submodule(stem).register_forward_hook(lambda m, a, out: sizes.append(len(out)))
    return sizes, hook


@pytest.mark.parametrize("block", range(DEPTH))
def test_a_batch_larger_than_memory_is_split_by_images_and_gives_the_same(block):
    model, images = vit(), noise(48, batch=7)
    keys = random_keys(batch=7)
    conditions = [
        row(block, keys=keys),
        row(block, keys=keys[:, 0], query_rows="all"),
        row(block, keys=lambda weights: weights[..., 1:].topk(2).indices + 1),
        AblationSpec("blocks.2.mlp.act", channels=keys[:, 0]),
        AblationSpec("blocks.2.mlp.act", units=keys.flatten(1)),
        AblationSpec("blocks.2.mlp.act", channels=range(60)),
    ]
    expected = Ablator(model).run_with_intact(images, conditions)
    small = Ablator(model, memory=2_000_000)
    for _ in range(2):
        sizes, hook = batches_of(model, "patch_embed")
        found = small.run_with_intact(images, conditions)
        hook.remove()
        assert max(sizes) < 7
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert 1 < max(sizes)  # later batches know what an image needs
    sizes, hook = batches_of(model, "patch_embed")
    torch.testing.assert_close(
        Ablator(model, memory=1).run(images, conditions), expected[1], atol=1e-5, rtol=1e-5
    )
    hook.remove()
    assert set(sizes) == {1}


def test_windows_are_split_with_their_images():
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=56, depths=(2, 2), embed_dim=32, num_heads=(2, 4)
    ).eval()
    images = noise(56, batch=4)
    with AttentionProbe(model, rows="all") as probe, torch.no_grad():
        model(images)
    layer, maps = list(probe.maps.items())[1]
    assert len(maps) > len(images)
    spec = AblationSpec(layer, keys=maps.mean(2).topk(20).indices, query_rows="all")
    expected = Ablator(model).run(images, [spec])
    found = Ablator(model, memory=1).run(images, [spec])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_what_an_image_needs_bounds_what_is_alive():
    model, images = embedded("resnet-d8"), noise(32, batch=64)
    conditions = [AblationSpec("layer2.0.act1", channels=[0])]
    memory = 8 * 2**20
    ablator = Ablator(model, memory=memory)
    sizes, hook = batches_of(model, "conv1")
    ablator.run(images, conditions)
    hook.remove()
    assert 1 < max(sizes) < 64
    # The first convolution alone has 64 kiB of output an image.
    assert max(sizes) * 4 * 16 * 32 * 32 < memory


# -- precision ------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", range(DEPTH))
def test_autocast_gives_the_naive_loop_under_autocast(block):
    model, images = vit(), noise(48)
    conditions = [row(block), row(block, query_rows="all"), row(block, value="renormalise")]
    with torch.autocast("cpu", torch.bfloat16):
        found = Ablator(model).run(images, conditions)
        expected = naive_all(model, images, conditions)
    scale = expected.abs().max()
    exact = naive_all(model, images, conditions)
    assert found.dtype == expected.dtype == torch.bfloat16
    rounding = (expected - exact).abs().max()
    assert rounding > 1e-4 * scale  # autocast was on
    assert (found - exact).abs().max() < 2 * rounding


def test_float64_models_are_ablated_in_float64():
    model, images = vit().double(), noise(48).double()
    conditions = [row(1), row(2), row(3)]
    expected = naive_all(model, images, conditions)
    torch.testing.assert_close(Ablator(model).run(images, conditions), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_gradients_are_neither_needed_nor_kept(context):
    model, images = vit(), noise(48)
    expected = Ablator(model).run(images, [row(1), row(3)])
    with context():
        images = images.clone()
        found = Ablator(model).run(images, [row(1), row(3)])
    assert not found.requires_grad
    torch.testing.assert_close(found, expected)


# -- nothing stays on the model -------------------------------------------------------------------


class Wrong(Exception):
    pass


@pytest.mark.parametrize("block", range(DEPTH))
@pytest.mark.parametrize("kind", [Wrong, KeyboardInterrupt])
def test_nothing_stays_on_the_model_after_an_exception(block, kind):
    model, images = vit(), noise(48)
    calls = []

    def fail(module, args, output):
        calls.append(1)
        if len(calls) > fail.after:
            raise kind

    handle = model.blocks[3].mlp.act.register_forward_hook(fail)
    modules = list(model.named_modules())
    before = hooks_on(model)
    for fail.after in range(3):
        calls.clear()
        with pytest.raises(kind):
            Ablator(model).run(images, [row(block), [row(block), row(3)], row(0), row(1)])
        assert hooks_on(model) == before
        assert list(model.named_modules()) == modules
    handle.remove()
    expected = naive_all(model, images, [row(block)])
    torch.testing.assert_close(
        Ablator(model).run(images, [row(block)]), expected, atol=1e-5, rtol=1e-5
    )


def test_hooks_of_the_user_see_no_block_that_is_not_run():
    model, seen = vit(global_pool="avg"), []
    for number, block in enumerate(model.blocks):
        block.register_forward_hook(lambda *_, number=number: seen.append(number))
    ablator = Ablator(model)
    ablator.run(noise(48), [row(2), row(2, seed=1)])
    look = [0, 1, 2, 3, 2, 3]  # at one image
    assert seen == [*look, 0, 1, 2, 3, 2, 3]
    seen.clear()
    ablator.run(noise(48), [row(2), row(2, seed=1)])
    assert seen == [0, 1, 2, 3, 2, 3]


# -- models that write into their tensors ---------------------------------------------------------


class InPlace(nn.Module):
    """A chain of convolutions and the ways in which modules and code overwrite what they get."""

    def __init__(self, way):
        super().__init__()
        torch.manual_seed(0)
        self.way = way
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        first = [nn.ReLU(inplace=True)] if way == "chain writes into its input" else []
        self.body = nn.Sequential(
            *first, nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 1), nn.Sigmoid()
        )
        self.head = nn.Linear(4, 5)

    def forward(self, images):
        x = self.stem(images)
        if self.way == "the result of an in-place call is thrown away":
            self.act(x)
        elif self.way == "a value is read before it is overwritten":
            mean = x.mean()
            x = self.act(x) + mean
        elif self.way == "code overwrites what a module gave":
            x += 1
            x = self.act(x)
        elif self.way == "a module is called twice":
            x = self.act(self.act(x) - 0.5)
        elif self.way == "a module writes into a second tensor":
            x = x + self.act(x.unsqueeze(0)).squeeze(0)
        x = self.body(x) + x
        return self.head(x.mean((2, 3)))


WAYS = [
    "the result of an in-place call is thrown away",
    "a value is read before it is overwritten",
    "code overwrites what a module gave",
    "a module is called twice",
    "a module writes into a second tensor",
    "chain writes into its input",
]


@pytest.mark.parametrize("way", WAYS)
def test_models_that_overwrite_tensors_are_ablated_exactly(way):
    model, images = InPlace(way).eval(), noise()
    layers = [name for name, module in model.named_modules() if name.startswith("body.")]
    conditions = [AblationSpec(layer, channels=[1, 2]) for layer in layers]
    expected = naive_all(model, images, conditions)
    assert len(layers) >= 4
    torch.testing.assert_close(
        Ablator(model).run_with_intact(images, conditions)[1], expected, atol=1e-5, rtol=1e-5
    )


class Shared(nn.Module):
    """Blocks that are one and the same module, a tuple between them, and a skip from the stem."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Linear(3, 8)
        self.act = nn.GELU()
        block = nn.Sequential(nn.Linear(8, 8), self.act)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 8), self.act), block, block])
        self.pair = Pair()
        self.head = nn.Linear(8, 5)

    def forward(self, images):
        stem = x = self.act(self.stem(images.mean(2).mT))
        for block in self.blocks:
            x, gate = self.pair(block(x))["both"]
            x = x * gate
        return self.head((x + stem).mean(1))


class Pair(nn.Module):
    def forward(self, x):
        return {"both": (x, x.sigmoid())}


def test_shared_modules_and_outputs_that_are_no_tensors():
    model, images = Shared().eval(), noise()
    layers = ["blocks.0", "blocks.0.0", "blocks.1", "blocks.1.0"]
    for layer in layers:
        calls = []

        def first(module, args, output, calls=calls):
            calls.append(1)
            return changed(output) if len(calls) == 1 else output

        def changed(output):
            output = output.clone()
            output[..., [1, 2]] = 0
            return output

        handle = model.get_submodule(layer).register_forward_hook(first)
        with torch.no_grad():
            expected = model(images)
        handle.remove()
        found = Ablator(model).run(images, [AblationSpec(layer, channels=[1, 2])])[0]
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


# -- bad input ------------------------------------------------------------------------------------

KEYS = torch.ones(BATCH, 3, 2, dtype=torch.long)
LAYER = "blocks.1.attn"
CONTRADICTIONS = {
    "names nothing": dict(),
    r"names both keys and channels": dict(keys=KEYS, channels=[1]),
    r"names both heads and units": dict(heads=[1], units=KEYS[:, 0]),
    r"names both channels and units": dict(channels=[1], units=KEYS[:, 0]),
    r"knows no value 'median': choose one of zero, mean, renormalise": dict(
        keys=KEYS, value="median"
    ),
    r"cannot renormalise channels": dict(channels=[1], value="renormalise"),
    r"cannot renormalise heads": dict(heads=[1], value="renormalise"),
    r"keys of unequal number in its sets": dict(keys=[[1, 2], [3]]),
    r"channels of unequal number in its sets": dict(channels=[[1, 2], [3], [4]]),
    r"units of unequal number in its sets": dict(units=[torch.ones(2), torch.ones(3)]),
    r"keys with 1 to 3 axes, not \[1, 1, 1, 1\]": dict(keys=[[[[1]]]]),
    r"channels with 1 to 2 axes, not \[\]": dict(channels=0.5),
    r"units with 1 to 2 axes, not \[3, 3, 2\]": dict(units=KEYS),
    r"keys out of range: -1 is below 0": dict(keys=-KEYS),
    r"shares of keys outside 0 … 1": dict(keys=KEYS * 1.5),
    r"shares of units outside 0 … 1": dict(units=torch.full((2, 2), torch.nan)),
    r'query_rows is "class" or "all", not \'patch\'': dict(keys=KEYS, query_rows="patch"),
}


@pytest.mark.parametrize("says", CONTRADICTIONS)
def test_a_spec_that_contradicts_itself_says_so(says):
    with pytest.raises(ValueError, match=says):
        AblationSpec(LAYER, **CONTRADICTIONS[says])


WRONG_KINDS = {
    r"of a layer's name or a module, not of 3": dict(layer=3, heads=0),
    r"needs heads by their numbers, such as 0 or \[0, 2\], not '01'": dict(heads="01"),
    r"needs heads by their numbers, .* not 0\.5": dict(heads=0.5),
    r"needs heads by their numbers, .* not \[True, False\]": dict(heads=[True, False]),
    r"needs heads by their numbers, .* not \[\[0\], \[1\]\]": dict(heads=[[0], [1]]),
    r"needs heads by their numbers, .* not \[None\]": dict(heads=[None]),
    r"needs heads by their numbers, .* not \[1\.0\]": dict(heads=torch.ones(1)),
    r"needs keys as whole numbers or shares, .* not 'first'": dict(keys="first"),
    r"needs keys as whole numbers or shares, .* not \[\[1, 2\], 3\]": dict(keys=[[1, 2], 3]),
    r"needs channels as whole numbers or shares, .* not <function": dict(channels=lambda x: x),
    r"needs units as whole numbers or shares, .* not \{1\}": dict(units={1}),
    r"puts in a tensor or one of zero, mean, renormalise, uniform, not 0": dict(keys=KEYS, value=0),
}


@pytest.mark.parametrize("says", WRONG_KINDS)
def test_a_spec_of_what_is_no_set_or_layer_says_what_it_takes(says):
    with pytest.raises(TypeError, match=says) as caught:
        AblationSpec(**{"layer": LAYER} | WRONG_KINDS[says])
    assert str(caught.value).endswith(".")


MISFITS = {
    r"keys out of range: 10, but the layer has 10": row(1, keys=KEYS * 10),
    r"shares for 4 keys, but the layer has 10": row(1, keys=torch.rand(BATCH, 3, 4)),
    r"keys for 3 maps of 2 heads, but the layer has 3 maps of 3 heads": row(1, keys=KEYS[:, :2]),
    r"keys for 6 maps of 3 heads, but the layer has 3 maps": row(1, keys=torch.cat([KEYS, KEYS])),
    r"heads out of range: 3, but the layer has 3": row(1, heads=[0, 3]),
    r"heads out of range: -1": AblationSpec(LAYER, heads=[-1]),
    r"is for 2 images, but the batch has 3": row(1, keys=KEYS[:2]),
    r"blocks\.1\.mlp' is for 6 images": AblationSpec("blocks.1.mlp", units=KEYS.flatten(0, 1)[:6]),
    r"channels out of range: 192": AblationSpec("blocks.1.mlp", channels=[192]),
    r"shares for 5 channels, but the layer has 192": AblationSpec(
        "blocks.1.mlp", channels=torch.rand(5)
    ),
    r"units out of range: 1920": AblationSpec("blocks.1.mlp", units=[[1920]] * 3),
    r"needs that mean: measure it with fit_means": row(1, value="mean"),
    r"No attention layer of VisionTransformer is called 'blocks.9.attn': the closest names are "
    r"blocks": row(9),
    r"No layer .* 'blocks.\*.act': .* \(one spec ablates one layer, so globs are not for it\)": (
        AblationSpec("blocks.*.act", channels=[1])
    ),
    r"This Linear is no layer of the VisionTransformer that is to be ablated": (
        AblationSpec(nn.Linear(2, 2), channels=[1])
    ),
    r"No attention layer .* is called 'blocks.1': the closest": AblationSpec("blocks.1", keys=KEYS),
    r"No layer .* is called 'blocks.1.mlp.atc': the closest names are blocks.1.mlp.act": (
        AblationSpec("blocks.1.mlp.atc", channels=[1])
    ),
}


@pytest.mark.parametrize("says", MISFITS)
def test_a_set_that_does_not_fit_says_what_does_not(says):
    model = vit()
    before = hooks_on(model)
    for conditions in ([MISFITS[says]], [row(1), [row(2), MISFITS[says]]], [row(0), MISFITS[says]]):
        with pytest.raises(ValueError, match=says) as caught:
            Ablator(model).run(noise(48), conditions)
        assert str(caught.value).endswith(".")
    assert hooks_on(model) == before


@pytest.mark.parametrize("block", [2, 3])
def test_the_class_token_suffix_says_the_same(block):
    for keys, says in ((KEYS * 10, "out of range: 10"), (KEYS[:, :2], "2 heads, but the layer")):
        with pytest.raises(ValueError, match=says):
            Ablator(vit()).run(noise(48), [row(block, keys=keys)])


def test_a_mean_must_have_the_shape_of_what_it_replaces():
    means = {LAYER: torch.rand(3, 7, 7), "blocks.1.mlp": torch.rand(192)}
    ablator = Ablator(vit(), means)
    with pytest.raises(ValueError, match=r"mean of 'blocks.1.attn' has shape \[3, 1, 7\]"):
        ablator.run(noise(48), [row(1, value="mean")])
    with pytest.raises(ValueError, match=r"mean of 'blocks.1.mlp' has shape \[192\]"):
        ablator.run(noise(48), [AblationSpec("blocks.1.mlp", channels=[1], value="mean")])


def test_there_must_be_a_condition():
    for call in (Ablator(vit()).run, lambda images, conditions: Ablator(vit()).plan(conditions)):
        with pytest.raises(ValueError, match="the list of conditions is empty"):
            call(noise(48), [])


def test_a_condition_is_made_of_specs():
    for wrong, says in (
        (["blocks.1.attn"], "not 'blocks.1.attn'"),
        ("blocks.1.attn", "not 'blocks.1.attn'"),
        ([[5]], "not 5"),
        (5, "not 5"),
        (None, "not None"),
    ):
        with pytest.raises(TypeError, match=rf"an AblationSpec or a sequence of them, {says}\."):
            Ablator(vit()).run(noise(48), wrong)


def test_a_model_without_class_token_has_no_class_row():
    model = embedded("vit-d2-h4-gap")
    says = r"has no class token, so 'blocks.1.attn' has no class row .* query_rows=\"all\""
    with pytest.raises(ValueError, match=says):
        Ablator(model).plan([row(1)])


def test_a_model_without_attention_has_no_keys():
    with pytest.raises(ValueError, match=r"No attention layer of SmallResNet .*: it has none"):
        Ablator(embedded("resnet-d8")).run(noise(), [row(1)])


def test_compiled_models_are_refused():
    with pytest.raises(ValueError, match="compiled"):
        Ablator(torch.compile(vit()))


def test_models_in_training_are_refused():
    model = vit().train()
    with pytest.raises(ValueError, match=r"in training mode: call its eval\(\) first"):
        Ablator(model).run(noise(48), [row(1)])


def test_a_layer_that_is_never_called_is_named():
    model = vit()
    for layer in ("blocks.1.mlp.act#2", "blocks.1.attn.attn_drop"):
        with pytest.raises(RuntimeError, match=rf"never called '{re.escape(layer)}'"):
            Ablator(model).run(noise(48), [AblationSpec(layer, channels=[1])])
    with pytest.raises(RuntimeError, match=r"never called 'blocks\.1\.attn#2'"):
        Ablator(model).run(noise(48), [AblationSpec("blocks.1.attn#2", keys=KEYS)])


def test_a_layer_that_puts_out_no_tensor_is_named():
    with pytest.raises(TypeError, match="'pair' puts out a dict, not a tensor"):
        Ablator(Shared().eval()).run(noise(), [AblationSpec("pair", channels=[1])])


def test_the_plan_is_made_without_images_and_calls_no_block():
    model = vit()
    with Counter(model) as counter:
        plan = Ablator(model).plan([row(3), row(1), row(0), []], intact=True)
    assert counter.calls == 0
    assert plan.each == ("class-token suffix", "cached prefix", "full run", "plain forward")
    assert str(plan).startswith("class-token suffix + cached prefix + full run + plain forward, ")
