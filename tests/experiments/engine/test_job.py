import gc
import json
import multiprocessing
import os
import signal
import weakref
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.images import Images
from PIL import Image
from torch.utils.data import get_worker_info

from experiments.engine.job import Batches, Condition, Job, first
from experiments.engine.ranks import Ranks
from experiments.tasks.measure import Measure
from utils.stimuli import datasets

pytestmark = pytest.mark.filterwarnings("ignore:.* is one of the bad")
CONDITIONS = [Condition("vit-d2-h2", random=True), Condition("resnet-d8", random=True)]


def job(
    file, images=None, conditions=CONDITIONS, measures=("accuracy",), size=8, seed=0, **options
):
    images = images or Images()
    with Ranks() as ranks:
        return Job(
            conditions,
            Measure(list(measures), 0),
            lambda model: images,
            len(images),
            size,
            file,
            {"seed": 0},
            ranks,
            **options,
        )


def test_a_sweep_writes_one_table_and_where_it_came_from(tmp_path):
    summary = job(tmp_path / "a.csv").run()
    table = pd.read_csv(tmp_path / "a.csv")
    accuracy = table[table["quantity"] == "accuracy"]
    assert accuracy["model"].tolist() == ["vit-d2-h2", "resnet-d8"]
    assert accuracy["weights"].tolist() == ["random", "random"]
    assert accuracy["n"].tolist() == [40, 40]
    record = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert record["configuration"] == {"seed": 0, "n": 40, "batch": 8}
    assert {"commit", "device", "versions", "ranks"} <= set(record["sources"][0])
    assert record["conditions"]["vit-d2-h2 random"]["seconds"] > 0
    assert summary.status == 0
    assert "holds 2 conditions, 2 new" in str(summary)


@pytest.mark.slow
def test_an_interrupted_sweep_says_what_is_safe_and_goes_on_from_there(tmp_path):
    class Interrupting(Images):
        pictures = 0

        def picture(self, i):
            self.pictures += 1
            if self.pictures == 50:  # in the second condition
                raise KeyboardInterrupt
            return super().picture(i)

    interrupted = job(tmp_path / "a.csv", Interrupting())
    with pytest.raises(KeyboardInterrupt, match=r"interrupted: 1 of 2 conditions safe in .*a\."):
        interrupted.run()
    again = job(tmp_path / "a.csv", readers=1)
    assert [condition.name for condition in again.todo] == ["resnet-d8 random"]
    again.run()
    job(tmp_path / "b.csv").run()
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == (tmp_path / "b.csv").read_text(
        encoding="utf-8"
    )


def test_a_model_is_gone_before_the_next_one_is_loaded(tmp_path):
    images, seen, left = Images(8), [], []

    def open_data(model):
        left.append(sum(reference() is not None for reference in seen))
        seen.append(weakref.ref(model))
        return images

    with Ranks() as ranks:
        task = Measure(["attention", "activation"], 0)
        given = [*CONDITIONS, Condition("vit-d2-h4", random=True)]
        gc.disable()
        try:
            Job(given, task, open_data, 8, 8, tmp_path / "a", {}, ranks).run()
        finally:
            gc.enable()
    assert left == [0, 0, 0]


def test_a_model_that_fails_is_named_and_the_next_one_is_measured(tmp_path):
    conditions = [Condition("vit-d2-h3", random=True), *CONDITIONS[1:], Condition("resnet-d9")]
    summary = job(tmp_path / "a.csv", conditions=conditions).run()
    assert summary.status == 1
    assert list(summary.failed) == ["vit-d2-h3 random", "resnet-d9 trained"]
    assert "vit-d2-h3 random failed: 'vit-d2-h3' cannot be built: 3 heads do" in str(summary)
    assert summary.finished == 1


def test_damaged_images_are_left_out_named_and_change_the_exit_status(tmp_path):
    summary = job(tmp_path / "a.csv", Images(20, bad=[3, 17])).run()
    assert summary.status == 3
    assert "Left out: 2 damaged images, 17.jpg, 3.jpg." in str(summary)
    record = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert record["conditions"]["resnet-d8 random"]["damaged"] == ["17.jpg", "3.jpg"]
    assert set(pd.read_csv(tmp_path / "a.csv")["n"]) == {18}
    assert job(tmp_path / "a.csv", Images(20, bad=[3, 17])).run().status == 3  # nothing new


def test_a_minibatch_without_a_sound_image_is_left_out(tmp_path):
    job(tmp_path / "a.csv", Images(20, bad=range(8, 16))).run()
    assert set(pd.read_csv(tmp_path / "a.csv")["n"]) == {12}


def test_a_plan_names_what_is_finished_and_what_the_rest_takes_and_writes_nothing(tmp_path):
    job(tmp_path / "a.csv", conditions=CONDITIONS[:1]).run()
    before = {file: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()}
    measures = ("accuracy", "attention")
    lines = list(job(tmp_path / "b.csv", measures=measures).plan())
    assert "b.csv: 2 conditions on 40 images." in lines[0]
    assert "resnet-d8 random: accuracy in one forward pass; attention left out: " in lines[3]
    assert "about " in lines[3]
    assert lines[4].startswith("About ")
    (finished, *_) = [line for line in job(tmp_path / "a.csv").plan() if "vit" in line]
    assert finished.endswith("vit-d2-h2 random: finished")
    assert {file: file.read_text(encoding="utf-8") for file in tmp_path.iterdir()} == before


@pytest.fixture
def photographs(tmp_path):
    """Twelve small pictures of noise in two classes, one of them cut short."""
    for i in range(12):
        file = tmp_path / "photographs" / "ab"[i % 2] / f"{i:02}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[:300])
    return tmp_path / "photographs"


@pytest.fixture
def spawned():
    """Other processes begin from nothing, which is all that macOS and Windows know."""
    usual = multiprocessing.get_start_method(allow_none=True)
    multiprocessing.set_start_method("spawn", force=True)
    yield
    multiprocessing.set_start_method(usual, force=True)


def read_by(readers, photographs, file, conditions=CONDITIONS):
    """The table that so many readers give, and what is warned of."""
    given = dict(measures=("accuracy", "attention", "activation"), size=5, readers=readers)
    with pytest.warns(UserWarning, match="damaged") as warned:
        job(file, datasets.load(photographs), conditions, **given).run()
    assert json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))["conditions"][
        conditions[-1].name
    ]["damaged"] == ["b/11.jpg"]
    return file.read_bytes(), [str(one.message) for one in warned]


@pytest.mark.slow
def test_any_number_of_readers_gives_the_same_table_and_names_the_damaged_once(
    photographs, tmp_path
):
    table, said = read_by(0, photographs, tmp_path / "0.csv")
    assert table.count(b"\n") > 100
    assert [sentence.split(":")[0] for sentence in said] == ["b/11.jpg is damaged and left out"]
    for readers in (1, 2):
        assert read_by(readers, photographs, tmp_path / f"{readers}.csv") == (table, said)


@pytest.mark.slow
def test_readers_that_begin_from_nothing_give_the_same_table(photographs, tmp_path, spawned):
    tables = [read_by(n, photographs, tmp_path / f"{n}.csv", CONDITIONS[:1]) for n in (0, 1)]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("readers", [0, 1])
def test_what_a_reader_raises_is_said_in_one_sentence(photographs, tmp_path, readers):
    Image.new("RGB", (20, 20)).save(photographs / "a" / "wide.png")
    given = dict(conditions=CONDITIONS[:1], readers=readers)
    failed = job(tmp_path / "a.csv", datasets.load(photographs), size=13, **given).run().failed
    (sentence,) = failed.values()
    assert sentence.startswith("The images of photographs differ in size ([(3, 20, 20), (3, 32, 3")
    assert sentence.endswith("one size.")


def test_a_reader_that_dies_is_named_with_what_to_do(tmp_path):
    class Deadly(Images):
        def picture(self, i):
            if get_worker_info() is not None:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().picture(i)

    given = dict(conditions=CONDITIONS[:1], readers=2)
    (sentence,) = job(tmp_path / "a.csv", Deadly(), **given).run().failed.values()
    assert sentence.startswith("The processes that read images failed (")
    assert sentence.endswith("or with none by --readers 0.")
    assert "\n" not in sentence
    assert job(tmp_path / "a.csv", Deadly(), conditions=CONDITIONS[:1]).run().measured == 1


def test_files_are_read_ahead_where_a_gpu_would_wait():
    def readers(data, device):
        ranks = SimpleNamespace(device=torch.device(device))
        return Batches(data, 8, 1, ranks).readers

    files, pictures = Images(), Images()
    pictures.names = None
    assert readers(files, "cuda") == min(4, os.cpu_count())
    assert readers(files, "cpu") == readers(pictures, "cuda") == 0


def test_reading_draws_no_random_number():
    state = torch.get_rng_state()
    with Ranks() as ranks:
        assert len(list(Batches(Images(), 8, 5, ranks))) == 5
    assert torch.equal(torch.get_rng_state(), state)


def test_the_first_images_are_as_many_as_asked_for_or_at_most_as_many_as_declared():
    assert len(first(Images(9), 4, 6)) == 4
    assert len(first(Images(9), None, 6)) == 6
    assert len(first(Images(9), None, 12)) == len(first(Images(9), None)) == 9
    assert first(Images(9), 2).source == "noise"
    with pytest.raises(ValueError, match="noise has 9 images, fewer than the 12 asked for: ask"):
        first(Images(9), 12, 6)
