"""Receptive fields of networks and units whose fields are known."""

import math

import pytest
import torch
from torch import nn

from utils.measures.receptive_field import (
    effective_receptive_field,
    half_mass_radius,
    middle_of,
    relative_radius,
    spike_triggered_average,
)
from utils.models import zoo


def convolutions(count: int) -> nn.Sequential:
    """Box filters of 3×3 pixels, one after another."""
    layers = [nn.Conv2d(3 if i == 0 else 1, 1, 3, padding=1, bias=False) for i in range(count)]
    for layer in layers:
        nn.init.ones_(layer.weight)
    return nn.Sequential(*layers)


class Everywhere(nn.Module):
    """Every position sees the mean of all pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.AdaptiveAvgPool2d(1)
        self.spread = nn.Upsample((4, 4))

    def forward(self, x):
        return self.spread(self.mean(x))


@pytest.mark.parametrize(("count", "side"), [(1, 3), (2, 5), (4, 9)])
def test_stacked_3x3_convolutions_see_a_square_that_grows_by_two(count, side):
    images = torch.rand(2, 3, 15, 15)
    field = effective_receptive_field(convolutions(count), images, f"{count - 1}")
    expected = torch.zeros(15, 15, dtype=torch.bool)
    half = side // 2
    expected[7 - half : 8 + half, 7 - half : 8 + half] = True
    assert torch.equal(field > 0, expected)
    assert field.sum().item() == pytest.approx(1)


def test_two_box_filters_have_a_triangular_field():
    field = effective_receptive_field(convolutions(2), torch.rand(1, 3, 15, 15), "1")
    triangle = torch.tensor([1, 2, 3, 2, 1], dtype=torch.float64)
    torch.testing.assert_close(field[5:10, 5:10], triangle[:, None] * triangle / 81)


def test_the_field_is_the_mean_over_images_of_absolute_gradients():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Tanh())
    images = torch.rand(5, 3, 7, 7)
    expected = torch.zeros(7, 7)
    for image in images:
        pixels = image[None].clone().requires_grad_()
        model(pixels)[0, :, 3, 3].mean().backward()
        expected += pixels.grad.abs().sum((0, 1))
    for batch in (2, 5):
        field = effective_receptive_field(model, images, "1", batch=batch)
        torch.testing.assert_close(field.float(), expected / expected.sum())


def test_an_in_place_layer_behind_does_not_change_the_field():
    convolution = convolutions(1)[0]
    images = -torch.rand(2, 3, 9, 9)  # all outputs negative: the ReLU lets nothing through
    for relu in (nn.ReLU(), nn.ReLU(inplace=True)):
        field = effective_receptive_field(nn.Sequential(convolution, relu), images, "0")
        assert (field > 0).sum() == 9


def test_a_position_away_from_the_centre_moves_the_field():
    field = effective_receptive_field(convolutions(1), torch.rand(1, 3, 15, 15), "0", (2, 12))
    assert field[1:4, 11:14].sum().item() == pytest.approx(1)


@pytest.mark.parametrize("position", [9, (1, 1)])
def test_an_embedded_patch_sees_its_own_pixels(position):
    model = zoo.create("vit-d1-h2")
    images = torch.rand(2, 3, 32, 32)
    # The class token comes only after patch_embed, so the tokens there are numbered without it.
    layer, at = ("patch_embed", 9) if position == 9 else ("pos_drop", position)
    field = effective_receptive_field(model, images, layer, at)
    assert field[4:8, 4:8].sum().item() == pytest.approx(1)  # second row, second column of 8 × 8


def test_the_field_of_an_embedded_patch_lies_about_its_middle():
    assert middle_of((4, 4), (8, 8), (32, 32)) == (17.5, 17.5)
    assert middle_of((0, 6), (7, 7), (7, 7)) == (0, 6)
    model = zoo.create("vit-d1-h2")
    field = effective_receptive_field(model, torch.rand(1, 3, 32, 32), "pos_drop", (1, 5))
    y, x = middle_of((1, 5), (8, 8), (32, 32))
    pixels = torch.arange(32.0).double()
    assert abs((field.sum(1) @ pixels).item() - y) < 1
    assert abs((field.sum(0) @ pixels).item() - x) < 1
    assert half_mass_radius(field, (y, x)) < 2.2 < half_mass_radius(field)


def test_attention_sees_further_than_its_patch():
    model = zoo.create("vit-d1-h2")
    field = effective_receptive_field(model, torch.rand(2, 3, 32, 32), "blocks.0")
    assert (field > 0).all()
    assert field[16:20, 16:20].sum() > 16 / 32**2


def test_channels_last_maps_are_read_along_their_last_axis():
    class Last(nn.Module):
        def forward(self, x):
            return x.movedim(1, -1)

    model = nn.Sequential(convolutions(1)[0], Last())
    images = torch.rand(1, 3, 9, 9)
    expected = effective_receptive_field(model, images, "0", (2, 3))
    assert torch.equal(
        effective_receptive_field(model, images, "1", (2, 3), channel_dim=-1), expected
    )


def test_a_layer_that_sees_all_pixels_alike_has_the_radius_of_a_uniform_field():
    field = effective_receptive_field(Everywhere(), torch.rand(1, 3, 16, 16), "spread")
    torch.testing.assert_close(field, torch.full((16, 16), 1 / 256).double())
    assert relative_radius(field) == pytest.approx(1)


def test_measuring_a_field_leaves_the_model_as_it_was():
    model = zoo.create("vit-d1-h2")
    model.head.weight.requires_grad_(False)
    before = [p.requires_grad for p in model.parameters()]
    effective_receptive_field(model, torch.rand(1, 3, 32, 32), "blocks.0")
    with pytest.raises(ValueError, match="no position 99"):
        effective_receptive_field(model, torch.rand(1, 3, 32, 32), "blocks.0", 99)
    assert [p.requires_grad for p in model.parameters()] == before
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_fields_can_be_measured_where_gradients_are_off(off):
    model = convolutions(1)
    with off():
        field = effective_receptive_field(model, torch.rand(1, 3, 9, 9), "0")
    assert (field > 0).sum() == 9


def test_what_has_no_field_is_refused():
    model, images = convolutions(1), torch.rand(1, 3, 9, 9)
    with pytest.raises(ValueError, match="is called '7': the closest names are 0"):
        effective_receptive_field(model, images, "7")
    with pytest.raises(ValueError, match=r"grid of 9 × 9, but no position \(9, 0\)"):
        effective_receptive_field(model, images, "0", (9, 0))
    with pytest.raises(ValueError, match=r"a map and a grid of 9 × 9, but no position 3"):
        effective_receptive_field(model, images, "0", 3)
    with pytest.raises(ValueError, match="NaN or infinite"):
        effective_receptive_field(nn.Sequential(model[0], nn.Softplus()), images * math.nan, "1")
    silent = nn.Sequential(model[0], nn.ReLU())
    with pytest.raises(RuntimeError, match="No pixel changes '1' at position None"):
        effective_receptive_field(silent, -images, "1")
    model.spare = nn.Identity()
    model.forward = lambda x: model[0](x)
    with pytest.raises(RuntimeError, match="never called 'spare'"):
        effective_receptive_field(model, images, "spare")
    vit = zoo.create("vit-d1-h2")
    with pytest.raises(ValueError, match=r"\(1, 10\), neither tokens nor maps"):
        effective_receptive_field(vit, torch.rand(1, 3, 32, 32), "head")
    seven = nn.Sequential(nn.Flatten(), nn.Linear(243, 14), nn.Unflatten(1, (7, 2)))
    with pytest.raises(ValueError, match="7 tokens that form no grid of patches of images of 9 × "):
        effective_receptive_field(seven, images, "2")
    with pytest.raises(ValueError, match="is compiled"):
        effective_receptive_field(torch.compile(model), images, "0")


def test_half_of_a_uniform_disc_lies_within_its_radius_over_root_two():
    y, x = torch.meshgrid(torch.arange(201) - 100, torch.arange(201) - 100, indexing="ij")
    disc = (y**2 + x**2 <= 80**2).float()
    assert half_mass_radius(disc) == pytest.approx(80 / math.sqrt(2), abs=0.5)


def test_half_of_a_gaussian_lies_within_its_median_radius():
    y, x = torch.meshgrid(torch.arange(101) - 30, torch.arange(101) - 50, indexing="ij")
    gaussian = torch.exp(-(y**2 + x**2) / (2 * 8**2))
    radius = half_mass_radius(gaussian, centre=(30, 50))
    assert radius == pytest.approx(8 * math.sqrt(2 * math.log(2)), abs=0.5)
    assert half_mass_radius(5 * gaussian, centre=(30, 50)) == radius


def test_the_relative_radius_goes_from_a_point_to_the_whole_image():
    for centre in (None, (3, 20)):
        assert relative_radius(torch.full((32, 24), 0.3), centre) == 1
    point = torch.zeros(33, 33)
    point[16, 16] = 1
    assert relative_radius(point) == 0


def test_what_is_no_field_is_refused():
    with pytest.raises(ValueError, match="with some mass, got zeros"):
        half_mass_radius(torch.zeros(4, 4))
    with pytest.raises(ValueError, match=r"got shape \(4,\)"):
        half_mass_radius(torch.ones(4))
    with pytest.raises(ValueError, match="minimum of -1"):
        half_mass_radius(-torch.ones(4, 4))
    with pytest.raises(ValueError, match="got NaN"):
        half_mass_radius(torch.full((4, 4), math.nan))


def gabor(size: int) -> torch.Tensor:
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size)] * 2, indexing="ij")
    filter_ = torch.exp(-4 * (x**2 + y**2)) * torch.cos(8 * x + 2 * y)
    return filter_ / filter_.norm()


def test_the_responses_of_a_linear_unit_to_noise_give_its_filter():
    filter_ = gabor(11)
    found = spike_triggered_average(lambda noise: noise.flatten(1) @ filter_.view(-1, 1), (11, 11))
    assert (found[0] - filter_).abs().max() < 4.5 / math.sqrt(10_000)  # standard errors, 121 pixels


@pytest.mark.parametrize("baseline", [0, 20])
def test_the_responses_of_a_rectified_unit_give_half_of_its_filter(baseline):
    filter_ = gabor(11)
    found = spike_triggered_average(
        lambda noise: (noise.flatten(1) @ filter_.view(-1, 1)).relu() + baseline, (11, 11)
    )
    pair = torch.stack([found[0].flatten(), filter_.flatten().double()])
    assert torch.corrcoef(pair)[0, 1] > 0.98
    assert (found[0] * filter_).sum().item() == pytest.approx(0.5, abs=0.02)


def test_noise_depends_on_nothing_but_the_seed():
    def respond(noise):
        return noise.flatten(1)[:, :2]

    one, same = (spike_triggered_average(respond, (3, 3), 500, batch=b) for b in (100, 333))
    other = spike_triggered_average(respond, (3, 3), 500, seed=1)
    torch.testing.assert_close(one, same)
    assert not torch.allclose(one, other)


def test_responses_that_cannot_be_averaged_are_refused():
    with pytest.raises(ValueError, match=r"gave \(1000,\) for 1000 images"):
        spike_triggered_average(lambda noise: noise.sum((1, 2)), (3, 3))
    with pytest.raises(ValueError, match="got NaN"):
        spike_triggered_average(lambda noise: noise.flatten(1) * math.nan, (3, 3))
