"""From nothing to a slope with an interval, by the commands that make the book's results."""

import json

import pandas as pd
import pytest
import torch

from experiments import catalogue
from experiments import replicate as replicating
from experiments.__main__ import main
from experiments.engine.results import file_of, record_of
from experiments.evidence import trends
from experiments.evidence.table import evidence
from experiments.training import groups, queue
from experiments.training.views import Fixed
from utils.models import zoo

NAMES = ("vit-d1-h2-w8", "vit-d2-h2-w8")
EXPERIMENT = catalogue.Experiment(
    "Do two tiny models attend sparsely, and does it grow with depth?",
    "measure",
    dict(measures=["accuracy", "attention"]),
    n=60,
    groups=("tiny",),
    random=1,
)


@pytest.fixture
def tiny_project(monkeypatch, tmp_path):
    """A group of two models with two seeds, one experiment, 300 images, and nothing trained."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (300,), generator=generator)
    noise = 0.1 * torch.rand(300, 3, 32, 32, generator=generator)
    images = Fixed(labels.view(-1, 1, 1, 1) / 10 + noise, labels)
    monkeypatch.setattr(queue, "splits", lambda rung: queue.Splits(*[images] * 3, "dots"))
    monkeypatch.setattr(zoo, "FOLDER", tmp_path / "zoo")
    monkeypatch.setattr(zoo, "RUNS", tmp_path / "runs")
    group = groups.Group("layers of a tiny ViT", NAMES, seeds=2)
    for known in (groups.GROUPS, catalogue.GROUPS, trends.GROUPS):
        monkeypatch.setitem(known, "tiny", group)
    monkeypatch.setitem(trends.SWEEPS, "tiny", "depth")
    for known in (catalogue.EXPERIMENTS, replicating.EXPERIMENTS, trends.EXPERIMENTS):
        monkeypatch.setitem(known, "tiny", EXPERIMENT)
    return tmp_path


def train(folder, *arguments):
    run = ["train", *arguments, "--set", "epochs=2", "descent=1.5", "--out", str(folder / "runs")]
    return main(run)


def replicate(folder, *arguments):
    return main(["replicate", "tiny", "--out", str(folder / "results"), *arguments])


@pytest.mark.slow
def test_models_are_trained_measured_and_reported_as_they_come(tiny_project, capsys):
    assert train(tiny_project, *NAMES) == 0
    assert replicate(tiny_project) == 0
    said = capsys.readouterr().out
    assert "holds 4 conditions, 4 new." in said  # two models, trained and with random weights
    assert "left for later, not at hand: vit-d1-h2-w8-s1, vit-d2-h2-w8-s1." in said

    assert train(tiny_project, "--group", "tiny") == 0  # what is missing, and nothing else
    assert "Trained: vit-d1-h2-w8-s1, vit-d2-h2-w8-s1." in capsys.readouterr().out
    assert train(tiny_project, "--group", "tiny") == 0
    assert "Nothing is missing." in capsys.readouterr().out
    assert replicate(tiny_project) == 0
    assert "holds 8 conditions, 4 new." in capsys.readouterr().out

    file = file_of("tiny", "objects", out=tiny_project / "results")
    table = pd.read_csv(file)
    assert set(table["model"]) == set(groups.GROUPS["tiny"].members())
    record = record_of(file)
    assert record["configuration"]["n"] == 60
    weights = {name: entry["sha256"][:12] for name, entry in zoo.manifest().items()}
    recorded = {key.split(" ")[0]: c["weights"] for key, c in record["conditions"].items()
                if key.endswith(" trained")}  # fmt: skip
    assert recorded == weights

    found = trends.trends("objects", out=tiny_project / "results")
    (slope,) = found[
        (found["measure"] == "Gini, per head")
        & (found["scope"] == "all")
        & (found["weights"] == "trained")
    ].to_dict("records")
    assert (slope["group"], slope["varied"], slope["models"]) == ("tiny", "depth", 4)
    ginis = table[(table["quantity"] == "gini") & (table["weights"] == "trained")]
    means = ginis.groupby("model")["value"].mean()
    by_hand = means[means.index.str.contains("-d2-")].mean()
    by_hand -= means[means.index.str.contains("-d1-")].mean()
    assert slope["slope"] == pytest.approx(by_hand)  # one doubling
    assert slope["low"] < slope["slope"] < slope["high"]
    assert evidence(tiny_project / "results").empty  # no claim is about these models


def test_weights_that_changed_are_not_mixed_into_a_table(tiny_project, capsys):
    assert train(tiny_project, NAMES[0]) == 0
    assert replicate(tiny_project) == 0
    entry = json.loads((tiny_project / "zoo/manifest.json").read_text(encoding="utf-8"))
    entry[NAMES[0]]["sha256"] = "0" * 64
    (tiny_project / "zoo/manifest.json").write_text(json.dumps(entry), encoding="utf-8")
    assert replicate(tiny_project) == 1
    assert NAMES[0] in capsys.readouterr().err
    (tiny_project / "zoo/manifest.json").write_text("{}", encoding="utf-8")
    assert replicate(tiny_project) == 0  # what is recorded already is not waited for
    assert "not at hand: vit-d2-h2-w8, vit-d1-h2-w8-s1" in capsys.readouterr().out


def test_a_run_that_has_passed_a_loss_but_is_not_finished_is_left_for_later(tiny_project, capsys):
    passed = tiny_project / "runs" / NAMES[0] / "loss-2.0.safetensors"
    passed.parent.mkdir(parents=True)
    passed.touch()
    assert replicate(tiny_project, "--loss", "2.0", "--runs", str(tiny_project / "runs")) == 0
    assert f"not at hand: {NAMES[0]}, {NAMES[1]}" in capsys.readouterr().out


def test_what_is_recorded_and_what_is_missing_is_told(tiny_project, capsys):
    assert main(["train", "--status"]) == 0
    assert "missing: vit-d1-h2-w8, vit-d2-h2-w8, vit-d1-h2-w8-s1" in capsys.readouterr().out
    assert replicate(tiny_project, "--status") == 0
    said = capsys.readouterr().out
    assert f"tiny: 0 of 8 conditions recorded. {EXPERIMENT.asks}" in said
    assert "to train first: vit-d1-h2-w8, vit-d2-h2-w8" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["replicate", "tinny"], "no experiment 'tinny'; there are accuracy"),
        (["replicate", "cue-conflict", "--rung", "cifar10"], "no models on the rung cifar10"),
        (["replicate", "tiny", "--loss", "0.7"], "No weights are kept at a loss of 0.7 nats"),
        (["replicate", "tiny", "--data", "photographs"], "rung objects has images of its own"),
        (["train", "vit-d6-h5"], "5 heads do not divide width 64"),
        (["train", "vit6"], "vit6"),
    ],
)
def test_bad_input_is_answered_by_one_sentence(tiny_project, arguments, sentence, capsys):
    assert main([*arguments, "--out", str(tiny_project / "out")]) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1
