"""Ablation the slow way, for comparison: one whole eager forward pass a condition.

Independent of the code under test: timm's attention is unfused and its map changed by a hook on the
dropout behind the softmax, entry by entry; what modules put out is changed by a hook.
"""

import torch
from torch import nn


def lively(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """The model in eval mode with weights under which every layer matters."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.MultiheadAttention):
                weight = getattr(module, "in_proj_weight", getattr(module, "weight", None))
                weight.normal_(std=1.5 * weight.shape[1] ** -0.5, generator=generator)
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = 1.0
                module.weight.uniform_(0.5, 1.5, generator=generator)
        for name, parameter in model.named_parameters():
            if parameter.abs().max() < 2e-2 and not name.endswith("bias"):  # layer scale, say
                parameter.uniform_(0.2, 0.7, generator=generator)
        model.train()(images)
    return model.eval()


def changed_map(spec, weights, mean=None):
    """A map [batch, heads, queries, keys] with the entries of a spec changed one by one."""
    maps, heads, queries, keys = weights.shape
    after = weights.clone()
    for m in range(maps):
        for h in range(heads):
            if spec.heads is not None and h not in spec.heads:
                continue
            chosen = torch.ones(keys)
            if spec.keys is not None:
                given = spec.keys[m] if spec.keys.ndim == 2 else spec.keys[m, h]
                chosen = given
                if not given.is_floating_point():
                    chosen = torch.zeros(keys)
                    for key in given.tolist():
                        chosen[key] = 1
            for q in range(1 if spec.query_rows == "class" else queries):
                row = weights[m, h, q].clone()
                put = mean[h, q] if spec.value == "mean" else torch.zeros(keys)
                row = torch.lerp(row, put.to(row), chosen.to(row))
                if spec.value == "renormalise":
                    row = row / row.sum()
                after[m, h, q] = row
    return after


def changed_output(spec, output, mean=None):
    """What a module puts out [batch, …] with the channels or units of a spec changed one by one."""
    after = output.clone()
    mean = torch.zeros(output.shape[1:]) if mean is None else mean.expand(output.shape[1:])
    if spec.channels is not None:
        for image in range(len(output)):
            given = spec.channels if spec.channels.ndim == 1 else spec.channels[image]
            for channel in given.tolist():
                at = (channel,) if output.ndim == 4 else (..., channel)
                after[image][at] = mean[at]
    else:
        flat = after.flatten(1)
        for image, units in enumerate(spec.units):
            if units.is_floating_point():
                flat[image] = torch.lerp(flat[image], mean.flatten(), units)
            else:
                flat[image, units] = mean.flatten()[units]
        after = flat.view_as(after)
    return after


@torch.no_grad()
def naive(model, images, specs, means=None):
    """Logits [batch, classes] of one condition."""
    handles, fused = [], [m for m in model.modules() if getattr(m, "fused_attn", False)]
    for module in fused:
        module.fused_attn = False
    for spec in specs:
        module, change = model.get_submodule(spec.layer), changed_output
        if spec.on_attention:
            module, change = module.attn_drop, changed_map
        mean = means[spec.layer] if spec.value == "mean" else None
        handles.append(
            module.register_forward_hook(
                lambda _, args, output, spec=spec, change=change, mean=mean: change(
                    spec, output, mean
                )
            )
        )
    try:
        return model(images)
    finally:
        for handle in handles:
            handle.remove()
        for module in fused:
            module.fused_attn = True


def naive_all(model, images, conditions, means=None):
    """Logits [conditions, batch, classes]."""
    lists = [c if isinstance(c, list | tuple) else [c] for c in conditions]
    return torch.stack([naive(model, images, specs, means) for specs in lists])
