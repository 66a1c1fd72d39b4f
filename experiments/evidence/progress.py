"""Where each claim is shown, what it is judged from, and how much of that is recorded."""

from collections import Counter
from dataclasses import dataclass
from functools import cache

from experiments.catalogue import EXPERIMENTS, VARIANTS
from experiments.evidence import claims
from experiments.evidence.recorded import EXACT, Recorded
from experiments.groups import GROUPS, declared_on
from experiments.results import RESULTS, file_of, finished
from experiments.tasks.standalone import STANDALONE
from experiments.training.recipes import LOSS_LEVELS
from utils.models import zoo


@dataclass(frozen=True)
class Basis:
    """Where a claim is shown, and what it is judged from.

    chapter, section : a notebook's name and a heading in it; experiments : whose tables;
    groups : of the models in them
    """

    chapter: str
    section: str
    experiments: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()


VITS, CNNS = ("heads", "depth"), ("cnn-depth",)
SWEEPS, OTHERS = (*VITS, *CNNS), "Raghu and colleagues, and the others"
NEURONS, TRENDS = ("4_neuron_sparsity", "What is left of the claim"), "5_2_depth_and_heads"
HEADS = ("sparseness", "ablation-heads", "ablation-heads-all")


def _later(experiment: str, *groups: str) -> Basis:
    return Basis("6_claims", OTHERS, (experiment,), groups or SWEEPS)


BASES = {
    "hu1": Basis("3_attention_sparsity", "Over layers", ("sparseness",), VITS),
    "hu2": Basis("3_attention_sparsity", "Do heads and layers agree?", ("representation",), VITS),
    "hu3": Basis(
        "5_1_ablation",
        "What is left of the claim",
        ("ablation-heads-all", "ablation-depth-all"),
        VITS,
    ),
    "hu4": Basis(
        TRENDS, "Depth of Vision Transformers", ("ablation-depth", "ablation-depth-all"), ("depth",)
    ),
    "hu5": Basis(TRENDS, "Depth of CNNs", ("ablation-cnn", "ablation-cnn-all"), CNNS),
    "hu6": Basis(TRENDS, "Head dimension apart", HEADS, ("decoupled", "heads")),
    "hu7": Basis(TRENDS, "Overlap of effects", HEADS, ("decoupled",)),
    "hu8": Basis(*NEURONS, ("sparseness",), CNNS),
    "hu9": Basis("2_1_visual_system", "Is sparser more evolved?"),
    "hu10": Basis(
        "6_claims", "Neurons, evolution, bias", ("accuracy",), ("data", "depth", "cnn-depth")
    ),
    "ra1": _later("similarity"),
    "ra2": Basis("3_attention_sparsity", "How far each head looks", ("similarity",), SWEEPS),
    "ra3": _later("representation"),
    "ra4": _later("representation", *SWEEPS, *VARIANTS),
    "ra5": _later("pairs", *SWEEPS, "data"),
    "ra6": _later("pairs", *SWEEPS, "variants"),
    "ra7": _later("representation"),
    "pk": _later("representation"),
    "co": Basis("6_claims", OTHERS, ("convolution",)),
    "zh": _later("accuracy", "compute"),
    "ba1": _later("attack"),
    "ba2": _later("behaviour"),
    "tu1": _later("cue-conflict"),
    "tu2": _later("cue-conflict"),
    "sm1": _later("accuracy", "compute"),
    "sm2": _later("accuracy", "compute"),
    "pe": _later("behaviour", *SWEEPS, *VARIANTS),
    "ti": _later("behaviour"),
}


@cache
def _done(experiment: str, rung: str) -> Counter:
    """How many conditions of each model are recorded."""
    return finished(file_of(experiment, rung, out=RESULTS))


@cache
def _progress(claim: str, rung: str) -> tuple[int, int, list[str]]:
    """Of how many models (or parts) everything is recorded that a claim is judged from, how many
    are declared, and the experiments that still lack some."""
    basis, asked, unfinished, waiting = BASES[claim], set(), set(), []
    members = Recorded(rung, RESULTS).members(*basis.groups)
    for experiment in basis.experiments:
        if experiment in STANDALONE:
            parts = STANDALONE[experiment].parts
            done = _done(experiment, rung).total()
            return done, len(parts), [experiment] * (done < len(parts))
        declared = EXPERIMENTS[experiment]
        models = {m for m in declared.models(rung) if rung == "imagenet" or m in members}
        models = {m for m in models if declared.count(m)}
        lacks = {m for m in models if _done(experiment, rung)[m] < declared.count(m)}
        asked, unfinished = asked | models, unfinished | lacks
        waiting += [experiment] * bool(lacks)
    return len(asked - unfinished), len(asked), waiting


def lacking(claim: str, rung: str) -> str:
    """How much is recorded of what a claim is judged from, or why nothing can be; Markdown."""
    if reason := claims.BY_ID[claim].reason:
        return reason
    done, asked, _ = _progress(claim, rung)
    if not asked:
        return "none of its models is trained here"
    of = f"{done} of {asked} {'parts' if rung == EXACT else 'models'} recorded"
    absent = [name for name in BASES[claim].groups if not declared_on(rung, name)]
    return of + f", the group {' and '.join(absent)} is not declared on this rung" * bool(absent)


@cache
def commands(claim: str, rung: str = "objects") -> str:
    """The commands, in Markdown and in order, that would fill what a claim still lacks; each goes
    after `python -m experiments`. Empty where nothing is lacking."""
    basis, steps = BASES[claim], []
    _, asked, experiments = _progress(claim, rung)
    if not asked:
        return ""
    ending = "" if rung == "objects" else f" --rung {rung}"
    if rung == "imagenet" and not all(EXPERIMENTS[name].data for name in experiments):
        ending += " --data photographs/"
    members = Recorded(rung, RESULTS).members(*basis.groups)
    if rung in GROUPS:
        members &= set(GROUPS[rung].members())
    if rung != "imagenet" and members - set(zoo.manifest()):
        groups = basis.groups if rung == "objects" else ("cifar10",)
        steps.append(f"`train --group {' '.join(groups)}`")
    if experiments:
        steps.append(f"`replicate {' '.join(experiments)}{ending}`")
    at_loss = any("equal loss" in v for c in claims.BY_ID[claim].criteria for v in c.variants)
    files = (
        file_of(name, rung, loss, RESULTS) for name in basis.experiments for loss in LOSS_LEVELS
    )
    if at_loss and not any(file.exists() for file in files):
        steps.append(f"`replicate {' '.join(basis.experiments)}{ending} --loss NATS`")
    return ", then ".join(steps)


def link(claim: str) -> str:
    """A Markdown link to the chapter that shows a claim, under its number and the section."""
    basis = BASES[claim]
    number = ".".join(part for part in basis.chapter.split("_") if part.isdigit())
    return f"[{number}, {basis.section}]({basis.chapter}.ipynb)"
