"""Sphinx extension: the last hand on the rendered pages.

What the theme and the other extensions wrote is read back as HTML, mended, and written again: what
a page weighs (`lighter`), what it says to those who do not see it or use no mouse (`accessible`),
where its words lead (`links`), what stays on one line (`typography`), what other sites read
(`head`), its own scripts (`scripts`), and which scripts and files a browser lets it use (`policy`).
What is made from all pages comes last: the cards of the landing page (`landing`), the index of the
search (`sections`), the list of pages for search engines, the page for addresses that lead nowhere.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bs4 import BeautifulSoup

from . import accessible, head, landing, lighter, links, policy, scripts, sections, typography

MENDING = (
    lighter.mend,
    accessible.mend,
    links.mend,
    typography.mend,
    head.mend,
    scripts.mend,
    policy.mend,
)
TOGETHER = (landing.fill, head.publish, sections.write)


@dataclass(frozen=True)
class Site:
    """The book as it was rendered.

    Attributes:
        root: The checkout.
        folder: Of the pages.
        address: Where they are published, with a slash at the end.
    """

    root: Path
    folder: Path
    address: str

    @cached_property
    def pages(self) -> dict[str, "Page"]:
        """Every page by its name."""
        files = sorted(f for f in self.folder.rglob("*.html") if "_static" not in f.parts)
        names = [file.relative_to(self.folder).with_suffix("").as_posix() for file in files]
        return {name: Page(self, name) for name in names}


@dataclass(frozen=True)
class Page:
    """A rendered page.

    Attributes:
        site: To which it belongs.
        name: Its path below the folder of pages, without the ending.
    """

    site: Site
    name: str

    @cached_property
    def html(self) -> BeautifulSoup:
        """What is in it, to be read and changed."""
        return BeautifulSoup(self.file.read_text(encoding="utf-8"), "html.parser")

    @property
    def file(self) -> Path:
        """Where it is written."""
        return self.site.folder / f"{self.name}.html"

    def path(self, reference: str) -> Path:
        """The file that a relative reference of the page leads to."""
        plain = reference.partition("#")[0].partition("?")[0]
        return Path(os.path.normpath(self.file.parent / plain))

    def to(self, file: Path | str) -> str:
        """The relative reference of the page that leads to a file, or a path below the folder."""
        return Path(os.path.relpath(self.site.folder / file, self.file.parent)).as_posix()


def finish(site: Site, names: Collection[str]) -> None:
    """Mend pages as the theme wrote them.

    Args:
        site: The book.
        names: Of the pages that were just written, and are not mended yet.
    """
    for name in names:
        page = site.pages[name]
        for mend in MENDING:
            mend(page)
        page.file.write_text(str(page.html), encoding="utf-8")
    for make in TOGETHER:
        make(site)


def _remember(app, pagename, templatename, context, doctree):
    app.rendered = [*getattr(app, "rendered", []), pagename]


def _finish(app, failure):
    if failure is None and app.builder.format == "html":
        site = Site(Path(app.confdir), Path(app.outdir), app.config.html_baseurl)
        finish(site, getattr(app, "rendered", []))


def setup(app):
    """Register with Sphinx.

    Args:
        app: Sphinx's application.
    """
    app.connect("html-page-context", _remember)
    app.connect("build-finished", _finish)
    return {"parallel_read_safe": True, "parallel_write_safe": False}
