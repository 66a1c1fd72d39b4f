"""Where a number came from: the commit, versions and device that a record states."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch


def commit() -> str:
    """The commit that this runs at: `BOOK_COMMIT`, else what git says, else "unknown".

    "-dirty" at its end says that tracked files differ from that commit.
    """
    if "BOOK_COMMIT" in os.environ:
        return os.environ["BOOK_COMMIT"]
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(
            command, cwd=Path(__file__).parent, check=True, capture_output=True, text=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()


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
