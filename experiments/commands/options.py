"""Arguments that several commands share, and the job that the measuring ones run."""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from experiments.engine.job import MOST_READERS, Condition, FromFile, Job, first, opened
from experiments.engine.ranks import Ranks
from experiments.engine.results import shorten, table_file
from utils.stimuli import datasets
from utils.stimuli.minibatches import Dataset

MOST = 2**32 - 1  # a seed
MANY = 256  # processes that read or train
FEWEST = 2  # images that have a standard deviation
JOB_HELP = """\
The table is tidy, one row a value; the .json next to it says where the numbers came from. Each
finished condition is on disk before the next begins: after an interruption the same command goes
on from there. Under torchrun the same command shares the minibatches among the ranks and gives the
same table: torchrun --nproc-per-node 2 -m experiments {command} …

exit status: 0 all done; 1 an error, or a model that failed; 2 wrong arguments; 3 all done, but
damaged images were left out (named in the summary and in the .json); 130 interrupted. torchrun
calls every status but 0 a failure: the sentence above its report says what it was.
"""


def add_job(parser: argparse.ArgumentParser) -> None:
    """What the commands that run a job share."""
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
    # torchrun would take --n for an abbreviation of its own options: so -n.
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
        "--seed",
        type=whole(0, MOST),
        default=0,
        metavar="N",
        help="of every random draw (default: %(default)s)",
    )
    add_weights(parser)
    add_readers(parser)
    parser.add_argument(
        "--out",
        type=table,
        metavar="FILE",
        help="the table to write or go on with, .csv or .csv.gz; .csv is added where neither is "
        "said (default: in _runs/, named by command and data)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done and how long it would take"
    )


def add_weights(parser: argparse.ArgumentParser) -> None:
    """`--weights`, `--num-classes` and `--bf16`, of every command that loads networks."""
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="safetensors with the weights of the model, which is then of any architecture of timm "
        "or torchvision and needs no hub; the record holds their hash",
    )
    parser.add_argument(
        "--num-classes",
        type=positive,
        metavar="N",
        help="how many classes these weights tell apart (default: as many as the architecture is "
        "published with)",
    )
    parser.add_argument(
        "--bf16",
        action="store_true",
        help="products with weights in bfloat16, all else in float32: faster on some processors; "
        "the record says so",
    )


def given(options: argparse.Namespace, models: list[str]) -> dict:
    """What a FromFile is made of, from the command line; empty for models that load by name.

    Raises ValueError where it is not clear whose weights the file holds.
    """
    if options.weights is None:
        if options.num_classes is not None:
            raise ValueError("--num-classes is about the weights in a file: give --weights too.")
        return {}
    if len(models) != 1:
        raise ValueError(
            f"--weights is one file, of one model, but {len(models)} are given: name the one."
        )
    return {"file": options.weights, "num_classes": options.num_classes}


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """What reads a whole number in that range from the command line."""
    wanted = f"a whole number of at least {least}" if most is None else f"{least} … {most}"

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:  # also for more digits than Python converts
            number = None
        if number is None or number < least or (most is not None and number > most):
            raise argparse.ArgumentTypeError(f"must be {wanted}, not {_quoted(text)}")
        return number

    return read


positive = whole(1)


def folder(text: str) -> Path:
    """A folder that is there or can be made, from the command line."""
    path = Path(text)
    if not text or (path.exists() and not path.is_dir()):
        raise argparse.ArgumentTypeError(f"{_quoted(text)} is no folder")
    return path


def table(text: str) -> Path:
    """The file of a table, from the command line."""
    if not text or text.endswith("/") or Path(text).name in ("", ".."):
        raise argparse.ArgumentTypeError(f"{_quoted(text)} is no name of a file")
    return table_file(Path(text))


def _quoted(text: str) -> str:
    return repr(shorten(text, 40))


def add_readers(parser: argparse.ArgumentParser) -> None:
    """`--readers`, of every command that shows images to networks."""
    parser.add_argument(
        "--readers",
        type=whole(0, MANY),
        metavar="N",
        help="processes that read images while the network runs; the table is the same for any "
        f"number (default: up to {MOST_READERS} for files where there is a GPU, otherwise 0)",
    )


def add_parser(commands, name: str, summary: str, epilog: str) -> argparse.ArgumentParser:
    """The parser of a command, with its summary and what is shown below its options."""
    return commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def job_parser(commands, name: str, summary: str, examples: str) -> argparse.ArgumentParser:
    """The parser of a command that runs a job."""
    epilog = f"examples:\n{examples}\n{JOB_HELP.format(command=name)}"
    parser = add_parser(commands, name, summary, epilog)
    add_job(parser)
    return parser


class Measuring(NamedTuple):
    """A command that takes `--measures`: what it is told to do, and the task that does it."""

    name: str
    summary: str
    examples: str
    measures: dict[str, str]
    task: Callable

    def add(self, commands) -> None:
        """Add its parser."""
        parser = job_parser(commands, self.name, self.summary, self.examples)
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
        return run_job(options, ranks, task, [{}], {"measures": measures})


def run_job(
    options: argparse.Namespace, ranks: Ranks, task, settings: list[dict], configuration: dict
) -> int:
    """Measure each model under each setting, or say what would be done; the exit status."""
    kinds = {"none": (False,), "random": (False, True), "only": (True,)}[options.control]
    models = list(dict.fromkeys(options.models))
    from_file = given(options, models)
    made = partial(FromFile, **from_file) if from_file else Condition
    conditions = [
        made(model, random, setting) for model in models for random in kinds for setting in settings
    ]
    data = first(datasets.load(options.data), options.n)
    if len(data) < FEWEST:
        raise ValueError(
            f"{data.source} is measured on {len(data)} image, which has no spread: take at least "
            f"{FEWEST}."
        )
    digest = ranks.on_main(lambda: data.digest)
    job = Job(
        conditions,
        task,
        opened(data),
        len(data),
        options.batch,
        options.out or Path("_runs", f"{options.command}-{_slug(data, digest)}.csv"),
        {"command": options.command, "data": data.source, "seed": options.seed, **configuration},
        ranks,
        options.readers,
        digest,
        options.bf16,
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


def _slug(data: Dataset, digest: str) -> str:
    """What tells a data set from all others in the name of a file: many folders are called val."""
    name = data.source.replace("/", "-")
    return name if data.names is None else f"{name}-{digest[:8]}"
