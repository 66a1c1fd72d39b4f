import hashlib
import itertools

import numpy as np
import pytest
import torch
from scipy import stats

from utils.stimuli import objects

# sha256 of the first 100 images as uint8: a change voids every trained model.
GOLDEN = {
    "train": "08e264a89cf168d0448fe91141cc60338b12685d560a62d7defd63014b602789",
    "validation": "ab3c96aaeaa1b642dacdaf30fd1989b08dfb4ea39c5500b9ff4def80122ac309",
    "test": "e50d2fb88c3d6c0f324c3ee99aabf232767790aa5a00114f5e34cf648f3d1f58",
}
CUE_CONFLICT = "b7a9e1b3d3b49481e7506579a19ea5dd32d59deb410003b5774e06ecc1c5e01c"


@pytest.fixture(scope="module")
def scenes():
    return {split: [objects.draw(split, 0, i) for i in range(2000)] for split in objects.SPLITS}


def everything(scenes):
    return [scene for split in scenes.values() for scene in split]


@pytest.mark.parametrize("split", objects.SPLITS)
def test_the_first_hundred_images_are_the_golden_ones(split):
    images = objects.load(split, n=100).images
    pixels = (images * 255).round().to(torch.uint8)
    assert torch.equal(pixels.float() / 255, images)
    assert hashlib.sha256(pixels.numpy().tobytes()).hexdigest() == GOLDEN[split]


def test_the_first_pictures_whose_cues_disagree_are_the_golden_ones():
    images = objects.cue_conflict(n=90).images
    pixels = (images * 255).round().to(torch.uint8)
    assert hashlib.sha256(pixels.numpy().tobytes()).hexdigest() == CUE_CONFLICT


def test_image_i_depends_only_on_split_seed_and_i():
    ten, hundred = objects.load("test", n=10), objects.load("test", n=100)
    assert torch.equal(hundred.images[:10], ten.images)
    assert torch.equal(hundred.labels[:10], ten.labels)
    assert not torch.equal(objects.load("test", n=10, seed=1).images, ten.images)
    assert not torch.equal(objects.load("validation", n=10).images, ten.images)


def test_shapes_types_and_range_are_as_documented():
    stimuli = objects.load("test", n=20)
    assert stimuli.images.shape == (20, 3, 32, 32)
    assert stimuli.images.dtype == stimuli.centre.dtype == torch.float32
    assert 0 <= stimuli.images.min() < stimuli.images.max() <= 1
    assert stimuli.labels.dtype == stimuli.texture.dtype == stimuli.shape.dtype == torch.int64
    assert stimuli.centre.shape == (20, 2)
    assert len(stimuli[:5]) == 5
    assert torch.equal(stimuli[stimuli.labels == 3].labels.unique(), torch.tensor([3]))


def test_each_cue_is_right_in_nineteen_of_twenty_and_the_two_are_independent(scenes):
    drawn = everything(scenes)
    shape = np.array([scene.shape == scene.label for scene in drawn])
    texture = np.array([scene.texture == scene.label for scene in drawn])
    for right in (shape, texture):
        assert stats.binomtest(int(right.sum()), len(right), 0.95).pvalue > 0.001
    table = [[(shape & texture).sum(), (shape & ~texture).sum()]]
    table += [[(~shape & texture).sum(), (~shape & ~texture).sum()]]
    assert stats.chi2_contingency(table).pvalue > 0.001


def test_classes_are_balanced(scenes):
    counts = np.bincount([scene.label for scene in everything(scenes)], minlength=10)
    assert stats.chisquare(counts).pvalue > 0.001


def test_a_viewer_of_both_cues_reaches_the_stated_ceiling_and_no_more(scenes):
    rng = np.random.default_rng(0)
    drawn = everything(scenes)
    picks = [(scene.shape, scene.texture)[rng.integers(2)] for scene in drawn]
    right = np.mean([pick == scene.label for pick, scene in zip(picks, drawn, strict=True)])
    assert objects.ACCURACY_CEILING == pytest.approx(0.95)
    assert right == pytest.approx(objects.ACCURACY_CEILING, abs=0.012)


def test_the_object_covers_a_quarter_to_three_fifths_of_the_image(scenes):
    covered = [objects.mask(scene).mean() for scene in scenes["train"][:1000]]
    assert 0.25 <= min(covered) <= max(covered) <= 0.60


def test_splits_cut_from_regions_at_least_32_pixels_apart(scenes):
    columns = {}
    for split, drawn in scenes.items():
        for scene in drawn:
            for crop in filter(None, (scene.object_crop, scene.ground_crop)):
                photograph, left, top, side = crop
                height, width = objects.luminance(photograph).shape
                assert 0 <= left <= width - side
                assert 0 <= top <= height - side
                columns.setdefault(photograph, {}).setdefault(split, []).append((left, left + side))
    assert len(columns) == len(objects.SOURCES) + len(objects.BACKGROUNDS)
    for photograph, spans in columns.items():
        ends = [(min(a for a, _ in spans[s]), max(b for _, b in spans[s])) for s in objects.SPLITS]
        for (_, stop), (start, _) in itertools.pairwise(ends):
            assert start - stop >= 32, photograph


def test_neither_mean_luminance_nor_contrast_nor_tint_tells_the_texture(scenes):
    seen = {"mean": [], "contrast": [], "red": []}
    texture = []
    for scene in scenes["train"]:
        inside = objects.mask(scene) > 0.99
        picture = objects.render(scene)[:, inside] / 255
        grey = (picture / scene.tint[0][:, None]).mean(0)
        seen["mean"].append(grey.mean())
        seen["contrast"].append(grey.std())
        seen["red"].append(picture[0].mean() / picture.mean())
        texture.append(scene.texture)
    texture = np.array(texture)
    for name, values in seen.items():
        groups = [np.array(values)[texture == k] for k in range(10)]
        between = np.var([group.mean() for group in groups])
        assert between < 0.03 * np.var(values), name


def test_a_neutral_cue_is_marked_and_leaves_the_other_as_it_was():
    both = objects.load("test", n=20)
    shape = objects.load("test", n=20, cue="shape")
    texture = objects.load("test", n=20, cue="texture")
    assert (shape.texture == -1).all()
    assert (texture.shape == -1).all()
    assert torch.equal(shape.shape, both.shape)
    assert torch.equal(texture.texture, both.texture)
    assert torch.equal(shape.labels, texture.labels)


def test_cue_conflict_holds_every_ordered_pair_once_in_ninety():
    stimuli = objects.cue_conflict(n=180)
    for block in (stimuli[:90], stimuli[90:]):
        pairs = set(zip(block.shape.tolist(), block.texture.tolist(), strict=True))
        assert len(pairs) == 90
    assert (stimuli.shape != stimuli.texture).all()
    assert torch.equal(stimuli.labels, stimuli.shape)
    assert torch.equal(objects.cue_conflict(n=7).images, stimuli.images[:7])


def test_outlines_have_unit_area_and_their_centroid_at_the_origin():
    for outline in objects.outlines():
        following = np.roll(outline, -1, axis=0)
        cross = outline[:, 0] * following[:, 1] - outline[:, 1] * following[:, 0]
        assert abs(cross.sum()) / 2 == pytest.approx(1)
        centroid = ((outline + following) * cross[:, None]).sum(0)
        assert centroid == pytest.approx([0, 0], abs=1e-9)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: objects.load("tset"), "no split 'tset'; choose one of train, validation, test"),
        (lambda: objects.load(n=0), "10,000 stimuli, so n must lie between 1 and that; got 0"),
        (lambda: objects.load(n=10_001), "n must lie between 1 and that; got 10001"),
        (lambda: objects.load(cue="colour"), "no cue 'colour'; choose 'both'"),
        (lambda: objects.cue_conflict(n=0), "n of at least 1, got 0"),
    ],
)
def test_bad_input_is_answered_by_one_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()
