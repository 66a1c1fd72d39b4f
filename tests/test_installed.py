"""Installed next to a project that has a utils of its own."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"][
    "setuptools"
]
PROGRAM = """
import sys
import utils
from seeing_sparsely.book import runtime
from seeing_sparsely.models import zoo
from seeing_sparsely.probes import AttentionProbe
from seeing_sparsely.stimuli import objects

with AttentionProbe(zoo.load("vit-d2-h4")) as probe:
    probe.model(objects.load(n=2).images)
assert len(probe.maps) == 2
runtime.setup()
import utils as again
assert again.mine and [name for name in sys.modules if name.split(".")[0] == "utils"] == ["utils"]
"""


def test_every_folder_of_utils_is_a_package_that_is_installed():
    folders = {file.parent.relative_to(ROOT) for file in (ROOT / "utils").rglob("__init__.py")}
    named = {".".join(("seeing_sparsely", *folder.parts[1:])) for folder in folders}
    assert {*SETUPTOOLS["packages"]} == named | {"seeing_sparsely.zoo"}


@pytest.fixture
def site(tmp_path):
    """What an installer makes of the checkout: each package in its place, and its metadata."""
    for package, folder in SETUPTOOLS["package-dir"].items():
        ignored = shutil.ignore_patterns("__pycache__", "cifar10")
        shutil.copytree(ROOT / folder, tmp_path / package.replace(".", "/"), ignore=ignored)
    about = tmp_path / "seeing_sparsely-9.9.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: seeing-sparsely\nVersion: 9.9\n", encoding="utf-8"
    )
    return tmp_path


@pytest.mark.slow
def test_it_runs_next_to_a_foreign_utils_and_leaves_that_alone(site, tmp_path_factory):
    project = tmp_path_factory.mktemp("project")
    (project / "utils.py").write_text("mine = True\n", encoding="utf-8")
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.startswith("Seeing Sparsely 9.9 runs on")
