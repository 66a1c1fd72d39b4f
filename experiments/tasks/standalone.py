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
    """What an experiment asks, the columns of its table, its parts, name → rows, and the hash of
    what a part is measured on, None where that is not on this machine or there is nothing."""

    asks: str
    columns: tuple[str, ...]
    parts: dict[str, Callable[[], Iterator[dict]]]
    fingerprint: Callable[[str], str | None] = lambda part: None


STANDALONE = {
    "v1": Standalone(
        "How sparse are the recorded responses of macaque and mouse V1?",
        cortex.COLUMNS,
        cortex.RECORDINGS,
        cortex.fingerprint,
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
    declared = STANDALONE[name]
    hashes = {part: declared.fingerprint(part) for part in declared.parts}
    results = Results(file, declared.columns, {"command": name})
    todo = [part for part in declared.parts if not results.holds(part, hashes[part])]
    if todo:
        results.begin(provenance(CPU))
    failed = {}
    for part in todo:
        started = perf_counter()
        try:
            rows = list(declared.parts[part]())
        except FileNotFoundError as error:
            failed[part] = str(error)
            continue
        seconds = round(perf_counter() - started, 2)
        results.add(part, rows, {"weights": hashes[part], "seconds": seconds, "damaged": []})
    return Summary(results.file, len(results.finished), len(todo) - len(failed), failed, [])
