"""Where a number came from: the commit, versions and device that a record states."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

CODE = ("utils", "experiments")


def commit() -> str:
    """The commit that this runs at: `BOOK_COMMIT`, else what git says, else "unknown".

    "-dirty" at its end says that the code in utils/ or experiments/ differs from that commit; what
    training and experiments write (zoo/, results/) does not count.
    """
    if "BOOK_COMMIT" in os.environ:
        return os.environ["BOOK_COMMIT"]
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", *CODE)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}-dirty" if changed else head


def _git(*arguments: str) -> str:
    root = Path(__file__).parents[2]
    command = ["git", *arguments]
    done = subprocess.run(
        command, cwd=root, check=True, capture_output=True, text=True, encoding="utf-8"
    )
    return done.stdout.strip()


def provenance(device: torch.device) -> dict:
    """Commit, device, and versions of what computes, ready for JSON."""
    if device.type == "cuda":
        hardware = torch.cuda.get_device_name(device)
    else:
        hardware = f"{device.type} ({torch.get_num_threads()} threads)"
    versions = {name: version(name) for name in ("torch", "timm", "accelerate", "numpy")}
    return {
        "commit": commit(),
        "device": hardware,
        "versions": {"python": platform.python_version(), **versions},
    }
