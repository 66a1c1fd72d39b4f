"""The book's own scripts: a page gets one only if it holds what the script works with."""

SCRIPTS = {
    "div.cell > details, article blockquote": ("reader.js",),
    ".claim-card": ("claims.js",),
    ".observer": ("observer.js",),
    "#search-results": ("vendor/minisearch/minisearch.js", "sections.js", "search.js"),
}


def mend(page) -> None:
    """Add the scripts that a page needs to its head.

    Args:
        page: A `finish.Page`.
    """
    for needed, files in SCRIPTS.items():
        if page.html.select_one(needed):
            for file in files:
                source = page.to(f"_static/{file}")
                page.html.head.append(page.html.new_tag("script", src=source, defer=""))
