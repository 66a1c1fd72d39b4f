"""Finished runs in a few small archives, to be carried from the machine that trained them."""

import tarfile
from pathlib import Path

from experiments.engine.files import replace

CARRIED = ("record.json", "final.safetensors", "loss-*.safetensors", "loss-*.json")
LIMIT = 15 * 2**20  # bytes of an archive


def pack(runs: Path, out: Path, limit: int = LIMIT) -> list[Path]:
    """Write the finished runs of a folder into out/runs-0.tar, …; gives the archives.

    Each archive holds whole runs and at most `limit` bytes, but for a run that is larger alone.
    Raises FileNotFoundError if no run is finished.
    """
    finished = sorted(record.parent for record in Path(runs).rglob("record.json"))
    if not finished:
        raise FileNotFoundError(f"{runs} holds no finished run to pack.")
    bundles, filled = [[]], 0
    for run in finished:
        files = sorted(file for pattern in CARRIED for file in run.glob(pattern))
        size = sum(file.stat().st_size + 1024 for file in files)  # with its header and padding
        if filled + size > limit and bundles[-1]:
            bundles.append([])
            filled = 0
        bundles[-1] += files
        filled += size
    archives = []
    for number, files in enumerate(bundles):
        archive = Path(out) / f"runs-{number}.tar"

        def write(temporary: Path, files=files) -> None:
            with tarfile.open(temporary, "w") as tar:
                for file in files:
                    tar.add(file, file.relative_to(runs).as_posix())

        replace(archive, write, "pack the runs again once it can")
        archives.append(archive)
    return archives


def unpack(archives: list[Path], runs: Path) -> list[Path]:
    """Put packed runs into a folder; gives the folders of the runs.

    Raises ValueError for a file that is no such archive, before anything is written, and
    NotWritten where the disk is full.
    """
    found = {}
    for archive in archives:
        try:
            with tarfile.open(archive, "r:") as tar:
                for member in tar:
                    path = Path(member.name)
                    if not member.isfile() or path.is_absolute() or ".." in path.parts:
                        raise ValueError(
                            f"{archive} holds {member.name}, which is no part of a run."
                        )
                    found[path] = tar.extractfile(member).read()
        except tarfile.TarError as error:
            raise ValueError(f"{archive} holds no packed runs ({error}).") from None
    for path, content in found.items():
        safe = "unpack the archives again once it can"
        replace(Path(runs) / path, lambda file, content=content: file.write_bytes(content), safe)
    return sorted({Path(runs) / path.parent for path in found if path.name == "record.json"})
