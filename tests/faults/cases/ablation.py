"""Ablations of models as people build them: what comes out is what a plain hook gives."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from functools import partial

import timm
import torch
import torchvision
from helpers.layouts import WRAPPERS, Normalize, by_a_hook, model, some, true_axes, without_channels
from timm.layers import DropPath
from torch import nn

from faults.case import Case
from utils.measures.ablation import ablation_profile, reliance
from utils.measures.ablation.units import units_of
from utils.models.architectures import Spec, build
from utils.probes import AblationSpec, Ablator

PICTURES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
SMALL = PICTURES[..., :32, :32]
GONE = [0, 3, 5]

# -- K2: channels of any model, wrapped or not ----------------------------------------------------

MIXED = (
    *("torchvision ConvNeXt", "torchvision Swin", "MambaOut", "CAFormer", "FocalNet"),
    *("ConvNeXt V2", "EdgeNeXt", "EfficientViT", "EfficientNet", "torchvision MobileNet"),
)


def _place(name: str, how: str, number: int, of: int) -> tuple[nn.Module, str, int]:
    wrap, path = WRAPPERS[how]
    layers = [layer for layer, axis in true_axes(name).items() if axis in (1, 3)]
    layers = [layer for layer in layers if "drop" not in layer]
    layer = some(layers, of + 2)[number + 1]
    return wrap(model(name)), path + layer, true_axes(name)[layer]


def _ablated(name: str, how: str, number: int, of: int, _) -> torch.Tensor:
    whole, layer, _ = _place(name, how, number, of)
    spec = AblationSpec(layer, channels=GONE)
    return torch.cat([*Ablator(whole).run_with_intact(PICTURES, [spec, spec])[1]])


def _truly_ablated(name: str, how: str, number: int, of: int, _) -> torch.Tensor:
    whole, layer, axis = _place(name, how, number, of)
    return by_a_hook(whole, layer, PICTURES, without_channels(axis, GONE)).repeat(2, 1)


# -- K11: what a part hands on, and what it is asked ----------------------------------------------

Two = namedtuple("Two", "maps more")


@dataclass
class Held:
    maps: torch.Tensor
    note: str = "kept"


@dataclass(frozen=True)
class Frozen:
    maps: torch.Tensor


@dataclass(slots=True)
class Slots:
    maps: torch.Tensor
    more: tuple = ()


class Items(OrderedDict):
    """A dictionary whose items are attributes too, as in transformers."""

    __getattr__ = dict.__getitem__


class Plain:
    def __init__(self, maps):
        self.maps, self.itself = maps, self


class Unlike(tuple):
    """A tuple that takes its two parts one by one."""

    def __new__(cls, maps, more):
        return super().__new__(cls, (maps, more))


HANDED = {
    "a named tuple": (lambda x: Two(x, [x + 1]), lambda h: h.maps + h.more[0]),
    "a dataclass": (Held, lambda h: h.maps * len(h.note)),
    "a frozen dataclass": (Frozen, lambda h: h.maps),
    "a dataclass with slots": (lambda x: Slots(x, (x * 2,)), lambda h: h.maps + h.more[0]),
    "a dictionary with attributes": (lambda x: Items(maps=x), lambda h: h.maps),
    "an object that holds itself": (Plain, lambda h: h.itself.maps),
    "a tuple of two arguments": (lambda x: Unlike(x, 2 * x), lambda h: h[0] + h[1]),
    "dictionaries": (lambda x: [{"x": x}, {"y": (x,)}], lambda h: h[0]["x"] * h[1]["y"][0]),
    "what max gives": (lambda x: x.max(1, keepdim=True), lambda h: h.values + h[1]),
    "nothing but a number": (lambda x: float(x.mean()), lambda h: torch.full((2, 4, 8, 8), h)),
    "a function": (lambda x: lambda: x, lambda h: h()),
    "tensors that share memory": (lambda x: (x, x[:, :2]), lambda h: h[1].mul_(2).sum() + h[0]),
}  # fmt: skip


class Handing(nn.Module):
    """A stem that hands something on, and a layer after it."""

    class Stem(nn.Module):
        def __init__(self, way):
            super().__init__()
            self.conv, self.way = nn.Conv2d(3, 4, 4, 8), way

        def forward(self, images):
            return HANDED[self.way][0](self.conv(images))

    def __init__(self, way):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.Sequential(nn.Sequential(nn.Identity(), nn.Identity()))
        self.stem, self.way = self.Stem(way), way
        self.late = nn.ModuleList([nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()), nn.Identity()])
        self.head = nn.Linear(4, 5)

    def forward(self, images):
        images = self.blocks(images)
        x = HANDED[self.way][1](self.stem(images))
        x = self.late[0](x.expand(-1, 4, -1, -1)) + x
        return self.head(x.mean((2, 3)))


ASKED = {
    "what it is": lambda m, x: x if isinstance(m.stem, nn.Conv2d) else x * 9,
    "its class": lambda m, x: x if type(m.stem) is nn.Conv2d else x * 9,
    "how many it is": lambda m, x: x * len(m.chain),
    "its parts": lambda m, x: x + sum(p.out_channels for p in m.chain if isinstance(p, nn.Conv2d)),
    "its last part": lambda m, x: m.chain[-1](x),
    "a slice of it": lambda m, x: m.chain[1:](x),
    "its parameters": lambda m, x: x * sum(p.numel() for p in m.stem.parameters()),
    "its weight": lambda m, x: x + m.stem.weight.mean(),
    "what parts there are": lambda m, x: x * len([*m.children()]) + len([*m.modules()]),
    "whether it is one of them": lambda m, x: x if m.stem in [*m.children()] else x * 9,
    "its state": lambda m, x: x * len(m.state_dict()),
    "whether it trains": lambda m, x: x * 9 if m.stem.training else x,
    "its own forward": lambda m, x: x + m.stem.forward(x[:, :3]),
    "what it noted": lambda m, x: x * m.chain[0].kernel_size[0],
}


class Asking(nn.Module):
    """Asks of a part, before and after a later layer, what a plain module would tell."""

    def __init__(self, what):
        super().__init__()
        torch.manual_seed(0)
        self.what, self.stem = what, nn.Conv2d(3, 4, 3, padding=1)
        self.chain = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Tanh())
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ELU()) for _ in "ab"))
        self.head = nn.Linear(4, 5)

    def forward(self, images):
        x = ASKED[self.what](self, self.chain(self.stem(images)))
        x = ASKED[self.what](self, self.blocks(x))
        return self.head(x.mean((2, 3)))


class Writes(nn.Module):
    """Parts that keep, count or overwrite in ways that no recording of outputs shows."""

    WAYS = ("into a list", "into what another keeps", "into a view", "into its input")

    def __init__(self, way):
        super().__init__()
        torch.manual_seed(0)
        self.way, self.stem = way, nn.Conv2d(3, 4, 1)
        self.writer = Writer(way)
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ELU()) for _ in "abc"))
        self.head = nn.Linear(4, 5)

    def forward(self, images):
        x = self.stem(images)
        kept = [x, x.clone()]
        if self.way == "into a list":
            y = self.writer(kept)
        elif self.way == "into what another keeps":
            y = self.writer({"x": x})
        elif self.way == "into a view":
            y = self.writer(x[:, :2])
            y = torch.cat([y, y], 1)
        else:
            y = self.writer(x)
        y = self.blocks(y)
        return self.head((y + x + kept[0]).mean((2, 3)))


class Writer(nn.Module):
    def __init__(self, way):
        super().__init__()
        self.way = way

    def forward(self, x):
        if self.way == "into a list":
            x[0] *= 3
            return x[1] + 1
        if self.way == "into what another keeps":
            x["x"].mul_(3)
            return x["x"] + 1
        return x.mul_(3) + 1 if self.way == "into its input" else x.mul_(2).add(1)


IN_FULL = ("in full", "not repeated", "logits")  # where a recording does not hold, and is not used


def _custom(make, layer: str, _) -> torch.Tensor:
    found = Ablator(make()).run(SMALL, [AblationSpec(layer, channels=[1, 2])] * 2)
    return torch.cat([*found])


def _truly_custom(make, layer: str, _) -> torch.Tensor:
    found = [by_a_hook(make(), layer, SMALL, without_channels(1, [1, 2])) for _ in range(2)]
    return torch.cat(found)


def _made(kind: type[nn.Module], what: str) -> nn.Module:
    return kind(what).eval()


class Logits(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return self.inner(images).logits


def _foreign(kind: str) -> nn.Module:
    """A classifier of transformers, small and with random weights."""
    import transformers  # takes seconds

    torch.manual_seed(0)
    few = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
    few |= dict(image_size=32, patch_size=8)
    options = {
        "ViT": few,
        "Dinov2": few,
        "DeiT": few,
        "Swin": dict(image_size=32, patch_size=2, embed_dim=12, depths=[1, 2], num_heads=[1, 2])
        | dict(window_size=4),
        "ConvNext": dict(depths=[1, 1, 1, 1], hidden_sizes=[8, 12, 16, 20]),
        "ResNet": dict(embedding_size=8, hidden_sizes=[12, 16], depths=[1, 2], layer_type="basic"),
    }[kind]
    config = getattr(transformers, f"{kind}Config")(**options)
    return Logits(getattr(transformers, f"{kind}ForImageClassification")(config)).eval()


FOREIGN = {  # a layer after the encoder, one within it, and the axis of the channels of each
    "ViT": [("vit.layernorm", -1), ("vit.layers.1.mlp", -1)],
    "Dinov2": [("dinov2.layernorm", -1), ("dinov2.layernorm", 2)],
    "Swin": [("swin.layernorm", -1), ("swin.encoder.layers.1.blocks.1.mlp", -1)],
    "ConvNext": [("convnext.layernorm", -1), ("convnext.encoder.stages.2.layers.0.pwconv1", 3)],
    "ResNet": [("resnet.pooler", 1), ("resnet.encoder.stages.1.layers.1", 1)],
}


def _foreign_layer(kind: str, number: int) -> tuple[nn.Module, str, int]:
    whole = _foreign(kind)
    layer, axis = FOREIGN[kind][number]
    return whole, f"inner.{layer}", axis


def _foreign_ablated(kind: str, number: int, _) -> torch.Tensor:
    whole, layer, _ = _foreign_layer(kind, number)
    return Ablator(whole).run(SMALL, AblationSpec(layer, channels=GONE))[0]


def _foreign_truly(kind: str, number: int, _) -> torch.Tensor:
    whole, layer, axis = _foreign_layer(kind, number)
    return by_a_hook(whole, layer, SMALL, without_channels(axis, GONE))


def _no_logits(_):
    whole = _foreign("ViT").inner
    Ablator(whole).run(SMALL, AblationSpec("vit.layernorm", channels=[0]))


# -- K12: training mode, of the parts that it makes a difference to -------------------------------


def _small() -> nn.Module:
    torch.manual_seed(0)
    return build(Spec.parse("resnet-d8")).eval()


def _with(change) -> nn.Module:
    whole = _small()
    change(whole)
    return whole


def _train(*names: str):
    return lambda whole: [whole.get_submodule(name).train() for name in names]


TRAINING = {
    "a new head with dropout": lambda: _with(
        lambda m: setattr(m, "fc", nn.Sequential(nn.Dropout(0.5), nn.Linear(64, 10)))
    ),
    "dropout before it": lambda: nn.Sequential(nn.Dropout2d(0.1), _small()),
    "dropout of paths": lambda: nn.Sequential(DropPath(0.2), _small()).train(),
    "stochastic depth": lambda: nn.Sequential(
        torchvision.ops.StochasticDepth(0.2, "row"), _small()
    ),
    "a batch norm": lambda: _with(_train("layer2.0.bn1")),
    "a convolution": lambda: _with(_train("layer2.0.conv1")),
    "random slopes": lambda: nn.Sequential(_small(), nn.RReLU()),
    "all of it": lambda: _small().train(),
    "all of it, wrapped": lambda: nn.Sequential(Normalize(), _small().train()).eval().train(),
    "a drop rate of its own": lambda: _flagged(
        timm.create_model("test_efficientnet", drop_rate=0.2, num_classes=10).eval()
    ),
}


def _flagged(whole: nn.Module) -> nn.Module:
    whole.training = True
    return whole


EVALUATING = {
    "after Normalize": lambda: nn.Sequential(Normalize(), _small()),
    "in a chain of chains": lambda: nn.Sequential(nn.Sequential(nn.Identity(), _small())),
    "in DataParallel": lambda: nn.DataParallel(_small()),
    "with a flagged container": lambda: _with(lambda m: setattr(m.layer1, "training", True)),
    "with dropout of nothing": lambda: nn.Sequential(nn.Dropout(0.0), _small()),
    "with a flagged activation": lambda: nn.Sequential(_small(), nn.Tanh()),
}
DATA = [(torch.rand(6, 3, 32, 32), torch.arange(6) % 3, torch.arange(6))]
CALLS = {
    "run": lambda m, layer: Ablator(m).run(SMALL, AblationSpec(layer, channels=[0])),
    "intact": lambda m, layer: Ablator(m).intact(SMALL),
    "plan": lambda m, layer: Ablator(m).plan(AblationSpec(layer, channels=[0])),
    "fit_means": lambda m, layer: Ablator(m).fit_means(DATA, layer),
    "ablation_profile": lambda m, layer: ablation_profile(m, DATA, layer, "channel", draws=1),
    "reliance": lambda m, layer: reliance(m, DATA, layer, "channel"),
    "units_of": lambda m, layer: units_of(m, layer, "channel"),
}


def _conv(whole: nn.Module) -> str:
    names = [name for name, part in whole.named_modules() if isinstance(part, nn.Conv2d)]
    return names[len(names) // 2]


def _refused(make, call: str, _) -> None:
    whole = make()
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    try:
        CALLS[call](whole, _conv(whole))
    finally:
        after = whole.state_dict()
        assert all(after[name].equal(tensor) for name, tensor in before.items()), "it has learnt"


def _evaluated(make, _) -> torch.Tensor:
    whole = make()
    return Ablator(whole).run(SMALL, AblationSpec(_conv(whole), channels=[0, 1]))[0]


def _truly_evaluated(make, _) -> torch.Tensor:
    whole = make()
    return by_a_hook(whole, _conv(whole), SMALL, without_channels(1, [0, 1]))


# -- K22 and its kin: numbers that a profile cannot be made of ------------------------------------


class Places(nn.Module):
    """Seven by seven positions, or as many as wanted, of four channels."""

    def __init__(self, rows: int, columns: int):
        super().__init__()
        torch.manual_seed(0)
        self.pool, self.conv = nn.AdaptiveAvgPool2d((rows, columns)), nn.Conv2d(3, 4, 1)
        self.act, self.head = nn.ReLU(), nn.Linear(4, 3)

    def forward(self, images):
        return self.head(self.act(self.conv(self.pool(images))).mean((2, 3)))


def _profile(rows: int, columns: int, unit: str, _=None, **options):
    options = dict(draws=1) | options
    found = ablation_profile(Places(rows, columns).eval(), DATA, "act", unit, **options)
    assert set(found.summary(samples=50)["measure"]) >= {"necessity N", "sufficiency K"}
    assert sorted(found.n - found.ranks) == found.ranks.tolist()
    return found.n


CASES = [
    *(
        Case(
            f"channels of {name} {how}, map {number} of {of}",
            partial(_ablated, name, how, number, of),
            partial(_truly_ablated, name, how, number, of),
        )
        for name in MIXED
        for how, of in zip(WRAPPERS, (3, 1, 1, 1), strict=True)
        for number in range(of)
    ),
    *(
        Case(
            f"a part that hands on {way}, {layer}",
            partial(_custom, partial(_made, Handing, way), layer),
            partial(_truly_custom, partial(_made, Handing, way), layer),
            says=IN_FULL if "share memory" in way else (),
        )
        for way in HANDED
        for layer in ("late.0", "late.0.1")
    ),
    *(
        Case(
            f"a part that is asked {what}, {layer}",
            partial(_custom, partial(_made, Asking, what), layer),
            partial(_truly_custom, partial(_made, Asking, what), layer),
        )
        for what in ASKED
        for layer in ("blocks.1", "blocks.0.1")
    ),
    *(
        Case(
            f"a part that writes {way}, {layer}",
            partial(_custom, partial(_made, Writes, way), layer),
            partial(_truly_custom, partial(_made, Writes, way), layer),
            says=IN_FULL if way in Writes.WAYS[:2] else (),
        )
        for way in Writes.WAYS
        for layer in ("blocks.1", "blocks.2.1")
    ),
    *(
        Case(
            f"transformers' {kind}, layer {number}",
            partial(_foreign_ablated, kind, number),
            partial(_foreign_truly, kind, number),
            slow=True,
        )
        for kind in FOREIGN
        for number in range(2)
    ),
    Case("a model that puts out no logits", _no_logits, says=("not a tensor", "logits"), slow=True),
    *(
        Case(f"{call} with {what} in training mode", partial(_refused, make, call),
             says=("training", "eval()"))
        for what, make in TRAINING.items()
        for call in (CALLS if what in ("a batch norm", "all of it, wrapped") else ("run",))
    ),
    *(
        Case(f"a model in eval mode {what}", partial(_evaluated, make),
             partial(_truly_evaluated, make))
        for what, make in EVALUATING.items()
    ),
    *(
        Case(f"{most} ranks of {rows} × {columns} positions",
             partial(_profile, rows, columns, "position", ranks=most),
             *(() if most < least else (rows * columns,)),
             says=(f"{most} ranks", "at least") if most < least else ())
        for rows, columns, least in ((7, 7, 4), (3, 3, 4), (4, 4, 3), (1, 2, 3), (1, 3, 4))
        for most in (2, 3, 4, 5)
    ),
    *(
        Case(f"a profile with {option}={value}", partial(_profile, 4, 4, unit, **{option: value}),
             says=says)
        for option, value, unit, says in (
            ("draws", 0, "position", ("random", "0")),
            ("groups", 1, "unit", ("groups", "1")),
            ("groups", 0, "unit", ("groups", "0")),
            ("groups", 65, "unit", ("64 units", "65")),
            ("groups", 4, "channel", ("groups", "channel")),
            ("place_draws", 1, "position", ("attention", "position")),
            ("fixed", ("middle",), "position", ("middle",)),
            ("fixed", ("centre",), "channel", ("centre", "channel")),
        )
    ),
    Case("a single position", partial(_profile, 1, 1, "position"), says=("1 units", "2 units")),
]  # fmt: skip
