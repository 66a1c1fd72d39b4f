"""Reading JPEGs for a network at 224 px: in its own process, and in others next to it.

`CONTENDERS` maps a suite to what it needs and its contenders, the one that all are compared with
first. The network does nothing here, so that the ratio is that of reading alone.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from torch import nn

from experiments.engine.job import Batches
from experiments.engine.ranks import Ranks
from utils.stimuli import datasets, photographs
from utils.stimuli.minibatches import Dataset

BATCH = 16
BATCHES = 0  # of noise, a turn
FILES = 128
IMAGES = 4 * FILES  # a turn: each pass over them starts its readers, as that of a job does
SIZE = (500, 375)  # of most photographs in ImageNet


@cache
def _folder() -> TemporaryDirectory:
    """Crops of photographs as JPEGs, in two classes; they vanish with the process."""
    folder, generator = TemporaryDirectory(prefix="jpegs-"), np.random.default_rng(0)
    for i in range(FILES):
        picture = photographs.load(photographs.NAMES[i % len(photographs.NAMES)])
        width = int(min(picture.width, picture.height * 4 / 3) * generator.uniform(0.5, 1))
        height = width * 3 // 4
        left = int(generator.integers(picture.width - width + 1))
        top = int(generator.integers(picture.height - height + 1))
        file = Path(folder.name, "ab"[i % 2], f"{i}.jpg")
        file.parent.mkdir(exist_ok=True)
        picture.crop((left, top, left + width, top + height)).resize(SIZE).save(file, quality=90)
    return folder


def _images() -> Dataset:
    data = datasets.load(_folder().name).preprocessed({"input_size": (3, 224, 224)})
    return data.subset([i % FILES for i in range(IMAGES)], "jpegs")


def readers(count: int) -> Callable:
    def make(_model: nn.Module):
        data = _images()

        def run(_batches):
            for _ in Batches(data, BATCH, -(-len(data) // BATCH), Ranks(), readers=count):
                pass

        return run

    return make


CONTENDERS = {
    f"{IMAGES} JPEGs of {SIZE[0]} × {SIZE[1]} pixels, at 224 px, batch {BATCH}": (
        nn.Identity,
        {
            "in the same process": readers(0),
            "1 reader": readers(1),
            "2 readers": readers(2),
            "4 readers": readers(4),
        },
    )
}
