import json
import math
from collections import Counter

import pandas as pd
import pytest
import torch
from torch import nn

from experiments.__main__ import main
from experiments.catalogue import EXPERIMENTS, MIDDLE
from experiments.engine.job import Batches, opened
from experiments.engine.ranks import Ranks
from experiments.evidence import trends
from experiments.replicate import replicate
from experiments.tasks.behave import (
    EPSILONS,
    MEASURES,
    SHIFTS,
    Behave,
    Behaviour,
    blocks,
    people,
    rows,
    textures,
)
from utils.measures.behaviour import CATEGORIES, error_consistency
from utils.models import zoo
from utils.stimuli import datasets, objects, psychophysics
from utils.stimuli.minibatches import Dataset

CHANGES = [name for name in MEASURES if name != "conflict"]


class Toy(nn.Module):
    """A network whose logits are a function of images; it wants them as they are."""

    def __init__(self, logits, mean=0.0, sd=1.0):
        super().__init__()
        self.scale, self.logits = nn.Parameter(torch.ones(())), logits
        self.pretrained_cfg = dict(input_size=(3, 32, 32), mean=(mean,) * 3, std=(sd,) * 3)

    def forward(self, x):
        return self.scale * self.logits(x)


def red_or_blue(x):
    means = x.mean((-1, -2))
    return torch.stack([means[:, 0] - means[:, 2], means[:, 2] - means[:, 0]], 1)


def pictures(n=12, size=32):
    images = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))
    return images, torch.arange(n) % 2, torch.arange(n)


def found(model, minibatches, measures, classes=("a", "b"), textures=None):
    behaviour = Behaviour(model, measures, classes, textures=textures)
    for minibatch in minibatches:
        behaviour.update(*minibatch)
    return table(behaviour.counts, len(classes))


def table(counts, classes=2):
    return {(r["quantity"], r["kind"], r["level"]): r for r in rows(counts, classes)}


def test_what_depends_on_mean_colours_alone_is_unmoved_by_permutation():
    images, _, index = pictures(60)
    labels = red_or_blue(images).argmax(1)
    labels[:6] = 1 - labels[:6]
    rows = found(Toy(red_or_blue), [(images, labels, index)], ["permutation"])
    assert rows["accuracy", "clean", None]["value"] == 0.9
    for block in (8, 4, 2):
        assert rows["accuracy", "permutation", block]["value"] == 0.9
        kept = rows["kept_above_chance", "permutation", block]
        assert (kept["value"], kept["low"], kept["high"], kept["n"]) == (1, 1, 1, 60)


def test_a_bag_of_patches_is_unmoved_until_the_patches_are_cut():
    def bag(x):
        patches = x.unfold(-2, 4, 4).unfold(-2, 4, 4).flatten(-2)  # [n, 3, 8, 8, 16]
        edges = (patches[..., 0] - patches[..., 15]).square().mean((1, 2, 3))
        middle = (patches[..., 5] - patches[..., 10]).square().mean((1, 2, 3))
        return torch.stack([edges, middle], 1)

    images, _, index = pictures(60)
    rows = found(Toy(bag), [(images, bag(images).argmax(1), index)], ["permutation"])
    accuracies = [rows["accuracy", "permutation", block]["value"] for block in (8, 4, 2)]
    assert accuracies[:2] == [1, 1]
    assert accuracies[2] < 0.8


def test_tokens_have_as_many_pixels_as_those_of_the_models_of_that_size():
    assert blocks(32) == (8, 4, 2)
    assert blocks(224) == (32, 16, 8)
    assert zoo.create("vit-d2-h2").patch_embed.patch_size == (4, 4)


def test_what_does_not_depend_on_place_keeps_all_decisions_under_shifts():
    images, labels, index = pictures()
    images[:, :, 1:-1, 1:-1] = 0.5
    images[:] = images[:, :, :1, :1]  # of one colour: nothing comes in that was not there
    rows = found(Toy(red_or_blue), [(images, labels, index)], ["shift"])
    for distance in range(1, 9):
        kept = rows["consistency", "shift", distance]
        assert (kept["value"], kept["se"], kept["n"]) == (1, 0, 12)


def test_decisions_that_flip_in_one_of_four_directions_are_three_quarters_kept():
    def above_the_middle(x):
        bright = x[:, 0, 15].mean(-1)
        return torch.stack([bright, 1 - bright], 1)

    images = torch.zeros(3, 3, 32, 32)
    images[:, :, :16] = 1.0  # moved up by one pixel, row 15 turns dark
    rows = found(
        Toy(above_the_middle), [(images, torch.zeros(3).long(), torch.arange(3))], ["shift"]
    )
    assert rows["consistency", "shift", 1]["value"] == 0.75


def test_an_attack_flips_a_linear_network_where_epsilon_reaches_its_margin():
    # The mean difference of two colours moves by 2ε at most, so margins below that are flipped.
    images, _, index = pictures(200)
    margins = torch.linspace(-5, 5, 200) / 255
    images[:, 0] = 0.5
    images[:, 2] = 0.5 - margins[:, None, None]
    labels = red_or_blue(images).argmax(1)
    rows = found(Toy(red_or_blue), [(images, labels, index)], ["attack"])
    for epsilon in EPSILONS:
        safe = (margins.abs() > 2 * epsilon / 255).double().mean().item()
        assert rows["accuracy", "pgd", epsilon]["value"] == pytest.approx(safe, abs=0.006)
        assert rows["kept", "pgd", epsilon]["value"] == pytest.approx(safe, abs=0.006)


def test_corruptions_that_change_nothing_leave_the_clean_accuracy(monkeypatch):
    monkeypatch.setattr(psychophysics, "corrupt", lambda images, *_, **__: images)
    images, labels, index = pictures()
    rows = found(Toy(red_or_blue), [(images, labels, index)], ["corruption"])
    clean = rows["accuracy", "clean", None]
    kept = [row for (quantity, *_), row in rows.items() if quantity == "kept"]
    assert len(kept) == 7 * 5
    assert {row["value"] for row in kept} == {1.0}
    for (quantity, kind, _), row in rows.items():
        if quantity == "accuracy" and kind != "clean":
            assert (row["value"], row["low"], row["n"]) == (clean["value"], clean["low"], 12)


def test_accuracy_is_that_on_the_corrupted_images_of_the_same_seed_and_index():
    images, labels, index = pictures()
    rows = found(Toy(red_or_blue), [(images, labels, index + 30)], ["corruption"])
    changed = psychophysics.corrupt(images, "impulse", 5, 0, index + 30)
    expected = (red_or_blue(changed).argmax(1) == labels).double().mean().item()
    assert rows["accuracy", "impulse", 5]["value"] == pytest.approx(expected)


def test_changes_are_made_in_pixels_and_shown_as_the_model_wants_them():
    images, labels, index = pictures()
    plain = found(Toy(red_or_blue), [(images, labels, index)], CHANGES)
    model = Toy(lambda x: red_or_blue(0.2 * x + 0.4), 0.4, 0.2)
    normalised = found(model, [((images - 0.4) / 0.2, labels, index)], CHANGES)
    assert [r["value"] for r in normalised.values()] == pytest.approx(
        [r["value"] for r in plain.values()]
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit-d2-h2", "resnet-d8"])
def test_two_halves_together_are_the_whole(name):
    images, labels, index = pictures(8)
    model = zoo.create(name)
    parts = [slice(0, 4), slice(4, 8)]
    minibatches = [(images[part], labels[part], index[part]) for part in parts]
    whole = Behaviour(model, CHANGES, tuple("0123456789"))
    halves = [Behaviour(model, CHANGES, tuple("0123456789")) for _ in parts]
    for minibatch, half in zip(minibatches, halves, strict=True):
        whole.update(*minibatch)
        half.update(*minibatch)
    assert sum((half.counts for half in halves), Counter()) == whole.counts
    kinds = {kind for kind, _, _ in whole.counts}
    assert kinds == {*psychophysics.CORRUPTIONS, "clean", "pgd", "permutation", "shift"}
    assert len({(kind, level) for kind, level, _ in whole.counts}) == 35 + 1 + 3 + 6 + len(SHIFTS)


def test_who_goes_by_shape_has_a_shape_bias_of_one_and_texture_of_zero():
    shape, texture = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1, 2, 0, 2, 1])
    images = torch.rand(5, 3, 4, 4)

    def bias(decided):
        logits = torch.eye(4)[torch.tensor(decided)]
        minibatch = (images, shape, torch.arange(5))
        return found(Toy(lambda x: logits), [minibatch], ["conflict"], textures=texture)

    by_shape = bias([0, 1, 2, 0, 0])
    assert by_shape["shape_bias", "conflict", None]["value"] == 1
    assert by_shape["decided", "conflict", None]["n"] == 4  # the last is not in conflict
    assert bias([1, 2, 0, 2, 0])["shape_bias", "conflict", None]["value"] == 0
    mixed = bias([0, 1, 0, 3, 1])  # shape, shape, texture, neither
    assert mixed["shape_bias", "conflict", None]["value"] == pytest.approx(2 / 3)
    assert mixed["shape_bias", "conflict", None]["n"] == 3
    shares = [mixed[share, "conflict", None]["value"] for share in ("decided", "shape", "texture")]
    assert shares == [0.75, 0.5, 0.25]
    undecided = bias([3, 3, 3, 3, 3])
    assert math.isnan(undecided["shape_bias", "conflict", None]["value"])


def test_trials_that_people_saw_are_kept_to_compare_errors():
    shape, texture = torch.tensor([0, 1, 2, 0, 1, 1]), torch.tensor([1, 2, 0, 2, 1, 0])
    asked = torch.tensor([[1, 1, 0, 0, 0, 1], [1, 0, 0, 1, 1, 1]]).bool()
    logits = torch.eye(4)[torch.tensor([0, 1, 0, 3, 1, 1])]
    halves = []
    for part in (slice(0, 3), slice(3, 6)):
        model = Toy(lambda x, part=part: logits[part])
        half = Behaviour(model, ["conflict"], tuple("0123"), textures=texture, people=asked)
        half.update(torch.rand(3, 3, 4, 4), shape[part], torch.arange(6)[part])
        halves.append(half.counts)
    table = {(r["quantity"], r["kind"]): r for r in rows(sum(halves, Counter()), 4, asked)}
    own, others = (table["error_consistency", kind] for kind in ("conflict", "people"))
    in_conflict = [0, 1, 2, 3, 5]
    right = torch.tensor([True, True, False, False, True])
    kappas = [error_consistency(right, who[in_conflict]).kappa for who in asked]
    assert own["value"] == pytest.approx(sum(kappas) / 2)
    assert own["low"] <= own["value"] <= own["high"]
    between = error_consistency(*asked[:, in_conflict])
    assert (others["value"], others["n"], own["n"]) == (pytest.approx(between.kappa), 5, 5)
    assert table["highest_consistency", "people"]["value"] == pytest.approx(between.highest)


def test_people_who_saw_the_stimuli_are_in_their_order(shared_data):
    stimuli = datasets.cue_conflict()
    asked = people("cue-conflict")
    assert asked.shape == (10, len(stimuli.names))
    who = sorted(stimuli.trials["subject"].unique())[3]
    own = stimuli.trials[stimuli.trials["subject"] == who].set_index("stimulus")
    right = (own["response"] == own["shape"])[stimuli.names]
    assert asked[3].tolist() == right.tolist()
    assert people("objects/cue-conflict") is None


def test_everyday_categories_are_decided_by_the_mean_over_their_classes():
    logits = torch.zeros(1, 1000)
    logits[0, CATEGORIES["cat"][0]] = 9.0
    cat, dog = (list(CATEGORIES).index(name) for name in ("cat", "dog"))
    minibatch = (torch.rand(1, 3, 4, 4), torch.tensor([dog]), torch.tensor([0]))
    model = Toy(lambda x: logits)
    rows = found(model, [minibatch], ["conflict"], tuple(CATEGORIES), torch.tensor([cat]))
    assert rows["texture", "conflict", None]["value"] == 1


def test_the_cue_conflict_of_the_objects_is_labelled_by_shape_and_knows_its_textures():
    data, stimuli = datasets.load("objects/cue-conflict"), objects.cue_conflict(50)
    images, labels, _ = data.batch(0, 50)
    assert torch.equal(images, stimuli.images)
    assert torch.equal(labels, stimuli.shape)
    assert torch.equal(textures(data.source)[:50], stimuli.texture)
    assert textures("objects/test") is None


def test_the_labels_of_a_conflict_need_not_be_the_classes_of_the_model(recwarn):
    model = zoo.create("vit-d2-h2")
    model.num_classes = 1000
    opened(datasets.load("objects/cue-conflict"))(model)
    assert not recwarn
    other = Dataset("objects/test", torch.zeros(1).long(), ("a",), lambda i: None)
    with pytest.warns(UserWarning, match="1,000 apart"):
        opened(other)(model)


def test_measures_that_the_images_do_not_suit_are_left_out_or_refused():
    model = Toy(red_or_blue)
    left_out = Behaviour(model, list(MEASURES), ("a", "b"))
    assert left_out.measures == CHANGES
    assert left_out.skipped == {"conflict": "shape and texture agree"}
    with pytest.raises(ValueError, match="shape and texture agree, so nothing is left of conf"):
        Behaviour(model, ["conflict"], ("a", "b"))
    with pytest.raises(ValueError, match="shape and texture disagree, so nothing is left of at"):
        Behaviour(model, ["attack"], ("a", "b"), textures=torch.zeros(1))


def test_the_task_gives_the_rows_and_names_what_it_left_out():
    images, labels, _ = pictures(8)
    data = Dataset("mine", labels, ("a", "b"), lambda i: images[i])
    task = Behave(["shift", "conflict"], 0)
    with Ranks() as ranks:
        batches = Batches(data, 4, 2, ranks)
        rows, notes = task.run(Toy(red_or_blue), None, batches, ranks)
        assert "shift; conflict left out" in task.plan(Toy(red_or_blue), None, batches)
    assert [(row["kind"], row["n"]) for row in rows] == [("clean", 8)] + [("shift", 8)] * 8
    assert notes == {"left_out": {"conflict": "shape and texture agree"}}
    assert all(set(row) <= set(task.columns) for row in rows)


def test_the_command_writes_the_table(tmp_path, capsys):
    run = ["behave", "vit-d6-h4", "-n", "10", "--data", "objects/cue-conflict"]
    assert main([*run, "--out", str(tmp_path / "a.csv")]) == 0
    table = pd.read_csv(tmp_path / "a.csv").set_index("quantity")
    assert table["kind"].tolist() == ["conflict"] * 4
    assert table.loc["shape", "value"] + table.loc["texture", "value"] == pytest.approx(
        table.loc["decided", "value"]
    )
    assert main([*run, "--measures", "attack", "--out", str(tmp_path / "b.csv")]) == 1
    assert "nothing is left of attack" in capsys.readouterr().err


def test_behaviour_is_asked_of_the_middle_of_the_sweeps_and_conflict_where_there_is_one():
    asked = EXPERIMENTS["behaviour"].models("objects")
    assert len(asked) == 3 * len(MIDDLE)  # seeds
    assert {name.partition("-s")[0] for name in asked} == set(MIDDLE)
    assert EXPERIMENTS["attack"].models("cifar10") == ["cifar10/vit-d6-h4", "cifar10/resnet-d20"]
    assert EXPERIMENTS["cue-conflict"].models("cifar10") == []
    assert "vit-d12-h4" in EXPERIMENTS["cue-conflict"].models("objects")


@pytest.mark.slow
def test_a_declared_experiment_shows_the_images_that_it_asks_about(tmp_path):
    with Ranks() as ranks:
        summary, _ = replicate("cue-conflict", "objects", ranks, n=10, out=tmp_path)
        with pytest.raises(ValueError, match="The rung objects has images of its own"):
            replicate("cue-conflict", "objects", ranks, data=tmp_path, out=tmp_path)
    assert summary.status == 0
    record = json.loads((tmp_path / "objects" / "cue-conflict.json").read_text(encoding="utf-8"))
    assert record["configuration"]["data"] == "objects/cue-conflict"
    assert not len(trends.values("objects", out=tmp_path))  # which is of sparseness alone


@pytest.mark.skipif(
    not (datasets.folder() / "cue_conflict/stimuli.tar").is_file(), reason="no published stimuli"
)
def test_the_shape_bias_of_people_is_the_published_one():
    trials = datasets.cue_conflict().trials
    trials = trials[trials["shape"] != trials["texture"]]
    by_shape = (trials["response"] == trials["shape"]).sum()
    by_texture = (trials["response"] == trials["texture"]).sum()
    assert by_shape / (by_shape + by_texture) == pytest.approx(0.96, abs=0.005)
