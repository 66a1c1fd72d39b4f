"""`python -m benchmarks [TOPIC …]`: ratios to a floor, with quartiles and extra memory.

Contenders take turns, so that what else the machine does falls on all of them equally; each turn's
time is divided by that of the floor (a plain forward pass, unless the table begins otherwise)
around it. Memory is the peak of a process of its own over 64 images, above that of the floor. The
allocator is told to keep freed memory: otherwise page faults, which hit some contenders by chance,
decide the ratios.
"""

import argparse
import importlib
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

# Modules of this package. Each has CONTENDERS, BATCH (images a batch) and BATCHES (a turn), and may
# have TURNS, the batches of single suites, and IMAGES, how many a turn reads of its own.
TOPICS = ("reading", "ablating", "comparing", "loading")
ALLOCATOR = {  # glibc's; elsewhere they do nothing
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
}
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seconds(run, batches) -> float:
    started = time.perf_counter()
    run(batches)
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def noise(topic, count: int) -> list[torch.Tensor]:
    return [torch.randn(topic.BATCH, 3, 224, 224, device=DEVICE) for _ in range(count)]


def ratios(topic, suite: str, rounds: int) -> tuple[dict[str, np.ndarray], float]:
    """The times of all contenders by that of the floor, turn by turn, and its median in seconds."""
    make_model, contenders = topic.CONTENDERS[suite]
    batches = noise(topic, getattr(topic, "TURNS", {}).get(suite, topic.BATCHES))
    runs = {name: make(make_model().to(DEVICE)) for name, make in contenders.items()}
    floor, *others = runs
    found, floors = {name: [] for name in runs}, []
    with torch.inference_mode():
        for run in runs.values():
            run(batches)
        for _ in tqdm(range(rounds), suite, disable=None):
            for name in others:
                before, here = seconds(runs[floor], batches), seconds(runs[name], batches)
                after = seconds(runs[floor], batches)
                found[name].append(here / ((before + after) / 2))
                found[floor].append(after / before)
                floors += [before, after]
    return {name: np.array(values) for name, values in found.items()}, float(np.median(floors))


def peak_mib(topic: str, suite: str, contender: str) -> float:
    """Peak memory in MiB of a process of its own that reads 64 images: resident, or on the GPU."""
    command = [sys.executable, "-m", "benchmarks", "--peak", topic, suite, contender]
    # Freed blocks go back at once, so that the peak is what was alive, not how the heap broke up.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env=environment, encoding="utf-8"
    )
    return float(done.stdout)


def measure_peak(name: str, suite: str, contender: str) -> None:
    topic = importlib.import_module(f"benchmarks.{name}")
    make_model, contenders = topic.CONTENDERS[suite]
    run = contenders[contender](make_model().to(DEVICE))
    batches = noise(topic, 1) * (64 // topic.BATCH)
    with torch.inference_mode():
        kept = run(batches)
    print(own_peak_mib(), end="")
    del kept


def own_peak_mib() -> float:
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1024**2
    status = Path("/proc/self/status")
    if status.exists():  # Linux counts the parent's peak into a child's ru_maxrss
        line = next(
            line
            for line in status.read_text(encoding="utf-8").splitlines()
            if line.startswith("VmHWM")
        )
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def report(name: str, rounds: int) -> None:
    topic = importlib.import_module(f"benchmarks.{name}")
    for suite in topic.CONTENDERS:
        found, floor = ratios(topic, suite, rounds)
        base, images = None, getattr(topic, "IMAGES", None)
        rate = f"{'images/s':>12}" if images else ""
        print(f"\n{suite}\n{'':32}{'ratio':>8}{'quartiles':>16}{'extra MiB':>12}{rate}")
        for contender, values in found.items():
            low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
            peak = peak_mib(name, suite, contender)
            base = peak if base is None else base
            rate = f"{images / (middle * floor):12.0f}" if images else ""
            row = f"{contender:32}{middle:8.3f}{low:9.3f} {high:6.3f}{peak - base:12.0f}{rate}"
            print(row, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument(
        "topics", nargs="*", metavar="TOPIC", help=f"{', '.join(TOPICS)}; all unless named"
    )
    parser.add_argument("--rounds", type=int, default=30, help="turns of each contender")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.peak:
        measure_peak(*chosen.peak)
        return
    if unknown := set(chosen.topics) - set(TOPICS):
        parser.error(f"there is no topic {unknown.pop()!r}: choose from {', '.join(TOPICS)}")
    if not set(ALLOCATOR) <= set(os.environ):  # read when a process starts
        os.execve(
            sys.executable,
            [sys.executable, "-m", "benchmarks", *sys.argv[1:]],
            os.environ | ALLOCATOR,
        )
    machine = torch.cuda.get_device_name() if DEVICE.type == "cuda" else platform.machine()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {machine}")
    for name in chosen.topics or TOPICS:
        report(name, chosen.rounds)


if __name__ == "__main__":
    main()
