"""One process or many: who takes which minibatches, and how the parts come together.

What travels between ranks are sums and tables, small and on the CPU; `torchrun` starts the ranks.
"""

import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")
CPU = torch.device("cpu")
# What torchrun sets; the values without it, which are also the least.
LAUNCHED = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0}
# A dead rank is noticed at once; one that is slow may take its time.
PATIENCE = timedelta(days=1)


class RankLost(Exception):
    """Another rank died, or can no longer be reached."""


class Ranks:
    """The processes that share a job, as a context manager; one alone without `torchrun`.

    `rank` of `world`; rank 0 is `main`: it alone writes and speaks. `device` is this process's own
    GPU if there is one, else the CPU. Every rank must call `on_main`, `together` and `gather`
    equally often; they raise RankLost when another rank has died.
    Raises ValueError where the environment holds what torchrun cannot have set.
    """

    def __init__(self) -> None:
        self.rank, self.world, local = (_launched(name, least) for name, least in LAUNCHED.items())
        if self.rank >= self.world:
            raise ValueError(
                f"There is no rank {self.rank} of {self.world}: unset RANK and WORLD_SIZE, which "
                "torchrun sets, or start with torchrun."
            )
        self.main = self.rank == 0
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda", local % torch.cuda.device_count()) if cuda else CPU
        if cuda:
            torch.cuda.set_device(self.device)

    def __enter__(self) -> Self:
        if self.world > 1:
            with _reachable():
                # Tensors on a GPU go by nccl, objects and everything else by gloo.
                gpu = self.device.type == "cuda"
                backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
                dist.init_process_group(backend, timeout=PATIENCE)
        return self

    def __exit__(self, *error) -> None:
        if self.world > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def mine(self, minibatches: int) -> range:
        """The minibatches of this rank: j belongs to rank j mod world."""
        return range(self.rank, minibatches, self.world)

    def on_main(self, work: Callable[[], T]) -> T:
        """Do `work` on rank 0 alone; every rank gets what it returned, or raises what it raised."""
        if self.world == 1:
            return work()
        parcel = [outcome(work) if self.main else None]
        with _reachable():
            dist.broadcast_object_list(parcel, src=0)
        return unpack(parcel[0])

    def together(self, work: Callable[[], T]) -> T:
        """Do `work` on every rank; if it raised on any, every rank raises the first one's error."""
        if self.world == 1:
            return work()
        own = outcome(work)
        errors = self.everywhere(own if isinstance(own, Exception) else None)
        for error in filter(None, errors):
            raise error
        return unpack(own)

    def everywhere(self, part: T) -> list[T]:
        """The parts of all ranks, in their order, on every rank."""
        if self.world == 1:
            return [part]
        parts = [None] * self.world
        with _reachable():
            dist.all_gather_object(parts, part)
        return parts

    def gather(self, part: T) -> list[T] | None:
        """The parts of all ranks, in their order, on rank 0; None on the others."""
        if self.world == 1:
            return [part]
        parts = [None] * self.world if self.main else None
        with _reachable():
            dist.gather_object(part, parts)
        return parts


def outcome(work: Callable[[], Any]) -> Any:
    """What became of `work`, fit to be sent to another process: see `unpack`."""
    try:
        return (work(),)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an exception whose arguments are not those of its class
            return RuntimeError(f"{type(error).__name__}: {error}")
        return error


def unpack(parcel: Any) -> Any:
    """What an `outcome` returned; raises what it raised."""
    if isinstance(parcel, Exception):
        raise parcel
    return parcel[0]


def _launched(name: str, least: int) -> int:
    text = os.environ.get(name, str(least))
    if not text.isdecimal() or int(text) < least:
        raise ValueError(
            f"The environment variable {name}, which torchrun sets, is {text!r} and no whole "
            f"number of at least {least}: unset it, or start with torchrun."
        )
    return int(text)


@contextmanager
def _reachable() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # torch.distributed has no narrower one for a closed connection
        reason = str(error).strip().splitlines()[0]
        raise RankLost(f"Another rank died or cannot be reached ({reason}).") from error
