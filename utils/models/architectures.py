"""The embedded families: how a model is named, and how it is built from timm's parts."""

import re
from dataclasses import dataclass, replace
from functools import partial, partialmethod

import torch
from timm.layers import Attention, HybridEmbed, SelectAdaptivePool2d
from timm.models.mlp_mixer import MlpMixer
from timm.models.resnet import BasicBlock, downsample_conv
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

RUNGS = ("objects", "cifar10")
# "plain" is a ResNet without its skip connections; "late" one with a single block in each of the
# first two stages and all others in the last, so that its ratio of operations to parameters is that
# of a ViT; "hybrid" a ViT behind a convolutional stem.
FAMILIES = ("vit", "hybrid", "mixer", "resnet", "plain", "late")
WITH_HEADS = ("vit", "hybrid")
CNNS = ("resnet", "plain", "late")
# What a variant changes in timm's VisionTransformer.
VARIANTS = {
    "gap": dict(global_pool="avg", class_token=False),
    "reg4": dict(reg_tokens=4),
    "relu": dict(act_layer=nn.ReLU),
    "nopos": dict(pos_embed="none"),
}
_NAME = re.compile(
    rf"(?:(?P<rung>{'|'.join(RUNGS)})/)?(?P<family>{'|'.join(FAMILIES)})-d(?P<depth>\d+)"
    r"(?:-h(?P<heads>\d+))?(?:-k(?P<head_dim>\d+))?(?:-w(?P<width>\d+))?"
    r"(?:-n(?P<data_percent>\d+))?"
    rf"(?:-(?P<variant>{'|'.join(VARIANTS)}))?(?:-s(?P<seed>\d+))?"
)


@dataclass(frozen=True)
class Spec:
    """What the name of an embedded model says: `vit-d6-h4` is `objects/vit-d6-h4-w64-s0`.

    Attributes:
        family: One of FAMILIES.
        depth: Layers.
        heads: Of an attention layer; None without attention.
        head_dim: Width / heads unless the name says otherwise (`vit-d6-h4-k8`).
        width: Of the tokens of a ViT, and of the channels of a ResNet's last stage.
        data_percent: Share of the training images that the model saw.
        variant: One of VARIANTS, if any.
        seed: Of the weights.
        rung: Of the training images, one of RUNGS.

    Raises:
        ValueError: For what cannot be built.
    """

    family: str
    depth: int
    heads: int | None = None
    head_dim: int | None = None
    width: int = 64
    data_percent: int = 100
    variant: str | None = None
    seed: int = 0
    rung: str = "objects"

    def __post_init__(self) -> None:
        problem = None
        if self.family in WITH_HEADS:
            if not self.heads:
                problem = f"a {self.family}'s name says its heads, as in {self.family}-d6-h4"
            elif self.head_dim is None and self.width % self.heads:
                problem = f"{self.heads} heads do not divide width {self.width}"
            elif not self.depth:
                problem = f"a {self.family} has at least one layer"
        elif self.heads or self.head_dim:
            problem = f"a {self.family} has no heads"
        elif self.family == "late" and (self.depth < 8 or self.depth % 2):
            problem = f"a late's depth is 2n + 6 (8, 10, 12, …), not {self.depth}"
        elif self.family in ("resnet", "plain") and (self.depth < 8 or self.depth % 6 != 2):
            problem = f"a {self.family}'s depth is 6n + 2 (8, 14, 20, …), not {self.depth}"
        elif self.family in CNNS and self.width % 4:
            problem = f"a {self.family}'s width is a multiple of 4, not {self.width}"
        if not problem and self.variant and self.family != "vit":
            problem = f"only a vit has variants, not a {self.family}"
        if not problem and not 1 <= self.data_percent <= 100:
            problem = f"-n{self.data_percent} is not a percentage from 1 to 100"
        if problem:
            raise ValueError(f"{self.short!r} cannot be built: {problem}.")
        if self.heads and self.head_dim is None:
            object.__setattr__(self, "head_dim", self.width // self.heads)

    @classmethod
    def parse(cls, name: str) -> "Spec | None":
        """The spec behind a short or canonical name; None if the name has another form.

        Args:
            name: Such as `vit-d6-h4`.

        Raises:
            ValueError: Where the form is right but no such model can be built.

        Example:
            >>> from utils.models.architectures import Spec
            >>> spec = Spec.parse("resnet-d20-s1")
            >>> spec.depth, spec.seed, spec.canonical
            (20, 1, 'objects/resnet-d20-w64-s1')
        """
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        given = {key: value for key, value in match.groupdict().items() if value is not None}
        return cls(**{k: int(v) if v.isdigit() else v for k, v in given.items()})

    def _format(self, short: bool) -> str:
        parts = [self.family, f"d{self.depth}"]
        parts += [f"h{self.heads}"] if self.heads else []
        if self.head_dim and self.heads * self.head_dim != self.width:
            parts += [f"k{self.head_dim}"]
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
    def design(self) -> str:
        """The short name without rung and seed; models of one design differ in these alone."""
        return replace(self, rung="objects", seed=0).short

    @property
    def canonical(self) -> str:
        """The name with rung, width and seed spelt out."""
        return self._format(short=False)


class NoShortcut(nn.Module):
    """Adds nothing in place of a skip connection."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Zero, whatever the input."""
        return x.new_zeros(())


class SmallResNet(nn.Module):
    """The ResNet for 32×32 images of He et al.: three stages of timm's BasicBlock.

    Images [batch, 3, 32, 32] → logits [batch, num_classes]. A 3×3 stem, no max pooling. Module
    names are those of timm's ResNet. Source: he2016deep.

    Args:
        blocks: Of each stage, 2 weighted layers each, with channels width/4, width/2, width.
        width: Channels of the last stage.
        num_classes: Number of logits.
        skips: Without them this is the plain net of the same paper.
    """

    def __init__(
        self,
        blocks: tuple[int, int, int] = (3, 3, 3),
        width: int = 64,
        num_classes: int = 10,
        skips: bool = True,
    ) -> None:
        super().__init__()
        self.num_classes, self.num_features, self.skips = num_classes, width, skips
        channels = width // 4
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.act1 = nn.ReLU(inplace=True)
        self.layer1, self.layer2, self.layer3 = (
            self._stage(count, inputs, outputs)
            for count, inputs, outputs in zip(
                blocks,
                (channels, channels, width // 2),
                (channels, width // 2, width),
                strict=True,
            )
        )
        self.global_pool = SelectAdaptivePool2d(pool_type="avg", flatten=True)
        self.fc = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def _stage(self, blocks: int, inputs: int, outputs: int) -> nn.Sequential:
        stride = outputs // inputs
        first = downsample_conv(inputs, outputs, 1, stride=stride) if stride > 1 else None
        shortcuts = [first, *[None] * (blocks - 1)]
        if not self.skips:
            shortcuts = [NoShortcut() for _ in range(blocks)]
        return nn.Sequential(
            BasicBlock(inputs, outputs, stride=stride, downsample=shortcuts[0]),
            *(BasicBlock(outputs, outputs, downsample=shortcut) for shortcut in shortcuts[1:]),
        )

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        """Images [batch, 3, 32, 32] → maps [batch, width, 8, 8]."""
        x = self.act1(self.bn1(self.conv1(x)))  # [batch, width/4, 32, 32]
        return self.layer3(self.layer2(self.layer1(x)))  # [batch, width, 8, 8]

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        """Maps [batch, width, 8, 8] → logits, or the means over positions with `pre_logits`."""
        x = self.global_pool(x)  # [batch, width]
        return x if pre_logits else self.fc(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images [batch, 3, 32, 32] → logits [batch, num_classes]."""
        return self.forward_head(self.forward_features(x))


def _stem(channels: int) -> nn.Sequential:
    """Two strided 3×3 convolutions in place of cutting patches: [3, 32, 32] → [channels, 8, 8]."""
    return nn.Sequential(
        nn.Conv2d(3, channels // 2, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels // 2),
        nn.ReLU(),
        nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
    )


def _vit(spec: Spec) -> VisionTransformer:
    options = dict(VARIANTS.get(spec.variant, {}))
    if spec.heads * spec.head_dim != spec.width:
        # timm asks for a class, not for a function that makes one.
        init = partialmethod(Attention.__init__, attn_head_dim=spec.head_dim)
        options["attn_layer"] = type("Attention", (Attention,), {"__init__": init})
    if spec.family == "hybrid":
        options["embed_layer"] = partial(HybridEmbed, backbone=_stem(spec.width))
    return VisionTransformer(
        img_size=32,
        patch_size=4 if spec.family == "vit" else 1,
        num_classes=10,
        embed_dim=spec.width,
        depth=spec.depth,
        num_heads=spec.heads,
        **options,
    )


def _mixer(spec: Spec) -> MlpMixer:
    return MlpMixer(
        img_size=32, patch_size=4, num_classes=10, num_blocks=spec.depth, embed_dim=spec.width
    )


def _cnn(spec: Spec) -> SmallResNet:
    pairs = (spec.depth - 2) // 2
    blocks = (1, 1, pairs - 2) if spec.family == "late" else (pairs // 3,) * 3
    return SmallResNet(blocks, spec.width, skips=spec.family != "plain")


def _take_unit_range(patches: nn.Conv2d) -> None:
    """Let the model itself take images in [0, 1] at the start.

    It begins as if they had been normalised by mean 0.5 and standard deviation 0.5: w·(x − 0.5)/0.5
    + b = 2w·x + (b − Σw).
    """
    with torch.no_grad():
        patches.bias -= patches.weight.sum(dim=(1, 2, 3))
        patches.weight *= 2


def build(spec: Spec) -> nn.Module:
    """The architecture of `spec`, in eval mode, with random weights that `spec.seed` decides.

    Images [batch, 3, 32, 32] in [0, 1] → logits [batch, 10]. timm's `resolve_model_data_config`
    reads from `pretrained_cfg` that no normalisation is wanted. The global generator is left as it
    was.

    Args:
        spec: Of the model.

    Returns:
        The model.

    Example:
        >>> import torch
        >>> from utils.models.architectures import Spec, build
        >>> build(Spec("vit", depth=2, heads=2))(torch.zeros(1, 3, 32, 32)).shape
        torch.Size([1, 10])
    """
    make = {"vit": _vit, "hybrid": _vit, "mixer": _mixer}.get(spec.family, _cnn)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        model = make(spec)
    if spec.family in ("vit", "mixer"):  # the others normalise behind their first convolution
        _take_unit_range(getattr(model, "patch_embed", getattr(model, "stem", None)).proj)
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


def forward_flops(model: nn.Module) -> int:
    """Operations of one forward pass of one 32×32 image, a multiply-add counting as two.

    Args:
        model: Any network that takes such images.
    """
    # The counter does not see inside fused attention on the CPU, so the plain kernel is used.
    image = torch.zeros(1, 3, 32, 32, device=next(model.parameters()).device)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        model(image)
    return counter.get_total_flops()
