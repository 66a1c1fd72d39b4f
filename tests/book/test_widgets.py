"""Pictures chosen by buttons: seen without a script, described for those who cannot see them."""

import base64
import io
import re
from urllib.parse import unquote
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

matplotlib.use("agg")
import matplotlib.pyplot as plt

from utils.book import widgets


def alts(count, start=0):
    return [
        f"Coloured noise without any structure, drawing number {start + i}" for i in range(count)
    ]


def small(count):
    return list(torch.rand(count, 3, 32, 32))


def markup(pictures, *arguments, **options):
    return widgets.choose(pictures, *arguments, **options)._repr_html_()


def image_in(text):
    """The first picture that a figure carries."""
    address = re.search(r'src="data:image/\w+;base64,([^"]+)"', text)
    return Image.open(io.BytesIO(base64.b64decode(address[1])))


def chart():
    figure, ax = plt.subplots(figsize=(4, 2))
    ax.plot([0, 1, 0])
    ax.set_title("<Gini & more>")
    return figure


def test_a_choice_holds_every_picture_with_caption_and_alt_text():
    text = markup(small(3), {"Layer": [1, 2, "last"]}, list("abc"), alts(3))
    assert "<legend>Layer</legend>" in text
    assert re.findall(r">([\w]+)</label>", text) == ["1", "2", "last"]
    for caption, alt in zip("abc", alts(3), strict=True):
        assert f'alt="{alt}"' in text
        assert f"<figcaption>{caption}</figcaption>" in text


def test_the_step_to_start_with_is_checked():
    text = markup(small(3), {"Layer": "abc"}, list("abc"), alts(3), start=[2])
    assert re.findall(r'value="(\d)" checked', text) == ["2"]
    assert re.findall(r'value="(\d)" checked', markup(small(1), {"a": "b"}, "c", alts(1))) == ["0"]


def test_each_pair_of_steps_shows_the_picture_of_its_row_and_column():
    pictures = [small(3), small(3)]
    captions = [[f"{row}{column}" for column in range(3)] for row in range(2)]
    text = markup(pictures, {"Layer": "ab", "Head": "xyz"}, captions, [alts(3), alts(3, 3)])
    key = re.search(r'id="(choose-\w+)"', text)[1]
    shown = dict(re.findall(r"#choose-\w+((?::has\([^)]*\)){2}) \.p(\d+)", text))
    assert len(shown) == 6
    for rule, place in shown.items():
        row, column = re.findall(r'\[value="(\d)"\]', rule)
        assert f'[name="{key}-0"]' in rule
        assert f'[name="{key}-1"]' in rule
        assert re.search(rf'class="p{place}".*?<figcaption>{row}{column}<', text)


def test_two_figures_of_a_page_do_not_share_their_buttons():
    first, second = (
        markup(small(2), {"Layer": "ab"}, list("ab"), alts(2, start)) for start in (0, 9)
    )
    assert re.search('name="(.+?)"', first)[1] != re.search('name="(.+?)"', second)[1]


def test_small_pictures_are_kept_pixel_for_pixel():
    pixels = (torch.rand(3, 32, 32) * 255).round() / 255
    kept = torch.tensor(np.array(image_in(markup([pixels], {"a": "b"}, "c", alts(1)))))  # [H, W, 3]
    assert torch.equal(kept, (pixels * 255).round().byte().permute(1, 2, 0))


@pytest.mark.parametrize(("shape", "size"), [((100, 400), (200, 50)), ((60, 150), (150, 60))])
def test_pictures_are_scaled_down_to_the_width_and_never_up(shape, size):
    text = markup([torch.rand(3, *shape)], {"a": "b"}, "c", alts(1), width=200)
    assert image_in(text).size == size


def test_a_chart_stays_lines_and_is_closed():
    figure = chart()
    text = markup([figure], {"a": "b"}, "c", alts(1))
    address = re.search(r'src="data:image/svg\+xml,([^"]+)"', text)[1]
    drawing = ElementTree.fromstring(unquote(address))
    assert drawing.tag.endswith("}svg")
    assert "<Gini & more>" in "".join(drawing.itertext())
    assert not plt.fignum_exists(figure.number)


def test_the_same_chart_is_the_same_text_each_time():
    first, second = (markup([chart()], {"a": "b"}, "c", alts(1)) for _ in range(2))
    assert first == second


def test_a_figure_that_shows_an_image_is_drawn_to_the_width_and_closed():
    figure, ax = plt.subplots(figsize=(4, 2))
    ax.imshow(torch.rand(8, 8).numpy())
    text = markup([figure], {"a": "b"}, "c", alts(1), width=300)
    assert image_in(text).size == (300, 150)
    assert not plt.fignum_exists(figure.number)


def test_names_captions_and_alt_texts_cannot_break_the_page():
    alt = 'A "quoted" shape < another one & so on, in forty characters'
    text = markup(small(1), {"<i>": ["<u>"]}, ["<b>"], [alt])
    assert "&lt;b&gt;</figcaption>" in text
    assert "&lt;i&gt;</legend>" in text
    assert "&lt;u&gt;</label>" in text
    assert 'alt="A &quot;quoted&quot; shape &lt; another one &amp; so on' in text


@pytest.mark.parametrize(
    ("pictures", "names", "captions", "texts", "message"),
    [
        ([], [], [], [], "no pictures to show"),
        (small(2), "ab", ["a"], alts(2), "one caption"),
        (small(2), "ab", ["a", "b"], alts(1), "one alt text"),
        (small(2), "abc", ["a", "b"], alts(2), r"Each step needs a name: \[2\] in all, not \[3\]"),
        (small(1), "a", ["a"], ["A cat"], "'A cat' is too short.*40 characters"),
        (small(1), "a", ["a"], [" " * 50], "too short"),
        (small(2), "ab", ["a", "b"], alts(1) * 2, "share the alt text.*say what differs"),
        ([torch.rand(1, 8, 8)], "a", ["a"], alts(1), r"of shape \[3, H, W\], not \[1, 8, 8\]"),
        ([torch.rand(3, 8, 8) * 255], "a", ["a"], alts(1), "values from 0 to 1"),
        ([torch.full((3, 8, 8), float("nan"))], "a", ["a"], alts(1), "values from 0 to 1"),
    ],
)
def test_a_choice_refuses_what_cannot_be_shown_or_described(
    pictures, names, captions, texts, message
):
    with pytest.raises(ValueError, match=message):
        widgets.choose(pictures, {"Step": names}, captions, texts)


def test_rows_of_unequal_length_and_steps_that_are_none_are_refused():
    with pytest.raises(ValueError, match="equally many pictures"):
        widgets.choose(
            [small(1), small(2)],
            {"a": "bc", "d": "ef"},
            [["a"], ["b", "c"]],
            [alts(1), alts(2, 1)],
        )
    for start in ([1], [0, 0]):
        with pytest.raises(ValueError, match="not one step for each of"):
            widgets.choose(small(1), {"a": "b"}, "c", alts(1), start=start)
    with pytest.raises(ValueError, match="one or two rows of buttons, not 3"):
        widgets.choose(small(1), {"a": "b", "c": "d", "e": "f"}, "c", alts(1))


def test_live_draws_what_is_chosen_where_a_kernel_runs(monkeypatch):
    monkeypatch.delenv("SEEING_SPARSELY_PAGES", raising=False)
    drawn = []
    controls = widgets.live(lambda head, layer: drawn.append((head, layer)), head="ab", layer=[3])
    controls.update()
    controls.children[0].value = "b"
    assert drawn[-1] == ("b", 3)
    assert ("a", 3) in drawn


def test_live_draws_the_first_choice_in_a_page(monkeypatch):
    monkeypatch.setenv("SEEING_SPARSELY_PAGES", "1")
    drawn = []
    assert widgets.live(lambda head: drawn.append(head), head=range(3, 6)) is None
    assert drawn == [3]


@pytest.mark.parametrize("choices", [{}, {"head": []}])
def test_live_refuses_what_leaves_nothing_to_choose(choices):
    with pytest.raises(ValueError, match="at least one value"):
        widgets.live(print, **choices)
