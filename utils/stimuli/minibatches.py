"""Labelled images in minibatches that are the same for everyone.

Minibatch j of size B holds the images jB … jB + B − 1 on every machine, so the result does not
depend on which rank, or which process that reads for it, takes which minibatch.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torch import Tensor, nn
from torch.utils import data
from torchvision.transforms.functional import to_pil_image
from tqdm.auto import tqdm

CHUNK = 500  # images that are read at a time when all are wanted


class Batch(NamedTuple):
    """Some images of a data set.

    Attributes:
        images: float32 [b, 3, h, w].
        labels: int64 [b].
        index: int64 [b], the global indices of the images.
    """

    images: Tensor
    labels: Tensor
    index: Tensor


@dataclass(frozen=True)
class Damaged:
    """What a data set holds in the place of an image that cannot be read.

    Attributes:
        name: Of its file.
        reason: Why, in words.
    """

    name: str
    reason: str


Picture = Callable[[int], Tensor | Image.Image | Damaged]


@dataclass(frozen=True)
class _Chosen:
    """Some of the pictures or of their contents, in another order."""

    of: Callable
    rows: list[int]

    def __call__(self, i: int) -> Tensor | Image.Image | Damaged | bytes:
        return self.of(self.rows[i])


def _number(source: str, i: int) -> bytes:
    return f"{source} {i}".encode()


class Dataset(data.Dataset):
    """Labelled images, read one by one or in minibatches; `utils.stimuli.datasets.load` makes them.

    Image i is `(image, label, i)`: float32 [3, h, w], int64 [], int; or a `Damaged`. Sound images
    of one size go through a plain `torch.utils.data.DataLoader`; `batch` leaves the damaged out.

    Args:
        source: What they are exactly, such as "cifar10-jpeg/test".
        labels: int64 [n].
        classes: The names of the labels.
        picture: Gives image i, RGB or float32 [3, h, w] in [0, 1], or a `Damaged`. Processes that
            do not begin as a copy of this one can only be given one that can be pickled.
        names: n file names, where there are files.
        content: Gives the bytes that image i is made of, for the digest; without it, an image is
            what its source and its number say.
    """

    def __init__(
        self,
        source: str,
        labels: Tensor,
        classes: tuple[str, ...],
        picture: Picture,
        names: list[str] | None = None,
        content: Callable[[int], bytes] | None = None,
    ) -> None:
        self.source, self.labels, self.classes, self.names = source, labels, classes, names
        self._picture, self._transform, self._untouched = picture, None, None
        self._content = content or partial(_number, source)
        self._damaged: dict[int, Damaged] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, int] | Damaged:
        if not -len(self) <= i < len(self):
            raise IndexError(f"{self.source} has {len(self):,} images, no number {i}.")
        i %= len(self)
        image = self._image(i)
        return image if isinstance(image, Damaged) else (image, self.labels[i], i)

    @property
    def damaged(self) -> list[str]:
        """The names of the images that were left out so far."""
        return [image.name for image in self._damaged.values()]

    @cached_property
    def digest(self) -> str:
        """A sha256 of the order, names, contents, labels and classes of the images.

        It reads every file once and decodes none; for the content of a generated image it takes the
        name of the data set and the image's number. Preparation is no part of it.
        """
        whole = hashlib.sha256(ascii(self.classes).encode())
        for i, label in enumerate(self.labels.tolist()):
            name = self.names[i] if self.names else ""
            content = hashlib.sha256(self._content(i)).hexdigest()
            whole.update(ascii((name, content, label)).encode())
        return whole.hexdigest()

    def prepared_for(self, model: nn.Module | dict) -> "Dataset":
        """These images with the evaluation preprocessing of a timm model.

        Warns if the model has a different number of classes than the labels.

        Args:
            model: The model, or its data configuration (input_size, mean, std, interpolation,
                crop_pct; what is left out is as for ImageNet).

        Returns:
            Another data set of the same images.
        """
        count = getattr(model, "num_classes", None) or len(self.classes)
        if count != len(self.classes):
            first = " and ".join(f"{i} is {name[:40]}" for i, name in enumerate(self.classes[:2]))
            warnings.warn(
                f"{self.source} has {len(self.classes):,} classes and the model tells {count:,} "
                "apart: whatever is measured by the labels, accuracy for one, means nothing "
                f"(of the labels, {first}).",
                stacklevel=2,
            )
        return self.preprocessed(model)

    def preprocessed(self, model: nn.Module | dict) -> "Dataset":
        """The same for images whose labels are not meant to be the model's classes.

        Args:
            model: As for `prepared_for`.

        Returns:
            Another data set of the same images.

        Raises:
            ValueError: For a model that says nothing of its images while one within it does: behind
                a Normalize, say, it wants others than by itself.
        """
        own: dict | None = model if isinstance(model, dict) else None
        if isinstance(model, nn.Module):
            own, *within = (getattr(part, "pretrained_cfg", None) for part in model.modules())
            if own is None and any(within):
                raise ValueError(
                    f"How {type(model).__name__} wants its images is not known, only how a model "
                    "within it does by itself: give a dict with input_size, mean and std instead."
                )
        config = resolve_data_config(pretrained_cfg=own or {})
        prepared = copy(self)  # one list of the damaged for all
        prepared._transform = create_transform(**config, is_training=False)
        plain = set(config["mean"]) == {0.0} and set(config["std"]) == {1.0}
        prepared._untouched = config["input_size"] if plain else None
        return prepared

    def subset(self, rows: Sequence[int], source: str) -> "Dataset":
        """The images at `rows`, in that order and as prepared, their indices counted from 0 again.

        Args:
            rows: Indices of images.
            source: What the choice is called.
        """
        names = None if self.names is None else [self.names[i] for i in rows]
        rows = [int(i) for i in rows]
        picture, content = _Chosen(self._picture, rows), _Chosen(self._content, rows)
        chosen = Dataset(source, self.labels[rows], self.classes, picture, names, content)
        chosen._transform, chosen._untouched = self._transform, self._untouched
        return chosen

    def batch(self, j: int, size: int) -> Batch:
        """Minibatch j without its damaged images, which are named in warnings and in `damaged`.

        The indices of the others stay what they are.

        Args:
            j: Which minibatch, from 0.
            size: Images a minibatch; the last one may have fewer.

        Raises:
            IndexError: There is no minibatch j.
            ValueError: The images differ in size.
        """
        rows = range(j * size, min((j + 1) * size, len(self)))
        if j < 0 or not rows:
            raise IndexError(
                f"{self.source} has {-(-len(self) // size)} minibatches of {size}, no number {j}."
            )
        batch, damaged = self.read(rows)
        self.leave_out(damaged)
        return batch

    def read(self, rows: Sequence[int]) -> tuple[Batch, dict[int, Damaged]]:
        """The images at `rows`, the damaged ones apart; says nothing about these and keeps nothing.

        Args:
            rows: Indices of images.

        Returns:
            The sound ones, whose indices stay what they are, and the others by their index.

        Raises:
            ValueError: The images differ in size.
        """
        found = {i: self._image(i) for i in rows}
        damaged = {i: image for i, image in found.items() if isinstance(image, Damaged)}
        sound = {i: image for i, image in found.items() if i not in damaged}
        index = torch.tensor(list(sound), dtype=torch.int64)
        shapes = {tuple(image.shape) for image in sound.values()}
        if len(shapes) > 1:
            raise ValueError(
                f"The images of {self.source} differ in size ({sorted(shapes)}): give the model, "
                "whose preprocessing brings them to one size."
            )
        images = torch.stack(list(sound.values())) if sound else torch.zeros(0, 3, 1, 1)
        return Batch(images, self.labels[index], index), damaged

    def leave_out(self, damaged: Mapping[int, Damaged]) -> None:
        """Put damaged images on the list of `damaged`, and warn of each that is new there.

        Args:
            damaged: As `read` gives them, here or in another process.
        """
        for i, image in damaged.items():
            if i not in self._damaged:
                self._damaged[i] = image
                text = f"{image.name} is damaged and left out: {image.reason}."
                warnings.warn(text, stacklevel=3)

    def batches(self, size: int) -> Iterator[Batch]:
        """All minibatches in their order.

        Args:
            size: Images a minibatch.
        """
        return (self.batch(j, size) for j in range(-(-len(self) // size)))

    def everything(self) -> Batch:
        """All images in memory, such as a model is trained on; damaged ones are left out.

        Raises:
            ValueError: All are damaged, or they differ in size.
        """
        images, filled, parts = None, 0, []
        total = -(-len(self) // CHUNK)
        hidden = True if total < 20 else None  # None: on a terminal only
        for part in tqdm(self.batches(CHUNK), self.source, total, disable=hidden):
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

    def _image(self, i: int) -> Tensor | Damaged:
        picture = self._damaged.get(i) or self._picture(i)
        if isinstance(picture, Damaged):
            return picture
        if isinstance(picture, Tensor):
            if self._transform is None or tuple(picture.shape) == self._untouched:
                return picture
            picture = to_pil_image(picture)
        if self._transform is not None:
            return self._transform(picture)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
