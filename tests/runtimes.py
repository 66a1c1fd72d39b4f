"""`make test-runtime`: the set-up cell and two chapters in environments that are not the book's.

Each environment is made from nothing by uv, in a temporary folder, and removed after it; a bare
clone stands in for the network's repository. `python tests/runtimes.py NAME…` tries some of them.
Not a part of `make test`: an environment takes minutes and up to 6 GB.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = ("1_introduction", "3_attention_sparsity")
KERNEL = ("ipykernel", "nbclient", "nbformat", "pip")  # what runs a notebook
# Root writes wherever it likes, unless it gives that up.
SETPRIV = shutil.which("setpriv") if hasattr(os, "geteuid") and not os.geteuid() else None
LIKE_ANYBODY = [SETPRIV, "--bounding-set=-dac_override,-dac_read_search"] if SETPRIV else []
RUN = """
import sys, nbformat, nbclient
notebook = nbformat.read(sys.argv[1], as_version=4)
client = nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3")
client.execute()
print("".join(out.get("text", "") for out in notebook.cells[1].outputs).strip().splitlines()[-1])
"""


@dataclass(frozen=True)
class Runtime:
    """An environment, and what is special about where the chapter is opened.

    Attributes:
        asks: What is tried.
        python: A version, which is left out where uv finds none.
        has: Requirements that are there before the set-up cell is run.
        kept: Packages whose versions the set-up may not change.
        resolution: Of uv.
        place: "empty" folder, "checkout", or "read-only" checkout.
        git: Whether git is there.
        module: Name of an empty module that is importable, as in a hosted runtime.
    """

    asks: str
    python: str = "3.11"
    has: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    resolution: str = "highest"
    place: str = "empty"
    git: bool = True
    module: str = ""


def dependencies() -> tuple[str, ...]:
    """What the chapters import, as pyproject.toml asks for it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return tuple(project["dependencies"])


HOSTED = ("torch==2.11.0", "torchvision==0.26.0", "ipywidgets==7.7.1", "numpy", "pandas", "scipy")
RUNTIMES = {
    "hosted": Runtime(
        "a hosted runtime, with its own torch and an old ipywidgets",
        has=(*HOSTED, "matplotlib"),
        kept=("torch", "torchvision", "numpy", "ipywidgets"),
        module="google.colab",
    ),
    "lowest": Runtime(
        "the lowest versions allowed", has=dependencies(), resolution="lowest-direct"
    ),
    "3.12": Runtime("a runtime with nothing at all", python="3.12"),
    "newest": Runtime("the newest of everything", python="3.13", has=dependencies()),
    "3.14": Runtime("the newest Python", python="3.14", has=dependencies()),
    "read-only": Runtime("a checkout that is read-only", has=dependencies(), place="read-only"),
    "no git": Runtime("a copy without git", has=dependencies(), place="checkout", git=False),
}


def published(folder: Path) -> tuple[str, str]:
    """A bare clone that answers as a host does, and the commit that it is at."""
    bare = folder / "published.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(ROOT), str(bare)], check=True)
    for key in ("allowFilter", "allowAnySHA1InWant"):
        words = ["git", "-C", str(bare), "config", f"uploadpack.{key}", "true"]
        subprocess.run(words, check=True)
    words = ["git", "-C", str(bare), "rev-parse", "HEAD"]
    return bare.as_uri(), subprocess.run(
        words, capture_output=True, text=True, encoding="utf-8"
    ).stdout.strip()


def made(runtime: Runtime, folder: Path) -> Path:
    """The Python of a fresh environment."""
    uv = [sys.executable, "-m", "uv"]
    venv = folder / "venv"
    subprocess.run([*uv, "venv", "-q", "--python", runtime.python, str(venv)], check=True)
    python = venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    install = [*uv, "pip", "install", "-q", "--python", str(python)]
    subprocess.run([*install, *KERNEL], check=True)
    if runtime.has:
        subprocess.run([*install, "--resolution", runtime.resolution, *runtime.has], check=True)
    if runtime.module:
        site = subprocess.run(
            [python, "-c", "import site; print(site.getsitepackages()[0])"],
            capture_output=True,
            text=True,
            check=True,
            encoding="utf-8",
        )
        module = Path(site.stdout.strip(), *runtime.module.split("."))
        module.mkdir(parents=True)
        (module / "__init__.py").touch()
    return python


def versions(python: Path, names: tuple[str, ...]) -> dict[str, str]:
    """The installed versions of packages."""
    code = f"import importlib.metadata as m; print(*(m.version(n) for n in {names!r}))"
    done = subprocess.run(
        [python, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    return dict(zip(names, done.stdout.split(), strict=True))


def tried(runtime: Runtime) -> list[str]:
    """What went wrong in a runtime; empty where nothing did."""
    sys.path.insert(0, str(ROOT))
    from utils.book.launch import launched

    faults = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url, commit = published(folder)
        python = made(runtime, folder)
        before = versions(python, runtime.kept)
        place = folder / "place"
        if runtime.place == "empty":
            place.mkdir()
        else:
            subprocess.run(["git", "clone", "-q", url, str(place)], check=True)
            place /= "chapters"
        path = os.environ["PATH"].split(os.pathsep)
        if not runtime.git:
            shutil.rmtree(place.parent / ".git")
            path = [entry for entry in path if not (Path(entry) / "git").exists()]
        if runtime.place == "read-only":
            subprocess.run(["chmod", "-R", "a-w", str(place.parent)], check=True)
        environment = os.environ | {"PATH": os.pathsep.join([str(python.parent), *path])}
        environment |= {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        # Nothing of git's is at work in the folder any more when it is removed.
        environment |= {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "gc.auto"}
        environment |= {"GIT_CONFIG_VALUE_0": "0"}
        for chapter in CHAPTERS:
            text = (ROOT / "chapters" / f"{chapter}.ipynb").read_text(encoding="utf-8")
            notebook = folder / f"{chapter}.ipynb"
            notebook.write_text(launched(text, url, commit), encoding="utf-8")
            command = [*LIKE_ANYBODY, str(python), "-c", RUN, str(notebook)]
            started = time.perf_counter()
            done = subprocess.run(
                command,
                cwd=place,
                env=environment,
                capture_output=True,
                text=True,
                encoding="utf-8",
            )
            if done.returncode:
                faults.append(f"{chapter}: {done.stderr.strip().splitlines()[-1]}")
            else:
                seconds = time.perf_counter() - started
                print(f"  {chapter}: {done.stdout.strip()} It took {seconds:.0f} s.", flush=True)
        faults += [
            f"{name} was {before[name]} and is {now}"
            for name, now in versions(python, runtime.kept).items()
            if now != before[name]
        ]
        if runtime.place == "read-only":
            subprocess.run(["chmod", "-R", "u+w", str(place.parent)], check=True)
    return faults


def main(names: list[str]) -> int:
    """Try the runtimes of these names, all without any; the exit status.

    One whose Python is not there is left out; in CI, where all are meant to be there, it failed.
    """
    failed, left_out = [], []
    for name in names or RUNTIMES:
        find = [sys.executable, "-m", "uv", "python", "find", "--no-python-downloads"]
        if subprocess.run([*find, RUNTIMES[name].python], capture_output=True).returncode:
            print(f"{name}: left out, for there is no Python {RUNTIMES[name].python} here.")
            left_out.append(name)
            continue
        started = time.perf_counter()
        print(f"{name}: {RUNTIMES[name].asks}", flush=True)
        try:
            faults = tried(RUNTIMES[name])
        except subprocess.CalledProcessError as error:
            faults = [f"it could not be made: {error}"]
        print("".join(f"  {fault}\n" for fault in faults), end="")
        print(f"  {'failed' if faults else 'passed'}, {time.perf_counter() - started:.0f} s")
        failed += [name] * bool(faults)
    print(
        f"{len(names or RUNTIMES) - len(left_out)} runtimes tried; failed: "
        f"{', '.join(failed) or 'none'}; left out: {', '.join(left_out) or 'none'}."
    )
    return bool(failed or (left_out and os.environ.get("CI") == "true"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
