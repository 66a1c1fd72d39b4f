"""Two ranks measure what one does; each is a process of its own, so these tests are few."""

import os
import signal
import socket
import time

import pandas as pd
import pytest
import torch.multiprocessing as mp
from helpers.images import Images

from experiments.engine.job import Condition, Job
from experiments.engine.ranks import RankLost, Ranks
from experiments.tasks.ablate import Ablate
from experiments.tasks.measure import MEASURES, Measure

pytestmark = pytest.mark.filterwarnings("ignore:.* is one of the bad")
LIMIT = 600  # seconds in all that the ranks may take; a minute does where nothing else runs
MODELS = [Condition("vit-d2-h2", random=True), Condition("resnet-d8", random=True)]


class Deadly(Images):
    """Kills the process that reads its second condition's minibatch 1."""

    seen = 0

    def picture(self, i):
        self.seen += i == 8
        if self.seen == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().picture(i)


ABLATIONS = [
    Condition("vit-d2-h2", True, dict(unit="attention", scope="last", replaced_by="mean")),
    Condition("resnet-d8", True, dict(unit="channel", scope="all", replaced_by="zero")),
]


def run(file, images, ranks, conditions=MODELS, **options):
    task = Measure(list(MEASURES), 0) if conditions is MODELS else Ablate(5, 2, 0)
    given = (conditions, task, lambda model: images, len(images), 8, file, {}, ranks)
    return Job(*given, **options).run()


def rank(number, port, folder):
    os.environ |= dict(RANK=str(number), WORLD_SIZE="2", MASTER_ADDR="localhost", MASTER_PORT=port)
    with Ranks() as ranks:
        run(folder / "odd.csv", Images(36, bad=[9]), ranks, readers=1)
        run(folder / "idle.csv", Images(8), ranks)  # rank 1 has nothing to do
        run(folder / "odd_ablated.csv", Images(36, bad=[9]), ranks, ABLATIONS)
        run(folder / "idle_ablated.csv", Images(8), ranks, ABLATIONS)
        try:
            run(folder / "dead.csv", Deadly(), ranks)
        except RankLost as error:
            (folder / "sentence").write_text(str(error), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    processes = [
        mp.get_context("spawn").Process(target=rank, args=(i, port, folder)) for i in range(2)
    ]
    end = time.monotonic() + LIMIT
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(max(0, end - time.monotonic()))
        assert None not in [process.exitcode for process in processes], "the ranks took too long"
        return folder
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
                process.join()


@pytest.mark.slow
@pytest.mark.parametrize(("case", "images"), [("odd", Images(36, bad=[9])), ("idle", Images(8))])
def test_two_ranks_give_the_table_of_one_process(folder, tmp_path, case, images):
    with Ranks() as ranks:
        run(tmp_path / "one.csv", images, ranks)
    one, two = pd.read_csv(tmp_path / "one.csv"), pd.read_csv(folder / f"{case}.csv")
    assert set(one["quantity"]) >= {"gini", "overlap", "population_gini", "cka", "accuracy"}
    pd.testing.assert_frame_equal(one, two, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "images"), [("odd", Images(36, bad=[9])), ("idle", Images(8))])
def test_two_ranks_give_the_ablations_of_one_process(folder, tmp_path, case, images):
    with Ranks() as ranks:
        assert not run(tmp_path / "one.csv", images, ranks, ABLATIONS).failed
    one, two = pd.read_csv(tmp_path / "one.csv"), pd.read_csv(folder / f"{case}_ablated.csv")
    assert {"kl", "accuracy", "necessity N", "I_rem"} <= set(one["quantity"])
    assert one.loc[one["quantity"] == "kl", "value"].max() > 1e-4
    pd.testing.assert_frame_equal(one, two, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_when_a_rank_dies_one_sentence_says_what_is_safe(folder, tmp_path):
    sentence = (folder / "sentence").read_text(encoding="utf-8")
    assert sentence.startswith("Another rank died or cannot be reached (")
    assert "1 of 2 conditions safe in " in sentence
    with Ranks() as ranks:
        summary = run(folder / "dead.csv", Images(), ranks)
        assert summary.measured == 1
        run(tmp_path / "one.csv", Images(), ranks)
    one, two = pd.read_csv(tmp_path / "one.csv"), pd.read_csv(folder / "dead.csv")
    pd.testing.assert_frame_equal(one, two, rtol=0, atol=1e-6)
