"""Where tokens are, and how layers are named."""

import pytest
import timm
import torchvision
from torch import nn

from utils.probes import TokenLayout, token_layout
from utils.probes.hooks import select

SMALL = dict(depth=1, embed_dim=48, num_heads=3)
VIT = dict(img_size=48) | SMALL
P16 = (16, 16)

LAYOUTS = {
    "vit_tiny_patch16_224": (VIT, TokenLayout(1, True, "token", (3, 3), patch=P16)),
    "deit_tiny_distilled_patch16_224": (VIT, TokenLayout(2, True, "token", (3, 3), patch=P16)),
    "vit_small_patch14_reg4_dinov2": (
        VIT | dict(img_size=(42, 56)),
        TokenLayout(5, True, "token", (3, 4), patch=(14, 14)),
    ),
    "vit_small_patch16_dinov3": (VIT, TokenLayout(5, True, "avg", (3, 3), patch=P16)),
    "eva02_tiny_patch14_224": (
        VIT | dict(img_size=56),
        TokenLayout(1, True, "avg", (4, 4), patch=(14, 14)),
    ),
    "vit_so150m_patch16_reg4_gap_256": (VIT, TokenLayout(4, False, "avg", (3, 3), patch=P16)),
    "vit_base_patch16_gap_224": (VIT, TokenLayout(0, False, "avg", (3, 3), patch=P16)),
    "vit_base_patch16_siglip_224": (VIT, TokenLayout(0, False, "map", (3, 3), patch=P16)),
    "naflexvit_base_patch16_gap": (SMALL, TokenLayout(4, False, "avg", None)),
    "pit_ti_224": (
        dict(img_size=96),
        TokenLayout(1, True, "token", (11, 11), patch=(96 / 11, 96 / 11)),
    ),
    "pit_ti_distilled_224": (
        dict(img_size=96),
        TokenLayout(2, True, "token", (11, 11), patch=(96 / 11, 96 / 11)),
    ),
    "swin_tiny_patch4_window7_224": ({}, TokenLayout(0, False, "avg", (56, 56), patch=(4, 4))),
    "crossvit_tiny_240": ({}, TokenLayout(1, True, "token", None)),
    "mvitv2_small_cls": ({}, TokenLayout(1, True, "token", None, patch=(4, 4))),
    "cait_xxs24_224": (
        dict(img_size=48, depth=1),
        TokenLayout(1, True, "token", (3, 3), late=True, patch=P16),
    ),
    "tnt_s_patch16_224": (
        dict(img_size=(48, 96), depth=1),
        TokenLayout(1, True, "token", (3, 6), late=True, patch=P16),
    ),
    "volo_d1_224": (
        dict(img_size=(64, 128)),
        TokenLayout(1, True, "token", (4, 8), late=True),
    ),
    "resnet18": ({}, TokenLayout(0, False, None, None)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_layout_of_tokens_is_that_of_the_architecture(name):
    options, expected = LAYOUTS[name]
    assert token_layout(timm.create_model(name, **options)) == expected


def test_torchvisions_vit_has_one_class_token():
    model = torchvision.models.VisionTransformer(64, 16, 1, 3, 48, 96)
    assert token_layout(model) == TokenLayout(1, True, "token", (4, 4), patch=P16)


def test_a_class_token_that_was_always_there_is_in_every_layer():
    layout = TokenLayout(5, True, "token", (3, 4))
    assert [layout.prefix_in(n) for n in (17, 23)] == [5, 5]


def test_a_late_class_token_is_where_there_is_one_token_more_than_the_grid():
    layout = TokenLayout(1, True, "token", (7, 14), late=True)
    assert [layout.prefix_in(n) for n in (98, 99, 16)] == [0, 1, 0]


def test_a_late_class_token_without_a_known_grid_is_found_for_square_images_only():
    layout = TokenLayout(1, True, "token", None, late=True)
    assert [layout.prefix_in(n) for n in (196, 197, 16, 17)] == [0, 1, 0, 1]
    with pytest.raises(ValueError, match=r"1 of 99 tokens .* use square images"):
        layout.prefix_in(99)


def test_names_are_selected_once_in_their_own_order():
    names = ["stem.act", "blocks.0.attn", "blocks.0.act", "blocks.1.act", "head"]
    assert select(names, ["blocks.*.act", "*act"], "X") == [names[0], *names[2:4]]
    assert select(names, "head", "X") == ["head"]


def test_names_are_selected_by_their_modules_where_these_are_known():
    first, second = nn.Linear(2, 2), nn.ReLU()
    assert select({"a": first, "b": second}, [second, "a*"], "X") == ["a", "b"]
    with pytest.raises(TypeError, match="The layers of X are given by names or globs, not by ReLU"):
        select(["a", "b"], second, "X")


def test_numbers_count_in_the_order_of_the_names_where_they_are_allowed():
    assert select(["a", "b", "c"], [-1, 0], "X", numbered=True) == ["a", "c"]
    with pytest.raises(ValueError, match=r"X has 3 layers .* from 0: there is no 3\."):
        select(["a", "b", "c"], 3, "X", numbered=True)
    with pytest.raises(TypeError, match="not by 0"):
        select(["a", "b", "c"], 0, "X")


def test_a_name_with_signs_of_globs_in_it_can_be_given_exactly():
    assert select(["a[0]", "a0"], "a[0]", "X") == ["a[0]", "a0"]


def test_every_pattern_must_match_something():
    with pytest.raises(ValueError, match=r"No layer of X matches 'hed\*': the closest .* head"):
        select(["stem", "blocks.0", "head"], ["*", "hed*"], "X")
