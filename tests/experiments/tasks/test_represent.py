import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.images import Images
from scipy import stats
from torch import nn
from torch.testing import assert_close

from experiments.catalogue import EXPERIMENTS
from experiments.engine.job import Batches, Condition, Job
from experiments.engine.metrics import merged
from experiments.engine.ranks import Ranks
from experiments.replicate import _conditions
from experiments.tasks.compare import Compare, Pair
from experiments.tasks.represent import (
    FIELD_EVERY,
    MEASURES,
    Represent,
    Representation,
    rows,
    skip_rows,
)
from experiments.training.groups import GROUPS
from utils.measures import sparsity
from utils.measures.frequency import change_across_sub_blocks
from utils.measures.similarity import MinibatchCKA
from utils.models import zoo
from utils.probes import ActivationRecorder, AttentionProbe
from utils.probes.anatomy import block_names, middle_block
from utils.probes.skips import without_skip


def table(model, measures=tuple(MEASURES), data=None, size=8):
    data = data or Images(30)
    batches = Batches(data, size, -(-len(data) // size), Ranks())
    found, notes = Represent(list(measures), 0).run(model, None, batches, Ranks())
    return pd.DataFrame(found), notes


def one(found, quantity, unit=None, layer=None, column="value"):
    chosen = found[found["quantity"] == quantity]
    chosen = chosen[chosen["layer"].isna() if layer is None else chosen["layer"] == layer]
    chosen = chosen if unit is None else chosen[chosen["unit"] == unit]
    (value,) = chosen[column]
    return value


@pytest.fixture(scope="module")
def vit():
    model = zoo.create("vit-d4-h4-w16")
    return model, *table(model)


@pytest.fixture(scope="module")
def maps(vit):
    """Class rows [layers, images, heads, patches], renormalised over patches."""
    with torch.inference_mode(), AttentionProbe(vit[0]) as probe:
        vit[0](Images(30).batch(0, 30)[0])
    rows = [sparsity.patch_rows(x[:, :, 0], 1)[0] for x in probe.maps.values()]
    return torch.stack(rows).double().numpy()


def spearman(a, b):
    return stats.spearmanr(a, b).statistic


@pytest.mark.parametrize("kind", ["raw", "centred"])
def test_heads_agree_as_scipys_rank_correlation_says(vit, maps, kind):
    x = maps if kind == "raw" else maps - maps.mean(1, keepdims=True)
    pairs = [(g, h) for g in range(4) for h in range(g)]
    each = [[np.mean([spearman(i[g], i[h]) for g, h in pairs]) for i in x[d]] for d in range(4)]
    found = vit[1]
    assert one(found, "head_agreement", kind, "blocks.1.attn") == pytest.approx(
        np.mean(each[1]), abs=1e-6
    )
    assert one(found, "head_agreement", kind) == pytest.approx(np.mean(each), abs=1e-6)
    error = np.mean(each, 0).std(ddof=1) / math.sqrt(30)
    assert one(found, "head_agreement", kind, column="se") == pytest.approx(error, abs=1e-6)


@pytest.mark.parametrize("kind", ["raw", "centred"])
def test_layers_agree_as_scipys_rank_correlation_says(vit, maps, kind):
    x = maps if kind == "raw" else maps - maps.mean(1, keepdims=True)
    x = x.mean(2)  # over heads
    near = np.mean([[spearman(x[d, i], x[d + 1, i]) for i in range(30)] for d in range(3)])
    apart = [(0, 2), (1, 3), (0, 3)]
    far = np.mean([[spearman(x[a, i], x[b, i]) for i in range(30)] for a, b in apart])
    found = vit[1]
    assert one(found, "neighbour_agreement", kind) == pytest.approx(near, abs=1e-6)
    assert one(found, "distant_agreement", kind) == pytest.approx(far, abs=1e-6)
    assert one(found, "neighbour_advantage", kind) == pytest.approx(near - far, abs=1e-6)


def test_without_a_class_token_every_patch_row_counts():
    model = zoo.create("vit-d2-h2-w16-gap")
    found, _ = table(model, ["agreement"], Images(6))
    with torch.inference_mode(), AttentionProbe(model, rows="all") as probe:
        model(Images(6).batch(0, 6)[0])
    x = probe.maps["blocks.0.attn"].double().numpy()  # [images, heads, 64, 64]
    expected = np.mean([spearman(i[0, q], i[1, q]) for i in x for q in range(64)])
    value = one(found, "head_agreement", "raw", "blocks.0.attn")
    assert value == pytest.approx(expected, abs=1e-6)


class Chain(nn.Module):
    """Blocks in a row, on images of 32×32."""

    num_classes = 10

    def __init__(self, *blocks):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.pretrained_cfg = dict(input_size=(3, 32, 32), mean=(0.0,) * 3, std=(1.0,) * 3)

    def forward(self, x):
        return self.blocks(x).mean((2, 3))


def box(size):
    """The mean over size × size pixels of each colour, a block with a part of its own."""
    layer = nn.Conv2d(3, 3, size, padding=size // 2, groups=3, bias=False)
    nn.init.constant_(layer.weight, 1 / size**2)
    return nn.Sequential(nn.Sequential(layer))


def test_the_field_of_box_filters_is_the_one_that_they_were_given():
    found, _ = table(Chain(box(1), box(5), box(9)), ["field"])

    def radius(mask):  # pixels from (16, 16) to hold half of the mass
        y, x = np.nonzero(mask)
        distance = np.sort(np.hypot(y - 16, x - 16))
        return distance[math.ceil(len(distance) / 2) - 1]

    def square(reach):
        mask = np.zeros((32, 32), bool)
        mask[16 - reach : 17 + reach, 16 - reach : 17 + reach] = True
        return mask

    whole = radius(np.ones((32, 32)))
    values = found["value"].tolist()
    assert values[:2] == pytest.approx([0, radius(square(2)) / whole])
    assert values[0] < values[1] < values[2] < 1
    per_minibatch = [len(range(0, size, FIELD_EVERY)) for size in (8, 8, 8, 6)]
    assert set(found["n"]) == {sum(per_minibatch)}
    assert found["depth"].tolist() == pytest.approx([1 / 3, 2 / 3, 1])


def test_sub_blocks_filter_as_the_measure_says(vit):
    model, found, _ = vit
    images = Images(30).batch(0, 30)[0]
    for kind, layers in change_across_sub_blocks(model, images).items():
        for layer, values in layers.items():
            value = one(found, "frequency", kind, layer)
            assert value == pytest.approx(values.mean().item(), abs=1e-5)


class Marked(nn.Module):
    """Every fourth pixel, plus the number of its place."""

    def forward(self, x):
        return torch.arange(64.0).reshape(1, 1, 8, 8) * 5 + x[:, :, ::4, ::4]


class Pooled(nn.Module):
    """The mean over the image at every place."""

    def forward(self, x):
        return x.mean((2, 3), keepdim=True).expand(-1, -1, 8, 8)


def test_places_that_are_marked_are_known_and_those_that_are_alike_are_not():
    found = {}
    for last in (Marked, Pooled):
        chain = Chain(box(1), nn.Sequential(last(), nn.Identity()))
        found[last], _ = table(chain, ["location"])
    layer = "blocks.1"
    for unit, count in (("interior", 36), ("edge", 28)):
        assert one(found[Marked], "location", unit, layer) == 1
        assert one(found[Marked], "location_chance", unit, layer) == pytest.approx(1 / count)
        assert one(found[Pooled], "location", unit, layer) == pytest.approx(0, abs=1e-9)


def test_location_needs_images_in_both_halves():
    with pytest.raises(ValueError, match="fewer than two images"):
        table(zoo.create("vit-d2-h2-w16"), ["location"], Images(1))


def by_hand(block, what, x):
    """What a block puts out without one of its skip connections, or without all of itself."""
    if what == "block":
        return x
    if what == "skip":
        return block.act2(block.bn2(block.conv2(block.act1(block.bn1(block.conv1(x))))))
    attended = block.attn(block.norm1(x)) + (0 if what == "attention" else x)
    mixed = block.mlp(block.norm2(attended))
    return mixed if what == "mlp" else attended + mixed


@pytest.mark.parametrize(
    ("name", "middle", "skips"),
    [("vit-d4-h4-w16", "blocks.1", ("attention", "mlp")), ("resnet-d20", "layer2.1", ("skip",))],
)
def test_what_is_removed_is_missing_and_nothing_else(name, middle, skips):
    model, images = zoo.create(name), Images(8).batch(0, 8)[0]
    assert middle_block(model) == (middle, skips)
    block, names = model.get_submodule(middle), list(model.state_dict())
    found, _ = table(model, ["skips"], Images(8))

    def recorded():
        with torch.inference_mode(), ActivationRecorder(model, block_names(model)) as rec:
            model(images)
        return rec.outputs

    def cka(values):
        metric = MinibatchCKA()
        metric.update(values, list(values.values())[-1:])
        return metric.compute()[:, 0]

    intact = recorded()
    at = list(intact).index(middle)
    before = list(intact.values())[at - 1]
    for what in (*skips, "block"):
        with torch.inference_mode(), without_skip(block, what):
            assert_close(block(before), by_hand(block, what, before), rtol=1e-4, atol=1e-5)
        try:
            block.forward = lambda x, what=what, **_: by_hand(copy.copy(block), what, x)
            fall = (cka(intact) - cka(recorded()))[:at].mean().item()
        finally:
            del block.forward
        assert one(found, "skip_fall", what, middle) == pytest.approx(fall, abs=1e-4)
    assert list(model.state_dict()) == names
    torch.testing.assert_close(recorded(), intact, rtol=0, atol=0)


def test_a_block_that_adds_nothing_can_go_without_any_fall():
    model = zoo.create("vit-d4-h4-w16")
    with torch.no_grad():
        for layer in (model.blocks[1].attn.proj, model.blocks[1].mlp.fc2):
            layer.weight.zero_()
            layer.bias.zero_()
    found, _ = table(model, ["skips"], Images(8))
    assert one(found, "skip_fall", "block", "blocks.1") == pytest.approx(0, abs=1e-6)


def test_what_a_model_has_nothing_for_is_left_out_and_said():
    found, notes = table(zoo.create("plain-d8"), data=Images(8))
    assert set(notes["left_out"]) == {"agreement", "skips"}
    assert set(found["quantity"]) == {"field_radius", "frequency", "location", "location_chance"}
    _, notes = table(zoo.create("mixer-d2-w16"), data=Images(8))
    assert "no residual blocks" in notes["left_out"]["frequency"]


@pytest.mark.parametrize("name", ["vit-d4-h4-w16", "resnet-d20-w16"])
def test_halves_that_are_merged_are_the_whole(name):
    model, data = zoo.create(name), Images(30, bad=[9])
    each = [Representation(model, list(MEASURES)) for _ in range(2)]
    for part, own in zip(each, ((0, 2), (1, 3)), strict=True):
        for j in own:
            images, _, index = data.batch(j, 8)
            part.learn(images, index)
    learnt = merged(part.metrics for part in each)
    for part, own in zip(each, ((0, 2), (1, 3)), strict=True):
        part.know(learnt)
        for j in own:
            images, _, index = data.batch(j, 8)
            part.update(images, index)
    whole = merged(part.metrics for part in each)
    halves = pd.DataFrame([*rows(whole), *skip_rows(whole, each[0].middle[0])])
    found, _ = table(model, data=data)
    pd.testing.assert_frame_equal(halves, found, rtol=1e-9, atol=1e-9)


def compared(one, other, settings=None):
    pair = Pair.of(Condition(one, True, settings or {}), Condition(other, True))
    data = Images(16)
    found, _ = Compare(0).run(pair.load(), pair, Batches(data, 8, 2, Ranks()), Ranks())
    return pd.DataFrame(found)


def test_two_models_are_compared_at_the_same_relative_depth():
    found = compared("vit-d2-h2-w16", "vit-d4-h4-w16")
    matched = found[found["quantity"] == "matched_cka"]
    assert matched["other"].tolist() == ["blocks.1", "blocks.3"]
    metric = MinibatchCKA()
    for j in range(2):
        images, values = Images(16).batch(j, 8)[0], []
        for name in ("vit-d2-h2-w16", "vit-d4-h4-w16"):
            model = zoo.create(name)
            with torch.inference_mode(), ActivationRecorder(model, "blocks.?") as record:
                model(images)
            values.append(record.outputs)
        metric.update(*values)
    every = found[found["quantity"] == "cka"]["value"].to_numpy().reshape(2, 4)
    assert every == pytest.approx(metric.compute().numpy(), abs=1e-6)
    assert matched["value"].tolist() == [every[0, 1], every[1, 3]]
    assert set(found["n"]) == {16}


def test_a_model_is_like_itself():
    found = compared("resnet-d8", "resnet-d8")
    alike = found[found["quantity"] == "matched_cka"]
    assert alike["value"].tolist() == pytest.approx([1, 1, 1])
    assert alike["layer"].tolist() == alike["other"].tolist()


@pytest.mark.slow
def test_models_that_want_other_images_are_not_compared():
    pair = Pair.of(Condition("resnet-d8", True), Condition("resnet18.a1_in1k", True))
    with pytest.raises(ValueError, match=r"prepared in other ways \(input_size"):
        Compare(0).run(pair.load(), pair, [], Ranks())


def test_a_sweep_of_pairs_names_both_and_knows_both_weights(tmp_path):
    pair = Pair.of(Condition("vit-d6-h4"), Condition("resnet-d20"))
    assert pair.weights == f"{pair.one.weights}+{pair.other.weights}"
    images = Images(8)
    file = tmp_path / "pairs.csv"
    job = Job([pair], Compare(0), lambda model: images, 8, 8, file, {}, Ranks())
    assert list(job.plan())[2].startswith(
        "  vit-d6-h4 trained resnet-d20: CKA with the blocks of resnet-d20; about"
    )
    assert job.run().measured == 1
    assert set(pd.read_csv(file)["beside"]) == {"resnet-d20"}


def test_the_declared_pairs_are_all_asked_and_wait_for_both(tmp_path):
    declared = EXPERIMENTS["pairs"]
    models = declared.models("objects")
    conditions = list(_conditions(declared, models, None, tmp_path, None))
    assert len(conditions) == sum(map(declared.count, models)) == 2 * len(declared.pairs)
    asked = {(c.one.model, c.other.model) for c in conditions}
    assert asked == set(declared.pairs)
    assert not list(_conditions(declared, ["vit-d6-h4"], None, tmp_path, None))
    assert declared.beside("cifar10/vit-d6-h4") == ["cifar10/resnet-d20"]
    members = {name for group in GROUPS.values() for name in group.members()}
    assert set(models) <= members  # so that they are trained
