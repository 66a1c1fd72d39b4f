"""The Lab's JavaScript, run in Node: what is asked of lab_driver.mjs, and what it gives."""

import base64
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

from utils.models import zoo

HERE = Path(__file__).parent
KINDS = {"Float32Array": np.float32, "Int32Array": np.int32}


def run(script: str, *arguments: str | Path) -> str:
    """What a script next to this file prints in Node; without Node the test is skipped."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node, which runs the Lab's JavaScript in tests, was not found on the path")
    command = [node, HERE / script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ask(folder: Path, *calls: dict) -> list:
    """The results of calls, for which see the driver; arrays among them are numpy's.

    Args:
        folder: In which the files that calls name lie.
        calls: Each with `do`.
    """
    (folder / "request.json").write_text(json.dumps(calls), encoding="utf-8")
    run("lab_driver.mjs", folder)
    answer = (folder / "answer.json").read_text(encoding="utf-8")
    return json.loads(answer, object_hook=_with_arrays)


def _with_arrays(found: dict):
    if "base64" not in found:
        return found
    return np.frombuffer(base64.b64decode(found["base64"]), KINDS[found["kind"]])


def network(folder: Path, name: str) -> tuple[dict, object]:
    """How calls name a network, whose weights are put into the folder, and PyTorch's of it.

    A network that the zoo does not keep has random weights, in single precision.
    """
    file = f"{name}.safetensors"
    stored = zoo.weights_file(name)
    model = zoo.load(name) if stored else zoo.create(name)
    if stored:
        shutil.copy(stored, folder / file)
    else:
        safetensors.torch.save_file(model.state_dict(), folder / file)
    return {"name": name, "file": file}, model
