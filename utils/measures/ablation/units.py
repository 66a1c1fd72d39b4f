"""What the units of an ablation are, how strongly each responds, and how a set of them is named."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from math import prod
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ...probes import (
    AblationSpec,
    ActivationRecorder,
    AttentionProbe,
    attention_layers,
    keyed_orders,
    token_layout,
)
from ...probes.channels import channel_axis, follow_channels
from ...probes.hooks import select
from ...probes.modes import refuse_training
from ..responses import float64

UNITS = ("attention", "head", "channel", "position", "unit")
ORDERS = ("response", "head-averaged", "contribution", "position contribution")
QueryRows = Literal["class", "all"]
Named = Literal["zero", "mean", "renormalise", "uniform"]  # what a spec puts in, by name
Replacement = Literal[Named, "resample"]


class Responses(NamedTuple):
    """The responses of one layer, [batch, groups, n] each.

    Groups are the heads of an attention layer whose patches are removed; elsewhere there is one.

    Attributes:
        scores: Decide the order.
        mass: Is what is removed.
    """

    scores: Tensor
    mass: Tensor


class Units(Protocol):
    """The units of some layers of a model."""

    layers: list[str]

    def read(self, images: Tensor) -> dict[str, Responses]:
        """The responses to images, from one forward pass.

        Args:
            images: [batch, 3, h, w].

        Returns:
            Layer → Responses.
        """

    def held(self, images: Tensor) -> dict[str, Tensor]:
        """What the layers hold for images, as `spec` takes it for the value of another's ablation.

        Args:
            images: [batch, 3, h, w].

        Returns:
            Layer → attention rows [batch, heads, keys] or maps, or outputs [batch, …].
        """

    def spec(self, layer: str, shares: Tensor, value: Named | Tensor) -> AblationSpec:
        """Ablate shares of each unit.

        Args:
            layer: Name of a layer.
            shares: [batch, groups, n] in 0 … 1.
            value: As for AblationSpec.
        """

    def elsewhere(self, layer: str, orders: Tensor) -> AblationSpec:
        """Move the weights of units to other places.

        Args:
            layer: Name of a layer.
            orders: [batch, groups, n]; each unit gets the weight of the unit that stands in its
                place.

        Raises:
            ValueError: For units without attention weights.
        """

    def centre(self, layer: str, n: int) -> Tensor:
        """How near to the middle of the grid each of n units is [n], the largest nearest.

        Args:
            layer: Name of a layer.
            n: Number of its units.

        Raises:
            ValueError: For units without a place.
        """


def fixed_scores(
    units: Units, responses: dict[str, Responses], order: str, means: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """Scores that are the same for all images.

    Args:
        units: Of the layers.
        responses: Layer → its Responses.
        order: One of FIXED.
        means: Layer → [groups, n], as `mean_responses` gives them.

    Returns:
        Layer → [1, groups or 1, n].
    """

    def scores(layer: str, n: int) -> Tensor:
        if order == "centre":
            return units.centre(layer, n)[None, None]
        assert means is not None  # the other order is by them
        return means[layer][None]

    return {
        layer: scores(layer, found.scores.shape[-1]).to(found.scores.device)
        for layer, found in responses.items()
    }


def mean_responses(units: Units, batches: Iterable) -> dict[str, Tensor]:
    """The mean over images of the responses that decide the order.

    Args:
        units: Of the layers.
        batches: Tuples that begin with images.

    Returns:
        Layer → [groups, n] float32, summed in float64.

    Raises:
        ValueError: For no images.
    """
    sums: dict[str, Tensor] = {}
    seen = 0
    for images, *_ in batches:
        seen += len(images)
        for layer, found in units.read(images).items():
            sums[layer] = sums.get(layer, 0) + float64(found.scores).sum(0)
    if not seen:
        raise ValueError("There are no responses to take the mean of: the batches hold no images.")
    return {layer: (total / seen).float() for layer, total in sums.items()}


def _nearness(n: int, grid: tuple[int, int] | None, layer: str) -> Tensor:
    """Minus the squared distance of each place from the middle, in half places: exact [n]."""
    if grid is None or grid[0] * grid[1] != n:
        raise ValueError(
            f"Where the {n} positions of {layer!r} are cannot be told, for they are no grid of the "
            "picture's shape: choose another layer, or another order."
        )
    rows, columns = (torch.arange(1 - size, size, 2).square() for size in grid)
    return -(rows[:, None] + columns).flatten().float()


def units_of(
    model: nn.Module,
    layers: str | Iterable[str],
    unit: str,
    order: str = "response",
    groups: int | None = None,
    seed: int = 0,
) -> Units:
    """The units that `unit` and `order` name, in the layers that match.

    Args:
        model: Any network that Ablator takes.
        layers: Glob or globs.
        unit: "attention", a patch as the class row sees it, in each head (all rows where there is
            no class token: a patch as all queries see it, on average); "head", the class row of a
            whole head, prefix tokens included (or all its rows), which responds with the norm of
            what it adds; "channel"; "position", all channels of it; "unit", a channel at a
            position.
        order: By which response attention units are ordered. "response", each head's own;
            "head-averaged", the mean over heads; "contribution", each head's ‖a·vW‖; "position
            contribution", that of their sum, the same order in all heads.
        groups: Put units into that many groups of equal size at random, for unit="unit".
        seed: Of these groups.

    Returns:
        The units.

    Raises:
        ValueError: For unknown names, layers without such units, options that do not go together,
            and a model in training mode.
    """
    refuse_training(model)
    if unit not in UNITS:
        raise ValueError(f"There are no units {unit!r}; choose one of {', '.join(UNITS)}.")
    if order not in ORDERS:
        raise ValueError(f"There is no order {order!r}; choose one of {', '.join(ORDERS)}.")
    if order != "response" and unit != "attention":
        raise ValueError(f"The order {order!r} is one of attention units, not of {unit!r}.")
    if groups is not None and unit != "unit":
        raise ValueError(f'Only unit="unit" is put into groups, not {unit!r}.')
    if groups is not None and groups < 2:
        raise ValueError(f"Units are put into 2 groups or more, not into {groups}.")
    owner = type(model).__name__
    if unit in ("attention", "head"):
        names = select(attention_layers(model), layers, owner)
        return HeadUnits(model, names) if unit == "head" else AttentionUnits(model, names, order)
    names = select([name for name, _ in model.named_modules() if name], layers, owner)
    return ActivationUnits(model, names, unit, groups, seed)


class AttentionUnits:
    """Patch keys, ordered by what attention gives them; prefix tokens are left alone.

    Args:
        model: A Transformer.
        layers: Names of attention layers.
        order: As for `units_of`.
    """

    def __init__(self, model: nn.Module, layers: list[str], order: str = "response") -> None:
        self.model, self.layers, self.order = model, layers, order
        self.layout = token_layout(model)
        self.rows: QueryRows = "class" if self.layout.has_class_token else "all"
        self._size: tuple[int, int] | None = None  # (rows, columns) of the pictures
        if self._contributing:
            for layer in layers:
                attention = model.get_submodule(layer)
                if not isinstance(getattr(attention, "qkv", None), nn.Linear):
                    raise ValueError(
                        f"The contributions in {layer!r} are not known: it has no joint `qkv` "
                        "projection as timm's Vision Transformers do."
                    )

    @property
    def _contributing(self) -> bool:
        """Whether the response is the size of what attention adds."""
        return "contribution" in self.order

    def _maps(
        self, images: Tensor, reduce: Callable[[Tensor], Tensor], projected: bool = False
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The maps of every layer, reduced from [batch, heads, queries, keys].

        Next to them what its joint projection puts out, if that is asked for.
        """
        maps: dict[str, Tensor] = {}
        self._size = (images.shape[-2], images.shape[-1])

        def keep(layer: str, weights: Tensor) -> None:
            if len(weights) != len(images):
                raise ValueError(
                    f"{layer!r} attends in windows, so its keys are not patches of the whole "
                    "image: profile another model or another unit."
                )
            maps[layer] = reduce(weights)

        with ExitStack() as stack, torch.no_grad():
            stack.enter_context(AttentionProbe(self.model, self.layers, self.rows, keep))
            projections = [f"{layer}.qkv" for layer in self.layers if projected]
            if projections:
                record = stack.enter_context(ActivationRecorder(self.model, projections))
            self.model(images)
            values = record.outputs if projections else {}
        names = {layer: f"{layer}.qkv" for layer in maps}
        return maps, {layer: values[name] for layer, name in names.items() if name in values}

    def read(self, images: Tensor) -> dict[str, Responses]:
        """Responses [batch, heads, patches] of every layer."""
        prefix = self.layout.prefix
        maps, projected = self._maps(
            images, lambda weights: weights.mean(2)[..., prefix:], self._contributing
        )
        return {
            layer: Responses(self._scores(layer, mass, projected.get(layer)), mass)
            for layer, mass in maps.items()
        }

    def held(self, images: Tensor) -> dict[str, Tensor]:
        """Rows [batch, heads, keys] of the class token, or maps [batch, heads, queries, keys]."""
        if self.rows == "class":
            return self._maps(images, lambda weights: weights[:, :, 0])[0]
        return self._maps(images, lambda weights: weights)[0]

    def _projection(self, layer: str, qkv: Tensor, heads: int) -> tuple[Tensor, Tensor]:
        """Values [batch, keys, heads, d], and what a layer projects them by [width, heads, d]."""
        value = qkv.unflatten(-1, (3, heads, -1))[:, :, 2]
        weight = self.model.get_submodule(f"{layer}.proj").weight
        assert isinstance(weight, Tensor)
        return value, weight.unflatten(1, (heads, -1))

    def _scores(self, layer: str, mass: Tensor, qkv: Tensor | None) -> Tensor:
        if self.order == "response":
            return mass
        if self.order == "head-averaged":
            return mass.mean(1, keepdim=True).expand_as(mass)
        assert qkv is not None  # the other orders are contributions
        value, weight = self._projection(layer, qkv[:, self.layout.prefix :], mass.shape[1])
        sent = torch.einsum("bkhd,ohd->bhko", value, weight)  # [batch, heads, patches, width]
        sent = mass.unsqueeze(-1) * sent
        if self.order == "contribution":
            return sent.norm(dim=-1)
        return sent.sum(1, keepdim=True).norm(dim=-1).expand_as(mass)

    def spec(self, layer: str, shares: Tensor, value: Named | Tensor) -> AblationSpec:
        """Ablate shares [batch, heads, patches] of the attention to each patch."""
        keys = nn.functional.pad(shares, (self.layout.prefix, 0))
        return AblationSpec(layer, keys=keys, query_rows=self.rows, value=value)

    def elsewhere(self, layer: str, orders: Tensor) -> AblationSpec:
        """The same weights at other places.

        Args:
            layer: Name of a layer.
            orders: [batch, heads, patches]; each patch gets the weight of the patch that stands in
                its place.
        """
        prefix = self.layout.prefix
        places = nn.functional.pad(orders + prefix, (prefix, 0))
        places[..., :prefix] = torch.arange(prefix)
        return self.spec(layer, torch.ones_like(orders, dtype=torch.float32), places)

    def centre(self, layer: str, n: int) -> Tensor:
        """How near to the middle each of n patches is [n]."""
        return _nearness(n, self.layout.grid_in(n, self._size), layer)


class HeadUnits(AttentionUnits):
    """Whole heads, ordered by ‖Σ a·vW‖, the size of what each adds to the class token.

    Args:
        model: A Transformer.
        layers: Names of attention layers.
    """

    _contributing = True

    def __init__(self, model: nn.Module, layers: list[str]) -> None:
        super().__init__(model, layers)
        self._keys: dict[str, int] = {}

    def read(self, images: Tensor) -> dict[str, Responses]:
        """Responses [batch, 1, heads] of every layer."""
        maps, projected = self._maps(images, lambda weights: weights.mean(2), True)
        found = {}
        for layer, rows in maps.items():
            value, weight = self._projection(layer, projected[layer], rows.shape[1])
            mixed = torch.einsum("bhk,bkhd->bhd", rows, value.to(rows.dtype))
            added = torch.einsum("bhd,ohd->bho", mixed, weight.to(rows.dtype))
            scores = added.norm(dim=-1).unsqueeze(1)
            found[layer] = Responses(scores, scores)
            self._keys[layer] = rows.shape[-1]
        return found

    def spec(self, layer: str, shares: Tensor, value: Named | Tensor) -> AblationSpec:
        """Ablate shares [batch, 1, heads] of the rows of each head.

        Args:
            layer: Name of a layer.
            shares: [batch, 1, heads] in 0 … 1.
            value: As for AblationSpec.

        Raises:
            ValueError: For a value that leaves the mass of a row where it is.
        """
        if value in ("renormalise", "uniform"):
            raise ValueError(
                f"A whole head of {layer!r} leaves no rest that could take over: choose zero, mean "
                "or resample."
            )
        keys = shares[:, 0, :, None].expand(-1, -1, self._keys[layer])
        return AblationSpec(layer, keys=keys, query_rows=self.rows, value=value)

    def centre(self, layer: str, n: int) -> Tensor:
        """Refuse, for heads have no place.

        Args:
            layer: Name of a layer.
            n: Number of heads.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f'The heads of {layer!r} have no place, and so no order "centre".')


class ActivationUnits:
    """Channels, positions, or channels at positions, of what modules put out, rectified.

    Prefix tokens are no positions. A position responds with the norm over its channels.

    Args:
        model: Any network.
        layers: Names of modules.
        unit: "channel", "position" or "unit".
        groups: As for `units_of`.
        seed: As for `units_of`.
    """

    def __init__(
        self, model: nn.Module, layers: list[str], unit: str, groups: int | None, seed: int
    ) -> None:
        self.model, self.layers, self.unit = model, layers, unit
        self.groups, self.seed = groups, seed
        self.layout = token_layout(model)
        self._owners: dict[str, Tensor] = {}  # of each entry of the output: its unit, −1 for none
        self._grids: dict[str, tuple[int, int] | None] = {}
        self._size = (0, 0)  # (rows, columns) of the pictures

    def read(self, images: Tensor) -> dict[str, Responses]:
        """Responses [batch, 1, n] of every layer."""
        return {layer: self._responses(layer, x) for layer, x in self.held(images).items()}

    def held(self, images: Tensor) -> dict[str, Tensor]:
        """What the layers put out for images [batch, …]."""
        self._size = (images.shape[-2], images.shape[-1])
        follow_channels(self.model, images)
        with ActivationRecorder(self.model, self.layers) as record, torch.no_grad():
            self.model(images)
        for layer, values in record.outputs.items():
            if len(values) != len(images):
                raise ValueError(
                    f"{layer!r} puts out {len(values)} parts of {len(images)} images (windows, "
                    "say), so its units are not of whole images: choose another layer."
                )
        return record.outputs

    def _responses(self, layer: str, values: Tensor) -> Responses:
        known = self._owners.get(layer)
        if known is None or len(known) != values[0].numel():
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
        """The unit of each entry of what a layer puts out for one image, −1 for none."""
        if len(shape) not in (2, 3):
            raise ValueError(
                f"{layer!r} puts out {list(shape)} for an image, neither a map nor tokens: choose "
                "another layer."
            )
        axis = channel_axis(self.model, layer, 1 + len(shape)) % (1 + len(shape)) - 1
        places = [size for i, size in enumerate(shape) if i != axis]
        count = prod(places)
        prefix = self.layout.prefix_in(count, self._size) if len(shape) == 2 else 0
        grid = self.layout.grid_in(count - prefix, self._size)
        self._grids[layer] = grid if len(shape) == 2 or grid == (*places,) else None
        position = (torch.arange(count) - prefix).clamp(min=-1).reshape(places)
        position = position.unsqueeze(axis).expand(shape)
        channel = torch.arange(shape[axis]).expand(*places, -1).movedim(-1, axis)
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

    def elsewhere(self, layer: str, orders: Tensor) -> AblationSpec:
        """Refuse, for only attention has weights to move.

        Args:
            layer: Name of a layer.
            orders: [batch, 1, n].

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"Only attention weights can be put elsewhere, not {self.unit!r}.")

    def centre(self, layer: str, n: int) -> Tensor:
        """How near to the middle each of n positions is [n].

        Args:
            layer: Name of a layer.
            n: Number of its positions.

        Raises:
            ValueError: For other units than positions.
        """
        if self.unit != "position":
            raise ValueError(f'The units {self.unit!r} have no place, and so no order "centre".')
        return _nearness(n, self._grids[layer], layer)

    def spec(self, layer: str, shares: Tensor, value: Named | Tensor) -> AblationSpec:
        """Ablate shares [batch, 1, n] of each unit."""
        shares = shares[:, 0]
        if self.unit == "channel":
            return AblationSpec(layer, channels=shares, value=value)
        owners = self._owners[layer]
        each = shares[:, owners.clamp(min=0)] * (owners >= 0)
        return AblationSpec(layer, units=each, value=value)
