"""`python -m benchmarks.pages`: how busy the main thread is with each chapter of the rendered book.

Chapters take turns in headless Chromium, each in a new context; what counts is processor time of
the main thread until the network is quiet and the formulas in view are typeset. Printed are
medians, and their ratio to the lightest chapter.
"""

import argparse
import statistics
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from utils.book.build import ROOT
from utils.book.serve import chromium, served

PAGES = ROOT / "_build/html"
TYPESET = """() => [...document.querySelectorAll(".math")]
    .every(formula => formula.querySelector("mjx-container"))"""


def busy(browser: Browser, url: str) -> float:
    """Seconds that the main thread computes until a page is there."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    session = context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.goto(url, wait_until="networkidle")
    page.wait_for_function(TYPESET, polling=300)  # seldom: asking is work as well
    metrics = session.send("Performance.getMetrics")["metrics"]
    context.close()
    return next(each["value"] for each in metrics if each["name"] == "TaskDuration")


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.pages", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="turns of each chapter")
    parser.add_argument("--pages", type=Path, default=PAGES, help="the rendered book")
    options = parser.parse_args()
    found: dict[str, list[float]] = {
        file.name: [] for file in sorted(options.pages.glob("chapters/[0-9]*.html"))
    }
    path = chromium()
    if path is None or not found:
        parser.error("this needs Chromium on the path and the rendered book: run make book first")
    with served(options.pages) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for _ in range(options.rounds):
            for name, values in found.items():
                values.append(busy(browser, f"{address}/chapters/{name}"))
        browser.close()
    middles = {name: statistics.median(values) for name, values in found.items()}
    lightest = min(middles.values())
    print(f"{'':40}{'seconds':>8}{'ratio':>8}")
    for name, middle in sorted(middles.items(), key=lambda each: each[1]):
        print(f"{name:40}{middle:8.3f}{middle / lightest:8.2f}")


if __name__ == "__main__":
    main()
