"""What all tests share. None of them asks the network, but for axe-core (see helpers/axe.py)."""

import ctypes
import gc
import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[1]
MEANT = 2.5  # GB that one process of the tests may have in memory at most
LEFT_BEHIND = 0.1  # GB after a test, from which on it is tidied up
peaks = []  # (GB, the test that needed them) of the processes that ran tests
largest = (0.0, "no test")  # of this process


def resident() -> float:
    """What this process has in memory, in GB; 0 where the system does not say."""
    pages = Path("/proc/self/statm")
    if not pages.exists():
        return 0
    return int(pages.read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e9


def most_resident() -> float:
    """The most that this process had in memory so far, in GB; 0 where the system does not say."""
    try:
        import resource
    except ImportError:  # on Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if sys.platform == "darwin" else peak * 1024 / 1e9


@pytest.fixture(autouse=True)
def tidied(request):
    """Memory that a test leaves behind is freed, and the test that needed most is remembered.

    Metrics refer to themselves, and the collector of such objects counts them, not their bytes.
    """
    global largest
    before = resident()
    yield
    largest = max(largest, (most_resident(), request.node.nodeid), key=lambda pair: pair[0])
    if resident() - before > LEFT_BEHIND:
        gc.collect()
        give_back()


def give_back() -> None:
    """Memory that is free goes back to the system, where its C library would keep it."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # of xdist, which brings it to the main process
        session.config.workeroutput["peak"] = largest


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    peaks.append(getattr(node, "workeroutput", {}).get("peak", largest))


def pytest_terminal_summary(terminalreporter):
    peak, test = max([*map(tuple, peaks), largest])
    terminalreporter.write_line(
        f"The largest process of the tests had {peak:.1f} GB in memory, in {test}; "
        f"at most {MEANT} GB are meant."
    )


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real images and recordings: `BOOK_DATA`, or `../shared/data`.

    Where there is none the test is skipped; in CI that fails if `../shared` is there, because
    then the data went missing. A test that gets the folder opens its files without asking
    whether they exist, so that a missing one fails.
    """
    folder = Path(os.environ.get("BOOK_DATA") or ROOT.parent / "shared/data")
    if folder.is_dir():
        return folder
    sentence = f"There are no data at {folder}: set BOOK_DATA to the folder that holds them."
    if os.environ.get("CI") == "true" and (ROOT.parent / "shared").is_dir():
        pytest.fail(sentence)
    pytest.skip(sentence)


@pytest.fixture(scope="session")
def tiny_data():
    """A problem that a tiny model learns in a second: 300 images, the class told by brightness."""
    import torch

    from experiments.training.views import Fixed

    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (300,), generator=generator)
    noise = 0.1 * torch.rand(300, 3, 32, 32, generator=generator)
    return Fixed(labels.view(-1, 1, 1, 1) / 10 + noise, labels)


@pytest.fixture(scope="session")
def tiny_recipe():
    """How a tiny model is trained on tiny_data."""
    from experiments.training.recipes import Recipe

    return Recipe(
        "adamw", lr=1e-2, weight_decay=0.05, batch_size=32, epochs=3, warmup=0.5, descent=2.5
    )
