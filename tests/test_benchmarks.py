"""The benchmarks run; what they find is not tested."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import TOPICS, noise
from utils.book.serve import chromium

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


def printed(*words):
    """What a module prints as a command, in a process of its own."""
    run = [sys.executable, "-m", *words]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_command_prints_a_table_with_a_row_for_each_contender():
    said = printed("benchmarks", "loading", "--rounds", "1")
    ratios = re.findall(r"^(.{32}) *(\d+\.\d{3}) .* (\d+)$", said, re.MULTILINE)
    names = [name.strip() for name, *_ in ratios]
    assert names == ["in the same process", "1 reader", "2 readers", "4 readers"]
    assert all(float(ratio) > 0 and int(rate) > 0 for _, ratio, rate in ratios)


def test_starting_is_compared_with_imports_alone():
    said = printed("benchmarks.starting", "--rounds", "1")
    rows = re.findall(r"^(\S.{33}) *(\d+\.\d\d) *(\d+\.\d\d)$", said, re.MULTILINE)
    ratios = {name.strip(): float(ratio) for name, _, ratio in rows}
    assert len(ratios) == 5
    assert all(ratio > 0 for ratio in ratios.values())
    floors = [name for name in ratios if name.startswith("imports")]
    assert [ratios[name] for name in floors] == [1, 1]


@pytest.mark.skipif(chromium() is None, reason="no Chromium was found on the path")
def test_pages_take_turns_and_have_a_row_each_once_their_formulas_are_typeset(tmp_path):
    typeset = "document.querySelector('.math').append(document.createElement('mjx-container'))"
    late = f"<p class='math'></p><script>setTimeout(() => {typeset}, 300)</script>"
    (tmp_path / "chapters").mkdir()
    for name, content in {"1_formula": late, "2_text": "<p>Text", "lab": "<p>No chapter"}.items():
        (tmp_path / f"chapters/{name}.html").write_text(content, encoding="utf-8")
    said = printed("benchmarks.pages", "--rounds", "2", "--pages", str(tmp_path))
    rows = re.findall(r"^(\S+) +(\d+\.\d{3}) +(\d+\.\d\d)$", said, re.MULTILINE)
    assert sorted(name for name, *_ in rows) == ["1_formula.html", "2_text.html"]
    assert all(float(seconds) > 0 and float(ratio) >= 1 for _, seconds, ratio in rows)
