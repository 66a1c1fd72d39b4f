"""Recording what layers put out during a forward pass."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from .hooks import Probe, select


class ActivationRecorder(Probe):
    """Record the outputs of layers during a forward pass.

    `record.outputs`: dict layer name → [batch, …], detached, in the model's own precision. They are
    copies, for a batch-norm output kept by reference is overwritten by the in-place ReLU or `+=`
    after it. With `reduce`, `fn(layer, values)` sees each output once, as it is made and before
    anything overwrites it; nothing is kept or copied, `fn` must not change it, and what it returns
    (if not None) is listed in `record.results[layer]`.

    layers: glob or globs of module names (`*` also matches dots). A module that is called again in
    one pass names the later calls: torchvision's resnet18 has "layer1.0.relu" and
    "layer1.0.relu#2". Several passes are concatenated along the batch.

    ValueError for a compiled model and a pattern that matches nothing; TypeError for a layer whose
    output is no tensor; RuntimeError on leaving if a layer was not called. Explained in chapter 4.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: str | Iterable[str],
        reduce: Callable[[str, Tensor], Any] | None = None,
    ) -> None:
        self.layers = layers
        super().__init__(model, reduce)

    @property
    def outputs(self) -> dict[str, Tensor]:
        """Layer name → [batch, …]; never empty."""
        return self._gather()

    def _place(self, stack: ExitStack) -> None:
        modules = {name: module for name, module in self.model.named_modules() if name}
        self._layers = select(modules, self.layers, type(self.model).__name__)
        for layer in self._layers:

            def read(module, args, output, layer=layer):
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
            more = f" and {len(silent) - 4} more" if len(silent) > 4 else ""
            raise RuntimeError(
                f"The forward pass of {type(self.model).__name__} never called "
                f"{', '.join(silent[:4])}{more}: fused attention, for one, skips its dropout and "
                f"softmax modules.{self._read_nearest(silent[0])}"
            )
