"""What a page may load and run: the book's own files, and no script that was not built with it."""

import base64
from collections.abc import Iterable
from hashlib import sha256

RULES = {
    "default-src": "'self'",
    "img-src": "'self' data: blob:",  # pictures of a reader's own are blobs
    "style-src": "'self' 'unsafe-inline'",  # MathJax and the charts style elements
    "object-src": "'none'",
    "base-uri": "'none'",
}


def mend(page) -> None:
    """Write a page's content security policy into its head; the last that is done to the page.

    Scripts in the page itself, and what the theme has buttons do, are allowed by their hashes.

    Args:
        page: A `finish.Page`.
    """
    inline = [script.string or "" for script in page.html.select("script:not([src])")]
    handlers = [
        value
        for element in page.html.find_all(True)
        for name, value in element.attrs.items()
        if name.startswith("on")
    ]
    meta = {"http-equiv": "Content-Security-Policy", "content": policy(inline, handlers)}
    page.html.head.insert(0, page.html.new_tag("meta", attrs=meta))


def policy(inline: Iterable[str] = (), handlers: Iterable[str] = ()) -> str:
    """What a page with these scripts may load and run.

    Args:
        inline: Scripts that stand in the page itself.
        handlers: What its elements do on events.

    Returns:
        The content of a Content-Security-Policy.
    """
    allowed = ["'self'", *(["'unsafe-hashes'"] if handlers else [])]
    allowed += sorted({_hash(text) for text in (*inline, *handlers)})
    rules = RULES | {"script-src": " ".join(allowed)}
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash(script: str) -> str:
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"
