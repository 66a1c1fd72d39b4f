"""`python -m experiments ablate`."""

import argparse

from experiments.commands.options import job_parser, positive, run_job, whole
from experiments.engine.ranks import Ranks
from experiments.engine.scopes import SCOPES
from experiments.tasks.ablate import ORDERS, UNITS, VALUES, Ablate


def add(commands) -> None:
    """`ablate`: what a model loses as parts of it are removed."""
    parser = job_parser(
        commands,
        "ablate",
        "damage by removing the strongest, the weakest or random units of some layers: curves, "
        "necessity, sufficiency",
        "  python -m experiments ablate vit-d6-h4 -n 500 --scope 1/3 2/3 last "
        "--value zero renormalise\n"
        "  python -m experiments ablate efficientnet-lite0 --data photographs/ --unit channel\n",
    )
    parser.add_argument(
        "--unit",
        choices=UNITS,
        default="attention",
        help="; ".join(f"{name}: {what}" for name, what in UNITS.items())
        + " (default: %(default)s)",
    )
    parser.add_argument(
        "--scope",
        nargs="+",
        choices=SCOPES,
        default=["last"],
        help="which layers: the one at that share of the depth, the last, or all together "
        "(default: last)",
    )
    parser.add_argument(
        "--value",
        nargs="+",
        choices=VALUES,
        default=["zero"],
        help="what stands for a removed unit: zero, its mean over the images, what another image "
        "has there (resample), or, in attention rows, zero with the rest scaled up (default: zero)",
    )
    parser.add_argument(
        "--order",
        choices=ORDERS,
        default="own",
        help="which units are the strongest: by each head's own response, by the mean over heads, "
        "by the size of their contribution (both of attention), or the same for all images, by the "
        "middle of the image or the mean response (default: own)",
    )
    parser.add_argument(
        "--ranks", type=whole(3), default=33, help="points on a curve (default: %(default)s)"
    )
    parser.add_argument(
        "--draws", type=positive, default=8, help="random orders (default: %(default)s)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, ranks: Ranks) -> int:
    """Do what `python -m experiments ablate` was asked; the exit status."""
    order = {} if options.order == "own" else {"ordered_by": options.order}
    settings = [
        {"unit": options.unit, "scope": scope, "replaced_by": value, **order}
        for scope in dict.fromkeys(options.scope)
        for value in dict.fromkeys(options.value)
    ]
    task = Ablate(options.ranks, options.draws, options.seed)
    configuration = {"ranks": options.ranks, "draws": options.draws}
    return run_job(options, ranks, task, settings, configuration)
