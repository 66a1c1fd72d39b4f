"""What the second edition's experiments ask is what its rules are judged from."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = """
import json
from experiments import catalogue
from experiments.catalogue import EXPERIMENTS
from experiments.evidence import rules, second

def settings(*names):
    found = [s for name in names for s in EXPERIMENTS[name].settings]
    return [dict(s, ordered_by=s.get("ordered_by", "own")) for s in found]

alone = EXPERIMENTS["similarity"].twins(["vit-d6-h4-s1"])
print(json.dumps({
    "twins": catalogue.TWINS == rules.TWINS and catalogue.ENOUGH == rules.IMAGES,
    "attention": second.ATTENTION | {"ordered_by": "own"} in settings("ablation-depth-all"),
    "grid": second.ATTENTION | {"ordered_by": "own"} in settings("ablation-heads-all"),
    "neurons": [s["scope"] for s in settings("ablation-cnn")
                if second.IN_GROUPS.items() <= s.items() and s["ordered_by"] == "own"],
    "once": all(len(e.settings) == len({tuple(s.items()) for s in e.settings})
                for e in EXPERIMENTS.values() if not isinstance(e.settings, dict)),
    "alone": alone,
    "tenths": len([p for p in EXPERIMENTS["pairs"].pairs if p[0].startswith("vit-d6-h4-n10")]),
}))
"""


@pytest.fixture(scope="module")
def asked():
    environment = os.environ | {"SEEING_SPARSELY_EDITION": "2"}
    command = [sys.executable, "-c", QUESTIONS]
    out = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, env=environment, encoding="utf-8"
    )
    assert not out.returncode, out.stderr
    return json.loads(out.stdout)


def test_the_primary_settings_of_the_rules_are_recorded(asked):
    assert asked["attention"]
    assert asked["grid"]
    assert asked["neurons"] == ["1/3", "2/3", "last"]
    assert asked["once"]  # no condition twice


def test_there_are_as_many_twins_and_images_as_the_rules_ask_for(asked):
    assert asked["twins"]
    assert sorted(asked["alone"]) == ["vit-d6-h4", *(f"vit-d6-h4-s{i}" for i in range(1, 5))]


def test_each_seed_of_a_tenth_of_the_data_has_both_others_of_all_of_it(asked):
    assert asked["tenths"] == 3 * 2
