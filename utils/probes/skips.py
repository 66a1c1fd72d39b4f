"""A forward pass without one of its skip connections."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from ..models.architectures import NoShortcut


@contextmanager
def without_skip(block: nn.Module, what: str) -> Iterator[None]:
    """A block without one skip connection ("attention", "mlp", "skip") or as if it were not there.

    "block" makes it pass on what it gets; "intact" changes nothing.
    """
    seen: dict[str, Tensor] = {}

    def enter(module, args):
        seen["before"] = args[0]

    def attended(module, args, output):
        seen["between"] = seen["before"] + output
        return output - seen["before"] if what == "attention" else output

    def mixed(module, args, output):
        return output - seen["between"].reshape_as(output)

    with ExitStack() as stack:
        if what == "block":
            handle = block.register_forward_hook(lambda module, args, output: args[0])
            stack.callback(handle.remove)
        elif what == "skip":
            block.downsample = NoShortcut()
            stack.callback(lambda: setattr(block, "downsample", None))
        elif what in ("attention", "mlp"):
            stack.callback(block.register_forward_pre_hook(enter).remove)
            stack.callback(block.drop_path1.register_forward_hook(attended).remove)
            if what == "mlp":
                stack.callback(block.drop_path2.register_forward_hook(mixed).remove)
        yield
