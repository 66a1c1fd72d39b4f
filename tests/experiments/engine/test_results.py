import csv
import json
import os

import pandas as pd
import pytest

from experiments.engine.results import NotWritten, OtherConfiguration, Results

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
