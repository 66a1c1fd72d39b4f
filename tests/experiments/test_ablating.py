import pandas as pd
import pytest
import torch
from experiments.images import Images
from torch.testing import assert_close

from utils.experiments.ablating import Ablate, ablatable
from utils.experiments.catalogue import EXPERIMENTS, VIT_AND_CNN
from utils.experiments.layers import at_scope
from utils.experiments.ranks import Ranks
from utils.experiments.run import Condition, Sweep
from utils.measures.ablation_profile import ablation_profile
from utils.models import zoo
from utils.probes import Ablator


def sweep(file, model="vit-d2-h2", unit="attention", scope="last", replaced_by="zero"):
    settings = dict(unit=unit, scope=scope, replaced_by=replaced_by)
    images = Images(20)
    with Ranks() as ranks:
        conditions = [Condition(model, True, settings)]
        return Sweep(conditions, Ablate(5, 2, 0), lambda _: images, 20, 8, file, {}, ranks)


def direct(model, layers, value, **profiled):
    model = zoo.create(model)
    batches = [Images(20).batch(j, 8) for j in range(3)]
    ablator = Ablator(model)
    ablator.fit_means(batches, layers)
    options = dict(ranks=5, draws=2, ablator=ablator)
    return ablation_profile(model, batches, layers, value=value, **profiled, **options)


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
def test_a_sweep_records_the_curves_and_the_summary_of_the_profile(
    tmp_path, model, unit, layers, value, profiled
):
    sweep(tmp_path / "a", model, unit, replaced_by=value).run()
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


def test_layers_that_can_be_ablated_come_in_the_order_of_the_forward_pass():
    assert ablatable(zoo.create("vit-d2-h2"), "attention") == ["blocks.0.attn", "blocks.1.attn"]
    layers = ablatable(zoo.create("efficientnet-lite0"), "channel")
    assert (layers[0], layers[-1], len(layers)) == ("bn1.act", "bn2.act", 33)


def test_a_plan_counts_ablations_and_block_calls(tmp_path):
    (line,) = [line for line in sweep(tmp_path / "a").plan() if "vit-d2-h2" in line]
    # Three inner ranks: top, bottom, shrink, and two draws of random and matched; all; A, B, both.
    assert "class-token suffix, 28 ablations and " in line
    assert "block calls a minibatch; about " in line


def test_a_model_without_attention_is_answered_by_one_sentence(tmp_path):
    summary = sweep(tmp_path / "a", "resnet-d8").run()
    assert "SmallResNet has no attention to ablate: choose another unit." in str(summary)
    assert summary.status == 1


def test_outputs_are_those_of_blocks():
    assert ablatable(zoo.create("mixer-d2"), "output") == ["blocks.0", "blocks.1"]
    assert ablatable(zoo.create("resnet-d8"), "output")[-1] == "layer3.0"
    with pytest.raises(ValueError, match="Linear is not made of blocks"):
        ablatable(torch.nn.Linear(3, 3), "output")


def test_vit_and_cnn_are_compared_at_equal_accuracy():
    declared = EXPERIMENTS["vit-and-cnn"]
    assert set(VIT_AND_CNN) <= set(declared.models("objects"))
    assert declared.models("cifar10") == declared.models("imagenet") == []
    assert [declared.count(model) for model in VIT_AND_CNN] == [1, 1, 2, 3]
    accuracy = zoo.catalog("objects").set_index("name")["accuracy"][list(VIT_AND_CNN)]
    assert accuracy.max() - accuracy.min() < 0.01
