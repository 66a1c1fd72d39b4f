"""The second edition's stimuli, networks and results, built up next to the first's.

`SEEING_SPARSELY_EDITION=2` makes every command use them; they replace the first's, and this module
goes, once the networks that the chapters load are trained.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECOND = os.environ.get("SEEING_SPARSELY_EDITION") == "2"


def folder(name: str) -> Path:
    """Where this edition's zoo or results lie: in the checkout or, installed, in the package."""
    installed = Path(__file__).parent / name
    found = installed if installed.is_dir() else ROOT / name
    return found / "second" if SECOND else found
