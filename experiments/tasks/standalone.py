"""Experiments that ask no trained model: they belong to no rung."""

from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from experiments.engine.provenance import provenance
from experiments.engine.ranks import CPU
from experiments.engine.results import Results, Summary
from experiments.tasks import convolve, cortex


class Standalone(NamedTuple):
    """What an experiment asks, the columns of its table, and its parts, name → rows."""

    asks: str
    columns: tuple[str, ...]
    parts: dict[str, Callable[[], Iterator[dict]]]


STANDALONE = {
    "v1": Standalone(
        "How sparse are the recorded responses of macaque and mouse V1?",
        cortex.COLUMNS,
        cortex.RECORDINGS,
    ),
    "convolution": Standalone(
        "How sharp must attention be, and with how many heads, to be a convolution?",
        convolve.COLUMNS,
        convolve.PARTS,
    ),
}


def record(name: str, file: Path) -> Summary:
    """Write the parts that the table does not hold yet.

    Recordings that are not at hand are named in the summary as failed.
    """
    results = Results(file, STANDALONE[name].columns, {"command": name})
    todo = [part for part in STANDALONE[name].parts if not results.holds(part, None)]
    if todo:
        results.begin(provenance(CPU))
    failed = {}
    for part in todo:
        started = perf_counter()
        try:
            rows = list(STANDALONE[name].parts[part]())
        except FileNotFoundError as error:
            failed[part] = str(error)
            continue
        seconds = round(perf_counter() - started, 2)
        results.add(part, rows, {"weights": None, "seconds": seconds, "damaged": []})
    return Summary(results.file, len(results.finished), len(todo) - len(failed), failed, [])
