"""Commands on a network whose weights come from a file."""

import hashlib
import json
import subprocess
import sys

import pandas as pd
import pytest
import safetensors.torch
import timm
import torch
from PIL import Image

from experiments.__main__ import main
from experiments.engine.results import with_apart
from utils.models import zoo
from utils.probes import AttentionProbe
from utils.stimuli import datasets

NAME = "test_vit"
CLIP, RIGHT = "vit_base_patch16_clip_quickgelu_224", 0.78  # of the first 100 photographs
# Writes CLIP's weights with a head of ImageNet's classes, where they lie next to the data.
UNPACK = datasets.folder().parent / "weights/clip_vit_b16/unpack.py"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for i in range(6):
        file = folder / f"class{i % 3}" / f"{i}.jpg"
        file.parent.mkdir(exist_ok=True)
        Image.effect_noise((60, 60), 20.0 * (i + 1)).convert("RGB").save(file)
    return folder


def weights(folder, seed, classes=3):
    torch.manual_seed(seed)
    file = folder / f"{seed}-{classes}.safetensors"
    safetensors.torch.save_file(timm.create_model(NAME, num_classes=classes).state_dict(), file)
    return file


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return weights(tmp_path_factory.mktemp("weights"), 1)


def run(command, photographs, file, out, *more, classes="3"):
    given = ["--weights", file, "--num-classes", classes, "--data", photographs, "--out", out]
    return main([str(word) for word in (command, NAME, *given, *more)])


def record(out):
    return json.loads(out.with_suffix(".json").read_text(encoding="utf-8"))


def test_the_record_holds_the_hash_of_the_file_and_the_precision(photographs, file, tmp_path):
    few = ("--measures", "accuracy")
    assert run("measure", photographs, file, tmp_path / "a.csv", *few, "--control", "random") == 0
    assert run("measure", photographs, file, tmp_path / "b.csv", *few, "--bf16") == 0
    own = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    conditions = record(tmp_path / "a.csv")["conditions"]
    assert {name: c["weights"] for name, c in conditions.items()} == {
        f"{NAME} trained": own,
        f"{NAME} random": None,
    }
    assert "precision" not in record(tmp_path / "a.csv")["configuration"]
    said = record(tmp_path / "b.csv")["configuration"]["precision"]
    assert said == "products with weights in bf16"


def test_weights_of_another_hash_are_refused(photographs, file, tmp_path, capsys):
    few = ("--measures", "accuracy")
    assert run("measure", photographs, file, tmp_path / "a.csv", *few) == 0
    other = weights(tmp_path, 2)
    assert run("measure", photographs, other, tmp_path / "a.csv", *few) == 1
    assert "measured with other weights" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["measure", "ablate"])
def test_labels_without_a_class_are_answered_by_one_sentence(
    command, photographs, tmp_path, capsys
):
    two = weights(tmp_path, 1, classes=2)
    with pytest.warns(UserWarning, match="3 classes and the model tells 2 apart"):
        assert run(command, photographs, two, tmp_path / "a.csv", classes="2") == 1
    said = capsys.readouterr().err
    assert "tells 2 classes apart, but the data have a label 2" in said


def test_data_without_labels_are_answered_by_one_sentence(photographs, file, tmp_path, capsys):
    flat = tmp_path / "flat"
    flat.mkdir()
    Image.new("RGB", (8, 8)).save(flat / "0.jpg")
    assert run("measure", flat, file, tmp_path / "a.csv") == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "flat" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["measure", NAME, "vit-d6-h4", "--weights", "a"], "of one model, but 2 are given"),
        (["measure", NAME, "--num-classes", "3"], "give --weights too"),
        (["replicate", "hu2023", "--weights", "a"], "of one model, but 0 are given"),
    ],
)
def test_it_must_be_clear_whose_weights_they_are(arguments, sentence, photographs, capsys):
    assert main([*arguments, "--data", str(photographs)]) == 1
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_a_model_apart_has_tables_of_its_own_that_are_read_with_the_others(
    photographs, file, tmp_path
):
    words = ["replicate", "hu2023", "--model", NAME, "--weights", file, "--num-classes", 3]
    words += ["--data", photographs, "--out", tmp_path]
    assert main([str(word) for word in words]) == 0
    (table,) = with_apart(tmp_path / "imagenet" / "hu2023.csv")
    assert table == tmp_path / "imagenet" / NAME / "hu2023.csv.gz"
    found = pd.read_csv(table)
    assert set(found["model"]) == {NAME}
    assert {"last", "last two"} == set(found["scope"].dropna())


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    if not UNPACK.is_file():
        pytest.skip("CLIP's weights are not on this machine")
    file = tmp_path_factory.mktemp("clip") / "clip.safetensors"
    subprocess.run([sys.executable, UNPACK, file, "--classes"], check=True)
    yield zoo.load_file(CLIP, file, 1000)
    file.unlink()


@pytest.mark.slow
def test_clip_is_right_about_photographs_as_recorded_and_its_maps_are_eager_ones(clip):
    data = datasets.load(datasets.folder() / "imagenet_ccby").prepared_for(clip)
    right, seen, attention = [], {}, clip.blocks[-1].attn
    with torch.no_grad():
        for images, labels, _ in (data.batch(j, 20) for j in range(5)):
            right += (clip(images).argmax(-1) == labels).tolist()
        hook = attention.register_forward_pre_hook(lambda _, given: seen.update(x=given[0]))
        with AttentionProbe(clip, layers=-1, rows="all") as probe:
            clip(images[:2])
        hook.remove()
        q, k, _ = attention.qkv(seen["x"]).unflatten(-1, (3, 12, 64)).permute(2, 0, 3, 1, 4)
    (found,) = probe.maps.values()
    assert torch.allclose(found, (q @ k.mT / 8).softmax(-1), atol=1e-5)
    assert abs(sum(right) / len(right) - RIGHT) <= 0.03
