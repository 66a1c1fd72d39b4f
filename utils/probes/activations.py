"""Recording what layers put out during a forward pass."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from .hooks import Probe, listed, select


class ActivationRecorder(Probe):
    """Record what layers put out during forward passes.

    Afterwards `record.outputs` is a dict layer name → [batch, …], detached, in the model's own
    precision. They are copies, for a batch-norm output kept by reference is overwritten by the
    in-place ReLU or `+=` after it. A module that is called again in one pass names the later calls:
    torchvision's resnet18 has "layer1.0.relu" and "layer1.0.relu#2". Several passes are
    concatenated along the batch. Explained in chapter 4.

    Args:
        model: Any model, or part of one.
        layers: Names or globs of modules (`*` also matches dots), or modules of the model: one or
            several. They are read in the order in which they are called.
        reduce: `fn(layer, values)` that sees each output once, as it is made and before anything
            overwrites it, and must not change it. Then nothing is kept or copied, and what `fn`
            returns, if not None, is listed in `record.results[layer]`.

    Raises:
        ValueError: For a compiled model, a name or glob that matches nothing, and a module that is
            not the model's.
        TypeError: For a layer whose output is no tensor.
        RuntimeError: On leaving, if a layer was not called, or the model ran in another thread.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from utils.probes import ActivationRecorder
        >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> with ActivationRecorder(model, "1") as record:
        ...     logits = model(torch.rand(5, 3))
        >>> record.outputs["1"].shape
        torch.Size([5, 4])
        >>> with ActivationRecorder(model, [model[1]], lambda layer, x: x.ndim) as record:
        ...     logits = model(torch.rand(5, 3))
        >>> record.results
        {'1': [2]}
    """

    def __init__(
        self,
        model: nn.Module,
        layers: str | nn.Module | Iterable[str | nn.Module],
        reduce: Callable[[str, Tensor], Any] | None = None,
    ) -> None:
        if layers is None:
            raise TypeError('ActivationRecorder needs layers: give names, modules, or "*" for all.')
        super().__init__(model, layers, reduce)

    @property
    def outputs(self) -> dict[str, Tensor]:
        """Layer name → [batch, …]; never empty."""
        return self._gather()

    def _place(self, stack: ExitStack) -> None:
        modules = {name: module for name, module in self.model.named_modules() if name}
        self._layers = select(modules, self.layers or [], type(self.model).__name__)
        for layer in self._layers:

            def read(module, args, output, layer=layer):
                if not self._counts_as_pass():
                    return
                if not isinstance(output, Tensor):
                    inner = ", ".join(f"{layer}.{name}" for name, _ in module.named_children())
                    raise TypeError(
                        f"Layer {layer!r} puts out a {type(output).__name__}, not a tensor: record "
                        f"{inner or 'another layer'} instead."
                    )
                self._called(layer)
                values = output.detach()
                self._deliver(layer, values.clone() if self.reduce is None else values)

            stack.callback(modules[layer].register_forward_hook(read).remove)

    def _check(self) -> None:
        if silent := self._silent():
            raise RuntimeError(
                f"The forward pass of {type(self.model).__name__} never called "
                f"{listed(silent, 4)}: fused attention, for one, skips its dropout and "
                f"softmax modules.{self._read_nearest(silent[0])}"
            )


@torch.no_grad()
def activations(
    model: nn.Module, x: Tensor, layers: str | nn.Module | Iterable[str | nn.Module]
) -> dict[str, Tensor]:
    """What layers put out for a batch: one forward pass with an `ActivationRecorder`.

    The model runs in the mode that it is in: call its `eval()` first. Explained in chapter 4.

    Args:
        model: Any model, or part of one.
        x: What it is called with, such as images [batch, 3, height, width].
        layers: Names, globs or modules, as for `ActivationRecorder`.

    Returns:
        Layer name → [batch, …], in the order in which the layers are called; a later call in the
        pass is named with "#2".

    Raises:
        ValueError: As `ActivationRecorder`.
        TypeError: As `ActivationRecorder`.
        RuntimeError: As `ActivationRecorder`.

    Example:
        >>> import timm, torch
        >>> from utils.probes import activations
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=48, depth=2).eval()
        >>> found = activations(model, torch.rand(4, 3, 48, 48), "blocks.*.mlp.act")
        >>> {layer: tuple(values.shape) for layer, values in found.items()}
        {'blocks.0.mlp.act': (4, 10, 768), 'blocks.1.mlp.act': (4, 10, 768)}
    """
    with ActivationRecorder(model, layers) as record:
        model(x)
    return record.outputs
