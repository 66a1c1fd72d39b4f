"""Sphinx extension: the Lab, where the book's networks run in the reader's browser.

The directive `lab` puts the whole of it on a page, or a figure of the kind that it names; in a
chapter, `lab.figure` makes one.
Pages that have neither load nothing of it. What the page loads is made once for each state of the
code and the zoo, and kept in `_build/.lab`.
"""

import hashlib
import html
import json
import shutil
from pathlib import Path

from docutils import nodes
from docutils.parsers.rst import Directive

from ..models import zoo
from . import lab_data, lab_steps
from .lab import figure

CODE = Path(__file__).resolve().parents[1]
STYLES, SCRIPT, DATA = "lab/view/lab.css", "lab/view/start.js", "lab/data"
MARK = "data-lab="  # in a page that has the Lab or a figure of it
ASLEEP = (
    "This is what the Lab opens with, as it was recorded. The Lab itself has not started: it needs "
    "scripts, and a page that comes from a server and not from a file (<code>make serve</code> "
    "shows the book on http://localhost:8000)."
)


def _key() -> str:
    """What the files depend on: the code of the library, and the weights."""
    digest = hashlib.sha256()
    for file in sorted(CODE.rglob("*.py")):
        digest.update(file.relative_to(CODE).as_posix().encode() + file.read_bytes())
    for name in lab_data.NETWORKS.values():
        digest.update((zoo.fingerprint(name) or "").encode())
    return digest.hexdigest()[:16]


def made(cache: Path) -> Path:
    """The folder with what the page loads, which is made if it is not there.

    Args:
        cache: Where such folders lie, one for each state of the code and the zoo.
    """
    folder = cache / _key()
    if not (folder / "lab.json").is_file():
        shutil.rmtree(cache, ignore_errors=True)
        lab_data.write(folder, lab_steps.steps())
    return folder


def _of(app) -> Path:
    return made(Path(app.outdir).parent / ".lab")


class Lab(Directive):
    """The Lab as it opens, recorded. Scripts bring it to life."""

    optional_arguments = 1  # the kind of a figure; without it, the whole Lab and its tasks

    def run(self):
        """Return the page's markup."""
        kinds = self.arguments
        content = figure(kinds[0])._repr_html_() if kinds else self._whole()
        return [nodes.raw("", content, format="html")]

    def _whole(self):
        app = self.state.document.settings.env.app
        steps = json.loads((_of(app) / "lab.json").read_text(encoding="utf-8"))["steps"]
        tasks = "".join(map(_task, steps))
        return (
            f'<div class="lab" data-lab="page">'
            f'<div class="lab-still">{figure("both").still()}<p>{ASLEEP}</p></div>'
            f'<ol class="lab-steps">{tasks}</ol></div>'
        )


def _task(step: dict) -> str:
    way = f' <a href="#{html.escape(step["state"])}">Show it</a>' if step["state"] else ""
    title, task, found = (html.escape(step[key]) for key in ("title", "task", "found"))
    return (
        f"<li><details><summary>{title}</summary><p>{task}</p>"
        f"<details><summary>One answer</summary><p>{found}{way}</p></details></details></li>"
    )


def _keep_off_other_pages(app, config):
    # Jupyter Book puts every style sheet below `_static/` on every page.
    config.html_css_files = [file for file in config.html_css_files if file != STYLES]


def _load(app, pagename, templatename, context, doctree):
    if MARK in context.get("body", ""):
        app.add_css_file(STYLES)
        app.add_js_file(SCRIPT, type="module")


def _copy(app, exception):
    if exception is None and app.builder.format == "html":
        shutil.copytree(_of(app), Path(app.outdir) / "_static" / DATA, dirs_exist_ok=True)


def setup(app):
    """Register with Sphinx.

    Args:
        app: Sphinx's application.
    """
    app.add_directive("lab", Lab)
    app.connect("config-inited", _keep_off_other_pages)
    app.connect("html-page-context", _load)
    app.connect("build-finished", _copy)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
