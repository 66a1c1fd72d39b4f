"""What the units of an ablation are, how strongly each responds, and how a set of them is named."""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from utils.probes import (
    AblationSpec,
    ActivationRecorder,
    AttentionProbe,
    attention_layers,
    keyed_orders,
    token_layout,
)
from utils.probes.hooks import select

UNITS = ("attention", "channel", "position", "unit")
ORDERS = ("response", "head-averaged", "contribution", "position contribution")


class Responses(NamedTuple):
    """Of one layer, [batch, groups, n] each: `scores` decide the order, `mass` is what is removed.

    Groups are the heads of an attention layer; elsewhere there is one.
    """

    scores: Tensor
    mass: Tensor


class Units(Protocol):
    """The units of some layers of a model."""

    layers: list[str]

    def read(self, images: Tensor) -> dict[str, Responses]:
        """The responses to images [batch, 3, h, w], from one forward pass."""

    def spec(self, layer: str, shares: Tensor, value: str) -> AblationSpec:
        """Ablate `shares` [batch, groups, n] in 0 … 1 of each unit."""


def units_of(
    model: nn.Module,
    layers: str | Iterable[str],
    unit: str,
    order: str = "response",
    groups: int | None = None,
    seed: int = 0,
) -> Units:
    """The units that `unit` and `order` name, in the layers that match.

    unit : "attention", a patch as the class row sees it, in each head (all rows where there is no
        class token: a patch as all queries see it, on average); "channel"; "position", all channels
        of it; "unit", a channel at a position
    order : by which response attention units are ordered: each head's own; the mean over heads; or
        ‖a·vW‖, each head's contribution or (the same order in all heads) their sum's
    groups : put units into that many groups of equal size at random, for unit="unit"

    ValueError for unknown names, layers without such units, and options that do not go together.
    """
    if unit not in UNITS:
        raise ValueError(f"There are no units {unit!r}; choose one of {', '.join(UNITS)}.")
    if order not in ORDERS:
        raise ValueError(f"There is no order {order!r}; choose one of {', '.join(ORDERS)}.")
    if order != "response" and unit != "attention":
        raise ValueError(f"The order {order!r} is one of attention units, not of {unit!r}.")
    if groups is not None and unit != "unit":
        raise ValueError(f'Only unit="unit" is put into groups, not {unit!r}.')
    owner = type(model).__name__
    if unit == "attention":
        return AttentionUnits(model, select(attention_layers(model), layers, owner), order)
    names = select([name for name, _ in model.named_modules() if name], layers, owner)
    return ActivationUnits(model, names, unit, groups, seed)


class AttentionUnits:
    """Patch keys, ordered by what attention gives them; prefix tokens are left alone."""

    def __init__(self, model: nn.Module, layers: list[str], order: str) -> None:
        self.model, self.layers, self.order = model, layers, order
        self.layout = token_layout(model)
        self.rows = "class" if self.layout.has_class_token else "all"
        if "contribution" in order:
            for layer in layers:
                attention = model.get_submodule(layer)
                if not isinstance(getattr(attention, "qkv", None), nn.Linear):
                    raise ValueError(
                        f"The contributions in {layer!r} are not known: it has no joint `qkv` "
                        "projection as timm's Vision Transformers do."
                    )

    def read(self, images: Tensor) -> dict[str, Responses]:
        """Responses [batch, heads, patches] of every layer."""
        maps, values = {}, {}
        prefix = self.layout.prefix

        def keep(layer: str, weights: Tensor) -> None:  # [batch, heads, queries, keys]
            if len(weights) != len(images):
                raise ValueError(
                    f"{layer!r} attends in windows, so its keys are not patches of the whole "
                    "image: profile another model or another unit."
                )
            maps[layer] = weights.mean(2)[..., prefix:]

        projections = [f"{layer}.qkv" for layer in self.layers if "contribution" in self.order]
        with AttentionProbe(self.model, self.layers, self.rows, keep), torch.no_grad():
            if projections:
                with ActivationRecorder(self.model, projections) as record:
                    self.model(images)
                values = record.values
            else:
                self.model(images)
        return {
            layer: Responses(self._scores(layer, mass, values.get(f"{layer}.qkv")), mass)
            for layer, mass in maps.items()
        }

    def _scores(self, layer: str, mass: Tensor, qkv: Tensor | None) -> Tensor:
        if self.order == "response":
            return mass
        if self.order == "head-averaged":
            return mass.mean(1, keepdim=True).expand_as(mass)
        heads = mass.shape[1]
        value = qkv[:, self.layout.prefix :].unflatten(-1, (3, heads, -1))[:, :, 2]
        weight = self.model.get_submodule(layer).proj.weight.unflatten(1, (heads, -1))
        sent = torch.einsum("bkhd,ohd->bhko", value, weight)  # [batch, heads, patches, width]
        sent = mass.unsqueeze(-1) * sent
        if self.order == "contribution":
            return sent.norm(dim=-1)
        return sent.sum(1, keepdim=True).norm(dim=-1).expand_as(mass)

    def spec(self, layer: str, shares: Tensor, value: str) -> AblationSpec:
        """Ablate shares [batch, heads, patches] of the attention to each patch."""
        keys = nn.functional.pad(shares, (self.layout.prefix, 0))
        return AblationSpec(layer, keys=keys, query_rows=self.rows, value=value)


class ActivationUnits:
    """Channels, positions, or channels at positions, of what modules put out, rectified.

    Prefix tokens are no positions. A position responds with the norm over its channels.
    """

    def __init__(
        self, model: nn.Module, layers: list[str], unit: str, groups: int | None, seed: int
    ) -> None:
        self.model, self.layers, self.unit = model, layers, unit
        self.groups, self.seed = groups, seed
        self.prefix = token_layout(model).prefix
        self._owners: dict[str, Tensor] = {}  # of each entry of the output: its unit, −1 for none

    def read(self, images: Tensor) -> dict[str, Responses]:
        """Responses [batch, 1, n] of every layer."""
        with ActivationRecorder(self.model, self.layers) as record, torch.no_grad():
            self.model(images)
        return {layer: self._responses(layer, values) for layer, values in record.values.items()}

    def _responses(self, layer: str, values: Tensor) -> Responses:
        if layer not in self._owners:
            self._owners[layer] = self._assign(layer, values.shape[1:]).to(values.device)
        owners = self._owners[layer]
        counted = owners >= 0
        flat = values.flatten(1).float()
        flat = flat.square() if self.unit == "position" else flat.relu()
        n = int(owners.max()) + 1
        total = flat.new_zeros(len(flat), n).index_add(1, owners[counted], flat[:, counted])
        scores = (total.sqrt() if self.unit == "position" else total).unsqueeze(1)
        return Responses(scores, scores)

    def _assign(self, layer: str, shape: torch.Size) -> Tensor:
        if len(shape) == 3:  # [channels, h, w]
            channels, positions = shape[0], shape[1] * shape[2]
            position = torch.arange(positions).expand(channels, positions)
            channel = torch.arange(channels)[:, None].expand(channels, positions)
        elif len(shape) == 2:  # [tokens, channels]
            tokens, channels = shape
            position = (torch.arange(tokens) - self.prefix).clamp(min=-1)
            position = position[:, None].expand(tokens, channels)
            channel = torch.arange(channels).expand(tokens, channels)
        else:
            raise ValueError(
                f"{layer!r} puts out {list(shape)} for an image, neither a map nor tokens: choose "
                "another layer."
            )
        if self.unit == "channel":
            return channel.flatten()
        if self.unit == "position":
            return position.flatten()
        inside = (position >= 0).flatten()
        owners = torch.full((inside.numel(),), -1)
        count = int(inside.sum())
        if self.groups is None:
            owners[inside] = torch.arange(count)
            return owners
        if count < self.groups:
            raise ValueError(f"{layer!r} has {count} units, fewer than {self.groups} groups.")
        shuffled = keyed_orders(self.seed, torch.zeros(1, dtype=torch.int64), 0, (count,))[0]
        owners[inside] = shuffled % self.groups
        return owners

    def spec(self, layer: str, shares: Tensor, value: str) -> AblationSpec:
        """Ablate shares [batch, 1, n] of each unit."""
        shares = shares[:, 0]
        if self.unit == "channel":
            return AblationSpec(layer, channels=shares, value=value)
        owners = self._owners[layer]
        each = shares[:, owners.clamp(min=0)] * (owners >= 0)
        return AblationSpec(layer, units=each, value=value)
