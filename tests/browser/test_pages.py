"""Opens every rendered page in headless Chromium. Needs Chromium and a rendered book."""

import os
import shutil
import threading
from functools import cache, partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import sync_playwright

from utils.book import build

PAGES = build.ROOT / "_build/html"
NAMES = sorted(
    page.relative_to(PAGES).as_posix()
    for page in PAGES.rglob("*.html")
    if "_static" not in page.parts
)
BUTTONS = "chapters/1_introduction.html"
PATIENCE = 120_000  # milliseconds for a page, on a machine that is busy with other tests
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")
# A page's scripts may run after its last request: theme chosen, formulas drawn.
READY = """() => document.documentElement.dataset.theme !== "auto"
    && [...document.querySelectorAll(".math")].every(e => e.querySelector("mjx-container"))
"""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")

pytestmark = pytest.mark.slow


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    """The address of the rendered book, served on this machine."""
    if not build.is_current():
        if os.environ.get("CI") == "true":
            pytest.fail("The rendered book is not of these sources: CI renders it first.")
        pytest.skip("the book as it is now has not been rendered: run `make book` first")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=PAGES)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser():
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium was found on the path")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def visit(browser, address):
    """Open a page, once; it records what it asked for and what went wrong."""

    @cache
    def open_page(name, width=1280, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.set_default_timeout(PATIENCE)
        page.requested, page.errors = [], []
        page.on("request", lambda request: page.requested.append(request.url))
        page.on("requestfailed", lambda request: page.errors.append(f"failed: {request.url}"))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("console", lambda m: m.type == "error" and page.errors.append(m.text))
        page.goto(f"{address}/{name}", wait_until="networkidle")
        page.wait_for_function(READY)
        return page

    return open_page


def _visible_pictures(page):
    return page.eval_on_selector_all(
        ".choose img", "images => images.filter(i => i.checkVisibility()).map(i => i.alt)"
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_page_asks_no_other_host_and_logs_no_error(visit, address, name):
    page = visit(name)
    others = [
        url for url in page.requested if not url.startswith((f"{address}/", "data:", "blob:"))
    ]
    assert others == []
    assert page.errors == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_fits_a_phone_in_light_and_dark(visit, name, scheme):
    page = visit(name, width=400, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400
    assert page.evaluate("document.documentElement.dataset.theme") in (scheme, None)


@pytest.mark.parametrize("name", NAMES)
def test_every_picture_on_a_page_has_a_text_that_is_not_its_path(visit, name):
    texts = visit(name).eval_on_selector_all("article img", "images => images.map(i => i.alt)")
    assert all(text and "_images/" not in text for text in texts), texts


@pytest.mark.parametrize("name", NAMES)
def test_formulas_bring_their_script_and_no_other_page_does(visit, name):
    page = visit(name)
    scripts = page.eval_on_selector_all("script[src]", "scripts => scripts.map(s => s.src)")
    loaded = any("/vendor/mathjax/" in source for source in scripts)
    assert loaded == (page.locator(".math").count() > 0)


def test_formulas_are_typeset(visit):
    page = visit(BUTTONS)
    formulas = page.locator(".math").count()
    assert formulas > 0
    assert page.locator(".math mjx-container").count() >= formulas
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
        shown = [
            (button.check(), page.locator(".choose figure:visible figcaption").inner_text())[1]
            for button in page.locator(".choose input").all()
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

