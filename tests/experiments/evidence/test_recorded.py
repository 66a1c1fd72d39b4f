"""The recorded tables: of the weights in the zoo, and the same when they are measured again."""

import pandas as pd
import pytest

from experiments.__main__ import main
from experiments.engine.results import RESULTS, file_of, record_of
from utils.models import zoo

# One of each kind: the command of which the table holds the same rows.
AGAIN = {
    "sparseness": "measure vit-d6-h4 --measures accuracy attention activation -n 1000",
    "similarity": "measure vit-d6-h4 --measures distance cka -n 1000",
    "vit-and-cnn": "ablate vit-d6-h4 --unit contribution --scope last --value mean -n 200"
    " --ranks 9 --draws 2",
    "representation": "represent vit-d6-h4 -n 500",
    "cue-conflict": "behave vit-d6-h4 --data objects/cue-conflict --measures conflict -n 900",
}


def test_recorded_models_have_the_weights_that_are_in_the_zoo():
    known = {name: entry["sha256"][:12] for name, entry in zoo.manifest().items()}
    recorded = {
        (name.split(" ")[0], condition["weights"])
        for file in (RESULTS / "objects").rglob("*.json")
        if file.stem != "pairs" and "-loss-" not in file.stem
        for name, condition in record_of(file)["conditions"].items()
        if " trained" in name
    }
    if not recorded:
        pytest.skip("Nothing is recorded yet.")
    assert {pair for pair in recorded if known[pair[0]] != pair[1]} == set()


@pytest.mark.slow
@pytest.mark.parametrize("experiment", AGAIN)
def test_what_is_measured_again_agrees_within_half_its_interval(experiment, tmp_path):
    if not file_of(experiment, "objects").exists():
        pytest.skip(f"{experiment} is not recorded yet.")
    assert main([*AGAIN[experiment].split(), "--out", str(tmp_path / "again.csv")]) == 0
    again, recorded = (
        pd.read_csv(file) for file in (tmp_path / "again.csv", file_of(experiment, "objects"))
    )
    recorded = recorded[recorded["condition"].isin(again["condition"])]
    measured = ("value", "sd", "se", "low", "high", "n", "undefined", "note")
    keys = [c for c in again if c not in measured]
    both = recorded.merge(again, on=keys, suffixes=("", "_again"), validate="one_to_one")
    # Measures that came later have rows that the table lacks.
    assert len(both) == len(recorded) > 0, (
        f"{experiment} measures other rows than are recorded: move its tables and their .json away "
        f"and record it again, with `python -m experiments replicate {experiment}`."
    )
    half = (both["high"] - both["low"]) / 4 if "high" in both else 1.96 * both["se"] / 2
    # Numbers without an interval are compared with each other.
    allowed = half.where(half > 0).fillna(1e-3 * both["value"].abs() + 1e-6)
    apart = (both["value"] - both["value_again"]).abs()
    assert both["value"].isna().equals(both["value_again"].isna())
    assert (apart.dropna() <= allowed[apart.notna()]).all()
