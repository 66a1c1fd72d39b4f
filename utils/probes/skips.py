"""A forward pass without one of its skip connections."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from ..models.architectures import NoShortcut


@contextmanager
def without_skip(block: nn.Module, what: str) -> Iterator[None]:
    """Inside, a block lacks one skip connection, or is as if it were not there. Chapter 2.4.

    Args:
        block: A block of the model, as `anatomy.middle_block` finds one.
        what: "attention", "mlp" or "skip" for that connection; "block" for the block, which then
            passes on what it gets; "intact" for nothing.

    Yields:
        Nothing; on leaving, the block is as it was.

    Example:
        >>> import torch
        >>> from utils.models import zoo
        >>> from utils.probes.anatomy import middle_block
        >>> from utils.probes.skips import without_skip
        >>> model, images = zoo.load("vit-d6-h4"), torch.rand(2, 3, 32, 32)
        >>> intact, (name, skips) = model(images), middle_block(model)
        >>> with without_skip(model.get_submodule(name), skips[0]):
        ...     changed = model(images)
        >>> torch.equal(changed, intact), torch.equal(model(images), intact)
        (False, True)
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
            stack.callback(block.get_submodule("drop_path1").register_forward_hook(attended).remove)
            if what == "mlp":
                stack.callback(
                    block.get_submodule("drop_path2").register_forward_hook(mixed).remove
                )
        yield
