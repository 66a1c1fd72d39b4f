"""Going on with a forward pass from the layer where it changes, the rest not being repeated.

A first pass is recorded up to the layer. In later passes over the same images every module that had
finished by then gives its recorded output instead of running; code between modules runs as it is,
and finds every module in its place. So nothing has to be known of how a model is built. It holds
for any model in eval mode whose modules do not write into what they are given; those that do (an
in-place ReLU) are repeated where that is simple, and otherwise make the cut unsafe. What else may
be in the way shows on one image, see `holds`.
"""

import copy
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .memory import held, tensor_bytes


class Reached(Exception):
    """Ends a pass at the layer beyond which nothing is wanted."""


def _copy(output: Any, above: tuple[int, ...] = ()) -> Any:
    """What a module put out, with tensors of its own, whatever holds them."""
    if isinstance(output, Tensor):
        return output.clone()
    parts = held(output) if id(output) not in above else {}
    copies = {name: _copy(part, (*above, id(output))) for name, part in parts.items()}
    if all(copies[name] is part for name, part in parts.items()):
        return output  # it holds no tensors
    try:
        if isinstance(output, tuple):
            values = copies.values()
            return output._make(values) if hasattr(output, "_make") else type(output)(values)
        copied = copy.copy(output)
        for name, part in copies.items():
            if isinstance(output, dict | list):
                copied[name] = part
            else:
                object.__setattr__(copied, name, part)
        return copied
    except Exception:  # of its kind there is no copy; whether it serves as it is, `holds` finds out
        return output


def _versions(inputs: Iterable) -> list[int | None]:
    """How often each tensor was written to; those made in inference mode cannot be."""
    counted = [isinstance(x, Tensor) and not x.is_inference() for x in inputs]
    return [x._version if yes else None for x, yes in zip(inputs, counted, strict=True)]


class _Call:
    """One finished call of a module."""

    def __init__(self, inputs: list, before: list[int | None], output: Any) -> None:
        after = _versions(inputs)
        changed = [i for i in range(len(inputs)) if after[i] != before[i]]
        # The input that the module wrote its output into, if it is one of those.
        self.into = changed[0] if len(changed) == 1 and output is inputs[changed[0]] else None
        self.writes = bool(changed)
        self.output = _copy(output)


class _Replay:
    """Answers for a module from what was recorded of its calls, in turn; after that it runs."""

    def __init__(self, module: nn.Module, calls: list[tuple[_Call | None, str]]) -> None:
        self._module, self._calls = module, iter(calls)

    def __call__(self, *args, **kwargs) -> Any:
        call, role = next(self._calls, (None, None))
        if role is None:
            return self._module._call_impl(*args, **kwargs)
        inputs = [*args, *kwargs.values()]
        if role == "passed":
            return inputs[0]
        assert call is not None  # only what is passed on was not kept
        if role == "whole" and call.into is not None:
            return inputs[call.into].copy_(call.output)
        return _copy(call.output)


class Cut:
    """What finished before any of some layers began, in a pass that is recorded.

    Args:
        model: The model.
        layers: The names of the layers.

    Attributes:
        reached: Whether one of the layers has begun.
        safe: Whether what was recorded can stand for the calls.
    """

    def __init__(self, model: nn.Module, layers: Iterable[str]) -> None:
        self.model, self.reached, self.safe = model, False, True
        self.targets = {model.get_submodule(layer) for layer in layers}
        self.around: set[nn.Module] = set()  # modules that contain a target
        modules = dict(model.named_modules(remove_duplicate=False))
        for name, module in modules.items():
            if module in self.targets:
                parts = name.split(".")
                self.around |= {modules[".".join(parts[:end])] for end in range(len(parts))}
        self.modules: set[nn.Module] = set()  # that may be replayed
        for module in self.around:
            self._list(module)
        self._calls: dict[nn.Module, list[tuple[_Call | None, str]]] = {}
        self._depth = 0  # of calls that are recorded as a whole
        self._chains: dict[nn.Module, tuple[list, list[int | None]]] = {}
        self._latest: dict[nn.Module, tuple[nn.Module, int]] = {}

    @property
    def bytes(self) -> int:
        """What the recorded outputs take."""
        calls = [call for calls in self._calls.values() for call, _ in calls if call]
        return sum(tensor_bytes(call.output) for call in calls)

    def _list(self, parent: nn.Module) -> None:
        for child in parent.children():
            if child not in self.targets and child not in self.around:
                self.modules.add(child)
                if isinstance(child, nn.ModuleList | nn.ModuleDict):  # is never called itself
                    self._list(child)

    def begin(self, module: nn.Module, inputs: list) -> None:
        """Note that a call begins.

        Args:
            module: The module that is called.
            inputs: What it is given.
        """
        if self.reached:
            return
        if module in self.targets:
            self.reached = True
            for given, before in self._chains.values():
                self.safe &= _versions(given) == before
        elif module in self.modules:
            self._depth += 1
        elif type(module) is nn.Sequential:  # in it, a child's output goes to the next and no other
            self._chains[module] = inputs, _versions(inputs)

    def wants(self, module: nn.Module) -> bool:
        """Whether the call that has just finished is to be recorded.

        Args:
            module: The module that was called.

        Returns:
            Whether it is.
        """
        if self.reached or module not in self.modules:
            return False
        self._depth -= 1
        return self._depth == 0

    def end(self, module: nn.Module, call: _Call) -> None:
        """Record a call.

        Args:
            module: The module that was called.
            call: What it did.
        """
        calls = self._calls.setdefault(module, [])
        chain = next((c for c in self._chains if module in c._modules.values()), None)
        if chain is None:
            self.safe &= not call.writes or call.into is not None
            calls.append((call, "whole"))
            return
        if chain in self._latest:
            before, number = self._latest[chain]
            self._calls[before][number] = (None, "passed")
        self._latest[chain] = module, len(calls)
        calls.append((call, "last"))

    @contextmanager
    def replayed(self) -> Iterator[None]:
        """Inside, passes over the recorded images begin where the recording ended.

        The modules stay what and where they are: torch asks this attribute before it runs one.

        Yields:
            Nothing; on leaving, the model is as it was.
        """
        try:
            for module, calls in self._calls.items():
                module._compiled_call_impl = _Replay(module, calls)
            yield
        finally:
            for module in self._calls:
                module.__dict__.pop("_compiled_call_impl", None)


def record(model: nn.Module, images: Tensor, cuts: list[Cut], to_end: bool) -> Any:
    """Run a model and record what its cuts need.

    Args:
        model: The model, in eval mode.
        images: [batch, 3, height, width].
        cuts: What to record.
        to_end: Whether to finish the pass; otherwise it ends at the last of the cuts.

    Returns:
        What the model puts out; None if the pass was not finished.
    """
    begun: dict[nn.Module, list] = {}

    def before(module, args, kwargs):
        inputs = [*args, *kwargs.values()]
        begun.setdefault(module, []).append((inputs, _versions(inputs)))
        for cut in cuts:
            cut.begin(module, inputs)
        if not to_end and all(cut.reached for cut in cuts):
            raise Reached

    def after(module, args, kwargs, output):
        inputs, versions = begun[module].pop()
        if wanting := [cut for cut in cuts if cut.wants(module)]:
            call = _Call(inputs, versions, output)
            for cut in wanting:
                cut.end(module, call)

    with ExitStack() as stack:
        for module in set().union(*(cut.modules | cut.around | cut.targets for cut in cuts)):
            for handle in (
                module.register_forward_pre_hook(before, with_kwargs=True),
                module.register_forward_hook(after, with_kwargs=True),
            ):
                stack.callback(handle.remove)
        try:
            return model(images)
        except Reached:
            return None


def holds(model: nn.Module, image: Tensor, layers: list[frozenset[str]]) -> list[bool | None]:
    """Whether a pass may begin at the first of some layers: whether the logits stay what they are.

    Args:
        model: The model, in eval mode.
        image: [1, 3, height, width].
        layers: The names of the layers, several times.

    Returns:
        For each, whether it may; None where the model is known to write into what was recorded.
    """
    cuts = [Cut(model, each) for each in layers]
    logits = record(model, image, cuts, True)
    return [_same_logits(model, image, logits, cut) if cut.safe else None for cut in cuts]


def _same_logits(model: nn.Module, image: Tensor, logits: Any, cut: Cut) -> bool:
    try:
        with cut.replayed():
            again = model(image)
    except Exception:  # what was put in the place of a call is not what the model asks of it
        return False
    if not isinstance(logits, Tensor):
        return True
    rounding = torch.finfo(logits.dtype).eps ** 0.5 * float(logits.abs().max())
    return torch.allclose(again, logits, rtol=0, atol=rounding, equal_nan=True)
