"""The benchmarks run; what they find is not tested."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import TOPICS, noise

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:This DataLoader will create")]
ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("topic", TOPICS)
def test_every_contender_of_a_topic_runs(topic):
    topic = importlib.import_module(f"benchmarks.{topic}")
    batches = noise(topic, min(1, topic.BATCHES))
    for make_model, contenders in topic.CONTENDERS.values():
        for make in contenders.values():
            with torch.inference_mode():
                make(make_model())(batches)


def test_the_command_prints_a_table_with_a_row_for_each_contender():
    run = [sys.executable, "-m", "benchmarks", "loading", "--rounds", "1"]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    ratios = re.findall(r"^(.{32}) *(\d+\.\d{3}) .* (\d+)$", done.stdout, re.MULTILINE)
    names = [name.strip() for name, *_ in ratios]
    assert names == ["in the same process", "1 reader", "2 readers", "4 readers"]
    assert all(float(ratio) > 0 and int(rate) > 0 for _, ratio, rate in ratios)
