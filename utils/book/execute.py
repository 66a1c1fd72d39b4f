"""Run the cells of chapters, several chapters at a time, into the cache that pages are made from.

Jupyter Book runs one chapter after the other, and only what it does not find there: what fails here
it runs once more, and says why it fails. `python -m utils.book.execute` in the folder of a book.
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbformat
import yaml
from jupyter_cache import get_cache
from jupyter_cache.base import CacheBundleIn, JupyterCacheAbstract
from jupyter_cache.executors.utils import ExecutionResult, single_nb_execution
from sphinx_external_toc.parsing import parse_toc_yaml
from tqdm import tqdm

AT_ONCE = 2  # kernels, of which each may take 1.5 GB


def execute(root: Path) -> None:
    """Run the notebooks in the contents of the book below `root` that its cache does not hold."""
    cache = get_cache(root / "_build/.jupyter_cache")
    settings = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    seconds = settings["execute"]["timeout"]
    pages = [root / f"{name}.ipynb" for name in parse_toc_yaml(root / "_toc.yml")]
    waiting = [path for path in pages if path.is_file() and not held(cache, path)]
    with ThreadPoolExecutor(min(AT_ONCE, os.cpu_count() or 1)) as pool:
        running = {pool.submit(_run, path, seconds): path for path in waiting}
        try:
            for one in tqdm(as_completed(running), "Chapters run", len(running), disable=None):
                _keep(cache, running[one], one.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def held(cache: JupyterCacheAbstract, path: Path) -> bool:
    """Whether a cache has what the cells of a notebook give."""
    try:
        cache.match_cache_notebook(nbformat.read(path, as_version=4))
    except KeyError:
        return False
    return True


def _run(path: Path, seconds: int) -> ExecutionResult:
    notebook = nbformat.read(path, as_version=4)
    return single_nb_execution(notebook, cwd=str(path.parent), timeout=seconds, allow_errors=False)


def _keep(cache: JupyterCacheAbstract, path: Path, result: ExecutionResult) -> None:
    if result.err is None:
        data = {"execution_seconds": result.time}
        bundle = CacheBundleIn(result.nb, str(path), data=data)
        cache.cache_notebook_bundle(bundle, check_validity=False, overwrite=True)


if __name__ == "__main__":
    sys.exit(execute(Path.cwd()))
