"""Opens every rendered page in headless Chromium. Needs Chromium and a rendered book."""

import gzip
from urllib.parse import urlsplit

import pytest
from helpers import axe
from helpers.rendered import NAMES, PAGES

from utils.book.plotting import COLOURS

BUTTONS = "chapters/1_introduction.html"
TEXT, CHAPTER = 0.45e6, 1.6e6  # bytes that a page may weigh, all that it loads taken together
PACKED = (".webp", ".png", ".woff", ".woff2")  # what a server does not compress once more

pytestmark = pytest.mark.slow
# Page by page, not test by test, so that a page is opened once and closed again.
every_page = pytest.mark.parametrize("name", NAMES, scope="module")


def _visible_pictures(page):
    return page.eval_on_selector_all(
        ".choose img", "images => images.filter(i => i.checkVisibility()).map(i => i.alt)"
    )


@every_page
def test_a_page_asks_no_other_host_and_logs_no_error(visit, address, name):
    page = visit(name)
    others = [
        url for url in page.requested if not url.startswith((f"{address}/", "data:", "blob:"))
    ]
    assert others == []
    assert page.errors == []


@every_page
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_fits_a_phone_in_light_and_dark(visit, name, scheme):
    page = visit(name, width=400, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.evaluate("document.documentElement.dataset.theme") in (scheme, None)


# Words on two lines of a cell, whose text has only letters, spaces, hyphens and brackets.
BROKEN = """cells => cells.flatMap(cell => [...cell.childNodes]
    .filter(node => node.nodeType === Node.TEXT_NODE && /^[\\p{L} ()-]+$/u.test(node.data))
    .flatMap(node => [...node.data.matchAll(/\\p{L}+/gu)].filter(word => {
        const range = document.createRange();
        range.setStart(node, word.index);
        range.setEnd(node, word.index + word[0].length);
        return new Set([...range.getClientRects()].map(box => Math.round(box.top))).size > 1;
    }).map(word => word[0])))"""


@every_page
def test_no_word_in_a_table_is_cut_in_two_on_a_phone(visit, name):
    assert visit(name, width=400).eval_on_selector_all(".bd-article :is(th, td)", BROKEN) == []


def test_the_colours_of_charts_stand_out_in_the_dark(visit):
    painted = (
        visit("chapters/3_attention_sparsity.html", scheme="dark")
        .locator(".cell_output img:not(.pictures)")
        .first.evaluate(
            """(chart, colours) => {
            const { filter, mixBlendMode } = getComputedStyle(chart);
            const context = document.createElement("canvas").getContext("2d");
            return colours.map((colour) => {
                const fill = (style, operation, filter) => {
                    Object.assign(context, {
                        fillStyle: style, globalCompositeOperation: operation, filter });
                    context.fillRect(0, 0, 1, 1);
                };
                fill(getComputedStyle(document.body).backgroundColor, "source-over", "none");
                fill(colour, mixBlendMode, filter);
                return [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
            });
        }""",
            ["#ffffff", *COLOURS.values()],
        )
    )
    ground, *colours = map(_luminance, painted)
    contrasts = {
        name: (light + 0.05) / (ground + 0.05) for name, light in zip(COLOURS, colours, strict=True)
    }
    assert {name: ratio for name, ratio in contrasts.items() if ratio < 4.5} == {}


def _luminance(colour):
    """As the WCAG define it, of red, green and blue in 0 … 255."""
    shares = [value / 255 for value in colour]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in shares]
    return sum(weight * x for weight, x in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@every_page
def test_every_picture_on_a_page_has_a_text_that_is_not_its_path(visit, name):
    # The pictures on the landing page's cards repeat what the card says.
    own = "article img:not([alt=''])" if name.endswith("index.html") else "article img"
    texts = visit(name).eval_on_selector_all(own, "images => images.map(i => i.alt)")
    assert all(text and "_images/" not in text for text in texts), texts


@every_page
def test_what_a_library_warns_of_is_on_no_page(visit, name):
    assert visit(name).locator(".output.stderr").all_inner_texts() == []


@every_page
def test_formulas_bring_their_script_and_no_other_page_does(visit, name):
    page = visit(name)
    scripts = page.eval_on_selector_all("script[src]", "scripts => scripts.map(s => s.src)")
    loaded = any("/vendor/mathjax/" in source for source in scripts)
    assert loaded == (page.locator(".math").count() > 0)


def test_formulas_are_typeset_when_they_come_near_the_view_and_all_of_them_for_print(visit):
    page = visit(BUTTONS)
    formulas, waiting = page.locator(".math"), page.locator("mjx-lazy")
    assert page.locator(".math mjx-container").count() >= formulas.count() > 0
    last = formulas.last.locator("mjx-lazy")
    assert last.count() == 1 < waiting.count()
    formulas.last.evaluate("formula => formula.scrollIntoView()")
    last.wait_for(state="detached")
    assert waiting.count() > 0
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function("() => !document.querySelector('mjx-lazy')")
    assert page.locator("mjx-merror").count() == 0


@pytest.mark.parametrize("width", [1280, 400])
def test_an_arrow_key_on_the_buttons_changes_the_picture_without_a_kernel(visit, width):
    page = visit(BUTTONS, width=width)
    chosen = page.locator(".choose :checked").first
    before = _visible_pictures(page)
    chosen.press("ArrowRight")
    after = _visible_pictures(page)
    assert len(after) == len(before) > 0
    assert after != before
    assert page.errors == []


def test_the_buttons_work_without_scripts(browser, address):
    with browser.new_context(java_script_enabled=False) as context:
        page = context.new_page()
        page.goto(f"{address}/{BUTTONS}")
        first = page.locator(".choose").first
        shown = [
            (button.check(), first.locator("figure:visible figcaption").inner_text())[1]
            for button in first.locator("input").all()
        ]
    assert len(set(shown)) == len(shown) > 1


def test_every_button_has_a_name_a_group_and_room_for_a_finger(visit):
    page = visit(BUTTONS, width=400)
    groups = page.get_by_role("group").filter(has=page.get_by_role("radio"))
    assert groups.count() > 0
    for group in groups.all():
        assert group.locator("legend").inner_text()
        for button in group.get_by_role("radio").all():
            box = button.bounding_box()
            assert min(box["width"], box["height"]) >= 24


def _weight(page):
    """Bytes of what a page has loaded, and of the pictures that it loads as one reads on."""
    pictures = page.eval_on_selector_all("article img", "images => images.map(i => i.src)")
    urls = [url for url in (*page.requested, *pictures) if url.startswith("http")]
    paths = {urlsplit(url).path.lstrip("/") for url in urls}
    contents = {path: (PAGES / path).read_bytes() for path in paths if (PAGES / path).is_file()}
    return sum(
        len(content if path.endswith(PACKED) else gzip.compress(content))
        for path, content in contents.items()
    )


@every_page
def test_a_page_weighs_little(visit, name):
    page = visit(name)
    light = not page.locator(".cell_output img, .math").count()
    assert _weight(page) <= (TEXT if light else CHAPTER)


@every_page
def test_pictures_have_a_size_and_wait_below_the_fold(visit, name):
    pictures = visit(name).eval_on_selector_all(
        "article img[src*='_images/']",
        "images => images.map(i => [i.getAttribute('width') > 0, i.loading])",
    )
    assert all(sized for sized, _ in pictures)
    assert all(loading == "lazy" for _, loading in pictures[1:])


def test_icons_are_drawn_from_a_font_that_has_them(visit):
    page = visit("chapters/index.html")
    assert not any("fontawesome.js" in url for url in page.requested)
    assert any("fa-solid-900.woff2" in url for url in page.requested)
    # A glyph that the font lacks is drawn as a box of another font, wider than it is meant to be.
    lacking = page.evaluate(
        """async () => {
            await document.fonts.ready;
            const icons = document.querySelectorAll("[class*='fa-']:is(i, span)");
            return [...icons].map(icon => [icon.className, getComputedStyle(icon, "::before")])
                .filter(([, style]) => !document.fonts.check(
                    `900 16px ${style.fontFamily}`, style.content.replaceAll('"', "")))
                .map(([name]) => name);
        }"""
    )
    assert lacking == []


@every_page
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_assistive_technology_finds_nothing_amiss(visit, name, scheme):
    found = axe.violations(visit(name, scheme=scheme), {"target-size": True})
    assert found == {}


@every_page
def test_a_page_reflows_to_320_pixels(visit, name):
    assert visit(name, width=320).evaluate("document.documentElement.scrollWidth") <= 320


def test_buttons_in_the_header_show_the_focus(visit):
    page = visit("chapters/index.html")
    page.evaluate("document.activeElement.blur()")
    seen = 0
    for _ in range(60):
        page.keyboard.press("Tab")
        outline = page.evaluate(
            """() => document.activeElement.closest(".bd-header-article")
                && getComputedStyle(document.activeElement).outlineWidth"""
        )
        if outline is not None:
            seen += 1
            assert float(outline.removesuffix("px")) >= 2
    assert seen >= 4


def test_a_fold_is_named_by_what_it_shows(visit):
    page = visit("chapters/3_attention_sparsity.html")
    assert page.locator("summary[aria-label]").count() == 0
    assert page.locator("summary").first.inner_text().strip() == "Set-up"


def test_tables_of_numbers_have_one_row_of_heads_and_numbers_to_the_right(visit):
    page = visit("chapters/3_attention_sparsity.html")
    assert page.locator("table.dataframe").count() > 0
    assert page.locator("table.dataframe thead tr + tr").count() == 0
    cells = page.locator("table.dataframe tbody td:not(.words)")
    styles = cells.evaluate_all(
        "cells => cells.map(c => getComputedStyle(c)).map(s => [s.textAlign, s.fontVariantNumeric])"
    )
    assert set(map(tuple, styles)) == {("right", "tabular-nums")}
