import json

import matplotlib.pyplot as plt
import pytest

from experiments.evidence import captions


def test_a_recorded_figure_says_where_its_numbers_come_from(monkeypatch, tmp_path):
    monkeypatch.setattr(captions, "RESULTS", tmp_path)
    record = {
        "configuration": {"data": "objects/test", "n": 100},
        "sources": [{"device": "cpu (1 threads)", "commit": "0123456789ab"}] * 2,
        "conditions": {
            "vit-d6-h4 trained": {},
            "vit-d6-h4-s1 trained": {},
            "vit-d6-h4-s4 random": {},  # a further seed of random weights is no trained network
        },
    }
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "sparseness.json").write_text(json.dumps(record), encoding="utf-8")
    fig, _ = plt.subplots()
    captions.face(fig, "sparseness", "accuracy", note="dashed: random weights")
    assert fig.get_supxlabel().split("\n") == [
        "dashed: random weights",
        "Recorded on the rung objects",
        "sparseness: 100 images, seeds 0, 1, cpu (1 thread), 0123456",
        "accuracy: not yet recorded",
        "python -m experiments replicate sparseness accuracy",
    ]


def test_a_figure_counts_commits_that_are_too_many_to_list(monkeypatch, tmp_path):
    monkeypatch.setattr(captions, "RESULTS", tmp_path)
    record = {
        "configuration": {"data": "objects/test", "n": 9},
        "sources": [{"device": "cpu", "commit": f"{i}" * 12} for i in (0, 1, 2, 3, 0)],
        "conditions": {"vit-d6-h4-s1 trained": {}},
    }
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "sparseness.json").write_text(json.dumps(record), encoding="utf-8")
    assert "9 images, seed 1, cpu, 4 commits" in captions.source("sparseness").split("\n")[1]


def test_a_figure_of_curves_says_on_how_many_images_these_are(monkeypatch, tmp_path):
    monkeypatch.setattr(captions, "RESULTS", tmp_path)
    record = {
        "configuration": {"data": "objects/test", "n": 10_000, "images": 200},
        "sources": [{"device": "cpu", "commit": "0" * 12}],
        "conditions": {"vit-d6-h4 trained": {}},
    }
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "accuracy.json").write_text(json.dumps(record), encoding="utf-8")
    assert captions.source("accuracy").split("\n")[1].startswith("accuracy: 200 images")


def test_the_command_of_photographs_asks_for_their_folder_where_they_are_not_the_books():
    said = " ".join(captions.source("accuracy", rung="imagenet").split())  # lines are wrapped
    assert said.endswith(
        "python -m experiments replicate accuracy --rung imagenet --data photographs/"
    )
    assert "--data" not in captions.source("cue-conflict", rung="imagenet")


def test_an_unknown_experiment_is_refused():
    with pytest.raises(KeyError, match="no experiment 'sparsness'; there are accuracy"):
        captions.source("sparsness")
