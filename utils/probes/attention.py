"""Reading attention maps during a forward pass, whether or not the model's kernels are fused."""

import warnings
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakSet

import torch
from torch import Tensor, nn

from .anatomy import TokenLayout, attention_layers, token_layout
from .attention_reader import AttentionReader
from .hooks import Layer, Probe, select

# Layers that use a softmax over positions, or over channels, without a query × key map, where
# shapes alone cannot always tell.
CHANNELS = "it attends over channels, so it has no map over positions"
NO_MAP = {
    "XCA": CHANNELS,
    "CrossCovarianceAttn": CHANNELS,
    "ChannelAttention": CHANNELS,
    "ChannelAttentionV2": CHANNELS,
    "LambdaLayer": "it normalises each key channel over positions and forms no query × key map",
    "HSMSSD": "its softmax sets the time steps of a state-space model",
}

_PROBED: WeakSet[nn.Module] = WeakSet()  # two readers in one pass would read each other


@dataclass
class _Call:
    """One running forward of an attention layer."""

    layer: str
    module: nn.Module
    shape: torch.Size  # of its input
    queries: int = 0  # of the softmax that is being read


class AttentionProbe(Probe):
    """Read the attention maps of a model during its forward passes.

    Afterwards `probe.maps` is a dict layer name → [batch, heads, queries, keys], float32 (float64
    for a float64 model), detached, before dropout; each row sums to 1 over the keys. Windows count
    as batch: Swin gives [batch · windows, heads, 49, 49]. A layer with several maps in one pass
    names the later ones "layer#2", "layer#3"; several passes are concatenated along the batch.
    Where weights are mixed or gated after the softmax (CaiT, ConViT), the map is the softmax. The
    logits are those of a plain forward pass: the class row costs one extra row next to the fused
    kernel, all rows replace it. Explained in chapter 3.

    Args:
        model: A timm or torchvision model, or any that calls `scaled_dot_product_attention`,
            `softmax` or `nn.MultiheadAttention`.
        layers: Names or globs of attention layers ("blocks.0.attn", "blocks.*"), the modules
            themselves, or their numbers among the attention layers in model order (−1 is the last):
            one or several. They are read in the order of the forward pass. None for all that have a
            map, the others being listed with the reason in `probe.skipped`.
        rows: "class" for the row of the class token [batch, heads, 1, keys], in the layers that
            have one; "all"; or a slice of the queries.
        reduce: `fn(layer, weights)` that sees each map once. Then nothing is kept, and what `fn`
            returns, if not None, is listed in `probe.results[layer]`.

    Raises:
        ValueError: For a compiled model, a model without attention, a layer that is not among its
            attention layers, and rows="class" without a class token.
        TypeError: For layers that are given in no such way.
        RuntimeError: On leaving, if a layer was not read, or the model ran in another thread.

    Example:
        >>> import timm, torch
        >>> from utils.probes import AttentionProbe
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=48, depth=2).eval()
        >>> with torch.no_grad(), AttentionProbe(model) as probe:
        ...     logits = model(torch.rand(4, 3, 48, 48))
        >>> {layer: tuple(weights.shape) for layer, weights in probe.maps.items()}
        {'blocks.0.attn': (4, 3, 1, 10), 'blocks.1.attn': (4, 3, 1, 10)}
        >>> with torch.no_grad(), AttentionProbe(model, layers=-1, rows="all") as probe:
        ...     logits = model(torch.rand(4, 3, 48, 48))
        >>> probe
        <AttentionProbe of VisionTransformer: all rows of -1; 1 read into .maps: blocks.1.attn>
    """

    kept_as = "maps"

    def __init__(
        self,
        model: nn.Module,
        layers: Layer | Iterable[Layer] | None = None,
        rows: Literal["class", "all"] | slice = "class",
        reduce: Callable[[str, Tensor], Any] | None = None,
    ) -> None:
        if not isinstance(rows, slice) and not (isinstance(rows, str) and rows in ("class", "all")):
            raise ValueError(f'rows is "class", "all" or a slice of the queries, not {rows!r}.')
        self.rows = slice(None) if rows == "all" else rows
        super().__init__(model, layers, reduce)

    @property
    def maps(self) -> dict[str, Tensor]:
        """Layer name → [batch, heads, queries, keys]; never empty."""
        return self._gather()

    def _what(self) -> str:
        if self.rows == "class":
            return "class rows"
        return "all rows" if self.rows == slice(None) else f"rows {self.rows}"

    def _start(self) -> None:
        super()._start()
        self.skipped: dict[str, str] = {}
        self._running: list[_Call] = []
        self._size: tuple[int, int] | None = None  # of the images of the running pass
        self._layout: TokenLayout | None = None

    @property
    def _tokens(self) -> TokenLayout:
        self._layout = self._layout or token_layout(self.model)  # not asked for all rows
        return self._layout

    def _reader(self) -> AttentionReader:
        # Made on entering and gone on leaving: it refers to the probe, and a probe that referred
        # to it would keep the model in memory until Python looks for circles.
        return AttentionReader(self._choose, self._bring, self._skip)

    def _place(self, stack: ExitStack) -> None:
        owner = type(self.model).__name__
        found = attention_layers(self.model)
        if not found:
            raise ValueError(
                f"{owner} is a model without attention maps: the code of its layers names no "
                "softmax and no attention kernel (that of convolutions and linear attention does "
                "not)."
            )
        self._layers = list(found)
        if self.layers is not None:
            self._layers = select(found, self.layers, owner, numbered=True)
        if self.rows == "class" and not self._tokens.has_class_token:
            raise ValueError(
                f'{owner} has no class token, so there is no class row: ask for rows="all".'
            )
        if self.model in _PROBED:
            raise ValueError(
                f"This {owner} is being read by another AttentionProbe: use one probe, with "
                'rows="all" if the rows differ.'
            )
        _PROBED.add(self.model)
        stack.callback(_PROBED.discard, self.model)
        mode = self._reader()
        stack.callback(self._leave_all, mode)
        for layer in self._layers:
            module = found[layer]

            def enter(module, args, kwargs, layer=layer):
                if not self._counts_as_pass():
                    return
                self._called(layer)
                tensors = (a for a in (*args, *kwargs.values()) if isinstance(a, Tensor))
                shape = next((tensor.shape for tensor in tensors), torch.Size())
                self._running.append(_Call(layer, module, shape))
                if len(self._running) == 1:
                    mode.__enter__()

            def leave(module, args, output):
                if not self._counts_as_pass():
                    return
                if self._running and self._running[-1].module is module:
                    self._running.pop()
                    if not self._running:
                        mode.__exit__(None, None, None)

            for handle in (
                module.register_forward_pre_hook(enter, with_kwargs=True),
                module.register_forward_hook(leave, always_call=True),
            ):
                stack.callback(handle.remove)

    def _begin(self, module: nn.Module, args: tuple) -> None:
        super()._begin(module, args)
        images = next((a for a in args if isinstance(a, Tensor) and a.ndim == 4), None)
        if images is not None and self._counts_as_pass():
            self._size = images.shape[2], images.shape[3]

    def _end(self, module: nn.Module, args: tuple, output: Any) -> None:
        super()._end(module, args, output)
        if self._counts_as_pass():
            self._size = None

    def _leave_all(self, mode: AttentionReader) -> None:
        # An interrupt (not an Exception) skips the forward hooks.
        if self._running:
            self._running.clear()
            mode.__exit__(None, None, None)

    def _check(self) -> None:
        owner, silent = type(self.model).__name__, self._silent()
        for layer in silent:
            self.skipped.setdefault(layer, "the forward pass never used it")
        if silent and (self.layers is not None or not self._read):
            named = "; ".join(f"{layer}: {self.skipped[layer]}" for layer in silent[:4])
            more = f"; and {len(silent) - 4} more" if len(silent) > 4 else ""
            raise RuntimeError(
                f"{owner} gave no attention map in {named}{more}.{self._read_nearest(silent[0])}"
            )
        channels = [layer for layer in silent if self.skipped[layer] == CHANNELS]
        if channels:
            warnings.warn(
                f"{len(channels)} layers of {owner} are left out, {channels[0]} first: {CHANNELS}.",
                stacklevel=3,
            )

    def _skip(self, reason: str) -> None:
        self.skipped.setdefault(self._running[-1].layer, reason)

    def _choose(self, shape: tuple[int, ...], inner: int | None) -> slice | None:
        """Which queries to read of a [..., queries, keys] softmax; None, with the reason, if none.

        `inner` is the width of a query where it is known.
        """
        call = self._running[-1]
        *_, queries, keys = shape
        call.queries = queries
        reason = NO_MAP.get(type(call.module).__name__)
        if reason is None and len(call.shape) == 3 and len(shape) == 4 and queries == keys:
            # [batch, tokens, width] read as [batch, heads, width / heads, width / heads]
            batch, tokens, width = call.shape
            tokens = batch if shape[0] == tokens != batch else tokens  # sequence first
            if shape[1] * keys == width and keys != tokens and inner in (None, tokens):
                reason = CHANNELS
        rows = self.rows
        if rows == "class":
            # A single query is the class token itself (class attention) or a pooling query.
            rows = slice(0, 1)
            if reason is None and queries > 1 and not self._tokens.prefix_in(queries, self._size):
                reason = 'it has no class token among its queries (ask for rows="all")'
        elif not range(queries)[rows]:
            reason = f"{rows} selects none of its {queries} queries"
        if reason:
            self._skip(reason)
        return None if reason else rows

    def _bring(self, weights: Tensor, strides: tuple[int, ...]) -> None:
        """Bring weights into [batch, heads, queries, keys] and deliver them.

        `strides` of the scores or keys tell heads from windows where both are equally many.
        """
        call = self._running[-1]
        heads = _heads(call.module)
        batch = call.shape[0] if call.shape else len(weights)
        if weights.ndim == 3:  # [batch · heads, queries, keys]
            if len(call.shape) == 3 and batch == call.queries != call.shape[1]:  # sequence first
                second, maps = call.shape[1], len(weights)
                fits = maps % (second * heads) == 0 if heads else maps % batch and not maps % second
                batch = second if fits else batch
            folded = len(weights) != batch and len(weights) % batch == 0
            weights = weights.unflatten(0, (batch, -1)) if folded else weights.unsqueeze(1)
        elif weights.ndim == 5:  # [batch, heads, windows, …] or [batch, windows, heads, …]
            first, second = (weights.shape[axis] == heads for axis in (1, 2))
            if first if first != second else strides[1] < strides[2]:
                weights = weights.transpose(1, 2)
            weights = weights.flatten(0, 1)
        elif weights.shape[1] != heads and len(weights) == batch * heads:
            # [batch · heads, windows, queries, keys]
            weights = weights.unflatten(0, (batch, heads)).transpose(1, 2).flatten(0, 1)
        self._deliver(call.layer, weights.detach())


def _heads(layer: nn.Module) -> int:
    """How many heads a layer says that it has; 0 if it does not."""
    names = ("num_heads", "heads", "n_heads", "num_attention_heads", "nhead", "n_head")
    said = (getattr(layer, name, None) for name in names)
    return next((heads for heads in said if isinstance(heads, int)), 0)


@torch.no_grad()
def attention_maps(
    model: nn.Module,
    x: Tensor,
    layers: Layer | Iterable[Layer] | None = None,
    rows: Literal["class", "all"] | slice = "class",
) -> Tensor:
    """The attention maps of a batch as one tensor: one forward pass with an `AttentionProbe`.

    The model runs in the mode that it is in: call its `eval()` first.

    Args:
        model: As for `AttentionProbe`.
        x: What it is called with, such as images [batch, 3, height, width].
        layers: Names, globs, modules or numbers, as for `AttentionProbe`; None for all with a map.
        rows: "class", "all" or a slice of the queries.

    Returns:
        Maps [layers, batch, heads, queries, keys] in the order of the forward pass; with
        rows="class" there is one query.

    Raises:
        ValueError: If the maps of the layers differ in shape, and as `AttentionProbe`.
        TypeError: As `AttentionProbe`.
        RuntimeError: As `AttentionProbe`.

    Example:
        >>> import timm, torch
        >>> from utils.probes import attention_maps
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=48, depth=2).eval()
        >>> attention_maps(model, torch.rand(4, 3, 48, 48)).shape
        torch.Size([2, 4, 3, 1, 10])
        >>> attention_maps(model, torch.rand(4, 3, 48, 48), layers=[1], rows="all").shape
        torch.Size([1, 4, 3, 10, 10])
    """
    with AttentionProbe(model, layers, rows) as probe:
        model(x)
    maps = probe.maps
    shapes = {tuple(weights.shape): layer for layer, weights in maps.items()}
    if len(shapes) > 1:
        (one, first), (other, second), *_ = shapes.items()
        raise ValueError(
            f"The attention maps of {type(model).__name__} cannot be one tensor, for their shapes "
            f"differ ({list(one)} in {first!r}, {list(other)} in {second!r}): choose layers of one "
            "shape, or use AttentionProbe."
        )
    return torch.stack(list(maps.values()))
