"""The groups of trained models: which are compared with which, in the order of need."""

from dataclasses import dataclass
from functools import cache
from statistics import median

from experiments.training.recipes import VIEWS, recipe_of
from utils.models import zoo
from utils.models.architectures import CNNS, Spec, build, forward_flops


@dataclass(frozen=True)
class Group:
    """Models that differ in one thing, and the seeds with which each is trained.

    `names` leave the seed out; `asks` is what their comparison is to show.
    """

    asks: str
    names: tuple[str, ...]
    seeds: int = 3

    def members(self) -> list[str]:
        """The short names of all models, seed by seed: half a group is complete for some seeds."""
        specs = (Spec.parse(f"{name}-s{seed}") for seed in range(self.seeds) for name in self.names)
        return [spec.short for spec in specs]


HEADS, DEPTHS, CNN_DEPTHS = (1, 2, 4, 8, 16), (2, 4, 6, 8, 12), (8, 14, 20, 32, 44)

# At each budget the parameters and the operations of the three agree within 5 %.
BUDGETS = (
    ("vit-d3-h4-w52", "late-d26-w24", "hybrid-d3-h4-w48"),
    ("vit-d3-h4", "late-d28-w28", "hybrid-d3-h4-w60"),
    ("vit-d4-h4-w72", "late-d28-w36", "hybrid-d4-h4-w68"),
    ("vit-d4-h4-w84", "late-d30-w40", "hybrid-d4-h4-w80"),
    ("vit-d6-h4-w84", "late-d30-w48", "hybrid-d6-h4-w80"),
    ("vit-d6-h4-w104", "late-d30-w60", "hybrid-d6-h4-w100"),
)

GROUPS = {
    "pair": Group("ViT and CNN that most chapters load", ("vit-d6-h4", "resnet-d20")),
    "live": Group(
        "what else chapters load",
        (
            *(f"vit-d6-h{heads}" for heads in (1, 2, 8)),
            *(f"vit-d6-h4-{variant}" for variant in ("relu", "gap", "nopos", "reg4")),
            *("mixer-d6", "hybrid-d6-h4", "vit-d2-h4", "vit-d12-h4"),
        ),
        seeds=1,
    ),
    "heads": Group(
        "heads at width 64, head dimension = 64 / heads",
        tuple(f"vit-d6-h{heads}" for heads in HEADS),
    ),
    "depth": Group("layers of a ViT", tuple(f"vit-d{depth}-h4" for depth in DEPTHS)),
    "cnn-depth": Group("layers of a ResNet", tuple(f"resnet-d{depth}" for depth in CNN_DEPTHS)),
    "more": Group(
        "more seeds at the ends and in the middle",
        tuple(f"vit-d{d}-h{h}" for d, h in ((6, 1), (6, 4), (6, 16), (4, 4), (12, 4))),
        seeds=5,
    ),
    "decoupled": Group(
        "heads and head dimension apart, width 64",
        tuple(f"vit-d6-h{heads}-k{dim}" for heads in HEADS for dim in (4, 8, 16, 32)),
    ),
    "width": Group(
        "heads at head dimension 16, width = 16 × heads",
        tuple(f"vit-d6-h{heads}-w{16 * heads}" for heads in (1, 2, 4, 8)),
    ),
    "variants": Group(
        "one part of a model exchanged",
        ("vit-d6-h4-gap", "vit-d6-h4-relu", "mixer-d6", "hybrid-d6-h4"),
    ),
    "parts": Group(
        "one part of a model added or left out",
        ("vit-d6-h4-reg4", "vit-d6-h4-nopos", "plain-d8", "plain-d20", "plain-d44"),
    ),
    "data": Group(
        "share of the training images",
        tuple(f"{model}-n{n}" for n in (3, 10, 30) for model in ("vit-d6-h4", "resnet-d20")),
    ),
    # Between the 91.3 % that a tenth of the images give it on test and the 93.5 % of 30 %.
    "matched": Group(
        "a CNN that fewer images make as accurate as a ViT of six layers", ("resnet-d20-n17",)
    ),
    "compute": Group(
        "ViT, CNN and hybrid at six equal budgets",
        tuple(name for budget in BUDGETS for name in budget),
        seeds=1,
    ),
    "compute-seeds": Group(
        "the two smallest budgets and the largest, again",
        tuple(name for budget in (*BUDGETS[:2], BUDGETS[-1]) for name in budget),
    ),
    "cifar10": Group(
        "heads and depth on CIFAR-10",
        tuple(
            f"cifar10/{model}"
            for model in (
                *(f"vit-d6-h{heads}" for heads in HEADS),
                *(f"vit-d{depth}-h4" for depth in DEPTHS if depth != 6),
                *(f"resnet-d{depth}" for depth in CNN_DEPTHS),
            )
        ),
        seeds=1,
    ),
}
FLOOR = ("heads", "depth", "cnn-depth")
STAGES = (("pair",), ("live",), FLOOR, ("more",))  # groups trained before all others, by stage
KEPT = ("pair", "live", *FLOOR, "matched", "cifar10")  # whose weights the zoo has room for


def declared_on(rung: str, group: str) -> bool:
    """Whether each design of a group is in the one that is named as the rung, if there is one."""
    there = {f"{rung}/{name}" for name in GROUPS[group].names}
    return rung not in GROUPS or there <= set(GROUPS[rung].names)


def keeps(name: str) -> bool:
    """Whether the zoo keeps the weights of a model, and not only its hash, recipe and results: of
    those that chapters load and of the floor; of any that no group has."""
    groups = [key for key, group in GROUPS.items() if name in group.members()]
    return not groups or not set(groups).isdisjoint(KEPT)


def missing(groups: list[str] | None = None) -> list[str]:
    """The models of these groups (all if None) that the zoo lacks, most needed first.

    Stage by stage, then the other groups in the order of their declaration, all seed by seed, so
    that every comparison has a first line early. Raises ValueError for an unknown group.
    """
    chosen = list(GROUPS) if groups is None else groups
    if unknown := [name for name in chosen if name not in GROUPS]:
        raise ValueError(f"There is no group {unknown[0]!r}; there are {', '.join(GROUPS)}.")
    have = zoo.manifest()
    members = [(name, member) for name in chosen for member in GROUPS[name].members()]
    stages = {group: stage for stage, groups in enumerate(STAGES) for group in groups}
    members.sort(key=lambda pair: (stages.get(pair[0], len(STAGES)), Spec.parse(pair[1]).seed))
    return list(dict.fromkeys(member for _, member in members if member not in have))


def status() -> str:
    """A table of how many models of each group are trained, and which are missing; and, where any
    are trained, how many hours of one such device the missing ones will take."""
    have = zoo.manifest()
    lines = []
    for name, group in GROUPS.items():
        members = group.members()
        lacking = [member for member in members if member not in have]
        lines.append(f"{name:10} {len(members) - len(lacking):3} of {len(members):3}  {group.asks}")
        if lacking:
            lines.append(f"{'':10} missing: {', '.join(lacking)}")
    timed = {name: entry for name, entry in have.items() if "seconds" in entry}
    if timed and (lacking := missing()):
        hours = sum(_hours(Spec.parse(name), timed) for name in lacking)
        lines.append(f"{len(lacking)} models are missing: about {hours:.0f} hours of one device.")
    return "\n".join(lines)


def _hours(spec: Spec, timed: dict[str, dict]) -> float:
    """What training will take, from the time that models of its kind have taken an operation."""
    known = [
        (Spec.parse(name), entry["seconds"] / entry["training_flops"])
        for name, entry in timed.items()
    ]
    alike = [pace for other, pace in known if (other.family in CNNS) == (spec.family in CNNS)]
    views = recipe_of(spec).epochs * VIEWS[spec.rung]
    operations = 3 * _flops(spec.design) * views
    return operations * median(alike or [pace for _, pace in known]) / 3600


@cache
def _flops(design: str) -> int:
    return forward_flops(build(Spec.parse(design)))
