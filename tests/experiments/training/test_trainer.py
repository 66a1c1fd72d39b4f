"""Training: learns, resumes exactly, keeps what it promises, and says what went wrong."""

import json
import math
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch

from experiments.engine.files import NotWritten
from experiments.training import trainer
from experiments.training.recipes import LOSS_LEVELS, VIEWS, Recipe, recipe_of
from experiments.training.trainer import accuracy, batches, publish, train
from experiments.training.views import Fixed
from utils.models import zoo
from utils.models.architectures import Spec, build, forward_flops
from utils.models.checkpoints import CheckpointError


def weights(run):
    return safetensors.torch.load_file(run / "final.safetensors")


def interrupt_in_epoch(monkeypatch, epoch):
    """Ctrl-C as an epoch begins, counted from 0."""

    def interrupted(images, spec, current, size):
        if current == epoch:
            raise KeyboardInterrupt
        return batches(images, spec, current, size)

    monkeypatch.setattr(trainer, "batches", interrupted)


# The order of images.


def test_an_epoch_shows_every_image_once():
    rows = torch.cat(list(batches(1000, Spec.parse("vit-d1-h2"), 0, 128)))
    assert torch.equal(rows.sort().values, torch.arange(1000))


def test_batches_depend_on_seed_and_epoch_only():
    def first(name, epoch):
        return next(batches(1000, Spec.parse(name), epoch, 16)).tolist()

    assert first("vit-d1-h2", 0) == first("resnet-d8", 0)
    assert first("vit-d1-h2", 0) != first("vit-d1-h2", 1)
    assert first("vit-d1-h2", 0) != first("vit-d1-h2-s1", 0)


def test_a_tenth_of_the_data_is_shown_ten_times_as_often():
    rows = torch.cat(list(batches(1000, Spec.parse("vit-d1-h2-n10"), 0, 128)))
    assert torch.equal(rows.bincount(), torch.full((100,), 10))


# The recipe.


def test_learning_rate_warms_up_to_its_peak_and_ends_at_zero():
    recipe = recipe_of(Spec.parse("vit-d6-h4"))
    assert recipe.lr_at(recipe.warmup / 2) == recipe.lr / 2
    assert recipe.lr_at(recipe.warmup) == recipe.lr
    assert recipe.lr_at(recipe.epochs) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("cosine", "half_way"), [(True, 0.5), (False, 0.5)])
def test_between_warm_up_and_descent_the_rate_is_constant(cosine, half_way):
    recipe = Recipe("adamw", 0.1, 0, epochs=10, warmup=1, descent=4, cosine=cosine)
    assert [recipe.lr_at(epoch) for epoch in (1, 3.5, 6)] == [0.1, 0.1, 0.1]
    assert recipe.lr_at(8) == pytest.approx(0.1 * half_way)
    assert recipe.lr_at(9) == pytest.approx(0.1 * (0.5 - math.sqrt(0.125) if cosine else 0.25))
    assert [recipe.is_constant(epoch) for epoch in (0.9, 1, 6, 6.1)] == [False, True, True, False]


@pytest.mark.parametrize("rung", ["", "cifar10/"])
def test_on_a_rung_all_transformers_are_trained_alike_and_so_are_all_cnns(rung):
    kinds = ("vit-d6-h4", "hybrid-d6-h4", "mixer-d6"), ("resnet-d20", "plain-d20", "late-d26-w24")
    transformers, cnns = ([recipe_of(Spec.parse(rung + name)) for name in names] for names in kinds)
    assert len(set(transformers)) == len(set(cnns)) == 1
    assert transformers[0] != cnns[0]


def test_photographs_are_seen_more_often_than_objects():
    for name in ("vit-d6-h4", "resnet-d20"):
        objects, photographs = (
            recipe_of(spec).epochs * VIEWS[spec.rung]
            for spec in (Spec.parse(name), Spec.parse(f"cifar10/{name}"))
        )
        assert photographs > objects


def test_networks_of_objects_branch_off_where_they_are_compared_at_equal_loss():
    for name in ("vit-d6-h4", "resnet-d20"):
        recipe = recipe_of(Spec.parse(name))
        assert recipe.branches
        assert set(recipe.branches) <= set(LOSS_LEVELS)


def test_phases_that_do_not_fit_into_the_epochs_are_refused():
    with pytest.raises(ValueError, match=r"descent of 1\.6 do not fit into 1: set epochs, warmup"):
        replace(recipe_of(Spec.parse("vit-d6-h4")), epochs=1)
    with pytest.raises(ValueError, match="a descent of 0 do not fit"):
        Recipe("adamw", 0.1, 0, descent=0)


def test_muon_is_refused_for_a_model_without_blocks():
    with pytest.raises(ValueError, match=r"nmuon is for the blocks .* SmallResNet has none"):
        trainer._optimizer(build(Spec.parse("resnet-d8-w16")), Recipe("nmuon", 0.02, 0.0))


def test_muon_takes_the_matrices_but_the_classifier_and_nothing_else():
    model = build(Spec.parse("vit-d2-h2-w8"))
    recipe = Recipe("nmuon", 0.02, 0.0, fallback=0.05)
    muon, others = trainer._optimizer(model, recipe).param_groups
    each = 3 + 1 + 2  # queries, keys and values, the projection, the layers of the MLP
    assert len(muon["params"]) == 2 * each + 1  # and the embedding of patches
    assert len(muon["params"]) + len(others["params"]) == len(list(model.parameters())) + 2 * 2
    assert others["use_fallback"]
    assert others["fallback_lr_scale"] == 0.05


def test_muon_makes_queries_keys_and_values_orthogonal_each_by_itself():
    torch.manual_seed(0)
    model = build(Spec.parse("vit-d1-h2-w16"))
    optimizer = trainer._optimizer(model, Recipe("nmuon", 0.5, 0.0))
    weight = model.blocks[0].attn.qkv.weight
    for _ in range(2):  # the gradient of the first step must not be in that of the second
        before = weight.detach().clone()
        weight.grad = torch.randn_like(weight)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter is not weight else weight.grad
        optimizer.step()
        optimizer.zero_grad()
        assert weight.grad is None
        for update in ((weight.detach() - before) / 0.5).chunk(3):
            values = torch.linalg.svdvals(update)  # Newton and Schulz end between .7 and 1.2
            assert values.min() > 0.6
            assert values.max() < 1.3


# Measuring.


def test_flops_of_a_vit_are_those_of_its_matrix_products():
    width, tokens, depth = 64, 65, 2
    products = tokens * 12 * width**2 + 2 * tokens**2 * width  # one layer
    patches = 64 * 48 * width
    expected = 2 * (depth * products + patches + 10 * width)
    assert forward_flops(build(Spec.parse("vit-d2-h4"))) == expected


def test_accuracy_is_the_share_of_right_answers():
    images, labels = torch.eye(10)[torch.arange(1200) % 10], torch.arange(1200) % 10
    labels[:300] = (labels[:300] + 1) % 10
    identity = torch.nn.Linear(10, 10, bias=False)
    torch.nn.init.eye_(identity.weight)
    assert accuracy(identity, images, labels) == 0.75


def test_accuracy_without_images_is_refused():
    model = build(Spec.parse("vit-d1-h2-w8"))
    with pytest.raises(ValueError, match="no images to measure"):
        accuracy(model, torch.rand(0, 3, 32, 32), torch.zeros(0, dtype=torch.int64))


# Training.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit-d1-h2-w8", "resnet-d8-w16"])
def test_a_tiny_model_learns(name, tiny_data, tiny_recipe, tmp_path):
    run = train(name, tiny_data, tiny_data, replace(tiny_recipe, epochs=8, descent=7.5), tmp_path)
    record = json.loads((run / "record.json").read_text(encoding="utf-8"))
    losses = [point["train_loss"] for point in record["curve"]]
    assert len(losses) == 8 * trainer.ROUNDS
    assert losses[-1] < losses[0] - 0.3
    assert record["curve"][-1]["epoch"] == 8
    assert record["views"] == 8 * 300
    assert record["training_flops"] == 3 * record["flops"] * 2400
    assert {"recipe", "seconds", "device", "versions", "commit", "params"} <= record.keys()
    assert record["images_sha256"] == tiny_data.digest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "optimizer"),
    [("vit-d1-h2-w8", "adamw"), ("vit-d1-h2-w8", "nmuon"), ("resnet-d8-w16", "sgd")],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    name, optimizer, tiny_data, tiny_recipe, tmp_path, monkeypatch
):
    tiny_recipe = replace(tiny_recipe, optimizer=optimizer)
    through = train(name, tiny_data, tiny_data, tiny_recipe, tmp_path / "a")
    with monkeypatch.context() as patched:
        interrupt_in_epoch(patched, 1)
        with pytest.raises(
            KeyboardInterrupt, match=rf"Training of {name} .* 5 rounds of 15 are safe in .*{name}"
        ):
            train(name, tiny_data, tiny_data, tiny_recipe, tmp_path / "b")
    resumed = train(name, tiny_data, tiny_data, tiny_recipe, tmp_path / "b")
    states = [torch.load(run / "state.pt", weights_only=True) for run in (through, resumed)]
    for key, value in states[0]["model"].items():
        assert torch.equal(value, states[1]["model"][key])
    assert states[0]["progress"]["curve"] == states[1]["progress"]["curve"]


def test_a_finished_run_is_not_trained_again(tiny_data, tiny_recipe, tmp_path):
    run = train("vit-d1-h2-w8", tiny_data, tiny_data, tiny_recipe, tmp_path)
    before = {file.name: file.stat().st_mtime_ns for file in run.glob("*.*")}
    assert train("vit-d1-h2-w8", tiny_data, tiny_data, tiny_recipe, tmp_path) == run
    assert {file.name: file.stat().st_mtime_ns for file in run.glob("*.*")} == before


def test_a_branch_is_a_run_that_descends_from_where_the_loss_crossed_its_level(
    tiny_data, tiny_recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr(trainer, "LOSS_HORIZON", 10)
    steps = 10  # of an epoch
    branching = replace(
        tiny_recipe,
        epochs=8,
        descent=2,
        cosine=False,
        branches=(2.25, 0.01),
        branch=0.5,
    )
    run = train("vit-d1-h2-w8", tiny_data, tiny_data, branching, tmp_path / "a")
    record = json.loads((run / "record.json").read_text(encoding="utf-8"))
    assert list(record["branches"]) == ["2.25"]  # the other is never reached
    branch = record["branches"]["2.25"]
    content = (run / "loss-2.25.safetensors").read_bytes()
    assert sha256(content).hexdigest() == branch["sha256"]
    straight = branching.straight(branch["epoch"])
    assert (straight.descent, straight.epochs) == (0.5, branch["epoch"] + 0.5)
    assert round(branch["epoch"] * steps) > steps * branching.warmup
    other = weights(train("vit-d1-h2-w8", tiny_data, tiny_data, straight, tmp_path / "b"))
    kept = safetensors.torch.load(content)
    assert kept.keys() == other.keys()
    assert all(torch.equal(kept[key], other[key]) for key in kept)
    assert not torch.equal(kept["head.weight"], weights(run)["head.weight"])


def test_training_with_another_recipe_or_other_images_needs_another_folder(
    tiny_data, tiny_recipe, tmp_path
):
    train("vit-d1-h2-w8", tiny_data, tiny_data, tiny_recipe, tmp_path)
    other = Fixed(tiny_data.images / 2, tiny_data.labels)
    for images, recipe in ((tiny_data, replace(tiny_recipe, lr=1e-3)), (other, tiny_recipe)):
        with pytest.raises(ValueError, match="begun with another recipe or other images; delete"):
            train("vit-d1-h2-w8", images, tiny_data, recipe, tmp_path)


def test_a_model_is_trained_by_one_process_at_a_time(tiny_data, tiny_recipe, tmp_path):
    (tmp_path / "vit-d1-h2-w8").mkdir()
    with (
        trainer.alone(tmp_path / "vit-d1-h2-w8" / "lock", "held"),
        pytest.raises(BlockingIOError, match="vit-d1-h2-w8 is being trained by another process"),
    ):
        train("vit-d1-h2-w8", tiny_data, tiny_data, tiny_recipe, tmp_path)
    assert not (tmp_path / "vit-d1-h2-w8" / "state.pt").exists()


@pytest.mark.parametrize("split", ["training", "validation"])
def test_an_empty_set_is_named(split, tiny_data, tiny_recipe, tmp_path):
    empty = Fixed(tiny_data.images[:0], tiny_data.labels[:0])
    sets = (empty, tiny_data) if split == "training" else (tiny_data, empty)
    with pytest.raises(ValueError, match=f"The {split} set for vit-d1-h2-w8 is empty"):
        train("vit-d1-h2-w8", *sets, tiny_recipe, tmp_path)


def test_a_loss_that_is_not_finite_stops_training(tiny_data, tiny_recipe, tmp_path):
    broken = Fixed(tiny_data.images * math.nan, tiny_data.labels)
    with pytest.raises(FloatingPointError, match=r"became nan in step 1; .* than 0\.01"):
        train("vit-d1-h2-w8", broken, tiny_data, tiny_recipe, tmp_path)


# Damaged files and full disks.


def _cut(file):
    file.write_bytes(file.read_bytes()[:-500])


DAMAGE = {
    "empty": lambda file: file.write_bytes(b""),
    "cut": _cut,
    "foreign": lambda file: file.write_bytes(pickle.dumps(SimpleNamespace(a=1), protocol=2)),
    "junk": lambda file: file.write_bytes(b"junk, and no state"),
    "page": lambda file: file.write_text("<html>", encoding="utf-8"),
    "folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_state_is_said_in_one_sentence_and_kept(damage, tiny_data, tiny_recipe, tmp_path):
    folder = tmp_path / "vit-d1-h2-w8"
    folder.mkdir()
    torch.save({"begun_with": {}}, folder / "state.pt")
    DAMAGE[damage](folder / "state.pt")
    with pytest.raises(ValueError, match=r"state\.pt is damaged: .* to train again\.$") as error:
        train("vit-d1-h2-w8", tiny_data, tiny_data, tiny_recipe, tmp_path)
    assert "\n" not in str(error.value)
    assert (folder / "state.pt").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("name", ["state.pt", "record.json"])
def test_a_full_disk_is_said_in_one_sentence_and_training_goes_on_from_what_there_is(
    name, tiny_data, tiny_recipe, tmp_path
):
    folder = tmp_path / "vit-d1-h2-w8"
    folder.mkdir()
    full = folder / f"{name}.tmp"
    full.symlink_to("/dev/full")
    with pytest.raises(
        NotWritten, match=rf"{name} could not be written \(.*\); .* goes on"
    ) as error:
        train("vit-d1-h2-w8", tiny_data, tiny_data, tiny_recipe, tmp_path)
    assert "\n" not in str(error.value)
    full.unlink(missing_ok=True)
    resumed = train("vit-d1-h2-w8", tiny_data, tiny_data, tiny_recipe, tmp_path)
    through = train("vit-d1-h2-w8", tiny_data, tiny_data, tiny_recipe, tmp_path / "through")
    assert all(torch.equal(w, weights(through)[key]) for key, w in weights(resumed).items())


# Publishing.


def test_a_published_accuracy_is_that_of_the_stored_weights(
    tiny_data, tiny_recipe, tmp_path, monkeypatch
):
    run = train("resnet-d8-w16", tiny_data, tiny_data, tiny_recipe, tmp_path)
    published = publish(run, tiny_data, tmp_path / "zoo")
    monkeypatch.setattr(zoo, "FOLDER", tmp_path / "zoo")
    assert accuracy(zoo.load("resnet-d8-w16"), tiny_data.images, tiny_data.labels) == published
    assert zoo.catalog("objects")["accuracy"].tolist() == [published]


def test_publishing_keeps_the_other_models_and_is_repeatable(tiny_data, tiny_recipe, tmp_path):
    one, two = (
        train(name, tiny_data, tiny_data, tiny_recipe, tmp_path)
        for name in ("vit-d1-h2-w8", "vit-d1-h1-w8")
    )
    publish(one, tiny_data, tmp_path / "zoo")
    publish(two, tiny_data, tmp_path / "zoo")
    first = (tmp_path / "zoo" / "manifest.json").read_bytes()
    publish(one, tiny_data, tmp_path / "zoo")
    assert (tmp_path / "zoo" / "manifest.json").read_bytes() == first
    assert list(json.loads(first)) == ["vit-d1-h1-w8", "vit-d1-h2-w8"]


def test_an_unfinished_run_cannot_be_published(tiny_data, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no finished training \(record\.json is missing"):
        publish(tmp_path, tiny_data, tmp_path)


def test_publishers_at_the_same_time_all_find_their_place_in_the_manifest(
    tiny_data, tiny_recipe, tmp_path
):
    names = ["vit-d1-h1-w8", "vit-d1-h2-w8", "vit-d1-h4-w8", "resnet-d8-w16"]
    short = replace(tiny_recipe, epochs=1, descent=0.5)
    runs = [train(name, tiny_data, tiny_data, short, tmp_path) for name in names]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda run: publish(run, tiny_data, tmp_path / "zoo"), runs * 4))
    assert sorted(zoo.manifest(tmp_path / "zoo")) == sorted(names)
    kept = {file.name for file in (tmp_path / "zoo").iterdir()}
    assert kept == {"manifest.json", *(f"{name}.safetensors" for name in names)}


def test_a_publisher_that_another_one_keeps_out_says_so(
    tiny_data, tiny_recipe, tmp_path, monkeypatch
):
    monkeypatch.setattr(trainer, "PATIENCE", 0.1)
    run = train("vit-d1-h2-w8", tiny_data, tiny_data, tiny_recipe, tmp_path)
    (tmp_path / "zoo").mkdir()
    with (
        trainer.alone(tmp_path / "zoo" / "lock", "held"),
        pytest.raises(
            BlockingIOError, match=r"zoo is being written .*: publish vit-d1-h2-w8 again"
        ),
    ):
        publish(run, tiny_data, tmp_path / "zoo")
    assert not (tmp_path / "zoo" / "manifest.json").exists()


def test_weights_of_another_model_are_not_published(tiny_data, tiny_recipe, tmp_path):
    run = train("vit-d1-h2-w8", tiny_data, tiny_data, tiny_recipe, tmp_path)
    other = build(Spec.parse("vit-d1-h2-w16")).state_dict()
    safetensors.torch.save_file(other, run / "final.safetensors")
    with pytest.raises(CheckpointError, match=r"no weights for this model .* train it again\.$"):
        publish(run, tiny_data, tmp_path / "zoo")
    assert not (tmp_path / "zoo" / "manifest.json").exists()
