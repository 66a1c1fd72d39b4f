"""`python -m experiments replicate`."""

import argparse
from pathlib import Path

from experiments.catalogue import EXPERIMENTS, RUNGS
from experiments.commands.options import (
    add_parser,
    add_readers,
    add_weights,
    folder,
    given,
    positive,
)
from experiments.engine.ranks import Ranks
from experiments.engine.results import RESULTS
from experiments.replicate import check, replicate, status
from experiments.tasks.standalone import STANDALONE
from experiments.training.recipes import LOSS_LEVELS

EPILOG = f"""\
experiments:
{{experiments}}

examples:
  python -m experiments replicate --status
  python -m experiments replicate sparseness ablation-heads
  python -m experiments replicate sparseness --rung imagenet --data photographs/
  python -m experiments replicate hu2023 --model deit_tiny_patch16_224.fb_in1k --data photographs/
  python -m experiments replicate hu2023 --model vit_base_patch16_clip_quickgelu_224 \\
      --weights clip.safetensors --num-classes 1000 --data photographs/

What the zoo holds of the declared models is measured, the rest is left for later: run the same
command again when more are trained. The tables are results/<rung>/<experiment>.csv, the .json
next to each says where its numbers came from. Each finished condition is on disk before the next
begins: after an interruption the same command goes on from there. torchrun shares the work.

With --loss, models are taken as they were when their training loss first fell below that, one of
{", ".join(f"{level:g}" for level in LOSS_LEVELS)}: a comparison at equal loss.

exit status: 0 all done that can be; 1 an error, or a condition that failed; 2 wrong arguments; 3
all done, but damaged images were left out; 130 interrupted.
"""


def add(commands) -> None:
    """`replicate`: the declared experiments."""
    asked = {name: declared.asks for name, declared in (EXPERIMENTS | STANDALONE).items()}
    listed = "\n".join(f"  {name:20} {asks}" for name, asks in asked.items())
    parser = add_parser(
        commands,
        "replicate",
        "record the book's experiments, as far as their models are trained",
        EPILOG.replace("{experiments}", listed),
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
        help="which images and models (default: objects; with --model, imagenet)",
    )
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help="this one alone, of the zoo, timm or torchvision, in a table of its own: "
        "results/<rung>/<model>/<experiment>.csv.gz",
    )
    add_weights(parser)
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
        help="fewer images than declared, for --model or for a trial: give that --out too",
    )
    add_readers(parser)
    parser.add_argument(
        "--out", type=folder, default=RESULTS, help="the folder of the tables (default: results/)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace, ranks: Ranks) -> int:
    """Do what `python -m experiments replicate` was asked; the exit status."""
    rung = options.rung or ("objects" if options.model is None else "imagenet")
    if options.status:
        if ranks.main:
            print(status(rung, options.out))
        return 0
    every = [*(name for name, e in EXPERIMENTS.items() if e.models(rung)), *STANDALONE]
    names = list(dict.fromkeys(options.experiments)) or every
    from_file = given(options, [options.model] if options.model else [])
    if (
        options.n is not None
        and options.model is None
        and options.out.resolve() == RESULTS.resolve()
    ):
        raise ValueError(
            "A trial on fewer images (-n) is not for the recorded results: give --out, another "
            "folder for its tables."
        )
    for name in names:  # before the first is run for hours
        check(name, rung, options.data, options.loss)
    passed = ("data", "n", "loss", "runs", "out", "readers", "model", "bf16")
    chosen = {key: getattr(options, key) for key in passed} | {"from_file": from_file}
    statuses = [0]
    for name in names:
        summary, waiting = replicate(name, rung, ranks, **chosen)
        if ranks.main:
            print(*filter(None, [summary]), sep="\n")
            if waiting:
                print(f"{name}: left for later, not at hand: {', '.join(waiting)}.")
        statuses.append(summary.status if summary else 0)
    return 1 if 1 in statuses else max(statuses)
