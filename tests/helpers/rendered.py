"""Where the rendered book lies, and its pages."""

from utils.book import build

PAGES = build.ROOT / "_build/html"
NAMES = sorted(
    page.relative_to(PAGES).as_posix()
    for page in PAGES.rglob("*.html")
    if "_static" not in page.parts
)
