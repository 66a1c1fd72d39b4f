"""Weights from a file: what is loaded, what is refused and in which words, and products in bf16."""

import pickle

import pytest
import safetensors.torch
import timm
import torch
from torch.nn import functional as F

from utils.models import zoo
from utils.models.checkpoints import CheckpointError
from utils.models.precision import in_bf16

NAME, CLASSES = "test_vit", 7  # one of timm's smallest


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(1)
    return timm.create_model(NAME, num_classes=CLASSES).eval()


@pytest.fixture(scope="module")
def file(trained, tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "own.safetensors"
    safetensors.torch.save_file(trained.state_dict(), file)
    return file


def test_weights_from_a_file_are_those_that_were_saved(trained, file):
    model = zoo.load_file(NAME, file, CLASSES)
    images = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(model(images), trained(images))
    assert not model.training


def test_the_random_twin_has_as_many_classes(file):
    model = zoo.load_file(NAME, file, CLASSES)
    twin = zoo.create(NAME, CLASSES)
    assert twin.head.weight.shape == model.head.weight.shape
    assert not torch.equal(twin.head.weight, model.head.weight)
    assert zoo.create(NAME).num_classes == timm.create_model(NAME).num_classes
    assert zoo.architecture("torchvision/squeezenet1_1", 3).classifier[1].out_channels == 3


def test_an_embedded_model_has_the_classes_that_it_was_trained_on():
    with pytest.raises(ValueError, match=r"vit-d6-h4 has the classes that it was trained on"):
        zoo.architecture("vit-d6-h4", 3)


def cut_short(folder, state):
    file = folder / "cut.safetensors"
    safetensors.torch.save_file(state, file)
    file.write_bytes(file.read_bytes()[:-10])
    return file


def saved(name, save):
    def make(folder, state):
        save(state, folder / name)
        return folder / name

    return make


def whole(state, **changed):
    return {**state, **changed}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (saved("a.pth", torch.save), "a.pth is a pickle, which can run"),
        (
            saved("a.bin", lambda s, f: torch.save(s, f, _use_new_zipfile_serialization=False)),
            "a.bin is a pickle, which can run",
        ),
        (saved("a.safetensors", lambda s, f: f.write_bytes(pickle.dumps(1))), "is a pickle"),
        (cut_short, "cut.safetensors is no safetensors file, or is cut short"),
        (saved("a.safetensors", lambda s, f: f.write_bytes(b"")), "no safetensors file"),
        (lambda folder, state: folder / "none.safetensors", "There is no file"),
        (
            saved(
                "a.safetensors",
                lambda s, f: safetensors.torch.save_file(
                    whole(s, **{"head.weight": torch.zeros(5, 64), "head.bias": torch.zeros(5)}), f
                ),
            ),
            r"2 of another shape \(head.weight \[5, 64\] for \[7, 64\], head.bias .*and the number "
            "of classes, that they are of",
        ),
        (
            saved(
                "a.safetensors",
                lambda s, f: safetensors.torch.save_file(
                    {k: v for k, v in s.items() if "norm" not in k} | {"extra": torch.zeros(1)}, f
                ),
            ),
            r"missing \(.*, …\) and 1 too many \(extra\)",
        ),
    ],
)
def test_other_files_are_answered_by_one_sentence(make, words, trained, tmp_path):
    file = make(tmp_path, trained.state_dict())
    with pytest.raises((CheckpointError, FileNotFoundError), match=words) as error:
        zoo.load_file(NAME, file, CLASSES)
    assert str(error.value).count("\n") == 0
    assert str(error.value).endswith(".")


def test_products_in_bf16_are_rounded_and_all_else_is_not():
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 8)
    x = torch.rand(3, 64)
    exact = layer(x).detach()
    by_hand = F.linear(x.bfloat16(), layer.weight.bfloat16(), layer.bias.bfloat16()).detach()
    rounded = in_bf16(layer)(x)
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, by_hand.float())
    assert 0 < (rounded - exact).abs().max() < 0.02


def test_a_network_in_bf16_answers_almost_as_in_float32(trained, file):
    images = torch.rand(4, 3, 160, 160)
    model = in_bf16(zoo.load_file(NAME, file, CLASSES))
    with torch.no_grad():
        exact, rounded = trained(images), model(images)
    assert 0 < (exact - rounded).abs().max() < 0.03 * exact.abs().max()
