"""What other sites read of the book: descriptions, pictures of links, the list of pages."""

import datetime
import html
import os
from urllib.parse import urlsplit

from . import launch, policy

BOOK = "Seeing Sparsely"
COVER = "_static/cover.png"
COVER_ALT = (
    "Stimuli, where a Vision Transformer attends in each, and which places it and a ResNet need."
)
LONGEST = 200  # characters of a description
APART = ("search", "404", "index")  # no pages to be found
# Nothing in it is relative: it is shown wherever a page was looked for in vain.
LOST = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta name="description" content="There is no such page in Seeing Sparsely.">
<title>Not found — {book}</title>
<link rel="icon" href="data:,">
<style>
:root {{ color-scheme: light dark; }}
html {{ color: CanvasText; background: Canvas; }}
body {{ max-width: 34rem; margin: 15vh auto; padding: 0 1rem; font: 1.1rem/1.5 system-ui; }}
a {{ color: LinkText; }}
input, button {{ font: inherit; padding: 0.4rem 0.6rem; }}
</style>
</head>
<body>
<main>
<h1>There is no such page</h1>
<p>It may have moved. Search the book, or go to <a href="{base}chapters/index.html">its first
page</a>.</p>
<form action="{base}search.html" role="search">
<input type="search" name="q" aria-label="Search this book"> <button>Search</button>
</form>
</main>
</body>
</html>
"""


def mend(page) -> None:
    """Write a page's title, description and picture into its head, and its making into its foot.

    Args:
        page: A `finish.Page`.
    """
    head = page.html.head
    if page.name.endswith("/index"):
        head.title.string = BOOK
    for number, viewport in enumerate(head.select("meta[name=viewport]")):
        if number:
            viewport.decompose()
    for extra in head.select("meta[name^=docsearch]"):
        extra.decompose()
    title = page.html.h1.get_text().rstrip("#") if page.html.h1 else BOOK
    said = described(page.html)
    address = page.site.address
    about = {
        "description": said,
        "og:title": title,
        "og:description": said,
        "og:type": "article" if title != BOOK else "website",
        "og:site_name": BOOK,
        "og:url": f"{address}{page.name}.html",
        "og:image": address + COVER,
        "og:image:alt": COVER_ALT,
        "twitter:card": "summary_large_image",
    }
    for name, content in about.items():
        key = "property" if name.startswith("og:") else "name"
        head.append(page.html.new_tag("meta", attrs={key: name, "content": content}))
        head.append("\n")
    for foot in page.html.select(".extra_footer"):
        built = page.html.new_tag("p", attrs={"class": "built"})
        built.string = made(page.site)
        foot.append(built)


def described(page) -> str:
    """What a page is about: the question that it asks, else its first paragraph.

    Args:
        page: Its HTML.

    Returns:
        At most `LONGEST` characters.
    """
    paragraphs = page.select("article p, .bd-search-container h1")
    words = [" ".join(each.get_text().split()) for each in paragraphs]
    said = next(filter(None, words), BOOK)
    if len(said) <= LONGEST:
        return said
    return said[:LONGEST].rsplit(" ", 1)[0].rstrip(",;:") + " …"


def made(site) -> str:
    """When and from what the pages were made.

    Args:
        site: A `finish.Site`.

    Returns:
        A sentence; the day is that of `SOURCE_DATE_EPOCH` if this is set.
    """
    stamp = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.datetime.fromtimestamp(int(stamp), datetime.UTC) if stamp else None
    day = now or datetime.datetime.now(datetime.UTC)
    commit = launch.revision(site.root)
    return f"Last built on {day:%-d %B %Y}{f' from commit {commit[:7]}' if commit else ''}."


def publish(site) -> None:
    """Write what search engines ask for, and the page for addresses that lead nowhere.

    Args:
        site: A `finish.Site`.
    """
    pages = [name for name in site.pages if name not in APART]
    places = "".join(
        f"<url><loc>{html.escape(site.address)}{name}.html</loc></url>\n" for name in pages
    )
    files = {
        "sitemap.xml": '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{places}</urlset>\n',
        "robots.txt": f"User-agent: *\nAllow: /\nSitemap: {site.address}sitemap.xml\n",
        "404.html": LOST.format(
            book=BOOK, base=urlsplit(site.address).path or "/", policy=policy.policy()
        ),
    }
    for name, text in files.items():
        (site.folder / name).write_text(text, encoding="utf-8")
