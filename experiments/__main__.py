"""`python -m experiments …`: measures and ablates any model on any images, trains ours and records
the book's experiments."""

import argparse
import importlib
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from experiments.engine.ranks import RankLost, Ranks
from experiments.engine.results import NotWritten

SUMMARY = """\
Measure and ablate any model of the zoo, of timm or of torchvision on any labelled images; train
the models of the zoo and record the experiments of the book."""
COMMANDS = ("measure", "represent", "behave", "ablate", "replicate", "train")


@contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM, which torchrun sends when another rank has died, ends a command as Ctrl-C does."""

    def stop(*_) -> None:
        raise KeyboardInterrupt("Stopped by another process.")

    if threading.current_thread() is not threading.main_thread():  # signals reach the main one
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser("python -m experiments", description=SUMMARY)
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # The one that is asked for; only who asks for none, or for help, waits for all to be imported.
    for name in {*arguments[:1]} & {*COMMANDS} or COMMANDS:
        importlib.import_module(f"experiments.commands.{name}").add(parsers)
    options = parser.parse_args(arguments)
    ranks = Ranks()
    try:
        with _stoppable(), ranks:
            return options.run(options, ranks)
    except (ValueError, LookupError, OSError, RuntimeError, NotWritten, RankLost) as error:
        status, sentence = 1, str(error)
    except KeyboardInterrupt as error:
        status, sentence = 130, str(error) or "Interrupted before anything was measured."
    if ranks.main:
        print(f"python -m experiments {options.command}: {sentence}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
