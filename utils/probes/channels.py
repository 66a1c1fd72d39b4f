"""Along which axis of what a layer puts out its channels lie, read off one pass of the model.

Convolutions and batch norms put channels first, linear layers and layer norms put them last. From
there they are followed through the pass, whatever its modules are called: where axes are moved,
split or merged, the same is done to numbers, one for each channel, and the channels lie where those
differ; all else leaves them where they are.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .modes import evaluating

# Functions that put channels at axis 1, or last.
FIRST = {f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)}
FIRST |= {"batch_norm", "group_norm", "instance_norm"}
LAST = {"linear", "bilinear", "layer_norm", "rms_norm", "embedding", "lstm", "gru"}
RESHAPES = {"reshape", "view", "flatten", "unflatten", "reshape_as", "view_as"}  # may keep the size
JOINS = {"cat", "concat", "concatenate"}
DIFFERS = 0.01  # of the range of the numbers: more than rounding does
PICTURE = (3, 224, 224)  # for a model that does not say what it takes


class _Where(NamedTuple):
    """Where the channels of a tensor are.

    Attributes:
        axis: Their axis; the last of them where they are spread over several, as over heads.
        numbers: If they are: one number for each channel, in the shape of the tensor.
    """

    axis: int
    numbers: Tensor | None = None


def _numbered(tensor: Tensor, where: _Where) -> Tensor:
    """A tensor laid out like another in which each channel has a number of its own."""
    numbers = where.numbers
    if numbers is None:
        shape = [1] * tensor.ndim
        shape[where.axis] = tensor.shape[where.axis]
        numbers = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    elif numbers.stride() == tensor.stride():
        return numbers
    kind = tensor.dtype if tensor.is_floating_point() else torch.float32
    like = torch.empty_strided(tensor.size(), tensor.stride(), dtype=kind, device=tensor.device)
    return like.copy_(numbers)


def _differing(numbers: Any) -> list[int]:
    """Along which axes numbers differ."""
    if not isinstance(numbers, Tensor) or not numbers.numel():
        return []
    numbers = numbers.float()
    least = DIFFERS * float(numbers.max() - numbers.min())
    spread = [float((numbers.amax(i) - numbers.amin(i)).max()) for i in range(numbers.ndim)]
    return [axis for axis, found in enumerate(spread) if found > least]


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)


def _where(value: Any) -> _Where | None:
    return getattr(value, "_channels", None) if isinstance(value, Tensor) else None


def _says(name: str, where: _Where | None) -> bool:
    """Whether it matters to a function where the channels are: no longer in attention weights."""
    return where is not None and (name != "softmax" or where.numbers is None)


def _mark(tensor: Tensor, where: _Where) -> None:
    tensor._channels = where  # type: ignore[attr-defined]  # goes with the tensor


class _Follower(TorchFunctionMode):
    """Inside, tensors know where their channels are."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        given = [*_tensors([*args, *(kwargs or {}).values()])]
        made = [each for each in _tensors(output) if not any(each is one for one in given)]
        if name in FIRST | LAST:
            for each in made:
                _mark(each, _Where(1 if name in FIRST else each.ndim - 1))
        elif known := [each for each in given if _says(name, _where(each))]:
            for i, each in enumerate(made):
                if kept := self._kept(name, known, each):
                    _mark(each, kept)
                else:
                    self._move(func, args, kwargs or {}, known, each, i)
        return output

    def _kept(self, name: str, known: list[Tensor], made: Tensor) -> _Where | None:
        """Where the channels are if a function left them where they were, for all that is seen."""
        for source in known:
            if (where := _where(source)) is None:
                continue
            axis, numbers = where
            if name in RESHAPES or source.ndim != made.ndim or self._moved(source, made):
                continue
            same = source.shape == made.shape
            if same or (numbers is None and self._as_many(name, source, made, axis)):
                return where
        return None

    @staticmethod
    def _as_many(name: str, source: Tensor, made: Tensor, axis: int) -> bool:
        return name in JOINS or made.shape[axis] in (source.shape[axis], 1)  # 1: a mean, say

    @staticmethod
    def _moved(source: Tensor, made: Tensor) -> bool:
        """Whether one is another view of the memory of the other."""
        one, other = (each.untyped_storage().data_ptr() for each in (source, made))
        return one == other and source.stride() != made.stride()

    @staticmethod
    def _move(func, args, kwargs, known: list[Tensor], made: Tensor, number: int) -> None:
        """Do to numbers of channels what was done to tensors."""

        def numbered(value):
            if isinstance(value, list | tuple):
                return type(value)(map(numbered, value))
            where = _where(value)
            return _numbered(value, where) if where else value

        try:  # an expanded tensor, for one, cannot be written to
            done = [*_tensors(func(*map(numbered, args), **kwargs))]
        except Exception:  # numbers cannot stand for it: its channels are unknown
            return
        numbers = done[number] if number < len(done) else None
        axes = _differing(numbers)
        before = _where(known[0])
        alone = before is not None and before.numbers is None and made.ndim == known[0].ndim
        if before is not None and alone and before.axis in axes:
            axes = [before.axis]
        if axes:
            _mark(made, _Where(axes[-1], numbers if len(axes) > 1 else None))


# Of each call of a module in a pass: how many axes its output has, and which the channels are.
_axes: WeakKeyDictionary[nn.Module, list[tuple[int, int]]] = WeakKeyDictionary()


@torch.no_grad()
def follow_channels(model: nn.Module, images: Tensor) -> None:
    """Find the axis of the channels in all that the modules of a model put out, once for all.

    Args:
        model: The whole model, as it is; nothing is done if its axes are known.
        images: What it is called with; one image is enough, and only the first is taken.
    """
    if all(module in _axes for module in model.modules()):
        return
    found: dict[nn.Module, list[tuple[int, int]]] = {module: [] for module in model.modules()}

    def note(module, args, output):
        ndim, where = output.ndim if isinstance(output, Tensor) else 0, _where(output)
        axis = where.axis if where else ndim - 1
        found[module].append((ndim, -1 if axis == ndim - 1 else axis))

    with ExitStack() as stack:
        stack.enter_context(evaluating(model))
        for module in found:
            stack.callback(module.register_forward_hook(note).remove)
        stack.enter_context(_Follower())
        try:
            first = images[:1].clone()
            _mark(first, _Where(1))
            model(first)
        finally:
            for module, axes in found.items():
                _axes.setdefault(module, axes)


def axes_known(model: nn.Module, layer: str) -> bool:
    """Whether `follow_channels` has been done for a layer of a model."""
    return model.get_submodule(layer) in _axes


def channel_axis(model: nn.Module, layer: str, ndim: int) -> int:
    """Along which axis of a layer's output its channels lie.

    It is read off one pass of the whole model, when it is first asked for or by `follow_channels`,
    and then known: what is asked later, with parts of the model changed or replaced, is the same.

    Args:
        model: The model that the layer is part of.
        layer: The name of the layer; "relu#2" for the second call of a module in a pass.
        ndim: How many axes its output has.

    Returns:
        1 for feature maps [batch, channels, rows, columns], −1 for tokens [batch, tokens, channels]
        and channels-last maps [batch, rows, columns, channels].

    Raises:
        ValueError: If a pass of a picture as the model says it takes them does not come to the
            layer.

    Example:
        >>> import timm
        >>> from utils.probes.anatomy import channel_axis
        >>> model = timm.create_model("convnext_tiny", depths=(1, 1, 1, 1), dims=(8, 16, 24, 32))
        >>> channel_axis(model, "stages.0.blocks.0.conv_dw", 4)
        1
        >>> channel_axis(model, "stages.0.blocks.0.mlp.act", 4)
        -1
    """
    if ndim != 4:
        return -1
    name, _, call = layer.partition("#")
    module = model.get_submodule(name)
    if module not in _axes:
        picture = _picture(model)
        try:
            follow_channels(model, picture)
        except Exception as error:
            if not _axes.get(module):
                shape = " × ".join(map(str, picture.shape[1:]))
                raise ValueError(
                    f"Which axis of {layer!r} its channels are is told by a pass of a picture, but "
                    f"{type(model).__name__} takes none of {shape}: run "
                    "channels.follow_channels(model, images) with images that it takes first."
                ) from error
    calls = _axes[module]
    asked = calls[int(call) - 1 : int(call)] if call else calls
    return next((axis for axes, axis in [*asked, *calls] if axes == ndim), -1)


def _picture(model: nn.Module) -> Tensor:
    """A picture as a model says that it takes them."""
    configured = (vars(module).get("pretrained_cfg") for module in model.modules())
    shape = next((tuple(each["input_size"]) for each in configured if each), None)
    if shape is None:
        convolution = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
        colours = convolution.in_channels if convolution else PICTURE[0]
        sides = (vars(module).get("image_size") for module in model.modules())
        side = next((each for each in sides if isinstance(each, int)), PICTURE[1])
        shape = colours, side, side
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    return torch.zeros(1, *shape, device=like.device, dtype=like.dtype)
