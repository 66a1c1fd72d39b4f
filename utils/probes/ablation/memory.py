"""How much memory a forward pass needs, so that a batch can be split before it is too large."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

SURELY = 256  # times the bytes of an image: more than the forward pass of any common model needs


def default_memory(device: torch.device) -> int:
    """Bytes that activations may take by default.

    Args:
        device: The device that the images are on.

    Returns:
        2 GiB, on a CUDA device a quarter of its memory.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory // 4
    return 2 * 2**30


def held(values: object) -> dict[Any, Any]:
    """What a list, tuple, dict or other object (a dataclass, say) holds.

    Args:
        values: Anything.

    Returns:
        Number, key or attribute → what is there; nothing for a tensor, module, class or function.

    Example:
        >>> from utils.probes.ablation.memory import held
        >>> held({"a": 1}), held(["a", "b"]), held("a")
        ({'a': 1}, {0: 'a', 1: 'b'}, {})
    """
    if isinstance(values, dict):
        return dict(values)
    if isinstance(values, list | tuple):
        return dict(enumerate(values))
    if isinstance(values, Tensor | nn.Module | type) or callable(values):
        return {}
    slots = [name for kind in type(values).__mro__ for name in getattr(kind, "__slots__", ())]
    own = {name: getattr(values, name) for name in slots if hasattr(values, name)}
    return own | getattr(values, "__dict__", {})


def tensor_bytes(values: object, above: tuple[int, ...] = ()) -> int:
    """The bytes of a tensor, or of the tensors that something holds.

    Args:
        values: Anything.
        above: The ids of what holds it, which it may hold in turn.

    Returns:
        Their sum, 0 if there is none.

    Example:
        >>> import torch
        >>> from utils.probes.ablation.memory import tensor_bytes
        >>> tensor_bytes([torch.zeros(3), None, (torch.zeros(2, dtype=torch.float64),)])
        28
    """
    if isinstance(values, Tensor):
        return values.nbytes
    if id(values) in above:
        return 0
    return sum(tensor_bytes(part, (*above, id(values))) for part in held(values).values())


@contextmanager
def largest_call(model: nn.Module) -> Iterator[dict[str, int]]:
    """Inside, the bytes that go into and come out of module calls are noted.

    Args:
        model: The model that will be run.

    Yields:
        Module name → bytes of its largest call so far.
    """
    largest: dict[str, int] = {}

    def note(name):
        def hook(module, args, output):
            largest[name] = max(largest.get(name, 0), tensor_bytes(args) + tensor_bytes(output))

        return hook

    with ExitStack() as stack:
        for name, module in model.named_modules():
            stack.callback(module.register_forward_hook(note(name)).remove)
        yield largest
