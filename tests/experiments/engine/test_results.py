import csv
import hashlib
import json
import os
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest

from experiments.engine import files
from experiments.engine.results import (
    RESULTS,
    NotWritten,
    OtherConfiguration,
    Results,
    record_file,
    record_of,
)

CONFIGURATION = {"data": "objects", "n": 100, "measures": ["gini"]}
COLUMNS = ("model", "head", "value")
ROW = {"model": "a", "head": 3, "value": 0.1 + 0.25}


def begun(folder, **changes):
    results = Results(folder / "sweep.csv", COLUMNS, CONFIGURATION | changes)
    results.begin({"commit": "abc"})
    return results


def finish(results, *names):
    for name in names:
        results.add(name, [ROW], {"weights": "123", "seconds": 1.0, "damaged": []})


def test_a_table_keeps_eight_significant_digits_and_whole_numbers_whole(tmp_path):
    results = begun(tmp_path)
    values = [1 / 3, -2e-9 / 3, 123456.789012, float("nan"), float("inf")]
    results.add("a", [ROW | {"value": value} for value in values], {"weights": "1"})
    table = results.table()
    kept = [0.33333333, -6.6666667e-10, 123456.79, float("nan"), float("inf")]
    assert table["value"].tolist() == pytest.approx(kept, rel=0, abs=0, nan_ok=True)
    assert table["head"].tolist() == [3] * 5
    assert table["head"].dtype == "int64"


def test_finished_conditions_are_found_again_with_where_they_came_from(tmp_path):
    finish(begun(tmp_path), "a", "b")
    again = begun(tmp_path)
    assert again.holds("b", "123")
    assert not again.holds("c", None)
    finish(again, "c")
    assert again.table()["condition"].tolist() == ["a", "b", "c"]
    record = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    assert record["configuration"] == CONFIGURATION
    assert [entry["source"] for entry in record["conditions"].values()] == [0, 0, 1]


def test_rows_of_a_condition_that_was_cut_short_are_not_kept(tmp_path):
    finish(begun(tmp_path), "a")
    with (tmp_path / "sweep.csv").open("a", encoding="utf-8") as file:
        file.write("b,b,0,0.5\n")  # killed between the two files
    again = begun(tmp_path)
    finish(again, "b")
    assert again.table()["condition"].tolist() == ["a", "b"]
    assert again.table()["value"].tolist() == [ROW["value"]] * 2


def test_a_packed_table_is_gone_on_with_and_is_the_same_file_again(tmp_path):
    def packed(folder):
        results = Results(folder / "sweep-loss-0.8.csv.gz", COLUMNS, CONFIGURATION)
        results.begin({"commit": "abc"})
        return results

    finish(packed(tmp_path / "a"), "a")
    finish(packed(tmp_path / "a"), "b")
    finish(packed(tmp_path / "b"), "a", "b")
    names = ["sweep-loss-0.8.csv.gz", "sweep-loss-0.8.json"]
    assert sorted(file.name for file in (tmp_path / "a").iterdir()) == names
    one, two = (tmp_path / folder / names[0] for folder in "ab")
    assert one.read_bytes() == two.read_bytes()
    assert packed(tmp_path / "a").table()["condition"].tolist() == ["a", "b"]
    assert pd.read_csv(one)["value"].tolist() == [ROW["value"]] * 2
    one.write_bytes(one.read_bytes()[:40])
    with pytest.raises(OtherConfiguration, match="missing or damaged"):
        packed(tmp_path / "a")


def test_results_of_another_configuration_are_refused_with_the_difference(tmp_path):
    finish(begun(tmp_path), "a")
    before = (tmp_path / "sweep.json").read_text(encoding="utf-8")
    with pytest.raises(OtherConfiguration, match=r"configuration: n is 100 there and 50 here\. "):
        begun(tmp_path, n=50)
    with pytest.raises(OtherConfiguration, match="seed is None there and 1 here"):
        begun(tmp_path, seed=1)
    with pytest.raises(OtherConfiguration, match="the columns are others"):
        Results(tmp_path / "sweep.csv", ("model",), CONFIGURATION)
    assert (tmp_path / "sweep.json").read_text(encoding="utf-8") == before


def test_a_condition_of_other_weights_is_refused(tmp_path):
    finish(begun(tmp_path), "a")
    with pytest.raises(OtherConfiguration, match="holds a measured with other weights"):
        begun(tmp_path).holds("a", "456")


def test_a_table_without_its_record_and_a_record_without_its_table_are_refused(tmp_path):
    finish(begun(tmp_path), "a")
    record = (tmp_path / "sweep.json").read_text(encoding="utf-8")
    (tmp_path / "sweep.json").unlink()
    with pytest.raises(OtherConfiguration, match=r"sweep\.json next to it is missing"):
        begun(tmp_path)
    (tmp_path / "sweep.json").write_text(record, encoding="utf-8")
    (tmp_path / "sweep.csv").unlink()
    with pytest.raises(OtherConfiguration, match="missing or damaged"):
        begun(tmp_path)
    (tmp_path / "sweep.json").write_text("{", encoding="utf-8")
    with pytest.raises(OtherConfiguration, match="missing or damaged"):
        begun(tmp_path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("ending", ["csv", "json"])
def test_a_full_disk_leaves_the_finished_conditions(tmp_path, ending):
    results = begun(tmp_path)
    finish(results, "a")
    (tmp_path / f"sweep.{ending}.tmp").symlink_to("/dev/full")
    with pytest.raises(
        NotWritten, match=r"\(No space left on device\); .* before \(1\) are intact"
    ):
        finish(results, "b")
    (tmp_path / f"sweep.{ending}.tmp").unlink()
    results.close()
    again = begun(tmp_path)
    assert list(again.finished) == ["a"]
    finish(again, "b")
    with (tmp_path / "sweep.csv").open(encoding="utf-8") as lines:
        assert [row["condition"] for row in csv.DictReader(lines)] == ["a", "b"]


def test_a_folder_that_cannot_be_made_is_found_out_before_anything_is_measured(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(NotWritten, match=r"file/sweep\.json could not be written \(.*\): choose"):
        begun(tmp_path / "file")


# Interruptions and second writers.


class Killed(BaseException):
    """What a process does not survive."""


@contextmanager
def watched(happen):
    """Call `happen` before and after each step of writing a file, and in the middle of it."""

    def stepwise(step):
        def done(*arguments):
            happen()
            value = step(*arguments)
            happen()
            return value

        return done

    def written(file, content):
        for part in (content[: len(content) // 2], content):
            with open(file, "wb") as stream:
                stream.write(part)
            happen()

    with (
        patch.object(Path, "write_bytes", written),
        patch.object(files.os, "fsync", stepwise(os.fsync)),
        patch.object(files.os, "replace", stepwise(os.replace)),
    ):
        yield


def killed_at(step):
    """Die at a step, counted from 0."""
    steps = count()

    def happen():
        if next(steps) == step:
            raise Killed

    return happen


def rows_of(name):
    """What measuring a condition gives: it depends on nothing but the condition."""
    values = np.random.default_rng(ord(name)).normal(size=ord(name) % 3 + 1)
    return [{"model": name, "head": i, "value": v} for i, v in enumerate(values)]


def process(folder, names, happen=lambda: None):
    """One process that measures what is missing of these conditions, unless it dies."""
    with closing(Results(folder / "sweep.csv", COLUMNS, CONFIGURATION)) as results, watched(happen):
        if todo := [name for name in names if not results.holds(name, "1")]:
            results.begin({"commit": "abc"})
        for name in todo:
            results.add(name, rows_of(name), {"weights": "1", "damaged": []})


def on_disk(folder):
    """The table and, without where each condition was measured, its record."""
    record = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))
    for condition in record["conditions"].values():
        del condition["source"]
    del record["sources"]
    return (folder / "sweep.csv").read_bytes(), record


NAMES = "abcde"
STEPS = 11 * 6  # a table and a record are begun, then written for each condition: see `watched`


@pytest.mark.slow
def test_a_process_that_dies_at_any_step_leaves_what_the_next_one_completes(tmp_path):
    process(tmp_path / "whole", NAMES)
    whole = on_disk(tmp_path / "whole")
    random, died = np.random.default_rng(0), 0
    for step in range(STEPS):
        folder = tmp_path / str(step)
        for death in (step, *random.integers(0, STEPS, random.integers(3))):
            try:
                process(folder, NAMES, killed_at(death))
            except Killed:
                died += 1
        process(folder, NAMES)
        assert on_disk(folder) == whole, f"killed at step {step}"
        assert sorted(file.name for file in folder.iterdir()) == ["sweep.csv", "sweep.json"]
    assert died > STEPS


def test_a_second_writer_is_refused_at_every_step_and_changes_nothing(tmp_path):
    process(tmp_path / "whole", NAMES)
    folder, refused = tmp_path / "two", []

    def another():
        with patch.object(Results, "add", side_effect=AssertionError("it was let in")):
            second = Results(folder / "sweep.csv", COLUMNS, CONFIGURATION)
            try:
                second.begin({"commit": "other"})
            except BlockingIOError as error:
                refused.append(str(error))

    process(folder, NAMES, another)
    assert on_disk(folder) == on_disk(tmp_path / "whole")
    assert len(refused) >= STEPS
    assert {*refused} == {
        f"{folder}/sweep.csv is being written by another command: wait for it, or write to another."
    }


@pytest.mark.slow
def test_whatever_processes_write_in_turn_and_die_every_condition_is_there_once(tmp_path):
    random = np.random.default_rng(1)
    for trial in range(40):
        folder, asked = tmp_path / str(trial), set()
        for _ in range(random.integers(2, 6)):
            names = random.permutation(list("abcdefg"))[: random.integers(1, 5)]
            asked |= {*names}
            with suppress(Killed):
                process(folder, names, killed_at(random.integers(0, STEPS)))
        process(folder, sorted(asked))
        table = pd.read_csv(folder / "sweep.csv", engine="python")
        assert {*table["condition"]} == asked
        for name, found in table.groupby("condition"):
            expected = [float(f"{row['value']:.8g}") for row in rows_of(name)]
            assert found["value"].tolist() == expected
        assert {
            *json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["conditions"]
        } == asked


def test_a_file_that_was_added_to_since_it_was_opened_is_read_again(tmp_path):
    late = Results(tmp_path / "sweep.csv", COLUMNS, CONFIGURATION)
    process(tmp_path, "ab")
    with closing(late):
        late.begin({"commit": "abc"})
        assert late.holds("a", "1")
        late.add("c", rows_of("c"), {"weights": "1", "damaged": []})
    process(tmp_path / "whole", "abc")
    assert on_disk(tmp_path) == on_disk(tmp_path / "whole")


# Names, and what records vouch for.


@pytest.mark.parametrize(
    ("name", "table", "record"),
    [
        ("run", "run.csv", "run.json"),
        ("run.csv", "run.csv", "run.json"),
        ("run.csv.gz", "run.csv.gz", "run.json"),
        ("run-0.5", "run-0.5.csv", "run-0.5.json"),
        ("run.json", "run.json.csv", "run.json.json"),
    ],
)
def test_a_name_gets_an_ending_and_loses_nothing(tmp_path, name, table, record):
    results = Results(tmp_path / name, COLUMNS, CONFIGURATION)
    with closing(results):
        finish_one = {"weights": "1", "damaged": []}
        results.begin({})
        results.add("a", rows_of("a"), finish_one)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([table, record])


def test_a_record_has_the_number_and_the_hash_of_the_lines_of_each_condition(tmp_path):
    process(tmp_path, "ab")
    lines = (tmp_path / "sweep.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    conditions = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))["conditions"]
    for name, condition in conditions.items():
        own = [line for line in lines if line.startswith(f"{name},")]
        digest = hashlib.sha256("".join(own).encode()).hexdigest()
        assert (condition["rows"], condition["rows_sha256"]) == (len(own), digest)


def test_every_changed_byte_of_a_table_is_noticed(tmp_path):
    process(tmp_path, "ab")
    table = tmp_path / "sweep.csv"
    whole = table.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        table.write_bytes(bytes(changed))
        with pytest.raises(OtherConfiguration, match="cannot be gone on with"):
            Results(table, COLUMNS, CONFIGURATION)


def test_a_table_cut_anywhere_is_noticed(tmp_path):
    process(tmp_path, "ab")
    table = tmp_path / "sweep.csv"
    whole = table.read_bytes()
    for length in range(len(whole) - 1):  # without its last line feed it says the same
        table.write_bytes(whole[:length])
        with pytest.raises(OtherConfiguration, match="cannot be gone on with"):
            Results(table, COLUMNS, CONFIGURATION)


@pytest.mark.slow
def test_every_recorded_table_of_the_book_is_read_with_all_its_conditions():
    records = list(RESULTS.rglob("*.json"))
    assert len(records) > 10
    for file in records:
        table = next(t for t in file.parent.glob(f"{file.stem}.csv*") if record_file(t) == file)
        record = record_of(table)
        results = Results(table, record["columns"][1:], record["configuration"])
        assert list(results.finished) == list(record["conditions"])
