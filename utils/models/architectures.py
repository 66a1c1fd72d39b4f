"""The embedded families: how a model is named, and how it is built from timm's parts."""

import re
from dataclasses import dataclass

import torch
from timm.layers import SelectAdaptivePool2d
from timm.models.resnet import BasicBlock, downsample_conv
from timm.models.vision_transformer import VisionTransformer
from torch import nn

RUNGS = ("objects",)
FAMILIES = ("vit", "resnet")
# What a variant changes in timm's VisionTransformer.
VARIANTS = {
    "gap": dict(global_pool="avg", class_token=False),
    "reg4": dict(reg_tokens=4),
    "relu": dict(act_layer=nn.ReLU),
}
_NAME = re.compile(
    rf"(?:(?P<rung>{'|'.join(RUNGS)})/)?(?P<family>{'|'.join(FAMILIES)})-d(?P<depth>\d+)"
    r"(?:-h(?P<heads>\d+))?(?:-w(?P<width>\d+))?(?:-n(?P<data_percent>\d+))?"
    rf"(?:-(?P<variant>{'|'.join(VARIANTS)}))?(?:-s(?P<seed>\d+))?"
)


@dataclass(frozen=True)
class Spec:
    """What the name of an embedded model says: `vit-d6-h4` is `objects/vit-d6-h4-w64-s0`.

    `width` is the token width of a ViT and the channels of a ResNet's last stage; `data_percent`
    is the share of the training images that the model saw.
    """

    family: str
    depth: int
    heads: int | None = None
    width: int = 64
    data_percent: int = 100
    variant: str | None = None
    seed: int = 0
    rung: str = "objects"

    def __post_init__(self) -> None:
        problem = None
        if self.family == "vit":
            if not self.heads:
                problem = "a ViT's name says its heads, as in vit-d6-h4"
            elif self.width % self.heads:
                problem = f"{self.heads} heads do not divide width {self.width}"
            elif not self.depth:
                problem = "a ViT has at least one layer"
        elif self.heads or self.variant:
            problem = "a ResNet has neither heads nor variants"
        elif self.depth < 8 or self.depth % 6 != 2:
            problem = f"a ResNet's depth is 6n + 2 (8, 14, 20, …), not {self.depth}"
        elif self.width % 4:
            problem = f"a ResNet's width is a multiple of 4, not {self.width}"
        if not problem and not 1 <= self.data_percent <= 100:
            problem = f"-n{self.data_percent} is not a percentage from 1 to 100"
        if problem:
            raise ValueError(f"{self.short!r} cannot be built: {problem}.")

    @classmethod
    def parse(cls, name: str) -> "Spec | None":
        """The spec behind a short or canonical name; None if the name has another form.

        Raises ValueError where the form is right but no such model can be built.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        given = {key: value for key, value in match.groupdict().items() if value is not None}
        return cls(**{k: int(v) if v.isdigit() else v for k, v in given.items()})

    def _format(self, short: bool) -> str:
        parts = [self.family, f"d{self.depth}"]
        parts += [f"h{self.heads}"] if self.heads else []
        parts += [f"w{self.width}"] if not short or self.width != 64 else []
        parts += [f"n{self.data_percent}"] if self.data_percent != 100 else []
        parts += [self.variant] if self.variant else []
        parts += [f"s{self.seed}"] if not short or self.seed else []
        rung = f"{self.rung}/" if not short or self.rung != "objects" else ""
        return rung + "-".join(parts)

    @property
    def short(self) -> str:
        """The name with every default left out."""
        return self._format(short=True)

    @property
    def canonical(self) -> str:
        """The name with rung, width and seed spelt out."""
        return self._format(short=False)


class SmallResNet(nn.Module):
    """The ResNet for 32×32 images of He et al. (`he2016deep`): three stages of timm's BasicBlock.

    depth = 6n + 2 weighted layers, n blocks a stage, channels width/4, width/2, width; a 3×3 stem,
    no max pooling. Images [batch, 3, 32, 32] → logits [batch, num_classes]. Module names are those
    of timm's ResNet.
    """

    def __init__(self, depth: int = 20, width: int = 64, num_classes: int = 10) -> None:
        super().__init__()
        self.num_classes, self.num_features = num_classes, width
        channels = width // 4
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU(inplace=True)
        self.layer1, self.layer2, self.layer3 = (
            self._stage((depth - 2) // 6, inputs, outputs)
            for inputs, outputs in (
                (channels, channels),
                (channels, width // 2),
                (width // 2, width),
            )
        )
        self.global_pool = SelectAdaptivePool2d(pool_type="avg", flatten=True)
        self.fc = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(blocks: int, inputs: int, outputs: int) -> nn.Sequential:
        stride = outputs // inputs
        shortcut = downsample_conv(inputs, outputs, 1, stride=stride) if stride > 1 else None
        return nn.Sequential(
            BasicBlock(inputs, outputs, stride=stride, downsample=shortcut),
            *(BasicBlock(outputs, outputs) for _ in range(blocks - 1)),
        )

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act1(self.bn1(self.conv1(x)))  # [batch, width/4, 32, 32]
        return self.layer3(self.layer2(self.layer1(x)))  # [batch, width, 8, 8]

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        x = self.global_pool(x)  # [batch, width]
        return x if pre_logits else self.fc(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(x))


def _vit(spec: Spec) -> VisionTransformer:
    model = VisionTransformer(
        img_size=32,
        patch_size=4,
        num_classes=10,
        embed_dim=spec.width,
        depth=spec.depth,
        num_heads=spec.heads,
        **VARIANTS.get(spec.variant, {}),
    )
    # Start as if images had been normalised by mean 0.5 and standard deviation 0.5, so that the
    # model itself can take images in [0, 1]: w·(x − 0.5)/0.5 + b = 2w·x + (b − Σw).
    patches = model.patch_embed.proj
    with torch.no_grad():
        patches.bias -= patches.weight.sum(dim=(1, 2, 3))
        patches.weight *= 2
    return model


def build(spec: Spec) -> nn.Module:
    """The architecture of `spec`, in eval mode, with random weights that `spec.seed` decides.

    Images [batch, 3, 32, 32] in [0, 1] → logits [batch, 10]. timm's `resolve_model_data_config`
    reads from `pretrained_cfg` that no normalisation is wanted. The global generator is left as it
    was.
    """
    make = {"vit": _vit, "resnet": lambda s: SmallResNet(s.depth, s.width)}[spec.family]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        model = make(spec)
    model.pretrained_cfg = dict(
        architecture=spec.canonical,
        input_size=(3, 32, 32),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        interpolation="bilinear",
        crop_pct=1.0,
        num_classes=10,
    )
    return model.eval()
