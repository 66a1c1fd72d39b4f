"""Attention as a model's own unfused code computes it: what the probes are compared with."""

from contextlib import contextmanager

import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules import module as module_hooks

from helpers.model_families import Family

# How the unfused code of a layer lays out the axes of its softmax → its maps in the probe's order.
ARRANGE = {
    "": lambda w, heads: [w],
    "b h w q k": lambda w, heads: [w.transpose(1, 2).flatten(0, 1) if w.ndim == 5 else w],
    "b w h q k": lambda w, heads: [w.flatten(0, 1) if w.ndim == 5 else w],
    "b q k": lambda w, heads: [w[:, None]],
    "b (h 2) q k": lambda w, heads: [w[:, 0::2], w[:, 1::2]],
    "(b h) q k": lambda w, heads: [w.unflatten(0, (-1, heads))],
    "(b h) w q k": lambda w, heads: [
        w.unflatten(0, (-1, heads)).transpose(1, 2).flatten(0, 1)
        if w.ndim == 4
        else w.unflatten(0, (-1, heads))
    ],
}


def build(family: Family) -> tuple[nn.Module, torch.Tensor]:
    """A model with random weights, batch norm fitted to noise so that no attention is flat."""
    torch.manual_seed(0)
    model = timm.create_model(family.model, **family.options)
    images = torch.randn(2, 3, family.size, family.size)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    if norms:
        for norm in norms:
            norm.momentum = 1.0
        with torch.no_grad():
            model.train()(images)
    return model.eval(), images


@contextmanager
def every_softmax(model, monkeypatch, change):
    """`change(name, layer, weights)` takes the place of every softmax over keys that a layer makes.

    Independent of the probes: fusion is switched off, `Tensor.softmax` is replaced where it is over
    the last of three or more axes, and belongs to the innermost running module that is not torch's.
    """
    running = []
    names = {module: name for name, module in model.named_modules()}
    softmax = torch.Tensor.softmax

    def changed(x, dim=None, dtype=None):
        weights = softmax(x, dim=dim, dtype=dtype)
        if x.ndim >= 3 and dim in (-1, x.ndim - 1):
            owner = next(m for m in reversed(running) if not m.__module__.startswith("torch."))
            return change(names[owner], owner, weights)
        return weights

    def kernel(*args, **kwargs):
        raise AssertionError("a fused kernel ran in the reference")

    handles = [
        module_hooks.register_module_forward_pre_hook(lambda m, args: running.append(m)),
        module_hooks.register_module_forward_hook(
            lambda m, args, output: running.pop() and None, always_call=True
        ),
    ]
    fused = [m for m in model.modules() if getattr(m, "fused_attn", False)]
    try:
        for m in fused:
            m.fused_attn = False
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "softmax", changed)
            patch.setattr(F, "scaled_dot_product_attention", kernel)
            yield
    finally:
        for m in fused:
            m.fused_attn = True
        for handle in handles:
            handle.remove()
