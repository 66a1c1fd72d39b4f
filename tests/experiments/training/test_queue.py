"""The queue trains what is missing, survives a failure, and says what it could not do."""

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from helpers.trainings import meet

from experiments.training import queue, trainer
from utils.models import zoo


@pytest.fixture
def small_zoo(monkeypatch, tiny_data, tmp_path):
    monkeypatch.setattr(queue, "splits", lambda rung: queue.Splits(*[tiny_data] * 3, "dots"))
    monkeypatch.setattr(zoo, "FOLDER", tmp_path / "zoo")
    return tmp_path


def test_every_model_is_published_as_soon_as_it_is_trained(small_zoo, tiny_recipe, monkeypatch):
    had = []

    def watched(name, *arguments):
        had.append(sorted(zoo.manifest()))
        return trainer.train(name, *arguments)

    monkeypatch.setattr(queue, "train", watched)
    names = ["vit-d1-h2-w8", "resnet-d8-w16"]
    assert queue.work(names, small_zoo / "runs", tiny_recipe) == {}
    assert had == [[], ["vit-d1-h2-w8"]]
    assert sorted(zoo.manifest()) == sorted(names)
    assert {entry["trained_on"] for entry in zoo.manifest().values()} == {"dots"}


def test_a_model_that_fails_does_not_stop_the_others(small_zoo, tiny_recipe, monkeypatch):
    def failing(name, *arguments):
        if name == "vit-d1-h1-w8":
            raise FloatingPointError("the loss became nan")
        return trainer.train(name, *arguments)

    monkeypatch.setattr(queue, "train", failing)
    names = ["vit-d1-h1-w8", "vit-d1-h2-w8"]
    failed = queue.work(names, small_zoo / "runs", replace(tiny_recipe, epochs=1, descent=0.5))
    assert failed == {"vit-d1-h1-w8": "the loss became nan"}
    assert list(zoo.manifest()) == ["vit-d1-h2-w8"]


def test_models_can_be_trained_without_going_into_the_zoo(small_zoo, tiny_recipe):
    queue.work(["vit-d1-h2-w8"], small_zoo / "runs", tiny_recipe, published=False)
    record = json.loads(
        (small_zoo / "runs" / "vit-d1-h2-w8" / "record.json").read_text(encoding="utf-8")
    )
    assert record["recipe"]["epochs"] == tiny_recipe.epochs
    assert zoo.manifest() == {}


def test_the_splits_of_a_rung_say_which_images_they_are(monkeypatch):
    def load(name):
        split = name.removeprefix("cifar10/")
        held = SimpleNamespace(images=split, labels=split)
        return SimpleNamespace(source=f"cifar10-jpeg/{split}", everything=lambda: held)

    monkeypatch.setattr(queue.datasets, "load", load)
    splits = queue.splits.__wrapped__("cifar10")  # past the cache
    assert [part.images for part in splits[:3]] == ["train", "validation", "test"]
    assert splits.source == "cifar10-jpeg"


def test_a_second_queue_goes_on_with_what_the_first_has_not_begun(small_zoo, tiny_recipe):
    (small_zoo / "runs" / "vit-d1-h1-w8").mkdir(parents=True)
    with trainer.alone(small_zoo / "runs" / "vit-d1-h1-w8" / "lock", "held"):
        failed = queue.work(["vit-d1-h1-w8", "vit-d1-h2-w8"], small_zoo / "runs", tiny_recipe)
    assert "being trained by another process" in failed["vit-d1-h1-w8"]
    assert list(zoo.manifest()) == ["vit-d1-h2-w8"]


@pytest.mark.slow
def test_workers_train_at_the_same_time_share_the_threads_and_outlive_a_failure(
    tmp_path, monkeypatch, capfd
):
    published = {}

    def publish(name, run):
        published[name] = run
        return 0.5

    monkeypatch.setattr(queue, "_train", meet)
    monkeypatch.setattr(queue, "put_into_zoo", publish)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    failed = queue.work(["first", "diverging", "last"], tmp_path, workers=2)
    assert failed == {"diverging": "the loss became nan"}
    assert "diverging failed: the loss became nan" in capfd.readouterr().err
    assert published == {name: tmp_path / name for name in ("first", "last")}
    notes = [json.loads(file.read_text(encoding="utf-8")) for file in tmp_path.glob("*/where.json")]
    processes = {process for process, _ in notes}
    assert len(notes) == 3
    assert len(processes) == 2
    assert os.getpid() not in processes
    assert {threads for _, threads in notes} == {3}
