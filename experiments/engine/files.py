"""Files that are whole or not there, and that one process at a time writes."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError


class NotWritten(Exception):
    """The disk is full, or the folder cannot be written."""


def replace(file: Path, write: Callable[[Path], object], safe: str) -> None:
    """Let `write` fill a temporary file and rename it: an interruption leaves the old or the new.

    Raises NotWritten, which ends with `safe`, a clause on what is intact and what to do.
    """
    temporary = file.with_name(file.name + ".tmp")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    except OSError as error:
        raise NotWritten(f"{file} could not be written ({error.strerror}); {safe}.") from None
    except (RuntimeError, SafetensorError):  # of torch, which says where in its source it noticed
        raise NotWritten(f"{file} could not be written (is the disk full?); {safe}.") from None


def check_writable(folder: Path, remedy: str) -> None:
    """Find out before work whether files can be made in a folder, which is made if need be.

    Raises NotWritten, which ends with `remedy`.
    """
    probe = Path(folder) / f".{os.getpid()}.tmp"
    try:
        probe.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise NotWritten(f"{folder} cannot be written ({error.strerror}): {remedy}.") from None


@contextmanager
def alone(lock: Path, busy: str, seconds: float = 0) -> Iterator[None]:
    """Keep other processes out until this one is done or dead, with a file that goes in the end.

    Raises BlockingIOError, with the sentence `busy`, where another one is in for so long.
    """
    held = FileLock(lock, timeout=seconds)
    try:
        held.acquire()
    except Timeout:
        raise BlockingIOError(busy) from None
    try:
        yield
    finally:
        with suppress(OSError):  # a system that removes no open file leaves this to the release
            lock.unlink()
        held.release()
