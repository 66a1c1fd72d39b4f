"""The set-up that every chapter runs first: find the book, choose the device, seed, say what runs.

Only the standard library is imported at the top, because on a borrowed runtime (Colab, Kaggle)
this module is what installs the rest.
"""

import importlib
import importlib.metadata
import importlib.util
import random
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NAME = "seeing-sparsely"
PAGES = "SEEING_SPARSELY_PAGES"  # set while pages are rendered, behind which no kernel is

# The first code cell of every chapter, letter for letter: `python -m utils.book.runtime` writes it
# into all, and the tests compare. It has to stand alone: outside a checkout there is nothing yet to
# import. What it fetches leaves weights and tables behind, which come when they are opened first
# (utils.fetching). In the notebooks that the pages launch, URL and VERSION are what the pages were
# built from (utils.book.launch): a commit, whose hash git compares with what it fetched.
SETUP_CELL = """\
# @title Set-up
# The same in every chapter: finds the book, or fetches it where there is none.
import shutil
import subprocess
import sys
from pathlib import Path

URL, VERSION = "https://github.com/seeing-sparsely/seeing-sparsely", "v0.1.0"
home = Path.cwd() / f"seeing-sparsely-{VERSION[:9]}"
above = [Path.cwd(), *Path.cwd().parents]
book = next((p for p in above if (p / "utils/book/runtime.py").is_file()), home)
if not book.is_dir():
    if not shutil.which("git"):
        raise RuntimeError("The book is fetched with git: install it, then retry.")
    part = home.with_name(f"{home.name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of an attempt that was interrupted
    part.mkdir()
    left_out = "!/tests/ !/zoo/**/*.safetensors !/results/*/*.csv*"
    for words in (
        "init -q",
        f"remote add origin {URL}",
        f"sparse-checkout set --no-cone /* {left_out}",
        f"fetch -q --depth 1 --filter=blob:none origin {VERSION}",
        "checkout -q FETCH_HEAD",
    ):
        command = ["git", *words.split()]
        git = subprocess.run(command, cwd=part, capture_output=True, text=True)
        if git.returncode:
            why = git.stderr.strip()
            raise RuntimeError(f"Could not fetch {URL} at {VERSION}: {why}")
    part.rename(home)
loaded = getattr(sys.modules.get("utils"), "__file__", None)
if "utils" in sys.modules and not str(loaded).startswith(str(book)):
    raise RuntimeError("Another utils is loaded: restart, and run this cell first.")
sys.path.insert(0, str(book))
from utils.book import runtime

device = runtime.setup(install=book == home)
"""

# Folded in the page, in JupyterLab and in Colab.
SETUP_METADATA = {
    "cellView": "form",
    "jupyter": {"source_hidden": True},
    "mystnb": {"code_prompt_hide": "Hide set-up", "code_prompt_show": "Set-up"},
    "tags": ["hide-input"],
}

# A runtime's own builds of these fit its driver, its page and each other: never replaced.
PROTECTED = ("torch", "torchvision", "numpy", "ipywidgets")


def version() -> str:
    """The book's version.

    Returns:
        What this checkout's pyproject.toml or the installed package states, such as "0.1.0".
    """
    return _project()["version"] if _in_checkout() else importlib.metadata.version(NAME)


def setup(seed: int = 0, install: bool = False):
    """Make this Python ready for a chapter and say what runs where.

    Puts this checkout first on the path, seeds Python, NumPy and PyTorch, applies the figure
    style. Used by every chapter.

    Args:
        seed: An integer from 0 to 2**32 - 1.
        install: Whether to install missing dependencies first: for a fetched copy on a borrowed
            runtime.

    Returns:
        The `torch.device`, CUDA if there is one, else Apple's MPS, else the CPU.

    Raises:
        ValueError: For any other seed.
        RuntimeError: If pip fails.
    """
    if not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise ValueError(f"The seed must be an integer from 0 to 2**32 - 1, not {seed!r}.")
    if __name__.startswith("utils."):  # as seeing_sparsely it leaves a user's own utils alone
        _put_checkout_first()
    if install:
        install_missing()
    import numpy
    import timm
    import torch

    from . import plotting

    random.seed(seed)
    numpy.random.seed(seed)  # noqa: NPY002 - libraries still draw from the global generator
    torch.manual_seed(seed)
    plotting.use_style()
    device, name = _device()
    print(
        f"Seeing Sparsely {version()} runs on {name}: about a minute a chapter.\n"
        f"torch {torch.__version__}, timm {timm.__version__}"
    )
    return device


def install_missing() -> list[str]:
    """Install with pip the dependencies of the book that are not there, and nothing else.

    Those of `PROTECTED` that are there stay exactly as they are.

    Returns:
        The requirements that were installed; an empty list means that pip was not called.

    Raises:
        RuntimeError: If pip fails.
    """
    missing = [
        requirement for requirement in _project()["dependencies"] if _is_missing(requirement)
    ]
    if not missing:
        return []
    pins = [f"{name}=={found}" for name in PROTECTED if (found := _installed(name))]
    print(f"Installing {', '.join(missing)}; staying with {', '.join(pins) or 'what is there'}.")
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(pins), encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", str(constraints)]
        done = subprocess.run([*pip, *missing])
    if done.returncode:
        raise RuntimeError(
            f"pip could not install {', '.join(missing)} next to {', '.join(pins) or 'Python'}: "
            "read its message above, install these by hand, and run the cell again."
        )
    importlib.invalidate_caches()
    return missing


def _in_checkout() -> bool:
    """Whether this file lies in a checkout, whichever name it was imported by."""
    return (ROOT / "pyproject.toml").is_file()


def _put_checkout_first() -> None:
    """Make `utils` and `experiments` those of this checkout; RuntimeError for others in use."""
    sys.path[:] = [str(ROOT), *(entry for entry in sys.path if entry != str(ROOT))]
    for name in ("utils", "experiments"):
        module = sys.modules.get(name)
        folders = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
        places = [Path(folder).resolve() for folder in folders if folder]
        if any(not place.is_relative_to(ROOT) for place in places):
            raise RuntimeError(
                f"Another module called {name} is loaded, from {places[0]}: restart the kernel, "
                "and run the set-up cell first."
            )


def _device():
    """The best device and the name it goes by."""
    import torch

    if torch.cuda.is_available():
        return torch.device("cuda"), f"cuda ({torch.cuda.get_device_name()})"
    if torch.backends.mps.is_available():
        return torch.device("mps"), "mps (Apple GPU)"
    return torch.device("cpu"), "cpu"


def _project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _is_missing(requirement: str) -> bool:
    """Whether a requirement such as "timm>=1.0.12,<2" is absent, or there in an unfit version."""
    name = re.match(r"[\w.-]+", requirement)[0]
    found = _installed(name)
    if name in PROTECTED:
        # A build put on the path by hand has no metadata, but is there all the same.
        return found is None and importlib.util.find_spec(name) is None
    if found is None:
        return True
    try:
        from packaging.requirements import Requirement
    except ImportError:  # without `packaging` a version cannot be judged, only presence
        return False
    return not Requirement(requirement).specifier.contains(found, prereleases=True)


def _write_into_chapters() -> None:
    """Put the set-up cell into every chapter that has one."""
    import json

    for path in sorted((ROOT / "chapters").glob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        cell = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
        cell["source"] = SETUP_CELL.rstrip("\n").splitlines(keepends=True)
        cell["metadata"] = SETUP_METADATA
        text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _write_into_chapters()
