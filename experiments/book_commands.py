"""`python -m experiments train` and `python -m experiments replicate`: only parse arguments."""

import argparse
from dataclasses import fields, replace
from itertools import groupby
from pathlib import Path

from experiments.catalogue import EXPERIMENTS, RUNGS
from experiments.engine.ranks import Ranks
from experiments.engine.results import RESULTS
from experiments.job_commands import add_readers, positive
from experiments.replicate import experiment, replicate, status
from experiments.tasks.standalone import STANDALONE
from experiments.training import groups, packing, pilots, queue
from experiments.training.recipes import LOSS_LEVELS, Recipe, recipe_of
from utils.models import zoo

TRAIN = """\
examples:
  python -m experiments train --status
  python -m experiments train vit-d6-h4 resnet-d20
  python -m experiments train --group heads depth --workers 4

A model's name says what it is: [cifar10/]family-d6-h4-w64[-n10][-relu]-s0; what is left out is
width 64, all of the data and seed 0. Each model is put into the zoo as soon as it is trained. After
an interruption the same command goes on with the epoch that it was in.

exit status: 0 all done; 1 an error, or a model that failed; 2 wrong arguments; 130 interrupted.
"""
REPLICATE = f"""\
experiments:
{{experiments}}

examples:
  python -m experiments replicate --status
  python -m experiments replicate sparseness ablation-heads
  python -m experiments replicate sparseness --rung imagenet --data photographs/

What the zoo holds of the declared models is measured, the rest is left for later: run the same
command again when more are trained. The tables are results/<rung>/<experiment>.csv, the .json
beside each says where its numbers came from. Each finished condition is on disk before the next
begins: after an interruption the same command goes on from there. torchrun shares the work.

With --loss, models are taken as they were when their training loss first fell below that, one of
{", ".join(f"{level:g}" for level in LOSS_LEVELS)}: a comparison at equal loss.

exit status: 0 all done that can be; 1 an error, or a condition that failed; 2 wrong arguments; 3
all done, but damaged images were left out; 130 interrupted.
"""


def _add(commands, name: str, summary: str, epilog: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


SETTINGS = {
    field.name: field.type for field in fields(Recipe) if field.type in (str, int, float, bool)
}


def setting(text: str) -> tuple[str, str | int | float | bool]:
    """A part of a recipe, such as lr=0.01, as (name, value); ArgumentTypeError for any other."""
    key, _, value = text.partition("=")
    kind = SETTINGS.get(key)
    try:
        if kind is bool:
            return key, {"true": True, "false": False}[value.lower()]
        return key, kind(value)
    except (KeyError, TypeError, ValueError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no part of a recipe; give KEY=VALUE with one of {', '.join(SETTINGS)}."
        ) from None


def add_train(commands) -> None:
    """`train`: the models of the zoo."""
    parser = _add(commands, "train", "train models and put them into the zoo", TRAIN)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="a model, such as vit-d6-h4-s1 (default: what is missing)",
    )
    parser.add_argument(
        "--group",
        nargs="+",
        choices=groups.GROUPS,
        metavar="GROUP",
        help="what is missing of these; "
        + "; ".join(f"{name}: {group.asks}" for name, group in groups.GROUPS.items()),
    )
    parser.add_argument("--status", action="store_true", help="say what is missing and end")
    parser.add_argument(
        "--workers",
        type=positive,
        default=1,
        metavar="N",
        help="models at a time, to fill a GPU (default: %(default)s)",
    )
    parser.add_argument(
        "--set",
        nargs="+",
        default=[],
        type=setting,
        metavar="KEY=VALUE",
        help=f"of the recipe, instead of the model's own: {', '.join(SETTINGS)}",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("_runs"), help="of the runs (default: %(default)s)"
    )
    parser.add_argument(
        "--no-publish", action="store_true", help="leave what is trained out of the zoo"
    )
    parser.add_argument(
        "--pilots",
        type=Path,
        metavar="FOLDER",
        help="write the runs in there, trained with --no-publish, as results/pilots.csv and end",
    )
    parser.add_argument(
        "--pack",
        type=Path,
        metavar="FOLDER",
        help="in the end put all finished runs into archives there, to carry them elsewhere",
    )
    parser.add_argument(
        "--unpack",
        nargs="+",
        type=Path,
        metavar="ARCHIVE",
        help="take packed runs as if they had been trained here, publish them and end",
    )
    parser.set_defaults(run=train)


def train(options: argparse.Namespace, ranks: Ranks) -> int:
    """Do what `python -m experiments train` was asked; the exit status."""
    if options.status:
        print(groups.status())
        return 0
    if options.pilots:
        found = pilots.table(options.pilots)
        RESULTS.mkdir(exist_ok=True)
        found.to_csv(RESULTS / "pilots.csv", index=False, lineterminator="\n")
        print(found.to_string(index=False))
        return 0
    if options.unpack:
        for run in packing.unpack(options.unpack, options.out):
            name = run.relative_to(options.out).as_posix()
            print(f"{name} is in the zoo: {queue.put_into_zoo(name, run):.1%} right.")
        return 0
    if ranks.world > 1:
        raise ValueError("Training starts its own processes: leave torchrun out, give --workers.")
    names = [zoo.spec(name).short for name in options.names]
    if options.group or not names:
        names += groups.missing(options.group)
    changes = dict(options.set)
    failed = {}
    try:
        # Groups and rungs have recipes of their own; without changes `work` looks them up.
        parts = groupby(dict.fromkeys(names), lambda name: changes and recipe_of(zoo.spec(name)))
        for recipe, part in parts:
            recipe = replace(recipe, **changes) if changes else None
            failed |= queue.work(
                list(part), options.out, recipe, options.workers, not options.no_publish
            )
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(
            str(error)
            or f"Training was interrupted: all finished epochs are safe in {options.out}, and the "
            "same command goes on from there."
        ) from None
    if options.pack:
        print(*packing.pack(options.out, options.pack), sep="\n")
    if failed:
        raise RuntimeError(" ".join(f"{name} failed: {why}" for name, why in failed.items()))
    print("Nothing is missing." if not names else f"Trained: {', '.join(dict.fromkeys(names))}.")
    return 0


def add_replicate(commands) -> None:
    """`replicate`: the declared experiments."""
    asked = {name: declared.asks for name, declared in (EXPERIMENTS | STANDALONE).items()}
    listed = "\n".join(f"  {name:20} {asks}" for name, asks in asked.items())
    parser = _add(
        commands,
        "replicate",
        "record the book's experiments, as far as their models are trained",
        REPLICATE.replace("{experiments}", listed),
    )
    parser.add_argument(
        "experiments",
        nargs="*",
        metavar="EXPERIMENT",
        help="one of those below (default: all that the rung has models for)",
    )
    parser.add_argument(
        "--rung",
        choices=RUNGS,
        default="objects",
        help="which images and models (default: %(default)s)",
    )
    parser.add_argument("--status", action="store_true", help="say what is recorded and end")
    parser.add_argument(
        "--data", type=Path, help="labelled photographs, for the rung imagenet (see measure --help)"
    )
    parser.add_argument("--loss", type=float, metavar="NATS", help="compare at equal training loss")
    parser.add_argument(
        "--runs", type=Path, default=Path("_runs"), help="where `train` left the weights for --loss"
    )
    parser.add_argument(
        "-n",
        "--n",
        type=positive,
        metavar="N",
        help="fewer images than declared, for a trial: give --out too",
    )
    add_readers(parser)
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="the folder of the tables (default: results/)"
    )
    parser.set_defaults(run=replicate_all)


def replicate_all(options: argparse.Namespace, ranks: Ranks) -> int:
    """Do what `python -m experiments replicate` was asked; the exit status."""
    if options.status:
        if ranks.main:
            print(status(options.rung, options.out))
        return 0
    every = [*(name for name, e in EXPERIMENTS.items() if e.models(options.rung)), *STANDALONE]
    names = list(dict.fromkeys(options.experiments)) or every
    for name in names:  # before the first is run for hours
        if name not in STANDALONE:
            experiment(name, options.rung)
    given = {key: getattr(options, key) for key in ("data", "n", "loss", "runs", "out", "readers")}
    statuses = [0]
    for name in names:
        summary, waiting = replicate(name, options.rung, ranks, **given)
        if ranks.main:
            print(*filter(None, [summary]), sep="\n")
            if waiting:
                print(f"{name}: left for later, not at hand: {', '.join(waiting)}.")
        statuses.append(summary.status if summary else 0)
    return 1 if 1 in statuses else max(statuses)
