"""What to ablate: sets of attention entries, heads, channels or units, and what replaces them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

VALUES = ("zero", "mean", "renormalise", "uniform")
OF_ROWS = {"renormalise": "scaled up", "uniform": "spread evenly"}  # what they do to a row


@dataclass(frozen=True, eq=False)
class AblationSpec:
    """What to ablate in one layer, and what to put in its place.

    Attention: `layer` is an attention layer as AttentionProbe names it ("blocks.3.attn").
    keys: int64 [batch, heads, k], each head its own, or [batch, k], all heads alike: indices into
        the key axis of the map, prefix tokens included (the first patch of a class-token model is
        1); or a float tensor [batch, heads, keys] or [batch, keys] of shares in [0, 1], how much of
        each entry is ablated; or a function of the weights that are about to be ablated, [batch,
        heads, keys] for the class row and [batch, heads, queries, keys] otherwise, which returns
        such a tensor. Windows count as batch, as in the maps.
    heads: indices of heads. Without keys they are ablated as a whole, prefix tokens included; with
        keys, only there.
    query_rows: "class" for the row of the class token, "all" for all rows.
    Elsewhere: `layer` is the name of a module, and what it puts out is changed.
    channels: int64 [k] or [batch, k]: neurons of an MLP at all tokens, channels of a feature map at
        all positions; or float shares [channels] or [batch, channels].
    units: int64 [batch, k], indices into the output of one image flattened (channel × position in
        a feature map); or a Boolean or float tensor of shares [batch, units].
    value: "zero"; "mean", over images (see `Ablator.fit_means`); for keys "renormalise", zero and
        the rest of the row scaled up to its former sum, or "uniform", what the entries hold spread
        evenly over them; or a tensor of what is put in for each image: attention rows [batch,
        heads, keys] or maps [batch, heads, queries, keys], such as another image's, elsewhere what
        the layer is to put out [batch, …]. An int64 tensor [batch, heads, keys] moves weights
        within their row: each entry gets the weight of the key that stands there.

    An empty set changes nothing. ValueError for what contradicts itself. Explained in chapter 5.1.
    """

    layer: str
    keys: Tensor | Sequence | Callable[[Tensor], Tensor] | None = None
    heads: Sequence[int] | None = None
    query_rows: Literal["class", "all"] = "class"
    channels: Tensor | Sequence | None = None
    units: Tensor | Sequence | None = None
    value: Literal["zero", "mean", "renormalise", "uniform"] | Tensor = "zero"

    def __post_init__(self) -> None:
        named = [name for name in ("keys", "heads", "channels", "units") if self._given(name)]
        where = f"The ablation of {self.layer!r}"
        if not named:
            raise ValueError(f"{where} names nothing: give keys, heads, channels or units.")
        if len(named) > 1 and named != ["keys", "heads"]:
            raise ValueError(
                f"{where} names both {named[0]} and {named[-1]}: use one spec for each, and put "
                "them into one condition."
            )
        given = isinstance(self.value, Tensor)
        if not given and self.value not in VALUES:
            raise ValueError(
                f"{where} knows no value {self.value!r}: choose one of {', '.join(VALUES)}."
            )
        if self.query_rows not in ("class", "all"):
            raise ValueError(f'query_rows is "class" or "all", not {self.query_rows!r}.')
        if self.value in OF_ROWS and named[0] != "keys":
            raise ValueError(
                f"{where} cannot {'renormalise' if self.value == 'renormalise' else 'even out'} "
                f"{named[0]}, for only entries of an attention row can be {OF_ROWS[self.value]}: "
                "choose zero or mean, or name keys."
            )
        if given and not self.value.is_floating_point() and not self.on_attention:
            raise ValueError(f"{where} can move attention weights only, not {named[0]}.")
        if self.heads is not None:
            object.__setattr__(self, "heads", tuple(map(int, self.heads)))
        for name in ("keys", "channels", "units"):
            given = getattr(self, name)
            if given is not None and not callable(given):
                object.__setattr__(self, name, checked_set(name, given, where))
        if len(sizes := {len(getattr(self, name)) for name in self._of_images}) > 1:
            raise ValueError(f"{where} is for unequal numbers of images: {sorted(sizes)}.")

    def _given(self, name: str) -> bool:
        return getattr(self, name) is not None

    @property
    def on_attention(self) -> bool:
        """Whether attention entries are ablated, and not the output of a module."""
        return self._given("keys") or self._given("heads")

    @property
    def module(self) -> str:
        """The layer's module: a second call in one pass, "layer#2", is of the same module."""
        return self.layer.partition("#")[0]

    @property
    def is_empty(self) -> bool:
        """Whether it names an empty set."""
        sets = (self.keys, self.channels, self.units)
        if self.heads == ():
            return True
        return any(isinstance(index, Tensor) and index.numel() == 0 for index in sets)

    @property
    def batch(self) -> int | None:
        """For how many images (or windows) it is; None if for any."""
        return next((len(getattr(self, name)) for name in self._of_images), None)

    @property
    def _of_images(self) -> list[str]:
        """The fields whose first axis runs over images."""
        shared = {"keys": 0, "channels": 1, "units": 0, "value": 0}  # axes of what all share
        return [
            name
            for name, axes in shared.items()
            if isinstance(given := getattr(self, name), Tensor) and given.ndim > axes
        ]

    def images(self, part: slice, batch: int) -> "AblationSpec":
        """The spec for some images of a batch."""
        if self.batch is None or part == slice(0, batch):
            return self
        maps = self.batch // batch  # windows of an image
        part = slice(part.start * maps, part.stop * maps)
        return replace(self, **{name: getattr(self, name)[part] for name in self._of_images})


DIMENSIONS = {"keys": (2, 3), "channels": (1, 2), "units": (2,)}


def checked_set(name: str, given: Any, where: str) -> Tensor:
    """Indices as int64 or shares as float; ValueError unless shape and range are possible."""
    try:
        index = torch.as_tensor(given)
    except (TypeError, ValueError):
        raise ValueError(
            f"{where} has {name} of unequal number in its sets: sets of unequal size are given as "
            "shares, 1 for what is ablated and 0 elsewhere."
        ) from None
    if index.numel() == 0 and not isinstance(given, Tensor):
        index = index.long()
    if index.ndim not in DIMENSIONS[name]:
        axes = " or ".join(map(str, DIMENSIONS[name]))
        raise ValueError(f"{where} needs {name} with {axes} axes, not {list(index.shape)}.")
    if not index.is_floating_point() and index.dtype != torch.bool:
        if index.numel() and int(index.min()) < 0:
            raise ValueError(f"{where} has {name} out of range: {int(index.min())} is below 0.")
        return index.long()
    index = index.float()
    if not bool(((index >= 0) & (index <= 1)).all()):
        raise ValueError(f"{where} has shares of {name} outside 0 … 1.")
    return index
