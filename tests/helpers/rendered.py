"""Where the rendered book lies, its pages, and a server for them."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from utils.book import build

PAGES = build.ROOT / "_build/html"
NAMES = sorted(
    page.relative_to(PAGES).as_posix()
    for page in PAGES.rglob("*.html")
    if "_static" not in page.parts
)
PATIENCE = 120_000  # milliseconds for a page, on a machine that is busy with other tests


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def served(folder) -> Iterator[str]:
    """The address at which a folder is served on this machine."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def need_current() -> None:
    """Skip where the book as it is now has not been rendered; in CI that is a failure."""
    if not build.is_current():
        if os.environ.get("CI") == "true":
            pytest.fail("The rendered book is not of these sources: CI renders it first.")
        pytest.skip("the book as it is now has not been rendered: run `make book` first")
