"""Filters whose frequency response is known in closed form."""

import math

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import resnet18

from utils.measures.frequency import change_across_sub_blocks, delta_log_amplitude, radial_amplitude
from utils.models import zoo

BLUR = torch.full((3, 3), 1 / 9, dtype=torch.float64)
SHARPEN = torch.tensor([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], dtype=torch.float64)


def filtered(maps, kernel):
    """Every channel convolved with a symmetric 3×3 kernel; the edges wrap around."""
    around = F.pad(maps, (1, 1, 1, 1), mode="circular")
    channels = maps.shape[1]
    return F.conv2d(around, kernel.expand(channels, 1, 3, 3), groups=channels)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize(("kernel", "gain"), [(BLUR, 1 / 9), (SHARPEN, 9.0)])
def test_a_filter_changes_the_highest_frequency_by_its_response(kernel, gain):
    maps = noise(3, 2, 16, 16) + 1
    change = delta_log_amplitude(filtered(maps, kernel)) - delta_log_amplitude(maps)
    expected = torch.full((3,), math.log(gain), dtype=torch.float64)
    torch.testing.assert_close(change[:, -1], expected)


@pytest.mark.parametrize("side", [7, 8])
def test_a_filter_changes_every_frequency_by_its_response(side):
    maps = noise(2, 3, side, side) + 1
    omega = 2 * math.pi * torch.arange(side // 2 + 1) / side
    for kernel, response in (
        (BLUR, ((1 + 2 * omega.cos()) / 3) ** 2),
        (SHARPEN, 5 - 4 * omega.cos()),
    ):
        change = delta_log_amplitude(filtered(maps, kernel)) - delta_log_amplitude(maps)
        torch.testing.assert_close(change, response.log().expand(2, -1).double(), rtol=1e-5, atol=0)


def test_a_checkerboard_is_all_at_the_highest_frequency():
    board = torch.ones(8, 8)
    board[::2, ::2] = board[1::2, 1::2] = -1
    found = delta_log_amplitude((board + 0.5).expand(1, 1, 8, 8))[0]  # 64 at (π, π), 32 at zero
    assert found[-1].item() == pytest.approx(math.log(2))
    assert (found[1:-1] < -10).all()


def test_scale_changes_nothing_and_silent_channels_do_not_count():
    maps = noise(2, 3, 8, 8)
    expected = delta_log_amplitude(maps)
    torch.testing.assert_close(delta_log_amplitude(1e-9 * maps), expected)
    with_silent = torch.cat([maps, torch.zeros(2, 2, 8, 8)], 1)
    torch.testing.assert_close(delta_log_amplitude(with_silent), expected)
    assert delta_log_amplitude(torch.zeros(1, 2, 8, 8)).isnan().all()


def test_the_logarithm_is_taken_before_the_mean_over_channels():
    maps = noise(1, 2, 8, 8)
    each = torch.cat([delta_log_amplitude(maps[:, :1]), delta_log_amplitude(maps[:, 1:])])
    torch.testing.assert_close(delta_log_amplitude(maps)[0], each.mean(0))


@pytest.mark.parametrize("cycles", [(3, 0), (0, 4), (3, 4)])
def test_a_wave_has_its_amplitude_in_one_ring(cycles):
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    wave = torch.cos(2 * math.pi * (cycles[0] * y + cycles[1] * x) / 16).expand(1, 1, 16, 16)
    found = radial_amplitude(wave)[0]
    ring = round(math.hypot(*cycles))
    assert found.argmax() == ring
    in_ring = sum(
        round(math.hypot(a, b)) == ring for a in range(-8, 8) for b in range(-8, 8)
    )  # cells of the spectrum, two of which hold 16²/2 each
    assert found[ring].item() == pytest.approx(2 * 128 / in_ring, rel=1e-3)
    assert (found[torch.arange(9) != ring] < 1e-3).all()


def test_white_noise_has_a_flat_spectrum():
    found = radial_amplitude(noise(200, 1, 16, 16)).mean(0)
    # the modulus of a complex normal number of variance 16² has the mean 16·√π/2
    torch.testing.assert_close(
        found[1:8], torch.full((7,), 8 * math.sqrt(math.pi)).double(), rtol=0.03, atol=0
    )


def residual(model, images, name):
    """The change across a block by its definition, from the inputs and outputs of its modules."""
    block, seen = model.get_submodule(name), {}
    handles = [
        block.register_forward_hook(lambda m, args, out: seen.update(before=args[0], after=out)),
        block.norm2.register_forward_pre_hook(lambda m, args: seen.update(between=args[0])),
    ]
    model(images)
    for handle in handles:
        handle.remove()
    return seen["before"], seen["between"], seen["after"]


@torch.no_grad()
def test_the_halves_of_a_vit_are_measured_with_their_skip_connections():
    model, images = zoo.create("vit-d2-h2"), torch.rand(4, 3, 32, 32)
    found = change_across_sub_blocks(model, images)
    assert {kind: list(layers) for kind, layers in found.items()} == {
        "attention": ["blocks.0", "blocks.1"],
        "mlp": ["blocks.0", "blocks.1"],
    }
    before, between, after = (
        delta_log_amplitude(tokens[:, 1:].mT.reshape(4, 64, 8, 8))[:, -1]
        for tokens in residual(model, images, "blocks.1")
    )
    torch.testing.assert_close(found["attention"]["blocks.1"], between - before, atol=1e-5, rtol=0)
    torch.testing.assert_close(found["mlp"]["blocks.1"], after - between, atol=1e-5, rtol=0)


@torch.no_grad()
def test_uniform_attention_lowers_and_a_sharpening_block_raises_high_frequencies():
    model, images = zoo.create("vit-d1-h2"), torch.rand(4, 3, 32, 32)
    attention = model.blocks[0].attn
    attention.qkv.weight[:128] = 0  # no queries, no keys: every patch gets the mean of the values
    attention.qkv.bias[:128] = 0
    attention.proj.weight *= 100
    assert (change_across_sub_blocks(model, images)["attention"]["blocks.0"] < 0).all()

    class Sharpening(nn.Module):
        conv1 = conv2 = downsample = None

        def forward(self, x):
            return filtered(x.double(), SHARPEN)

    change = change_across_sub_blocks(nn.Sequential(Sharpening()), images)["convolution"]["0"]
    torch.testing.assert_close(change, torch.full((4,), math.log(9)).double(), atol=1e-4, rtol=0)


@torch.no_grad()
def test_residual_blocks_that_keep_the_size_are_convolutions():
    images = torch.rand(2, 3, 64, 64)
    found = change_across_sub_blocks(resnet18().eval(), images)
    assert list(found) == ["convolution"]
    kept = ["layer1.0", "layer1.1", "layer2.1", "layer3.1", "layer4.1"]
    assert list(found["convolution"]) == kept
    found = change_across_sub_blocks(zoo.create("resnet-d8"), torch.rand(2, 3, 32, 32))
    assert list(found["convolution"]) == ["layer1.0"]


def test_windowed_attention_is_read_with_its_channels_last():
    model = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1), num_heads=(2, 4))
    with torch.no_grad():
        found = change_across_sub_blocks(model.eval(), torch.rand(1, 3, 224, 224))
    assert list(found["attention"]) == ["layers.0.blocks.0", "layers.1.blocks.0"]
    assert all(change.isfinite().all() for change in found["mlp"].values())


def test_no_hook_stays_even_after_an_error():
    model = zoo.create("vit-d1-h2")
    with pytest.raises(ValueError, match="NaN or infinite"):
        change_across_sub_blocks(model, torch.full((1, 3, 32, 32), math.nan))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_what_has_no_spectrum_is_refused():
    for measure in (delta_log_amplitude, radial_amplitude):
        with pytest.raises(ValueError, match=r"needs square maps .* got shape \(2, 3, 8, 7\)"):
            measure(torch.rand(2, 3, 8, 7))
        with pytest.raises(ValueError, match="NaN or infinite"):
            measure(torch.full((1, 1, 4, 4), math.inf))
    with pytest.raises(ValueError, match="Sequential has no Transformer blocks"):
        change_across_sub_blocks(nn.Sequential(nn.Conv2d(3, 3, 1)), torch.rand(1, 3, 8, 8))
    model = timm.create_model("vit_tiny_patch16_224", depth=1, img_size=(32, 64))
    with pytest.raises(ValueError, match="2 × 4 patches fill no square"):
        change_across_sub_blocks(model, torch.rand(1, 3, 32, 64))
