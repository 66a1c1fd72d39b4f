"""What AttentionProbe promises about maps, logits, streaming and bad input, on small models."""

import re

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from utils.probes import AttentionProbe, attention_layers, attention_maps

BLOCKS = ["blocks.0.attn", "blocks.1.attn"]


def vit(**options):
    torch.manual_seed(0)
    options = dict(img_size=48, depth=2, num_classes=5) | options
    return timm.create_model("vit_tiny_patch16_224", **options).eval()


@pytest.fixture
def model():
    return vit()


@pytest.fixture
def images():
    return torch.randn(4, 3, 48, 48, generator=torch.Generator().manual_seed(1))


class Kernel(nn.Module):
    """A model that is nothing but one fused attention call."""

    def __init__(self, **options):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.options = options

    def forward(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, **self.options)


def queries_keys_values(keys=5, key_heads=4):
    torch.manual_seed(0)
    shapes = (2, 4, 5, 8), (2, key_heads, keys, 8), (2, key_heads, keys, 8)
    return [torch.randn(shape) for shape in shapes]


def hooks_on(model) -> int:
    return sum(len(v) for m in model.modules() for k, v in vars(m).items() if "_hooks" in k)


OPTIONS = {
    "plain": {},
    "scale": dict(scale=0.7),
    "causal": dict(is_causal=True),
    "boolean mask": dict(attn_mask=torch.ones(5, 5, dtype=torch.bool).tril(1)),
    "mask of keys": dict(attn_mask=torch.tensor([[True, True, False, True, False]])),
    "bias": dict(attn_mask=torch.randn(2, 1, 5, 5, generator=torch.Generator().manual_seed(3))),
    "bias of heads": dict(attn_mask=torch.arange(20.0).reshape(4, 5, 1).expand(4, 5, 5)),
}


@pytest.mark.parametrize("rows", ["class", "all", slice(1, 4)], ids=str)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_fused_map_is_softmax_in_float64_of_scaled_masked_scores(options, rows):
    q, k, v = queries_keys_values()
    scores = q.double() @ k.double().mT * options.get("scale", 8**-0.5)
    mask = torch.ones(5, 5).bool().tril() if "is_causal" in options else options.get("attn_mask")
    if mask is not None:
        scores = (
            scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        )
    expected = scores.softmax(-1)[:, :, slice(0, 1) if rows == "class" else slice(None)]
    expected = expected[:, :, rows] if isinstance(rows, slice) else expected
    model = Kernel(**options)
    with AttentionProbe(model, rows=rows) as probe:
        output = model(q, k, v)
    torch.testing.assert_close(probe.maps["Kernel"].double(), expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(output, model(q, k, v), atol=1e-6, rtol=1e-5)


def test_grouped_queries_share_the_keys_of_their_group():
    q, k, v = queries_keys_values(keys=7, key_heads=2)
    model = Kernel(enable_gqa=True)
    with AttentionProbe(model, rows="all") as probe:
        output = model(q, k, v)
    expected = (q @ k.repeat_interleave(2, dim=1).mT / 8**0.5).softmax(-1)
    torch.testing.assert_close(probe.maps["Kernel"], expected)
    torch.testing.assert_close(output, model(q, k, v))


def test_a_query_without_keys_has_a_row_of_zeros():
    q, k, v = queries_keys_values()
    mask = torch.ones(5, 5, dtype=torch.bool)
    mask[2] = False
    with AttentionProbe(model := Kernel(attn_mask=mask), rows="all") as probe:
        model(q, k, v)
    assert probe.maps["Kernel"][:, :, 2].count_nonzero() == 0
    torch.testing.assert_close(
        probe.maps["Kernel"].sum(-1)[:, :, [0, 1, 3, 4]], torch.ones(2, 4, 4)
    )


def test_maps_are_those_before_dropout():
    q, k, v = queries_keys_values()
    model, dropping = Kernel(), Kernel(dropout_p=0.5)
    with AttentionProbe(model, rows="all") as probe:
        model(q, k, v)
    with AttentionProbe(dropping, rows="all") as other:
        output = dropping(q, k, v)
    torch.testing.assert_close(other.maps["Kernel"], probe.maps["Kernel"])
    assert not output.allclose(model(q, k, v))


def test_the_class_row_leaves_the_logits_exactly_as_they_were(model, images):
    with AttentionProbe(model) as probe:
        logits = model(images)
    assert logits.equal(model(images))
    assert {name: tuple(w.shape) for name, w in probe.maps.items()} == dict.fromkeys(
        BLOCKS, (4, 3, 1, 10)
    )


def test_a_slice_of_rows_is_that_slice_of_all_rows(model, images):
    with AttentionProbe(model, rows="all") as every:
        model(images)
    with AttentionProbe(model, rows=slice(1, None, 2)) as some:
        model(images)
    for name, weights in some.maps.items():
        torch.testing.assert_close(weights, every.maps[name][:, :, 1::2])


def test_layers_are_chosen_by_glob_in_model_order(model, images):
    with AttentionProbe(model, layers=["*.1.attn", "blocks.0*"]) as probe:
        model(images)
    assert list(probe.maps) == BLOCKS
    with AttentionProbe(model, layers="blocks.1.*") as probe:
        model(images)
    assert list(probe.maps) == BLOCKS[1:]


def test_layers_are_chosen_by_module_or_number_too_in_model_order(model, images):
    first, second = (block.attn for block in model.blocks)
    for layers, expected in (
        (second, BLOCKS[1:]),
        ([second, first], BLOCKS),
        ([1, 0], BLOCKS),
        (-1, BLOCKS[1:]),
        (range(1), BLOCKS[:1]),
        (["blocks.0.*", second, 1], BLOCKS),
    ):
        with AttentionProbe(model, layers) as probe:
            model(images)
        assert list(probe.maps) == expected


def test_a_probe_says_what_it_reads_and_has_read(model, images):
    probe = AttentionProbe(model, [model.blocks[0].attn, "blocks.1*"])
    assert repr(probe) == (
        "<AttentionProbe of VisionTransformer: class rows of Attention, 'blocks.1*'; "
        "nothing read yet>"
    )
    with AttentionProbe(model, rows=slice(2)) as probe:
        model(images)
    assert repr(probe) == (
        "<AttentionProbe of VisionTransformer: rows slice(None, 2, None) of all layers; "
        "2 read into .maps: blocks.0.attn, blocks.1.attn>"
    )
    with AttentionProbe(model, rows="all", reduce=lambda layer, weights: None) as probe:
        model(images)
    assert repr(probe).endswith(
        "all rows of all layers; 2 read into reduce: " + ", ".join(BLOCKS) + ">"
    )


def test_attention_maps_are_those_of_a_probe_stacked(model, images):
    for options in ({}, dict(rows="all"), dict(rows=slice(1, 3), layers=[1])):
        with torch.no_grad(), AttentionProbe(model, **options) as probe:
            model(images)
        found = attention_maps(model, images.requires_grad_(), **options)
        assert found.equal(torch.stack(list(probe.maps.values())))
        assert not found.requires_grad
    assert attention_maps(model, images).shape == (2, 4, 3, 1, 10)
    assert hooks_on(model) == 0


def test_attention_maps_of_unequal_shape_are_not_one_tensor():
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=56, depths=(1, 1), embed_dim=32, num_heads=(2, 4)
    ).eval()
    match = (
        r"SwinTransformer cannot be one tensor, .* in 'layers\.0.* choose layers of one shape, or"
    )
    with refusal(match):
        attention_maps(model, torch.rand(1, 3, 56, 56), rows="all")
    assert attention_maps(model, torch.rand(1, 3, 56, 56), 0, rows="all").shape[2:] == (2, 49, 49)


def test_reduce_sees_each_map_once_and_nothing_is_kept(model, images):
    seen = []

    def mass_on_class(layer, weights):
        seen.append((layer, tuple(weights.shape)))
        return weights[..., 0].mean().item() if layer == BLOCKS[0] else None

    with AttentionProbe(model, rows="all", reduce=mass_on_class) as probe:
        model(images)
        model(images[:1])
    assert seen == [(name, (n, 3, 10, 10)) for n in (4, 1) for name in BLOCKS]
    assert list(probe.results) == BLOCKS[:1]
    assert len(probe.results[BLOCKS[0]]) == 2
    with pytest.raises(RuntimeError, match=r"keeps no maps .* is in \.results"):
        _ = probe.maps


@pytest.mark.parametrize("part", ["forward", "forward_features"])
def test_several_passes_are_concatenated_along_the_batch(model, images, part):
    with AttentionProbe(model) as whole:
        model(images)
    with AttentionProbe(model) as parts:
        for half in images.split(2):
            getattr(model, part)(half)
    assert list(parts.maps) == BLOCKS
    for name, weights in parts.maps.items():
        torch.testing.assert_close(weights, whole.maps[name])


def test_passes_of_different_image_sizes_cannot_be_one_batch():
    model = vit(dynamic_img_size=True)
    with AttentionProbe(model) as probe:
        model(torch.rand(1, 3, 48, 48))
        model(torch.rand(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"shapes differ .* one probe for each image size"):
        _ = probe.maps


def test_a_layer_used_twice_in_a_pass_has_a_second_name(model, images):
    model.blocks[1] = model.blocks[0]
    with AttentionProbe(model) as probe:
        model(images)
        model(images)
    assert list(probe.maps) == [BLOCKS[0], f"{BLOCKS[0]}#2"]
    assert probe.maps[BLOCKS[0]].shape == (8, 3, 1, 10)


def test_a_probe_can_be_used_again_and_forgets(model, images):
    probe = AttentionProbe(model)
    for n in (4, 2):
        with probe:
            model(images[:n])
        assert len(probe.maps[BLOCKS[0]]) == n


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_maps_are_detached_and_the_same_in_every_gradient_mode(model, images, mode):
    with torch.no_grad(), AttentionProbe(model, rows="all") as expected:
        model(images)
    with mode(), AttentionProbe(model, rows="all") as probe:
        model(images)
    for name, weights in probe.maps.items():
        assert not weights.requires_grad
        torch.testing.assert_close(weights, expected.maps[name], atol=1e-6, rtol=0)


@pytest.mark.parametrize("rows", ["class", "all"])
def test_gradients_flow_through_a_probed_pass(model, images, rows):
    x = images.requires_grad_()
    (plain,) = torch.autograd.grad(model(x).square().sum(), x)
    with AttentionProbe(model, rows=rows):
        logits = model(x)
    (probed,) = torch.autograd.grad(logits.square().sum(), x)
    torch.testing.assert_close(probed, plain, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("fused", [True, False], ids=["fused", "unfused"])
@pytest.mark.parametrize("how", ["half", "bfloat16", "autocast"])
@pytest.mark.parametrize("rows", ["class", "all"])
@torch.inference_mode()
def test_maps_of_half_precision_are_float32(model, images, rows, how, fused):
    for block in model.blocks:
        block.attn.fused_attn = fused
    with AttentionProbe(model, rows=rows) as expected:
        model(images)
    context = torch.autocast("cpu", dtype=torch.bfloat16, enabled=how == "autocast")
    if how != "autocast":
        model, images = getattr(model, how)(), getattr(images, how)()
    with context:
        plain = model(images)
        with AttentionProbe(model, rows=rows) as probe:
            logits = model(images)
    assert logits.dtype == plain.dtype
    torch.testing.assert_close(logits, plain, atol=0.03, rtol=0.03)
    for name, weights in probe.maps.items():
        assert weights.dtype == torch.float32
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        torch.testing.assert_close(weights, expected.maps[name], atol=2e-3, rtol=0)


def test_what_a_layer_does_to_its_softmax_in_place_does_not_reach_the_map():
    class Attention(nn.Module):
        def forward(self, x):  # [batch, tokens, width]
            weights = (x @ x.mT).softmax(-1)
            return weights.mul_(0) @ x

    model, x = Attention(), torch.randn(2, 5, 8)
    with AttentionProbe(model, rows="all") as probe:
        model(x)
    torch.testing.assert_close(probe.maps["Attention"], (x @ x.mT).softmax(-1)[:, None])


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("weights", [None, "averaged", "each head"])
def test_multi_head_attention_answers_as_it_was_asked(batch_first, weights):
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, batch_first=batch_first).eval()
    x, masked = torch.randn(4, 4, 8), torch.zeros(4, 4, dtype=torch.bool)
    masked[:, 3] = True
    options = dict(need_weights=weights is not None, average_attn_weights=weights == "averaged")
    with torch.no_grad():
        plain = attention(x, x, x, key_padding_mask=masked, **options)
        with AttentionProbe(attention, rows="all") as probe:
            probed = attention(x, x, x, key_padding_mask=masked, **options)
    torch.testing.assert_close(probed[0], plain[0], atol=1e-6, rtol=1e-5)
    assert (probed[1] is None) == (plain[1] is None) == (weights is None)
    if weights:
        torch.testing.assert_close(probed[1], plain[1])
    (maps,) = probe.maps.values()
    assert maps.shape == (4, 2, 4, 4)
    assert maps[..., 3].count_nonzero() == 0


@torch.inference_mode()
def test_the_fast_path_of_torchs_encoder_is_read_too():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x = torch.randn(3, 5, 8)
    with AttentionProbe(model, rows="all") as probe:
        output = model(x)
    assert list(probe.maps) == ["layers.0.self_attn", "layers.1.self_attn"]
    torch.testing.assert_close(output, model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("heads_first", [True, False])
def test_heads_are_told_from_equally_many_windows(heads_first):
    class Attention(nn.Module):
        num_heads = 4

        def forward(self, x):  # [batch, windows, tokens, heads · width]
            q = x.unflatten(-1, (4, 2)).transpose(2, 3)  # [batch, windows, heads, tokens, width]
            q = q.transpose(1, 2) if heads_first else q
            return F.scaled_dot_product_attention(q, q, q)

    model, x = Attention(), torch.randn(2, 4, 5, 8)
    with AttentionProbe(model, rows="all") as probe:
        model(x)
    q = x.unflatten(-1, (4, 2)).transpose(2, 3).flatten(0, 1)
    expected = (q @ q.mT / 2**0.5).softmax(-1)  # [batch · windows, heads, tokens, tokens]
    torch.testing.assert_close(probe.maps["Attention"], expected)


def test_the_class_rows_of_tnt_are_those_between_patches_for_any_shape_of_image():
    model = timm.create_model("tnt_s_patch16_224", img_size=(32, 64), depth=1).eval()
    with AttentionProbe(model) as probe:
        model(torch.rand(1, 3, 32, 64))
    assert list(probe.maps) == ["blocks.0.attn_out"]
    assert probe.skipped["blocks.0.attn_in"].startswith("it has no class token among its queries")


def test_attention_layers_are_found_without_a_pass(model):
    assert list(attention_layers(model)) == BLOCKS
    assert attention_layers(timm.create_model("resnet18")) == {}


# --- nothing stays on the model


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_after_an_exception_nothing_stays_on_the_model(model, images, error):
    plain, before = model(images), hooks_on(model)

    def fail(*args):
        raise error("broken")

    handle = model.blocks[1].attn.proj.register_forward_hook(fail)
    with pytest.raises(error, match="broken"), AttentionProbe(model, rows="all"):
        model(images)
    handle.remove()
    assert hooks_on(model) == before
    assert not torch.overrides.has_torch_function((images,))
    assert model(images).equal(plain)
    with AttentionProbe(model) as probe:  # and the next probe works
        model(images)
    assert list(probe.maps) == BLOCKS


def test_an_exception_in_the_block_is_not_replaced_by_the_probes_own(model):
    with pytest.raises(ZeroDivisionError), AttentionProbe(model):
        _ = 1 / 0


def test_a_pass_that_failed_and_was_caught_does_not_disturb_the_next(model, images):
    with AttentionProbe(model) as probe:
        with pytest.raises(AssertionError):
            model(torch.rand(1, 3, 20, 20))
        model(images)
    assert probe.maps[BLOCKS[1]].shape == (4, 3, 1, 10)


# --- bad input


def refusal(match, error=ValueError):
    return pytest.raises(error, match=match)


def test_a_model_without_attention_is_refused():
    with (
        refusal("ResNet is a model without attention"),
        AttentionProbe(timm.create_model("resnet18")),
    ):
        pass


def test_a_pattern_that_matches_nothing_names_the_nearest_layers(model):
    match = r"No layer of VisionTransformer matches 'block\.1\.attn': .* blocks\.1\.attn, blocks\.0"
    with refusal(match), AttentionProbe(model, layers=["*", "block.1.attn"]):
        pass
    with refusal("list of layers is empty"), AttentionProbe(model, layers=[]):
        pass


def test_layers_that_are_none_of_the_attention_layers_are_refused_by_one_sentence(model):
    for layers, error, match in (
        (
            model.blocks[0],
            ValueError,
            r"This Block is no layer .* one within it \(blocks\.0\.attn\)",
        ),
        ([nn.Linear(2, 2)], ValueError, r"This Linear is no layer .* the model's own modules"),
        ([0, 2], ValueError, "VisionTransformer has 2 layers .*: there is no 2"),
        (-3, ValueError, "there is no -3"),
        (0.5, TypeError, r"by their names, by globs or as modules, not 0\.5"),
        ([0.5], TypeError, r"given by names, globs or modules, not by 0\.5"),
        ([True], TypeError, "not by True"),
        ([None], TypeError, "not by None"),
    ):
        with refusal(match, error) as caught, AttentionProbe(model, layers):
            pass
        assert str(caught.value).endswith(".")
    assert hooks_on(model) == 0


def test_rows_that_are_no_rows_are_refused(model, images):
    with refusal(r"a slice of the queries, not \[0, 1\]"):
        AttentionProbe(model, rows=[0, 1])
    with refusal('rows is "class", "all" or a slice of the queries, not \'cls\''):
        AttentionProbe(model, rows="cls")
    match = re.escape("blocks.0.attn: slice(50, 60, None) selects none of its 10 queries")
    with refusal(match, RuntimeError), AttentionProbe(model, rows=slice(50, 60)):
        model(images)


def test_class_rows_of_a_model_without_class_token_are_refused():
    with (
        refusal(r'VisionTransformer has no class token, .* ask for rows="all"'),
        AttentionProbe(vit(class_token=False, global_pool="avg")),
    ):
        pass


def test_class_rows_of_a_layer_that_the_class_token_has_not_reached_are_refused():
    model = timm.create_model("cait_xxs24_224", img_size=48, depth=2).eval()
    match = r'blocks\.0\.attn: it has no class token .*rows="all".*blocks_token_only'
    layers = ["blocks.0.attn", "blocks_token_only.0.attn"]
    with refusal(match, RuntimeError), AttentionProbe(model, layers=layers) as probe:
        model(torch.rand(1, 3, 48, 48))
    assert list(probe.maps) == ["blocks_token_only.0.attn"]


def _whole(model):
    return torch.compile(model)


def _in_place(model):
    model.compile()
    return model


def _traced(model):
    return torch.jit.trace(model, torch.rand(1, 3, 48, 48), check_trace=False)


def _part(model):
    model.blocks[0] = torch.compile(model.blocks[0])
    return model


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("compiled", [_whole, _in_place, _part, _traced])
def test_a_compiled_model_is_refused(model, compiled):
    with refusal("cannot be probed because .* is compiled"), AttentionProbe(compiled(model)):
        pass


def test_a_block_without_a_pass_is_an_error(model):
    match = "saw nothing: no forward pass of VisionTransformer"
    with refusal(match, RuntimeError), AttentionProbe(model) as probe:
        pass
    with refusal("has read nothing yet", RuntimeError):
        _ = probe.maps


def test_a_layer_that_never_ran_is_named(model, images):
    class First(nn.Module):
        def __init__(self):
            super().__init__()
            self.blocks = model.blocks

        def forward(self, x):
            return self.blocks[0](x)

    first, tokens = First(), torch.randn(2, 10, 192)
    match = r"blocks\.1\.attn: the forward pass never used it\. The closest .* blocks\.0\.attn"
    with refusal(match, RuntimeError), AttentionProbe(first, layers="*", rows="all"):
        first(tokens)
    with AttentionProbe(first, rows="all") as probe:
        first(tokens)
    assert probe.skipped == {"blocks.1.attn": "the forward pass never used it"}


def test_attention_over_channels_is_refused_by_name_and_announced_otherwise():
    model = timm.create_model("xcit_nano_12_p16_224", img_size=64, depth=2).eval()
    x = torch.rand(2, 3, 64, 64)
    match = r"blocks\.1\.attn: it attends over channels, so it has no map over positions"
    with refusal(match, RuntimeError), AttentionProbe(model, layers="blocks.1.attn", rows="all"):
        model(x)
    announced = pytest.warns(
        UserWarning, match="2 layers of Xcit are left out, blocks.0.attn first"
    )
    with announced, AttentionProbe(model) as probe:
        model(x)
    assert list(probe.maps) == ["cls_attn_blocks.0.attn", "cls_attn_blocks.1.attn"]
    assert list(probe.skipped) == BLOCKS


def test_channels_are_told_from_positions_by_shape_where_the_class_is_unknown():
    class Attention(nn.Module):
        def forward(self, x):  # [batch, tokens, width] → attention between channels of each head
            q = x.unflatten(-1, (2, 4)).permute(0, 2, 3, 1)  # [batch, heads, width / heads, tokens]
            return F.scaled_dot_product_attention(q, q, q).permute(0, 3, 1, 2).flatten(2)

    model = Attention()
    with refusal("it attends over channels", RuntimeError), AttentionProbe(model, rows="all"):
        model(torch.randn(2, 10, 8))


def test_a_second_probe_on_the_same_model_is_refused(model, images):
    with AttentionProbe(model) as probe:
        with refusal("being read by another AttentionProbe"), AttentionProbe(model, rows="all"):
            pass
        model(images)
    assert list(probe.maps) == BLOCKS
