"""The embedded architectures: their names, their sizes, what they accept."""

import pytest
import timm
import torch

from utils.models.architectures import Spec, build


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("short", "canonical"),
    [
        ("vit-d6-h4", "objects/vit-d6-h4-w64-s0"),
        ("vit-d6-h4-w128-s3", "objects/vit-d6-h4-w128-s3"),
        ("vit-d2-h16-n10-gap", "objects/vit-d2-h16-w64-n10-gap-s0"),
        ("vit-d2-h1-reg4-s12", "objects/vit-d2-h1-w64-reg4-s12"),
        ("resnet-d20", "objects/resnet-d20-w64-s0"),
        ("resnet-d44-n3-s1", "objects/resnet-d44-w64-n3-s1"),
        ("cifar10/vit-d6-h4-nopos", "cifar10/vit-d6-h4-w64-nopos-s0"),
        ("vit-d6-h8-k32", "objects/vit-d6-h8-k32-w64-s0"),
        ("hybrid-d6-h4", "objects/hybrid-d6-h4-w64-s0"),
        ("mixer-d6", "objects/mixer-d6-w64-s0"),
        ("plain-d20", "objects/plain-d20-w64-s0"),
    ],
)
def test_short_and_canonical_names_mean_the_same_model(short, canonical):
    assert Spec.parse(short) == Spec.parse(canonical)
    assert (Spec.parse(short).short, Spec.parse(short).canonical) == (short, canonical)


@pytest.mark.parametrize(
    "name",
    ["vit_base_patch16_224", "efficientnet-lite0", "vit-h4-d6", "vit-d6-h4-", "other/vit-d6-h4"],
)
def test_other_names_are_not_parsed(name):
    assert Spec.parse(name) is None


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("vit-d6", "says its heads"),
        ("vit-d6-h5", "5 heads do not divide width 64"),
        ("vit-d0-h4", "at least one layer"),
        ("vit-d6-h4-n0", "not a percentage"),
        ("resnet-d18", "6n \\+ 2"),
        ("resnet-d2", "6n \\+ 2"),
        ("resnet-d20-h4", "has no heads"),
        ("mixer-d6-h4", "has no heads"),
        ("resnet-d20-gap", "only a vit has variants"),
        ("hybrid-d6", "says its heads"),
        ("resnet-d20-w30", "multiple of 4"),
    ],
)
def test_a_model_that_cannot_be_built_says_why(name, problem):
    with pytest.raises(ValueError, match=f"'{name}' cannot be built: .*{problem}"):
        Spec.parse(name)


def test_resnet20_has_the_published_size_and_depth():
    model = build(Spec.parse("resnet-d20"))
    assert round(parameters(model) / 1e6, 2) == 0.27
    weighted = [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and "downsample" not in name
    ]
    assert len(weighted) == 20


def test_vit_has_the_size_that_its_formula_gives():
    width, depth = 64, 6
    layer = 12 * width**2 + 13 * width  # attention and MLP weights, biases, two layer norms
    embedding = (48 + 1) * width + width + 65 * width  # patches, class token, positions
    assert parameters(build(Spec.parse("vit-d6-h4"))) == (
        depth * layer + embedding + 2 * width + 10 * (width + 1)
    )


def test_head_dimension_is_width_over_heads_unless_the_name_says_otherwise():
    assert Spec.parse("vit-d6-h4").head_dim == 16
    assert Spec.parse("vit-d6-h4-k16") == Spec.parse("vit-d6-h4")
    attention = build(Spec.parse("vit-d1-h3-k8")).blocks[0].attn
    assert (attention.num_heads, attention.head_dim) == (3, 8)
    assert attention.qkv.weight.shape == (3 * 3 * 8, 64)


def test_a_plain_net_is_a_resnet_whose_blocks_add_no_input():
    model = build(Spec.parse("plain-d8"))
    block, x = model.layer2[0], torch.rand(2, 16, 8, 8)
    inner = block.act1(block.bn1(block.conv1(x)))
    torch.testing.assert_close(block(x), torch.relu(block.bn2(block.conv2(inner))))


def test_a_hybrid_puts_a_convolutional_stem_before_as_many_tokens():
    model = build(Spec.parse("hybrid-d1-h2"))
    assert model.forward_features(torch.rand(2, 3, 32, 32)).shape == (2, 65, 64)
    convolutions = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    assert [c.kernel_size for c in convolutions] == [(3, 3), (3, 3), (1, 1)]


def test_a_mixer_has_no_attention():
    model = build(Spec.parse("mixer-d2"))
    assert model.forward_features(torch.rand(2, 3, 32, 32)).shape == (2, 64, 64)
    assert not [name for name, _ in model.named_modules() if "attn" in name]


def test_the_number_of_heads_changes_no_parameter_count():
    assert len({parameters(build(Spec.parse(f"vit-d2-h{heads}"))) for heads in (1, 4, 16)}) == 1


@pytest.mark.parametrize(
    ("name", "tokens"), [("vit-d1-h2", 65), ("vit-d1-h2-gap", 64), ("vit-d1-h2-reg4", 69)]
)
def test_variants_have_the_tokens_that_their_names_say(name, tokens):
    features = build(Spec.parse(name)).forward_features(torch.rand(2, 3, 32, 32))
    assert features.shape == (2, tokens, 64)


def test_the_relu_variant_has_no_gelu():
    kinds = {type(module) for module in build(Spec.parse("vit-d1-h2-relu")).modules()}
    assert torch.nn.ReLU in kinds
    assert torch.nn.GELU not in kinds


@pytest.mark.parametrize("name", ["vit-d1-h2", "resnet-d8", "mixer-d1", "hybrid-d1-h2"])
def test_models_take_images_between_0_and_1_as_they_are(name):
    config = timm.data.resolve_model_data_config(build(Spec.parse(name)))
    assert config["input_size"] == (3, 32, 32)
    assert (config["mean"], config["std"]) == ((0, 0, 0), (1, 1, 1))


def test_a_new_vit_sees_images_as_if_they_were_normalised():
    torch.manual_seed(0)
    plain = timm.models.vision_transformer.VisionTransformer(
        img_size=32, patch_size=4, num_classes=10, embed_dim=64, depth=1, num_heads=2
    )
    images = torch.rand(2, 3, 32, 32)
    seen = build(Spec.parse("vit-d1-h2")).patch_embed(images)
    torch.testing.assert_close(seen, plain.patch_embed((images - 0.5) / 0.5))


@pytest.mark.parametrize("name", ["vit-d1-h2", "resnet-d8"])
def test_an_empty_batch_gives_no_logits(name):
    assert build(Spec.parse(name))(torch.rand(0, 3, 32, 32)).shape == (0, 10)


def test_the_seed_in_the_name_decides_the_weights_and_nothing_else_does():
    image = torch.rand(1, 3, 32, 32)
    torch.manual_seed(1)
    first, draw = build(Spec.parse("vit-d1-h2"))(image), torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), draw)  # the global generator was left alone
    assert torch.equal(build(Spec.parse("vit-d1-h2"))(image), first)
    assert not torch.equal(build(Spec.parse("vit-d1-h2-s1"))(image), first)
