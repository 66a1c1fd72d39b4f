"""Random weights with batch normalisation: what one pass of training images sets, and what not."""

import pytest
import torch
from torch import nn

from utils.models import calibration, zoo
from utils.models.architectures import Spec, build
from utils.models.calibration import calibrate, normalised, training_images
from utils.probes import ActivationRecorder
from utils.stimuli import datasets, objects

RUNNING = ("running_mean", "running_var", "num_batches_tracked")
SMALL = ["resnet-d8", "plain-d8-s1", "hybrid-d1-h2", "test_resnet", "test_efficientnet"]


def inputs_of(model, images):
    """Mean and variance of what enters each layer of batch normalisation, by plain hooks, as the
    model is used."""
    seen = {}

    def note(name):
        def hook(_, inputs):
            x = inputs[0]
            over = [0, *range(2, x.ndim)]  # all but the channels, of which few are float64 at once
            parts = [torch.var_mean(some.double(), over) for some in x.split(16, dim=1)]
            var, mean = map(torch.cat, zip(*parts, strict=True))
            seen[name] = mean, var

        return hook

    handles = [m.register_forward_pre_hook(note(k)) for k, m in normalised(model).items()]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return seen


def assert_calibrated(name):
    model = zoo.create(name)
    seen = inputs_of(model, training_images(name, model))
    assert seen.keys() == normalised(model).keys() != set()
    # Where there are few positions, var / n and var / (n − 1) differ, layer after layer.
    within = 1e-4 if Spec.parse(name) else 0.02
    for layer, (mean, var) in seen.items():
        kept = model.get_submodule(layer)
        assert ((kept.running_mean - mean).abs() < within * var.sqrt()).all()
        assert ((kept.running_var / var - 1).abs() < within).all()


@pytest.mark.parametrize("name", SMALL)
def test_statistics_are_those_of_what_enters_each_layer(name):
    assert_calibrated(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet-lite0", "torchvision/mobilenet_v3_small"])
def test_statistics_of_a_larger_model_are_those_of_what_enters_each_layer(name):
    assert_calibrated(name)


@pytest.mark.slow
def test_a_model_of_cifar10_is_calibrated_on_cifar10(shared_data):
    assert_calibrated("cifar10/resnet-d8")
    model = zoo.create("cifar10/resnet-d8")
    assert not torch.allclose(model.bn1.running_mean, zoo.create("resnet-d8").bn1.running_mean)


@pytest.mark.slow
def test_hardly_any_unit_of_an_untrained_resnet_is_dead():
    images = objects.load("test", n=500).images

    def dead(model):  # share of units that respond to no image
        layers = [name for name, m in model.named_modules() if isinstance(m, nn.ReLU)]
        with ActivationRecorder(model, layers) as record, torch.no_grad():
            model(images)
        silent = torch.cat([(record.outputs[k] <= 0).all(0).flatten() for k in layers])
        return silent.float().mean().item()

    assert dead(zoo.create("resnet-d14")) < 0.01 < 0.1 < dead(build(Spec.parse("resnet-d14")))


@pytest.mark.parametrize("name", SMALL)
def test_weights_momentum_and_mode_are_left_as_they_were(name):
    model, built = zoo.create(name), zoo.architecture(name)
    fresh = built.state_dict()
    for key, value in model.state_dict().items():
        assert torch.equal(value, fresh[key]) or key.endswith(RUNNING)
    for layer, module in normalised(model).items():
        assert module.momentum == normalised(built)[layer].momentum is not None
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("name", ["vit-d2-h2", "mixer-d2", "test_vit", "torchvision/squeezenet1_1"])
def test_a_model_without_batch_normalisation_is_as_built_and_asks_no_image(name, monkeypatch):
    monkeypatch.delattr(zoo, "training_images")
    built = zoo.architecture(name).state_dict()
    assert all(
        torch.equal(value, built[key]) for key, value in zoo.create(name).state_dict().items()
    )


def test_loading_trained_weights_asks_no_image(monkeypatch):
    monkeypatch.delattr(zoo, "training_images")
    zoo.load("efficientnet-lite0")
    zoo.load("resnet-d20")


def test_calibrating_again_changes_nothing_and_draws_nothing():
    model, state = zoo.create("resnet-d8"), torch.get_rng_state()
    first = {key: value.clone() for key, value in model.state_dict().items()}
    calibrate(model, training_images("resnet-d8", model))
    assert all(torch.equal(value, first[key]) for key, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_images_are_the_first_of_the_training_images_and_rendered_once():
    images = training_images("resnet-d8", None)
    assert torch.equal(images, objects.load("train", n=512).images)
    assert training_images("hybrid-d1-h2", None) is images


def test_a_layer_that_evaluation_does_not_reach_stays_as_built():
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.bn, self.aux = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

        def forward(self, x):
            return self.aux(x) if self.training else self.bn(x)

    images = torch.rand(4, 3, 2, 2)
    model = calibrate(Auxiliary(), images)
    assert torch.allclose(model.bn.running_mean, images.mean((0, 2, 3)))
    assert torch.equal(model.aux.running_var, torch.ones(3))


# Bad input.


def test_an_infinite_statistic_names_its_layer():
    images = torch.rand(4, 3, 32, 32)
    images[2, 1, 5, 5] = torch.inf
    with pytest.raises(ValueError, match="statistics of bn1 are not finite on these 4 images"):
        calibrate(build(Spec.parse("resnet-d8")), images)


def test_one_image_is_too_few():
    with pytest.raises(ValueError, match="at least 2 images, not 1"):
        calibrate(build(Spec.parse("resnet-d8")), torch.rand(1, 3, 32, 32))


def test_images_that_do_not_fit_leave_mode_and_momentum_alone():
    model = build(Spec.parse("resnet-d8"))
    with pytest.raises(RuntimeError):
        calibrate(model, torch.rand(4, 1, 32, 32))
    assert not any(module.training for module in model.modules())
    assert model.bn1.momentum == 0.1


def test_missing_images_say_what_they_are_needed_for(tmp_path, monkeypatch):
    monkeypatch.setenv("BOOK_DATA", str(tmp_path))
    monkeypatch.setattr(datasets, "CACHE", tmp_path)
    calibration._first.cache_clear()
    with pytest.raises(
        FileNotFoundError,
        match=r"cifar10/resnet-d8 with random weights needs .*CIFAR-10 is not here.*set BOOK_DATA",
    ):
        zoo.create("cifar10/resnet-d8")
