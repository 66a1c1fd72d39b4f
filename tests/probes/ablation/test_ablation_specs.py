"""How layers and sets of an ablation can be given, and what a spec and an Ablator say of it."""

import pytest
import torch
from helpers.small_models import BATCH, DEPTH, Counter, embedded, noise, row, vit

from utils.probes import AblationSpec, Ablator
from utils.probes.ablation.specs import checked_heads

IMAGES = noise(48)


def same(model, images, given, expected):
    """Whether two specs ablate the same, and change something."""
    intact, (one, other) = Ablator(model).run_with_intact(images, [given, expected])
    return one.allclose(other, atol=1e-5) and not one.allclose(intact, atol=1e-3)


@pytest.mark.parametrize("block", range(DEPTH))
def test_a_module_stands_for_its_name(block):
    model = vit()
    attention, neurons = model.blocks[block].attn, model.blocks[block].mlp.act
    names = f"blocks.{block}.attn", f"blocks.{block}.mlp.act"
    given = AblationSpec(attention, heads=[0, 2])
    assert same(model, IMAGES, given, AblationSpec(names[0], heads=[0, 2]))
    given = AblationSpec(neurons, channels=range(200))
    assert same(model, IMAGES, given, AblationSpec(names[1], channels=range(200)))
    assert Ablator(model).plan(given) == Ablator(model).plan(AblationSpec(names[1], channels=[1]))


def test_the_spec_of_a_module_can_be_used_again_with_another_model():
    model = vit()
    spec = AblationSpec(model.blocks[1].attn, heads=0)
    Ablator(model).run(IMAGES, spec)
    assert spec.layer is model.blocks[1].attn
    with pytest.raises(ValueError, match="This Attention is no layer of the VisionTransformer"):
        Ablator(vit()).run(IMAGES, spec)


def test_the_mean_of_a_module_is_that_of_its_name():
    model = vit()
    ablator = Ablator(model)
    means = ablator.fit_means([IMAGES], [model.blocks[1].attn, model.blocks[2].mlp.act])
    assert list(means) == ["blocks.1.attn", "blocks.2.mlp.act"]
    given = [
        AblationSpec(model.blocks[1].attn, heads=1, value="mean"),
        AblationSpec("blocks.1.attn", heads=[1], value="mean"),
    ]
    one, other = ablator.run(IMAGES, given)
    assert one.equal(other)


def test_a_model_is_no_layer_of_itself():
    model = vit()
    with pytest.raises(ValueError, match="This VisionTransformer is no layer of the Vision"):
        Ablator(model).run(IMAGES, AblationSpec(model, channels=[1]))


def test_an_attention_layer_is_asked_for_by_its_own_module():
    model = vit()
    with pytest.raises(ValueError, match=r"No attention layer .* 'blocks\.1': .* blocks\.1\.attn"):
        Ablator(model).run(IMAGES, AblationSpec(model.blocks[1], heads=0))


def test_one_head_is_given_by_its_number():
    for given, expected in (
        (0, (0,)),
        ([0, 2], (0, 2)),
        (range(3), (0, 1, 2)),
        (torch.tensor(1), (1,)),
        (torch.tensor([2, 1]), (2, 1)),
        ([torch.tensor(1), torch.tensor(2)], (1, 2)),
        ([], ()),
    ):
        assert checked_heads(given, "The ablation") == expected
    one, other = (AblationSpec("blocks.1.attn", heads=heads) for heads in (0, [0]))
    assert same(vit(), IMAGES, one, other)


@pytest.mark.parametrize("block", [1, DEPTH - 1])
@pytest.mark.parametrize("rows", ["class", "all"])
def test_keys_without_a_batch_are_those_of_all_images_and_heads(block, rows):
    model, layer = vit(), f"blocks.{block}.attn"
    shares = torch.rand(10, generator=torch.Generator().manual_seed(0))
    for given, expected in (
        ([1, 2], [[1, 2]] * BATCH),
        (4, [[4]] * BATCH),
        (shares, shares.expand(BATCH, 3, 10)),
        (shares > 0.5, (shares > 0.5).expand(BATCH, 10)),
        (lambda weights: [1, 2], [[1, 2]] * BATCH),
    ):
        one, other = (AblationSpec(layer, keys=k, query_rows=rows) for k in (given, expected))
        assert same(model, IMAGES, one, other)


def test_keys_without_a_batch_fit_any_number_of_windows():
    model = vit()
    spec = AblationSpec("blocks.0.attn", keys=[1, 2], heads=1)
    each = torch.cat([Ablator(model).run(IMAGES[i : i + 1], spec) for i in range(BATCH)], dim=1)
    torch.testing.assert_close(Ablator(model).run(IMAGES, spec), each, atol=1e-5, rtol=1e-5)
    small = Ablator(model, memory=1).run(IMAGES, spec)
    torch.testing.assert_close(small, each, atol=1e-5, rtol=1e-5)


def test_one_channel_and_units_without_a_batch_are_those_of_all_images():
    model, layer = embedded("resnet-d8"), "layer2.0.act1"
    shares = torch.rand(32 * 16 * 16, generator=torch.Generator().manual_seed(0))
    for given, expected in (
        (dict(channels=3), dict(channels=[[3]] * BATCH)),
        (dict(channels=torch.tensor(3)), dict(channels=[3])),
        (dict(units=range(900)), dict(units=[list(range(900))] * BATCH)),
        (dict(units=shares), dict(units=shares.expand(BATCH, -1))),
    ):
        one, other = (AblationSpec(layer, **options) for options in (given, expected))
        assert same(model, noise(), one, other)


def test_the_same_entries_of_all_images_are_checked_against_the_layer():
    for keys, says in (([10], "out of range: 10"), (torch.rand(9), "shares for 9 keys")):
        for block in (0, DEPTH - 1):
            with pytest.raises(ValueError, match=says):
                Ablator(vit()).run(IMAGES, AblationSpec(f"blocks.{block}.attn", keys=keys))
    with pytest.raises(ValueError, match="units out of range: 1920"):
        Ablator(vit()).run(IMAGES, AblationSpec("blocks.1.mlp", units=[1920]))


def largest(weights):
    return weights.topk(2).indices


def test_a_spec_says_what_it_ablates_in_one_line():
    for spec, expected in (
        (
            AblationSpec("blocks.1.attn", heads=0),
            "AblationSpec('blocks.1.attn', heads=(0,), query_rows='class', value='zero')",
        ),
        (
            AblationSpec(vit().blocks[1].attn, keys=largest, query_rows="all"),
            "AblationSpec(Attention, keys=largest, query_rows='all', value='zero')",
        ),
        (
            AblationSpec("act", channels=torch.rand(64), value="mean"),
            "AblationSpec('act', channels=float32[64], value='mean')",
        ),
        (
            AblationSpec("act", units=[[1, 2]] * 3, value=torch.zeros(3, 10)),
            "AblationSpec('act', units=int64[3, 2], value=float32[3, 10])",
        ),
    ):
        assert repr(spec) == expected


def test_an_ablator_says_what_it_has_run_and_knows():
    ablator = Ablator(vit())
    assert repr(ablator) == "<Ablator of VisionTransformer: 4 blocks, no means, nothing run yet>"
    ablator.fit_means([IMAGES], "blocks.1.attn")
    ablator.run(IMAGES, [row(1), row(3)])
    assert repr(ablator) == (
        "<Ablator of VisionTransformer: 4 blocks, means of blocks.1.attn, "
        "ran cached prefix + class-token suffix>"
    )


def test_an_ablator_keeps_its_last_plan_and_counts_what_it_has_run():
    model = vit()
    ablator = Ablator(model)
    assert (ablator.last_plan, ablator.ran.total(), ablator.block_calls) == (None, 0, 0)
    plans = []
    with Counter(model) as counter:
        for conditions in ([row(3), row(3, seed=1)], [row(1), []], [row(0)]):
            plans.append(ablator.plan(conditions))
            ablator.run(IMAGES, conditions)
            assert ablator.last_plan == plans[-1]
        plans.append(ablator.plan([row(1)], intact=True))
        ablator.run_with_intact(IMAGES, [row(1)])
        assert ablator.last_plan == plans[-1]
    assert ablator.block_calls == counter.calls == sum(plan.block_calls for plan in plans)
    assert ablator.ran == {
        "class-token suffix": 2,
        "cached prefix": 2,
        "plain forward": 1,
        "full run": 1,
    }
