"""The page of recorded results: what it says of a slope, and that its tables are these."""

import math
from types import SimpleNamespace

import pandas as pd
import pytest

from experiments.engine.results import RESULTS
from experiments.evidence import claims
from experiments.evidence.results_page import LEVEL, answer, page
from experiments.tasks import textures
from utils.models import zoo
from utils.stimuli import objects


@pytest.mark.parametrize(
    ("slope", "low", "high", "words"),
    [
        (0.05, 0.01, 0.09, "rises"),
        (-0.05, -0.09, -0.01, "falls"),
        (0.001, -0.02, 0.025, "level"),
        (0.05, -0.01, 0.11, "undecided; 0.080 would have been found"),
        (0.0, -0.01, 0.031, "undecided; 0.080 would have been found"),
        (math.nan, math.nan, math.nan, "no line: too few models with a value"),
    ],
)
def test_a_slope_is_answered_by_its_interval(slope, low, high, words):
    assert answer(SimpleNamespace(slope=slope, low=low, high=high, detectable=0.08)) == words


def test_a_level_slope_is_one_that_the_claims_would_not_look_for():
    for claim in ("hu4", "hu5", "hu6"):
        assert {c.rule.delta for c in claims.BY_ID[claim].criteria} == {LEVEL}


def test_the_page_sets_the_texture_of_the_faulty_region_apart(tmp_path):
    assert "texture" not in page(tmp_path)
    file = tmp_path / textures.FILE
    file.parent.mkdir()
    share = {"validation": (0.5, 0.9, 0.8), "test": (0.1, 0.7, 0.4)}
    rows = [
        {"model": "made-up", "split": split, "texture": name, "value": value, "n": n}
        for split, values in share.items()
        for name, value, n in zip(("cell", "brick", "fur"), values, (10, 10, 20), strict=True)
    ]
    pd.DataFrame(rows).to_csv(file, index=False)
    assert "| made-up | 50.0 | 83.3 | 75.0 | 10.0 | 50.0 | 40.0 |" in page(tmp_path)


def test_a_texture_is_recorded_with_its_share_of_right_answers_and_its_pictures(tmp_path):
    file = textures.record(tmp_path, ("resnet-d8",), n=40)
    table = pd.read_csv(file)
    assert file == tmp_path / textures.FILE
    assert len(table) == 2 * len(objects.TEXTURES)
    shown = objects.load("test", n=40)
    right = zoo.load("resnet-d8")(shown.images).argmax(-1) == shown.labels
    own = table[table["split"] == "test"].set_index("texture")
    for number, name in enumerate(objects.TEXTURES):
        here = right[shown.texture == number].double()
        assert own.loc[name, "n"] == len(here)
        assert len(here) == 0 or own.loc[name, "value"] == pytest.approx(here.mean().item())
    textures.record(tmp_path, ("resnet-d8",), n=40)  # goes on from what is there
    assert len(pd.read_csv(file)) == len(table)


@pytest.mark.slow
def test_the_page_is_of_these_tables():
    assert (RESULTS / "README.md").read_text(encoding="utf-8") == page(), (
        "Write it again: python -m experiments.evidence.results_page"
    )
