"""Changing a running forward pass: attention weights, and what modules put out."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from ..attention import AttentionProbe
from ..attention_reader import AttentionReader
from ..channels import channel_axis
from ..hooks import Probe
from .specs import AblationSpec, checked_set


def _shares(index: Tensor, size: int, layer: str, name: str) -> Tensor:
    """Shares [..., size] from indices [..., k] or shares [..., size]."""
    if index.is_floating_point():
        if index.shape[-1] != size:
            raise ValueError(
                f"The ablation of {layer!r} has shares for {index.shape[-1]} {name}, but the "
                f"layer has {size}."
            )
        return index
    if index.numel() and int(index.max()) >= size:
        raise ValueError(
            f"The ablation of {layer!r} has {name} out of range: {int(index.max())}, but the "
            f"layer has {size}, counted from 0."
        )
    return torch.zeros((*index.shape[:-1], size), device=index.device).scatter_(-1, index, 1.0)


def _fit(value: Tensor, shape: tuple[int, ...], layer: str, name: str = "mean") -> Tensor:
    fits = value.ndim == len(shape) and all(
        n in (1, wanted) for n, wanted in zip(value.shape, shape, strict=True)
    )
    if not fits:
        raise ValueError(
            f"The {name} of {layer!r} has shape {list(value.shape)}, which is not {list(shape)}."
        )
    return value


def edit_weights(spec: AblationSpec, weights: Tensor, means: Mapping[str, Tensor]) -> Tensor:
    """Attention weights after an ablation.

    Args:
        spec: What is ablated; its layer is named.
        weights: [maps, heads, queries, keys] of all queries, or at least the class token's first.
        means: Layer → what value="mean" puts in.

    Returns:
        The weights, as a new tensor of the same shape.

    Raises:
        ValueError: For sets and values that do not fit the weights.
    """
    maps, heads, _, keys = weights.shape
    rows = slice(0, 1) if spec.query_rows == "class" else slice(None)
    index = spec.keys
    if callable(index):
        shown = weights[:, :, 0] if spec.query_rows == "class" else weights
        index = checked_set("keys", index(shown), f"The ablation of {spec.name!r}")
    if index is None:
        shares = weights.new_ones(1, 1, 1, keys)
    else:
        index = torch.as_tensor(index, device=weights.device)
        shared = index.ndim == 1
        index = index[None, None] if shared else index
        index = index[:, None] if index.ndim == 2 else index
        if (len(index) != maps and not shared) or index.shape[1] not in (1, heads):
            raise ValueError(
                f"The ablation of {spec.name!r} has keys for {len(index)} maps of "
                f"{index.shape[1]} heads, but the layer has {maps} maps of {heads} heads."
            )
        shares = _shares(index, keys, spec.name, "keys").to(weights.dtype).unsqueeze(2)
    if spec.heads is not None:
        numbers = list(cast(Sequence[int], spec.heads))
        wrong = [head for head in numbers if not 0 <= head < heads]
        if wrong:
            raise ValueError(
                f"The ablation of {spec.name!r} has heads out of range: {wrong[0]}, but the layer "
                f"has {heads}, counted from 0."
            )
        chosen = weights.new_zeros(1, heads, 1, 1)
        chosen[:, numbers] = 1
        shares = shares * chosen
    before = weights[:, :, rows]
    after = before * (1 - shares)
    if isinstance(spec.value, Tensor):
        after = after + shares * _put_in(spec.name, spec.value, before)
    elif spec.value == "mean":
        mean = means[spec.name].to(weights)
        if mean.ndim == 4:  # [windows, heads, queries, keys]
            mean = mean.repeat(maps // len(mean), 1, 1, 1)
        mean = mean[..., : before.shape[2], :]
        after = after + shares * _fit(mean, tuple(before.shape[mean.ndim == 3 :]), spec.name)
    elif spec.value == "renormalise":
        rest = after.sum(-1, keepdim=True)
        after = after * torch.where(rest > 0, before.sum(-1, keepdim=True) / rest, 0)
    elif spec.value == "uniform":
        entries = shares.sum(-1, keepdim=True).clamp(min=torch.finfo(shares.dtype).tiny)
        after = after + shares * ((before * shares).sum(-1, keepdim=True) / entries)
    if spec.query_rows == "all":
        return after
    return torch.cat([after, weights[:, :, 1:]], dim=2)


def _put_in(layer: str, value: Tensor, before: Tensor) -> Tensor:
    """What a spec's own tensor puts in place of rows [maps, heads, queries, keys]."""
    value = value.to(before.device)
    value = value.unsqueeze(2) if value.ndim == 3 else value
    value = value[:, :, : before.shape[2]] if value.ndim == 4 else value
    _fit(value, tuple(before.shape), layer, "value")
    if value.is_floating_point():
        return value.to(before.dtype)
    if not 0 <= int(value.min()) <= int(value.max()) < before.shape[-1]:
        raise ValueError(
            f"The ablation of {layer!r} moves weights of keys out of range: the layer has "
            f"{before.shape[-1]}, counted from 0."
        )
    return before.gather(-1, value.expand_as(before))


def edit_output(
    spec: AblationSpec, model: nn.Module, output: Tensor, means: Mapping[str, Tensor]
) -> Tensor:
    """What a module puts out after an ablation.

    Args:
        spec: What is ablated; its layer is named.
        model: The model that the layer is part of.
        output: What the layer put out [batch, …].
        means: Layer → what value="mean" puts in.

    Returns:
        The output, as a new tensor of the same shape.

    Raises:
        ValueError: For sets and values that do not fit the output.
    """
    given = spec.units if spec.channels is None else spec.channels
    index = torch.as_tensor(given, device=output.device)
    if spec.channels is not None:
        axis = channel_axis(model, spec.name, output.ndim) % output.ndim
        size, name = output.shape[axis], "channels"
        shape = [1] * output.ndim
        shape[axis] = size
    else:
        size, name = output[0].numel(), "units"
        shape = list(output.shape)
    shared = index.ndim == 1
    index = index[None] if shared else index
    if len(index) != len(output) and not shared and (name == "units" or len(index) != 1):
        raise ValueError(
            f"The ablation of {spec.name!r} has {name} for {len(index)} images, but the layer "
            f"puts out {len(output)}."
        )
    shares = _shares(index, size, spec.name, name)
    shares = shares.reshape(len(shares), *shape[1:]).to(output.dtype)
    after = output * (1 - shares)
    if isinstance(spec.value, Tensor):
        after = after + shares * _fit(spec.value, tuple(output.shape), spec.name, "value").to(
            output
        )
    elif spec.value == "mean":
        mean = means[spec.name].to(output)
        after = after + shares * _fit(mean, tuple(output.shape[1:]), spec.name)
    return after


class _AttentionEdits(AttentionProbe):
    """Changes the maps that AttentionProbe would read, by `specs`, which may change between passes.

    `done` takes the names of the layers that were changed, and the bytes of their maps.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Iterable[str],
        means: Mapping[str, Tensor],
        done: dict[str, int],
    ) -> None:
        seen: list[tuple[str, Tensor]] = []  # layer and places of the maps that are being changed
        self._seen = seen
        super().__init__(model, layers, rows="all", reduce=lambda *place: seen.append(place))
        self.means, self.done = means, done
        self.specs: list[AblationSpec] = []

    def _reader(self) -> AttentionReader:
        return AttentionReader(
            self._choose, lambda weights, strides: None, self._skip, self._replace
        )

    def _choose(self, shape: tuple[int, ...], inner: int | None) -> slice | None:
        here = [spec for spec in self.specs if spec.module == self._running[-1].layer]
        if not here:
            return None
        self.rows = slice(None) if any(s.query_rows == "all" for s in here) else "class"
        return super()._choose(shape, inner)

    def _replace(self, weights: Tensor, strides: tuple[int, ...]) -> Tensor | None:
        # Numbers, brought into order as the probe does with maps, tell which of [maps, heads] each
        # map is.
        numbers = torch.arange(weights.shape[:-2].numel(), device=weights.device)
        self._bring(numbers.reshape(*weights.shape[:-2], 1, 1), strides)
        name, place = self._seen.pop()
        specs = [spec for spec in self.specs if spec.name == name]
        if not specs:
            return None
        maps = weights.flatten(0, -3)
        # A contiguous view of the numbers is the numbers as they were: so it is in most models.
        in_order = place.data_ptr() == numbers.data_ptr() and place.is_contiguous()
        maps = maps if in_order else maps[place.flatten()]
        maps = maps.unflatten(0, place.shape[:2])  # [maps, heads, queries, keys]
        for spec in specs:
            maps = edit_weights(spec, maps, self.means)
        self.done[name] = weights.nbytes
        if not in_order:
            maps = torch.empty_like(maps.flatten(0, 1)).index_copy_(
                0, place.flatten(), maps.flatten(0, 1)
            )
        return maps.reshape(weights.shape)


class _OutputEdits(Probe):
    """Changes what modules put out, by `specs`, which may change between passes."""

    def __init__(
        self,
        model: nn.Module,
        layers: Iterable[str],
        means: Mapping[str, Tensor],
        done: dict[str, int],
    ) -> None:
        super().__init__(model, layers, None)
        self.targets, self.means, self.done = dict.fromkeys(layers), means, done
        self.specs: list[AblationSpec] = []

    def _place(self, stack: ExitStack) -> None:
        for layer in self.targets:

            def replace(module, args, output, layer=layer):
                self._called(layer)
                self._counts[layer] += 1
                calls = self._counts[layer]
                name = layer if calls == 1 else f"{layer}#{calls}"
                for spec in self.specs:
                    if spec.name == name:
                        if not isinstance(output, Tensor):
                            raise TypeError(
                                f"Layer {layer!r} puts out a {type(output).__name__}, not a "
                                "tensor: ablate a layer within it."
                            )
                        output = edit_output(spec, self.model, output, self.means)
                        self.done[name] = output.nbytes
                return output

            hook = self.model.get_submodule(layer).register_forward_hook(replace)
            stack.callback(hook.remove)

    def _check(self) -> None:
        """Whether all specs found their layer is for `applied` to say."""


@contextmanager
def applied(
    model: nn.Module,
    specs: Sequence[AblationSpec],
    means: Mapping[str, Tensor],
    done: dict[str, int],
) -> Iterator[Callable[[Sequence[AblationSpec]], None]]:
    """Inside, forward passes run with the specs that were last chosen.

    Args:
        model: The model, in eval mode.
        specs: All specs that will be used, with named layers, so that hooks are placed once.
        means: Layer → what value="mean" puts in.
        done: Takes the bytes of what was changed, by layer.

    Yields:
        A function that takes the specs of the passes to come.

    Raises:
        RuntimeError: On leaving, if the model never called one of the layers.
    """
    editors: list[tuple[_AttentionEdits | _OutputEdits, bool]] = []
    with ExitStack() as stack:
        for on_attention in (True, False):
            layers = [spec.module for spec in specs if spec.on_attention == on_attention]
            if layers:
                kind = _AttentionEdits if on_attention else _OutputEdits
                editors.append((kind(model, layers, means, done), on_attention))
                stack.enter_context(editors[-1][0])

        def use(chosen: Sequence[AblationSpec]) -> None:
            for editor, on_attention in editors:
                editor.specs = [spec for spec in chosen if spec.on_attention == on_attention]

        yield use
    if missed := [spec.name for spec in specs if spec.name not in done]:
        raise RuntimeError(
            f"The forward pass of {type(model).__name__} never called {missed[0]!r}, so nothing "
            "was ablated there."
        )
