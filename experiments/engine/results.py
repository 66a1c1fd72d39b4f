"""A job on disk: one tidy .csv or .csv.gz, and one .json that says where its numbers came from.

Both are whole after every condition. The table is written first and the .json, which lists the
finished conditions with the hash of their rows, second: rows that it does not vouch for were cut
short, and are measured again.
"""

import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import pandas as pd

from experiments.engine.files import NotWritten, alone, replace
from utils.fetching import at_hand, folder

RESULTS = folder("results")
RUNGLESS = ("v1", "convolution")  # experiments that need no models and no images
DIGITS = 8  # significant: more than single precision, in which models are run, can tell apart
IMAGES = "images_sha256"  # in a configuration: the data set's digest
ROWS = "rows_sha256"  # of a condition; records of before have neither
SHAPE = {"configuration": dict, "columns": list, "sources": list, "conditions": dict}


class OtherConfiguration(ValueError):
    """The file holds results that were measured in another way."""


def table_file(file: Path) -> Path:
    """The table that a name means: `.csv` is added, nothing is cut, and `.csv.gz` stays.

    Raises ValueError for what is no name of a file.
    """
    if file.name in ("", ".."):
        raise ValueError(f"{file} names a folder: give a file in it, such as {file / 'table.csv'}.")
    return file if file.name.endswith((".csv", ".csv.gz")) else file.with_name(f"{file.name}.csv")


def record_file(file: Path) -> Path:
    """The .json that vouches for a table, .csv or packed as .csv.gz."""
    return file.with_name(file.name.removesuffix(".gz")).with_suffix(".json")


def record_of(file: Path) -> dict:
    """What the .json next to a table says: configuration, columns, sources and conditions.

    Raises FileNotFoundError where there is none, and ValueError where it is no such record.
    """
    file = record_file(file)
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        _check(record)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{file} is no record of results ({error}): put back a sound copy of it and its table, "
            "or write to another file."
        ) from None
    return record


def _check(record) -> None:
    """ValueError, with a clause, for what no Results can have written; lenient about what lacks."""
    if not isinstance(record, dict):
        raise ValueError("it is not an object with names")
    for key, kind in SHAPE.items():
        if not isinstance(record.get(key, kind()), kind):
            raise ValueError(f"its {key} are no {kind.__name__}")
    if "conditions" not in record:
        raise ValueError("it has no conditions")
    for name, condition in record["conditions"].items():
        if not isinstance(condition, dict):
            raise ValueError(f"what it says of {name} is no dict")


def file_of(name: str, rung: str, loss: float | None = None, out: Path = RESULTS) -> Path:
    """Where the table of an experiment is, or is to be."""
    at_loss = "" if loss is None else f"-loss-{loss}"
    file = out / f"{name}.csv" if name in RUNGLESS else out / rung / f"{name}{at_loss}.csv.gz"
    at_hand(record_file(file))
    return at_hand(file)


def with_apart(file: Path) -> list[Path]:
    """The table of an experiment, and those of the same name in folders next to it, which each hold
    a model that was measured apart, with weights from a file or on images of its own; those that
    are there."""
    stem = record_file(file).stem
    apart = sorted(file.parent.glob(f"*/{stem}.csv.gz"))
    return [each for each in (file, *apart) if each.exists()]


def recorded(file: Path) -> dict[str, dict]:
    """The conditions that a table holds, and what its record says of each; empty where it is none.

    Raises ValueError for a damaged record.
    """
    return record_of(file)["conditions"] if record_file(file).exists() else {}


def finished(file: Path) -> Counter[str]:
    """How many conditions of each model (or part) a table holds, with those of models apart; raises
    what `recorded` raises."""
    files = dict.fromkeys([file, *with_apart(file)])
    return Counter(condition.split(" ")[0] for each in files for condition in recorded(each))


class Results:
    """A table of results that grows by one condition at a time and can be gone on with.

    file : the table, see `table_file`; the .json of the same name lies next to it
    columns : of the table, after the first, which names the condition
    configuration : what all its conditions have in common and what decides their numbers, ready for
        JSON; a file that was begun with another one is refused

    Reads at once and writes from `begin` until `close`, or until nobody holds it any more; nobody
    else writes meanwhile.
    Raises OtherConfiguration with the differences named, or where table and .json do not belong
    together.
    """

    def __init__(self, file: Path, columns: Iterable[str], configuration: dict) -> None:
        self.file = table_file(Path(file))
        self.columns = ["condition", *columns]
        self.configuration = json.loads(json.dumps(configuration))
        self._held = ExitStack()
        self._resume()

    @property
    def _record(self) -> Path:
        return record_file(self.file)

    @property
    def _packed(self) -> bool:
        return self.file.name.endswith(".gz")

    def _resume(self) -> None:
        self.sources: list[dict] = []
        self.finished: dict[str, dict] = {}
        self._old = False  # written when records did not vouch for images and rows
        self._lines = _lines(self.columns, [dict(zip(self.columns, self.columns, strict=True))])
        if not self._record.exists() and not self.file.exists():
            return
        try:
            record = record_of(self.file)
            self.sources, self.finished = record["sources"], record["conditions"]
            self._old = any(ROWS not in condition for condition in self.finished.values())
            self._refuse_another(record)
            if self.finished:
                self._read()
        except OtherConfiguration:
            raise
        except (OSError, EOFError, zlib.error, ValueError, KeyError, csv.Error) as error:
            reason = f"{error.strerror}" if isinstance(error, OSError) else error
            raise OtherConfiguration(
                f"{self.file} cannot be gone on with, because it or {self._record.name} next to it "
                f"is missing or damaged ({reason}): move both away, or write to another file."
            ) from None

    def _refuse_another(self, record: dict) -> None:
        differences = [
            f"{key} is {there} there and {here} here"
            for key, there, here in _differences(record["configuration"], self.configuration)
            if not (key == IMAGES and there is None and self._old)
        ]
        if record["columns"] != self.columns:
            differences.append("the columns are others")
        if differences:
            raise OtherConfiguration(
                f"{self.file} holds results of another configuration: {'; '.join(differences)}. "
                "Write to another file, or move it and its .json away to start again."
            )

    def _read(self) -> None:
        """The rows of what is finished, as they were written; ValueError where they are not."""
        content = self.file.read_bytes()
        content = gzip.decompress(content) if self._packed else content
        table = csv.DictReader(io.StringIO(content.decode(), newline=""))
        if table.fieldnames != self.columns:
            raise ValueError("the columns of the table are not those of the record")
        rows: dict[str, list[dict]] = {name: [] for name in self.finished}
        for row in table:
            if row["condition"] in rows:
                rows[row["condition"]].append(row)
        for name, condition in self.finished.items():
            if not {"weights", "damaged"} <= condition.keys():
                raise ValueError(f"what the record says of {name} is cut short")
            lines = _lines(self.columns, rows[name])
            if ROWS in condition and condition[ROWS] != _hash(lines):
                raise ValueError(f"the rows of {name} are not those that were measured")
            self._lines += lines

    def begin(self, source: dict) -> None:
        """Keep other writers out, read what they have added, and note where the conditions to come
        are measured (see `provenance`).

        Raises BlockingIOError while another process writes, OtherConfiguration, and NotWritten if
        it cannot be written, so that nothing is measured in vain.
        """
        busy = f"{self.file} is being written by another command: wait for it, or write to another."
        lock = self._record.with_name(f".{self._record.stem}.lock")
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            self._held.enter_context(alone(lock, busy))
        except BlockingIOError:
            raise
        except OSError as error:
            raise NotWritten(
                f"{self._record} could not be written ({error.strerror}): choose another place."
            ) from None
        self._resume()
        if self._old:
            raise OtherConfiguration(
                f"{self.file} was recorded when records did not say which images and rows they are "
                "of, so that nothing can be added to it: write to another file."
            )
        self.sources.append(source)
        self._write_record({})

    def close(self) -> None:
        """Let others write."""
        self._held.close()

    def holds(self, condition: str, weights: str | None) -> bool:
        """Whether a condition is finished; OtherConfiguration if it was with other weights, or
        another recording.

        weights : as in its record; None for random ones, and for those that are not on this machine
        """
        if condition not in self.finished:
            return False
        there = self.finished[condition]["weights"]
        unknown = weights is None or (there is None and self._old)
        if there != weights and not unknown:
            raise OtherConfiguration(
                f"{self.file} holds {condition} measured with other weights or recordings ({there} "
                f"there and {weights} here): write to another file, or move it and its .json "
                "away to start again."
            )
        return True

    def add(self, condition: str, rows: Iterable[dict], record: dict) -> None:
        """Put a finished condition on the disk: its rows, floats to DIGITS significant digits, and
        what is known about their making.

        `record` says at least which "weights" were measured (a hash, of recordings too, or None for
        random ones) and which images were "damaged". Raises NotWritten if it fails; what was
        finished before is then unharmed.
        """
        rows = [{"condition": condition, **_rounded(row)} for row in rows]
        lines = _lines(self.columns, rows)
        content = (self._lines + lines).encode()
        # Without a time stamp, so that the same table is the same file.
        self._replace(self.file, gzip.compress(content, mtime=0) if self._packed else content)
        source, vouched = len(self.sources) - 1, {"rows": len(rows), ROWS: _hash(lines)}
        self._write_record({condition: {"source": source, **record, **vouched}})
        self._lines += lines

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
        # A file name that is no text in the system's encoding becomes an escape of JSON.
        self._replace(self._record, text.encode(errors="backslashreplace"))
        self.finished |= added

    def _replace(self, file: Path, content: bytes) -> None:
        safe = (
            f"the conditions finished before ({len(self.finished)}) are intact there, and the same "
            "command goes on from them once it can write"
        )
        replace(file, lambda temporary: temporary.write_bytes(content), safe)


def _lines(columns: list[str], rows: Iterable[dict]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, columns, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _hash(lines: str) -> str:
    return sha256(lines.encode()).hexdigest()


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


def sentence(error: BaseException) -> str:
    """What an error says, as one line that ends; with its type where it is no sentence of ours."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}."
    text = next(iter(str(error).strip().splitlines()), "")
    return text if text.endswith(".") else f"{text} ({type(error).__name__})."


def shorten(name: str, most: int = 80) -> str:
    """A name as sentences show it."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


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
        """The exit status, 0, 1 if a condition failed, 3 if damaged images were left out."""
        return 1 if self.failed else 3 if self.damaged else 0

    def __str__(self) -> str:
        conditions = counted(self.finished, "condition")
        parts = [f"{self.file} holds {conditions}, {self.measured} new."]
        if self.damaged:
            shown = ", ".join(self.damaged[:5]) + (", …" if len(self.damaged) > 5 else "")
            parts.append(f"Left out: {counted(len(self.damaged), 'damaged image')}, {shown}.")
        parts += [f"{shorten(name)} failed: {why}" for name, why in self.failed.items()]
        return "\n".join(parts)
