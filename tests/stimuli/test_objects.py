import hashlib
import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional as F

from utils.stimuli import objects, outlines, tiles

# sha256 of the first 100 images as uint8: a change voids every trained model.
GOLDEN = {
    "train": "e1029faa21864a305299774a9dedfd328195f6b5f77636e5f8f04534462e637c",
    "validation": "00032a092216093dbc31f77e619d01a8e14ac005d732171fe9c61f56def35db6",
    "test": "f1a4f661f49901da90b54c0fc39626c810694b289dfc5292e784442fbaa39901",
}
CUE_CONFLICT = "13fa39d6fb487d72fb08d62d580d0601d9085e19739382af746bf0a25e8c846a"


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


def test_a_viewer_of_both_cues_has_the_stated_loss(scenes):
    # The posterior by Bayes' rule from the three numbers that define the cues.
    right, other = 0.95, 0.05 / 9

    def nats(shape, texture, label):
        each = [
            (right if shape == k else other) * (right if texture == k else other) for k in range(10)
        ]
        return -np.log(each[label] / sum(each))

    drawn = everything(scenes)
    losses = [nats(scene.shape, scene.texture, scene.label) for scene in drawn]
    assert objects.BEST_LOSS == pytest.approx(0.0842, abs=1e-4)
    assert np.mean(losses) == pytest.approx(objects.BEST_LOSS, abs=0.012)


def test_four_fifths_of_the_object_lie_in_the_picture(scenes):
    for scene in scenes["train"][:500]:
        around = outlines.raster(scene.outline + objects.SIZE, 3 * objects.SIZE)
        inside = around[objects.SIZE : 2 * objects.SIZE, objects.SIZE : 2 * objects.SIZE]
        assert inside.sum() >= 0.79 * around.sum()
        assert inside.sum() == pytest.approx(objects.mask(scene).sum(), rel=0.03)


@pytest.mark.slow
def test_objects_roam_over_the_whole_picture():
    mean = np.mean([objects.mask(objects.draw("train", 1, i)) for i in range(5000)], axis=0)
    middle = mean[8:24, 8:24].sum() / mean.sum()  # the central 4×4 of 8×8 patches
    assert middle < 0.40
    patches = mean.reshape(8, 4, 8, 4).mean((1, 3))
    assert patches.min() > 0.2 * patches.mean()


def _boxes(scenes):
    """(photograph, split) → the rectangles that its crops were cut from, [n, 4]."""
    boxes = {}
    for split, drawn in scenes.items():
        for scene in drawn:
            for photograph, left, top, side in filter(None, (scene.object_crop, scene.ground_crop)):
                height, width = objects.luminance(photograph).shape
                assert 0 <= left <= width - side
                assert 0 <= top <= height - side
                boxes.setdefault((photograph, split), set()).add((left, top, side))
    return {key: np.array(sorted(value)) for key, value in boxes.items()}


def test_no_crop_of_one_split_overlaps_a_crop_of_another(scenes):
    boxes = _boxes(scenes)
    photographs = {photograph for photograph, _ in boxes}
    assert len(photographs) == len(objects.SOURCES) + len(objects.BACKGROUNDS)
    for photograph in photographs:
        for one, two in itertools.combinations(objects.SPLITS, 2):
            a, b = boxes[photograph, one][:, None], boxes[photograph, two][None]
            side = np.minimum(a[..., 2], b[..., 2])
            overlap = (abs(a[..., 0] - b[..., 0]) < side) & (abs(a[..., 1] - b[..., 1]) < side)
            assert not overlap.any(), (photograph, one, two)


def test_every_split_cuts_from_tiles_all_over_the_photograph(scenes):
    for photograph, zoom in (*objects.SOURCES.values(), ("camera", objects.BACKGROUND_ZOOM)):
        cut = tiles.tiles(photograph, zoom * objects.SIZE)
        height, width = objects.luminance(photograph).shape
        for split in objects.SPLITS:
            own = [tile for tile in cut if tile.split == split]
            assert len(own) >= 2, (photograph, split)
            spread = max(
                (max(t.bottom for t in own) - min(t.top for t in own)) / height,
                (max(t.right for t in own) - min(t.left for t in own)) / width,
            )
            assert spread >= 0.5, (photograph, split)


def test_a_picture_can_be_rendered_again():
    for cue in ("both", "shape", "texture"):
        scene = objects.draw("test", 0, 3, cue=cue)
        assert np.array_equal(objects.render(scene), objects.render(scene))


def test_an_even_surface_stays_even():
    weight = np.ones((4, 4))
    assert (objects._standardise(np.full((4, 4), 0.3), weight) == 0).all()
    found = objects._standardise(np.arange(16.0).reshape(4, 4), weight)
    assert (found.mean(), found.std()) == pytest.approx((0, 1))


def test_twenty_images_cost_twenty_renderings(monkeypatch):
    rendered = []
    monkeypatch.setattr(objects, "render", lambda r: rendered.append(r) or np.zeros((3, 32, 32)))
    assert torch.equal(objects.labels("test", 200)[:20], objects.load("test", 20).labels)
    assert len(rendered) == 20


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
        # Of contrast .032: the few galaxies on black are clipped where they are brightest.
        assert between < 0.04 * np.var(values), name


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


def small_cnn() -> nn.Module:
    layers, inputs = [], 3
    for width in (32, 64, 96):
        layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
        inputs = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 10))


def recognised(cue, images=20_000, epochs=5):
    """What a small CNN that is trained on one cue gets right of it: split → [cues], and in all."""
    torch.manual_seed(0)
    train = objects.load("train", images, cue=cue)
    model = small_cnn()
    optimiser = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, 4e-3, total_steps=epochs * (images // 128)
    )
    for _ in range(epochs):
        for rows in torch.randperm(images)[: images // 128 * 128].view(-1, 128):
            loss = F.cross_entropy(model(train.images[rows] - 0.5), train.labels[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    model.eval()
    found = {}
    for split in ("validation", "test"):
        rights, cues = [], []
        for seed in (0, 1):  # ten thousand images: half a thousand of one cue scatter too much
            held_out = objects.load(split, 5000, seed, cue)
            with torch.inference_mode():
                parts = [model(part - 0.5).argmax(1) for part in held_out.images.split(500)]
            cues.append(getattr(held_out, cue))
            rights.append((torch.cat(parts) == cues[-1]).float())
        right, shown = torch.cat(rights), torch.cat(cues)
        found[split] = torch.stack([right[shown == k].mean() for k in range(10)])
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_small_cnn_learns_either_cue_equally_well_and_each_texture_and_shape_in_every_split():
    found = {cue: recognised(cue) for cue in ("shape", "texture")}
    for cue, names in (("shape", objects.SHAPES), ("texture", objects.TEXTURES)):
        apart = 100 * (found[cue]["validation"] - found[cue]["test"]).abs()
        assert apart.max() <= 8, (cue, dict(zip(names, apart.tolist(), strict=True)))
        assert found[cue]["test"].min() >= 0.5, cue
    overall = {cue: splits["validation"].mean() for cue, splits in found.items()}
    assert min(overall.values()) > 0.7
    assert abs(overall["shape"] - overall["texture"]) <= 0.05


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
