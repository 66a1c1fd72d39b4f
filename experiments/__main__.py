"""`python -m experiments …`: measures and ablates any model on any images, trains ours and records
the book's experiments."""

import argparse
import importlib
import io
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SUMMARY = """\
Measure and ablate any model of the zoo, of timm or of torchvision on any labelled images; train
the models of the zoo and record the experiments of the book."""
COMMANDS = ("measure", "represent", "behave", "ablate", "replicate", "train")
SPEAKING = 2  # ranks that say that another one is lost: rank 0 may be the one
INTERRUPTED = "Interrupted before anything was measured."


class Parser(argparse.ArgumentParser):
    """One whose complaints are sentences."""

    def error(self, message: str) -> None:
        """Say what is wrong with the arguments, and end with status 2."""
        super().error(message if message.endswith(".") else f"{message}.")


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
    name = arguments[0] if arguments and arguments[0] in COMMANDS else None
    try:
        status, sentence = _run(arguments, name)
    except KeyboardInterrupt as error:
        status, sentence = 130, str(error) or INTERRUPTED
    if sentence:
        command = " ".join(filter(None, ("python -m experiments", name)))
        print(f"{command}: {sentence}", file=sys.stderr)
    return status


def _run(arguments: list[str], name: str | None) -> tuple[int, str | None]:
    """The exit status, and what this process has to say."""
    # Some seconds of importing, in which Ctrl-C is as likely as later.
    from experiments.engine.files import NotWritten
    from experiments.engine.ranks import RankLost, Ranks
    from experiments.engine.results import sentence

    parser = Parser("python -m experiments", description=SUMMARY)
    parsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # The one that is asked for; only who asks for none, or for help, waits for all to be imported.
    for command in [name] if name else COMMANDS:
        importlib.import_module(f"experiments.commands.{command}").add(parsers)
    options = parser.parse_args(arguments)
    speaks = True
    try:
        ranks = Ranks()
        speaks = ranks.main
        with _stoppable(), ranks:
            return options.run(options, ranks), None
    except RankLost as error:
        return 1, sentence(error) if ranks.rank < SPEAKING else None
    except (ValueError, LookupError, OSError, RuntimeError, NotWritten) as error:
        return 1, sentence(error) if speaks else None
    except KeyboardInterrupt as error:
        return 130, (str(error) or INTERRUPTED) if speaks else None


def _speakable() -> None:
    """Names that the terminal's encoding has no letters for are shown by their codes."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    _speakable()
    sys.exit(main())
