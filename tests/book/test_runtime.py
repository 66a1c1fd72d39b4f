"""The set-up of a run: the chapters' first cell, the device, the seeds, what gets installed."""

import importlib.metadata
import random
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import numpy
import pytest
import torch

from utils.book import runtime

STAND_IN = """
def setup(install=False):
    print("install" if install else "as it is", __file__)
    return "a device"
"""


@pytest.fixture
def make_checkout(tmp_path):
    """A function that lays out a small stand-in for the book in a folder of that name."""

    def make(name):
        folder = tmp_path / name
        (folder / "utils/book").mkdir(parents=True)
        (folder / "chapters/deeper").mkdir(parents=True)
        (folder / "utils/__init__.py").touch()
        (folder / "utils/book/runtime.py").write_text(STAND_IN, encoding="utf-8")
        return folder

    return make


@pytest.fixture
def published(make_checkout, tmp_path):
    """The address of a bare git repository that holds the stand-in under this version's tag."""
    source, bare = make_checkout("source"), tmp_path / "published.git"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(source)]
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["commit", "-qm", "Book"],
        ["tag", f"v{runtime.version()}"],
        ["clone", "-q", "--bare", ".", str(bare)],
    ):
        subprocess.run([*git, *words], check=True, capture_output=True)
    return bare.as_uri()


def run_cell(cwd: Path, url: str = "file:///nowhere", before: str = "", after: str = ""):
    """Run the set-up cell in a fresh Python with another address to fetch from."""
    address = "https://github.com/seeing-sparsely/seeing-sparsely"
    assert address in runtime.SETUP_CELL
    code = f"{before}\n{runtime.SETUP_CELL.replace(address, url)}\n{after}"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True, encoding="utf-8"
    )


@pytest.mark.parametrize("below", [".", "chapters", "chapters/deeper"])
def test_the_cell_finds_the_checkout_from_any_folder_in_it(make_checkout, below):
    checkout = make_checkout("my book")
    done = run_cell(checkout / below, after="assert device == 'a device'")
    assert done.stdout.split(" ", 2)[:2] == ["as", "it"]
    assert done.stdout.strip().endswith(str(checkout / "utils/book/runtime.py"))
    assert sorted(path.name for path in checkout.iterdir()) == ["chapters", "utils"]


def test_the_cell_wins_over_another_module_called_utils(make_checkout, tmp_path):
    checkout = make_checkout("book")
    (tmp_path / "other").mkdir()
    (tmp_path / "other/utils.py").write_text("foreign = True", encoding="utf-8")
    before = f"import sys; sys.path.insert(0, {str(tmp_path / 'other')!r}); import utils"
    done = run_cell(
        checkout, before=before, after="import utils; assert not hasattr(utils, 'foreign')"
    )
    assert done.returncode == 0, done.stderr


def test_the_cell_can_be_run_again(make_checkout):
    again = (
        runtime.SETUP_CELL + "\nfrom utils.book import runtime; import utils.book.runtime as same"
    )
    assert run_cell(make_checkout("book"), after=again).returncode == 0


def test_outside_a_checkout_the_cell_fetches_the_book_at_its_version(published, tmp_path):
    runtime_folder = tmp_path / "content"
    runtime_folder.mkdir()
    done = run_cell(runtime_folder, published)
    fetched = runtime_folder / f"seeing-sparsely-{runtime.version()}"
    assert done.stdout.split() == ["install", str(fetched / "utils/book/runtime.py")], done.stderr
    # The second time it is there, and no address is asked.
    assert run_cell(runtime_folder).stdout == done.stdout


def test_where_nothing_can_be_fetched_the_cell_says_so_in_one_sentence(tmp_path):
    done = run_cell(tmp_path, "file:///nowhere")
    assert "RuntimeError: Could not fetch file:///nowhere at v" in done.stderr
    assert "check git and the network" in done.stderr


def test_setup_says_in_one_line_what_runs_where(capsys):
    device = runtime.setup()
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    for word in (runtime.version(), device.type, torch.__version__, "timm"):
        assert word in line
    assert str(runtime.ROOT) not in line


def test_the_same_seed_gives_the_same_draws(capsys):
    def draws(seed):
        runtime.setup(seed)
        return random.random(), numpy.random.rand(), torch.rand(1).item()  # noqa: NPY002

    assert draws(3) == draws(3)
    assert all(a != b for a, b in zip(draws(3), draws(4), strict=True))


def test_setup_prefers_cuda_then_mps_then_the_cpu(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert runtime.setup() == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert runtime.setup() == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "some GPU")
    assert runtime.setup() == torch.device("cuda")
    assert "cuda (some GPU)" in capsys.readouterr().out


def test_setup_puts_the_checkout_first_and_forgets_foreign_utils(monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", ["/elsewhere", str(runtime.ROOT), "/further"])
    foreign = types.ModuleType("utils.foreign")
    foreign.__file__ = "/elsewhere/utils/foreign.py"
    monkeypatch.setitem(sys.modules, "utils.foreign", foreign)
    runtime.setup()
    assert sys.path[:3] == [str(runtime.ROOT), "/elsewhere", "/further"]
    assert "utils.foreign" not in sys.modules
    assert sys.modules["utils.book.runtime"] is runtime


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5, "a"])
def test_a_seed_that_cannot_be_used_is_refused(seed):
    with pytest.raises(ValueError, match="seed must be an integer"):
        runtime.setup(seed)


@pytest.fixture
def pip(monkeypatch):
    """Stands in for pip: keeps each command with the constraints it was given."""
    calls = []

    def run(command):
        constraints = (
            Path(command[command.index("--constraint") + 1]).read_text(encoding="utf-8").split()
        )
        calls.append((command, constraints))
        return types.SimpleNamespace(returncode=pip_returns[0])

    pip_returns = [0]
    monkeypatch.setattr(runtime.subprocess, "run", run)
    return types.SimpleNamespace(calls=calls, returns=pip_returns)


@pytest.fixture
def installed(monkeypatch):
    """A function that decides which distributions there are."""

    def set_to(versions):
        def version(name):
            if name not in versions:
                raise importlib.metadata.PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(importlib.metadata, "version", version)

    return set_to


def everything(**other):
    """Each dependency of the book at a version that fits, but for `other`."""
    text = (runtime.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needs = tomllib.loads(text)["project"]["dependencies"]
    fits = {}
    for need in needs:
        name, _, rest = need.replace("==", ">=").partition(">=")
        fits[name] = rest.partition(",")[0]
    return fits | other


def test_where_nothing_is_missing_pip_is_not_called(pip, installed, capsys):
    installed(everything())
    assert runtime.install_missing() == []
    assert pip.calls == []
    assert capsys.readouterr().out == ""


def test_only_what_is_missing_is_installed_and_torch_and_numpy_stay(pip, installed, capsys):
    versions = everything(torch="2.6.0+cu124", numpy="1.26.4")
    del versions["timm"]
    installed(versions)
    assert runtime.install_missing() == ["timm>=1.0.27,<2"]
    ((command, constraints),) = pip.calls
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert command[command.index("--constraint") + 2 :] == ["timm>=1.0.27,<2"]
    assert {"torch==2.6.0+cu124", "numpy==1.26.4"} < set(constraints)
    assert "timm" in capsys.readouterr().out


def test_a_version_that_does_not_fit_is_replaced_unless_it_is_torch(pip, installed, capsys):
    installed(everything(timm="0.9.0", torch="1.13.0"))
    assert runtime.install_missing() == ["timm>=1.0.27,<2"]
    assert "torch==1.13.0" in pip.calls[0][1]


def test_a_torch_without_metadata_counts_as_there(pip, installed, capsys):
    versions = everything()
    del versions["torch"]
    installed(versions)
    assert runtime.install_missing() == []


def test_without_packaging_presence_is_enough(pip, installed, monkeypatch):
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)
    installed(everything(timm="0.9.0"))
    assert runtime.install_missing() == []


def test_a_failure_of_pip_is_one_sentence(pip, installed, capsys):
    versions = everything()
    del versions["timm"]
    installed(versions)
    pip.returns[0] = 1
    with pytest.raises(RuntimeError, match=r"pip could not install timm.*install these by hand"):
        runtime.install_missing()
