import math

import pytest
import torch
from helpers.images import Images
from timm.models.swin_transformer import SwinTransformer
from torch.testing import assert_close

from experiments.engine.metrics import merged
from experiments.tasks.measure import MEASURES, Measurement
from experiments.tasks.tables import rows
from utils.measures import attention_geometry, sparsity
from utils.models import zoo
from utils.probes import ActivationRecorder, AttentionProbe


def measured(model, data, size=8, measures=tuple(MEASURES)):
    measurement = Measurement(model, list(measures))
    for j in range(-(-len(data) // size)):
        measurement.update(*data.batch(j, size))
    found = {}
    for row in rows(merged([measurement.metrics])):
        place = (row["quantity"], row.get("layer"), row.get("unit"))
        found.setdefault(place, []).append(row)
    return found, measurement


def values(found, *place):
    return torch.tensor([row["value"] for row in found[place]], dtype=torch.float64)


@pytest.fixture(scope="module")
def vit():
    data = Images(30)
    model = zoo.create("vit-d2-h2-relu")
    with (
        torch.inference_mode(),
        AttentionProbe(model, rows="all") as probe,
        ActivationRecorder(model, "*act") as record,
    ):
        logits = model(data.batch(0, 30)[0])
    maps = probe.maps["blocks.1.attn"].double()  # [30, heads, 65, 65]
    found, _ = measured(model, data)
    return found, maps, record.outputs["blocks.1.mlp.act"].double(), logits


def test_rows_of_the_class_token_are_measured_for_every_head(vit):
    found, maps, _, _ = vit
    patches, mass = sparsity.patch_rows(maps[:, :, 0], prefix=1)
    place = ("blocks.1.attn", "class")
    expected = sparsity.gini(patches)
    assert_close(values(found, "gini", *place), expected.mean(0), rtol=1e-6, atol=0)
    first = found["gini", *place][0]
    assert first["sd"] == pytest.approx(expected[:, 0].std().item(), rel=1e-5)
    assert first["se"] == pytest.approx(first["sd"] / math.sqrt(30))
    assert (first["n"], first["undefined"], first["depth"]) == (30, 0, 1.0)
    expected = sparsity.treves_rolls(patches).mean(0)
    assert_close(values(found, "treves_rolls", *place), expected, rtol=1e-6, atol=0)
    assert_close(values(found, "prefix_mass", *place), mass.mean(0), rtol=1e-6, atol=0)


def test_the_mean_map_and_the_head_average_stand_beside_the_heads(vit):
    found, maps, _, _ = vit
    patches, _ = sparsity.patch_rows(maps[:, :, 0], prefix=1)
    place = ("blocks.1.attn", "class")
    expected = sparsity.gini(sparsity.mean_map(patches))
    assert_close(values(found, "gini_mean_map", *place), expected, rtol=1e-6, atol=1e-9)
    expected = sparsity.gini(patches.mean(1)).mean()
    assert values(found, "gini_head_average", *place).item() == pytest.approx(expected.item())


def test_the_overlap_is_that_of_other_permutations_within_their_noise(vit):
    found, maps, _, _ = vit
    patches, _ = sparsity.patch_rows(maps[:, :, 0], prefix=1)
    other = sparsity.placement_overlap(patches, torch.Generator().manual_seed(1), 50)
    (overlap,) = values(found, "overlap", "blocks.1.attn", "class").tolist()
    assert overlap == pytest.approx(other.overlap.item(), abs=0.03)


def test_attention_distance_is_in_pixels_and_relative_to_uniform_attention(vit):
    found, maps, _, _ = vit
    place = ("blocks.1.attn", "all")
    expected = attention_geometry.mean_attention_distance(maps, (8, 8), 4, 1).mean(0)
    assert_close(values(found, "distance", *place), expected, rtol=1e-6, atol=0)
    uniform = attention_geometry.uniform_attention_distance((8, 8), 4)
    relative = values(found, "relative_distance", *place)
    assert_close(relative, expected / uniform, rtol=1e-6, atol=0)


def test_activations_are_measured_over_units_and_over_images(vit):
    found, _, rates, _ = vit
    place = ("blocks.1.mlp.act", "position")
    flat = rates.flatten(1)
    expected = sparsity.gini(flat).mean().item()
    assert values(found, "population_gini", *place).item() == pytest.approx(expected, rel=1e-6)
    share = (flat > 0).double().mean().item()
    assert values(found, "active_share", *place).item() == pytest.approx(share, rel=1e-6)
    dead = (flat == 0).all(0)
    assert values(found, "dead_share", *place).item() == dead.double().mean().item()
    (lifetime,) = found["lifetime_vinje_gallant", *place]
    expected = sparsity.vinje_gallant(flat[:, ~dead], dim=0)
    assert lifetime["value"] == pytest.approx(expected.mean().item(), rel=1e-6)
    assert (lifetime["n"], lifetime["undefined"]) == (len(dead), int(dead.sum()))
    channels = rates.mean(1)  # pooled over tokens
    place = ("blocks.1.mlp.act", "channel")
    expected = sparsity.gini(channels).mean().item()
    assert values(found, "population_gini", *place).item() == pytest.approx(expected, rel=1e-6)


def test_accuracy_is_the_share_of_images_that_the_model_is_right_on(vit):
    found, _, _, logits = vit
    expected = (logits.argmax(1) == torch.arange(30) % 10).double().mean().item()
    assert values(found, "accuracy", None, None).item() == pytest.approx(expected)


def test_blocks_are_like_themselves(vit):
    found, *_ = vit
    own = [row["value"] for (q, *_), same in found.items() for row in same
           if q == "cka" and row["layer"] == row["other"]]  # fmt: skip
    assert own == pytest.approx([1.0, 1.0])


def test_without_a_class_token_all_rows_are_read_and_labelled_so():
    found, _ = measured(zoo.create("vit-d2-h2-gap"), Images(6), measures=["attention"])
    assert {unit for _, _, unit in found} == {"all"}


def test_windows_of_an_image_count_as_one_image():
    model = SwinTransformer(
        img_size=32, patch_size=4, window_size=4, embed_dim=8, depths=(1, 1), num_heads=(2, 2)
    ).eval()
    found, measurement = measured(model, Images(6), measures=["attention", "distance"])
    place = ("layers.0.blocks.0.attn", "all")
    with torch.inference_mode(), AttentionProbe(model, rows="all") as probe:
        model(Images(6).batch(0, 6)[0])
    maps = probe.maps[place[0]]  # [6 · 4 windows, heads, 16, 16]
    expected = sparsity.gini(maps).double().mean((0, 2))
    assert_close(values(found, "gini", *place), expected, rtol=1e-6, atol=0)
    assert found["gini", *place][0]["n"] == 6
    assert measurement.skipped[f"distance in {place[0]}"] == "its maps are not of all patches"


def test_measures_that_a_model_has_nothing_for_are_left_out_with_the_reason():
    found, measurement = measured(zoo.create("resnet-d8"), Images(6))
    assert measurement.skipped["attention"] == "the model has no attention"
    assert not any(quantity == "gini" for quantity, *_ in found)


def test_labels_that_a_model_has_no_class_for_are_refused():
    images, labels, index = Images(4).batch(0, 4)
    with pytest.raises(ValueError, match="tells 10 classes apart, but the data have a label 13"):
        Measurement(zoo.create("resnet-d8"), ["accuracy"]).update(images, labels + 10, index)
