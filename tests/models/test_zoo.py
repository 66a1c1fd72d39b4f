"""The zoo: what loads, and what is said when something does not."""

import csv
import hashlib
import json
import os
import shlex
import shutil
import subprocess
from itertools import islice
from types import SimpleNamespace

import huggingface_hub
import pytest
import safetensors.torch
import timm
import torch
import torchvision

from experiments.training.trainer import accuracy, publish, train
from utils import fetching
from utils.models import zoo
from utils.models.architectures import Spec, build, forward_flops
from utils.models.checkpoints import CheckpointError, HubUnavailable
from utils.stimuli import image_folder, objects

# Of the shipped zoo, what a small copy of it holds.
PART = {"cifar10", "manifest.json", "vit-d6-h4.safetensors"}


@pytest.fixture
def small_zoo(tmp_path, monkeypatch, tiny_data, tiny_recipe):
    """A zoo of one tiny model in place of the embedded one."""
    monkeypatch.setattr(zoo, "FOLDER", tmp_path / "zoo")
    publish(train("vit-d1-h2-w8", tiny_data, tiny_data, tiny_recipe, tmp_path), tiny_data)
    return tmp_path / "zoo"


# What the repository ships.


def test_every_embedded_file_has_the_size_and_hash_of_the_manifest():
    kept = [entry for entry in zoo.manifest().values() if entry["file"]]
    for entry in kept:
        content = (zoo.FOLDER / entry["file"]).read_bytes()
        assert len(content) == entry["bytes"]
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
    assert sum(entry["bytes"] for entry in kept) < 45e6


def test_every_embedded_file_is_in_the_manifest():
    files = {str(file.relative_to(zoo.FOLDER)) for file in zoo.FOLDER.rglob("*.safetensors")}
    assert files == {entry["file"] for entry in zoo.manifest().values() if entry["file"]}


@pytest.mark.slow
def test_manifest_counts_agree_with_the_models():
    for name, entry in zoo.manifest().items():
        model = zoo.architecture(name)
        assert entry["params"] == sum(parameter.numel() for parameter in model.parameters())
        assert entry["flops"] == forward_flops(model)


@pytest.mark.slow
def test_one_model_of_each_family_reaches_its_stated_accuracy():
    stated = zoo.catalog("objects").drop_duplicates("family").set_index("name")["accuracy"]
    assert {"vit-d6-h4", "resnet-d20"} <= set(zoo.manifest())
    test = objects.load("test", n=None)
    for name, expected in stated.items():
        assert accuracy(zoo.load(name), test.images, test.labels) == pytest.approx(
            expected, abs=0.005
        )


@pytest.mark.slow
def test_efficientnet_lite0_reaches_87_percent_on_labelled_photographs(shared_data):
    folder = shared_data / "imagenet_ccby"
    model = zoo.load("efficientnet-lite0")
    prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    with (folder / "labels.csv").open(encoding="utf-8") as table:
        labels = {row["file"]: int(row["class_index"]) for row in csv.DictReader(table)}
    hits = 0
    with torch.no_grad():
        for file, picture in image_folder.read(folder / "images.tar"):
            hits += int(model(prepare(picture)[None]).argmax() == labels[file])
    assert len(labels) == 500
    assert hits / len(labels) >= 0.87


@pytest.mark.slow
def test_squeezenet_decides_as_with_the_transforms_of_torchvision(shared_data, hub_folder):
    stored = shared_data.parent / "weights" / "squeezenet1_1_torchvision_fp16.pth"
    (hub_folder / "squeezenet1_1-b8a52dc0.pth").symlink_to(stored.resolve())
    model = zoo.load("torchvision/squeezenet1_1")
    ours = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
    theirs = torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.transforms()
    with torch.no_grad():
        for _, picture in islice(image_folder.read(shared_data / "imagenet_ccby/images.tar"), 20):
            logits = model(ours(picture)[None])
            assert torch.allclose(logits, model(theirs(picture)[None]), atol=1e-4)


# Loading.


@pytest.fixture
def hub_folder(tmp_path, monkeypatch):
    """Where torch keeps downloaded weights, empty."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


def test_a_torchvision_model_loads_from_the_hub_folder_with_a_warning_if_it_is_another_file(
    hub_folder,
):
    torch.manual_seed(1)
    stored = torchvision.models.squeezenet1_1()
    file = hub_folder / "squeezenet1_1-b8a52dc0.pth"
    torch.save(stored.state_dict(), file)
    with pytest.warns(UserWarning, match=r"b8a52dc0\.pth is not the file that torchvision"):
        loaded = zoo.load("torchvision/squeezenet1_1")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert zoo.fingerprint("torchvision/squeezenet1_1") == digest
    assert not loaded.training
    for key, value in stored.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_torchvision_weights_out_of_reach_name_what_loads_without_them(
    hub_folder, monkeypatch, small_zoo
):
    monkeypatch.setattr(torch.hub, "urlopen", failing_with(OSError("no connection")))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(
        HubUnavailable,
        match=r"of squeezenet1_1 are not .* \(no connection\).* efficientnet-lite0, vit-d1-h2",
    ):
        zoo.load("torchvision/squeezenet1_1")


def test_a_loaded_model_has_the_stored_weights_in_float32_and_eval_mode(small_zoo):
    model = zoo.load("vit-d1-h2-w8")
    stored = safetensors.torch.load_file(small_zoo / "vit-d1-h2-w8.safetensors")
    assert not model.training
    for key, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert stored[key].dtype == torch.float16
        assert torch.equal(value, stored[key].float())


def test_canonical_and_short_name_load_the_same_model(small_zoo):
    image = torch.rand(1, 3, 32, 32)
    short, canonical = zoo.load("vit-d1-h2-w8"), zoo.load("objects/vit-d1-h2-w8-s0")
    assert torch.equal(short(image), canonical(image))


def test_catalog_describes_embedded_and_packaged_models(small_zoo):
    table = zoo.catalog().set_index("name")
    assert list(table.index) == ["efficientnet-lite0", "vit-d1-h2-w8"]
    row = table.loc["vit-d1-h2-w8"]
    assert (row.family, row.rung, row.depth, row.heads, row.width) == ("vit", "objects", 1, 2, 8)
    assert (row.head_dim, row.seed, row.data_fraction) == (4, 0, 1.0)
    assert (row.trained_on, row.source) == ("objects", "embedded")
    assert 0 <= row.accuracy <= 1
    assert list(zoo.catalog("imagenet")["name"]) == ["efficientnet-lite0"]


def test_catalog_row_of_efficientnet_lite0_agrees_with_the_model():
    row = zoo.catalog("imagenet").iloc[0]
    model = zoo.load("efficientnet-lite0")
    with torch.utils.flop_counter.FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 224, 224))
    assert row.params == sum(parameter.numel() for parameter in model.parameters())
    assert row.flops == counter.get_total_flops()


def test_efficientnet_lite0_says_how_images_are_prepared():
    config = timm.data.resolve_model_data_config(zoo.load("efficientnet-lite0"))
    assert config["mean"] == config["std"] == (0.5, 0.5, 0.5)
    assert (config["interpolation"], config["crop_pct"]) == ("bicubic", 0.875)
    assert config["input_size"] == (3, 224, 224)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["vit-d1-h2", "resnet-d8", "efficientnet-lite0", "test_vit", "torchvision/squeezenet1_1"],
)
def test_random_weights_are_the_same_every_time(name):
    first, second = zoo.create(name).state_dict(), zoo.create(name).state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)


# Bad input.


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("efficient-lite0", "efficientnet-lite0"),
        ("resnet_18", "resnet18"),
        ("vit_d1_h2_w8", "vit-d1-h2-w8"),
        ("resnet50.a9_in1k", "resnet50"),
        ("torchvision/squeezenet1_2", "torchvision/squeezenet1_1"),
    ],
)
def test_an_unknown_name_brings_the_nearest_names(small_zoo, name, nearest):
    with pytest.raises(zoo.UnknownModel, match=f"no model '{name}'; did you mean .*{nearest}"):
        zoo.load(name)


def test_a_name_like_no_other_points_to_the_catalog():
    with pytest.raises(zoo.UnknownModel, match=r"zoo\.catalog\(\) lists"):
        zoo.create("qqqqqqqqqqqqqqqq")


def test_an_untrained_model_says_how_to_train_it(small_zoo):
    with pytest.raises(
        zoo.UnknownModel,
        match=r"vit-d2-h2-w8 has not been trained; .* vit-d1-h2-w8\. .*train vit-d2-h2-w8",
    ):
        zoo.load("vit-d2-h2-w8")


def test_a_model_without_weights_on_the_hub_is_refused():
    with pytest.raises(zoo.UnknownModel, match="no weights for botnet50ts_256"):
        zoo.load("botnet50ts_256")


def test_an_unknown_rung_names_the_rungs():
    known = "objects, cifar10, imagenet"
    with pytest.raises(ValueError, match=rf"no rung 'cifar'; choose one of {known}"):
        zoo.catalog("cifar")


def test_a_damaged_checkpoint_is_named_and_never_loaded(small_zoo):
    file = small_zoo / "vit-d1-h2-w8.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"zoo/vit-d1-h2-w8\.safetensors is damaged .*; put back a sound"
    ):
        zoo.load("vit-d1-h2-w8")


def test_a_missing_checkpoint_is_named(small_zoo):
    (small_zoo / "vit-d1-h2-w8.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"zoo/vit-d1-h2-w8\.safetensors is missing; put"):
        zoo.load("vit-d1-h2-w8")


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize("name", ["vit-d6-h4", "cifar10/vit-d6-h4"])
def test_the_remedy_for_a_missing_checkpoint_restores_it_from_any_folder(
    tmp_path, monkeypatch, name
):
    def git(*arguments):
        given = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
        subprocess.run(given, cwd=tmp_path, check=True, capture_output=True)

    shutil.copytree(zoo.FOLDER, tmp_path / "zoo", ignore=lambda _, names: {*names} - PART)
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.setattr(fetching, "ROOT", tmp_path)
    monkeypatch.setattr(zoo, "FOLDER", tmp_path / "zoo")
    monkeypatch.setattr(zoo, "SHIPPED", tmp_path / "zoo")
    (tmp_path / "chapters").mkdir()
    for file in (tmp_path / f"zoo/{name}.safetensors", tmp_path / "zoo/manifest.json"):
        before = file.read_bytes()
        file.unlink()
        with pytest.raises(CheckpointError, match="is missing; restore it with `git") as refused:
            zoo.load(name)
        command = str(refused.value).split("`")[1]
        subprocess.run(shlex.split(command), cwd=tmp_path / "chapters", check=True)
        assert file.read_bytes() == before


def test_a_model_whose_weights_are_not_kept_is_known_but_not_listed(small_zoo):
    file = small_zoo / "manifest.json"
    entries = json.loads(file.read_text(encoding="utf-8"))
    entries["vit-d1-h2-w8"]["file"] = None
    file.write_text(json.dumps(entries), encoding="utf-8")
    assert "vit-d1-h2-w8" in zoo.manifest()
    assert "vit-d1-h2-w8" not in set(zoo.catalog("objects")["name"])
    with pytest.raises(
        CheckpointError, match=r"are not kept .* `python -m experiments train vit-d1"
    ):
        zoo.load("vit-d1-h2-w8")


def test_weights_that_are_not_kept_are_found_where_they_were_trained(
    small_zoo, tmp_path, monkeypatch, tiny_data
):
    monkeypatch.setattr(zoo, "RUNS", tmp_path)
    before = zoo.load("vit-d1-h2-w8").state_dict()
    publish(tmp_path / "vit-d1-h2-w8", tiny_data, kept=False)
    (small_zoo / "vit-d1-h2-w8.safetensors").unlink()
    assert zoo.manifest()["vit-d1-h2-w8"]["file"] is None
    found = zoo.load("vit-d1-h2-w8").state_dict()
    assert all(torch.equal(before[key], found[key]) for key in before)
    (tmp_path / "vit-d1-h2-w8" / "final.safetensors").write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"is damaged .* delete .*vit-d1-h2-w8 and train it"):
        zoo.load("vit-d1-h2-w8")


def test_a_damaged_manifest_is_named(small_zoo):
    (small_zoo / "manifest.json").write_text('{"vit-d1', encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"zoo/manifest\.json is damaged"):
        zoo.catalog()


def test_a_damaged_package_file_says_how_to_reinstall(monkeypatch):
    monkeypatch.setattr(zoo, "LITE0_SHA256", "0" * 64)
    with pytest.raises(CheckpointError, match=r"57934424\.pth is damaged .* --force-reinstall"):
        zoo.load("efficientnet-lite0")


# The hub, played by stand-ins.


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that lists test_vit and delivers weights of ours."""
    weights = tmp_path / "model.safetensors"
    safetensors.torch.save_file(timm.create_model("test_vit").state_dict(), weights)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    entry = SimpleNamespace(
        rfilename="model.safetensors", size=1_600_000, lfs=SimpleNamespace(sha256=digest)
    )
    info = SimpleNamespace(sha="main", siblings=[entry])

    def download(*_, **__):
        """What the hub's client does: a file named by its hash, and a link to it."""
        folder = tmp_path / "hub" / "models--timm--test_vit.r160_in1k"
        (folder / "blobs").mkdir(parents=True)
        shutil.copy(weights, folder / "blobs" / entry.lfs.sha256)
        link = folder / "snapshots" / "a1" / "model.safetensors"
        link.parent.mkdir(parents=True)
        link.symlink_to(folder / "blobs" / entry.lfs.sha256)
        return str(link)

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: info)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return SimpleNamespace(weights=weights, entry=entry)


def failing_with(error):
    def fail(*_, **__):
        raise error

    return fail


def test_a_download_says_its_size_first_and_loads(hub, capsys):
    model = zoo.load("test_vit")
    assert "Downloading test_vit, 2 MB" in capsys.readouterr().err
    stored = safetensors.torch.load_file(hub.weights)
    assert torch.equal(model.head.weight, stored["head.weight"])
    assert not model.training


def test_what_was_downloaded_loads_without_the_hub(hub, monkeypatch, capsys):
    zoo.load("test_vit")
    assert "Downloading" in capsys.readouterr().err
    assert zoo.fingerprint("test_vit") == hub.entry.lfs.sha256
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", failing_with(ConnectionError()))
    zoo.load("test_vit")
    assert capsys.readouterr().err == ""


def test_an_unreachable_hub_names_what_loads_without_it(hub, monkeypatch, small_zoo):
    error = ConnectionError("Name or service not known")
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", failing_with(error))
    with pytest.raises(
        HubUnavailable,
        match=r"test_vit are not .* \(Name or service not known\).* efficientnet-lite0, vit-d1-h2",
    ):
        zoo.load("test_vit")


def test_offline_mode_refuses_downloads(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(HubUnavailable, match=r"(?i)\(.*offline.*\)"):
        zoo.load("test_vit")


def test_a_read_only_cache_folder_is_named(hub, monkeypatch):
    error = PermissionError(13, "Permission denied", os.path.join("cache", "hub"))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", failing_with(error))
    with pytest.raises(PermissionError, match=r"cache.hub cannot be written; set HF_HOME"):
        zoo.load("test_vit")


def test_an_interrupted_download_says_how_to_go_on(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", failing_with(KeyboardInterrupt()))
    with pytest.raises(
        KeyboardInterrupt, match=r"download of test_vit was interrupted; .* goes on"
    ):
        zoo.load("test_vit")


def test_a_download_that_breaks_off_says_how_to_go_on(hub, monkeypatch):
    error = TimeoutError("The read operation timed out")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", failing_with(error))
    with pytest.raises(HubUnavailable, match=r"broke off \(The read .*\); load it again"):
        zoo.load("test_vit")


def test_a_download_with_another_hash_is_refused(hub):
    hub.entry.lfs.sha256 = "0" * 64
    with pytest.raises(CheckpointError, match=r"of test_vit are damaged .*; delete the folder "):
        zoo.load("test_vit")


@pytest.mark.parametrize("name", ["resnet-d8-s2", "vit-d2-h2-s1"])
def test_build_and_architecture_agree(name):
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(zoo.architecture(name)(image), build(Spec.parse(name))(image))
