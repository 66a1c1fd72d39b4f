"""Which axis of a map the channels are, and what is counted and measured along it."""

from functools import partial

import torch
from helpers.layouts import MODELS, WRAPPERS, model, shapes, some, true_axes
from torch import nn

from experiments.tasks.measure import Measurement
from faults.case import Case
from utils.measures.ablation.units import units_of
from utils.probes.anatomy import activation_layers, channel_axis, places
from utils.probes.channels import follow_channels

PICTURES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
LAST = ("torchvision ConvNeXt", "torchvision Swin", "MambaOut", "CAFormer", "FocalNet")
FIRST = ("torchvision ResNet", "EfficientViT", "torchvision ShuffleNet")


def _axis(name: str, number: int, how: str, of: int, _=None) -> int:
    wrap, path = WRAPPERS[how]
    layer = some(list(true_axes(name)), of)[number]
    return channel_axis(wrap(model(name)), path + layer, 4) % 4


def _true_axis(name: str, number: int, of: int, _=None) -> int:
    return true_axes(name)[some(list(true_axes(name)), of)[number]]


def _activation(name: str) -> str:
    """An activation function that puts out maps, two thirds of the way through a model."""
    kinds = [layer for layer in activation_layers(model(name)) if layer in true_axes(name)]
    return kinds[2 * len(kinds) // 3]


def _output(name: str, layer: str) -> torch.Tensor:
    """What a layer puts out, channels last [batch, rows, columns, channels]."""
    kept = []
    handle = model(name).get_submodule(layer).register_forward_hook(lambda *a: kept.append(a[2]))
    with torch.no_grad():
        model(name)(PICTURES)
    handle.remove()
    return kept[0].movedim(true_axes(name)[layer], -1)


def _scores(name: str, unit: str, _=None) -> torch.Tensor:
    layer = _activation(name)
    return units_of(model(name), layer, unit).read(PICTURES)[layer].scores[:, 0]


def _true_scores(name: str, unit: str, _=None) -> torch.Tensor:
    maps = _output(name, _activation(name)).double()
    if unit == "position":
        return maps.square().sum(-1).sqrt().flatten(1).float()
    return maps.relu().sum((1, 2)).float() if unit == "channel" else maps.relu().flatten(1).float()


def _removed(name: str, unit: str, _=None) -> torch.Tensor:
    """Which entries of the output the first unit of each image is, channels last."""
    layer = _activation(name)
    units = units_of(model(name), layer, unit)
    n = units.read(PICTURES)[layer].scores.shape[-1]
    shares = torch.zeros(len(PICTURES), 1, n)
    shares[..., 5] = 1
    spec = units.spec(layer, shares, "zero")
    given = spec.units if spec.channels is None else spec.channels
    if unit == "channel":
        return given
    shape = shapes(name, 64)[layer]
    maps = given.reshape(len(PICTURES), *shape[1:])
    return maps.movedim(true_axes(name)[layer], -1).flatten(1, 2)


def _truly_removed(name: str, unit: str, _=None) -> torch.Tensor:
    _, rows, columns, channels = _output(name, _activation(name)).shape
    if unit == "channel":
        return torch.eye(channels)[5].expand(len(PICTURES), -1)
    expected = torch.zeros(len(PICTURES), rows * columns, channels)
    expected[:, 5] = 1
    return expected


def _measured(name: str, unit: str, _=None) -> float:
    """The mean Gini index of the rectified responses of an image."""
    layer = _activation(name)
    found = Measurement(model(name), ["activation"])
    found.update(PICTURES, torch.zeros(2, dtype=torch.int64), torch.arange(2))
    return float(found.metrics.of(("population_gini", layer, unit)).compute().mean)


def _truly_measured(name: str, unit: str, _=None) -> float:
    maps = _output(name, _activation(name)).double().relu()
    x = maps.mean((1, 2)) if unit == "channel" else maps.flatten(1)
    x, n = x.sort(-1).values, x.shape[-1]
    ginis = ((2 * torch.arange(1, n + 1) - n - 1) * x).sum(-1) / (n * x.sum(-1))
    return float(ginis.mean())


def _by_place(name: str, _=None) -> torch.Tensor:
    layer = _activation(name)
    output = _output(name, layer).movedim(-1, true_axes(name)[layer])
    return places(model(name), layer, output)[0]


def _truly_by_place(name: str, _=None) -> torch.Tensor:
    return _output(name, _activation(name)).flatten(1, 2)


class Grey(nn.Module):
    """A model of pictures with one colour and of one size, with as many channels as columns."""

    def __init__(self, last: bool):
        super().__init__()
        torch.manual_seed(0)
        self.last, self.conv, self.norm = last, nn.Conv2d(1, 8, 1), nn.BatchNorm2d(8)
        self.linear, self.act = nn.Linear(8, 8), nn.GELU()
        self.head = nn.Linear(8 * 64, 5)

    def forward(self, images):
        maps = self.norm(self.conv(images))
        maps = self.act(self.linear(maps.movedim(1, -1)) if self.last else maps)
        return self.head(maps.flatten(1))


def _grey(last: bool, known: bool, _=None) -> int:
    grey = Grey(last).eval()
    if known:
        follow_channels(grey, torch.rand(1, 1, 8, 8))
    return channel_axis(grey, "act", 4) % 4


class Deep(nn.Module):
    """A chain in which each layer keeps the axes that the one before it had, or moves them."""

    def __init__(self, moves: str):
        super().__init__()
        self.moves, self.conv = moves, nn.Conv2d(3, 6, 1)
        self.after = nn.Identity()

    def forward(self, images):
        x = self.conv(images)
        if self.moves == "permute":
            x = x.permute(0, 2, 3, 1)
        elif self.moves == "transposes":
            x = x.transpose(1, 2).transpose(1, 3).transpose(1, 2)
        elif self.moves == "tokens and back":
            x = x.flatten(2).mT.unflatten(1, (8, 8)) + 1
        elif self.moves == "windows":
            x = x.movedim(1, -1).unflatten(1, (2, 4)).unflatten(3, (2, 4))
            x = x.transpose(2, 3).flatten(0, 2)
        elif self.moves == "shuffle":
            x = x.unflatten(1, (2, 3)).transpose(1, 2).flatten(1, 2)
        elif self.moves == "reshape of what is not contiguous":
            x = x.permute(0, 2, 3, 1).reshape(-1, 64, 6).reshape(-1, 8, 8, 6).contiguous()
        elif self.moves == "einsum":
            x = torch.einsum("bchw->bhwc", x)
        elif self.moves == "halves":
            one, other = x.chunk(2, 1)
            x = torch.cat([one * other, other.flip(-1)], 1)
        elif self.moves == "attention":
            tokens = x.flatten(2).mT.unflatten(2, (2, 3)).transpose(1, 2)
            x = ((tokens @ tokens.mT).softmax(-1) @ tokens).transpose(1, 2).reshape(-1, 8, 8, 6)
        elif self.moves == "fold":
            x = nn.functional.pixel_unshuffle(x, 2)
        elif self.moves == "channels_last memory":
            x = x.contiguous(memory_format=torch.channels_last).relu()
        return self.after(x)


MOVES = {
    "nothing": 1,
    "permute": 3,
    "transposes": 1,
    "tokens and back": 3,
    "windows": 3,
    "shuffle": 1,
    "reshape of what is not contiguous": 3,
    "einsum": 3,
    "halves": 1,
    "attention": 3,
    "fold": 1,
    "channels_last memory": 1,
}


def _deep(moves: str, _=None) -> int:
    deep = Deep(moves).eval()
    follow_channels(deep, torch.rand(1, 3, 8, 8))
    return channel_axis(deep, "after", 4) % 4


def _unreached(_):
    channel_axis(Grey(True).eval(), "head", 4)


CASES = [
    *(
        Case(
            f"channels of {name}, map {number} of 6",
            partial(_axis, name, number, "bare", 6),
            partial(_true_axis, name, number, 6),
        )
        for name in MODELS
        for number in range(6)
    ),
    *(
        Case(
            f"channels of {name} {how}, map {number} of 2",
            partial(_axis, name, number, how, 2),
            partial(_true_axis, name, number, 2),
        )
        for name in (*LAST, *FIRST)
        for how in list(WRAPPERS)[1:]
        for number in range(2)
    ),
    *(
        Case(f"{what} of {unit}s, {name}", partial(act, name, unit), partial(right, name, unit))
        for name in (*LAST, *FIRST)
        for unit in ("channel", "position")
        for what, act, right in (
            ("responses", _scores, _true_scores),
            ("entries", _removed, _truly_removed),
            ("sparseness", _measured, _truly_measured),
        )
    ),
    *(Case(f"places of {name}", partial(_by_place, name), partial(_truly_by_place, name))
      for name in (*LAST, *FIRST)),
    *(
        Case(f"axes moved by {moves}", partial(_deep, moves), axis)
        for moves, axis in MOVES.items()
    ),
    *(
        Case(f"one colour, as many channels as columns, last {last}, followed {known}",
             partial(_grey, last, known), 3 if last else 1)
        for last in (False, True)
        for known in (False, True)
    ),
    Case("a layer that no picture comes to", _unreached, says=("'head'", "images")),
]  # fmt: skip
