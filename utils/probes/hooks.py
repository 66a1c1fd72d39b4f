"""Placing hooks on a model and removing them, naming layers, and finding where its tokens are."""

import difflib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from fnmatch import fnmatchcase
from typing import Any, Self

import torch
from torch import nn


def closest(name: str, names: Iterable[str], n: int = 3) -> str:
    """The n names nearest to `name` (or glob), for an error message."""
    bare = name.translate(str.maketrans("", "", "*?[]!"))
    return ", ".join(difflib.get_close_matches(bare, list(names), n=n, cutoff=0.0))


def select(names: Iterable[str], patterns: str | Iterable[str], owner: str) -> list[str]:
    """The names that match a glob or any of several, in the order of `names`.

    `owner` says in the message whose names they are. ValueError for a pattern that matches nothing,
    with the closest names.
    """
    names = list(names)
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    if not patterns:
        raise ValueError(f"No layer of {owner} was asked for: the list of patterns is empty.")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(
                f"No layer of {owner} matches {pattern!r}: the closest names are "
                f"{closest(pattern, names)}."
            )
    return [name for name in names if any(fnmatchcase(name, p) for p in patterns)]


def refuse_compiled(model: nn.Module) -> None:
    """ValueError if any part of the model is compiled or scripted, for hooks never fire there."""
    for name, module in model.named_modules():
        compiled = hasattr(module, "_orig_mod") or module._compiled_call_impl is not None
        if compiled or isinstance(module, torch.jit.ScriptModule):
            where = f"its part {name!r}" if name else "the model"
            raise ValueError(
                f"{type(model).__name__} cannot be probed because {where} is compiled: hooks do "
                "not fire in compiled code, so probe the model as it was before compiling "
                "(torch.compile keeps it in ._orig_mod)."
            )


class Probe(ABC):
    """What both probes share: a context manager that keeps or streams what its hooks read.

    A subclass places its hooks in `_place`, and hands each tensor to `_deliver`. Every hook comes
    off on leaving, after an exception too. Values are detached. A layer that is read a second time
    in one forward pass is named with "#2", a third time with "#3"; several forward passes are
    concatenated along the batch.
    """

    kept_as = "outputs"

    def __init__(self, model: nn.Module, reduce: Callable[[str, torch.Tensor], Any] | None) -> None:
        self.model, self.reduce = model, reduce
        self._stack = ExitStack()
        self._start()

    def _start(self) -> None:
        self.results: dict[str, list[Any]] = {}
        self._kept: dict[str, list[torch.Tensor]] = {}
        self._layers: list[str] = []
        self._read: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._inside, self._ran = False, False

    def __enter__(self) -> Self:
        refuse_compiled(self.model)
        self._start()
        with ExitStack() as stack:  # unwinds if placing raises
            for handle in (
                self.model.register_forward_pre_hook(self._begin, prepend=True),
                self.model.register_forward_hook(self._end, always_call=True),
            ):
                stack.callback(handle.remove)
            self._place(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._stack.close()
        if kind is None:
            self._check()

    @abstractmethod
    def _place(self, stack: ExitStack) -> None:
        """Resolve layer names and place hooks; `stack` takes what undoes it."""

    @abstractmethod
    def _check(self) -> None:
        """Raise if a layer that was asked for has not been read."""

    def _begin(self, module: nn.Module, args: tuple) -> None:
        self._inside = self._ran = True
        self._counts.clear()

    def _end(self, module: nn.Module, args: tuple, output: Any) -> None:
        self._inside = False

    def _silent(self) -> list[str]:
        """The layers that were asked for and not read; RuntimeError if no forward pass ran."""
        if not self._ran:
            raise RuntimeError(
                f"{type(self).__name__} saw nothing: no forward pass of "
                f"{type(self.model).__name__} ran inside the with block."
            )
        return [layer for layer in self._layers if layer not in self._read]

    def _read_nearest(self, layer: str) -> str:
        near = closest(layer, self._read)
        return f" The closest layers that were read: {near}." if near else ""

    def _called(self, layer: str) -> None:
        # Outside the model's own forward (forward_features, a bare block) every call of a layer is
        # a new batch, for nothing tells where a pass begins.
        self._ran = True
        if not self._inside:
            self._counts[layer] = 0

    def _deliver(self, layer: str, values: torch.Tensor) -> None:
        self._read.add(layer)
        self._counts[layer] += 1
        name = layer if self._counts[layer] == 1 else f"{layer}#{self._counts[layer]}"
        if self.reduce is None:
            self._kept.setdefault(name, []).append(values)
        elif (result := self.reduce(name, values)) is not None:
            self.results.setdefault(name, []).append(result)

    def _gather(self) -> dict[str, torch.Tensor]:
        if self.reduce is not None:
            raise RuntimeError(
                f"{type(self).__name__} keeps no {self.kept_as} when it streams them to reduce: "
                "what reduce returned is in .results."
            )
        if not self._kept:
            raise RuntimeError(
                f"{type(self).__name__} has read nothing yet: run the model inside the with block "
                f"before asking for .{self.kept_as}."
            )
        for name, parts in self._kept.items():
            if len({part.shape[1:] for part in parts}) > 1:
                shapes = sorted({tuple(part.shape[1:]) for part in parts})
                raise ValueError(
                    f"The {self.kept_as} of {name!r} cannot be put into one batch because their "
                    f"shapes differ ({shapes}): use one probe for each image size."
                )
            parts[:] = [torch.cat(parts)] if len(parts) > 1 else parts
        return {name: parts[0] for name, parts in self._kept.items()}
