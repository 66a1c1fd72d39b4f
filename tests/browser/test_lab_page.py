"""The Lab's page in headless Chromium, against the library. Needs Chromium and a rendered book."""

import gzip
import io
import json
import re
from functools import cache

import numpy as np
import pytest
import torch
from helpers import axe
from helpers.rendered import PAGES, PATIENCE, need_current
from PIL import Image
from timm.data import create_transform

from utils.book import lab, lab_data
from utils.book.serve import served
from utils.measures.ablation.units import units_of
from utils.probes import Ablator
from utils.stimuli import objects

PAGE = "some/book/chapters/lab.html"  # below a path of its own
MOST = 1.2e6  # compressed bytes that the Lab may load, next to what every page loads
CLOSE = dict(rtol=0, atol=1e-4)
WRITTEN = 600  # milliseconds after which the address is of the last change (see view/link.js)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of the rendered Lab, served on this machine."""
    need_current()
    root = tmp_path_factory.mktemp("site")
    (root / "some").mkdir()
    (root / "some/book").symlink_to(PAGES, target_is_directory=True)
    with served(root) as address:
        yield f"{address}/{PAGE}"


@pytest.fixture
def visit(browser, address):
    """Open the Lab in a context of its own: at an address, in a size, with what is prepared."""
    contexts = []

    def open_lab(state="", width=1280, scheme="light", prepare=None, wait=True, **options):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **options
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        page.requested, page.errors = [], []
        page.on("request", lambda request: page.requested.append(request.url))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        if prepare:
            prepare(page)
        page.goto(f"{address}#{state}" if state else address, wait_until="load")
        if wait:
            page.locator(".lab-stage").first.wait_for()
        return page

    yield open_lab
    for context in contexts:
        context.close()


# Functions and no expressions: the policy of the page lets nobody evaluate a string.
IS_OWN = "() => document.querySelector('.lab-title').textContent === 'Your picture'"


def settled(page, words):
    """Wait until the networks' answers are spoken, with these words."""
    spoken = page.locator(".lab-news .lab-hidden").first
    page.wait_for_function(
        "([e, w]) => e.textContent.includes(w)", arg=[spoken.element_handle(), words]
    )


def shown(page, column, part="said"):
    """Probabilities in a column of bars, 0 to the left and 1 to the right."""
    cells = f".lab-{part} .lab-answers tbody td:nth-of-type({column + 1}) data"
    return np.array(page.eval_on_selector_all(cells, "list => list.map(e => Number(e.value))"))


def says(page, images, column=0, part="said"):
    """Wait until a column shows what a network makes of images [1, 3, 32, 32]."""
    role = ("vit", "cnn")[column]
    expected = getattr(lab_data.read(images), role)[0].numpy()
    page.wait_for_function(
        """([selector, expected]) => {
            const own = [...document.querySelectorAll(selector)].map(e => Number(e.value));
            return own.every((share, i) => Math.abs(share - expected[i]) < 1e-4);
        }""",
        arg=[
            f".lab-{part} .lab-answers tbody td:nth-of-type({column + 1}) data",
            expected.tolist(),
        ],
    )


def message(page):
    page.wait_for_function("() => document.querySelector('.lab-message')?.textContent")
    return page.locator(".lab-message").first.inner_text()


def is_sentence(text, *words):
    assert text.endswith("."), text
    assert text[0].isupper(), text
    for word in words:
        assert word in text


@cache
def about():
    folder = PAGES / "_static/lab/data"
    return json.loads((folder / "lab.json").read_text(encoding="utf-8"))


def picture(place):
    images, _ = lab_data.test_pictures()
    return images.images[place : place + 1], int(images.index[place])


# What is seen.


def test_before_the_first_action_it_shows_true_answers_and_has_fetched_no_weights(visit):
    page = visit()
    page.wait_for_load_state("networkidle")
    image, number = picture(lab_data.first())
    found = lab_data.read(image)
    np.testing.assert_allclose(shown(page, 0), found.vit[0], **CLOSE)
    np.testing.assert_allclose(shown(page, 1), found.cnn[0], **CLOSE)
    assert f"Picture {number}:" in page.locator(".lab-title").inner_text()
    assert not any("safetensors" in url for url in page.requested)
    assert page.errors == []


def test_the_first_picture_is_one_that_both_networks_name_rightly_if_there_is_one():
    images, labels = lab_data.test_pictures()
    found = lab_data.read(images.images)
    right = (found.vit.argmax(1) == labels) & (found.cnn.argmax(1) == labels)
    assert bool(right[lab_data.first()]) == bool(right.any())


def test_pictures_get_the_probabilities_of_pytorch(visit):
    page = visit()
    cells = page.get_by_role("grid", name="Test pictures").get_by_role("gridcell")
    assert cells.count() == 10 * lab_data.EACH
    for place in (3, 17):
        cells.nth(place).click()
        for column in (0, 1):
            says(page, picture(place)[0], column)
    page.get_by_role("button", name="Next").click()
    says(page, picture(18)[0])
    page.get_by_role("button", name="Previous").click()
    says(page, picture(17)[0])


def test_shape_and_texture_are_mixed_as_the_library_mixes_them(visit):
    page = visit()
    page.get_by_role("tab", name="Mix").click()
    page.get_by_label("Shape of").select_option(label=objects.SHAPES[4])
    mixed = lab_data.mixed_pictures()
    page.get_by_label("texture of").select_option(label=objects.TEXTURES[7])
    says(page, mixed.images[47:48])
    assert (int(mixed.shape[47]), int(mixed.texture[47])) == (4, 7)
    page.get_by_role("grid", name="Shapes in rows").get_by_role("gridcell").nth(58).click()
    says(page, mixed.images[58:59], 1)


def test_a_mix_begins_with_the_shape_and_the_texture_of_the_picture(visit):
    page = visit(f"picture={picture(17)[1]}")
    page.get_by_role("tab", name="Mix").click()
    images, mixed = lab_data.test_pictures()[0], lab_data.mixed_pictures()
    shape, texture = int(images.shape[17]), int(images.texture[17])
    assert page.get_by_label("Shape of").input_value() == str(shape)
    assert page.get_by_label("texture of").input_value() == str(texture)
    other = (texture + 1) % 10
    page.get_by_label("texture of").select_option(str(other))
    place = 10 * shape + other
    says(page, mixed.images[place : place + 1])


def test_the_map_is_of_the_layer_head_and_patch_that_are_chosen(visit):
    page = visit(f"picture={picture(5)[1]}&layer=2&head=3&patch=12")
    settled(page, "says")
    attention = lab_data.read(picture(5)[0]).attention[0, 1, 2, 12, 1:]
    row, column = divmod(int(attention.argmax()), 8)
    named = page.locator(".lab-looks figure:nth-child(2) [role=img]").get_attribute("aria-label")
    assert f"with {float(attention.max()):.3f}, to row {row + 1}, column {column + 1}" in named
    chosen = page.locator(".lab-heads [aria-selected=true]")
    assert chosen.get_attribute("aria-label") == "layer 2, head 3"


def test_a_patch_that_is_pointed_at_or_focused_says_to_which_it_attends_most(visit):
    page = visit(f"picture={picture(5)[1]}&layer=2&head=3")
    settled(page, "says")
    attention = lab_data.read(picture(5)[0]).attention[0, 1, 2, 1:, 1:]

    def expected(patch):
        most = float(attention[patch].max())
        row, column = divmod(int(attention[patch].argmax()), 8)
        return (
            f"the patch in row {patch // 8 + 1}, column {patch % 8 + 1} attends most, with "
            f"{most:.3f}, to row {row + 1}, column {column + 1}."
        )

    patches = page.get_by_role("grid", name="Patches of the picture").get_by_role("gridcell")
    patches.nth(20).hover()
    assert expected(20) in page.locator(".lab-looks").inner_text()
    settled(page, expected(20))
    page.mouse.move(0, 0)
    patches.nth(20).focus()
    page.keyboard.press("ArrowDown")
    assert expected(28) in page.locator(".lab-looks").inner_text()
    settled(page, expected(28))


def test_the_evidence_is_for_the_class_that_is_chosen_until_the_picture_changes(visit):
    def shows(page, place, label):
        image = page.get_by_role("img", name="Evidence of the ResNet for")
        asked = f"Evidence of the ResNet for {objects.SHAPES[label]},"
        page.get_by_role("img", name=asked).wait_for()
        total = float(lab_data.read(picture(place)[0]).evidence[0, label].sum())
        figure = page.locator("figure").filter(has=image)
        assert f"{total:.1f}".replace("-", "−") + " in all" in figure.inner_text()

    page = visit(f"picture={picture(3)[1]}")
    settled(page, "says")
    answers = [int(lab_data.read(picture(place)[0]).cnn.argmax()) for place in (3, 4)]
    shows(page, 3, answers[0])
    other = (answers[0] + 1) % 10
    page.get_by_label("Evidence for").select_option(label=objects.SHAPES[other])
    shows(page, 3, other)
    page.wait_for_function("() => location.hash.includes('evidence=')")
    shows(visit(page.url.split("#")[1]), 3, other)
    page.get_by_role("button", name="Next").click()
    shows(page, 4, answers[1])
    assert page.get_by_label("Evidence for").input_value() == ""


def ablated(image, layers, k, value):
    """The library's own: probabilities [10], KL in nats, without the top k of every head."""
    vit = lab_data.networks()["vit"]
    units = units_of(vit, layers, "attention")
    specs = []
    for layer, found in units.read(image).items():
        top = found.scores.argsort(dim=-1, descending=True, stable=True)[..., :k]
        shares = torch.zeros_like(found.scores).scatter(-1, top, 1.0)
        specs.append(units.spec(layer, shares, value))
    with torch.no_grad():
        intact = vit(image)[0].double().log_softmax(-1)
    after = Ablator(vit).run(image, [specs])[0, 0].double().log_softmax(-1)
    return after.exp().numpy(), float((intact.exp() * (intact - after)).sum())


@pytest.mark.parametrize(
    ("scope", "layers", "k", "value"),
    [("all", "blocks.*.attn", 5, "zero"), ("block", "blocks.2.attn", 20, "renormalise")],
)
def test_an_ablation_shows_the_probabilities_and_kl_of_the_library(visit, scope, layers, k, value):
    image, number = picture(3)
    name = lab_data.NETWORKS["vit"]
    page = visit(f"picture={number}&layer=3&net={name}&scope={scope}&order=top&k={k}&value={value}")
    settled(page, "After the ablation")
    expected, kl = ablated(image, layers, k, value)
    np.testing.assert_allclose(shown(page, 1, "removal"), expected, **CLOSE)
    own = float(page.locator(".lab-numbers data").get_attribute("value"))
    assert own == pytest.approx(kl, abs=2e-4)
    slider = page.get_by_role("slider", name="How many")
    assert slider.get_attribute("aria-valuetext") == f"{k} of 64 patches"


def test_every_order_value_and_scope_can_be_chosen_and_changes_the_result(visit):
    page = visit(f"picture={picture(3)[1]}&net={lab_data.NETWORKS['vit']}&k=45")
    settled(page, "After the ablation")
    seen = set()
    for label, count in (("these", 7), ("and put in", 3), ("take from", 3)):
        control = page.get_by_label(label, exact=True)
        if label != "these":
            page.get_by_label("these", exact=True).select_option("top")
        options = control.locator("option").evaluate_all("list => list.map(o => o.value)")
        assert len(options) == count
        for option in options:
            control.select_option(option)
            page.wait_for_timeout(300)
            seen.add(page.locator(".lab-numbers").inner_text())
    assert len(seen) == 7 + 3 + 3 - 2  # the strongest, set to zero, and all blocks come twice
    assert page.errors == []
    assert page.locator(".lab-message").inner_text() == ""


def test_patches_that_are_clicked_go(visit):
    page = visit(f"picture={picture(3)[1]}")
    settled(page, "says")
    page.get_by_label("these", exact=True).select_option("chosen")
    cells = page.get_by_role("grid", name="Patches to take away").get_by_role("gridcell")
    cells.nth(27).click()
    cells.nth(28).click()
    settled(page, "After the ablation")
    page.wait_for_function("() => location.hash.includes('patches=28.29')")
    assert "taken away" in cells.nth(28).get_attribute("aria-label")
    cells.nth(28).click()
    page.wait_for_function("() => location.hash.endsWith('patches=28')")


def test_put_all_back_leaves_what_else_is_chosen(visit):
    chosen = {"take from": "block", "these": "bottom", "and put in": "uniform"}
    page = visit(
        f"picture={picture(3)[1]}&net={lab_data.NETWORKS['vit']}"
        "&scope=block&order=bottom&value=uniform&k=9"
    )
    taken = page.locator(".lab-numbers data")
    taken.wait_for()
    page.get_by_role("button", name="Put all back").click()
    taken.wait_for(state="detached")
    assert page.get_by_role("slider", name="How many").input_value() == "0"
    found = {label: page.get_by_label(label, exact=True).input_value() for label in chosen}
    assert found == chosen
    page.get_by_label("these", exact=True).select_option("permuted")
    taken.wait_for()
    page.get_by_role("button", name="Put all back").click()
    taken.wait_for(state="detached")


def test_places_of_the_cnn_go_layer_by_layer(visit):
    page = visit(f"picture={picture(3)[1]}")
    page.get_by_role("radio", name="ResNet").check()
    page.get_by_label("take from", exact=True).select_option(label="stem (32 × 32)")
    slider = page.get_by_role("slider", name="How many")
    slider.focus()
    slider.press("End")
    settled(page, "After the ablation the ResNet")
    assert slider.get_attribute("aria-valuetext") == "1,024 of 1,024 places"
    assert "scope=act1" in page.url


def test_the_curve_is_drawn_and_can_be_stopped(visit):
    page = visit(f"picture={picture(3)[1]}")
    settled(page, "says")
    page.get_by_role("button", name="Draw the curve").click()
    page.locator(".lab-line[data-order=bottom]").last.wait_for(state="attached")
    page.get_by_role("button", name="Stop").click()
    settled(page, "The curve was stopped.")
    assert page.locator(".lab-points tbody tr").count() < 17
    page.get_by_role("button", name="Draw the curve").click()
    settled(page, "The curve is drawn.")
    page.get_by_text("The numbers", exact=True).click()
    rows = page.locator(".lab-points tbody tr")
    assert rows.count() == 17
    _, kl = ablated(picture(3)[0], "blocks.*.attn", 8, "zero")
    row = rows.filter(has=page.get_by_role("rowheader", name="8", exact=True))
    assert float(row.locator("td").first.inner_text()) == pytest.approx(kl, abs=1e-3)


def test_a_curve_stays_while_heads_that_it_does_not_depend_on_are_looked_at(visit):
    page = visit(f"picture={picture(3)[1]}")
    page.get_by_role("button", name="Draw the curve").click()
    settled(page, "The curve is drawn.")
    page.get_by_role("gridcell", name="layer 1, head 1").click()
    page.wait_for_function("() => location.hash.includes('layer=1&head=1')")
    assert page.locator(".lab-curve > svg").is_visible()
    page.get_by_label("take from", exact=True).select_option("head")
    assert page.locator(".lab-curve > svg").is_hidden()


def test_another_picture_can_be_had_next_to_every_result(visit):
    page = visit(f"picture={picture(3)[1]}")
    settled(page, "says")
    for place, part in enumerate((".lab-looks", ".lab-gone"), start=4):
        page.locator(part).get_by_role("button", name="Another picture").click()
        says(page, picture(place)[0])


def test_only_the_vit_has_attention_to_match(visit):
    page = visit()
    options = page.get_by_label("these", exact=True).locator("option")
    for network, what in (("ViT", "attention"), ("ResNet", "response")):
        page.get_by_role("radio", name=network).check()
        matched = options.filter(has_text="random, of equal").all_inner_texts()
        assert matched == [f"random, of equal {what}"]


def _y(page, name):
    return page.get_by_role("button", name=name).bounding_box()["y"]


@pytest.mark.parametrize("width", [1280, 400])
def test_what_is_clicked_keeps_its_place_whatever_the_page_has_to_say(visit, width):
    waiting = []
    page = visit(
        width=width,
        prepare=lambda page: page.route("**/*.safetensors", lambda route: waiting.append(route)),
    )
    page.wait_for_load_state("networkidle")
    page.get_by_role("button", name="Next").scroll_into_view_if_needed()
    y = _y(page, "Next")
    page.get_by_role("button", name="Next").click()
    assert "Fetching" in message(page)
    assert _y(page, "Next") == pytest.approx(y, abs=1)
    while len(waiting) < 2:
        page.wait_for_timeout(20)
    for route in waiting:
        route.continue_()
    says(page, picture(lab_data.first() + 1)[0])
    assert _y(page, "Next") == pytest.approx(y, abs=1)
    for number, *_ in about()["pictures"][2:]:  # titles of two lines, and warnings
        page.get_by_role("button", name="Next").click()
        page.wait_for_function(
            f"() => document.querySelector('.lab-title').textContent.includes('{number}:')"
        )
        assert _y(page, "Next") == pytest.approx(y, abs=1), number


# The guided steps.


def test_there_are_six_steps_each_with_a_state_or_a_word_that_there_is_none(visit):
    page = visit()
    assert page.locator(".lab-steps > li").count() == 6
    assert page.locator(".lab-steps a").count() == sum(bool(s["state"]) for s in about()["steps"])
    for step in about()["steps"]:
        assert step["state"] or step["found"].startswith(("None", "In no"))


@pytest.mark.parametrize("number", range(6))
def test_the_state_of_a_step_shows_what_the_step_says(visit, number):
    step = about()["steps"][number]
    if not step["state"]:
        pytest.skip("no picture keeps to the rule of this step")
    page = visit()
    item = page.locator(".lab-steps > li").nth(number)
    item.locator("summary").first.click()
    item.locator("summary").last.click()
    item.get_by_role("link").click()
    facts = step["facts"]
    if "kl" in facts:
        settled(page, "After the ablation")
        own = float(page.locator(".lab-numbers data").get_attribute("value"))
        assert own == pytest.approx(facts["kl"], abs=1e-3)
        before, after = (shown(page, side, "removal").argmax() for side in (0, 1))
        assert (before != after) == facts["changed"]
    elif "vit" in facts:
        settled(page, "says")
        assert [shown(page, side).argmax() for side in (0, 1)] == [facts["vit"], facts["cnn"]]
    else:
        settled(page, "says")
        chosen = page.locator(".lab-heads [aria-selected=true]").get_attribute("aria-label")
        assert chosen == f"layer {facts['layer'] + 1}, head {facts['head'] + 1}"


def test_a_step_says_in_how_many_pictures_it_is_as_in_the_one_that_it_shows():
    images, labels = lab_data.test_pictures()
    before = lab_data.read(images.images).vit.argmax(1)
    right = (before == labels).nonzero()[:, 0].tolist()
    lost = sum(
        ablated(images.images[i : i + 1], "blocks.*.attn", 3, "zero")[0].argmax() != before[i]
        for i in right
    )
    found = about()["steps"][0]["found"]
    assert f"{lost} of the {len(right)} pictures that the ViT names rightly" in found


def test_the_first_step_says_how_many_patches_of_a_head_go_and_how_many_stay():
    first = about()["steps"][0]
    gone, stay = re.search(r"the (\d+) patches .* the other (\d+)", first["task"]).groups()
    assert f"k={gone}" in first["state"].split("&")
    assert int(gone) + int(stay) == about()["networks"]["vit"]["side"] ** 2


# Drawing, and pictures of one's own.


@pytest.mark.parametrize("above", [60, 300])  # the sheet, in pixels
def test_a_message_does_not_lie_on_the_sheet_that_is_drawn_on(visit, above):
    waiting = []
    page = visit(
        width=400, prepare=lambda page: page.route("**/*.safetensors", lambda r: waiting.append(r))
    )
    page.get_by_role("tab", name="Draw").click()
    board = page.locator(".lab-shown .lab-picture")
    board.evaluate("(e, y) => scrollBy(0, e.getBoundingClientRect().top - y)", above)
    board.click()
    assert "Fetching" in message(page)
    shown, sheet = (part.bounding_box() for part in (page.locator(".lab-message"), board))
    assert 0 < shown["y"] < 900 - shown["height"]
    assert shown["y"] + shown["height"] <= sheet["y"] or shown["y"] >= sheet["y"] + sheet["height"]


def test_what_is_drawn_is_in_the_link_and_can_be_taken_back(visit):
    page = visit()
    page.get_by_role("tab", name="Draw").click()
    board = page.locator(".lab-shown .lab-picture")
    box = board.bounding_box()
    page.get_by_role("radio", name="red").check(force=True)
    page.mouse.move(box["x"] + 40, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 150, box["y"] + 180, steps=4)
    page.mouse.up()
    settled(page, "says")
    page.wait_for_function("() => location.hash.includes('strokes=3')")
    page.wait_for_timeout(500)
    drawn = shown(page, 0)
    again = visit(page.url.split("#")[1])
    settled(again, "says")
    np.testing.assert_allclose(shown(again, 0), drawn, **CLOSE)
    page.get_by_role("button", name="Take back").click()
    says(page, picture(lab_data.first())[0])
    assert "strokes" not in page.url


def test_the_keyboard_draws(visit):
    page = visit()
    page.get_by_role("tab", name="Draw").press("Enter")
    page.get_by_role("button", name="Empty sheet").press("Enter")
    board = page.get_by_role("application")
    board.focus()
    for key in ("Space", "ArrowRight", "ArrowDown", "Space"):
        board.press(key)
    page.wait_for_function("() => location.hash.includes('strokes=01gg.01hh')")
    board.press("Backspace")
    page.wait_for_function("() => !location.hash.includes('hh')")
    assert "picture=blank" in page.url


def test_a_browser_that_limits_changes_of_the_address_does_not_stop_the_slider(visit):
    def limited(page):  # as Safari does
        page.add_init_script(
            """const replace = history.replaceState.bind(history);
            const times = [];
            history.replaceState = (...state) => {
                times.push(performance.now());
                if (times.length > 100 && times.at(-1) - times.at(-101) < 30000)
                    throw new DOMException("too many", "SecurityError");
                replace(...state);
            };"""
        )

    page = visit(prepare=limited)
    page.get_by_role("slider", name="How many").evaluate(
        """slider => {
            for (let i = 0; i <= 300; i++) {
                slider.value = i % 64;
                slider.dispatchEvent(new Event("input", { bubbles: true }));
            }
        }"""
    )
    settled(page, "After the ablation")
    assert page.errors == []
    assert page.locator(".lab-slider output").inner_text() == "44 of 64 patches"
    page.wait_for_function("() => location.hash.endsWith('k=44')")


def test_a_drawing_that_no_link_can_hold_goes_on_once_something_is_taken_back(visit):
    page = visit(f"picture=blank&strokes={'.'.join(['01' + 'gg' * 332] * 6)}")
    settled(page, "says")
    board = page.get_by_role("application")
    board.focus()
    for _ in range(5):
        board.press("Space")
    is_sentence(message(page), "take something back")
    page.get_by_role("button", name="Take back").click()
    assert page.locator(".lab-message").inner_text() == ""


def _file(image, kind="png"):
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def bring(page, name, content):
    page.get_by_role("tab", name="Your own").click()
    page.locator("input[type=file]").set_input_files(
        {"name": name, "mimeType": "image/png", "buffer": content}
    )


def test_a_picture_of_the_readers_is_prepared_as_by_timm_and_leaves_nothing_on_the_wire(visit):
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (90, 70, 3), np.uint8))
    page = visit(f"picture={picture(3)[1]}")
    settled(page, "says")
    page.wait_for_load_state("networkidle")
    before = len(page.requested)
    bring(page, "noise.png", _file(image))
    prepare = create_transform((3, 32, 32), interpolation="bilinear", crop_pct=1, mean=0, std=1)
    says(page, prepare(image).unsqueeze(0))
    assert "Unlike the pictures" in page.locator(".lab-warning").inner_text()
    others = [url for url in page.requested[before:] if not url.endswith("favicon.svg")]
    assert others == []
    assert "picture=own" in page.url


def test_a_picture_of_twenty_megapixels_works(visit):
    page = visit()
    bring(page, "large.jpg", _file(Image.new("RGB", (5400, 3800), (90, 120, 60)), "jpeg"))
    settled(page, "says")
    assert page.locator(".lab-title").inner_text() == "Your picture"


@pytest.mark.parametrize("place", [".lab-drop", ".lab-shown .lab-picture", ".lab-answers"])
def test_a_picture_can_be_dropped_anywhere(visit, place):
    page = visit()
    content = list(_file(Image.new("RGB", (40, 40), (200, 30, 30))))
    data = page.evaluate_handle(
        """bytes => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], "red.png", { type: "image/png" }));
            return transfer;
        }""",
        content,
    )
    page.locator(place).first.dispatch_event("drop", {"dataTransfer": data})
    page.wait_for_function(IS_OWN)
    assert page.get_by_role("tab", name="Your own").get_attribute("aria-selected") == "true"


def test_the_way_back_leads_to_the_reader_s_picture_while_the_page_has_it(visit):
    page = visit()
    red = Image.new("RGB", (40, 40), (200, 30, 30))
    bring(page, "red.png", _file(red))
    page.wait_for_function("() => location.hash.includes('picture=own')")
    page.evaluate(f"location.hash = 'picture={picture(7)[1]}'")
    says(page, picture(7)[0])
    page.go_back()
    page.wait_for_function(IS_OWN)
    assert page.locator(".lab-message").inner_text() == ""
    page.wait_for_timeout(WRITTEN)
    page.reload()
    is_sentence(message(page), "never left their page")


# Links.


def test_a_copied_link_brings_the_state_back(visit, address):
    origin = address.split("/some/")[0]
    page = visit(
        f"mix=heart.{objects.TEXTURES[2]}&layer=2&head=1",
        prepare=lambda page: page.context.grant_permissions(
            ["clipboard-read", "clipboard-write"], origin=origin
        ),
    )
    settled(page, "says")
    slider = page.get_by_role("slider", name="How many")
    slider.fill("12")
    settled(page, "After the ablation")
    page.get_by_role("button", name="Copy link").click()
    page.get_by_text("Copied.").wait_for()
    copied = page.evaluate("navigator.clipboard.readText()")
    for part in (
        f"net={lab_data.NETWORKS['vit']}",
        "layer=2",
        "head=1",
        "order=top",
        "k=12",
        "mix=",
    ):
        assert part in copied
    again = visit(copied.split("#")[1])
    settled(again, "After the ablation")
    np.testing.assert_allclose(
        shown(again, 1, "removal"), shown(page, 1, "removal"), rtol=0, atol=1e-6
    )


def test_a_link_that_names_a_patch_twice_takes_it_once(visit):
    page = visit(f"picture={picture(3)[1]}&order=chosen&patches=9.3.9")
    settled(page, "After the ablation")
    page.wait_for_function("() => location.hash.endsWith('patches=3.9')")


def test_another_address_on_the_open_page_is_followed(visit):
    page = visit()
    number = picture(7)[1]
    page.evaluate(f"location.hash = 'picture={number}&layer=1&head=2'")
    says(page, picture(7)[0])
    chosen = page.locator(".lab-heads [aria-selected=true]")
    assert chosen.get_attribute("aria-label") == "layer 1, head 2"


@pytest.mark.parametrize(
    "state",
    [
        "picture=99999",
        "layer=40",
        "k=65",
        "k=-1",
        "order=upwards",
        "net=vit-d99",
        "mix=heart",
        "strokes=9",
        "dance=1",
        "picture=own",
        "nonsense",
        "patches=1.1000&order=chosen",
    ],
)
def test_a_wrong_address_gives_a_sentence_and_the_page_as_it_opens(visit, state):
    page = visit(state)
    is_sentence(message(page), "This link", "here is the Lab as it opens")
    image, number = picture(lab_data.first())
    np.testing.assert_allclose(shown(page, 0), lab_data.read(image).vit[0], **CLOSE)
    assert f"Picture {number}:" in page.locator(".lab-title").inner_text()
    assert page.errors == []


# What is broken.


def _broken(how):
    def prepare(page):
        page.route(f"**/{lab_data.NETWORKS['vit']}.safetensors", how)

    return prepare


def _truncated(route):
    route.fulfill(body=route.fetch().body()[:1000])


BROKEN = {
    "truncated": _truncated,
    "of another network": lambda route: route.fulfill(body=b"x" * 100),
    "missing": lambda route: route.fulfill(status=404, body=""),
    "out of reach": lambda route: route.abort(),
}


@pytest.mark.parametrize("case", BROKEN)
def test_weights_that_cannot_be_used_are_said_and_the_other_network_goes_on(visit, case):
    page = visit(prepare=_broken(BROKEN[case]))
    page.get_by_role("button", name="Next").click()
    image = picture(lab_data.first() + 1)[0]
    says(page, image, 1)
    is_sentence(message(page), lab_data.NETWORKS["vit"], "reload the page")
    assert page.locator(".lab-said tbody td:first-child").first.inner_text() == "–"
    page.unroute_all()
    page.get_by_role("button", name="Previous").click()
    says(page, picture(lab_data.first())[0])


def test_without_scripts_the_recorded_figure_stands_there_with_a_sentence(visit):
    page = visit(java_script_enabled=False, wait=False)
    alt = page.locator(".lab-still img").get_attribute("alt")
    assert "says" in alt
    assert page.locator(".lab-still img").is_visible()
    assert "it needs scripts" in page.locator(".lab-still p").inner_text()
    assert page.locator(".lab-steps > li").count() == 6


def test_opened_from_a_file_the_page_says_what_to_do(browser, address):
    page = browser.new_page()
    page.goto((PAGES / "chapters/lab.html").as_uri())
    assert "make serve" in page.locator(".lab-still p").inner_text()
    assert page.locator(".lab-still img").is_visible()
    page.close()


def test_without_what_was_made_for_it_the_lab_says_that_it_could_not_start(visit):
    def prepare(page):
        page.route("**/lab.json", lambda route: route.fulfill(status=404, body=""))

    page = visit(prepare=prepare, wait=False)
    is_sentence(message(page), "could not start", "reload the page")
    assert page.locator(".lab-still img").is_visible()


def test_a_browser_without_workers_computes_in_the_page_and_says_so(visit):
    page = visit(prepare=lambda page: page.add_init_script("delete window.Worker"))
    page.get_by_role("button", name="Next").click()
    says(page, picture(lab_data.first() + 1)[0])
    is_sentence(message(page), "no thread")


def test_a_file_that_is_no_picture_is_said(visit):
    page = visit()
    bring(page, "notes.png", b"these are no pixels")
    is_sentence(message(page), "notes.png", "cannot be read as a picture")
    page.get_by_role("tab", name="Choose").click()
    page.get_by_role("button", name="Next").click()
    says(page, picture(lab_data.first() + 1)[0])
    assert page.locator(".lab-message").inner_text() == ""


def test_offline_after_loading_everything_goes_on(visit):
    page = visit(f"picture={picture(3)[1]}")
    settled(page, "says")
    page.context.set_offline(True)
    page.get_by_role("button", name="Next").click()
    says(page, picture(4)[0])
    page.get_by_role("slider", name="How many").fill("20")
    settled(page, "After the ablation")
    page.get_by_role("tab", name="Mix").click()
    is_sentence(message(page), "could not be fetched")


def test_offline_before_loading_is_said(visit):
    page = visit()
    page.wait_for_load_state("networkidle")
    page.context.set_offline(True)
    page.get_by_role("button", name="Next").click()
    page.wait_for_function(
        "() => document.querySelector('.lab-message').textContent.includes('reload the page')"
    )
    is_sentence(message(page), "could not")


# For everyone.


@pytest.mark.parametrize("tab", ["Choose", "Mix", "Draw", "Your own"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_axe_finds_nothing(visit, tab, width, scheme):
    state = f"picture={picture(3)[1]}&net={lab_data.NETWORKS['vit']}&order=chosen&patches=9&patch=3"
    page = visit(state, width=width, scheme=scheme)
    settled(page, "After the ablation")
    page.get_by_role("tab", name=tab).click()
    unfold(page)
    for summary in page.locator(".lab-steps summary").all():
        if summary.is_visible():
            summary.click()
    found = axe.violations(page, {"target-size": True})
    own = {rule: [one for one in targets if "lab" in one] for rule, targets in found.items()}
    assert {rule: targets for rule, targets in own.items() if targets} == {}


def unfold(page):
    """Open what is folded on a phone."""
    folded = page.locator(".lab-part:not([open]) > summary")
    while folded.count():
        folded.first.press("Enter")


def test_a_phone_shows_picture_and_answers_first_and_folds_the_rest(visit):
    page = visit(width=400)
    found = lab_data.read(picture(lab_data.first())[0])
    for role, name in lab.NAMES.items():
        probabilities = getattr(found, role)[0]
        line = page.locator(f".lab-brief[data-role={role}]")
        shape = objects.SHAPES[int(probabilities.argmax())]
        assert line.inner_text().startswith(f"{name}: {shape}, ")
        assert line.bounding_box()["y"] < 600
    headings = page.locator(".lab-part:not([open]) h2").all_inner_texts()
    assert headings == ["Six things to find", "Where they look", "Take something away"]
    unfold(page)
    page.get_by_role("slider", name="How many").wait_for()


@pytest.mark.parametrize(("state", "part"), [("order=top&k=3", "gone"), ("patch=9", "looks")])
def test_a_link_opens_what_it_is_about_on_a_phone(visit, state, part):
    page = visit(f"picture={picture(3)[1]}&{state}", width=400)
    assert page.locator(f".lab-{part}").evaluate("e => e.open")
    other = visit(width=400)
    assert not other.locator(f".lab-{part}").evaluate("e => e.open")
    other.evaluate(f"location.hash = 'picture={picture(3)[1]}&{state}'")
    other.locator(f".lab-{part}[open]").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("tab", ["Choose", "Mix", "Draw", "Your own"])
def test_the_smallest_phone_holds_it(visit, scheme, tab):
    page = visit(f"picture={picture(3)[1]}&order=chosen", width=320, scheme=scheme)
    page.get_by_role("tab", name=tab).click()
    unfold(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    targets = page.locator(".lab :is(button, select, summary, input[type=range])").all()
    for target in targets:
        if target.is_visible():
            box = target.bounding_box()
            assert min(box["width"], box["height"]) >= 24, target.evaluate("e => e.outerHTML")


def test_the_keyboard_reaches_and_works_everything(visit):
    page = visit()
    grid = page.get_by_role("grid", name="Test pictures")
    page.get_by_role("tab", name="Choose").focus()
    page.keyboard.press("Tab")
    assert grid.evaluate("e => e.contains(document.activeElement)")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    says(page, picture(11)[0])
    stops = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        stops.add(
            page.evaluate(
                """() => { const e = document.activeElement;
                return e.closest("[role=grid]")?.ariaLabel ?? e.textContent.slice(0, 20)
                    ?? e.ariaLabel; }"""
            )
        )
    for name in (
        "Heads in rows, layers in columns: choose",
        "Draw the curve",
        "Copy link to this s",
    ):
        assert any(stop.startswith(name) for stop in stops), name
    heads = page.get_by_role("grid", name="Heads in rows")
    heads.get_by_role("gridcell", selected=True).focus()
    page.keyboard.press("Home")
    page.keyboard.press("PageUp")
    page.keyboard.press("Enter")
    page.wait_for_function("() => location.hash.includes('layer=1&head=1')")
    page.get_by_role("tab", name="Choose").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="Mix").get_attribute("aria-selected") == "true"


def test_what_has_the_focus_is_ringed(visit):
    page = visit()
    for role, name in (("tab", "Mix"), ("button", "Next"), ("slider", "How many")):
        target = page.get_by_role(role, name=name).first
        page.keyboard.press("Tab")  # so that the focus is the keyboard's
        target.focus()
        width = target.evaluate("e => parseFloat(getComputedStyle(e).outlineWidth)")
        style = target.evaluate("e => getComputedStyle(e).outlineStyle")
        assert width >= 2, name
        assert style != "none", name


# In chapters.


@pytest.mark.parametrize("kind", lab.KINDS)
def test_a_figure_of_a_chapter_comes_to_life_and_stays_recorded_elsewhere(visit, kind):
    image, number = picture(4)  # not the one that the Lab opens with
    figure = lab.figure(kind, picture=number)
    markup = figure._repr_html_()
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert len(figure.alt) >= 40
    scripts = (
        '<link rel="stylesheet" href="../_static/lab/view/lab.css">'
        '<script type="module" src="../_static/lab/view/start.js"></script>'
    )

    def prepare(page):
        content = f'<!doctype html><html lang="en"><title>x</title>{scripts}{markup}{markup}'
        page.route(
            "**/lab.html", lambda route: route.fulfill(body=content, content_type="text/html")
        )

    page = visit(prepare=prepare)
    page.locator(".lab-stage").nth(1).wait_for()
    assert not any("safetensors" in url for url in page.requested)
    first = page.locator(".lab-stage").first
    edges = first.locator("> *").evaluate_all("l => l.map(e => e.getBoundingClientRect().x)")
    assert len(set(edges)) == 1  # in one column, with the place for messages
    if kind in ("both", "teaser"):
        recorded = first.locator(".lab-answers td:first-child data").evaluate_all(
            "list => list.map(e => Number(e.value))"
        )
        np.testing.assert_allclose(recorded, lab_data.read(image).vit[0], **CLOSE)
        first.get_by_role("button", name="Next").click()
        settled(page, "says")
    elif kind == "attention":
        first.get_by_role("gridcell", name="patch in row 4, column 4").hover()
        settled(page, "says")
    else:
        expected, kl = ablated(image, "blocks.*.attn", 8, "zero")
        after = first.locator(".lab-answers td:last-child data").evaluate_all(
            "list => list.map(e => Number(e.value))"
        )
        np.testing.assert_allclose(after, expected, **CLOSE)
        own = first.locator(".lab-numbers data").get_attribute("value")
        assert float(own) == pytest.approx(kl, abs=2e-4)
        assert first.get_by_role("slider").get_attribute("aria-valuetext") == "8 of 64 patches"
        first.get_by_role("slider").fill("30")
        settled(page, "After the ablation")
    assert len({url for url in page.requested if "safetensors" in url}) == 2
    assert "lab.html#picture=" in first.get_by_role("link").get_attribute("href")
    assert page.errors == []


def test_the_patches_that_a_figure_takes_are_the_strongest_of_the_head_that_it_shows():
    figure = lab.figure("ablation", picture=picture(4)[1], layer=2, head=3, k=5)
    _, taken, *others = figure.view["ablated"]["changes"]
    gone = np.array(taken["shares"]).reshape(4, 65)
    attention = lab_data.read(picture(4)[0]).attention[0, 1, 2, 0, 1:]
    assert set(gone[2].nonzero()[0] - 1) == set(attention.topk(5).indices.tolist())
    assert gone.sum(1).tolist() == [5] * 4
    assert not any(others)


def test_the_landing_page_has_a_live_teaser(visit, address):
    page = visit()
    page.requested.clear()
    page.goto(address.replace("lab.html", "index.html"), wait_until="networkidle")
    place = page.locator("[data-lab=teaser]")
    assert not any("safetensors" in url for url in page.requested)
    assert place.get_by_role("img", name="the class token attends most").is_visible()
    cells = place.get_by_role("grid", name="Test pictures").get_by_role("gridcell")
    cells.nth(17).click()
    settled(page, "says")
    shares = place.locator(".lab-answers td:first-child data").evaluate_all(
        "list => list.map(e => Number(e.value))"
    )
    np.testing.assert_allclose(shares, lab_data.read(picture(17)[0]).vit[0], **CLOSE)
    assert len({url for url in page.requested if "safetensors" in url}) == 2
    assert page.errors == []


def test_without_scripts_the_landing_page_has_the_recorded_figure(visit, address):
    page = visit(java_script_enabled=False, wait=False)
    page.goto(address.replace("lab.html", "index.html"))
    still = page.locator("[data-lab=teaser] .lab-still img")
    assert still.is_visible()
    assert "the class token attends most" in still.get_attribute("alt")


def test_a_figure_that_cannot_be_is_refused_in_a_sentence():
    for wrong in (
        {"kind": "film"},
        {"kind": "both", "picture": -1},
        {"kind": "attention", "layer": 99},
    ):
        with pytest.raises(ValueError, match=r"^(There is no|Picture).*choose.*\.$"):
            lab.figure(**wrong)


def test_the_lab_with_both_networks_weighs_little_more_than_a_page_of_text(visit, browser, address):
    def weighed(page):
        return {url: len(gzip.compress(_content(url, address), 9)) for url in set(page.requested)}

    page = visit(f"picture={picture(3)[1]}")
    settled(page, "says")
    whole = weighed(page)
    page.goto(address.replace("lab.html", "appendix_credits.html"), wait_until="networkidle")
    page.requested.clear()
    page.reload(wait_until="networkidle")
    text = weighed(page)
    more = sum(whole.values()) - sum(text.values())
    assert more <= MOST, sorted(whole.items(), key=lambda item: -item[1])[:12]


def _content(url, address):
    path = url.split("/some/book/")[1].split("?")[0].split("#")[0]
    return (PAGES / path).read_bytes()
