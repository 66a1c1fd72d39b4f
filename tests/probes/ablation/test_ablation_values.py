"""What a spec's own tensor puts in, and mass spread evenly, against an eager hook in float64."""

import pytest
import timm
import torch
from helpers.naive_ablation import lively
from helpers.small_models import BATCH, DEPTH, embedded, noise, random_keys, row, vit

from utils.probes import AblationSpec, Ablator, ActivationRecorder, AttentionProbe, keyed_orders
from utils.probes.ablation.draws import keyed_others

PATCHES = 9


def by_hook(model, layer, images, change):
    """Logits with `change` made to the map [batch, heads, queries, keys] of a layer, unfused."""
    attention = model.get_submodule(layer)
    fused, attention.fused_attn = attention.fused_attn, False
    hook = attention.attn_drop.register_forward_hook(lambda m, a, weights: change(weights.clone()))
    try:
        with torch.no_grad():
            return model(images)
    finally:
        hook.remove()
        attention.fused_attn = fused


def places(heads=3, seed=0):
    """Keys [batch, heads, 1 + patches]: the class token's where it is, the patches' permuted."""
    orders = keyed_orders(seed, torch.arange(BATCH), 0, (heads, PATCHES)) + 1
    return torch.nn.functional.pad(orders, (1, 0))


def patches(heads=3):
    return torch.nn.functional.pad(torch.ones(BATCH, heads, PATCHES), (1, 0))


def permuted(rows):
    def change(weights):
        for image in range(BATCH):
            for head in range(3):
                where = places()[image, head]
                weights[image, head, rows] = weights[image, head, rows][:, where]
        return weights

    return change


def even(rows):
    def change(weights):
        mass = weights[:, :, rows, 1:].sum(-1, keepdim=True)
        weights[:, :, rows, 1:] = mass / PATCHES
        return weights

    return change


@pytest.mark.parametrize("block", range(DEPTH))
@pytest.mark.parametrize(("rows", "pool"), [("class", "token"), ("all", "token"), ("all", "avg")])
def test_weights_at_other_places_and_spread_evenly_are_those_of_an_eager_hook(block, rows, pool):
    model, images = vit(global_pool=pool).double(), noise(48).double()
    layer, which = f"blocks.{block}.attn", slice(0, 1) if rows == "class" else slice(None)
    options = dict(keys=patches(), query_rows=rows)
    found = Ablator(model).run(
        images,
        [AblationSpec(layer, value=v, **options) for v in (places(), "uniform")],
    )
    for logits, change in zip(found, (permuted(which), even(which)), strict=True):
        expected = by_hook(model, layer, images, change)
        torch.testing.assert_close(logits, expected, atol=1e-6, rtol=0)
    assert (found[0] - found[1]).abs().max() > 1e-3


@pytest.mark.parametrize("block", range(DEPTH))
def test_rows_of_other_images_are_those_of_an_eager_hook(block):
    model, images = vit().double(), noise(48).double()
    layer = f"blocks.{block}.attn"
    with AttentionProbe(model, layer, rows="all") as probe, torch.no_grad():
        model(images.flip(0))
    maps = probe.maps[layer]

    def change(weights):
        weights[:, :, 0, 1:] = maps[:, :, 0, 1:]
        return weights

    specs = [
        AblationSpec(layer, keys=patches(), value=maps[:, :, 0]),
        AblationSpec(layer, keys=patches(), value=maps),
        AblationSpec(layer, heads=[0, 1, 2], value=maps, query_rows="all"),
    ]
    expected = by_hook(model, layer, images, change)
    found = Ablator(model).run(images, specs)
    torch.testing.assert_close(found[0], expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(found[1], expected, atol=1e-6, rtol=0)
    expected = by_hook(model, layer, images, lambda weights: maps)
    torch.testing.assert_close(found[2], expected, atol=1e-6, rtol=0)


def test_part_of_a_row_is_replaced_by_shares():
    model, images = vit().double(), noise(48).double()
    shares = torch.rand(BATCH, 3, 10, generator=torch.Generator().manual_seed(2))
    given = torch.rand(BATCH, 3, 10, generator=torch.Generator().manual_seed(3)).double()

    def change(weights):
        weights[:, :, 0] = torch.lerp(weights[:, :, 0], given, shares.double())
        return weights

    def level(weights):
        row, s = weights[:, :, 0].clone(), shares.double()
        mass = (row * s).sum(-1, keepdim=True)
        weights[:, :, 0] = row * (1 - s) + s * mass / s.sum(-1, keepdim=True)
        return weights

    for block in (1, DEPTH - 1):
        layer = f"blocks.{block}.attn"
        specs = [AblationSpec(layer, keys=shares, value=value) for value in (given, "uniform")]
        found = Ablator(model).run(images, specs)
        for logits, expected in zip(found, (change, level), strict=True):
            torch.testing.assert_close(
                logits, by_hook(model, layer, images, expected), atol=1e-6, rtol=0
            )


@pytest.mark.parametrize(
    ("name", "layer"), [("resnet-d8", "layer2.0.act1"), ("vit-d2-h2", "blocks.1.mlp.act")]
)
def test_what_a_layer_puts_out_for_other_images_can_be_put_in(name, layer):
    model, images = embedded(name), noise()
    with ActivationRecorder(model, layer) as record, torch.no_grad():
        model(images.flip(0))
    others = record.outputs[layer]
    total = others[0].numel()
    mask = torch.rand(BATCH, total, generator=torch.Generator().manual_seed(0)) > 0.5

    def change(module, args, output):
        return torch.where(mask.view_as(output), others, output)

    hook = model.get_submodule(layer).register_forward_hook(change)
    with torch.no_grad():
        expected = model(images)
    hook.remove()
    found = Ablator(model).run(images, [AblationSpec(layer, units=mask, value=others)])
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=1e-5)


def test_a_batch_that_is_split_takes_each_images_own_rows():
    model, images = vit(), noise(48)
    specs = [
        row(block, keys=patches(), value=value)
        for block in (1, 3)
        for value in (places(), torch.rand(BATCH, 3, 10), "uniform")
    ]
    expected = Ablator(model).run(images, specs)
    found = Ablator(model, memory=1).run(images, specs)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_windows_take_values_too():
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=56, depths=(2, 2), embed_dim=32, num_heads=(2, 4)
    )
    images = noise(56, batch=4)
    model = lively(model, images)
    with AttentionProbe(model, rows="all") as probe, torch.no_grad():
        model(images)
    layer, maps = list(probe.maps.items())[1]
    keys = torch.ones(len(maps), maps.shape[1], maps.shape[-1])
    specs = [AblationSpec(layer, keys=keys, value=v, query_rows="all") for v in (maps, "uniform")]
    same, level = Ablator(model, memory=1).run(images, specs)
    with torch.no_grad():
        torch.testing.assert_close(same, model(images), atol=1e-4, rtol=1e-4)
    assert not level.allclose(same, atol=1e-3)


BAD = {
    "shape [3, 3, 1, 4], which is not [3, 3, 1, 10]": torch.rand(BATCH, 3, 4),
    "keys out of range": torch.full((BATCH, 3, 10), 10),
    "unequal numbers of images: [2, 3]": torch.rand(2, 3, 10),
}


@pytest.mark.parametrize("message", BAD)
def test_a_value_that_does_not_fit_is_refused(message):
    model, images = vit(), noise(48)
    with pytest.raises(ValueError, match=message.replace("[", r"\[")):
        Ablator(model).run(images, [row(3, keys=patches(), value=BAD[message])])


def test_only_weights_can_be_moved_or_spread():
    with pytest.raises(ValueError, match="can move attention weights only, not channels"):
        AblationSpec("mlp", channels=[0], value=torch.zeros(1, 3).long())
    with pytest.raises(ValueError, match="cannot even out channels"):
        AblationSpec("mlp", channels=[0], value="uniform")
    assert AblationSpec("attn", keys=random_keys(), value="uniform").value == "uniform"


def test_another_image_depends_on_seed_and_image_alone_and_is_never_the_same():
    index = torch.arange(200)
    found = keyed_others(1, index, 200)
    assert ((found >= 0) & (found < 200) & (found != index)).all()
    for i in (3, 150):
        assert keyed_others(1, index[i : i + 1], 200).equal(found[i : i + 1])
    assert not keyed_others(2, index, 200).equal(found)
    assert keyed_others(0, torch.tensor([0, 1]), 2).tolist() == [1, 0]
    counts = keyed_others(0, torch.arange(4000), 4000).bincount(minlength=4000)
    assert counts.max() < 10  # as of a Poisson variable of mean 1
    for bad in (1, 100):
        with pytest.raises(ValueError, match="another one among"):
            keyed_others(0, index, bad)
