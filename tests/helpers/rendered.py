"""Where the rendered book lies, and its pages."""

import os

import pytest

from utils.book import build

PAGES = build.ROOT / "_build/html"
NAMES = sorted(
    page.relative_to(PAGES).as_posix()
    for page in PAGES.rglob("*.html")
    if "_static" not in page.parts
)
PATIENCE = 120_000  # milliseconds for a page, on a machine that is busy with other tests


def need_current() -> None:
    """Skip where the book as it is now has not been rendered; in CI that is a failure."""
    if not build.is_current():
        if os.environ.get("CI") == "true":
            pytest.fail("The rendered book is not of these sources: CI renders it first.")
        pytest.skip("the book as it is now has not been rendered: run `make book` first")
