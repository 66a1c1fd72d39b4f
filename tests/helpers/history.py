"""The project's history, for tests that compare what is declared with what stood before results."""

import subprocess
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def git(*arguments: str) -> str:
    """What git says, in this checkout."""
    command = ["git", *arguments]
    return subprocess.run(
        command, cwd=ROOT, check=True, capture_output=True, text=True, encoding="utf-8"
    ).stdout


def before_first(*results: str) -> str:
    """The commit before the first that added one of these files; skips where it cannot be known."""
    if not (ROOT / ".git").exists():
        pytest.skip("The history is not here: this is no git checkout.")
    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        pytest.skip("The history is cut short: this is a shallow clone.")
    first = git("log", "--diff-filter=A", "--reverse", "--format=%H", "--", *results).split()
    if not first:
        pytest.skip("No such result has been recorded yet.")
    return f"{first[0]}^"


def module_at(commit: str, path: str) -> types.ModuleType:
    """A module as it was at a commit."""
    name = f"{Path(path).stem}_before"
    sys.modules[name] = module = types.ModuleType(name)  # dataclasses look it up
    exec(git("show", f"{commit}:{path}"), module.__dict__)
    return module
