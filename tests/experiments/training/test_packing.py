"""Runs that were trained elsewhere come back whole and are published as if trained here."""

import tarfile
from dataclasses import replace

import pytest

from experiments.training import packing
from experiments.training.trainer import publish, train
from utils.models import zoo

NAMES = ("vit-d1-h2-w8", "resnet-d8-w16")


@pytest.fixture
def elsewhere(tiny_data, tiny_recipe, tmp_path):
    recipe = replace(tiny_recipe, epochs=1, descent=0.5)
    for name in NAMES:
        train(name, tiny_data, tiny_data, recipe, tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "unfinished").mkdir()
    return tmp_path / "elsewhere"


def test_packed_runs_are_published_as_if_they_had_been_trained_here(
    elsewhere, tiny_data, tmp_path, monkeypatch
):
    archives = packing.pack(elsewhere, tmp_path / "out")
    assert [archive.name for archive in archives] == ["runs-0.tar"]
    runs = packing.unpack(archives, tmp_path / "here")
    assert sorted(run.name for run in runs) == sorted(NAMES)
    for run in runs:
        publish(run, tiny_data, tmp_path / "zoo")
        publish(elsewhere / run.name, tiny_data, tmp_path / "other")
    monkeypatch.setattr(zoo, "FOLDER", tmp_path / "zoo")
    assert zoo.manifest() == zoo.manifest(tmp_path / "other")
    assert sorted(zoo.manifest()) == sorted(NAMES)


def test_no_archive_is_larger_than_the_limit(elsewhere, tmp_path):
    sizes = [
        sum(file.stat().st_size for file in (elsewhere / name).glob("[fr]*")) for name in NAMES
    ]
    archives = packing.pack(elsewhere, tmp_path / "out", limit=max(sizes) + 3000)
    assert len(archives) == 2
    assert packing.unpack(archives, tmp_path / "here")


def test_what_is_no_packed_run_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no finished run to pack"):
        packing.pack(tmp_path, tmp_path / "out")
    (tmp_path / "a.tar").write_text("text", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.tar holds no packed runs"):
        packing.unpack([tmp_path / "a.tar"], tmp_path / "here")
    (tmp_path / "evil").write_text("text", encoding="utf-8")
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        tar.add(tmp_path / "evil", "../evil")
    with pytest.raises(ValueError, match=r"holds \.\./evil, which is no part of a run"):
        packing.unpack([tmp_path / "b.tar"], tmp_path / "here")
