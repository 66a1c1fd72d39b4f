"""`python -m experiments train`."""

import argparse
import math
from dataclasses import fields, replace
from difflib import get_close_matches
from itertools import groupby
from pathlib import Path

from timm.optim import list_optimizers

from experiments.commands.options import MANY, add_parser, folder, whole
from experiments.engine.files import check_writable
from experiments.engine.ranks import Ranks
from experiments.engine.results import RESULTS
from experiments.training import groups, packing, pilots, queue
from experiments.training.recipes import Recipe, recipe_of
from utils.models import zoo

EPILOG = """\
examples:
  python -m experiments train --status
  python -m experiments train vit-d6-h4 resnet-d20
  python -m experiments train --group heads depth --workers 4

A model's name says what it is: [cifar10/]family-d6-h4-w64[-n10][-relu]-s0; what is left out is
width 64, all of the data and seed 0. Each model is put into the zoo as soon as it is trained. After
an interruption the same command goes on with the epoch that it was in.

exit status: 0 all done; 1 an error, or a model that failed; 2 wrong arguments; 130 interrupted.
"""
LEAST = {"batch_size": 1}  # 0 of all other settings
SETTINGS = {
    field.name: field.type for field in fields(Recipe) if field.type in (str, int, float, bool)
}


def setting(text: str) -> tuple[str, str | int | float | bool]:
    """A part of a recipe, such as lr=0.01, as (name, value); ArgumentTypeError for any other."""
    key, _, text_of_value = text.partition("=")
    kind = SETTINGS.get(key)
    try:
        if kind is bool:
            return key, {"true": True, "false": False}[text_of_value.lower()]
        value = kind(text_of_value)
    except (KeyError, TypeError, ValueError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no part of a recipe; give KEY=VALUE with one of {', '.join(SETTINGS)}."
        ) from None
    if kind in (int, float) and not (math.isfinite(value) and value >= LEAST.get(key, 0)):
        raise argparse.ArgumentTypeError(
            f"{text!r} cannot be: {key} is a finite number of at least {LEAST.get(key, 0)}"
        )
    if key == "optimizer" and value not in (known := list_optimizers()):
        near = get_close_matches(value, known, n=3, cutoff=0)
        raise argparse.ArgumentTypeError(
            f"timm has no optimizer {value!r}; the nearest are {', '.join(near)}"
        )
    return key, value


def add(commands) -> None:
    """`train`: the models of the zoo."""
    parser = add_parser(commands, "train", "train models and put them into the zoo", EPILOG)
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
        type=whole(1, MANY),
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
        "--out", type=folder, default=Path("_runs"), help="of the runs (default: %(default)s)"
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
        type=folder,
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
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, ranks: Ranks) -> int:
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
        for folder in packing.unpack(options.unpack, options.out):
            name = folder.relative_to(options.out).as_posix()
            print(f"{name} is in the zoo: {queue.put_into_zoo(name, folder):.1%} right.")
        return 0
    if ranks.world > 1:
        raise ValueError("Training starts its own processes: leave torchrun out, give --workers.")
    names = [zoo.spec(name).short for name in options.names]
    if options.group or not names:
        names += groups.missing(options.group)
    for place, option in ((options.out, "--out"), (options.pack, "--pack")):
        if place is not None and names:  # the images alone take minutes
            check_writable(place, f"choose another folder by {option}")
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
