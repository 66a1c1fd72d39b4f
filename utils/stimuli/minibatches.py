"""Labelled images in minibatches that are the same for everyone.

Minibatch j of size B holds the images jB … jB + B − 1 on every machine and rank, so whoever takes
which minibatches measures the same.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config, resolve_model_data_config
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image
from tqdm.auto import tqdm

CHUNK = 500  # images that are read at a time when all are wanted


class Batch(NamedTuple):
    """Images float32 [b, 3, h, w], labels int64 [b], global indices int64 [b]."""

    images: Tensor
    labels: Tensor
    index: Tensor


class Dataset:
    """Labelled images, read minibatch by minibatch; `utils.stimuli.datasets.load` makes them.

    source : what they are exactly, such as "cifar10-jpeg/test"
    labels : int64 [n]; classes : the names of the labels
    picture : gives image i, RGB or float32 [3, h, w] in [0, 1], or None where it is damaged
    names : n file names, where there are files
    """

    def __init__(
        self,
        source: str,
        labels: Tensor,
        classes: tuple[str, ...],
        picture: Callable[[int], Tensor | Image.Image | None],
        names: list[str] | None = None,
    ) -> None:
        self.source, self.labels, self.classes, self.names = source, labels, classes, names
        self._picture, self._transform, self._untouched = picture, None, None
        self._damaged: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def damaged(self) -> list[str]:
        """The names of the images that could not be read so far."""
        return list(self._damaged.values())

    def prepared_for(self, model: nn.Module | dict) -> "Dataset":
        """These images with the evaluation preprocessing of a timm model.

        model : the model, or its data configuration (input_size, mean, std, interpolation,
            crop_pct; what is left out is as for ImageNet)
        Warns if the model does not tell as many classes apart as there are labels.
        """
        count = getattr(model, "num_classes", None) or len(self.classes)
        if count != len(self.classes):
            warnings.warn(
                f"{self.source} has {len(self.classes):,} classes and the model tells {count:,} "
                "apart: whatever is measured by the labels, accuracy for one, means nothing.",
                stacklevel=2,
            )
        return self.preprocessed(model)

    def preprocessed(self, model: nn.Module | dict) -> "Dataset":
        """The same for images whose labels are not meant to be the model's classes."""
        if isinstance(model, dict):
            config = resolve_data_config(pretrained_cfg=model)
        else:
            config = resolve_model_data_config(model)
        prepared = copy(self)  # one list of the damaged for all
        prepared._transform = create_transform(**config, is_training=False)
        plain = set(config["mean"]) == {0.0} and set(config["std"]) == {1.0}
        prepared._untouched = config["input_size"] if plain else None
        return prepared

    def subset(self, rows: Sequence[int], source: str) -> "Dataset":
        """The images at `rows`, in that order, their indices counted anew."""
        names = None if self.names is None else [self.names[i] for i in rows]
        rows = [int(i) for i in rows]
        return Dataset(
            source, self.labels[rows], self.classes, lambda i: self._picture(rows[i]), names
        )

    def batch(self, j: int, size: int) -> Batch:
        """Minibatch j without its damaged images, which are named in warnings and in `damaged`.

        The indices of the others stay what they are. Raises IndexError if there is no minibatch j
        and ValueError for images of different sizes.
        """
        rows = range(j * size, min((j + 1) * size, len(self)))
        if j < 0 or not rows:
            raise IndexError(
                f"{self.source} has {-(-len(self) // size)} minibatches of {size}, no number {j}."
            )
        read = {i: image for i in rows if (image := self._image(i)) is not None}
        index = torch.tensor(list(read), dtype=torch.int64)
        shapes = {tuple(image.shape) for image in read.values()}
        if len(shapes) > 1:
            raise ValueError(
                f"The images of {self.source} differ in size ({sorted(shapes)}): give the model, "
                "whose preprocessing makes them alike."
            )
        images = torch.stack(list(read.values())) if read else torch.zeros(0, 3, 1, 1)
        return Batch(images, self.labels[index], index)

    def batches(self, size: int) -> Iterator[Batch]:
        """All minibatches in their order."""
        return (self.batch(j, size) for j in range(-(-len(self) // size)))

    def everything(self) -> Batch:
        """All images in memory, such as a model is trained on; damaged ones are left out."""
        images, filled, parts = None, 0, []
        total = -(-len(self) // CHUNK)
        for part in tqdm(self.batches(CHUNK), self.source, total, disable=total < 20):
            if not len(part.index):
                continue
            if images is None:  # filled in place: the images are in memory once, not twice
                images = part.images.new_empty(len(self), *part.images.shape[1:])
            if part.images.shape[1:] != images.shape[1:]:
                shapes = [tuple(x.shape[1:]) for x in (images, part.images)]
                raise ValueError(f"The images of {self.source} differ in size ({shapes}).")
            images[filled : filled + len(part.index)] = part.images
            filled += len(part.index)
            parts.append(part.index)
        if images is None:
            raise ValueError(f"All images of {self.source} are damaged.")
        index = torch.cat(parts)
        return Batch(images[:filled], self.labels[index], index)

    def _image(self, i: int) -> Tensor | None:
        if i in self._damaged:
            return None
        picture = self._picture(i)
        if picture is None:
            self._damaged[i] = self.names[i]
            return None
        if isinstance(picture, Tensor):
            if self._transform is None or tuple(picture.shape) == self._untouched:
                return picture
            picture = to_pil_image(picture)
        if self._transform is not None:
            return self._transform(picture)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
