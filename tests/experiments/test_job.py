import json

import pandas as pd
import pytest
from helpers.images import Images

from experiments.job import Condition, Job
from experiments.ranks import Ranks
from experiments.tasks.measure import Measure

CONDITIONS = [Condition("vit-d2-h2", random=True), Condition("resnet-d8", random=True)]


def job(file, images=None, conditions=CONDITIONS, measures=("accuracy",), size=8, seed=0):
    images = images or Images()
    with Ranks() as ranks:
        return Job(
            conditions,
            Measure(list(measures), seed),
            lambda model: images,
            len(images),
            size,
            file,
            {"seed": seed},
            ranks,
        )


def test_a_sweep_writes_one_table_and_where_it_came_from(tmp_path):
    summary = job(tmp_path / "a.csv").run()
    table = pd.read_csv(tmp_path / "a.csv")
    accuracy = table[table["quantity"] == "accuracy"]
    assert accuracy["model"].tolist() == ["vit-d2-h2", "resnet-d8"]
    assert accuracy["weights"].tolist() == ["random", "random"]
    assert accuracy["n"].tolist() == [40, 40]
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["configuration"] == {"seed": 0, "n": 40, "batch": 8}
    assert {"commit", "device", "versions", "ranks"} <= set(record["sources"][0])
    assert record["conditions"]["vit-d2-h2 random"]["seconds"] > 0
    assert summary.status == 0
    assert "holds 2 conditions, 2 new" in str(summary)


def test_an_interrupted_sweep_says_what_is_safe_and_goes_on_from_there(tmp_path):
    class Interrupting(Images):
        batches = 0

        def batch(self, j, size):
            self.batches += 1
            if self.batches == 7:  # in the second condition
                raise KeyboardInterrupt
            return super().batch(j, size)

    interrupted = job(tmp_path / "a.csv", Interrupting())
    with pytest.raises(KeyboardInterrupt, match=r"interrupted: 1 of 2 conditions safe in .*a\."):
        interrupted.run()
    again = job(tmp_path / "a.csv")
    assert [condition.name for condition in again.todo] == ["resnet-d8 random"]
    again.run()
    job(tmp_path / "b.csv").run()
    assert (tmp_path / "a.csv").read_text() == (tmp_path / "b.csv").read_text()


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
    record = json.loads((tmp_path / "a.json").read_text())
    assert record["conditions"]["resnet-d8 random"]["damaged"] == ["17.jpg", "3.jpg"]
    assert set(pd.read_csv(tmp_path / "a.csv")["n"]) == {18}
    assert job(tmp_path / "a.csv", Images(20, bad=[3, 17])).run().status == 3  # nothing new


def test_a_minibatch_without_a_sound_image_is_left_out(tmp_path):
    job(tmp_path / "a.csv", Images(20, bad=range(8, 16))).run()
    assert set(pd.read_csv(tmp_path / "a.csv")["n"]) == {12}


def test_a_plan_names_what_is_finished_and_what_the_rest_takes_and_writes_nothing(tmp_path):
    job(tmp_path / "a.csv", conditions=CONDITIONS[:1]).run()
    before = {file: file.read_text() for file in tmp_path.iterdir()}
    measures = ("accuracy", "attention")
    lines = list(job(tmp_path / "b.csv", measures=measures).plan())
    assert "b.csv: 2 conditions on 40 images." in lines[0]
    assert "resnet-d8 random: accuracy in one forward pass; attention left out: " in lines[3]
    assert "about " in lines[3]
    assert lines[4].startswith("About ")
    (finished, *_) = [line for line in job(tmp_path / "a.csv").plan() if "vit" in line]
    assert finished.endswith("vit-d2-h2 random: finished")
    assert {file: file.read_text() for file in tmp_path.iterdir()} == before
