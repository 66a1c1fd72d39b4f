"""axe-core, which reads a page as assistive technology does: one file, from npm, kept in build/."""

import base64
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

VERSION = "4.14.1"
# As `npm view axe-core@VERSION dist.integrity` says.
SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
CACHE = Path(__file__).resolve().parents[2] / "build"


def script() -> str:
    """The text of axe.min.js; the test is skipped where npm or the network is missing."""
    kept = CACHE / f"axe-core-{VERSION}.tgz"
    if not kept.is_file():
        _fetch(kept)
    content = kept.read_bytes()
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    assert digest == SHA512, f"{kept} is not axe-core {VERSION}: remove it, and try again."
    with tarfile.open(fileobj=io.BytesIO(content)) as package:
        return package.extractfile("package/axe.min.js").read().decode()


def _fetch(kept: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip(f"axe-core is not in {CACHE}, and npm, which fetches it, is not on the path")
    CACHE.mkdir(exist_ok=True)
    command = [npm, "pack", f"axe-core@{VERSION}", "--pack-destination", str(CACHE)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)
    if done.returncode:
        pytest.skip(f"axe-core could not be fetched with npm (offline?): {done.stderr.strip()}")
    assert kept.is_file(), "npm packed axe-core under another name."


def violations(page, rules: dict[str, bool] | None = None) -> dict[str, list[str]]:
    """Rule → the elements of an open page that break it.

    Args:
        page: Playwright's; axe-core is put into it once.
        rules: Which to switch on or off, next to those that axe-core has on by itself.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(script())
    options = {"rules": {name: {"enabled": on} for name, on in (rules or {}).items()}}
    options["resultTypes"] = ["violations"]
    found = page.evaluate(f"axe.run(document, {json.dumps(options)})")["violations"]
    return {
        rule["id"]: [" ".join(map(str, node["target"])) for node in rule["nodes"]] for rule in found
    }
