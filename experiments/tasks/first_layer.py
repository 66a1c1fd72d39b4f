"""The filters with which a Vision Transformer sees its patches: how like a Gabor each one is.

`python -m experiments.tasks.first_layer WEIGHTS.safetensors NAME` records them, next to noise of
their own colours, in results/first-layer.csv. Chapter 2.1.
"""

import base64
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import safetensors.torch
import torch

from experiments.engine.provenance import provenance
from experiments.engine.ranks import CPU
from experiments.engine.results import RESULTS, Results
from utils.measures import filters
from utils.models.checkpoints import sha256_of

TENSOR = "patch_embed.proj.weight"  # [filters, 3, h, h], as timm names it
SHOWN = 24  # filters whose pixels are kept, at even ranks of the fit

# `pixels` : base64 of int8 [3, h, h], scaled to the filter's own peak; empty for most.
COLUMNS = ("filter", "norm", "gabor_fit", "selectivity", "pixels")


def rows(weights: torch.Tensor) -> Iterator[dict]:
    """One row for each filter [n, 3, h, h]."""
    fit, selectivity = filters.gabor_fit(weights), filters.orientation_selectivity(weights)
    ranks = torch.linspace(0, len(fit) - 1, min(SHOWN, len(fit))).round().long()
    shown = set(fit.argsort()[ranks].tolist())
    for i, each in enumerate(weights):
        scaled = (127 * each / each.abs().max()).round().to(torch.int8)
        yield {
            "filter": i,
            "norm": each.norm().item(),
            "gabor_fit": fit[i].item(),
            "selectivity": selectivity[i].item(),
            "pixels": base64.b64encode(scaled.numpy().tobytes()).decode() if i in shown else "",
        }


def record(weights: Path, name: str, file: Path) -> None:
    """Write the filters of a checkpoint, and as many of noise, to a table."""
    first = safetensors.torch.load_file(weights)[TENSOR].double()
    noise = filters.noise_like(first, len(first))
    results = Results(file, COLUMNS, {"command": "first_layer", "tensor": TENSOR})
    results.begin(provenance(CPU))
    for condition, values in ((name, first), (f"{name} noise", noise)):
        started = perf_counter()
        found = list(rows(values))
        seconds = round(perf_counter() - started, 2)
        about = {"weights": sha256_of(weights), "seconds": seconds, "damaged": []}
        results.add(condition, found, about)


if __name__ == "__main__":
    record(Path(sys.argv[1]), sys.argv[2], RESULTS / "first-layer.csv")
