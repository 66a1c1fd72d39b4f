"""`python -m experiments measure`, `represent`, `behave` and `ablate`: only parse arguments."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from experiments.engine.job import MOST_READERS, Condition, Job, first
from experiments.engine.ranks import Ranks
from experiments.engine.scopes import SCOPES
from experiments.tasks import behave, measure, represent
from experiments.tasks.ablate import ORDERS, UNITS, VALUES, Ablate
from utils.stimuli import datasets

SWEEP_HELP = """\
The table is tidy, one row a value; the .json next to it says where the numbers came from. Each
finished condition is on disk before the next begins: after an interruption the same command goes
on from there. Under torchrun the same command shares the minibatches among the ranks and gives the
same table: torchrun --nproc-per-node 2 -m experiments {command} …

exit status: 0 all done; 1 an error, or a model that failed; 2 wrong arguments; 3 all done, but
damaged images were left out (named in the summary and in the .json); 130 interrupted. torchrun
calls every status but 0 a failure: the sentence above its report says what it was.
"""


def _job_options(parser: argparse.ArgumentParser) -> None:
    """What `measure`, `represent`, `behave` and `ablate` share."""
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a model of the zoo (vit-d6-h4, efficientnet-lite0), any timm name "
        "(vit_tiny_patch16_224.augreg_in21k_ft_in1k), or a classifier of torchvision's "
        "(torchvision/squeezenet1_1)",
    )
    parser.add_argument(
        "--data",
        default="objects",
        help="objects, cifar10 (both: /train, /validation or, left out, /test), "
        "objects/cue-conflict or cue-conflict (for behave), or the path of "
        "labelled photographs: an ImageFolder (a directory or a .tar) or a directory with "
        "labels.csv (default: %(default)s)",
    )
    # torchrun would take --n for an abbreviation of its own options, hence -n.
    parser.add_argument(
        "-n", "--n", type=positive, metavar="N", help="the first N images (default: all)"
    )
    parser.add_argument(
        "--control",
        choices=("none", "random", "only"),
        default="none",
        help="random: each model with random weights too; only: with random weights only "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--batch", type=positive, default=50, help="images a minibatch (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of every random draw (default: %(default)s)"
    )
    add_readers(parser)
    parser.add_argument(
        "--out", type=Path, help="the .csv to write or go on with (default: in _runs/)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done and how long it would take"
    )


def positive(text: str) -> int:
    """A whole number above 0, from the command line."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def whole(text: str) -> int:
    """A whole number from 0, from the command line."""
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, not {number}")
    return number


def add_readers(parser: argparse.ArgumentParser) -> None:
    """`--readers`, of every command that shows images to networks."""
    parser.add_argument(
        "--readers",
        type=whole,
        metavar="N",
        help="processes that read images while the network runs; the table is the same for any "
        f"number (default: up to {MOST_READERS} for files where there is a GPU, otherwise 0)",
    )


def _add(commands, name: str, summary: str, examples: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"examples:\n{examples}\n{SWEEP_HELP.format(command=name)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


class Reading(NamedTuple):
    """A command that takes `--measures`: what it is told to do, and the task that does it."""

    name: str
    summary: str
    examples: str
    measures: dict[str, str]
    task: Callable

    def add(self, commands) -> None:
        """Add its parser."""
        parser = _add(commands, self.name, self.summary, self.examples)
        _job_options(parser)
        what = "; ".join(f"{name}: {measure}" for name, measure in self.measures.items())
        parser.add_argument(
            "--measures",
            nargs="+",
            choices=self.measures,
            default=list(self.measures),
            metavar="MEASURE",
            help=f"{what} (default: all)",
        )
        parser.set_defaults(run=self.run)

    def run(self, options: argparse.Namespace, ranks: Ranks) -> int:
        """Do what was asked; the exit status."""
        measures = [name for name in self.measures if name in options.measures]
        task = self.task(measures, options.seed)
        return _job(options, ranks, task, [{}], {"measures": measures})


READINGS = (
    Reading(
        "measure",
        "sparsity of attention and activations, attention distance, CKA and accuracy",
        "  python -m experiments measure vit-d6-h4 resnet-d20 --control random\n"
        "  python -m experiments measure efficientnet-lite0 --data photographs/ "
        "--measures activation\n",
        measure.MEASURES,
        measure.Measure,
    ),
    Reading(
        "represent",
        "agreement of attention maps, receptive fields, frequency filtering, location and skips",
        "  python -m experiments represent vit-d6-h4 resnet-d20 -n 300 --control random\n"
        "  python -m experiments represent vit-d6-h4 --data cifar10 "
        "--measures agreement location\n",
        represent.MEASURES,
        represent.Represent,
    ),
    Reading(
        "behave",
        "accuracy under corruptions, attacks and permuted patches, decisions kept under shifts, "
        "shape bias",
        "  python -m experiments behave vit-d6-h4 resnet-d20 -n 200 --measures corruption shift\n"
        "  python -m experiments behave vit-d6-h4 resnet-d20 --data objects/cue-conflict\n",
        behave.MEASURES,
        behave.Behave,
    ),
)


def add_ablate(commands) -> None:
    """`ablate`: what a model loses as parts of it are removed."""
    parser = _add(
        commands,
        "ablate",
        "damage by removing the strongest, the weakest or random units of some layers: curves, "
        "necessity, sufficiency",
        "  python -m experiments ablate vit-d6-h4 -n 500 --scope 1/3 2/3 last "
        "--value zero renormalise\n"
        "  python -m experiments ablate efficientnet-lite0 --data photographs/ --unit channel\n",
    )
    _job_options(parser)
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
        "--ranks", type=positive, default=33, help="points on a curve (default: %(default)s)"
    )
    parser.add_argument(
        "--draws", type=positive, default=8, help="random orders (default: %(default)s)"
    )
    parser.set_defaults(run=ablate)


def ablate(options: argparse.Namespace, ranks: Ranks) -> int:
    """Do what `python -m experiments ablate` was asked; the exit status."""
    order = {} if options.order == "own" else {"ordered_by": options.order}
    settings = [
        {"unit": options.unit, "scope": scope, "replaced_by": value, **order}
        for scope in dict.fromkeys(options.scope)
        for value in dict.fromkeys(options.value)
    ]
    task = Ablate(options.ranks, options.draws, options.seed)
    configuration = {"ranks": options.ranks, "draws": options.draws}
    return _job(options, ranks, task, settings, configuration)


def _job(
    options: argparse.Namespace, ranks: Ranks, task, settings: list[dict], configuration: dict
) -> int:
    kinds = {"none": (False,), "random": (False, True), "only": (True,)}[options.control]
    conditions = [
        Condition(model, random, setting)
        for model in dict.fromkeys(options.models)
        for random in kinds
        for setting in settings
    ]
    data = first(datasets.load(options.data), options.n)
    job = Job(
        conditions,
        task,
        behave.opened(data),
        len(data),
        options.batch,
        options.out or Path("_runs", f"{options.command}-{Path(options.data).stem}"),
        {"command": options.command, "data": data.source, "seed": options.seed, **configuration},
        ranks,
        options.readers,
    )
    if options.dry_run:
        for line in job.plan():
            if ranks.main:
                print(line)
        return 0
    summary = job.run()
    if ranks.main:
        print(summary, file=sys.stderr if summary.status else sys.stdout)
    return summary.status
