"""Profiles against the same ablations written out in float64, and with nothing to find."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import ttest_rel
from torch import nn

from utils.measures.ablation.heads import head_effects
from utils.measures.ablation.outcomes import others_among
from utils.measures.ablation.profile import AblationProfile
from utils.measures.ablation.profiling import ablation_profile
from utils.measures.ablation.reliance import reliance
from utils.measures.ablation.units import units_of
from utils.models import zoo
from utils.probes import Ablator, AttentionProbe, keyed_orders
from utils.probes.ablation.draws import keyed_others


class Linear(nn.Module):
    """Logits that are linear in rectified channels; `ignore` takes them from the input instead."""

    def __init__(self, weight, ignore: bool = False) -> None:
        super().__init__()
        self.weight, self.ignore = nn.Parameter(torch.tensor(weight).float()), ignore
        self.act = nn.ReLU()

    def forward(self, x):  # [batch, channels, 1, 1]
        units = self.act(x)
        if self.ignore:
            units = x + 0 * units
        return units.flatten(1) @ self.weight.mT


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batches(images, labels, size=None):
    index = torch.arange(len(images))
    return list(zip(*(x.split(size or len(images)) for x in (images, labels, index)), strict=True))


CHANNELS, CLASSES, IMAGES = 12, 4, 9


@pytest.fixture
def linear():
    model = Linear(draw(CLASSES, CHANNELS, seed=1).numpy()).eval()
    return model, draw(IMAGES, CHANNELS, 1, 1), torch.arange(IMAGES) % CLASSES


def by_hand(model, images, labels, order):
    """KL, right and margin [images, k] of removing units in an order [images, channels]."""
    units = images.flatten(1).relu().double()
    weight = model.weight.double()
    intact = (units @ weight.mT).log_softmax(-1)
    kl, right, margin = [], [], []
    for k in range(CHANNELS + 1):
        kept = units.clone()
        for i in range(len(units)):
            kept[i, order[i, :k]] = 0
        q = (kept @ weight.mT).log_softmax(-1)
        kl.append((intact.exp() * (intact - q)).sum(-1))
        p = q.exp()[torch.arange(len(q)), labels]
        right.append((q.argmax(-1) == labels).double())
        margin.append((p / (1 - p)).log())
    return tuple(torch.stack(each, 1).detach().numpy() for each in (kl, right, margin))


def test_curves_are_those_of_ablation_written_out(linear):
    model, images, labels = linear
    profile = ablation_profile(model, batches(images, labels), "act", "channel", draws=2, seed=3)
    strongest = images.flatten(1).relu().argsort(dim=-1, descending=True, stable=True)
    index = torch.arange(IMAGES)
    orders = {
        ("top", 0): strongest,
        ("bottom", 0): strongest.flip(-1),
        ("random", 0): keyed_orders(3, index, 0, (1, CHANNELS))[:, 0],
        ("random", 1): keyed_orders(3, index, 1, (1, CHANNELS))[:, 0],
    }
    assert profile.ranks.tolist() == list(range(CHANNELS + 1))
    for (name, i), order in orders.items():
        for table, expected in zip(
            (profile.kl, profile.right, profile.margin),
            by_hand(model, images, labels, order),
            strict=True,
        ):
            np.testing.assert_allclose(table[name][i], expected, atol=2e-5)


def test_minibatches_of_any_size_and_order_give_the_same_profile(linear):
    model, images, labels = linear
    whole = ablation_profile(model, batches(images, labels), "act", "channel", draws=2)
    parts = batches(images, labels, 4)
    split = ablation_profile(model, parts[::-1], "act", "channel", draws=2)
    for order in whole.kl:
        np.testing.assert_allclose(whole.kl[order], split.kl[order], atol=1e-6)
    assert split.index.tolist() == list(range(IMAGES))
    ranks = [ablation_profile(model, [part], "act", "channel", draws=2) for part in parts]
    np.testing.assert_allclose(
        AblationProfile.merged(ranks).kl["random"], whole.kl["random"], atol=1e-6
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_decide_nothing_have_no_profile(linear, value):
    model, images, labels = linear
    model.weight.data[0, 0] = value
    images[:, 0] = 1  # which is not multiplied away
    with pytest.raises(ValueError, match=r"NaN or infinite logits for \d of 9 images"):
        ablation_profile(model, batches(images, labels), "act", "channel", draws=2)


@pytest.mark.parametrize("unit", ["channel", "unit"])
def test_a_minibatch_is_split_until_its_sets_fit_into_memory(linear, unit):
    model, images, labels = linear
    seen = []
    model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    whole = ablation_profile(model, batches(images, labels), "act", unit, draws=2)
    at_once, seen[:] = max(seen), []
    sets = 64 * CHANNELS * 4  # bytes of 64 conditions of one image, a float32 share a unit
    ablator = Ablator(model, memory=3 * sets)
    split = ablation_profile(model, batches(images, labels), "act", unit, draws=2, ablator=ablator)
    assert at_once == IMAGES
    assert max(seen) == 3
    for order in whole.kl:
        np.testing.assert_allclose(whole.kl[order], split.kl[order], atol=1e-6)


def test_profiles_that_share_an_image_or_differ_are_not_merged(linear):
    model, images, labels = linear
    one = ablation_profile(model, batches(images, labels), "act", "channel", draws=1)
    other = ablation_profile(model, batches(images, labels), "act", "channel", draws=1, seed=1)
    with pytest.raises(ValueError, match="share images"):
        AblationProfile.merged([one, one])
    with pytest.raises(ValueError, match="different conditions"):
        AblationProfile.merged([one, other])


def test_the_papers_fractions_are_among_those_whose_accuracy_is_shown():
    images = draw(30, 64, 1, 1)
    model = Linear(draw(CLASSES, 64, seed=1).numpy()).eval()
    labels = model(images).argmax(1)
    profile = ablation_profile(model, batches(images, labels), "act", "channel", draws=3, ranks=15)
    found = values(profile.summary(200))
    for percent, k in {5: 3, 10: 6, 20: 13, 30: 19}.items():
        at = profile.ranks.tolist().index(k)
        top, random = (profile.right[order][:, :, at].mean() for order in ("top", "random"))
        assert found[f"accuracy, top removed at {percent}%"] == pytest.approx(top)
        assert found[f"accuracy, random − top at {percent}%"] == pytest.approx(random - top)


def values(summary):
    return summary.set_index("measure")["estimate"]


def test_a_network_whose_answers_ignore_the_layer_relies_on_nothing():
    model = Linear(np.eye(4), ignore=True).eval()
    images = 5 * torch.eye(4).repeat(5, 1)[..., None, None]
    labels = torch.arange(4).repeat(5)
    summary = ablation_profile(model, batches(images, labels), "act", "channel").summary(200)
    found = values(summary)
    assert found["intact accuracy"] == pytest.approx(1)
    assert found["reliance, accuracy"] == found["reliance, KL"] == 0
    assert math.isnan(found["necessity N"])
    assert math.isnan(found["sufficiency K"])
    assert (summary["note"] == "no reliance").sum() == 22  # of KL, margin and probability


class Sure(Linear):
    """Without any response its answer is class 0, and it is that sure of it."""

    sureness = 0.0

    def forward(self, x):
        units = self.act(x).flatten(1)
        nothing = (units.sum(1, keepdim=True) == 0).float()
        return units @ self.weight.mT + nothing * self.sureness * torch.eye(CLASSES)[0]


def test_on_the_probability_it_does_not_matter_how_sure_a_network_is_of_nothing():
    weight = draw(CLASSES, CHANNELS, seed=1)
    model = Sure((weight - weight.mean(1, keepdim=True)).numpy()).eval()
    images = draw(2000, CHANNELS, 1, 1).abs()  # none is without a response before the last
    answers = model(images).argmax(1)
    chosen = torch.cat([torch.where(answers == k)[0][:5] for k in range(CLASSES)])
    images, labels = images[chosen], answers[chosen]
    assert labels.bincount().tolist() == [5] * CLASSES  # so that guessing is right in a quarter
    found = {}
    for model.sureness in (0.0, 30.0):
        parts = ablation_profile(model, batches(images, labels), "act", "channel", draws=2)
        found[model.sureness] = values(parts.summary(50, reliance=parts.reliance()))
    unsure, sure = found.values()
    for name in ("necessity N, probability", "half kept, top, probability"):
        assert sure[name] == pytest.approx(unsure[name], abs=1e-5)
    assert sure["reliance, KL"] > 5 * unsure["reliance, KL"]
    assert abs(sure["necessity N"] - unsure["necessity N"]) > 0.1


@pytest.mark.parametrize("layers", ["blocks.1.attn", "*.attn"])
def test_random_weights_rely_on_nothing(layers):
    images, labels = torch.rand(8, 3, 32, 32), torch.arange(8)
    profile = ablation_profile(
        zoo.create("vit-d2-h2"), batches(images, labels, 4), layers, ranks=5, draws=2
    )
    assert math.isnan(values(profile.summary(200))["necessity N"])


def test_where_one_unit_decides_the_strongest_is_necessary_and_sufficient():
    images = 0.1 * torch.rand(40, 8, 1, 1)
    labels = torch.arange(40) % 4
    images[torch.arange(40), labels] = 9.0
    model = Linear(np.eye(4, 8)).eval()
    found = values(ablation_profile(model, batches(images, labels), "act", "channel").summary(200))
    assert found["necessity N"] > 0.3
    assert found["sufficiency K"] > 0.3
    assert found["half removed, top"] < 1 / 8
    assert found["half kept, top"] < 1 / 8
    assert found["reliance, accuracy"] == pytest.approx(0.75)  # all zero: class 0


def test_the_interval_of_an_accuracy_is_that_of_a_binomial():
    n = 400
    images, labels = torch.zeros(n, 4, 1, 1), torch.zeros(n).long()
    images[torch.arange(n), (torch.arange(n) % 5 == 0).long()] = 3.0  # one of five is wrong
    profile = ablation_profile(
        Linear(np.eye(4)).eval(), batches(images, labels), "act", "channel", draws=1
    )
    row = profile.summary(4000).set_index("measure").loc["intact accuracy"]
    assert row["estimate"] == pytest.approx(0.8)
    assert row["high"] - row["low"] == pytest.approx(2 * 1.96 * math.sqrt(0.16 / n), rel=0.08)


def two_classes(margin):
    """A network of two classes whose log-odds are a function of its six rectified units."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act, self.scale = nn.ReLU(), nn.Parameter(torch.ones(1))

        def forward(self, x):
            z = margin(self.act(x).flatten(1)) * self.scale
            return torch.stack([z, torch.zeros_like(z)], 1)

    images = 1 + 0.1 * torch.rand(30, 10, 1, 1, generator=torch.Generator().manual_seed(0))
    profile = ablation_profile(
        Model().eval(), batches(images, torch.zeros(30).long()), "act", "channel", draws=1
    )
    return values(profile.summary(200))


def test_units_whose_effects_add_do_not_overlap():
    found = two_classes(lambda units: units.sum(1))
    assert found["I_rem"] == pytest.approx(0, abs=1e-5)
    assert found["I_keep"] == pytest.approx(0, abs=1e-5)


def test_units_that_stand_in_for_one_another_are_redundant_by_both_signs():
    # ten units of about 1.05, of which nine are enough
    found = two_classes(lambda units: (units.sum(1) - 9).clamp(0, 0.5))
    assert found["I_rem"] > 0.2  # only both removed do damage
    found = two_classes(lambda units: units.amax(1))
    assert found["I_keep"] < -0.9  # either alone restores what both do


def test_in_several_layers_a_unit_responds_with_its_mean_over_layers():
    model, images = zoo.create("vit-d2-h2"), torch.rand(2, 3, 32, 32)
    profile = ablation_profile(model, batches(images, torch.arange(2)), "*.attn", ranks=3, draws=1)
    responses = units_of(model, "*.attn", "attention").read(images)
    expected = torch.stack([r.scores.mean(1) for r in responses.values()]).mean(0)
    np.testing.assert_allclose(profile.scores, expected, rtol=1e-5)


def test_attention_is_removed_by_the_response_of_each_head_and_controls_by_its_mass():
    model, images = zoo.create("vit-d3-h2"), torch.rand(4, 3, 32, 32)
    profile = ablation_profile(
        model, batches(images, torch.arange(4)), "blocks.2.attn", ranks=9, draws=2
    )
    assert profile.n == 64
    assert {"top", "bottom", "random", "matched", "shrink"} == set(profile.kl)
    assert profile.kl["matched"].shape == (2, 4, 9)
    for table in profile.kl.values():
        assert (table[:, :, 0] < 1e-9).all()
        np.testing.assert_allclose(
            table[:, :, -1], profile.kl["top"][:, :, -1].repeat(len(table), 0)
        )


def test_contributions_are_weight_times_projected_value():
    model, images = zoo.create("vit-d2-h2"), torch.rand(2, 3, 32, 32)
    layer = model.blocks[1].attn
    inputs = []
    handle = layer.register_forward_hook(lambda m, args, out: inputs.append(args[0].detach()))
    by_head = units_of(model, "blocks.1.attn", "attention", "contribution").read(images)
    by_patch = units_of(model, "blocks.1.attn", "attention", "position contribution").read(images)
    handle.remove()
    mass = by_head["blocks.1.attn"].mass
    value = layer.qkv(inputs[0])[..., 128:].detach()  # [batch, tokens, 64]
    image, patch = 1, 20
    sent = []
    for head in range(2):
        columns = slice(32 * head, 32 * head + 32)
        v = value[image, 1 + patch, columns]
        sent.append(mass[image, head, patch] * layer.proj.weight[:, columns] @ v)
        found = by_head["blocks.1.attn"].scores[image, head, patch]
        assert found.item() == pytest.approx(sent[-1].norm().item(), rel=1e-4)
    found = by_patch["blocks.1.attn"].scores[image, :, patch]
    assert found.tolist() == pytest.approx([sum(sent).norm().item()] * 2, rel=1e-4)


def test_heads_respond_with_the_size_of_what_they_add_to_the_class_token():
    model, images = zoo.create("vit-d2-h2"), torch.rand(2, 3, 32, 32)
    layer, seen = model.blocks[1].attn, []
    handle = layer.proj.register_forward_hook(lambda m, args, out: seen.append(args[0].detach()))
    units = units_of(model, "blocks.1.attn", "head")
    scores = units.read(images)["blocks.1.attn"].scores
    handle.remove()
    for head in range(2):
        columns = slice(32 * head, 32 * head + 32)
        added = seen[0][:, 0, columns] @ layer.proj.weight[:, columns].mT
        torch.testing.assert_close(scores[:, 0, head], added.norm(dim=-1))


@pytest.mark.parametrize("value", ["zero", "mean", "resample"])
def test_heads_are_removed_as_a_whole(value):
    model, images = zoo.create("vit-d3-h2"), torch.rand(4, 3, 32, 32)
    data, layer = batches(images, torch.arange(4)), "blocks.1.attn"
    profile = ablation_profile(model, data, layer, "head", value, draws=1)
    assert (profile.n, profile.ranks.tolist()) == (2, [0, 1, 2])
    table = head_effects(model, data, layer, value, samples=20)
    kl = table[table["quantity"] == "kl"].set_index("head")["value"]
    first, alone = profile.scores.argmax(1), np.empty((4, 2))
    alone[np.arange(4), first] = profile.kl["top"][0, :, 1]
    alone[np.arange(4), 1 - first] = profile.kl["bottom"][0, :, 1]
    np.testing.assert_allclose(alone.mean(0), kl, atol=1e-6)
    with pytest.raises(ValueError, match="leaves no rest"):
        ablation_profile(model, data, layer, "head", "renormalise", draws=1)
    with pytest.raises(ValueError, match='no order "centre"'):
        ablation_profile(model, data, layer, "head", order="centre", draws=1)


def test_the_map_of_heads_is_that_of_heads_taken_out_of_the_projection():
    model, images = zoo.create("vit-d2-h2"), torch.rand(5, 3, 32, 32)
    with torch.no_grad():
        for block in model.blocks:
            block.attn.proj.weight.mul_(8)
        labels = model(images).argmax(1)
        intact = model(images).log_softmax(-1).double()
    found = head_effects(model, batches(images, labels, 2), samples=20, rows="all")
    assert len(found) == 2 * 2 * 3
    found = found.set_index(["quantity", "layer", "head"])["value"]
    for block in range(2):
        for head in range(2):
            weight = model.blocks[block].attn.proj.weight
            kept = weight.detach().clone()
            with torch.no_grad():
                weight[:, 32 * head : 32 * head + 32] = 0
                q = model(images).log_softmax(-1).double()
                weight.copy_(kept)
            kl = (intact.exp() * (intact - q)).sum(-1).mean().item()
            at = f"blocks.{block}.attn", head
            assert found[("kl", *at)] == pytest.approx(kl, rel=1e-3, abs=1e-7)
            right = (q.argmax(-1) == labels).double().mean().item()
            assert found[("accuracy", *at)] == pytest.approx(1 - right)
    by_class = head_effects(model, batches(images, labels), "blocks.1.attn", samples=20)
    by_class = by_class.set_index(["quantity", "layer", "head"])["value"]
    # The class token alone is read after the last block.
    for at in by_class.index:
        assert by_class[at] == pytest.approx(found[at], abs=1e-5)
    with pytest.raises(ValueError, match="gives way to"):
        head_effects(model, batches(images, labels), value="renormalise")


@pytest.mark.parametrize(
    ("model", "layer", "unit"),
    [
        ("vit-d2-h2", "blocks.?.attn", "attention"),
        ("vit-d2-h2-gap", "blocks.1.attn", "attention"),
        ("resnet-d8", "layer3.0.act2", "position"),
        ("resnet-d8", "layer3.0.act2", "channel"),
        ("vit-d2-h2", "blocks.1.mlp.act", "unit"),
    ],
)
def test_another_image_is_put_in_alike_in_any_minibatches(model, layer, unit):
    model, images = zoo.create(model), torch.rand(7, 3, 32, 32)
    labels, options = torch.arange(7), dict(ranks=3, draws=1, seed=4)
    whole = ablation_profile(model, batches(images, labels), layer, unit, "resample", **options)
    parts = batches(images, labels, 3)
    split = ablation_profile(model, parts[::-1], layer, unit, "resample", **options)
    others = others_among(parts, 4)
    ranks = [
        ablation_profile(model, [part], layer, unit, "resample", others=others, **options)
        for part in parts
    ]
    merged = AblationProfile.merged(ranks)
    for order in whole.kl:
        np.testing.assert_allclose(whole.kl[order], split.kl[order], atol=1e-6)
        np.testing.assert_allclose(whole.kl[order], merged.kl[order], atol=1e-6)
    everything = reliance(model, parts, layer, unit, "resample", seed=4)
    np.testing.assert_allclose(everything.kl, whole.kl["top"][0, :, -1], atol=1e-6)


def test_another_image_lends_its_class_row_or_its_activations():
    model, images = zoo.create("vit-d2-h2"), torch.rand(6, 3, 32, 32)
    labels, index = torch.arange(6), torch.arange(6)
    other = keyed_others(0, index, 6)
    with AttentionProbe(model, "blocks.1.attn") as probe, torch.no_grad():
        intact = model(images).log_softmax(-1).double()
    rows = probe.maps["blocks.1.attn"]

    def change(module, args, weights):
        weights = weights.clone()
        weights[:, :, 0, 1:] = rows[other][:, :, 0, 1:]
        return weights

    model.blocks[1].attn.fused_attn = False
    hook = model.blocks[1].attn.attn_drop.register_forward_hook(change)
    with torch.no_grad():
        q = model(images).log_softmax(-1).double()
    hook.remove()
    expected = (intact.exp() * (intact - q)).sum(-1)
    profile = ablation_profile(
        model, batches(images, labels, 4), "blocks.1.attn", value="resample", ranks=3, draws=1
    )
    np.testing.assert_allclose(profile.kl["top"][0, :, -1], expected, atol=1e-6)
    cnn = zoo.create("resnet-d8")
    with torch.no_grad():
        p, q = cnn(images).log_softmax(-1), cnn(images[other]).log_softmax(-1)
    profile = ablation_profile(
        cnn, batches(images, labels), "layer3.0.act2", "channel", "resample", ranks=3, draws=1
    )  # what all that follows sees is the other image
    kl = (p.exp() * (p - q)).sum(-1)
    np.testing.assert_allclose(profile.kl["top"][0, :, -1], kl, atol=1e-6)


def test_weights_elsewhere_are_keyed_by_image_and_draw():
    model, images = zoo.create("vit-d3-h2"), torch.rand(6, 3, 32, 32)
    options = dict(ranks=3, draws=1, place_draws=3)
    whole = ablation_profile(model, batches(images, torch.arange(6)), "*.attn", **options)
    split = ablation_profile(model, batches(images, torch.arange(6), 4), "*.attn", **options)
    for name in ("kl", "right", "margin"):
        for put in ("permuted", "uniform"):
            np.testing.assert_allclose(whole.place[name][put], split.place[name][put], atol=1e-5)
    assert whole.place["kl"]["permuted"].shape == (3, 6)
    assert whole.place["kl"]["uniform"].shape == (1, 6)
    assert (np.ptp(whole.place["kl"]["permuted"], axis=0) > 0).all()
    with pytest.raises(ValueError, match="Only attention weights"):
        ablation_profile(model, [], "blocks.1.mlp.act", "channel", place_draws=1)


def test_middle_positions_come_first_and_other_units_have_no_middle():
    units = units_of(zoo.create("resnet-d8"), "layer3.0.act2", "position")
    n = units.read(torch.rand(1, 3, 32, 32))["layer3.0.act2"].scores.shape[-1]
    near = units.centre("layer3.0.act2", n).reshape(8, 8)
    assert near[3:5, 3:5].unique().tolist() == [-2.0]
    assert near[0, 0] == near.min() == -98
    channels = units_of(zoo.create("resnet-d8"), "layer3.0.act2", "channel")
    with pytest.raises(ValueError, match='no order "centre"'):
        channels.centre("layer3.0.act2", 64)
    with pytest.raises(ValueError, match="cannot be told"):
        units.centre("layer3.0.act2", 60)


def test_the_mass_of_a_set_is_its_share_of_all_responses(linear):
    model, images, labels = linear
    profile = ablation_profile(
        model, batches(images, labels, 4), "act", "channel", draws=2, fixed=["mean map"]
    )
    units = images.flatten(1).relu().double()
    top = units.sort(descending=True).values.cumsum(1) / units.sum(1, keepdim=True)
    np.testing.assert_allclose(profile.mass["top"][0, :, 1:], top, atol=1e-6)
    assert (profile.mass["random"][:, :, 0] == 0).all()
    assert (profile.mass["random"][:, :, -1] == 1).all()
    order = units.mean(0).argsort(descending=True)
    fixed = units[:, order].cumsum(1) / units.sum(1, keepdim=True)
    np.testing.assert_allclose(profile.mass["mean map"][0, :, 1:], fixed, atol=1e-6)
    kl, *_ = by_hand(model, images, labels, order.expand(IMAGES, -1))
    np.testing.assert_allclose(profile.kl["mean map"][0], kl, atol=2e-5)


def test_without_a_class_token_keys_are_ordered_by_what_all_queries_give_them():
    model = zoo.create("vit-d2-h2-gap")
    units = units_of(model, "blocks.1.attn", "attention")
    mass = units.read(torch.rand(2, 3, 32, 32))["blocks.1.attn"].mass
    assert mass.shape == (2, 2, 64)
    torch.testing.assert_close(mass.sum(-1), torch.ones(2, 2))
    assert units.spec("blocks.1.attn", mass, "zero").query_rows == "all"


@pytest.mark.parametrize(
    ("unit", "layer", "n"),
    [
        ("position", "layer3.0.act2", 64),
        ("channel", "layer3.0.act2", 64),
        ("unit", "layer3.0.act2", 4096),
    ],
)
def test_units_of_a_feature_map(unit, layer, n):
    model = zoo.create("resnet-d8")
    images = torch.rand(2, 3, 32, 32)
    maps = {}
    handle = model.layer3[0].act2.register_forward_hook(
        lambda m, a, out: maps.update(x=out.detach())
    )
    units = units_of(model, layer, unit)
    scores = units.read(images)[layer].scores[:, 0]
    handle.remove()
    expected = {
        "position": maps["x"].norm(dim=1).flatten(1),
        "channel": maps["x"].sum((2, 3)),
        "unit": maps["x"].flatten(1),
    }[unit]
    assert scores.shape == (2, n)
    torch.testing.assert_close(scores, expected)


def test_the_tokens_of_a_vit_are_positions_without_its_class_token():
    units = units_of(zoo.create("vit-d1-h2"), "blocks.0.mlp.act", "position")
    shares = torch.zeros(1, 1, 64)
    assert units.read(torch.rand(1, 3, 32, 32))["blocks.0.mlp.act"].scores.shape == (1, 1, 64)
    shares[..., 0] = 1  # the first patch: entries of the second token
    spec = units.spec("blocks.0.mlp.act", shares, "zero")
    assert spec.units.nonzero()[:, 1].tolist() == list(range(256, 512))


def test_groups_hold_every_unit_once_and_are_equal_in_size():
    units = units_of(zoo.create("resnet-d8"), "layer3.0.act2", "unit", groups=64)
    scores = units.read(torch.rand(2, 3, 32, 32))["layer3.0.act2"].scores
    assert scores.shape == (2, 1, 64)
    shares = torch.eye(64)[:, None]
    members = torch.cat([units.spec("layer3.0.act2", s[None], "zero").units for s in shares])
    assert members.sum(0).tolist() == [1] * 4096
    assert members.sum(1).tolist() == [64] * 64


def test_a_scope_of_layers_with_different_numbers_of_units_removes_equal_shares():
    images, labels = torch.rand(4, 3, 32, 32), torch.arange(4)
    model, few = zoo.create("resnet-d8"), dict(ranks=5, draws=1)
    profile = ablation_profile(model, batches(images, labels), "layer?.0.act2", "channel", **few)
    assert profile.n == 16
    assert np.isfinite(profile.kl["random"]).all()


def test_the_mean_can_stand_in_for_what_is_removed():
    images, labels = torch.rand(6, 3, 32, 32), torch.arange(6)
    profile = ablation_profile(
        zoo.create("resnet-d8"),
        iter(batches(images, labels, 3)),
        "layer3.0.act2",
        "channel",
        "mean",
        ranks=3,
        draws=1,
    )
    assert profile.about["value"] == "mean"
    assert profile.kl["top"][0, :, -1].max() > 0


def test_per_class_effects_count_the_images_of_each_class(linear):
    model, images, labels = linear
    profile = ablation_profile(model, batches(images, labels), "act", "channel", draws=2)
    table = profile.per_class(0.5)
    assert table["images"].tolist() == [3, 2, 2, 2]
    first = labels == 0
    top, random = profile.right["top"][0, first, 6], profile.right["random"][:, first, 6].mean(0)
    assert table["top removed"][0] == pytest.approx(top.mean())
    expected = ttest_rel(random, top).confidence_interval()
    assert (table["low"][0], table["high"][0]) == pytest.approx(tuple(expected), nan_ok=True)


def test_the_table_of_curves_is_the_mean_over_images_and_draws(linear):
    model, images, labels = linear
    profile = ablation_profile(model, batches(images, labels), "act", "channel", draws=3)
    table = profile.table().set_index(["order", "k"])
    assert table.loc[("random", 5), "kl"] == pytest.approx(profile.kl["random"][:, :, 5].mean())
    assert table.loc[("top", CHANNELS), "fraction"] == 1
    for name in ("kl", "accuracy", "margin"):
        assert (table[f"{name} low"] <= table[name] + 1e-9).all()
        assert (table[name] <= table[f"{name} high"] + 1e-9).all()
    kl = profile.kl["top"][0, :, 5].astype(float)
    half = (table["kl high"] - table["kl low"])[("top", 5)] / 2
    assert half == pytest.approx(1.96 * kl.std() / 3, rel=0.15)


def test_what_cannot_be_profiled_is_refused(linear):
    model, images, labels = linear
    vit = zoo.create("vit-d1-h2")
    cases = [
        (dict(unit="neuron"), "no units 'neuron'"),
        (dict(order="size"), "no order 'size'"),
        (dict(unit="channel", order="contribution"), "one of attention units"),
        (dict(unit="channel", groups=4), "put into groups"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            units_of(model, "act", **{"unit": "attention", **options})
    with pytest.raises(ValueError, match="neither a map nor tokens"):
        units_of(vit, "head", "channel").read(torch.rand(1, 3, 32, 32))
    with pytest.raises(ValueError, match="fewer than 5000 groups"):
        units_of(zoo.create("resnet-d8"), "layer3.0.act2", "unit", groups=5000).read(
            torch.rand(1, 3, 32, 32)
        )
    with pytest.raises(ValueError, match="hold no images"):
        ablation_profile(model, [], "act", "channel")
    single = ablation_profile(model, batches(images[:1], labels[:1]), "act", "channel", draws=1)
    with pytest.raises(ValueError, match="has no interval"):
        single.summary()
