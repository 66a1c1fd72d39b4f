"""What stands for a training in processes of their own; a light module, for they import it."""

import json
import os
import time
from pathlib import Path

import torch


def meet(name: str, recipe: None, out: Path) -> Path:
    """Waits until another training has begun, and notes where it runs; "diverging" fails."""
    run = out / name
    run.mkdir()
    (run / "where.json").write_text(
        json.dumps([os.getpid(), torch.get_num_threads()]), encoding="utf-8"
    )
    if name == "diverging":
        raise FloatingPointError("the loss became nan")
    began = time.monotonic()
    while len(list(out.iterdir())) < 2:
        if time.monotonic() > began + 60:
            raise RuntimeError("no other training began")
        time.sleep(0.01)
    return run
