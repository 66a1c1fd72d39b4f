"""Sphinx extension: what a rendered page loads.

Jupyter Book puts every script below `_static/` on every page. Here a page gets a script only
from the extension that needs it: MathJax where there is an equation (`mathjax_path`), the widget
manager where there is a widget (`nb_ipywidgets_js`), both named in `_config.yml`. Buttons lead to
where the book is published, and are left out where it is not.
"""

from pathlib import Path

from docutils import nodes

from . import launch


def _load_scripts_by_name_only(app, config):
    config.html_js_files = []


def _launch_what_is_published(app, config):
    theme = config.html_theme_options
    if published := launch.published(Path(app.confdir)):
        theme |= {"repository_url": published[0], "repository_branch": launch.BRANCH}
    else:
        theme |= {"launch_buttons": {}, "use_repository_button": False, "use_issues_button": False}


def _load_mathjax_for_own_equations_only(app, pagename, templatename, context, doctree):
    # Sphinx also counts the equations of all pages below this one in the table of contents.
    if (
        doctree is None
        or any(doctree.findall(nodes.math))
        or any(doctree.findall(nodes.math_block))
    ):
        return
    path = app.config.mathjax_path
    context["script_files"] = [
        script for script in context["script_files"] if path not in str(script.filename)
    ]


def setup(app):
    """Register with Sphinx."""
    app.connect("config-inited", _load_scripts_by_name_only)
    app.connect("config-inited", _launch_what_is_published)
    app.connect("html-page-context", _load_mathjax_for_own_equations_only, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
