"""Pictures under sliders: linked in the browser, described for those who cannot see them."""

import base64
import io
import re

import ipywidgets
import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

matplotlib.use("agg")
import matplotlib.pyplot as plt

from utils.book import widgets

stacked = pytest.mark.skipif(
    not hasattr(ipywidgets, "Stack"),
    reason="ipywidgets 7 has no Stack: the kernel changes the picture.",
)


def alts(count, start=0):
    return [
        f"Coloured noise without any structure, drawing number {start + i}" for i in range(count)
    ]


def small(count):
    return list(torch.rand(count, 3, 32, 32))


def image_in(frame):
    """The picture that an HTML widget carries."""
    address = re.search(r'src="data:image/\w+;base64,([^"]+)"', frame.value)
    return Image.open(io.BytesIO(base64.b64decode(address[1])))


@stacked
def test_a_slider_holds_every_picture_with_label_and_alt_text():
    control, stack = widgets.slider(small(3), list("abc"), alts(3), "Layer").children
    assert control.description == "Layer"
    assert len(control.options) == len(stack.children) == 3
    for frame, label, alt in zip(stack.children, "abc", alts(3), strict=True):
        assert f'alt="{alt}"' in frame.value
        assert f">{label}</figcaption>" in frame.value


@stacked
def test_small_pictures_are_kept_pixel_for_pixel():
    pixels = (torch.rand(3, 32, 32) * 255).round() / 255
    _, stack = widgets.slider([pixels], ["a"], alts(1)).children
    kept = torch.tensor(np.array(image_in(stack.children[0])))  # [H, W, 3]
    assert torch.equal(kept, (pixels * 255).round().byte().permute(1, 2, 0))


@stacked
def test_pictures_are_scaled_down_to_the_width_and_never_up():
    _, stack = widgets.slider(
        [torch.rand(3, 100, 400), torch.rand(3, 60, 150)], "ab", alts(2), width=200
    ).children
    assert [image_in(frame).size for frame in stack.children] == [(200, 50), (150, 60)]


@stacked
def test_figures_are_drawn_to_the_width_and_closed():
    figure, _ = plt.subplots(figsize=(4, 2))
    _, stack = widgets.slider([figure], ["a"], alts(1), width=300).children
    assert image_in(stack.children[0]).size == (300, 150)
    assert not plt.fignum_exists(figure.number)


@stacked
def test_a_strip_of_line_drawings_stays_small():
    figure, ax = plt.subplots()
    ax.plot([0, 1, 0])
    _, stack = widgets.slider([figure], ["a"], alts(1)).children
    assert len(stack.children[0].value) < 40_000


@stacked
def test_labels_and_alt_texts_cannot_break_the_page():
    alt = 'A "quoted" shape < another one & so on, in forty characters'
    _, stack = widgets.slider(small(1), ["<b>"], [alt]).children
    assert "&lt;b&gt;</figcaption>" in stack.children[0].value
    assert 'alt="A &quot;quoted&quot; shape &lt; another one &amp; so on' in stack.children[0].value


@stacked
def test_two_sliders_hold_a_stack_of_stacks():
    pictures = [small(4), small(4)]
    labels = [[f"{row}{column}" for column in range(4)] for row in range(2)]
    box = widgets.two_sliders(pictures, labels, [alts(4), alts(4, 4)], ("Layer", "Head"))
    layer, head, table = box.children
    assert (len(layer.options), len(head.options)) == (2, 4)
    assert [len(row.children) for row in table.children] == [4, 4]
    assert ">12</figcaption>" in table.children[1].children[2].value


@stacked
def test_every_control_is_linked_in_the_browser_to_what_it_moves(monkeypatch):
    made = []
    monkeypatch.setattr(ipywidgets, "jslink", lambda source, target: made.append((source, target)))
    layer, head, table = widgets.two_sliders(
        [small(3), small(3)], [list("abc"), list("def")], [alts(3), alts(3, 3)]
    ).children
    assert ((layer, "index"), (table, "selected_index")) in made
    for row in table.children:
        assert ((head, "index"), (row, "selected_index")) in made


def test_without_stacks_the_kernel_changes_the_picture(monkeypatch):
    monkeypatch.delattr(ipywidgets, "Stack", raising=False)
    control, picture = widgets.slider(small(3), list("abc"), alts(3)).children
    assert ">a</figcaption>" in picture.value
    control.index = 2
    assert ">c</figcaption>" in picture.value


def test_without_stacks_two_sliders_pick_row_and_column(monkeypatch):
    monkeypatch.delattr(ipywidgets, "Stack", raising=False)
    labels = [list("abc"), list("def")]
    layer, head, picture = widgets.two_sliders(
        [small(3), small(3)], labels, [alts(3), alts(3, 3)]
    ).children
    head.index = 1
    layer.index = 1
    assert ">e</figcaption>" in picture.value


@pytest.mark.parametrize(
    ("pictures", "labels", "texts", "message"),
    [
        ([], [], [], "no pictures to show"),
        (small(2), ["a"], alts(2), "one label"),
        (small(2), ["a", "b"], alts(1), "one alt text"),
        (small(1), ["a"], ["A cat"], "'A cat' is too short.*40 characters"),
        (small(1), ["a"], [" " * 50], "too short"),
        (small(2), ["a", "b"], alts(1) * 2, "share the alt text.*say what differs"),
        ([torch.rand(1, 8, 8)], ["a"], alts(1), r"figure or of shape \[3, H, W\], not \[1, 8, 8\]"),
        ([torch.rand(3, 8, 8) * 255], ["a"], alts(1), "values from 0 to 1"),
        ([torch.full((3, 8, 8), float("nan"))], ["a"], alts(1), "values from 0 to 1"),
    ],
)
def test_a_slider_refuses_what_cannot_be_shown_or_described(pictures, labels, texts, message):
    with pytest.raises(ValueError, match=message):
        widgets.slider(pictures, labels, texts)


def test_two_sliders_refuse_rows_of_different_length():
    with pytest.raises(ValueError, match=r"equally many pictures, not \[1, 2\]"):
        widgets.two_sliders([small(1), small(2)], [["a"], ["b", "c"]], [alts(1), alts(2, 1)])
