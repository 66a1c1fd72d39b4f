"""Many ablations of the class token's attention row in the last two blocks for one forward pass.

What the class row of the last block attends to changes the class token and nothing else that the
head reads; in the block before it changes, for the last block, the class token's query, key and
value alone. So the pass is run once, the keys and values of those blocks are kept, and only the
tokens that the head reads go on, once for all conditions together.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .edits import edit_weights
from .replay import Reached
from .specs import AblationSpec

Ablation = Sequence[AblationSpec]


def why_not(model: nn.Module) -> str | None:
    """Why the tokens that the head reads cannot go on alone in a model.

    Args:
        model: Any model.

    Returns:
        The end of a sentence; None if they can.
    """
    if not isinstance(model, VisionTransformer) or len(model.blocks) < 2:
        return "it is not one of timm's VisionTransformers"
    if model.global_pool != "token" or getattr(model, "attn_pool", None) is not None:
        return "its head reads more than the class token"
    kinds = [type(getattr(block, "attn", None)) for block in model.blocks[-2:]]
    if not all(getattr(kind, "forward", None) is Attention.forward for kind in kinds):
        return "its last blocks compute their attention in a way of their own"
    return None


class _Kernel(TorchFunctionMode):
    """Lets `answer(kernel, query, key, value, **options)` stand for fused attention."""

    def __init__(self, answer: Callable) -> None:
        super().__init__()
        self.answer = answer

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is F.scaled_dot_product_attention:
            return self.answer(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@contextmanager
def _answering(attention: Any, answer: Callable) -> Iterator[None]:
    """Inside, every call of the attention layer computes its fused kernel by `answer`."""
    fused, mode = attention.fused_attn, _Kernel(answer)
    with ExitStack() as stack:
        stack.callback(setattr, attention, "fused_attn", fused)
        attention.fused_attn = True
        inside = ExitStack()
        stack.callback(inside.close)  # an interrupt skips the forward hooks
        for handle in (
            attention.register_forward_pre_hook(lambda *_: inside.enter_context(mode) and None),
            attention.register_forward_hook(lambda *_: inside.close(), always_call=True),
        ):
            stack.callback(handle.remove)
        yield


class ClassRow:
    """One batch of images, run once and kept for ablations in the last two blocks.

    Args:
        model: A model for which `why_not` is None.
        images: [batch, 3, height, width].
        layers: The attention layers that will be ablated.
        to_end: Whether to finish the pass for its `logits`, which costs most of one block.

    Attributes:
        logits: [batch, classes] of the pass; None if it was not finished.
    """

    def __init__(
        self, model: VisionTransformer, images: Tensor, layers: set[str], to_end: bool
    ) -> None:
        self.model = model
        self.read = 2 if hasattr(model, "head_dist") else 1  # tokens that the head reads
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self.logits: Tensor | None = None
        last = len(model.blocks) - 1
        start = last - (f"blocks.{last - 1}.attn" in layers)

        def enter(block, args):
            self.tokens = args[0][:, : self.read].clone()  # [batch, read, width]

        with ExitStack() as stack:
            stack.callback(model.blocks[start].register_forward_pre_hook(enter).remove)
            for number in range(start, last + 1):

                def keep(kernel, query, key, value, *args, number=number, **options):
                    self.keys[number], self.values[number] = key, value
                    if number == last and not to_end:
                        raise Reached
                    return kernel(query, key, value, *args, **options)

                stack.enter_context(_answering(model.blocks[number].attn, keep))
            with suppress(Reached):
                self.logits = model(images)

    def agrees(self, logits: Tensor) -> bool:
        """Whether logits are those of the full pass, but for rounding.

        Args:
            logits: [batch, classes] of a condition that changes nothing.

        Returns:
            Whether they are.
        """
        assert self.logits is not None, "the pass was not finished"
        scale, error = self.logits.abs().max(), (logits - self.logits).abs().max()
        half = torch.finfo(logits.dtype).bits < 32
        return bool(error <= scale * (0.1 if half else 0.01))

    def run(
        self, conditions: Sequence[Ablation], means: Mapping[str, Tensor], memory: int
    ) -> Tensor:
        """The logits of conditions, as many at once as fit into memory.

        Args:
            conditions: The specs of each, in the layers that were named.
            means: Layer → what value="mean" puts in.
            memory: Bytes that the attention rows of the conditions may take.

        Returns:
            Logits [conditions, batch, classes].
        """
        batch, heads, keys, _ = next(iter(self.keys.values())).shape
        size = max(1, memory // (batch * heads * keys * self.read * 4 * 8))
        groups = (conditions[at : at + size] for at in range(0, len(conditions), size))
        return torch.cat([self._run(group, means) for group in groups])

    def _run(self, conditions: Sequence[Ablation], means: Mapping[str, Tensor]) -> Tensor:
        sizes = len(conditions), len(self.tokens)
        tokens = self.tokens.expand(sizes[0], -1, -1, -1).flatten(0, 1)
        for number in self.keys:
            block, layer = self.model.blocks[number], f"blocks.{number}.attn"
            here = [[spec for spec in specs if spec.name == layer] for specs in conditions]

            def attend(kernel, query, key, value, *_, number=number, here=here, **__):
                return self._attend(number, query, key, value, here, means)

            with _answering(block.attn, attend):
                tokens = block(tokens)  # [conditions · batch, read, width]
        logits = self.model.forward_head(self.model.norm(tokens))
        return logits.unflatten(0, sizes)

    def _attend(self, number, query, key, value, conditions, means) -> Tensor:
        """The mixed values of the tokens that are read: [conditions · batch, heads, read, width].

        They have queries, keys and values of their own in each condition; the other tokens' keys
        and values are shared.
        """
        device, sizes = query.device.type, (len(conditions), len(self.tokens))
        kind = value.dtype
        if torch.is_autocast_enabled(device):  # what the kernel would see
            kind = torch.get_autocast_dtype(device)
        wide = torch.promote_types(kind, torch.float32)
        others = slice(self.read, None)
        with torch.autocast(device, enabled=False):
            q, k, v = (
                x.to(kind).to(wide).unflatten(0, sizes).permute(1, 2, 0, 3, 4)
                for x in (query * query.shape[-1] ** -0.5, key, value)
            )  # [batch, heads, conditions, read, width]
            keys, values = (
                x[:, :, others].to(kind).to(wide).contiguous()
                for x in (self.keys[number], self.values[number])
            )  # [batch, heads, others, width]
            shape = q.shape[2:4]
            scores = (q.flatten(2, 3) @ keys.mT).unflatten(2, shape)
            weights = torch.cat([q @ k.mT, scores], -1).softmax(-1)
            rows = []  # of each condition: [batch, heads, read, keys]
            for specs, row in zip(conditions, weights.unbind(2), strict=True):
                for spec in specs:
                    row = edit_weights(spec, row, means)
                rows.append(row)
            weights = torch.stack(rows, 2).to(kind).to(wide)
            mixed = (weights[..., others].flatten(2, 3) @ values).unflatten(2, shape)
            mixed = mixed + weights[..., : self.read] @ v
            return mixed.permute(2, 0, 1, 3, 4).flatten(0, 1).to(kind)
