"""Where each claim is shown, and how much is recorded of what it is judged from."""

from functools import cache
from pathlib import Path

from experiments.catalogue import EXPERIMENTS
from experiments.engine.results import RESULTS, file_of, finished
from experiments.evidence import claims
from experiments.evidence.recorded import EXACT, Recorded
from experiments.evidence.table import CLAIMS
from experiments.tasks.standalone import STANDALONE
from experiments.training.groups import GROUPS, declared_on
from utils.models import zoo

TRENDS = "5_2_depth_and_heads"
OPERATIONS = "2_3_convolution_and_attention"
BEHAVIOUR = "2_5_behaviour"
INSIDE = "2_4_representations"
# Where a claim is shown: a notebook's name and a heading in it. Others have their card alone.
SECTIONS = {
    "hu1": ("3_attention_sparsity", "Over layers"),
    "hu2": ("3_attention_sparsity", "Do heads and layers agree?"),
    "hu3": ("5_1_ablation", "What is left of the claim"),
    "hu4": (TRENDS, "Depth of Vision Transformers"),
    "hu5": (TRENDS, "Depth of CNNs"),
    "hu6": (TRENDS, "Heads: their number or their size?"),
    "hu7": (TRENDS, "Overlap: of places or of effects?"),
    "hu8": ("4_neuron_sparsity", "What is left of the claim"),
    "hu9": ("2_1_visual_system", "Is sparser more evolved?"),
    "hu10": ("2_6_scale", "Fewer pictures"),
    "co": (OPERATIONS, "A head for each weight"),
    "pk": (OPERATIONS, "Low-pass and high-pass"),
    "pe": (OPERATIONS, "Order and place"),
    "ti": (OPERATIONS, "Shifted pictures"),
    "zh": (OPERATIONS, "Hybrids"),
    "ra1": (INSIDE, "Layers within a network"),
    "tu1": (BEHAVIOUR, "The same errors?"),
    "tu2": (BEHAVIOUR, "Shape or texture?"),
    "ba1": (BEHAVIOUR, "Attacked pictures"),
    "ba2": (BEHAVIOUR, "Spoiled pictures"),
    "ra2": (INSIDE, "How far heads look"),
    "ra3": (INSIDE, "What skip connections carry"),
    "ra4": (INSIDE, "What a token knows"),
    "ra5": (INSIDE, "Fewer pictures"),
    "ra6": (INSIDE, "A Mixer between them"),
    "ra7": (INSIDE, "Receptive fields"),
    "sm1": ("2_6_scale", "Equal operations, equal pictures"),
    "sm2": ("2_6_scale", "A line on logarithmic paper"),
}

_finished = cache(finished)  # of each table, read once


def _progress(claim: str, rung: str, out: Path) -> tuple[int, int, list[str]]:
    """Of how many models (or parts) everything is recorded that a claim is judged from, how many
    are declared, and the experiments that still lack some."""
    asked, unfinished, waiting = set(), set(), []
    members = Recorded(rung, out).members(*CLAIMS[claim].groups)
    for experiment in CLAIMS[claim].experiments:
        done = _finished(file_of(experiment, rung, out=out))
        if experiment in STANDALONE:
            parts, held = len(STANDALONE[experiment].parts), done.total()
            return held, parts, [experiment] * (held < parts)
        declared = EXPERIMENTS[experiment]
        models = {m for m in declared.models(rung) if rung == "imagenet" or m in members}
        models = {m for m in models if declared.count(m)}
        lacks = {m for m in models if done[m] < declared.count(m)}
        asked, unfinished = asked | models, unfinished | lacks
        waiting += [experiment] * bool(lacks)
    return len(asked - unfinished), len(asked), waiting


def lacking(claim: str, rung: str, out: Path = RESULTS) -> str:
    """How much is recorded of what a claim is judged from, or why nothing can be; Markdown."""
    if reason := claims.BY_ID[claim].reason:
        return reason
    done, asked, _ = _progress(claim, rung, out)
    if not asked:
        return "none of its models is trained here"
    what = "parts recorded" if rung == EXACT else "models recorded in all settings"
    of = f"{done} of {asked} {what}"
    absent = [name for name in CLAIMS[claim].groups if not declared_on(rung, name)]
    return of + f", the group {' and '.join(absent)} is not declared on this rung" * bool(absent)


def commands(claim: str, rung: str = "objects", out: Path = RESULTS) -> list[str]:
    """The commands, in order, that would fill what a claim still lacks."""
    if claims.BY_ID[claim].reason:
        return []
    _, asked, experiments = _progress(claim, rung, out)
    if not asked:
        return []
    basis, steps = CLAIMS[claim], []
    ending = "" if rung == "objects" else f" --rung {rung}"
    if rung == "imagenet" and not all(EXPERIMENTS[name].data for name in experiments):
        ending += " --data photographs/"
    members = Recorded(rung, out).members(*basis.groups)
    if rung in GROUPS:
        members &= set(GROUPS[rung].members())
    if rung != "imagenet" and (absent := members - set(zoo.manifest())):
        groups = basis.groups if rung == "objects" else ("cifar10",)
        lacking = [name for name in groups if not absent.isdisjoint(GROUPS[name].members())]
        steps.append(f"python -m experiments train --group {' '.join(lacking)}")
    if experiments:
        steps.append(f"python -m experiments replicate {' '.join(experiments)}{ending}")
    return steps


def section(claim: str) -> tuple[str, str] | None:
    """The chapter that shows a claim, as the name of its notebook, and the heading in it."""
    return SECTIONS.get(claim)
