"""Models as they were when their loss first fell below a level: which weights are measured."""

import hashlib

import pandas as pd
import pytest
import safetensors.torch
import torch

from experiments import catalogue
from experiments import replicate as replicating
from experiments.engine.job import FromFile
from experiments.engine.ranks import Ranks
from experiments.engine.results import file_of, record_of
from experiments.replicate import replicate
from experiments.training import groups
from utils.models import zoo
from utils.stimuli import datasets
from utils.stimuli.minibatches import Dataset

NAME, LOSS = "vit-d1-h2-w8", 2.0


def weights(answer, file):
    """A network that always gives one answer, with marked weights, in a file."""
    state = zoo.architecture(NAME).state_dict()
    state["head.bias"] = 100.0 * torch.eye(10)[answer]
    file.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(state, file)
    return state


def test_the_weights_are_those_of_the_checkpoint_and_not_of_the_end(tmp_path):
    state = weights(3, tmp_path / "early.safetensors")
    condition = FromFile(NAME, file=tmp_path / "early.safetensors")
    model = condition.load()
    assert not model.training
    assert all(torch.equal(x, state[name]) for name, x in model.state_dict().items())
    assert model(torch.rand(5, 3, 32, 32)).argmax(-1).tolist() == [3] * 5
    content = (tmp_path / "early.safetensors").read_bytes()
    assert condition.weights == hashlib.sha256(content).hexdigest()[:12]


@pytest.fixture
def trained(monkeypatch, tmp_path):
    """A network that answered 3 on its way and answers 5 in the end, and forty labelled images."""
    weights(3, tmp_path / "runs" / NAME / f"loss-{LOSS}.safetensors")
    weights(5, tmp_path / "zoo" / "final.safetensors")
    entry = {"file": "final.safetensors", "sha256": "5" * 64}
    monkeypatch.setattr(zoo, "FOLDER", tmp_path / "zoo")
    monkeypatch.setattr(zoo, "manifest", lambda: {NAME: entry})
    labels = torch.tensor([3, 3, 3, 5, 0, 1, 2, 4] * 5)
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(len(labels), 3, 32, 32, generator=generator)
    classes = tuple(map(str, range(10)))
    data = Dataset("objects/test", labels, classes, images.__getitem__)
    monkeypatch.setattr(datasets, "load", lambda *arguments, **options: data)
    monkeypatch.setitem(groups.GROUPS, "one", groups.Group("one network", (NAME,), seeds=1))
    asked = catalogue.Experiment(
        "How accurate?", "measure", dict(measures=["accuracy"]), n=40, groups=("one",)
    )
    monkeypatch.setitem(replicating.EXPERIMENTS, "one", asked)
    return tmp_path


def test_a_comparison_at_equal_loss_measures_the_checkpoint_and_says_so(trained):
    runs, out = trained / "runs", trained / "out"
    file = file_of("one", "objects", LOSS, out)
    summary, later = replicate("one", "objects", Ranks(), loss=LOSS, runs=runs, out=out)
    assert (summary.file, summary.failed, later) == (file, {}, [])
    table = pd.read_csv(file).set_index("quantity")
    assert table.loc["accuracy", "value"] == 3 / 8  # of the images, those of class 3
    record = record_of(file)
    assert record["configuration"]["loss"] == LOSS
    (condition,) = record["conditions"].values()
    checkpoint = runs / NAME / f"loss-{LOSS}.safetensors"
    assert condition["weights"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()[:12]


def test_a_run_without_that_checkpoint_is_left_for_later(trained):
    where = dict(runs=trained / "runs", out=trained / "out")
    assert replicate("one", "objects", Ranks(), loss=0.5, **where) == (None, [NAME])
