"""`python -m experiments behave`: decisions on images that are changed or whose cues disagree.

Everything is a count of outcomes, so that the parts of several ranks are added, and every draw is
keyed by the seed and the index of an image, so that two ranks find what one does.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import combinations

import numpy as np
import torch
from scipy.stats import binomtest
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torchvision.transforms import Normalize

from experiments.engine.metrics import left_out, planned
from utils.measures import behaviour
from utils.measures.responses import finite_logits
from utils.stimuli import datasets, objects, psychophysics

MEASURES = {
    "corruption": "accuracy under seven corruptions at five severities",
    "attack": "accuracy under PGD-20 at several ε",
    "shift": "share of decisions kept as images move by 1 to 8 pixels",
    "permutation": "accuracy kept as blocks of an image change places",
    "conflict": "shape bias where shape and texture disagree, and if people err on the same ones",
}
COLUMNS = ("quantity", "kind", "level", "value", "se", "low", "high", "n")
EPSILONS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)  # in 255ths, the steps of an 8-bit image
SHIFTS = tuple(range(1, 9))
MOVES = 4  # up, down, left and right
CLEAN, PERMUTED, ATTACKED, SHIFTED, CONFLICT = "clean", "permutation", "pgd", "shift", "conflict"
TRIAL = "trial"  # one image of a conflict; its level is the image's index
SHAPE, TEXTURE, NEITHER = range(3)  # what is decided where cues conflict

Counts = Counter[tuple[str, float | None, int]]  # (kind, level, outcome) → images
# Data sets whose cues disagree, by their source; labels are the classes of the shapes.
_TEXTURES: dict[str, Callable[[], Tensor]] = {
    "objects/cue-conflict": lambda: torch.tensor([s.texture for s in objects.conflicts()]),
    "cue-conflict": lambda: datasets.cue_conflict().textures,
}


@cache
def textures(source: str) -> Tensor | None:
    """The class of every image's texture, int64 [n], where cues disagree; None elsewhere."""
    return _TEXTURES[source]() if source in _TEXTURES else None


@cache
def people(source: str) -> Tensor | None:
    """Who of several people went by shape in each image, bool [people, n]; None where nobody was
    asked."""
    if source != "cue-conflict":
        return None
    stimuli = datasets.cue_conflict()
    right = stimuli.trials.assign(right=stimuli.trials["response"] == stimuli.trials["shape"])
    table = right.pivot(index="subject", columns="stimulus", values="right")[stimuli.names]
    return torch.tensor(table.to_numpy(dtype=bool))


def blocks(height: int) -> tuple[int, ...]:
    """The sides of permuted blocks: two tokens, one, and half of one.

    A token has 4 pixels in images of up to 64, and 16 in larger ones. Not of every model: what has
    no tokens is measured with the same blocks as what has them.
    """
    token = 4 if height <= 64 else 16
    return 2 * token, token, token // 2


class Behaviour:
    """The decisions of one model, counted minibatch by minibatch in memory that does not grow.

    measures : names from MEASURES; classes : of the data
    textures : int64 [n] by the index of an image, where shape and texture disagree; then only
        "conflict" is measured, and everything else only without them. What is left out is named
        with the reason in `skipped`; ValueError if nothing is left.
    people : as `people` gives it; where somebody was asked, trials are counted one by one

    `update(images, labels, index)` for every minibatch, `counts` to add to other ranks', and `rows`
    for the table.
    """

    def __init__(
        self,
        model: nn.Module,
        measures: list[str],
        classes: tuple[str, ...],
        seed: int = 0,
        textures: Tensor | None = None,
        people: Tensor | None = None,
    ) -> None:
        config = resolve_model_data_config(model)
        mean, sd = (torch.tensor(config[key]).view(-1, 1, 1) for key in ("mean", "std"))
        self.mean, self.sd, self.seed = mean, sd, seed
        self.textures, self.people = textures, people
        self.observer = nn.Sequential(Normalize(config["mean"], config["std"]), model)
        self.everyday = classes == tuple(behaviour.CATEGORIES)
        self.counts: Counts = Counter()
        agree = textures is None
        why = "shape and texture agree" if agree else "shape and texture disagree"
        self.skipped = {name: why for name in measures if (name == CONFLICT) == agree}
        self.measures = [name for name in measures if name not in self.skipped]
        if measures and not self.measures:
            raise ValueError(
                f"In these images {why}, so nothing is left of {', '.join(measures)}: choose "
                "other measures, or other data."
            )

    def update(self, images: Tensor, labels: Tensor, index: Tensor) -> None:
        """Show images [batch, 3, h, w], prepared for the model, as they are and changed."""
        # Changes are made, and bounded, in pixel values from 0 to 1.
        pixels = (images * self.sd.to(images) + self.mean.to(images)).clamp(0, 1)
        if self.textures is not None:
            self._conflict(pixels, labels.cpu(), index.cpu())
            return
        clean = behaviour.decisions(self.observer, pixels) == labels.cpu()
        self._count(CLEAN, None, 3 * clean)
        for kind, level, changed in self._changed(pixels, labels, index):
            right = behaviour.decisions(self.observer, changed) == labels.cpu()
            self._count(kind, level, 2 * clean + 1 * right)  # see _accuracies
        for distance in SHIFTS if "shift" in self.measures else ():
            kept = behaviour.shift_consistency(self.observer, pixels, distance)
            self._count(SHIFTED, distance, (MOVES * kept).round().long())

    def _changed(
        self, pixels: Tensor, labels: Tensor, index: Tensor
    ) -> Iterator[tuple[str, float, Tensor]]:
        keyed = {"seed": self.seed, "index": index}
        if "corruption" in self.measures:
            for kind in psychophysics.CORRUPTIONS:
                for severity in psychophysics.SEVERITIES:
                    yield kind, severity, psychophysics.corrupt(pixels, kind, severity, **keyed)
        if "permutation" in self.measures:
            for block in blocks(pixels.shape[-2]):
                yield PERMUTED, block, psychophysics.permute_patches(pixels, block, **keyed)
        if "attack" in self.measures:
            for epsilon in EPSILONS:
                attacked = behaviour.pgd(self.observer, pixels, labels, epsilon / 255, **keyed)
                yield ATTACKED, epsilon, attacked

    @torch.no_grad()
    def _conflict(self, pixels: Tensor, shape: Tensor, index: Tensor) -> None:
        logits = finite_logits(self.observer.eval()(pixels), self.observer)
        decided = behaviour.categories_of(logits) if self.everyday else logits.argmax(1)
        decided, texture = decided.cpu(), self.textures[index]
        outcome = torch.full_like(decided, NEITHER)
        outcome[decided == shape] = SHAPE
        outcome[decided == texture] = TEXTURE
        disagree = shape != texture
        self._count(CONFLICT, None, outcome[disagree])
        if self.people is not None:
            by_shape = (outcome == SHAPE)[disagree].tolist()
            trials = zip(index[disagree].tolist(), by_shape, strict=True)
            self.counts.update((TRIAL, image, int(right)) for image, right in trials)

    def _count(self, kind: str, level: float | None, outcomes: Tensor) -> None:
        self.counts.update((kind, level, outcome) for outcome in outcomes.tolist())


def rows(counts: Counts, classes: int, people: Tensor | None = None) -> Iterator[dict]:
    """The table: one row a number, with a 95 % interval or a standard error over n images.

    kind : "clean", a corruption, "pgd", "permutation", "shift" or "conflict"
    level : severity; ε in 255ths; the side of a block in pixels; pixels of the shift
    quantity : "accuracy"; with it "kept", the share of the clean accuracy, and
        "kept_above_chance", of what it is above 1 / classes. "consistency" is the share of
        decisions that stay. In a conflict, "shape_bias" is shape / (shape + texture) and n the
        trials decided for either; "decided", "shape" and "texture" are shares of all trials.
        "error_consistency" is the mean κ with `people`, bool [people, images], to go by shape
        being right, and "highest_consistency" what it could be at most at these accuracies; of
        kind "people" they are those of people with one another, in the same trials.
    """
    found: dict[tuple, Counter[int]] = {}
    trials: dict[int, bool] = {}
    for (kind, level, outcome), count in counts.items():
        if kind == TRIAL:
            trials[level] = bool(outcome)
        else:
            found.setdefault((kind, level), Counter())[outcome] += count
    for (kind, level), outcomes in found.items():
        if kind == CONFLICT:
            numbers = _conflict_rows(outcomes)
        elif kind == SHIFTED:
            numbers = [_consistency(outcomes)]
        else:
            numbers = _accuracies(outcomes, kind, classes)
        for number in numbers:
            yield {"kind": kind, "level": level, **number}
    if trials:
        yield from _consistencies(trials, people)


def _consistencies(trials: dict[int, bool], people: Tensor) -> Iterator[dict]:
    """Whether a model and people err in the same of these trials: image → right."""
    images = sorted(trials)
    right, asked = torch.tensor([trials[image] for image in images]), people[:, images]
    own = behaviour.consistency_with_people(right, asked)
    interval = {"se": own.se, "low": own.low, "high": own.high}
    for kind, pairs, known in (
        (CONFLICT, [(right, person) for person in asked], interval),
        ("people", combinations(asked, 2), {}),
    ):
        each = [behaviour.error_consistency(*pair) for pair in pairs]
        place = {"kind": kind, "level": None, "n": len(images)}
        for quantity, values, more in (
            ("error_consistency", [found.kappa for found in each], known),
            ("highest_consistency", [found.highest for found in each], {}),
        ):
            yield {"quantity": quantity, "value": float(np.mean(values)), **more, **place}


def _share(quantity: str, count: int, n: int) -> dict:
    low, high = map(float, binomtest(count, n).proportion_ci(method="wilson"))
    return {"quantity": quantity, "value": count / n, "low": low, "high": high, "n": n}


def _each(outcomes: Counter[int]) -> Tensor:
    """The outcomes one by one, int64 [n]."""
    return torch.tensor(sorted(outcomes.elements()))


def _accuracies(outcomes: Counter[int], kind: str, classes: int) -> Iterator[dict]:
    """Outcome 2a + b: a, whether the model is right on the image, and b, on the changed one."""
    each = _each(outcomes)
    right, still = each >= 2, each % 2 == 1
    yield _share("accuracy", int(still.sum()), len(each))
    for quantity, chance in (("kept", 0.0), ("kept_above_chance", 1 / classes)):
        if kind != CLEAN:
            kept = behaviour.retained_accuracy(right, still, chance)
            place = {"value": kept.share, "low": kept.low, "high": kept.high, "n": len(each)}
            yield {"quantity": quantity, **place}


def _consistency(outcomes: Counter[int]) -> dict:
    kept = _each(outcomes).double() / MOVES
    se = (kept.std() / len(kept) ** 0.5).item() if len(kept) > 1 else None
    return {"quantity": "consistency", "value": kept.mean().item(), "se": se, "n": len(kept)}


def _conflict_rows(outcomes: Counter[int]) -> Iterator[dict]:
    each = _each(outcomes)
    shape = torch.full_like(each, SHAPE)
    found = behaviour.shape_bias(each, shape, torch.full_like(each, TEXTURE))
    decided = outcomes[SHAPE] + outcomes[TEXTURE]
    place = {"value": found.bias, "low": found.low, "high": found.high, "n": decided}
    yield {"quantity": "shape_bias", **place}
    yield _share("decided", decided, found.trials)
    yield _share("shape", outcomes[SHAPE], found.trials)
    yield _share("texture", outcomes[TEXTURE], found.trials)


class Behave:
    """The task of `python -m experiments behave` (see `run.Task`): `measures` from MEASURES.

    The accuracy on the images as they are is recorded with all but "conflict".
    """

    def __init__(self, measures: list[str], seed: int) -> None:
        self.measures, self.seed, self.columns = measures, seed, COLUMNS

    def _start(self, model: nn.Module, batches) -> Behaviour:
        data = batches.data
        known = textures(data.source), people(data.source)
        return Behaviour(model, self.measures, data.classes, self.seed, *known)

    def run(self, model, condition, batches, ranks) -> tuple[list[dict], dict]:
        """Show this rank's minibatches; the table and what was left out, on every rank."""

        def read() -> Behaviour:
            here = self._start(model, batches)
            for minibatch in batches:
                here.update(*minibatch)
            return here

        here = ranks.together(read)
        parts = ranks.gather(here.counts)
        classes = len(batches.data.classes)
        return ranks.on_main(
            lambda: (
                list(rows(sum(parts, Counter()), classes, here.people)),
                left_out(here.skipped),
            )
        )

    def plan(self, model, condition, batches) -> str:
        """Which measures, and which are left out and why."""
        here = self._start(model, batches)
        return planned(here.measures, here.skipped)
