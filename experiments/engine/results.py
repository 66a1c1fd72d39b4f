"""A job on disk: one tidy .csv or .csv.gz, and one .json that says where its numbers came from.

Both are whole after every condition. The table is written first and the .json, which lists the
finished conditions, second: rows that it does not vouch for were cut short, and are measured again.
"""

import csv
import gzip
import io
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from utils import edition

RESULTS = edition.folder("results")
RUNGLESS = ("v1", "convolution")  # experiments that need no models and no images
DIGITS = 8  # significant: more than single precision, in which models are run, can tell apart


class OtherConfiguration(ValueError):
    """The file holds results that were measured in another way."""


class NotWritten(Exception):
    """The disk is full, or the folder cannot be written."""


def record_file(file: Path) -> Path:
    """The .json that vouches for a table, .csv or packed as .csv.gz."""
    return file.with_name(file.name.removesuffix(".gz")).with_suffix(".json")


def record_of(file: Path) -> dict:
    """What the .json next to a table says: configuration, columns, sources and conditions.

    Raises FileNotFoundError where there is none.
    """
    return json.loads(record_file(file).read_text())


def file_of(name: str, rung: str, loss: float | None = None, out: Path = RESULTS) -> Path:
    """Where the table of an experiment is, or is to be."""
    if name in RUNGLESS:
        return out / f"{name}.csv"
    ending = "csv.gz" if edition.SECOND else "csv"
    return out / rung / f"{name}{'' if loss is None else f'-loss-{loss}'}.{ending}"


def finished(file: Path) -> Counter[str]:
    """How many conditions of each model (or part) a table holds; empty where there is none."""
    held = record_of(file)["conditions"] if record_file(file).exists() else ()
    return Counter(condition.split(" ")[0] for condition in held)


class Results:
    """A table of results that grows by one condition at a time and can be gone on with.

    file : the .csv, or .csv.gz for one that is packed; the .json of the same name lies beside it
    columns : of the table, after the first, which names the condition
    configuration : what all its conditions have in common and what decides their numbers, ready for
        JSON; a file that was begun with another one is refused

    Raises OtherConfiguration with the differences named, and NotWritten where it cannot be begun.
    """

    def __init__(self, file: Path, columns: Iterable[str], configuration: dict) -> None:
        file = Path(file)
        self._packed = file.name.endswith(".csv.gz")
        self.file = file if self._packed else file.with_suffix(".csv")
        self.columns = ["condition", *columns]
        self.configuration = json.loads(json.dumps(configuration))
        self.sources: list[dict] = []
        self.finished: dict[str, dict] = {}
        self._rows: list[dict] = []
        if self._record.exists() or self.file.exists():
            self._resume()

    @property
    def _record(self) -> Path:
        return record_file(self.file)

    def _resume(self) -> None:
        try:
            record = record_of(self.file)
            found, columns = record["configuration"], record["columns"]
            self.sources, self.finished = record["sources"], record["conditions"]
            if self.finished:
                content = self.file.read_bytes()
                content = gzip.decompress(content) if self._packed else content
                rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
                self._rows = [row for row in rows if row["condition"] in self.finished]
        except (OSError, EOFError, zlib.error, ValueError, KeyError) as error:
            raise OtherConfiguration(
                f"{self.file} cannot be gone on with, because it or {self._record.name} beside it "
                f"is missing or damaged ({error}): move both away, or write to another file."
            ) from None
        differences = [
            f"{key} is {there} there and {here} here"
            for key, there, here in _differences(found, self.configuration)
        ]
        if columns != self.columns:
            differences.append("the columns are others")
        if differences:
            raise OtherConfiguration(
                f"{self.file} holds results of another configuration: {'; '.join(differences)}. "
                "Write to another file, or delete it to start again."
            )

    def begin(self, source: dict) -> None:
        """Note where the conditions to come are measured (see `provenance`); NotWritten if it
        cannot be written down, so that nothing is measured in vain."""
        self.sources.append(source)
        self._write_record({})

    def holds(self, condition: str, weights: str | None) -> bool:
        """Whether a condition is finished; OtherConfiguration if it was with other weights."""
        if condition not in self.finished:
            return False
        if (there := self.finished[condition]["weights"]) != weights:
            raise OtherConfiguration(
                f"{self.file} holds {condition} measured with other weights ({there} there and "
                f"{weights} here): write to another file, or delete it to start again."
            )
        return True

    def add(self, condition: str, rows: Iterable[dict], record: dict) -> None:
        """Put a finished condition on the disk: its rows, floats to DIGITS significant digits, and
        what is known about their making.

        `record` says at least which "weights" were measured (a hash, or None for random ones).
        Raises NotWritten if it fails; what was finished before is then unharmed.
        """
        rows = [{"condition": condition, **_rounded(row)} for row in rows]
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows + rows)
        content = text.getvalue().encode()
        # Without a time stamp, so that the same table is the same file.
        self._replace(self.file, gzip.compress(content, mtime=0) if self._packed else content)
        self._write_record({condition: {"source": len(self.sources) - 1, **record}})
        self._rows += rows

    def table(self) -> pd.DataFrame:
        """Return all finished conditions, floats exactly as they are in the file."""
        if not self.finished:
            return pd.DataFrame(columns=self.columns)
        return pd.read_csv(self.file, engine="python")  # the others may round the last digit

    def _write_record(self, added: dict) -> None:
        record = {
            "configuration": self.configuration,
            "columns": self.columns,
            "sources": self.sources,
            "conditions": self.finished | added,
        }
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        self._replace(self._record, text.encode())
        self.finished |= added

    def _replace(self, file: Path, content: bytes) -> None:
        """Write to a temporary file and rename it: an interruption leaves the old or the new."""
        temporary = file.with_name(file.name + ".tmp")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, file)
        except OSError as error:
            raise NotWritten(
                f"{file} could not be written ({error.strerror}); the conditions finished before "
                f"({len(self.finished)}) are intact there, and the same command goes on from them "
                "once it can write."
            ) from None


def _rounded(row: dict) -> dict:
    return {
        name: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
        for name, value in row.items()
    }


def _differences(there: dict, here: dict, path: str = "") -> Iterator[tuple[str, object, object]]:
    """Each setting that differs, as (its dotted name, its value there, its value here)."""
    for key in sorted({*there, *here}):
        one, other, name = there.get(key), here.get(key), f"{path}{key}"
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{name}.")
        elif one != other:
            yield name, one, other


def counted(n: int, one: str, many: str | None = None) -> str:
    """How many there are, in words: "1 image", "2 images"."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


@dataclass
class Summary:
    """How a job ended: what is in the file, what failed and why, which images were damaged."""

    file: Path
    finished: int
    measured: int
    failed: dict[str, str]
    damaged: list[str]

    @property
    def status(self) -> int:
        """The exit status: 0, 1 if a condition failed, 3 if damaged images were left out."""
        return 1 if self.failed else 3 if self.damaged else 0

    def __str__(self) -> str:
        conditions = counted(self.finished, "condition")
        parts = [f"{self.file} holds {conditions}, {self.measured} new."]
        if self.damaged:
            shown = ", ".join(self.damaged[:5]) + (", …" if len(self.damaged) > 5 else "")
            parts.append(f"Left out: {counted(len(self.damaged), 'damaged image')}, {shown}.")
        parts += [f"{name} failed: {why}" for name, why in self.failed.items()]
        return "\n".join(parts)
