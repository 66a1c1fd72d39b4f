import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
from PIL import Image

from experiments.__main__ import main
from utils.stimuli.minibatches import Dataset


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """An ImageFolder of twelve small pictures in ten classes."""
    folder = tmp_path_factory.mktemp("photographs")
    for i in range(12):
        file = folder / f"class{i % 10}" / f"{i:02}.jpg"
        file.parent.mkdir(exist_ok=True)
        Image.effect_noise((40, 36), 10.0 * i).convert("RGB").save(file)
    return folder


@pytest.fixture
def one_damaged(photographs, tmp_path):
    """The same with one of them cut short."""
    folder = tmp_path / "damaged"
    shutil.copytree(photographs, folder)
    file = folder / "class7" / "07.jpg"
    file.write_bytes(file.read_bytes()[:200])
    return folder


def measure(*arguments):
    return main(["measure", "resnet-d20", "--measures", "accuracy", *map(str, arguments)])


@pytest.mark.filterwarnings("ignore:.*damaged")
def test_a_truncated_jpeg_is_named_skipped_counted_and_in_the_exit_status(
    one_damaged, tmp_path, capsys
):
    assert measure("--data", one_damaged, "--out", tmp_path / "a", "--batch", 5) == 3
    said = capsys.readouterr().err
    assert "Left out: 1 damaged image, class7/07.jpg." in said
    table = pd.read_csv(tmp_path / "a.csv")
    assert set(table["n"]) == {11}
    record = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert record["conditions"]["resnet-d20 trained"]["damaged"] == ["class7/07.jpg"]
    assert record["configuration"]["data"] == "damaged"

    with tarfile.open(tmp_path / "damaged.tar", "w") as archive:
        archive.add(one_damaged, ".")
    assert measure("--data", tmp_path / "damaged.tar", "--out", tmp_path / "b", "--readers", 2) == 3
    same = pd.read_csv(tmp_path / "b.csv")
    pd.testing.assert_frame_equal(table, same, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*damaged")
def test_images_that_are_all_damaged_leave_nothing_that_counts_as_finished(
    photographs, tmp_path, capsys
):
    folder = tmp_path / "damaged"
    shutil.copytree(photographs, folder)
    for file in folder.rglob("*.jpg"):
        file.write_bytes(file.read_bytes()[:200])
    assert measure("--data", folder, "--out", tmp_path / "a") == 1
    said = capsys.readouterr().err
    assert "There is nothing to record" in said
    assert "could not be read" in said
    assert measure("--data", photographs, "--out", tmp_path / "b") == 0


def test_sound_images_end_with_status_0_and_a_dry_run_writes_nothing(photographs, tmp_path, capsys):
    run = ("--data", photographs, "-n", 6, "--out", tmp_path / "a.csv", "--control", "random")
    assert measure(*run, "--dry-run") == 0
    planned = capsys.readouterr().out
    assert "a.csv: 2 conditions on 6 images." in planned
    assert re.search(r"resnet-d20 random: accuracy in one forward pass; about \d+ s", planned)
    assert not any(tmp_path.iterdir())
    assert measure(*run) == 0
    assert capsys.readouterr().out == f"{tmp_path}/a.csv holds 2 conditions, 2 new.\n"
    assert pd.read_csv(tmp_path / "a.csv")["weights"].tolist() == ["trained"] * 2 + ["random"] * 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["-n", "13"], "photographs0 has 12 images, fewer than the 13 asked for"),
        (["--out", "{folder}/class0/00.jpg/a"], "a.json could not be written"),
    ],
)
def test_bad_input_is_answered_by_one_sentence(photographs, arguments, sentence, tmp_path, capsys):
    arguments = [argument.format(folder=photographs) for argument in arguments]
    given = ["--data", str(photographs), "--out", str(tmp_path / "a"), *arguments]
    assert measure(*given) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.count("\n") == 1


def test_a_file_of_another_configuration_is_refused(photographs, tmp_path, capsys):
    run = ("--data", photographs, "--out", tmp_path / "a.csv", "-n", 6)
    assert measure(*run) == 0
    assert measure(*run, "--batch", 2) == 1
    assert "configuration: batch is 50 there and 2 here." in capsys.readouterr().err


@pytest.mark.slow
def test_every_scope_and_value_is_a_condition_of_an_ablation(photographs, tmp_path):
    run = ["ablate", "vit-d6-h4", "--data", str(photographs), "-n", "6", "--ranks", "3"]
    run += ["--draws", "1", "--scope", "1/3", "last", "--value", "zero", "renormalise"]
    assert main([*run, "--out", str(tmp_path / "a.csv")]) == 0
    table = pd.read_csv(tmp_path / "a.csv")
    conditions = {(row.scope, row.replaced_by) for row in table.itertuples()}
    assert conditions == {(s, v) for s in ("1/3", "last") for v in ("zero", "renormalise")}
    record = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert record["configuration"]["draws"] == 1
    finished = record["conditions"]["vit-d6-h4 trained attention 1/3 zero"]
    assert finished["layers"] == ["blocks.1.attn"]


def test_a_model_that_does_not_exist_is_answered_with_the_nearest(photographs, tmp_path, capsys):
    run = ["--data", str(photographs), "-n", "6", "--out", str(tmp_path / "a")]
    assert main(["measure", "resnet-d21", "resnet_18", *run]) == 1
    said = capsys.readouterr().err
    assert "holds 0 conditions" in said
    assert "resnet-d21 trained failed: 'resnet-d21' cannot be built" in said
    assert "resnet_18 trained failed: There is no model 'resnet_18'; did you mean resnet18" in said


def test_ctrl_c_is_answered_by_one_sentence(photographs, tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Dataset, "read", interrupted)
    assert measure("--data", photographs, "--out", tmp_path / "a") == 130
    assert "measure: The job was interrupted: 0 of 1 condition safe" in capsys.readouterr().err


def test_the_signal_of_a_launcher_ends_a_command_as_ctrl_c_does_and_not_what_comes_after(
    photographs, tmp_path, capsys, monkeypatch
):
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(Dataset, "read", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    assert measure("--data", photographs, "--out", tmp_path / "a") == 130
    assert "measure: The job was interrupted: 0 of 1 condition safe" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_thread_may_run_a_command(photographs, tmp_path):
    with ThreadPoolExecutor(1) as threads:
        run = threads.submit(measure, "--data", photographs, "-n", 6, "--out", tmp_path / "a")
        assert run.result() == 0


@pytest.mark.parametrize("command", ["measure", "ablate"])
def test_help_says_how_with_examples_and_what_the_exit_status_means(command, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    said = capsys.readouterr().out
    assert f"python -m experiments {command} vit-d6-h4" in said
    assert "exit status: 0 all done" in said


def start(*arguments, launcher=("-m",)):
    command = [sys.executable, *launcher, "experiments", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


@pytest.mark.slow
def test_a_killed_sweep_goes_on_to_the_table_of_an_uninterrupted_one(photographs, tmp_path):
    models = [f"resnet-d20-s{seed}" for seed in range(12)]
    run = ["measure", *models, "--control", "only", "--data", photographs, "-n", 6, "--batch", 3]
    process = start(*run, "--out", tmp_path / "a")
    record = tmp_path / "a.json"
    finished = {}
    while process.poll() is None and not finished:
        time.sleep(0.01)
        finished = (
            json.loads(record.read_text(encoding="utf-8"))["conditions"] if record.exists() else {}
        )
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    finished = json.loads(record.read_text(encoding="utf-8"))["conditions"]
    assert 1 <= len(finished) < len(models)

    assert main([*map(str, run), "--out", str(tmp_path / "a")]) == 0
    assert main([*map(str, run), "--out", str(tmp_path / "b")]) == 0
    resumed, whole = pd.read_csv(tmp_path / "a.csv"), pd.read_csv(tmp_path / "b.csv")
    assert len(set(whole["condition"])) == len(models)
    pd.testing.assert_frame_equal(resumed, whole, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_the_same_command_under_torchrun_gives_the_same_table(photographs, tmp_path):
    run = ["measure", "vit-d6-h4", "--data", photographs, "-n", 6, "--batch", 2]
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m")
    two = start(*run, "--out", tmp_path / "two", launcher=launcher)
    try:
        assert main([*map(str, run), "--out", str(tmp_path / "one")]) == 0
        said = two.communicate(timeout=600)[1]
        assert two.returncode == 0, said
    finally:
        two.terminate()
    tables = [pd.read_csv(tmp_path / f"{name}.csv") for name in ("one", "two")]
    pd.testing.assert_frame_equal(*tables, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_efficientnet_lite0_knows_the_labelled_photographs(shared_data, tmp_path):
    folder = shared_data / "imagenet_ccby"
    run = ["--data", str(folder), "-n", "100", "--batch", "10", "--measures", "accuracy"]
    assert main(["measure", "efficientnet-lite0", *run, "--out", str(tmp_path / "a")]) == 0
    table = pd.read_csv(tmp_path / "a.csv").set_index("quantity")
    assert table.loc["accuracy", "n"] == 100
    assert table.loc["accuracy", "value"] == pytest.approx(0.90, abs=0.06)
