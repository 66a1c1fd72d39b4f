"""Setting up: what is installed is what the lock says, and is mended where it no longer is."""

import re
import shutil
import subprocess
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
LOCK = (ROOT / "constraints.txt").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SHA256 = re.compile(r"--hash=sha256:[0-9a-f]{64}")
INSTALLED = "tqdm-4.70.1.dist-info"
# Stands in for Python: notes what it is asked, keeps what pip reads, and "installs" one package.
PYTHON = f"""#!/bin/sh
case "$*" in
-V) echo "Python $(cat version)" ;;
-c*) ;;
*"pip install"*"--requirement /dev/stdin") echo pip >> asked; cat > given; exit "$(cat status)" ;;
*"pip install"*)
    echo "$*" >> asked
    mkdir -p .venv/lib/python3.11/site-packages/{INSTALLED}
    exit "$(cat status)" ;;
esac
"""


def entries() -> dict[str, list[str]]:
    """What follows each package's pin in the lock: hashes, one an item."""
    text = "\n".join(line for line in LOCK.splitlines() if not line.startswith("#"))
    logical = text.replace("\\\n", " ").splitlines()
    return {line.split(" --hash")[0].strip(): SHA256.findall(line) for line in logical}


def test_every_version_is_pinned_and_every_file_hashed_and_none_says_from_where():
    assert len(entries()) > 200
    for pin, hashes in entries().items():
        assert [one.operator for one in Requirement(pin).specifier] == ["=="], pin
        assert hashes, f"{pin} has no hash: write the lock again by `make lock`."
    assert "://" not in LOCK


def test_all_that_is_asked_for_is_in_the_lock_and_in_its_range():
    pins = [Requirement(pin) for pin in entries()]
    pinned = {one.name: next(iter(one.specifier)).version for one in pins}
    project = PROJECT["project"]
    asked = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in map(Requirement, chain(*asked, PROJECT["build-system"]["requires"], ["uv"])):
        assert requirement.name in pinned, f"{requirement}: run `make lock`."
        assert pinned[requirement.name] in requirement.specifier, f"{requirement}: run `make lock`."


@pytest.fixture
def project(tmp_path):
    """A folder with the Makefile and the lock, and an environment whose Python is a stand-in."""
    for name in ("Makefile", "pyproject.toml", "requirements.txt", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON, encoding="utf-8")
    python.chmod(0o755)
    (tmp_path / "status").write_text("0", encoding="utf-8")
    (tmp_path / "version").write_text("3.11.7", encoding="utf-8")
    return tmp_path


def make(project: Path) -> tuple[subprocess.CompletedProcess, list[str]]:
    """`make env`, and what was asked of Python to install."""
    done = subprocess.run(
        ["make", "--no-print-directory", "env"],
        cwd=project,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    asked = project / "asked"
    commands = asked.read_text(encoding="utf-8").splitlines() if asked.exists() else []
    asked.unlink(missing_ok=True)
    return done, commands


def packages(project: Path) -> Path:
    return project / ".venv/lib/python3.11/site-packages"


CHANGES = {
    "a package was removed": lambda p: (packages(p) / INSTALLED).rmdir(),
    "another version was put in": lambda p: (packages(p) / INSTALLED).rename(
        packages(p) / "tqdm-4.66.0.dist-info"
    ),
    "the lock changed": lambda p: (p / "constraints.txt").write_text(
        LOCK.replace("tqdm==4", "tqdm==5"), encoding="utf-8"
    ),
    "Python was replaced": lambda p: (p / "version").write_text("3.12.1", encoding="utf-8"),
}
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


@needs_make
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_make_installs_again_after_a_change_of_what_is_there_and_only_then(change, project):
    assert len(make(project)[1]) == 2  # uv by pip, the rest by uv
    assert make(project)[1] == []
    change(project)
    done, commands = make(project)
    assert done.returncode == 0
    assert commands[0] == "pip"
    assert "-m uv pip install" in commands[1]
    assert make(project)[1] == []


@needs_make
def test_pip_is_given_the_one_version_of_uv_with_its_hashes(project):
    make(project)
    given = (project / "given").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    assert len(given) == 1
    pin = given[0].split(" ")[0]
    assert pin.startswith("uv==")
    assert SHA256.findall(given[0]) == entries()[pin]


@needs_make
def test_an_index_that_cannot_be_reached_is_told_in_one_sentence_and_tried_again(project):
    (project / "status").write_text("1", encoding="utf-8")
    done, commands = make(project)
    assert done.returncode != 0
    assert "check the network, then try again" in done.stdout.splitlines()[-1]
    assert commands[1].endswith("pip install --quiet -r constraints.txt")  # without uv, all hashed
    assert len(make(project)[1]) == 2
