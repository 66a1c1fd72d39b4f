"""Labelled images by global index: the same for everyone, and every damage named."""

import hashlib
import pickle
import re
import shutil
import tarfile
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.datasets import CIFAR10

from utils.models import zoo
from utils.stimuli import datasets, minibatches, objects
from utils.stimuli.minibatches import Damaged, Dataset


def picture(file, grey: int, size=(8, 8)):
    """A grey picture that survives JPEG unchanged."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (grey, grey, grey)).save(file)


@pytest.fixture
def folder(tmp_path):
    """Three cats and two dogs, each of another grey, in the order that their names lead to."""
    for i, name in enumerate(ORDER):
        picture(tmp_path / "pets" / name, 10 * i)
    return tmp_path / "pets"


# By the hashes of their names.
ORDER = ("cat/c.png", "dog/d.png", "cat/b.png", "cat/a.png", "dog/e.png")


def archived(folder):
    with tarfile.open(folder.with_suffix(".tar"), "w") as archive:
        archive.add(folder, arcname=folder.name)
    return folder.with_suffix(".tar")


def greys(batch) -> list[int]:
    return [round(255 * image.mean().item()) for image in batch.images]


@pytest.mark.parametrize("place", [lambda folder: folder, archived], ids=["folder", "tar"])
def test_the_class_of_a_photograph_is_the_folder_that_it_is_in(folder, place):
    data = datasets.load(place(folder))
    assert data.classes == ("cat", "dog")
    assert data.names[0].endswith(ORDER[0])
    assert data.labels.tolist() == [name.startswith("dog") for name in ORDER]
    batch = data.batch(1, 2)
    assert greys(batch) == [20, 30]
    assert batch.labels.tolist() == data.labels[2:4].tolist()
    assert batch.index.tolist() == [2, 3]
    assert batch.images.dtype == torch.float32
    assert batch.labels.dtype == batch.index.dtype == torch.int64


def test_the_order_of_two_files_depends_on_no_other_file(folder):
    (folder / ORDER[1]).unlink()
    assert datasets.load(folder).names == [ORDER[0], *ORDER[2:]]


def test_the_first_images_are_of_all_classes(tmp_path):
    for name in (f"{class_}/{i}.png" for class_ in "abcde" for i in range(40)):
        picture(tmp_path / name, 5)
    first = datasets.load(tmp_path).labels[:50]
    assert first.bincount(minlength=5).min() >= 4  # ten expected, −2.3 standard deviations


def test_ranks_that_take_turns_see_what_one_process_sees(folder):
    alone = list(datasets.load(folder).batches(2))
    for rank in (0, 1):
        data = datasets.load(folder)
        for j in range(rank, 3, 2):
            for mine, his in zip(data.batch(j, 2), alone[j], strict=True):
                assert torch.equal(mine, his)
    assert [i for batch in alone for i in batch.index.tolist()] == [0, 1, 2, 3, 4]


def test_reading_many_images_writes_no_bar_where_there_is_no_terminal(capsys, monkeypatch):
    monkeypatch.setattr(minibatches, "CHUNK", 1)
    Dataset("many", torch.zeros(20), ("a",), lambda i: torch.zeros(1, 1, 1)).everything()
    assert capsys.readouterr().err == ""


def test_everything_is_all_minibatches_at_once(folder):
    whole = datasets.load(folder).everything()
    assert greys(whole) == [0, 10, 20, 30, 40]
    assert whole.index.tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(whole.labels, datasets.load(folder).labels)


@pytest.mark.parametrize("ending", [".jpg", ".png"])
def test_a_truncated_image_is_named_skipped_and_collected(tmp_path, ending):
    for i in range(5):
        noise = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        (tmp_path / "cat").mkdir(exist_ok=True)
        Image.fromarray(noise).save(tmp_path / "cat" / f"{i}{ending}")
    data = datasets.load(tmp_path)
    broken = tmp_path / data.names[1]
    broken.write_bytes(broken.read_bytes()[:-500])
    with pytest.warns(UserWarning, match=f"{data.names[1]} is damaged and left out"):
        batch = data.batch(0, 4)
    assert batch.index.tolist() == [0, 2, 3]
    assert len(batch.images) == len(batch.labels) == 3
    assert data.damaged == [data.names[1]]
    assert data.batch(0, 4).index.tolist() == [0, 2, 3]  # and is not warned about again
    assert data.everything().index.tolist() == [0, 2, 3, 4]


def test_an_image_is_a_picture_a_label_and_an_index_and_a_loader_joins_them(folder):
    data = datasets.load(folder)
    image, label, index = data[3]
    assert (round(255 * image.mean().item()), label.item(), index) == (30, 0, 3)
    assert data[-2][2] == 3
    with pytest.raises(IndexError, match="pets has 5 images, no number 5"):
        data[5]
    for loaded, own in zip(DataLoader(data, batch_size=2), data.batches(2), strict=True):
        for one, other in zip(loaded, own, strict=True):
            assert torch.equal(one, other)
            assert one.dtype == other.dtype


def test_a_damaged_image_is_marked_with_its_name_and_the_reason(folder):
    (folder / ORDER[1]).write_bytes(b"nothing")
    data = datasets.load(folder)
    assert data[1] == Damaged(ORDER[1], "it cannot be read as JPEG, PNG, PPM, BMP, GIF, TIFF, WEBP")
    batch, damaged = data.read([0, 1, 2])
    assert batch.index.tolist() == [0, 2]
    assert damaged == {1: data[1]}
    assert not data.damaged  # as long as nobody says that it is left out
    with pytest.warns(
        UserWarning, match=f"{ORDER[1]} is damaged and left out: it cannot be read as"
    ):
        data.leave_out(damaged)
    data.leave_out(damaged)
    assert data.damaged == [ORDER[1]]


def of_cifar10(folder):
    pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    picture = partial(datasets._pixels, pictures)
    return Dataset("cifar10", torch.zeros(5).long(), ("a",), picture)


KINDS = {
    "folder": datasets.load,
    "tar": lambda folder: datasets.load(archived(folder)),
    "subset": lambda folder: datasets.load(folder).subset([4, 0, 2], "some"),
    "prepared": lambda folder: datasets.load(folder).preprocessed(zoo.create("vit-d1-h2")),
    "objects": lambda folder: datasets.load("objects/validation"),
    "conflict": lambda folder: datasets.load("objects/cue-conflict"),
    "cifar10": of_cifar10,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_data_set_that_was_pickled_has_the_same_pictures(folder, kind):
    data = KINDS[kind](folder)
    copied = pickle.loads(pickle.dumps(data))
    assert torch.equal(copied.batch(0, 3).images, data.batch(0, 3).images)
    assert (copied.source, copied.names) == (data.source, data.names)


@pytest.mark.parametrize("kind", KINDS)
def test_the_digest_of_the_same_images_is_the_same_wherever_they_are(folder, kind, tmp_path):
    data = KINDS[kind](folder)
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere" / folder.name)
    assert data.digest == KINDS[kind](elsewhere).digest == pickle.loads(pickle.dumps(data)).digest
    assert data.digest == data.preprocessed({"input_size": (3, 8, 8)}).digest
    assert data.digest != data.subset([0, 2], data.source).digest
    assert re.fullmatch("[0-9a-f]{64}", data.digest)


def test_images_of_other_data_sets_have_other_digests(folder):
    names = ("objects", "objects/validation", "objects/train", "objects/cue-conflict", folder)
    assert len({datasets.load(name).digest for name in names}) == len(names)
    data = datasets.load("objects")
    assert data.subset([0, 10], "some").digest != data.subset([0, 11], "some").digest


def of_another_pixel(folder):
    picture(folder / ORDER[0], 7)


def of_another_name(folder):
    (folder / ORDER[0]).rename(folder / "cat" / "z.png")


def of_another_class(folder):
    (folder / ORDER[0]).rename(folder / "dog" / "c.png")


def of_other_names_of_the_classes(folder):
    (folder / "dog").rename(folder / "dogs")


def with_damage(folder):
    content = bytearray((folder / ORDER[0]).read_bytes())
    content[-20] ^= 1
    (folder / ORDER[0]).write_bytes(content)


@pytest.mark.parametrize(
    "change",
    [of_another_pixel, of_another_name, of_another_class, of_other_names_of_the_classes,
     with_damage],
)  # fmt: skip
def test_the_digest_tells_a_folder_from_one(folder, change):
    before = datasets.load(folder).digest
    change(folder)
    assert datasets.load(folder).digest != before


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_other_processes_read_what_this_one_does(folder, context):
    data = datasets.load(archived(folder))
    loader = DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context=context)
    for loaded, own in zip(loader, data.batches(2), strict=True):
        for one, other in zip(loaded, own, strict=True):
            assert torch.equal(one, other)


def test_a_minibatch_of_nothing_but_damaged_images_is_empty(folder):
    (folder / ORDER[0]).write_bytes(b"nothing")
    with pytest.warns(UserWarning, match="damaged"):
        assert [len(part) for part in datasets.load(folder).batch(0, 1)] == [0, 0, 0]


def test_folders_named_by_synset_have_the_indices_of_imagenet(tmp_path):
    for synset in ("n01440764", "n15075141"):  # tench, toilet tissue
        picture(tmp_path / "val" / synset / "1.png", 5)
    data = datasets.load(tmp_path / "val")
    assert sorted(data.labels.tolist()) == [0, 999]
    assert data.classes[0].startswith("tench")


def test_a_synset_that_is_no_class_of_imagenet_is_named(tmp_path):
    picture(tmp_path / "val" / "n00000001" / "1.png", 5)
    with pytest.raises(ValueError, match="n00000001 in val is no class of ImageNet-1k"):
        datasets.load(tmp_path / "val")


@pytest.mark.parametrize(
    ("place", "prefix"), [(lambda folder: folder, ""), (archived, "pets/")], ids=["in", "beside"]
)
def test_labels_can_stand_in_a_table_whose_order_is_kept(folder, place, prefix):
    path = place(folder)
    files = [prefix + ORDER[4], prefix + ORDER[0]]
    table = pd.DataFrame({"file": files, "class_index": [7, 3]})
    table.to_csv((path if path.is_dir() else path.parent) / "labels.csv", index=False)
    data = datasets.load(path)
    assert data.labels.tolist() == [7, 3]
    assert len(data.classes) == 1000
    assert greys(data.batch(0, 2)) == [40, 0]


def test_a_table_that_does_not_fit_the_files_is_refused(folder):
    table = pd.DataFrame({"file": ["cat/z.png"], "class_index": [1]})
    table.to_csv(folder / "labels.csv", index=False)
    with pytest.raises(ValueError, match=r"lists 1 images that are not there, cat/z\.png first"):
        datasets.load(folder)
    table.drop(columns="class_index").to_csv(folder / "labels.csv", index=False)
    with pytest.raises(ValueError, match="lacks the column class_index"):
        datasets.load(folder)
    table = pd.DataFrame({"file": [ORDER[0]], "class_index": [1000]})
    table.to_csv(folder / "labels.csv", index=False)
    with pytest.raises(ValueError, match="none of ImageNet-1k's 0 … 999"):
        datasets.load(folder)


def test_images_outside_of_any_class_are_refused(folder):
    shutil.copy(folder / ORDER[0], folder / "stray.png")
    with pytest.raises(ValueError, match=r"outside of any class folder \(stray\.png, for one\)"):
        datasets.load(folder)


def test_a_missing_path_and_a_folder_without_images_are_named(tmp_path):
    with pytest.raises(
        FileNotFoundError,
        match=r"no data set, folder or archive .*nothing: the data sets are objects",
    ):
        datasets.load(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no images in"):
        datasets.load(tmp_path / "empty")


def test_a_file_that_is_no_archive_is_named(tmp_path):
    (tmp_path / "broken.tar").write_bytes(b"not an archive" * 100)
    with pytest.raises(ValueError, match=r"broken\.tar cannot be read as an uncompressed \.tar"):
        datasets.load(tmp_path / "broken.tar")


def test_there_is_no_minibatch_behind_the_last(folder):
    with pytest.raises(IndexError, match="pets has 3 minibatches of 2, no number 3"):
        datasets.load(folder).batch(3, 2)


def test_images_of_different_sizes_need_a_model(folder, monkeypatch):
    picture(folder / "cat" / "wide.png", 5, (16, 8))
    with pytest.raises(ValueError, match="differ in size"):
        datasets.load(folder).batch(0, 6)
    monkeypatch.setattr(minibatches, "CHUNK", 1)
    with pytest.raises(ValueError, match="differ in size"):
        datasets.load(folder).everything()
    prepared = datasets.load(folder).preprocessed(zoo.create("vit-d1-h2"))
    assert prepared.batch(0, 6).images.shape == (6, 3, 32, 32)


@pytest.mark.slow
def test_preprocessing_is_what_the_model_asks_for(folder):
    data = datasets.load(folder)
    prepared = data.preprocessed(zoo.create("efficientnet-lite0"))
    # (grey / 255 − .5) / .5, this model's normalisation
    expected = torch.tensor([(10 * i / 255 - 0.5) / 0.5 for i in range(5)])
    images = prepared.batch(0, 5).images
    assert images.shape == (5, 3, 224, 224)
    torch.testing.assert_close(images.mean(dim=(1, 2, 3)), expected, atol=1e-4, rtol=0)
    assert data.batch(0, 5).images.shape == (5, 3, 8, 8)  # left as it was


def test_a_data_configuration_prepares_as_a_model_does(folder):
    config = {"input_size": (3, 48, 48), "mean": (0.5,) * 3, "std": (0.5,) * 3, "crop_pct": 1.0}
    images = datasets.load(folder).preprocessed(config).batch(0, 5).images
    assert images.shape == (5, 3, 48, 48)
    assert images[0].mean().item() == pytest.approx(-1, abs=1e-4)


def test_a_choice_of_prepared_images_is_prepared(folder):
    prepared = datasets.load(folder).preprocessed({"input_size": (3, 48, 48)})
    chosen = prepared.subset([3, 1], "two").batch(0, 2)
    assert torch.equal(chosen.images, prepared.batch(0, 5).images[[3, 1]])
    assert chosen.index.tolist() == [0, 1]


def test_a_model_with_other_classes_is_warned_about(folder):
    with pytest.warns(UserWarning, match="pets has 2 classes and the model tells 10 apart"):
        datasets.load(folder, zoo.create("vit-d1-h2"))


def test_objects_are_those_of_the_generator_and_reach_our_models_untouched(monkeypatch):
    monkeypatch.setitem(objects.SPLITS, "validation", 20)
    data = datasets.load("objects/validation", zoo.create("vit-d1-h2"))
    batch = data.batch(2, 3)
    wanted = objects.load("validation", n=9)
    assert torch.equal(batch.images, wanted.images[6:])
    assert torch.equal(batch.labels, wanted.labels[6:])
    assert len(data) == 20
    images = data.preprocessed({"input_size": (3, 64, 64), "crop_pct": 1.0}).batch(0, 2).images
    assert images.shape == (2, 3, 64, 64)


@pytest.mark.parametrize("name", ["objects/night", "cifar10/night", "cifar10-jpeg/night"])
def test_an_unknown_split_names_those_there_are(name):
    with pytest.raises(ValueError, match=r"no split 'night' of .*; choose train, validation, test"):
        datasets.load(name)


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """No data folder, no cache."""
    monkeypatch.setenv("BOOK_DATA", str(tmp_path))
    monkeypatch.setattr(datasets, "CACHE", tmp_path / "cache")
    return tmp_path


def test_cifar10_that_is_not_here_says_where_it_was_looked_for(empty):
    for name in ("cifar10", "cifar10-jpeg/train"):
        with pytest.raises(FileNotFoundError, match=r"looked for cifar10/.*set BOOK_DATA.*170 MB"):
            datasets.load(name)


def test_no_download_is_made_where_it_is_forbidden(empty, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(PermissionError, match="HF_HUB_OFFLINE=1 forbids it"):
        datasets.load("cifar10", download=True)


def test_a_download_without_network_says_so_after_its_size(empty, monkeypatch, capsys):
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(ConnectionError, match=r"CIFAR-10 could not be downloaded .*BOOK_DATA"):
        datasets.load("cifar10", download=True)
    assert "Downloading CIFAR-10, 170 MB" in capsys.readouterr().err


@pytest.fixture
def originals(empty, monkeypatch):
    """CIFAR-10 as torchvision unpacks it, but with twenty test images and fifty others."""
    place = empty / "cifar10" / datasets.ORIGINALS
    place.mkdir(parents=True)
    classes = [f"class {i}" for i in range(10)]
    content = {"test_batch": 20, "data_batch_1": 50}
    content = {
        name: {"data": pixels(n), "labels": [i % 10 for i in range(n)]}
        for name, n in content.items()
    }
    content["batches.meta"] = {"label_names": classes}
    md5 = {}
    for name, values in content.items():
        (place / name).write_bytes(pickle.dumps(values))
        md5[name] = hashlib.md5((place / name).read_bytes()).hexdigest()
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", md5["data_batch_1"]]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5["batches.meta"]}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    monkeypatch.setattr(datasets, "VALIDATION", 5)
    return place


def pixels(n):
    return np.random.default_rng(n).integers(0, 256, (n, 3072), dtype=np.uint8)


def test_the_original_cifar10_is_preferred_to_jpegs(originals):
    (originals.parent / "test.tar").write_bytes(b"")
    data = datasets.load("cifar10")
    assert data.source == "cifar10/test"
    assert data.classes[9] == "class 9"
    batch = data.batch(1, 8)
    expected = torch.from_numpy(pixels(20)[8:16]).view(8, 3, 32, 32).float() / 255
    assert torch.equal(batch.images, expected)
    assert batch.labels.tolist() == [8, 9, 0, 1, 2, 3, 4, 5]


def test_validation_and_training_images_are_all_images_each_once(originals):
    parts = [datasets.load(f"cifar10/{part}").everything() for part in ("train", "validation")]
    assert [len(part.labels) for part in parts] == [45, 5]
    seen = (torch.cat([part.images for part in parts]) * 255).round().long().flatten(1)
    assert set(map(tuple, seen.tolist())) == set(map(tuple, pixels(50).tolist()))


def test_a_damaged_original_is_refused(originals):
    (originals / "test_batch").write_bytes(b"no pickle")
    with pytest.raises(ValueError, match=r"CIFAR-10 in .* is damaged \(an md5 differs"):
        datasets.load("cifar10")


def test_cue_conflict_that_is_not_here_says_where_it_was_looked_for(empty):
    with pytest.raises(FileNotFoundError, match=r"looked for stimuli\.tar and human"):
        datasets.cue_conflict()


def test_cifar10_has_ten_classes_of_equal_size(shared_data):
    data = datasets.load("cifar10")
    assert data.source == "cifar10-jpeg/test"
    assert data.labels.bincount().tolist() == [1000] * 10
    assert data.labels[:200].bincount().min() > 8
    assert data.batch(0, 2).images.shape == (2, 3, 32, 32)


@pytest.mark.slow
def test_cifar10_can_be_trained_on_from_memory(shared_data):
    train, validation = (datasets.load(f"cifar10/{part}") for part in ("train", "validation"))
    assert not set(train.names) & set(validation.names)
    assert len(set(train.names) | set(validation.names)) == 50_000
    whole = validation.everything()
    assert whole.images.shape == (5_000, 3, 32, 32)
    assert whole.images.dtype == torch.float32
    assert torch.equal(whole.images[300:400], validation.batch(3, 100).images)
    assert whole.labels.bincount().min() > 430


@pytest.mark.slow
def test_labelled_photographs_are_found_by_folder_and_by_archive(shared_data):
    model = zoo.create("efficientnet-lite0")
    place = shared_data / "imagenet_ccby"
    found = [datasets.load(path, model) for path in (place, place / "images.tar")]
    for data in found:
        assert len(data) == 500
        assert data.batch(7, 2).images.shape == (2, 3, 224, 224)
        assert data.classes[data.labels[0]].startswith("giant panda")
    assert torch.equal(found[0].labels, found[1].labels)


def test_humans_go_by_shape_in_96_percent_of_their_decisions(shared_data):
    trials = datasets.cue_conflict().trials
    conflict = trials[trials["shape"] != trials["texture"]]
    assert (len(trials), len(conflict), trials["subject"].nunique()) == (12_800, 12_000, 10)
    by_shape = (conflict["response"] == conflict["shape"]).sum()
    decided = by_shape + (conflict["response"] == conflict["texture"]).sum()
    # From the same trials in the authors' repository [geirhos2019imagenet].
    assert round(100 * by_shape / decided, 2) == 95.87
    assert round(100 * decided / len(conflict), 1) == 80.3


@pytest.mark.slow
def test_cue_conflict_stimuli_carry_shape_texture_and_a_name_that_trials_share(shared_data):
    found = datasets.cue_conflict(zoo.create("efficientnet-lite0"))
    classes = found.images.classes
    assert len(found.images) == len(found.names) == len(found.textures) == 640
    assert len(classes) == 16
    for name, shape, texture in zip(found.names, found.images.labels, found.textures, strict=True):
        assert re.fullmatch(rf"{classes[shape]}\d+-{classes[texture]}\d+", name)
    assert set(found.names) <= set(found.trials["stimulus"])
    assert found.images.batch(0, 2).images.shape == (2, 3, 224, 224)


def test_a_model_in_a_wrapper_does_not_say_how_the_wrapper_wants_its_images():
    data = datasets.load("objects").subset(range(2), "two")
    model = zoo.create("vit-d2-h2")
    data.prepared_for(torch.compile(model))  # which hands it on
    wrapped = torch.nn.Sequential(torch.nn.Identity(), model)
    with pytest.raises(ValueError, match=r"How Sequential wants its images is not known"):
        data.prepared_for(wrapped)
    images, _, _ = data.prepared_for(dict(model.pretrained_cfg)).batch(0, 2)
    assert torch.equal(images, data.prepared_for(model).batch(0, 2)[0])
