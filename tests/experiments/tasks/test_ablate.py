import json
import threading

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.conditions import Lively
from helpers.images import Images
from torch.testing import assert_close

from experiments.__main__ import main
from experiments.catalogue import EXPERIMENTS, VIT_AND_CNN
from experiments.commands import ablate as command
from experiments.engine.job import Condition, Job
from experiments.engine.ranks import Ranks
from experiments.engine.scopes import at_scope
from experiments.tasks.ablate import Ablate, ablatable
from utils.measures.ablation.profiling import ablation_profile
from utils.models import zoo
from utils.probes import Ablator


def job(
    file, model="vit-d2-h2", unit="attention", scope="last", replaced_by="zero", bad=(), **more
):
    settings = dict(unit=unit, scope=scope, replaced_by=replaced_by)
    settings |= {key: more.pop(key) for key in ("ordered_by",) if key in more}
    images = Images(20, bad)
    task = Ablate(5, 2, 0, more.pop("images", None))
    with Ranks() as alone:
        conditions = [more.get("condition", Condition)(model, True, settings)]
        ranks, size = more.get("ranks", alone), more.get("size", 8)
        return Job(conditions, task, lambda _: images, 20, size, file, {}, ranks)


def direct(model, layers, value, **profiled):
    model = zoo.create(model)
    batches = [Images(20).batch(j, 8) for j in range(3)]
    ablator = Ablator(model)
    ablator.fit_means(batches, layers)
    options = dict(ranks=5, draws=2, ablator=ablator)
    return ablation_profile(model, batches, layers, value=value, **profiled, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "unit", "layers", "value", "profiled"),
    [
        ("vit-d2-h2", "attention", ["blocks.1.attn"], "mean", {}),
        ("resnet-d8", "channel", ["layer3.0.act2"], "zero", {"unit": "channel"}),
        (
            "vit-d2-h2",
            "contribution",
            ["blocks.1.attn"],
            "mean",
            {"unit": "attention", "order": "position contribution"},
        ),
        ("vit-d2-h2-gap", "output", ["blocks.1"], "mean", {"unit": "position"}),
        ("resnet-d8", "group", ["layer3.0.act2"], "mean", {"unit": "unit", "groups": 64}),
    ],
)
def test_a_job_records_the_curves_and_the_summary_of_the_profile(
    tmp_path, model, unit, layers, value, profiled
):
    job(tmp_path / "a", model, unit, replaced_by=value).run()
    table = pd.read_csv(tmp_path / "a.csv")
    expected = direct(model, layers, value, **profiled)
    for quantity in ("kl", "accuracy"):
        rows = table[table["quantity"] == quantity].set_index(["order", "k"])["value"]
        curve = expected.table().set_index(["order", "k"])[quantity]
        assert_close(
            torch.tensor(rows[curve.index].values),
            torch.tensor(curve.values, dtype=torch.float64),
            rtol=0,
            atol=1e-6,
        )
    summary = expected.summary().set_index("measure")
    row = table.set_index("quantity").loc["reliance, KL"]
    for there, here in {"value": "estimate", "low": "low", "high": "high"}.items():
        assert row[there] == pytest.approx(summary.loc["reliance, KL", here], abs=1e-6)
    undefined = table.set_index("quantity").loc["necessity N"]
    assert undefined["note"] == "no reliance"
    assert pd.isna(undefined["value"])


def test_a_scope_is_the_layer_nearest_to_that_share_of_the_depth():
    six, eight = [f"{i}" for i in range(1, 7)], [f"{i}" for i in range(1, 9)]
    assert [at_scope(six, scope) for scope in ("1/3", "2/3", "last")] == [["2"], ["4"], ["6"]]
    assert [at_scope(eight, scope) for scope in ("1/3", "2/3", "last")] == [["3"], ["5"], ["8"]]
    assert at_scope(["1"], "1/3") == ["1"]
    assert at_scope(six, "all") == six


@pytest.mark.slow
def test_layers_that_can_be_ablated_come_in_the_order_of_the_forward_pass():
    assert ablatable(zoo.create("vit-d2-h2"), "attention") == ["blocks.0.attn", "blocks.1.attn"]
    layers = ablatable(zoo.create("efficientnet-lite0"), "channel")
    assert (layers[0], layers[-1], len(layers)) == ("bn1.act", "bn2.act", 33)


def test_a_plan_counts_ablations_and_block_calls(tmp_path):
    (line,) = [line for line in job(tmp_path / "a").plan() if "vit-d2-h2" in line]
    # Three inner ranks: top, bottom, shrink, two fixed orders, and two draws of random and matched;
    # all, twice; A, B, both, removed or kept; two permutations, and the mass spread evenly.
    assert "class-token suffix, 38 ablations and " in line
    assert "block calls a minibatch; about " in line


def test_a_model_without_attention_is_answered_by_one_sentence(tmp_path):
    summary = job(tmp_path / "a", "resnet-d8").run()
    assert "SmallResNet has no attention to ablate: choose another unit." in str(summary)
    assert summary.status == 1


def test_outputs_are_those_of_blocks():
    assert ablatable(zoo.create("mixer-d2"), "output") == ["blocks.0", "blocks.1"]
    assert ablatable(zoo.create("resnet-d8"), "output")[-1] == "layer3.0"
    with pytest.raises(ValueError, match="Linear is not made of blocks"):
        ablatable(torch.nn.Linear(3, 3), "output")


def test_a_vit_and_a_cnn_are_compared_on_objects_alone():
    declared = EXPERIMENTS["vit-and-cnn"]
    assert set(VIT_AND_CNN) <= set(declared.models("objects"))
    assert declared.models("cifar10") == declared.models("imagenet") == []
    assert [declared.count(model) for model in VIT_AND_CNN] == [1, 1, 2, 3]


@pytest.mark.skipif(not set(VIT_AND_CNN) <= set(zoo.manifest()), reason="not all are trained")
def test_a_vit_and_a_cnn_are_compared_at_equal_accuracy():
    accuracy = zoo.catalog("objects").set_index("name")["accuracy"][list(VIT_AND_CNN)]
    assert accuracy.max() - accuracy.min() < 0.01


@pytest.mark.parametrize(
    ("model", "unit", "fixed"),
    [
        ("vit-d2-h2", "attention", {"centre", "mean map"}),
        ("vit-d2-h2", "contribution", {"centre", "mean map"}),
        ("vit-d2-h2", "head", {"mean map"}),
        ("resnet-d8", "position", {"centre", "mean map"}),
        ("resnet-d8", "group", {"mean map"}),
    ],
)
def test_what_all_images_share_is_a_control(tmp_path, model, unit, fixed):
    assert not job(tmp_path / "a", model, unit).run().failed
    table = pd.read_csv(tmp_path / "a.csv")
    assert (
        fixed
        <= set(table["order"].dropna())
        <= fixed | {*("top", "bottom", "random", "matched", "shrink")}
    )
    assert {"margin", "mass", "existence, KL", "reliance, margin"} <= set(table["quantity"])
    placed = {"damage, permuted − removed, KL", "damage, uniform, margin"}
    assert (placed <= set(table["quantity"])) == (unit in ("attention", "contribution"))
    whole = table[(table["quantity"] == "mass") & (table["fraction"] == 1)]
    np.testing.assert_allclose(whole["value"], 1)
    notes = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["conditions"]
    assert ("does not rely" in str(notes)) == (unit != "head")  # two heads: no few per cent
    undefined = table[table["note"] == "no reliance"]["quantity"]
    assert {f"necessity N, {name}" for name in fixed} <= set(undefined)


@pytest.mark.parametrize("unit", ["attention", "head"])
def test_other_images_are_the_same_in_any_minibatches_and_the_next_if_damaged(tmp_path, unit):
    tables = []
    for size in (8, 5):
        file = tmp_path / f"{size}"
        given = dict(condition=Lively, replaced_by="resample", bad=[3, 4])
        assert not job(file, unit=unit, size=size, **given).run().failed
        tables.append(pd.read_csv(f"{file}.csv"))
    pd.testing.assert_frame_equal(*tables, rtol=0, atol=1e-6)
    assert tables[0].loc[tables[0]["quantity"] == "kl", "value"].max() > 1e-2


class Threads:
    """Ranks that are threads of this process."""

    def __init__(self, rank, meeting, slots):
        self.rank, self.world, self.main = rank, len(slots), rank == 0
        self.meeting, self.slots, self.device = meeting, slots, torch.device("cpu")

    def mine(self, minibatches):
        return range(self.rank, minibatches, self.world)

    def everywhere(self, part):
        self.slots[self.rank] = part
        self.meeting.wait(100)
        parts = list(self.slots)
        self.meeting.wait(100)
        return parts

    def gather(self, part):
        parts = self.everywhere(part)
        return parts if self.main else None

    def together(self, work):
        return self.everywhere(work())[self.rank]

    def on_main(self, work):
        return self.everywhere(work() if self.main else None)[0]


@pytest.mark.parametrize("value", ["zero", "mean", "resample"])
def test_two_ranks_record_what_one_does_of_the_first_images(tmp_path, value):
    options = dict(condition=Lively, replaced_by=value, images=10, size=4)
    job(tmp_path / "one", **options).run()
    meeting, slots, failed = threading.Barrier(2), [None, None], []

    def rank(number):
        ranks = Threads(number, meeting, slots)
        summary = job(tmp_path / "two", ranks=ranks, **options).run()
        failed.append(summary.failed)

    threads = [threading.Thread(target=rank, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [{}, {}]
    one, two = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("one", "two"))
    pd.testing.assert_frame_equal(one, two, rtol=0, atol=1e-5)
    assert one.loc[one["quantity"] == "kl", "value"].max() > 1e-2
    counts = one.set_index("quantity")["n"]
    assert counts["existence, KL"] == 20
    assert counts["reliance, KL"] == 10


@pytest.mark.slow
def test_an_order_is_recorded_beside_the_curves(tmp_path):
    tables = {}
    for order in ("own", "head-averaged", "contribution", "centre", "mean-map"):
        file = tmp_path / order
        given = {} if order == "own" else {"ordered_by": order}
        assert not job(file, **given).run().failed
        tables[order] = pd.read_csv(f"{file}.csv")
        assert ("ordered_by" in tables[order]) == (order != "own")
    curves = {
        name: t[(t["quantity"] == "kl") & (t["order"] == "top")]["value"].values
        for name, t in tables.items()
    }
    ends = [curve[[0, -1]] for curve in curves.values()]
    np.testing.assert_allclose(ends, ends[:1] * 5, atol=1e-7)
    inner = {tuple(curve[1:-1]) for curve in curves.values()}
    assert len(inner) == 5
    summary = job(tmp_path / "both", unit="contribution", ordered_by="centre").run()
    assert "has an order of its own: leave 'centre' out" in str(summary)


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ("", {"unit": "attention", "replaced_by": "zero"}),
        ("--unit head --value resample", {"unit": "head", "replaced_by": "resample"}),
        ("--order mean-map", {"unit": "attention", "ordered_by": "mean-map"}),
    ],
)
def test_the_command_takes_orders_values_and_heads(monkeypatch, given, settings):
    seen = []
    monkeypatch.setattr(command, "run_job", lambda *given: seen.append(given) or 0)
    assert main(f"ablate vit-d2-h2 {given}".split()) == 0
    ((_, _, _, conditions, configuration),) = seen
    assert settings.items() <= conditions[0].items()
    assert ("ordered_by" in conditions[0]) == ("order" in given)
    assert configuration == {"ranks": 33, "draws": 8}
