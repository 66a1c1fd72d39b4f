"""`python -m experiments replicate`: the declared experiments, as far as there are models."""

import textwrap
from collections.abc import Iterator
from pathlib import Path

from experiments.catalogue import EXPERIMENTS, FROM_FILE, RUNGS, Experiment
from experiments.engine.job import Condition, FromFile, Job, first, opened
from experiments.engine.ranks import Ranks
from experiments.engine.results import RESULTS, Summary, counted, file_of, finished, record_file
from experiments.tasks.ablate import Ablate
from experiments.tasks.behave import Behave
from experiments.tasks.class_rows import ClassRows
from experiments.tasks.compare import Compare, Pair
from experiments.tasks.hu2023 import Hu2023
from experiments.tasks.measure import Measure
from experiments.tasks.represent import Represent
from experiments.tasks.standalone import STANDALONE, record
from experiments.training.recipes import LOSS_LEVELS
from utils.models import checkpoints, zoo
from utils.models.architectures import Spec
from utils.stimuli import datasets
from utils.stimuli.minibatches import Dataset

TASKS = {
    "measure": Measure,
    "ablate": Ablate,
    "represent": Represent,
    "compare": Compare,
    "behave": Behave,
    "hu2023": Hu2023,
    "class-rows": ClassRows,
}
BATCH, SEED = 50, 0
WIDTH = 100  # of a line of the status


def experiment(name: str, rung: str) -> Experiment:
    """The declared experiment; ValueError for an unknown one, and where it has no models."""
    if name not in EXPERIMENTS:
        raise ValueError(
            f"There is no experiment {name!r}; there are {', '.join((*EXPERIMENTS, *STANDALONE))}."
        )
    if not EXPERIMENTS[name].models(rung):
        raise ValueError(f"{name} has no models on the rung {rung}: choose another rung.")
    return EXPERIMENTS[name]


def replicate(
    name: str,
    rung: str,
    ranks: Ranks,
    *,
    data: Path | None = None,
    n: int | None = None,
    loss: float | None = None,
    runs: Path = Path("_runs"),
    out: Path = RESULTS,
    readers: int | None = None,
    model: str | None = None,
    from_file: dict | None = None,
    bf16: bool = False,
) -> tuple[Summary | None, list[str]]:
    """Record what is missing of an experiment; the summary, and the models left for later.

    data : labelled photographs, for the rung imagenet
    model : this one alone, declared or not, in a table of its own: <rung>/<model>/<name>.csv.gz
    from_file : what a FromFile has beside, for that model with weights from a file
    bf16 : see Job
    n : of images; without it as many as declared, or all if there are fewer
    loss : one of recipes.LOSS_LEVELS, to take every model as it was when its training loss first
        fell below that, from the checkpoints in `runs`, instead of when its training ended
    readers : see Batches

    Models that are not recorded are left for later if the zoo lacks them (or the hub does not give
    them, or their run has no such checkpoint); with none at hand the summary is None. The table
    grows as models come.
    Raises ValueError for an unknown experiment and for fewer than n images, and what Job raises.
    """
    if name in STANDALONE:
        return ranks.on_main(lambda: record(name, file_of(name, rung, out=out))), []
    check(name, rung, data, loss)
    declared = EXPERIMENTS[name]
    names = declared.models(rung) if model is None else [model]
    file = file_of(name, rung, loss, out)
    if model is not None:
        file = file.parent / model.replace("/", "-") / f"{record_file(file).stem}.csv.gz"
    images = first(_images(declared, rung, data), n, declared.n)
    here = names
    if not from_file:
        here = ranks.on_main(lambda: [m for m in names if _at_hand(m, rung, loss, runs)])
    conditions = list(_conditions(declared, here, loss, runs, from_file))
    about = {"experiment": name, "command": declared.command, "data": images.source, "seed": SEED}
    summary = None
    if conditions:
        job = Job(
            conditions,
            TASKS[declared.command](**declared.options, seed=SEED),
            opened(images),
            len(images),
            BATCH,
            file,
            {**about, **declared.options, **({} if loss is None else {"loss": loss})},
            ranks,
            readers,
            ranks.on_main(lambda: images.digest),
            bf16,
        )
        summary = job.run()
    done = finished(file)  # read after the job, which says so if the file is damaged
    return summary, [m for m in names if m not in here and done[m] < max(1, declared.count(m))]


def check(name: str, rung: str, data: Path | None = None, loss: float | None = None) -> None:
    """Find out before any work what cannot be recorded: ValueError for an unknown experiment or
    level of loss, and for photographs that are missing or not wanted."""
    if name in STANDALONE:
        return
    declared = experiment(name, rung)
    if loss is not None and loss not in LOSS_LEVELS:
        levels = ", ".join(f"{level:g}" for level in LOSS_LEVELS)
        raise ValueError(f"No weights are kept at a loss of {loss:g} nats, but at {levels}.")
    if data is not None and rung != "imagenet":
        raise ValueError(f"The rung {rung} has images of its own: leave --data out.")
    if data is None and rung == "imagenet" and declared.data is None:
        raise ValueError(
            "The rung imagenet needs labelled photographs: give --data, the path of an "
            "ImageFolder or of a directory with labels.csv."
        )


def _images(declared: Experiment, rung: str, data: Path | None) -> Dataset:
    if declared.data is not None:  # --data is for the other experiments of the same command
        return datasets.load(declared.data[rung])
    return datasets.load(f"{rung}/test" if data is None else data)


def _checkpoint(model: str, loss: float, runs: Path) -> Path:
    return Path(runs) / Spec.parse(model).short / f"loss-{loss}.safetensors"


def _at_hand(model: str, rung: str, loss: float | None, runs: Path) -> bool:
    if model in FROM_FILE:
        return False
    if rung != "imagenet":
        return zoo.weights_file(model) is not None and (
            loss is None or _checkpoint(model, loss, runs).exists()
        )
    try:
        zoo.load(model)
    except checkpoints.HubUnavailable:
        return False
    return True


def _conditions(
    declared: Experiment, models: list[str], loss: float | None, runs: Path, from_file: dict | None
) -> Iterator[Condition]:
    def condition(model: str, random: bool, settings: dict) -> Condition:
        if loss is not None:
            return FromFile(model, False, settings, _checkpoint(model, loss, runs))
        if from_file:
            return FromFile(model, random, settings, **from_file)
        return Condition(model, random, settings)

    # At random weights there is no loss to be equal at.
    twins = declared.twins(models) if loss is None else []
    for model in dict.fromkeys([*models, *twins]):
        for random in [False] * (model in models) + [True] * (model in twins):
            for settings in declared.settings_of(model):
                one = condition(model, random, settings)
                if not declared.pairs:
                    yield one
                for other in declared.beside(model):
                    if other in models:
                        yield Pair.of(one, condition(other, random, {}))


def _listed(what: str, models: list[str]) -> str:
    return textwrap.fill(
        f"{what}: {', '.join(models)}",
        WIDTH,
        initial_indent="  ",
        subsequent_indent="    ",
        break_on_hyphens=False,
    )


def status(rung: str, out: Path = RESULTS) -> str:
    """What of each experiment is recorded on a rung, what can be, and which models are missing."""
    if rung not in RUNGS:
        raise ValueError(f"There is no rung {rung!r}; choose one of {', '.join(RUNGS)}.")
    trained = zoo.manifest()
    lines = []
    for name, declared in EXPERIMENTS.items():
        models = declared.models(rung)
        if not models:
            continue
        held = finished(file_of(name, rung, out=out))
        further = len(declared.twins(models)) - len(models) if declared.random else 0
        conditions = counted(sum(map(declared.count, models)) + further, "condition")
        lines.append(f"{name}: {held.total()} of {conditions} recorded. {declared.asks}")
        done = [m for m in models if held[m] == declared.count(m)]
        # Some models are only there to be compared with.
        lacking = [m for m in models if m not in done or not declared.count(m)]
        lacking = [m for m in lacking if rung != "imagenet" and m not in trained]
        ready = [m for m in models if m not in done and m not in lacking]
        lines += [_listed("to record", ready)] * bool(ready)
        lines += [_listed("to train first", lacking)] * bool(lacking)
    for name, declared in STANDALONE.items():
        held = finished(file_of(name, rung, out=out)).total()
        lines.append(f"{name}: {held} of {len(declared.parts)} parts recorded. {declared.asks}")
    return "\n".join(lines)
