"""Placing hooks on a model and removing them, and finding the layers that somebody means."""

import difflib
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from fnmatch import fnmatchcase
from typing import Any, Self

import torch
from torch import nn

Layer = str | int | nn.Module  # a name or glob, a number where layers are numbered, or the module


def closest(name: str, names: Iterable[str], n: int = 3) -> str:
    """The n names nearest to a name, for an error message.

    Args:
        name: A name or glob that is not among them.
        names: Those that there are.
        n: How many to give at most.

    Returns:
        The names, nearest first, with commas between them.

    Example:
        >>> from utils.probes.hooks import closest
        >>> closest("block.1.*", ["head", "blocks.0.mlp", "blocks.1.attn"], n=1)
        'blocks.1.attn'
    """
    bare = name.translate(str.maketrans("", "", "*?[]!"))
    return ", ".join(difflib.get_close_matches(bare, list(names), n=n, cutoff=0.0))


def shown(layer: object) -> str:
    """A layer as error messages show it: the class of a module, in quotation marks a name."""
    return type(layer).__name__ if isinstance(layer, nn.Module) else repr(layer)


def listed(names: Iterable[str], n: int = 3) -> str:
    """The first n of some names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - n} more" if len(names) > n else ""
    return f"{', '.join(names[:n])}{more}"


def as_list(layers: Layer | Iterable[Layer]) -> list[Layer]:
    """One layer or several as a list; TypeError if they are not given as either."""
    if isinstance(layers, str | int | nn.Module):
        return [layers]
    if not isinstance(layers, Iterable):
        raise TypeError(f"Layers are given by their names, by globs or as modules, not {layers!r}.")
    return list(layers)


def select(
    names: Iterable[str] | Mapping[str, nn.Module],
    patterns: Layer | Iterable[Layer],
    owner: str,
    numbered: bool = False,
) -> list[str]:
    """The names that are meant, in the order of `names`, each once.

    Args:
        names: Those to choose from; with their modules where modules can be given too.
        patterns: A name, glob (`*` also matches dots) or module, or several of them.
        owner: Whose names they are, for error messages.
        numbered: Whether a number in the order of `names` can be given too, from the end if it is
            negative.

    Returns:
        At least one name.

    Raises:
        ValueError: For a pattern that matches nothing, with the closest names, a module that is not
            among them, a number that there is not, and no pattern at all.
        TypeError: For what is neither a name nor a module.

    Example:
        >>> from utils.probes.hooks import select
        >>> select(["stem", "blocks.0", "blocks.1", "head"], ["head", "blocks.*"], "Model")
        ['blocks.0', 'blocks.1', 'head']
    """
    patterns = as_list(patterns)
    if not patterns:
        raise ValueError(f"No layer of {owner} was asked for: the list of layers is empty.")
    modules = names if isinstance(names, Mapping) else {}
    names, meant = list(names), set()
    for pattern in patterns:
        if isinstance(pattern, str):
            meant |= _matching(pattern, names, owner)
        elif isinstance(pattern, nn.Module) and modules:
            meant |= _name_of(pattern, modules, owner)
        elif numbered and isinstance(pattern, int) and not isinstance(pattern, bool):
            meant |= _numbered(pattern, names, owner)
        else:
            ways = "names, globs or modules" if modules else "names or globs"
            raise TypeError(f"The layers of {owner} are given by {ways}, not by {shown(pattern)}.")
    return [name for name in names if name in meant]


def _matching(pattern: str, names: list[str], owner: str) -> set[str]:
    found = {name for name in names if name == pattern or fnmatchcase(name, pattern)}
    if not found:
        raise ValueError(
            f"No layer of {owner} matches {pattern!r}: the closest names are "
            f"{closest(pattern, names)}."
        )
    return found


def _name_of(module: nn.Module, modules: Mapping[str, nn.Module], owner: str) -> set[str]:
    found = {name for name, each in modules.items() if each is module}
    if not found:
        parts = set(module.modules())
        if inside := [name for name, each in modules.items() if each in parts]:
            raise ValueError(
                f"This {shown(module)} is no layer of {owner} that can be chosen here: choose "
                f"one within it ({listed(inside)})."
            )
        raise ValueError(
            f"This {shown(module)} is no layer of {owner} that can be chosen here: give one of "
            f"the model's own modules, or a name ({listed(modules)})."
        )
    return found


def _numbered(number: int, names: list[str], owner: str) -> set[str]:
    if not -len(names) <= number < len(names):
        raise ValueError(
            f"{owner} has {len(names)} layers to choose from, counted from 0: there is no {number}."
        )
    return {names[number]}


def refuse_compiled(model: nn.Module) -> None:
    """Refuse a model of which any part is compiled or scripted, for hooks never fire there.

    Args:
        model: Any model.

    Raises:
        ValueError: If there is such a part, with its name.
    """
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
    concatenated along the batch. The passes are those of the thread that entered the block; what
    gradient checkpointing computes a second time is no pass.

    Args:
        model: The model whose forward passes are read.
        layers: Which layers to read; None for all that can be.
        reduce: `fn(layer, values)` that sees each tensor once in place of its being kept.
    """

    kept_as = "outputs"

    def __init__(
        self,
        model: nn.Module,
        layers: Layer | Iterable[Layer] | None,
        reduce: Callable[[str, torch.Tensor], Any] | None,
    ) -> None:
        self.model, self.reduce = model, reduce
        self.layers = None if layers is None else as_list(layers)
        self._stack = ExitStack()
        self._start()

    def _start(self) -> None:
        self.results: dict[str, list[Any]] = {}
        self._kept: dict[str, list[torch.Tensor]] = {}
        self._layers: list[str] = []
        self._read: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._inside, self._ran, self._elsewhere = False, False, False
        self._thread = threading.get_ident()

    def __repr__(self) -> str:
        asked = "all layers" if self.layers is None else listed(map(shown, self.layers))
        read = list(self._kept) or [layer for layer in self._layers if layer in self._read]
        goal = f".{self.kept_as}" if self.reduce is None else "reduce"
        state = f"{len(read)} read into {goal}: {listed(read)}" if read else "nothing read yet"
        owner = type(self.model).__name__
        return f"<{type(self).__name__} of {owner}: {self._what()} of {asked}; {state}>"

    def _what(self) -> str:
        """What is read of a layer, in words."""
        return self.kept_as

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
            if self._elsewhere:
                raise RuntimeError(
                    f"{type(self.model).__name__} ran in another thread than the one that entered "
                    f"{type(self).__name__}, as nn.DataParallel on several GPUs has it run: use it "
                    "in one thread, or a copy of the model and a probe in each."
                )
            self._check()

    def _counts_as_pass(self) -> bool:
        """Whether what a hook sees is to be read: every hook asks first."""
        if torch._C._current_graph_task_id() != -1:  # gradient checkpointing, within backward
            return False
        if threading.get_ident() != self._thread:
            self._elsewhere = True
            return False
        return True

    @abstractmethod
    def _place(self, stack: ExitStack) -> None:
        """Resolve layer names and place hooks; `stack` takes what undoes it."""

    @abstractmethod
    def _check(self) -> None:
        """Raise if a layer that was asked for has not been read."""

    def _begin(self, module: nn.Module, args: tuple) -> None:
        if self._counts_as_pass():
            self._inside = self._ran = True
            self._counts.clear()

    def _end(self, module: nn.Module, args: tuple, output: Any) -> None:
        if self._counts_as_pass():
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
