"""`python -m benchmarks`: ratios to a plain forward pass, with quartiles and extra memory.

Contenders take turns, so that what else the machine does falls on all of them alike; each turn's
time is divided by that of the plain forward passes around it. Memory is the peak of a process of
its own over 64 images, above that of the plain forward pass. The allocator is told to keep freed
memory: otherwise page faults, which hit some contenders by chance, decide the ratios.
"""

import argparse
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

from benchmarks.reading import BATCH, CONTENDERS

ALLOCATOR = {  # glibc's; elsewhere they do nothing
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
}


BATCHES = 4  # a turn, so that making the metrics does not count for much


def seconds(run, batches) -> float:
    started = time.perf_counter()
    run(batches)
    return time.perf_counter() - started


def ratios(suite: str, rounds: int) -> dict[str, np.ndarray]:
    make_model, contenders = CONTENDERS[suite]
    batches = [torch.randn(BATCH, 3, 224, 224) for _ in range(BATCHES)]
    runs = {name: make(make_model()) for name, make in contenders.items()}
    floor, *others = runs
    found = {name: [] for name in runs}
    with torch.inference_mode():
        for run in runs.values():
            run(batches)
        for _ in tqdm(range(rounds), suite, disable=None):
            for name in others:
                before, here = seconds(runs[floor], batches), seconds(runs[name], batches)
                after = seconds(runs[floor], batches)
                found[name].append(here / ((before + after) / 2))
                found[floor].append(after / before)
    return {name: np.array(values) for name, values in found.items()}


def peak_mib(suite: str, contender: str) -> float:
    """Peak resident memory in MiB of a process of its own that reads 64 images."""
    command = [sys.executable, "-m", "benchmarks", "--peak", suite, contender]
    # Freed blocks go back at once, so that the peak is what was alive, not how the heap broke up.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout)


def measure_peak(suite: str, contender: str) -> None:
    make_model, contenders = CONTENDERS[suite]
    run = contenders[contender](make_model())
    batches = [torch.randn(BATCH, 3, 224, 224)] * (64 // BATCH)
    with torch.inference_mode():
        kept = run(batches)
    print(own_peak_mib(), end="")
    del kept


def own_peak_mib() -> float:
    status = Path("/proc/self/status")
    if status.exists():  # Linux counts the parent's peak into a child's ru_maxrss
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="turns of each contender")
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.peak:
        measure_peak(*chosen.peak)
        return
    if not set(ALLOCATOR) <= set(os.environ):  # read when a process starts
        os.execve(
            sys.executable,
            [sys.executable, "-m", "benchmarks", *sys.argv[1:]],
            os.environ | ALLOCATOR,
        )
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}")
    for suite in CONTENDERS:
        found = ratios(suite, chosen.rounds)
        base = None
        print(f"\n{suite}\n{'':32}{'ratio':>8}{'quartiles':>16}{'extra MiB':>12}")
        for name, values in found.items():
            low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
            peak = peak_mib(suite, name)
            base = peak if base is None else base
            print(f"{name:32}{middle:8.3f}{low:9.3f} {high:6.3f}{peak - base:12.0f}", flush=True)


if __name__ == "__main__":
    main()
