"""Seeing or changing attention weights as they are computed, inside fused kernels or outside."""

import inspect
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

SOFTMAX = (Tensor.softmax, torch.softmax, F.softmax, torch.special.softmax)
MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


class AttentionReader(TorchFunctionMode):
    """While it is entered, hands the weights of every attention that is computed to `deliver`.

    Args:
        choose: `choose(shape, inner)` says which queries to read of a softmax of that shape
            [..., queries, keys], as a slice, or None for none; `inner` is the width of a query,
            None if unknown.
        deliver: `deliver(weights, strides)` gets the chosen rows, float32 at least, free to keep;
            `strides` are those of the scores or keys.
        skip: `skip(reason)` is told of a softmax that is no map from queries to keys.
        edit: `edit(weights, strides)` returns what the model goes on with in place of the chosen
            rows, before dropout, or None to leave them as they are. Without it nothing is changed:
            where gradients are recorded, not even the kernel, for gradient checkpointing compares
            what it computes twice.
    """

    def __init__(
        self,
        choose: Callable[[tuple[int, ...], int | None], slice | None],
        deliver: Callable[[Tensor, tuple[int, ...]], None],
        skip: Callable[[str], None],
        edit: Callable[[Tensor, tuple[int, ...]], Tensor | None] | None = None,
    ) -> None:
        super().__init__()
        self.choose, self.deliver, self.skip = choose, deliver, skip
        self.edits = edit is not None
        self.edit = edit or (lambda weights, strides: None)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._fused(func, *args, **kwargs)
        if func in SOFTMAX:
            return self._softmax(func, args, kwargs)
        if func is F.multi_head_attention_forward:
            return self._multi_head(func, args, kwargs)
        return func(*args, **kwargs)

    def _fused(
        self,
        func,
        query,  # [..., queries, width]
        key,  # [..., keys, width]
        value,
        attn_mask=None,
        dropout_p=0.0,
        is_causal=False,
        **options,  # scale, enable_gqa
    ):
        def kernel():
            return func(query, key, value, attn_mask, dropout_p, is_causal, **options)

        shape = (*query.shape[:-1], key.shape[-2])
        rows = self.choose(shape, query.shape[-1])
        if rows is None:
            return kernel()
        everything = rows == slice(None) and (self.edits or not torch.is_grad_enabled())
        output = None
        if not everything:
            output, query, key = kernel(), query.detach(), key.detach()
        device = query.device.type
        if torch.is_autocast_enabled(device):  # what the kernel would see
            dtype = torch.get_autocast_dtype(device)
            query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        recorded = everything and torch.is_grad_enabled()
        with torch.autocast(device, enabled=False), torch.set_grad_enabled(recorded):
            if is_causal:
                attn_mask = torch.ones(shape[-2:], dtype=torch.bool, device=query.device).tril()
            if attn_mask is not None and attn_mask.shape[-2] > 1:
                attn_mask = attn_mask[..., rows, :]
            if options.pop("enable_gqa", False):
                groups = query.shape[-3] // key.shape[-3]
                key, value = (t.repeat_interleave(groups, dim=-3) for t in (key, value))
            weights = _weights(query[..., rows, :], key, attn_mask, **options)
            edited = self.edit(weights, key.stride())
            if everything:
                used = weights if edited is None else edited
                output = F.dropout(used, dropout_p).to(value.dtype) @ value
            elif edited is not None:
                output[..., rows, :] = F.dropout(edited, dropout_p).to(value.dtype) @ value
            self.deliver(weights, key.stride())
        return output

    def _softmax(self, func, args, kwargs):
        weights = func(*args, **kwargs)
        axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
        if weights.ndim < 3 or axis not in (-1, weights.ndim - 1):
            shape = list(weights.shape)
            self.skip(f"its softmax over axis {axis} of {shape} is no query × key map")
            return weights
        rows = self.choose(weights.shape, None)
        if rows is not None:
            recorded = self.edits and torch.is_grad_enabled()
            device = weights.device.type
            with torch.autocast(device, enabled=False), torch.set_grad_enabled(recorded):
                # A copy, in float32 at least: the layer may go on to change its own in place.
                scores = (kwargs["input"] if "input" in kwargs else args[0])[..., rows, :]
                wide = torch.promote_types(weights.dtype, torch.float32)
                if wide == weights.dtype:
                    copy = weights[..., rows, :].clone()
                else:
                    copy = scores.to(wide).softmax(-1)
                if (edited := self.edit(copy, scores.stride())) is not None:
                    weights[..., rows, :] = edited.to(weights.dtype)
                self.deliver(copy, scores.stride())
        return weights

    def _multi_head(self, func, args, kwargs):
        # nn.MultiheadAttention: ask for the weights of each head, and answer as it was asked.
        given = MULTI_HEAD.bind(*args, **kwargs)
        given.apply_defaults()
        plain = given.args, given.kwargs
        asked, averaged = (given.arguments[n] for n in ("need_weights", "average_attn_weights"))
        drops = given.arguments["training"] and given.arguments["dropout_p"] > 0
        beside = not self.edits and (torch.is_grad_enabled() or drops)
        given.arguments.update(need_weights=True, average_attn_weights=False)
        if beside:
            given.arguments.update(dropout_p=0.0)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not beside):
            output, weights = func(*given.args, **given.kwargs)  # [(batch,) heads, queries, keys]
        batched = weights if weights.ndim == 4 else weights[None]
        rows = self.choose(batched.shape, None)
        if rows is not None:
            with torch.autocast(weights.device.type, enabled=False):
                wide = torch.promote_types(weights.dtype, torch.float32)
                copy = batched[..., rows, :].to(wide, copy=True)
                edited = self.edit(copy, copy.stride())
                self.deliver(copy, copy.stride())
            if edited is not None:
                batched[..., rows, :] = edited.to(weights.dtype)
                output = _attended(weights, given.arguments)
        if beside:
            return func(*plain[0], **plain[1])
        if not asked:
            return output, None
        return output, weights.mean(-3) if averaged else weights


def _attended(weights: Tensor, given: dict) -> Tensor:
    """What F.multi_head_attention_forward puts out for weights [(batch,) heads, queries, keys]."""
    extra = ("bias_k", "bias_v", "static_k", "static_v")
    if given["add_zero_attn"] or any(given[name] is not None for name in extra):
        raise ValueError(
            "The attention of this nn.MultiheadAttention cannot be changed, for it adds keys of "
            "its own (add_zero_attn, bias_k or static_k)."
        )
    values, width = given["value"], given["embed_dim_to_check"]  # [keys, (batch,) width]
    bias = given["in_proj_bias"]
    project = (
        given["v_proj_weight"]
        if given["use_separate_proj_weight"]
        else given["in_proj_weight"][2 * width :]
    )
    values = F.linear(values, project, None if bias is None else bias[2 * width :])
    values = values.unflatten(-1, (given["num_heads"], -1)).movedim(0, -2)
    mixed = (weights.to(values.dtype) @ values).movedim(-2, 0).flatten(-2)
    return F.linear(mixed, given["out_proj_weight"], given["out_proj_bias"])


def _weights(query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None = None) -> Tensor:
    """softmax(query keyᵀ · scale + mask) in float32 at least: [..., queries, keys].

    A boolean mask is True where a key takes part; a row without any key is 0, as in the kernel.
    """
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    wide = torch.promote_types(query.dtype, torch.float32)
    # For one row, a product with the transpose of keys out of order takes 2.5 times as long.
    scores = (query.to(wide) * scale) @ key.to(wide).contiguous().mT
    if mask is None:
        return scores.softmax(-1)
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=wide).masked_fill(~mask, -math.inf)
    empty = mask.isneginf().all(-1, keepdim=True)
    return (scores + mask).softmax(-1).masked_fill(empty, 0)
