"""The book's experiments, declared once: what is asked, of which models, with which settings.

`python -m experiments replicate NAME --rung …` runs one (see `replicating`); its table is
results/<rung>/NAME.csv.
"""

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from experiments.training.groups import FLOOR, GROUPS
from utils.models import zoo
from utils.models.architectures import CNNS, WITH_HEADS, Spec

RUNGS = ("objects", "cifar10", "imagenet")
Settings = tuple[dict[str, str], ...]


class Pinned(NamedTuple):
    """A published model: blocks or layers, heads, width, and its ImageNet-1k top-1 accuracy, None
    where its weights come from a file (`--weights`) and none is published for them."""

    depth: int
    heads: int | None
    width: int | None
    accuracy: float | None


CLIP = "vit_base_patch16_clip_quickgelu_224"  # its image tower, with a head of ImageNet's classes
# Pinned by their tags, because what a bare name loads changes with timm. Accuracies are published
# with the weights, on all 50,000 validation images at 224 pixels. All ViTs have a head dimension of
# 64: their heads are confounded with width, and the augreg models saw ImageNet-21k first, the
# others not.
IMAGENET = {
    zoo.LITE0: Pinned(18, None, None, 0.74846),
    "torchvision/squeezenet1_1": Pinned(18, None, None, 0.58178),
    "resnet18.a1_in1k": Pinned(18, None, None, 0.71504),
    "resnet34.a1_in1k": Pinned(34, None, None, 0.76420),
    "resnet50.a1_in1k": Pinned(50, None, None, 0.80382),
    "resnet101.a1h_in1k": Pinned(101, None, None, 0.81950),
    "resnet152.a1h_in1k": Pinned(152, None, None, 0.82818),
    "deit_tiny_patch16_224.fb_in1k": Pinned(12, 3, 192, 0.72190),
    "deit_small_patch16_224.fb_in1k": Pinned(12, 6, 384, 0.79856),
    "deit_base_patch16_224.fb_in1k": Pinned(12, 12, 768, 0.81980),
    "vit_tiny_patch16_224.augreg_in21k_ft_in1k": Pinned(12, 3, 192, 0.75452),
    "vit_small_patch16_224.augreg_in21k_ft_in1k": Pinned(12, 6, 384, 0.81402),
    "vit_base_patch16_224.augreg_in21k_ft_in1k": Pinned(12, 12, 768, 0.84534),
    "vit_large_patch16_224.augreg_in21k_ft_in1k": Pinned(24, 16, 1024, 0.85856),
    CLIP: Pinned(12, 12, 768, None),
}
FROM_FILE = tuple(name for name, model in IMAGENET.items() if model.accuracy is None)
PINNED_CNNS = tuple(name for name, model in IMAGENET.items() if model.heads is None)
# CNNs and ViTs of about the same accuracies that saw ImageNet-1k alone.
PLAIN_RECIPES = ("resnet18.", "resnet50.", "deit_tiny", "deit_small")
PINNED_VITS = tuple(name for name, model in IMAGENET.items() if model.heads is not None)


@dataclass(frozen=True)
class Experiment:
    """One question, and the job that answers it.

    Attributes:
        asks: The question.
        command: One of replicate.TASKS.
        options: Of that task.
        n: Number of images, the first of their data set.
        groups: Of `experiments.training.groups`, on the rungs objects and cifar10.
        imagenet: Names of IMAGENET.
        architectures: Of the models of the groups only those with one of these; all if None.
        only: Of the models of the groups only those whose name without rung and seed is one of
            these; all if None.
        settings: Of the conditions of each model, or design → those of its models.
        random: How many models of each design are measured with random weights, too, at least; 0:
            none, 1: the twin of each model.
        pairs: (model, model next to it), as on the rung objects, where two are compared.
        data: Rung → data set, where it asks on these rungs only, or about other images than those
            that a rung is tested with.
    """

    asks: str
    command: str
    options: dict[str, Any]
    n: int
    groups: tuple[str, ...]
    imagenet: tuple[str, ...] = ()
    architectures: tuple[str, ...] | None = None
    only: tuple[str, ...] | None = None
    settings: Settings | dict[str, Settings] = field(default=({},))
    random: int = 0
    pairs: tuple[tuple[str, str], ...] = ()
    data: dict[str, str] | None = None

    def models(self, rung: str) -> list[str]:
        """The models that it asks on a rung, trained yet or not, seed by seed."""
        if self.data is not None and rung not in self.data:
            return []
        if rung == "imagenet":
            return list(self.imagenet)
        names = dict.fromkeys(m for group in self.groups for m in GROUPS[group].members())
        names |= dict.fromkeys(model for pair in self.pairs for model in pair)
        if rung != "objects":
            declared = set(GROUPS[rung].members())
            names = [f"{rung}/{name}" for name in names if f"{rung}/{name}" in declared]
        specs = sorted((Spec.parse(name) for name in names), key=lambda spec: spec.seed)
        return [spec.short for spec in specs if self._asks(spec)]

    def twins(self, models: list[str]) -> list[str]:
        """Of which names random weights are measured when these models are: of their own and,
        where more of a design are asked for, of further seeds, which need not be trained."""
        if not self.random:
            return []
        specs = [spec for model in models if (spec := Spec.parse(model))]
        more = [replace(spec, seed=seed).short for spec in specs for seed in range(self.random)]
        return list(dict.fromkeys([*models, *more]))

    def _asks(self, spec: Spec) -> bool:
        return (self.architectures is None or spec.family in self.architectures) and (
            self.only is None or spec.design in self.only
        )

    def beside(self, model: str) -> list[str]:
        """The models that one is compared with, on its rung."""
        rung, slash, name = model.rpartition("/")
        others = [f"{rung}{slash}{other}" for one, other in self.pairs if one == name]
        return [other for other in others if other in self.models(rung or "objects")]

    def settings_of(self, model: str) -> Settings:
        """The settings of the conditions of a model."""
        if isinstance(self.settings, dict):
            return self.settings[Spec.parse(model).design]
        return self.settings

    def count(self, model: str) -> int:
        """How many conditions there are of a model, with trained and with random weights."""
        each = len(self.settings_of(model)) * (2 if self.random else 1)
        return each * len(self.beside(model)) if self.pairs else each


# Of our own networks those that are looked at as Hu and colleagues looked at theirs.
THEIRS = ("vit-d6-h4", "vit-d6-h8", "vit-d12-h4")
# The groups whose models differ from one of the sweeps in a single part.
ALTERED = ("variants", "parts")
# In the middle of the floor's sweeps, with the variants that pool and place tokens otherwise, and
# with the CNN that fewer images make as accurate as a ViT.
(MATCHED,) = GROUPS["matched"].names
MIDDLE = ("vit-d6-h4", "resnet-d20", "vit-d6-h4-gap", "vit-d6-h4-nopos", MATCHED)
ONE_BLOCK, TOGETHER = ("1/3", "2/3", "last"), "all"

# One primary setting decides (see `evidence.rules`); what else is asked stands next to it.
PRIMARY = dict(unit="attention", scope=TOGETHER, replaced_by="renormalise", ordered_by="own")
OF_GROUPS = dict(unit="group", scope="last", replaced_by="mean", ordered_by="own")
# Points on a curve, dense near nothing and near everything removed. Each image has random orders of
# its own, so that a curve averages over four hundred of them; whether there is any reliance is
# asked of all images that there are.
FINE = dict(ranks=33, draws=2, images=200)
TWINS, ENOUGH = 5, 5_000  # initialisations, and images of a comparison of pairs, as in rules

# ViT and CNN of equal accuracy, side by side: single positions of the last layer that has
# any, and random groups of neurons at an equal depth.
LAST, BETWEEN = ("last",), ("1/3", "2/3")
VIT_AND_CNN = {
    "vit-d6-h4": (("contribution", LAST),),
    "vit-d6-h4-gap": (("output", LAST),),
    "vit-d6-h4-relu": (("group", BETWEEN),),
    MATCHED: (("position", LAST), ("group", BETWEEN)),
}


def _changed(primary: dict[str, str], **changes: tuple[str, ...]) -> Settings:
    """The primary setting with one thing changed, in turn."""
    return tuple(primary | {key: each} for key, values in changes.items() for each in values)


def _ablation(asks: str, settings: Settings, **which) -> Experiment:
    return Experiment(asks, "ablate", FINE, n=10_000, settings=settings, **which)


def _of_attention(name: str, asks: str, **which) -> dict[str, Experiment]:
    """Attention ablated in single blocks, and in all blocks together as an experiment of its own,
    which is begun by the primary setting."""
    which |= dict(architectures=WITH_HEADS, imagenet=PINNED_VITS)
    together = (PRIMARY, *_changed(PRIMARY, replaced_by=("zero", "mean", "resample")))
    single = _changed(PRIMARY, scope=ONE_BLOCK)
    return {
        name: _ablation(f"{asks} (single blocks)", single, **which),
        f"{name}-all": _ablation(f"{asks} (all blocks together)", together, **which),
    }


def _of_neurons() -> Settings:
    layers = _changed(OF_GROUPS, scope=ONE_BLOCK)
    return (
        *layers,
        *(layer | {"replaced_by": value} for layer in layers for value in ("zero", "resample")),
        *(layer | {"unit": unit} for layer in layers for unit in ("position", "unit")),
    )


def _pairs() -> tuple[tuple[str, str], ...]:
    """All seeds of ViT and CNN against each other; part of the data against all of it, a tenth for
    each seed against all others; of each seed, mixer against ViT and ResNet, and these."""
    vit, resnet, seeds = "vit-d6-h4", "resnet-d20", ("", "-s1", "-s2")
    others = [(m, m + seed) for m in (vit, resnet) for seed in seeds[1:]]
    shares = [(f"{model}-n{n}", other) for n in (3, 10, 30) for model, other in others]
    mixer = [("mixer-d6" + seed, model + seed) for model in (vit, resnet) for seed in seeds]
    both = [(vit + seed, resnet + seed) for seed in seeds]
    whole = [(f"{model}-s1", f"{model}-s2") for model in (vit, resnet)]
    tenths = [
        (f"{model}-n10{one}", f"{model}{other}")
        for model in (vit, resnet)
        for one in seeds
        for other in seeds
        if one != other
    ]
    return tuple(dict.fromkeys((*others, *shares, *mixer, *both, *whole, *tenths)))


EXPERIMENTS = {
    "accuracy": Experiment(
        "How accurate is each model, on all test images?",
        "measure",
        dict(measures=["accuracy"]),
        n=10_000,
        groups=tuple(name for name in GROUPS if name not in RUNGS),
        imagenet=tuple(IMAGENET),
    ),
    "sparseness": Experiment(
        "How sparse are attention and activations, and does it change with depth or heads?",
        "measure",
        dict(measures=["accuracy", "attention", "activation"]),
        n=1000,
        groups=(*FLOOR, "decoupled", "width", *ALTERED, "data"),
        imagenet=tuple(IMAGENET),
        random=TWINS,
    ),
    **_of_attention(
        "ablation-heads",
        "Does a ViT with more heads depend less on what it attends to most?",
        groups=("heads", "decoupled", "width"),
    ),
    **_of_attention(
        "ablation-depth",
        "Does a deeper ViT depend more on what it attends to most?",
        groups=("depth", *ALTERED),
    ),
    # Another order, or whole heads: of the floor, where chapters show it.
    "ablation-orders": _ablation(
        "Does it matter by what attention is ordered, or whether heads are whole?",
        (
            *_changed(PRIMARY, ordered_by=("head-averaged", "contribution", "centre", "mean-map")),
            *_changed(PRIMARY | {"unit": "head"}, replaced_by=("mean",)),
        ),
        groups=("heads", "depth"),
        imagenet=PINNED_VITS,
    ),
    "ablation-cnn": _ablation(
        "Does a deeper CNN depend more on its strongest positions and ReLU units?",
        _of_neurons(),
        groups=("cnn-depth", *ALTERED),
        architectures=CNNS,
        imagenet=PINNED_CNNS,
    ),
    "vit-and-cnn": Experiment(
        "Do a ViT and a CNN of equal accuracy depend on few positions, or few neurons?",
        "ablate",
        dict(ranks=9, draws=2),
        n=200,
        groups=("heads", "variants", "matched"),
        only=tuple(VIT_AND_CNN),
        settings={
            design: tuple(
                {"unit": unit, "scope": scope, "replaced_by": "mean"}
                for unit, scopes in units
                for scope in scopes
            )
            for design, units in VIT_AND_CNN.items()
        },
        data={"objects": "objects/test"},  # on the other rungs none were trained to be equal
    ),
    "similarity": Experiment(
        "How similar are the blocks of a model, and how far does its attention reach?",
        "measure",
        dict(measures=["distance", "cka"]),
        n=1000,
        groups=(*FLOOR, *ALTERED, "data"),
        imagenet=tuple(IMAGENET),
        random=TWINS,
    ),
    "offsets": Experiment(
        "Does a head look at a fixed offset, as a weight of a convolution does?",
        "measure",
        dict(measures=["offset"]),
        n=100,
        groups=(),
        imagenet=(CLIP,),
    ),
    "representation": Experiment(
        "Do maps agree, what do blocks see, keep and filter out, and what do skips carry?",
        "represent",
        dict(measures=["agreement", "field", "frequency", "location", "skips"]),
        n=500,
        groups=(*FLOOR, *ALTERED),
        imagenet=tuple(IMAGENET),
        random=TWINS,
    ),
    "pairs": Experiment(
        "How similar are two models: of other data, of another seed, of another family?",
        "compare",
        {},
        n=1000,
        groups=(),
        random=1,
        pairs=_pairs(),
    ),
    "behaviour": Experiment(
        "What do corruptions, shifts and permuted patches leave of decisions?",
        "behave",
        dict(measures=["corruption", "shift", "permutation"]),
        n=ENOUGH,
        groups=(*FLOOR, *ALTERED, "matched"),
        imagenet=(*(n for n in IMAGENET if n.startswith(PLAIN_RECIPES)), CLIP),
        only=MIDDLE,
    ),
    "attack": Experiment(
        "What do small adversarial changes leave of the accuracy?",
        "behave",
        dict(measures=["attack"]),
        n=ENOUGH,
        groups=(*FLOOR, *ALTERED, "matched"),
        only=MIDDLE,
    ),
    "cue-conflict": Experiment(
        "Do decisions follow shape or texture where these disagree?",
        "behave",
        dict(measures=["conflict"]),
        n=1280,  # all that were published; the objects are 900
        groups=(*FLOOR, *ALTERED, "matched"),
        imagenet=tuple(IMAGENET),
        data={"objects": "objects/cue-conflict", "imagenet": "cue-conflict"},
    ),
    "hu2023": Experiment(
        "What does the ablation of Hu, Zhang and Zhao show, as their code has it and controlled?",
        "hu2023",
        dict(draws=20),
        n=50_000,
        groups=("heads", "depth"),
        only=THEIRS,
        imagenet=PINNED_VITS,
    ),
    "hu2023-maps": Experiment(
        "What do the figures of Hu, Zhang and Zhao show of class rows, and of large norms?",
        "class-rows",
        {},
        n=1000,
        groups=("heads", "depth"),
        only=THEIRS,
        imagenet=PINNED_VITS,
    ),
}
