"""What to ablate: sets of attention entries, heads, channels or units, and what replaces them."""

import operator
import reprlib
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..hooks import shown

VALUES = ("zero", "mean", "renormalise", "uniform")
OF_ROWS = {"renormalise": "scaled up", "uniform": "spread evenly"}  # what they do to a row


@dataclass(frozen=True, eq=False, repr=False)
class AblationSpec:
    """What to ablate in one layer, and what to put in its place.

    Give `keys`, `heads` or both to change an attention layer; give `channels` or `units` to change
    what any module puts out. An empty set changes nothing. Explained in chapter 5.1.

    Args:
        layer: Exactly one layer: its name ("blocks.3.attn", no glob; "relu#2" for the second call
            of a module in a pass) or the module itself, one of the model's.
        keys: Entries of attention rows, prefix tokens counted: the first patch of a class-token
            model is key 1. One of

            - indices (whole numbers) [batch, heads, k], each head its own; [batch, k], the same in
              all heads; or [k], in all images and heads;
            - shares (float in 0 … 1, or Boolean) [batch, heads, keys], [batch, keys] or [keys]: how
              much of each entry is ablated;
            - a function that returns either for the weights that are about to be ablated, [batch,
              heads, keys] for the class row, [batch, heads, queries, keys] for all rows.

            Windows count as batch, as in the maps.
        heads: One head or several, by number. Without keys they are ablated as a whole, prefix
            tokens included; with keys, only there.
        query_rows: "class" for the row of the class token, "all" for all rows.
        channels: Neurons of an MLP at all tokens, or channels of a feature map at all positions:
            indices, one or [k] or [batch, k]; or float shares [channels] or [batch, channels].
        units: Single responses: indices [k] or [batch, k] into the output of one image flattened
            (channel × position in a feature map); or Boolean or float shares [units] or [batch,
            units].
        value: What is put in:

            - "zero";
            - "mean", over images: see `Ablator.fit_means`;
            - for keys, "renormalise": zero, and the rest of the row scaled up to its former sum;
            - for keys, "uniform": what the entries hold spread evenly over them;
            - a float tensor, such as what another image has: attention rows [batch, heads, keys]
              or maps [batch, heads, queries, keys], elsewhere what the layer is to put out [batch,
              …];
            - an int64 tensor [batch, heads, keys], which moves weights within their row: each entry
              gets the weight of the key that stands there.

    Raises:
        ValueError: For what contradicts itself, and numbers out of range.
        TypeError: For what is of no such kind.

    Example:
        >>> import timm, torch
        >>> from utils.probes import AblationSpec, Ablator
        >>> model = timm.create_model("vit_tiny_patch16_224", img_size=48, depth=2).eval()
        >>> head = AblationSpec(model.blocks[1].attn, heads=0)
        >>> patches = AblationSpec("blocks.1.attn", keys=[1, 2], value="renormalise")
        >>> neurons = AblationSpec("blocks.0.mlp.act", channels=range(100))
        >>> patches
        AblationSpec('blocks.1.attn', keys=[1, 2], query_rows='class', value='renormalise')
        >>> Ablator(model).run(torch.rand(4, 3, 48, 48), [head, [patches, neurons]]).shape
        torch.Size([2, 4, 1000])
    """

    layer: str | nn.Module
    keys: Tensor | Sequence | Callable[[Tensor], Tensor] | None = None
    heads: int | Sequence[int] | Tensor | None = None
    query_rows: Literal["class", "all"] = "class"
    channels: int | Tensor | Sequence | None = None
    units: Tensor | Sequence | None = None
    value: Literal["zero", "mean", "renormalise", "uniform"] | Tensor = "zero"

    def __post_init__(self) -> None:
        if not isinstance(self.layer, str | nn.Module):
            raise TypeError(f"An ablation is of a layer's name or a module, not of {self.layer!r}.")
        named = [name for name in ("keys", "heads", "channels", "units") if self._given(name)]
        where = f"The ablation of {shown(self.layer)}"
        if not named:
            raise ValueError(f"{where} names nothing: give keys, heads, channels or units.")
        if len(named) > 1 and named != ["keys", "heads"]:
            raise ValueError(
                f"{where} names both {named[0]} and {named[-1]}: use one spec for each, and put "
                "them into one condition."
            )
        self._check_value(named, where)
        if not isinstance(self.query_rows, str) or self.query_rows not in ("class", "all"):
            raise ValueError(f'query_rows is "class" or "all", not {self.query_rows!r}.')
        if self.heads is not None:
            object.__setattr__(self, "heads", checked_heads(self.heads, where))
        for name in ("keys", "channels", "units"):
            given = getattr(self, name)
            if given is not None and not (name == "keys" and callable(given)):
                object.__setattr__(self, name, checked_set(name, given, where))
        if len(sizes := {len(getattr(self, name)) for name in self._of_images}) > 1:
            raise ValueError(f"{where} is for unequal numbers of images: {sorted(sizes)}.")

    def _check_value(self, named: list[str], where: str) -> None:
        """Raise if the value is none, or does not go with what is named."""
        if isinstance(self.value, Tensor):
            if not self.value.is_floating_point() and not self.on_attention:
                raise ValueError(f"{where} can move attention weights only, not {named[0]}.")
        elif not isinstance(self.value, str):
            raise TypeError(
                f"{where} puts in a tensor or one of {', '.join(VALUES)}, not {self.value!r}."
            )
        elif self.value not in VALUES:
            raise ValueError(
                f"{where} knows no value {self.value!r}: choose one of {', '.join(VALUES)}."
            )
        elif self.value in OF_ROWS and named[0] != "keys":
            raise ValueError(
                f"{where} cannot {'renormalise' if self.value == 'renormalise' else 'even out'} "
                f"{named[0]}, for only entries of an attention row can be {OF_ROWS[self.value]}: "
                "choose zero or mean, or name keys."
            )

    def __repr__(self) -> str:
        fields = [shown(self.layer)]
        for name in ("keys", "heads", "query_rows", "channels", "units", "value"):
            skipped = name == "query_rows" and not self.on_attention
            if self._given(name) and not skipped:
                fields.append(f"{name}={_brief(getattr(self, name))}")
        return f"AblationSpec({', '.join(fields)})"

    def _given(self, name: str) -> bool:
        return getattr(self, name) is not None

    @property
    def on_attention(self) -> bool:
        """Whether attention entries are ablated, and not the output of a module."""
        return self._given("keys") or self._given("heads")

    @property
    def name(self) -> str:
        """The name of the layer; TypeError if it was given as a module, which has none alone."""
        if not isinstance(self.layer, str):
            raise TypeError(f"The name of this {shown(self.layer)} is known to its model alone.")
        return self.layer

    @property
    def module(self) -> str:
        """The name of the layer's module; "layer#2", a second call in one pass, is of "layer"."""
        return self.name.partition("#")[0]

    @property
    def is_empty(self) -> bool:
        """Whether it names an empty set."""
        sets = (self.keys, self.channels, self.units)
        if self.heads == ():
            return True
        return any(isinstance(index, Tensor) and index.numel() == 0 for index in sets)

    @property
    def batch(self) -> int | None:
        """How many images (or windows) it is for; None if any number."""
        return next((len(getattr(self, name)) for name in self._of_images), None)

    @property
    def _of_images(self) -> list[str]:
        """The fields whose first axis runs over images."""
        shared = {"keys": 1, "channels": 1, "units": 1, "value": 0}  # axes of what all share
        return [
            name
            for name, axes in shared.items()
            if isinstance(given := getattr(self, name), Tensor) and given.ndim > axes
        ]

    def images(self, part: slice, batch: int) -> "AblationSpec":
        """The spec for some images of a batch.

        Args:
            part: Which of them.
            batch: How many there are, each of one window or more.

        Returns:
            A spec for these images, or this one if it is for any.
        """
        if self.batch is None or part == slice(0, batch):
            return self
        maps = self.batch // batch  # windows of an image
        part = slice(part.start * maps, part.stop * maps)
        return replace(self, **{name: getattr(self, name)[part] for name in self._of_images})

    def named(self, layer: str) -> "AblationSpec":
        """The same spec for a layer of that name.

        Args:
            layer: The name of an attention layer or module.

        Returns:
            A spec that shares its tensors with this one.
        """
        spec = copy(self)
        object.__setattr__(spec, "layer", layer)
        return spec


def _brief(given: Any) -> str:
    """A set or value in short: small ones in whole, of tensors kind and shape."""
    if isinstance(given, Tensor):
        small = given.ndim == 1 and len(given) <= 8 and not given.is_floating_point()
        kind = str(given.dtype).removeprefix("torch.")
        return str(given.tolist()) if small else f"{kind}{list(given.shape)}"
    return getattr(given, "__name__", None) or repr(given)


AXES = {"keys": 3, "channels": 2, "units": 2}  # at most


def _is_whole(index: Tensor) -> bool:
    """Whether a tensor is of whole numbers, and not of shares."""
    return index.dtype != torch.bool and not index.is_floating_point() and not index.is_complex()


def checked_heads(given: Any, where: str) -> tuple[int, ...]:
    """Numbers of heads from one or several.

    Args:
        given: What was given as heads: a whole number, or a sequence or tensor [k] of them.
        where: The beginning of an error message.

    Returns:
        The numbers, in the order in which they were given.

    Raises:
        TypeError: For anything else.

    Example:
        >>> from utils.probes.ablation.specs import checked_heads
        >>> checked_heads(2, "The ablation"), checked_heads(range(3), "The ablation")
        ((2,), (0, 1, 2))
    """
    given = given.tolist() if isinstance(given, Tensor) else given
    try:
        numbers = list(given) if isinstance(given, Iterable) else [given]
        if bool in map(type, numbers):
            raise TypeError
        return tuple(map(operator.index, numbers))
    except TypeError:
        raise TypeError(
            f"{where} needs heads by their numbers, such as 0 or [0, 2], not {reprlib.repr(given)}."
        ) from None


def checked_set(name: str, given: Any, where: str) -> Tensor:
    """Indices or shares from what was given as a set.

    Args:
        name: "keys", "channels" or "units".
        given: Whole numbers or shares, see `AblationSpec`.
        where: The beginning of an error message.

    Returns:
        Indices as int64, or shares as float.

    Raises:
        ValueError: For an impossible shape or range.
        TypeError: For what is no tensor of numbers and cannot be made one.

    Example:
        >>> from utils.probes.ablation.specs import checked_set
        >>> checked_set("channels", range(3), "The ablation")
        tensor([0, 1, 2])
    """
    try:
        index = torch.as_tensor(given)
    except ValueError:
        raise ValueError(
            f"{where} has {name} of unequal number in its sets: sets of unequal size are given as "
            "shares, 1 for what is ablated and 0 elsewhere."
        ) from None
    except (TypeError, RuntimeError):
        raise TypeError(
            f"{where} needs {name} as whole numbers or shares, in a list or tensor, not "
            f"{reprlib.repr(given)}."
        ) from None
    if index.numel() == 0 and not isinstance(given, Tensor):
        index = index.long()
    if index.ndim == 0 and _is_whole(index):
        index = index[None]
    if not 1 <= index.ndim <= AXES[name]:
        raise ValueError(
            f"{where} needs {name} with 1 to {AXES[name]} axes, not {list(index.shape)}."
        )
    if _is_whole(index):
        if index.numel() and int(index.min()) < 0:
            raise ValueError(f"{where} has {name} out of range: {int(index.min())} is below 0.")
        return index.long()
    index = index.float()
    if not bool(((index >= 0) & (index <= 1)).all()):
        raise ValueError(f"{where} has shares of {name} outside 0 … 1.")
    return index
