"""What a page may load and run: the book's own files, and no script that was not built with it."""

import base64
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
    allowed = ["'self'", *(["'unsafe-hashes'"] if handlers else [])]
    allowed += sorted({_hash(text) for text in inline + handlers})
    rules = RULES | {"script-src": " ".join(allowed)}
    policy = "; ".join(f"{name} {value}" for name, value in rules.items())
    meta = {"http-equiv": "Content-Security-Policy", "content": policy}
    page.html.head.insert(0, page.html.new_tag("meta", attrs=meta))


def _hash(script: str) -> str:
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"
