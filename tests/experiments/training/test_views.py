"""What a model sees in training: fixed images, or fresh ones in every epoch."""

import numpy as np
import torch

from experiments.training.views import Fixed, Fresh
from utils.stimuli import objects


def test_fixed_images_are_the_same_in_every_epoch():
    images, labels = torch.rand(5, 3, 4, 4), torch.arange(5)
    views = Fixed(images, labels)
    assert len(views) == 5
    assert all(torch.equal(views.epoch(e)[0], images) for e in (0, 7))
    assert views.digest != Fixed(images / 2, labels).digest
    assert views.digest != Fixed(images, labels.flip(0)).digest


def test_every_epoch_has_fresh_images_of_the_training_split(tmp_path):
    views = Fresh(20, tmp_path)
    seen = [views.epoch(e) for e in (0, 1)]
    for e, (images, labels) in enumerate(seen):
        there = objects.load("train", 20, seed=e)
        assert images.dtype == torch.uint8
        assert torch.equal(images.float() / 255, there.images)
        assert torch.equal(labels, there.labels)
    assert not torch.equal(seen[0][0], seen[1][0])


def test_what_was_rendered_is_not_rendered_again(tmp_path, monkeypatch):
    before = Fresh(5, tmp_path).epoch(0)[0]
    again = Fresh(5, tmp_path)
    again.digest  # noqa: B018  (it renders a hundred images, before rendering is forbidden)
    monkeypatch.setattr(objects, "render", None)
    assert np.array_equal(again.epoch(0)[0], before)
    assert not list(tmp_path.glob("*.tmp*"))
