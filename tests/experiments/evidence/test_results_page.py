"""The page of recorded results: what it says of slopes, and that its tables are these."""

import io
import json
import math
import runpy
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
from helpers.tables import by_criterion, found, jitter, layer, profile, write

from experiments.engine import results
from experiments.engine.results import RESULTS, file_of
from experiments.evidence import claims
from experiments.evidence.recorded import HALF, LOST
from experiments.evidence.results_page import GROUPS as SHOWN
from experiments.evidence.results_page import (
    OF_ATTENTION,
    OF_CNNS,
    answer,
    slopes_of,
    values_of,
    written,
)
from experiments.training.groups import GROUPS
from utils.models.architectures import Spec

N, KEPT = "necessity N, probability", "effect, top kept at 1%, probability"
LOGARITHM = "log₂ of what is lost with 1 % kept"


@pytest.mark.parametrize(
    ("slope", "low", "high", "word"),
    [
        (0.05, 0.01, 0.09, "rises"),
        (-0.05, -0.09, -0.01, "falls"),
        (0.001, -0.02, 0.025, "level"),
        (0.05, -0.01, 0.11, "undecided"),
        (0.0, -0.01, 0.031, "undecided"),
        (math.nan, math.nan, math.nan, "–"),
    ],
)
def test_a_slope_is_answered_by_its_interval(slope, low, high, word):
    assert answer({"slope": slope, "low": low, "high": high}, 0.03) == word


def test_a_level_slope_is_one_that_the_claims_would_not_look_for():
    deltas = {
        each.name: each.rule.delta
        for name in ("hu4", "hu5", "hu6")
        for each in claims.BY_ID[name].criteria
    }
    assert OF_ATTENTION["N"][2] == OF_CNNS["N"][2] == deltas["N"]
    assert OF_ATTENTION[LOGARITHM][2] == deltas[LOST]
    assert OF_CNNS["log₂ f₅₀⁺"][2] == deltas[HALF]


def sweep(group, slope, scatter=0.002, rung="", quantity=N, **setting):
    """Networks of a sweep, of which a number grows so much a doubling; of that of six layers and
    four heads, which several sweeps have in common, it is .4."""
    for name in GROUPS[group].members():
        spec = Spec.parse(name)
        size = math.log2(spec.depth / 6 if "depth" in group else spec.heads / 4)
        value = 0.4 + slope * size + scatter * jitter(name)
        yield profile(rung + name, quantity, value, **setting)


def lines(text):
    """(what varies, measure) → the other cells of the page's first table."""
    rows = [row.strip("| ").split(" | ") for row in text.splitlines() if row.startswith("| ")]
    first = rows[1 : 1 + 3 * len(SHOWN)]
    return {
        (varied, measure): SimpleNamespace(objects=o, others=v, equal=e, photographs=c)
        for varied, measure, o, v, e, c in first
    }


def page(folder):
    return lines(written(folder)["README.md"])


def test_the_page_says_of_each_sweep_whether_it_rises_falls_is_level_or_undecided(tmp_path):
    write(tmp_path, "ablation-depth-all", list(sweep("depth", 0.1)))
    write(tmp_path, "ablation-heads-all", [*sweep("heads", -0.1), *sweep("width", 0.0)])
    cnns = [
        row
        for scope in ("1/3", "2/3", "last")
        for row in sweep("cnn-depth", 0.02, 0.2, unit="group", scope=scope, by="mean")
    ]
    write(tmp_path, "ablation-cnn", cnns)
    found = {
        varied: cells.objects
        for (varied, measure), cells in page(tmp_path).items()
        if measure == "N"
    }
    assert {varied: text.partition(":")[0] for varied, text in found.items()} == {
        SHOWN["depth"]: "rises",
        SHOWN["heads"]: "falls",
        SHOWN["width"]: "level",
        SHOWN["cnn-depth"]: "undecided",
        SHOWN["decoupled"]: "–",
    }


def test_numbers_of_the_page_are_those_that_claims_are_judged_by(tmp_path):
    write(
        tmp_path, "ablation-depth-all", [*sweep("depth", 0.1), *sweep("depth", 0.05, quantity=KEPT)]
    )
    shown = page(tmp_path)
    for measure, criterion in (("N", "N"), (LOGARITHM, LOST)):
        line = by_criterion(found("hu4", tmp_path)).loc[(criterion, "main")]
        numbers = f"{line.estimate:+.3f} [{line.low:+.3f}, {line.high:+.3f}]"
        assert shown[SHOWN["depth"], measure].objects.endswith(f": {numbers}")


def test_a_sweep_waits_for_each_of_its_designs(tmp_path):
    rows = [row for row in sweep("depth", 0.1) if "d12" not in row["model"]]
    write(tmp_path, "ablation-depth-all", rows)
    assert page(tmp_path)[SHOWN["depth"], "N"].objects == "–"


def test_what_else_takes_the_place_of_what_is_removed_is_told_in_a_word(tmp_path):
    rows = [*sweep("depth", 0.1), *sweep("depth", -0.1, by="zero"), *sweep("depth", 0.0, by="mean")]
    rows += sweep("depth", 0.2, ordered_by="centre")  # another order is no other value
    write(tmp_path, "ablation-depth-all", rows)
    cells = page(tmp_path)[SHOWN["depth"], "N"]
    assert cells.objects.startswith("rises: +0.")
    assert cells.others == "zero falls, mean level"
    assert cells.equal == "–"


def test_equal_loss_is_the_lowest_that_all_networks_of_that_sweep_reached(tmp_path):
    both = (N, "necessity N")  # by which it is known who is ablated
    late = [name for name in GROUPS["heads"].members() if name != "vit-d6-h16-s2"]
    for group, slope, loss in (
        ("depth", 0.1, None),
        ("depth", -0.1, 0.6),
        ("heads", 0.1, None),
        ("heads", 0.1, 0.6),
        ("heads", -0.1, 0.9),
    ):
        rows = [row for quantity in both for row in sweep(group, slope, quantity=quantity)]
        if (group, loss) == ("heads", 0.6):
            rows = [row for row in rows if row["model"] in late]
        file = file_of(f"ablation-{group}-all", "objects", loss, tmp_path)
        file.parent.mkdir(exist_ok=True)
        pd.DataFrame(rows).to_csv(file, index=False)
    shown = page(tmp_path)
    assert shown[SHOWN["depth"], "N"].equal == "falls"
    assert shown[SHOWN["heads"], "N"].equal == "falls"


def test_photographs_have_a_column_of_their_own_where_a_sweep_is_declared(tmp_path):
    for experiment, group in (("ablation-depth-all", "depth"), ("ablation-heads-all", "decoupled")):
        write(tmp_path, experiment, list(sweep(group, 0.1, rung="cifar10/")), "cifar10")
    shown = page(tmp_path)
    assert shown[SHOWN["depth"], "N"].photographs.startswith("rises: +0.")
    assert shown[SHOWN["depth"], "N"].objects == "–"
    assert shown[SHOWN["decoupled"], "N"].photographs == "–"


def test_every_number_is_in_the_values_and_every_slope_of_trained_networks_in_the_slopes(tmp_path):
    rows = [*sweep("depth", 0.1), *sweep("depth", 0.2, ordered_by="centre")]
    write(tmp_path, "ablation-depth-all", rows)
    maps = [
        layer(name, "gini", 0.7, weights)
        for name in GROUPS["depth"].members()
        for weights in ("trained", "random")
    ]
    write(tmp_path, "sparseness", maps)
    text = written(tmp_path)
    values, slopes = (pd.read_csv(io.StringIO(text[name])) for name in ("values.csv", "slopes.csv"))
    assert set(values["rung"]) == set(slopes["rung"]) == {"objects"}
    of_ablation = values[values["measure"] == "N, probability"]
    assert of_ablation["order"].value_counts().to_dict() == {"own": 15, "centre": 15}
    assert not values.duplicated([c for c in values if c != "value"]).any()
    assert set(values["weights"]) == {"trained", "random"}
    assert set(slopes["weights"]) == {"trained"}
    assert len(values) == len(values_of("objects", tmp_path))
    assert len(slopes) == len(slopes_of("objects", values_of("objects", tmp_path)))


def recorded(folder, name, conditions, configuration):
    """A table and its record of conditions that took two seconds each, and of two commits."""
    file = file_of(name, "objects", out=folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([{"model": "made-up"}]).to_csv(file, index=False)
    record = {
        "configuration": configuration,
        "sources": [{"commit": "b" * 7}, {"commit": "a" * 7}],
        "conditions": {c: {"seconds": 2.0, "source": i % 2} for i, c in enumerate(conditions)},
    }
    results.record_file(file).write_text(json.dumps(record), encoding="utf-8")


def test_each_table_has_a_line_that_says_of_what_it_is(tmp_path):
    conditions = ("made-up trained", "made-up random weights", "another trained")
    recorded(tmp_path, "hu2023", conditions, {"n": 50, "data": "objects/test"})
    recorded(tmp_path, "convolution", ["9 heads"], {})
    text = written(tmp_path)["README.md"]
    name = "objects/hu2023.csv.gz"
    assert f"| [{name}]({name}) | 3 | 2 | 50 of objects/test | 6 | aaaaaaa, bbbbbbb |" in text
    assert "| [convolution.csv](convolution.csv) | 1 | – | – | 2 | bbbbbbb |" in text


def test_with_nothing_recorded_the_page_says_so_and_the_tables_are_empty(tmp_path):
    text = written(tmp_path)
    shown = lines(text["README.md"])
    assert len(shown) == 3 * len(SHOWN)
    assert {cell for cells in shown.values() for cell in vars(cells).values()} == {"–"}
    assert text["values.csv"].strip() == text["slopes.csv"].strip() == ""


def test_the_command_writes_the_page_and_both_tables(tmp_path, monkeypatch):
    write(tmp_path, "ablation-depth-all", list(sweep("depth", 0.1)))
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    monkeypatch.delitem(sys.modules, "experiments.evidence.results_page")
    runpy.run_module("experiments.evidence.results_page", run_name="__main__")
    for name, text in written(tmp_path).items():
        assert (tmp_path / name).read_text(encoding="utf-8") == text


@pytest.mark.slow
@pytest.mark.skipif(not (RESULTS / "values.csv").exists(), reason="the page is not written yet")
def test_the_page_is_of_these_tables():
    for name, text in written().items():
        assert (RESULTS / name).read_text(encoding="utf-8") == text, (
            "Write it again: python -m experiments.evidence.results_page"
        )
