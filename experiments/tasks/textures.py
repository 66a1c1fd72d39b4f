"""`python -m experiments.tasks.textures`: accuracy on each texture of the objects.

In the photograph of the texture *cell* only the region of the test pictures shows the cell; those
of training and validation hold its background. What that costs is recorded for a model of each
kind.
"""

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import torch

from experiments.engine.job import Condition
from experiments.engine.provenance import provenance
from experiments.engine.ranks import CPU
from experiments.engine.results import RESULTS, Results
from utils.measures.behaviour import decisions
from utils.stimuli import objects

FILE = "objects/textures.csv"  # in results/
MODELS = (
    "vit-d6-h4",
    "vit-d6-h8",
    "hybrid-d6-h4",
    "mixer-d6",
    "resnet-d8",
    "resnet-d20",
    "late-d26-w24",
)
SPLITS = ("validation", "test")
COLUMNS = ("model", "split", "texture", "value", "n")
BATCH = 200


@torch.inference_mode()
def rows(model: str, stimuli: dict[str, objects.Stimuli]) -> Iterator[dict]:
    """The share of right answers on each split and texture, of the n stimuli that have it."""
    network = Condition(model).load().eval()
    for split, shown in stimuli.items():
        answers = decisions(network, shown.images, BATCH)
        right = (answers == shown.labels).double()
        for number, texture in enumerate(objects.TEXTURES):
            own = right[shown.texture == number]
            yield {
                "model": model,
                "split": split,
                "texture": texture,
                "value": own.mean().item(),
                "n": len(own),
            }


def record(out: Path = RESULTS, models: tuple[str, ...] = MODELS, n: int | None = None) -> Path:
    """Measure the models that the table lacks, on the first n pictures of both splits (None: all);
    return the table's file."""
    stimuli = {split: objects.load(split, n=n) for split in SPLITS}
    about = {
        "command": "textures",
        "data": " and ".join(f"objects/{split}" for split in SPLITS),
        "n": sum(map(len, stimuli.values())),
    }
    results = Results(Path(out) / FILE, COLUMNS, about)
    todo = [one for one in map(Condition, models) if not results.holds(one.name, one.weights)]
    if todo:
        results.begin(provenance(CPU))
    for one in todo:
        started = perf_counter()
        found = list(rows(one.model, stimuli))
        seconds = round(perf_counter() - started, 2)
        results.add(one.name, found, {"weights": one.weights, "seconds": seconds, "damaged": []})
    return results.file


if __name__ == "__main__":
    print(record())
