"""What every recorded figure says of its numbers: images, seeds, device, commits and command."""

import textwrap

from matplotlib.figure import Figure

from experiments.catalogue import EXPERIMENTS
from experiments.engine.results import RESULTS, file_of, record_file, record_of
from utils.book.plotting import COLOURS
from utils.models.architectures import Spec


def source(*experiments: str, rung: str = "objects") -> str:
    """Where recorded numbers come from: images, seeds, device, commits and command, a line each.

    experiments : names from catalogue.EXPERIMENTS; of what is not recorded, it says so. Of more
        than three commits it says how many: the .json next to the table has them all.
    Raises KeyError for an unknown experiment.
    """
    if unknown := [name for name in experiments if name not in EXPERIMENTS]:
        known = ", ".join(EXPERIMENTS)
        raise KeyError(f"There is no experiment {unknown[0]!r}; there are {known}.")
    lines = [f"Recorded on the rung {rung}"]
    for name in experiments:
        file = file_of(name, rung, out=RESULTS)
        if not record_file(file).exists():
            lines.append(f"{name}: not yet recorded")
            continue
        record = record_of(file)
        about, sources = record["configuration"], record["sources"]
        trained = (c.split() for c in record["conditions"])  # of more seeds only weights at random
        specs = filter(None, (Spec.parse(c[0]) for c in trained if "random" not in c))
        seeds = sorted({spec.seed for spec in specs})
        where = ", ".join(sorted({one["device"] for one in sources}))
        where = where.replace("(1 threads)", "(1 thread)")  # as it is recorded
        commits = sorted({one["commit"][:7] for one in sources})
        commits = ", ".join(commits) if len(commits) <= 3 else f"{len(commits)} commits"
        of = "" if about["data"] == f"{rung}/test" else f" of {about['data']}"
        seeds = f", seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if seeds else ""
        count = about.get("images", about["n"])  # of curves fewer than of the accuracy lost
        lines.append(f"{name}: {count} images{of}{seeds}, {where}, {commits}")
    command = f"python -m experiments replicate {' '.join(experiments)}"
    if rung != "objects":
        command += f" --rung {rung}"
    if rung == "imagenet" and not any(EXPERIMENTS[name].data for name in experiments):
        command += " --data photographs/"
    return "\n".join([*lines, *textwrap.wrap(command, 72, break_on_hyphens=False)])


def face(fig: Figure, *experiments: str, rung: str = "objects", note: str = "") -> None:
    """Write the source of recorded numbers, and a note, under the figure that shows them."""
    text = "\n".join(filter(None, [note, source(*experiments, rung=rung)]))
    fig.supxlabel(text, fontsize=9, color=COLOURS["neutral"])
