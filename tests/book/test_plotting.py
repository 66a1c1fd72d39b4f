"""The figure style, and the figures that chapters share."""

import itertools

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("agg")
import matplotlib.pyplot as plt

from utils.book import plotting


@pytest.fixture(autouse=True)
def style():
    plotting.use_style()
    yield
    plt.close("all")


def luminance(colour):
    """Relative luminance after WCAG 2.1."""
    linear = [
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4
        for part in matplotlib.colors.to_rgb(colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_ground_is_opaque_so_that_a_dark_page_does_not_show_through(tmp_path):
    figure, _ = plt.subplots()
    figure.savefig(tmp_path / "figure.png")
    corner = plt.imread(tmp_path / "figure.png")[0, 0]
    assert corner.tolist() == [1, 1, 1, 1]


def test_type_stays_at_least_eight_pixels_high_on_a_screen_of_400_px():
    pixels_per_point = 400 / plotting.WIDTH / 72
    for size in ("axes.labelsize", "axes.titlesize", "xtick.labelsize", "legend.fontsize"):
        assert plt.rcParams[size] * pixels_per_point > 8


def test_top_and_right_spines_are_gone():
    _, ax = plt.subplots()
    assert not ax.spines["top"].get_visible()
    assert not ax.spines["right"].get_visible()


def test_colours_of_families_all_differ_and_stand_out_from_white():
    colours = plotting.COLOURS
    assert all(a != b for a, b in itertools.combinations(colours.values(), 2))
    for name in ("vit", "cnn", "control", "neutral"):  # 3:1 for graphics, WCAG 1.4.11
        assert 1.05 / (luminance(colours[name]) + 0.05) >= 3


def test_an_image_grid_shows_each_image_under_its_title():
    images = torch.rand(5, 3, 8, 8)
    figure = plotting.image_grid(images, titles=list("abcde"), columns=3)
    shown = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in shown] == list("abcde")
    drawn = torch.tensor(shown[4].images[0].get_array())  # [H, W, 3]
    torch.testing.assert_close(drawn, images[4].permute(1, 2, 0))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.rand(2, 1, 8, 8), r"shape \[N, 3, H, W\], not \[2, 1, 8, 8\]"),
        (torch.rand(3, 8, 8), r"shape \[N, 3, H, W\]"),
        ([1, 2], "shape .* not list"),
        (torch.rand(0, 3, 8, 8), "batch is empty"),
        (torch.rand(2, 3, 8, 8) + 0.5, "values from 0 to 1.*undo the model's normalisation"),
        (torch.full((2, 3, 8, 8), float("nan")), "values from 0 to 1, not nan"),
    ],
)
def test_an_image_grid_refuses_what_are_not_images(images, message):
    with pytest.raises(ValueError, match=message):
        plotting.image_grid(images)


def test_an_image_grid_needs_as_many_titles_as_images_and_a_column():
    with pytest.raises(ValueError, match="2 images need as many titles, not 1"):
        plotting.image_grid(torch.rand(2, 3, 8, 8), titles=["one"])
    with pytest.raises(ValueError, match="at least one column"):
        plotting.image_grid(torch.rand(2, 3, 8, 8), columns=0)


def test_a_heat_map_carries_names_values_and_unit():
    ax = plotting.heatmap(
        torch.tensor([[0.25, 0.75], [1.0, 0.0]]),
        rows=["disc", "ring"],
        columns=["disc?", "ring?"],
        xlabel="answer",
        ylabel="shown",
        unit="share of images",
        digits=2,
    )
    assert [label.get_text() for label in ax.get_yticklabels()] == ["disc", "ring"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["disc?", "ring?"]
    assert [text.get_text() for text in ax.texts] == ["0.25", "0.75", "1.00", "0.00"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("answer", "shown")
    assert "share of images" in [other.get_ylabel() for other in ax.figure.axes]


def test_what_is_written_into_a_heat_map_has_the_better_contrast():
    ax = plotting.heatmap([[0.0, 0.45, 1.0], [-1.0, 0.9, 0.6]], digits=1, centre=0)
    for text, ground in zip(ax.texts, ax.collections[0].get_facecolors(), strict=True):
        linear = np.where(ground <= 0.04045, ground / 12.92, ((ground + 0.055) / 1.055) ** 2.4)
        light = linear[:3] @ np.array([0.2126, 0.7152, 0.0722])  # WCAG 2
        white, black = 1.05 / (light + 0.05), (light + 0.05) / 0.05
        assert text.get_color() == ("white" if white > black else "black")


def test_a_centred_heat_map_gives_the_centre_the_middle_colour():
    ax = plotting.heatmap([[-1.0, 0.0, 3.0]], centre=0)
    middle = ax.collections[0].to_rgba(0.0)
    assert min(middle[:3]) > 0.9  # the diverging colours are nearly white there


@pytest.mark.parametrize(
    ("matrix", "names", "message"),
    [
        ([1.0, 2.0], {}, r"matrix \[rows, columns\], not shape \(2,\)"),
        (torch.zeros(0, 3), {}, r"matrix \[rows, columns\]"),
        ([[1.0, float("nan")]], {}, "finite values"),
        ([[1.0, 2.0]], {"rows": ["a", "b"]}, "1 rows need as many row names, not 2"),
        ([[1.0, 2.0]], {"columns": ["a"]}, "2 columns need as many column names, not 1"),
    ],
)
def test_a_heat_map_refuses_what_does_not_fit(matrix, names, message):
    with pytest.raises(ValueError, match=message):
        plotting.heatmap(matrix, **names)


def drawn(ax):
    """What is seen of an overlay: the grey picture with the coloured layer on it, [h, w, 3]."""
    picture, layer = (part.to_rgba(part.get_array()) for part in ax.images)
    return picture[..., :3] * (1 - layer[..., 3:]) + layer[..., :3] * layer[..., 3:]


def test_an_overlay_colours_the_heaviest_patch_most_and_leaves_a_bright_grey_picture():
    ax = plotting.overlay(torch.ones(3, 2, 2), torch.tensor([[0.0, 0.5], [0.1, 0.0]]))
    seen = drawn(ax)
    assert seen[0, 0] == pytest.approx([0.95] * 3, abs=0.01)
    blue = matplotlib.colors.to_rgb(plotting.COLOURS["vit"])
    assert seen[0, 1] == pytest.approx([0.15 * 0.95 + 0.85 * part for part in blue], abs=0.01)
    assert seen[0, 1, 0] < seen[1, 0, 0] < seen[0, 0, 0]


def test_no_picture_under_an_overlay_is_dark():
    assert drawn(plotting.overlay(torch.zeros(3, 2, 2), torch.eye(2)))[0, 1].min() >= 0.39


def test_overlays_of_one_scale_can_be_compared():
    image = torch.ones(3, 1, 2)
    shares = [
        drawn(plotting.overlay(image, torch.tensor([[weight, 0.0]]), full=1.0))[0, 0, 0]
        for weight in (0.0, 0.25, 1.0, 2.0)
    ]
    none, quarter, full, more = shares
    assert (none - quarter) / (none - full) == pytest.approx(0.5, abs=0.01)  # the square root
    assert more == full
    for full in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="above zero"):
            plotting.overlay(image, torch.ones(2, 2), full=full)


def test_an_overlay_lies_on_the_whole_picture_whatever_the_grid():
    ax = plotting.overlay(torch.ones(3, 6, 8), torch.ones(2, 3))
    assert tuple(ax.images[1].get_extent()) == (-0.5, 7.5, 5.5, -0.5)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.ones(4), r"shape \[h, w\], not \[4\]"),
        (torch.zeros(2, 2), "at least one weight must be above zero"),
        (torch.tensor([[1.0, -1.0]]), "not negative"),
        (torch.tensor([[1.0, float("nan")]]), "finite"),
    ],
)
def test_an_overlay_refuses_what_are_not_weights(weights, message):
    with pytest.raises(ValueError, match=message):
        plotting.overlay(torch.ones(3, 8, 8), weights)


def test_a_helper_draws_where_it_is_told():
    _, (left, right) = plt.subplots(1, 2)
    assert plotting.heatmap([[1.0]], ax=left) is left
    assert plotting.overlay(torch.ones(3, 4, 4), torch.ones(2, 2), ax=right) is right
