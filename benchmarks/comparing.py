"""Comparing layers by CKA: ours, Gram matrices in float64, and Gram matrices again for each pair.

`CONTENDERS` maps a suite to its model and contenders, the one that all are compared with first.
"""

from collections.abc import Callable
from itertools import product

import timm
import torch
from torch import Tensor, nn

from utils.measures.similarity import MinibatchCKA
from utils.probes import ActivationRecorder

BATCH = 8
BATCHES = 4  # a turn, so that making the metric does not count for much
LAYERS = "blocks.?", "blocks.1?"


def deit() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("deit_tiny_patch16_224").eval()


def plain(model: nn.Module) -> Callable:
    return lambda batches: [model(x) for x in batches]


def recorded(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    with ActivationRecorder(model, LAYERS) as record:
        model(x)
    return record.outputs


def features_kept(model: nn.Module) -> Callable:
    def run(batches):
        for x in batches:
            recorded(model, x)

    return run


def ours(model: nn.Module) -> Callable:
    def run(batches):
        metric = MinibatchCKA()
        for x in batches:
            metric.update(recorded(model, x))
        return metric.compute()

    return run


def hsic(k: Tensor, m: Tensor) -> Tensor:
    """The unbiased HSIC of two Gram matrices without diagonal, as Song et al. write it."""
    n, one = len(k), torch.ones(len(k), dtype=k.dtype, device=k.device)
    whole = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return (torch.trace(k @ m) + whole - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))


def gram(x: Tensor, dtype: torch.dtype) -> Tensor:
    x = x.flatten(1).to(dtype)
    return (x @ x.mT).fill_diagonal_(0)


def pair_by_pair(model: nn.Module) -> Callable:
    """The three HSICs of every pair from features; float32, not centred."""

    def run(batches):
        sums = torch.zeros(3, 12, 12)
        for x in batches:
            layers = list(recorded(model, x).values())
            for i, j in product(range(12), repeat=2):
                k, m = (gram(layers[layer], torch.float32) for layer in (i, j))
                sums[:, i, j] += torch.stack([hsic(k, m), hsic(k, k), hsic(m, m)]).cpu()
        cross, own_a, own_b = sums
        return cross / (own_a * own_b).sqrt()

    return run


def once_in_float64(model: nn.Module) -> Callable:
    """One Gram matrix a layer, in float64 throughout."""

    def run(batches):
        cross = torch.zeros(12, 12, dtype=torch.float64)
        for x in batches:
            grams = [gram(values, torch.float64) for values in recorded(model, x).values()]
            for i, j in product(range(12), repeat=2):
                cross[i, j] += hsic(grams[i], grams[j]).cpu()
        own = cross.diagonal().sqrt()
        return cross / torch.outer(own, own)

    return run


CONTENDERS = {
    "CKA of 12 × 12 layers (deit_tiny, 224 px, batch 8)": (
        deit,
        {
            "plain forward": plain,
            "features kept, no CKA": features_kept,
            "ours": ours,
            "float64, a Gram matrix a layer": once_in_float64,
            "float32, pair by pair": pair_by_pair,
        },
    )
}
