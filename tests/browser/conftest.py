"""The rendered book, served on this machine and opened in headless Chromium."""

import pytest
from helpers.rendered import PAGES, PATIENCE, need_current
from playwright.sync_api import sync_playwright

from utils.book.serve import chromium, served

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")
# A page's scripts may run after its last request: theme chosen, formulas drawn, and code that is
# wider than its box within reach of the keyboard.
READY = """() => document.documentElement.dataset.theme !== "auto"
    && [...document.querySelectorAll(".math")].every(e => e.querySelector("mjx-container"))
    && [...document.querySelectorAll("pre")].every(
        e => e.scrollWidth <= e.clientWidth || e.hasAttribute("tabindex"))
"""
KEPT = 6  # pages that stay open: each is a process of about 100 MB


@pytest.fixture(scope="package")
def address():
    """The address of the rendered book."""
    need_current()
    with served(PAGES) as address:
        yield address


@pytest.fixture(scope="package")
def browser():
    path = chromium()
    if path is None:
        pytest.skip("no Chromium was found on the path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def visit(browser, address):
    """Open a page, or find it open; it records what it asked for and what went wrong."""
    opened = {}  # oldest first

    def open_page(name, width=1280, scheme="light"):
        key = (name, width, scheme)
        if page := opened.pop(key, None):
            opened[key] = page
            return page
        while len(opened) >= KEPT:
            opened.pop(next(iter(opened))).close()
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        opened[key] = page
        page.set_default_timeout(PATIENCE)
        page.requested, page.errors = [], []
        page.on("request", lambda request: page.requested.append(request.url))
        page.on("requestfailed", lambda request: page.errors.append(f"failed: {request.url}"))
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("console", lambda m: m.type == "error" and page.errors.append(m.text))
        page.goto(f"{address}/{name}", wait_until="networkidle")
        page.wait_for_function(READY)
        return page

    yield open_page
    for page in opened.values():
        page.close()
