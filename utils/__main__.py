"""`python -m utils …`: measures and ablates any model on any images, trains ours and records the
book's experiments; only parses arguments (those of the latter two are in experiments.commands)."""

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from utils.experiments.ablating import UNITS, VALUES, Ablate
from utils.experiments.commands import add_replicate, add_train
from utils.experiments.layers import SCOPES
from utils.experiments.measuring import MEASURES, Measure
from utils.experiments.ranks import RankLost, Ranks
from utils.experiments.results import NotWritten
from utils.experiments.run import Condition, Sweep
from utils.stimuli import datasets
from utils.stimuli.minibatches import Dataset

SUMMARY = """\
Measure and ablate any model of the zoo or of timm on any labelled images; train the models of the
zoo and record the experiments of the book."""
SWEEP_HELP = """\
The table is tidy, one row a value; the .json beside it says where the numbers came from. Each
finished condition is on disk before the next begins: after an interruption the same command goes
on from there. Under torchrun the same command shares the minibatches among the ranks and gives the
same table: torchrun --nproc-per-node 2 -m utils {command} …

exit status: 0 all done; 1 an error, or a model that failed; 2 wrong arguments; 3 all done, but
damaged images were left out (named in the summary and in the .json); 130 interrupted. torchrun
calls every status but 0 a failure: the sentence above its report says what it was.
"""


def _sweep_options(parser: argparse.ArgumentParser) -> None:
    """What `measure` and `ablate` share."""
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="a model of the zoo (vit-d6-h4, efficientnet-lite0) or any timm name "
        "(vit_tiny_patch16_224.augreg_in21k_ft_in1k)",
    )
    parser.add_argument(
        "--data",
        default="objects",
        help="objects, cifar10 (both: /train, /validation or, left out, /test), or the path of "
        "labelled photographs: an ImageFolder (a directory or a .tar) or a directory with "
        "labels.csv (default: %(default)s)",
    )
    # torchrun would take --n for an abbreviation of its own options, hence -n.
    parser.add_argument(
        "-n", "--n", type=_positive, metavar="N", help="the first N images (default: all)"
    )
    parser.add_argument(
        "--control",
        choices=("none", "random", "only"),
        default="none",
        help="random: each model with random weights too; only: with random weights only "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--batch", type=_positive, default=50, help="images a minibatch (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of every random draw (default: %(default)s)"
    )
    parser.add_argument(
        "--out", type=Path, help="the .csv to write or go on with (default: in _runs/)"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be done and how long it would take"
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number


def _add(commands, name: str, summary: str, examples: str) -> argparse.ArgumentParser:
    return commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"examples:\n{examples}\n{SWEEP_HELP.format(command=name)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _measure(commands) -> None:
    """`measure`: what a model does with the images, left alone."""
    parser = _add(
        commands,
        "measure",
        "sparsity of attention and activations, attention distance, CKA and accuracy",
        "  python -m utils measure vit-d6-h4 resnet-d20 --control random\n"
        "  python -m utils measure efficientnet-lite0 --data photographs/ --measures activation\n",
    )
    _sweep_options(parser)
    parser.add_argument(
        "--measures",
        nargs="+",
        choices=MEASURES,
        default=list(MEASURES),
        metavar="MEASURE",
        help="; ".join(f"{name}: {what}" for name, what in MEASURES.items()) + " (default: all)",
    )
    parser.set_defaults(run=measure)


def measure(options: argparse.Namespace, ranks: Ranks) -> int:
    """Do what `python -m utils measure` was asked; the exit status."""
    measures = [name for name in MEASURES if name in options.measures]
    task = Measure(measures, options.seed)
    return _sweep(options, ranks, task, [{}], {"measures": measures})


def _ablate(commands) -> None:
    """`ablate`: what a model loses as parts of it are removed."""
    parser = _add(
        commands,
        "ablate",
        "damage by removing the strongest, the weakest or random units of some layers: curves, "
        "necessity, sufficiency",
        "  python -m utils ablate vit-d6-h4 -n 500 --scope 1/3 2/3 last --value zero renormalise\n"
        "  python -m utils ablate efficientnet-lite0 --data photographs/ --unit channel\n",
    )
    _sweep_options(parser)
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
        help="what stands for a removed unit: zero, its mean over the images, or, in attention "
        "rows, zero with the rest scaled up (default: zero)",
    )
    parser.add_argument(
        "--ranks", type=_positive, default=33, help="points on a curve (default: %(default)s)"
    )
    parser.add_argument(
        "--draws", type=_positive, default=8, help="random orders (default: %(default)s)"
    )
    parser.set_defaults(run=ablate)


def ablate(options: argparse.Namespace, ranks: Ranks) -> int:
    """Do what `python -m utils ablate` was asked; the exit status."""
    settings = [
        {"unit": options.unit, "scope": scope, "replaced_by": value}
        for scope in dict.fromkeys(options.scope)
        for value in dict.fromkeys(options.value)
    ]
    task = Ablate(options.ranks, options.draws, options.seed)
    configuration = {"ranks": options.ranks, "draws": options.draws}
    return _sweep(options, ranks, task, settings, configuration)


def _images(name: str, n: int | None) -> Dataset:
    data = datasets.load(name)
    if n is not None and n > len(data):
        raise ValueError(f"{data.source} has {len(data):,} images, fewer than the {n:,} asked for.")
    return data if n is None else data.subset(range(n), data.source)


def _sweep(
    options: argparse.Namespace, ranks: Ranks, task, settings: list[dict], configuration: dict
) -> int:
    kinds = {"none": (False,), "random": (False, True), "only": (True,)}[options.control]
    conditions = [
        Condition(model, random, setting)
        for model in dict.fromkeys(options.models)
        for random in kinds
        for setting in settings
    ]
    data = _images(options.data, options.n)
    sweep = Sweep(
        conditions,
        task,
        data.prepared_for,
        len(data),
        options.batch,
        options.out or Path("_runs", f"{options.command}-{Path(options.data).stem}"),
        {"command": options.command, "data": data.source, "seed": options.seed, **configuration},
        ranks,
    )
    if options.dry_run:
        for line in sweep.plan():
            if ranks.main:
                print(line)
        return 0
    summary = sweep.run()
    if ranks.main:
        print(summary, file=sys.stderr if summary.status else sys.stdout)
    return summary.status


# A new subcommand is one more function that adds its parser and sets `run`.
COMMANDS: tuple[Callable, ...] = (_measure, _ablate, add_replicate, add_train)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status."""
    parser = argparse.ArgumentParser("python -m utils", description=SUMMARY)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in COMMANDS:
        add(commands)
    options = parser.parse_args(arguments)

    def stop(*_) -> None:
        raise KeyboardInterrupt("Stopped by another process.")

    signal.signal(signal.SIGTERM, stop)  # torchrun sends it when another rank has died
    ranks = Ranks()
    try:
        with ranks:
            return options.run(options, ranks)
    except (ValueError, LookupError, OSError, RuntimeError, NotWritten, RankLost) as error:
        status, sentence = 1, str(error)
    except KeyboardInterrupt as error:
        status, sentence = 130, str(error) or "Interrupted before anything was measured."
    if ranks.main:
        print(f"python -m utils {options.command}: {sentence}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
