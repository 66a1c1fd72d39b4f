"""The rebuilt reader: what can be decoded when a new decoder is fitted to thresholded responses.

The counterpart of ablation with an *intact* reader (`ablation_profile`): there the network goes on
as it is, here nothing of it is asked but its responses.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from .responses import float64, float_responses


class Decoded(NamedTuple):
    """`accuracy` [shares] in 0 … 1 of the decoder when that `share` of responses is left or cut."""

    share: Tensor
    accuracy: Tensor


def threshold(
    responses: Tensor, share: float, part: Literal["top only", "top excluded"], peak: bool = False
) -> Tensor:
    """Set all but the largest `share` of responses, or just these, to zero.

    responses : [..., units], whatever comes before; the largest across all of them, by size; with
        `peak`, by size relative to each unit's own largest
    Of n responses round(share · n) are the largest. ValueError for a share outside 0 … 1 and an
    unknown part. Source: tang2018large. Chapter 5.1.
    """
    if part not in ("top only", "top excluded"):
        raise ValueError(f'A part is "top only" or "top excluded", not {part!r}.')
    if not 0 <= share <= 1:
        raise ValueError(f"A share lies between 0 and 1, not {share}.")
    x = float_responses(responses, "threshold")
    size = x.abs()
    if peak:
        largest = size.flatten(0, -2).amax(0)
        size = size / torch.where(largest > 0, largest, 1.0)
    count = round(share * x.numel())
    top = torch.zeros(x.numel(), dtype=torch.bool, device=x.device)
    top[size.flatten().argsort(dim=0, descending=True, stable=True)[:count]] = True
    keep = top if part == "top only" else ~top
    return x * keep.view_as(x)


def nearest_centroid_accuracy(train: Tensor, labels: Tensor, test: Tensor, truth: Tensor) -> float:
    """The share of test responses [m, units] whose nearest class mean is their own class's.

    train : [n, units] with labels [n]; truth : [m]; Euclidean distance, ties to the lower class.
    ValueError if a class of the test responses was not trained.
    """
    x = float64(float_responses(train, "nearest_centroid_accuracy"))
    labels, truth, test = labels.to(x.device), truth.to(x.device), float64(test)
    classes, rows = labels.unique(return_inverse=True)
    if missing := set(truth.tolist()) - set(classes.tolist()):
        raise ValueError(
            f"Class {min(missing)} is tested and was not trained: give both halves all."
        )
    sums = torch.zeros(len(classes), x.shape[1], dtype=torch.float64, device=x.device)
    centroids = sums.index_add(0, rows, x) / rows.bincount().unsqueeze(1)
    distance = torch.cdist(test, centroids)
    return (classes[distance.argmin(1)] == truth).double().mean().item()


def decode_classes(
    responses: Tensor,
    labels: Tensor,
    shares: list[float],
    part: Literal["top only", "top excluded"] = "top only",
    peak: bool = False,
) -> Decoded:
    """Which class was it? Class means of one half of the images, tested on the other, both ways.

    responses : [images, units]; labels : [images]; of each class, every other image is in the first
    half. Thresholded across all images first. ValueError for a class of one image. Chapter 5.1.
    """
    first = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        first[torch.where(labels == label)[0][::2].cpu()] = True
    halves = (first, ~first)

    def accuracy(share: float) -> float:
        x = threshold(responses, share, part, peak)
        folds = [
            nearest_centroid_accuracy(x[a], labels.cpu()[a], x[b], labels.cpu()[b])
            for a, b in (halves, halves[::-1])
        ]
        return sum(folds) / 2

    return Decoded(torch.tensor(shares), torch.tensor([accuracy(share) for share in shares]))


RIDGE = 1e-3  # of the mean variance, added to every direction before whitening


class PlaceDecoder(Metric):
    """Which place a token is from, by linear discriminant analysis: sums over images, merged.

    `update(tokens)` [images, places, channels] to learn from; `decode(tokens)` → [images, places],
    the number of the nearest mean token once the variation about the means is whitened. ValueError
    in `decode` if it has learnt from fewer than two images.
    """

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        for name in ("images", "total", "products"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, tokens: Tensor) -> None:
        """Add images [images, places, channels]."""
        tokens = tokens.detach().cpu().double()
        flat = tokens.flatten(0, 1)
        self.images = self.images + len(tokens)
        self.total, self.products = self.total + tokens.sum(0), self.products + flat.mT @ flat

    def compute(self) -> tuple[Tensor, Tensor]:
        """Return the weights [channels, places] and offsets [places] of the discriminant."""
        if self.images < 2:
            raise ValueError(
                "A place cannot be decoded from what fewer than two images have taught: give more "
                "images."
            )
        means = self.total / self.images  # [places, channels]
        size, channels = means.shape[0] * self.images, means.shape[1]
        within = (self.products - self.images * means.mT @ means) / (size - means.shape[0])
        scale = within.trace().clamp(min=0) * RIDGE + self.products.trace() / size * 1e-9
        ridge = (scale / channels).clamp(min=torch.finfo(torch.float64).tiny)
        weights = torch.linalg.solve(within + ridge * torch.eye(channels).double(), means.mT)
        return weights, (means * weights.mT).sum(1) / 2

    def decode(self, tokens: Tensor) -> Tensor:
        """Return the most likely place of every token."""
        weights, offsets = self.compute()
        return (tokens.detach().cpu().double() @ weights - offsets).argmax(-1)
