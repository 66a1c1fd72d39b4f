"""The set-up of a run: the chapters' first cell, the device, the seeds, what gets installed."""

import importlib.metadata
import json
import random
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import nbformat
import numpy
import pytest
import torch

from utils import fetching
from utils.book import launch, runtime

ROOT = Path(__file__).resolve().parents[2]
FETCHED = 40e6  # bytes at most, of which a chapter needs some
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
    for name in ("zoo/a.safetensors", "zoo/cifar10/b.safetensors", "results/objects/c.csv.gz"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name, encoding="utf-8")
    (source / "zoo/manifest.json").write_text("{}", encoding="utf-8")
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(source)]
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["commit", "-qm", "Book"],
        ["tag", f"v{runtime.version()}"],
        ["clone", "-q", "--bare", ".", str(bare)],
    ):
        subprocess.run([*git, *words], check=True, capture_output=True)
    for key in ("allowFilter", "allowAnySHA1InWant"):  # as on GitHub
        words = ["config", "-f", str(bare / "config"), f"uploadpack.{key}", "true"]
        subprocess.run(["git", *words], check=True)
    return bare.as_uri()


def run_cell(
    cwd: Path,
    url: str = "file:///nowhere",
    before: str = "",
    after: str = "",
    version: str = f"v{runtime.version()}",
):
    """Run the set-up cell in a fresh Python with another address to fetch from."""
    cell = launch.launched(json.dumps(runtime.SETUP_CELL), url, version)
    assert url in cell
    code = f"{before}\n{json.loads(cell)}\n{after}"
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


@pytest.mark.parametrize("file", ["utils.py", "utils/__init__.py"])
def test_another_module_called_utils_is_left_alone_and_named(make_checkout, tmp_path, file):
    checkout = make_checkout("book")
    foreign = tmp_path / "other" / file
    foreign.parent.mkdir(parents=True)
    foreign.touch()
    cell = f"cell = {runtime.SETUP_CELL!r}"
    before = f"import sys; sys.path.insert(0, {str(tmp_path / 'other')!r}); import utils\n{cell}"
    kept = "before = utils\ntry:\n    exec(cell)\nexcept RuntimeError as error:\n    print(error)"
    code = f"{before}\n{kept}\nassert sys.modules['utils'] is before"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=checkout, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Another utils is loaded: restart")


def test_the_cell_can_be_run_again(make_checkout):
    again = (
        runtime.SETUP_CELL + "\nfrom utils.book import runtime; import utils.book.runtime as same"
    )
    assert run_cell(make_checkout("book"), after=again).returncode == 0


def commit_of(url: str) -> str:
    command = ["git", "-C", url.removeprefix("file://"), "rev-parse", "HEAD"]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, encoding="utf-8"
    ).stdout.strip()


@pytest.mark.parametrize("by", ["tag", "commit"])
def test_outside_a_checkout_the_cell_fetches_the_book_at_its_version(published, tmp_path, by):
    version = f"v{runtime.version()}" if by == "tag" else commit_of(published)
    runtime_folder = tmp_path / "content"
    runtime_folder.mkdir()
    done = run_cell(runtime_folder, published, version=version)
    fetched = runtime_folder / f"seeing-sparsely-{version[:9]}"
    assert done.stdout.split() == ["install", str(fetched / "utils/book/runtime.py")], done.stderr
    at = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=fetched, capture_output=True, text=True, encoding="utf-8"
    )
    assert at.stdout.strip() == commit_of(published)
    # The second time it is there, and no address is asked.
    assert run_cell(runtime_folder, version=version).stdout == done.stdout


def test_a_runtime_fetches_less_than_it_may():
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, encoding="utf-8"
    ).stdout
    if not tracked:
        pytest.skip("A copy without git does not say which files are published.")
    bytes_ = sum((ROOT / name).stat().st_size for name in tracked.split("\0")[:-1])
    assert 1e6 < bytes_ < FETCHED


def test_weights_and_tables_are_fetched_when_they_are_opened_first(published, tmp_path):
    run_cell(tmp_path, published)
    fetched = tmp_path / f"seeing-sparsely-v{runtime.version()}"
    assert (fetched / "zoo/manifest.json").exists()
    for name in ("zoo/a.safetensors", "zoo/cifar10/b.safetensors", "results/objects/c.csv.gz"):
        assert not (fetched / name).exists()
    fetching._absent.cache_clear()
    for name in ("zoo/cifar10/b.safetensors", "results/objects/c.csv.gz"):
        assert fetching.at_hand(fetched / name, fetched).read_text(encoding="utf-8") == name
    assert not (fetched / "zoo/a.safetensors").exists()
    assert not fetching.at_hand(fetched / "results/objects/none.csv", fetched).exists()
    published_at = Path(published.removeprefix("file://"))
    published_at.rename(published_at.with_name("gone.git"))
    with pytest.raises(OSError, match=r"git could not bring zoo/a\.safetensors: .*try again\.$"):
        fetching.at_hand(fetched / "zoo/a.safetensors", fetched)


def test_a_whole_checkout_fetches_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(fetching, "_git", lambda *_: pytest.fail("git was asked"))
    fetching._absent.cache_clear()
    assert fetching.at_hand(tmp_path / "none.csv", tmp_path) == tmp_path / "none.csv"


@pytest.mark.parametrize("at", ["tag", "address"])
def test_where_nothing_can_be_fetched_the_cell_gives_gits_own_words(published, tmp_path, at):
    place = tmp_path / "content"
    place.mkdir()
    ours = f"v{runtime.version()}"
    url, version = ("file:///nowhere", ours) if at == "address" else (published, "v9.9.9")
    done = run_cell(place, url, version=version)
    assert f"RuntimeError: Could not fetch {url} at {version}: fatal: " in done.stderr
    assert [each.suffix for each in place.iterdir()] == [".part"]  # what is half made says so
    assert run_cell(place, published).returncode == 0
    assert len(list(place.iterdir())) == 1 + (at == "tag")  # of the same version nothing is left


def test_without_git_the_cell_says_what_is_missing(tmp_path):
    done = run_cell(tmp_path, before="import os; os.environ['PATH'] = ''")
    assert "RuntimeError: The book is fetched with git: install it" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_pages_notebooks_fetch_the_commit_that_they_were_built_from(tmp_path, monkeypatch):
    monkeypatch.setenv("REPOSITORY_URL", "https://github.com/a/fork/")
    written = launch.write(runtime.ROOT, tmp_path)
    commit = launch.revision(runtime.ROOT)
    assert len(commit) == 40
    source = runtime.ROOT / "chapters/3_attention_sparsity.ipynb"
    for folder in ("launch/chapters", "html/_sources/chapters"):
        made = nbformat.read(tmp_path / folder / source.name, as_version=4)
        cell = next(cell for cell in made.cells if cell.cell_type == "code")
        line = f'URL, VERSION = "https://github.com/a/fork", "{commit}"'
        assert line in cell.source
        before = nbformat.read(source, as_version=4)
        assert made.cells[-1].source.startswith("## References")
        assert len(made.cells[:-1]) == len(before.cells)
        said = "\n".join(cell.source for cell in made.cells if cell.cell_type == "markdown")
        assert "{cite" not in said
        links = set(re.findall(r"\]\(([^)#]*\.(?:ipynb|md))", said))
        there = f"https://github.com/a/fork/blob/{commit}/"
        assert links
        assert all(link.startswith(there) for link in links)
        assert all((runtime.ROOT / link.removeprefix(there)).is_file() for link in links)
    assert len(written) == 2 * len(list((runtime.ROOT / "chapters").glob("*.ipynb")))


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        ("https://github.com/a/b.git", "https://github.com/a/b"),
        ("git@github.com:a/b.git", "https://github.com/a/b"),
        ("/some/folder", None),
        (None, None),
    ],
)
def test_what_is_published_nowhere_launches_nothing(origin, url, tmp_path, monkeypatch):
    monkeypatch.delenv("REPOSITORY_URL", raising=False)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    if origin:
        words = ["remote", "add", "origin", origin]
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    assert launch.repository(tmp_path) == url
    (tmp_path / "chapters").mkdir()
    assert launch.write(tmp_path, tmp_path / "built") == []  # it has no commit either


def test_setup_says_in_two_lines_that_fit_a_page_what_runs_where(capsys):
    device = runtime.setup()
    said = capsys.readouterr().out
    for word in (runtime.version(), device.type, torch.__version__, "timm"):
        assert word in said
    assert str(runtime.ROOT) not in said
    lines = said.splitlines()
    assert len(lines) == 2
    if device.type == "cpu":  # GPUs have long names
        assert max(map(len, lines)) <= 76


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


def test_setup_puts_the_checkout_first_and_leaves_foreign_modules_alone(monkeypatch, capsys):
    monkeypatch.setattr(sys, "path", ["/elsewhere", str(runtime.ROOT), "/further"])
    runtime.setup()
    assert sys.path[:3] == [str(runtime.ROOT), "/elsewhere", "/further"]
    foreign = types.ModuleType("experiments")
    foreign.__file__ = "/elsewhere/experiments.py"
    monkeypatch.setitem(sys.modules, "experiments", foreign)
    with pytest.raises(RuntimeError, match=r"called experiments is loaded, from /elsewhere"):
        runtime.setup()
    assert sys.modules["experiments"] is foreign


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


def test_only_what_is_missing_is_installed_and_the_runtimes_own_stay(pip, installed, capsys):
    versions = everything(torch="2.6.0+cu124", numpy="1.26.4", ipywidgets="7.6.5")
    del versions["timm"]
    installed(versions)
    assert runtime.install_missing() == ["timm>=1.0.27,<2"]
    ((command, constraints),) = pip.calls
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert command[command.index("--constraint") + 2 :] == ["timm>=1.0.27,<2"]
    assert {"torch==2.6.0+cu124", "numpy==1.26.4", "ipywidgets==7.6.5"} < set(constraints)
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
