"""What a model sees while it is trained: the same images in every epoch, or fresh ones."""

import os
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from utils.stimuli import objects


@dataclass(frozen=True)
class Fixed:
    """The same images float32 [n, 3, h, w] in [0, 1], with labels int64 [n], in every epoch."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def epoch(self, number: int) -> tuple[Tensor, Tensor]:
        """The images and labels of an epoch, counted from 0."""
        return self.images, self.labels

    @cached_property
    def digest(self) -> str:
        """Tells training sets apart, so that a run never goes on with other images."""
        content = sha256(np.ascontiguousarray(self.images))
        content.update(np.ascontiguousarray(self.labels))
        return content.hexdigest()


@dataclass(frozen=True)
class Fresh:
    """Generated objects of the training split, other ones in every epoch, as uint8 [n, 3, 32, 32].

    n : images of an epoch; epoch e holds those that `objects.load("train", seed=e)` would give
    cache : a folder that keeps what was rendered, for the other models that are trained
    """

    n: int
    cache: Path

    def __len__(self) -> int:
        return self.n

    def epoch(self, number: int) -> tuple[Tensor, Tensor]:
        """The images and labels of an epoch, counted from 0; rendered unless the cache has them."""
        file = self.cache / f"{self.digest[:12]}-{self.n}-{number}.npy"
        if not file.exists():
            self._render(number, file)
        labels = objects.labels("train", self.n, seed=number)
        return torch.from_numpy(np.load(file)), labels

    def _render(self, epoch: int, file: Path) -> None:
        pixels = np.empty((self.n, 3, objects.SIZE, objects.SIZE), np.uint8)
        for i in tqdm(range(self.n), f"rendering epoch {epoch + 1}", leave=False, disable=None):
            pixels[i] = objects.render(objects.draw("train", epoch, i))
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f"{file.stem}-{os.getpid()}.tmp.npy")
        np.save(temporary, pixels)
        os.replace(temporary, file)

    @cached_property
    def digest(self) -> str:
        """Tells editions of the stimuli apart; that of the first hundred images."""
        pixels = [objects.render(objects.draw("train", 0, i)) for i in range(100)]
        return sha256(np.stack(pixels)).hexdigest()
