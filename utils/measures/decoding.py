"""What can be decoded from a layer's responses, by a decoder fitted to them: the rebuilt reader.

The counterpart of ablation with an intact reader (`ablation_profile`): there the network works on
with what is left, here only its responses are used, and a new decoder reads them.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from .responses import checked, float64
from .sparsity.streaming import Shaped


class Decoded(NamedTuple):
    """How well a decoder does when a share of the responses is left, or cut.

    Attributes:
        share: [shares], in 0 … 1.
        accuracy: [shares], in 0 … 1.
    """

    share: Tensor
    accuracy: Tensor


def threshold(
    responses: Tensor, share: float, part: Literal["top only", "top excluded"], peak: bool = False
) -> Tensor:
    """Set all but the largest `share` of responses, or just these, to zero.

    Of n responses round(share · n) are the largest. Source: tang2018large.

    Args:
        responses: [..., units]; the largest are sought across all axes, by size.
        share: Of the responses, in 0 … 1.
        part: What is left, "top only" or "top excluded".
        peak: Whether size is relative to each unit's own largest.

    Returns:
        The responses, zero where they are not left.

    Raises:
        ValueError: For a share outside 0 … 1, an unknown part, NaN and infinite responses.

    Example:
        >>> import torch
        >>> from utils.measures import decoding
        >>> decoding.threshold(torch.tensor([[1.0, -4.0], [3.0, 0.5]]), 0.5, "top only")
        tensor([[ 0., -4.],
                [ 3.,  0.]])
    """
    if part not in ("top only", "top excluded"):
        raise ValueError(f'A part is "top only" or "top excluded", not {part!r}.')
    if not 0 <= share <= 1:
        raise ValueError(f"A share lies between 0 and 1, not {share}.")
    x = checked(responses, "threshold", signed=True)
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
    """The share of test responses whose nearest class mean is that of their own class.

    The distance is Euclidean; ties go to the lower class.

    Args:
        train: [n, units].
        labels: Their classes [n].
        test: [m, units].
        truth: Their classes [m].

    Returns:
        The share, in 0 … 1.

    Raises:
        ValueError: If a class of the test responses was not trained, and for NaN and infinite
            responses.

    Example:
        >>> import torch
        >>> from utils.measures import decoding
        >>> train, test = torch.tensor([[0.0], [2.0], [10.0]]), torch.tensor([[5.0], [6.0]])
        >>> labels, truth = torch.tensor([0, 0, 1]), torch.tensor([0, 0])
        >>> decoding.nearest_centroid_accuracy(train, labels, test, truth)  # the means are 1 and 10
        0.5
    """
    x, test = (
        float64(checked(each, "nearest_centroid_accuracy", signed=True)) for each in (train, test)
    )
    largest = max(each.abs().max() for each in (x, test))
    x, test = (each / torch.where(largest > 0, largest, 1.0) for each in (x, test))
    labels, truth = labels.to(x.device), truth.to(x.device)
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

    Responses are thresholded across all images first, and the decoder is fitted after. Of each
    class, every other image is in the first half. Chapter 5.1.

    Args:
        responses: [images, units].
        labels: [images].
        shares: Of the responses that are left or cut, each in 0 … 1.
        part: As for `threshold`.
        peak: As for `threshold`.

    Returns:
        The accuracy at each share, as Decoded.

    Raises:
        ValueError: For a class of one image and as `threshold`.

    Example:
        >>> import torch
        >>> from utils.measures import decoding
        >>> labels = torch.arange(40) % 4
        >>> responses = torch.eye(4)[labels]  # one unit for each class
        >>> decoding.decode_classes(responses, labels, [1.0, 0.0]).accuracy
        tensor([1.0000, 0.2500])
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


class PlaceDecoder(Shaped):
    """Which place a token is from, by linear discriminant analysis: sums over images, merged.

    `update(tokens)` [images, places, channels] to learn from; `decode(tokens)` → [images, places],
    the number of the nearest mean token once the variation about the means is whitened.

    Raises:
        ValueError: In `decode`, if it has learnt from fewer than two images, or from NaN, infinite
            responses, or such whose squares leave the range of float64.

    Example:
        >>> import torch
        >>> from utils.measures import decoding
        >>> draw = torch.Generator().manual_seed(0)
        >>> tokens = torch.eye(5) + 0.1 * torch.randn(20, 5, 5, generator=draw)
        >>> decoder = decoding.PlaceDecoder()
        >>> decoder.update(tokens[:10])
        >>> decoder.decode(tokens[10:])[0]
        tensor([0, 1, 2, 3, 4])
    """

    full_state_update = False
    images: Tensor
    total: Tensor
    products: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("images", "total", "products"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, tokens: Tensor) -> None:
        """Add images to learn from.

        Args:
            tokens: [images, places, channels].
        """
        tokens = tokens.detach().cpu().double()
        flat = tokens.flatten(0, 1)
        self.images = self.images + len(tokens)
        self.total, self.products = self.total + tokens.sum(0), self.products + flat.mT @ flat

    def compute(self) -> tuple[Tensor, Tensor]:
        """The weights [channels, places] and offsets [places] of the discriminant."""
        if self.images < 2:
            raise ValueError(
                "A place cannot be decoded from what fewer than two images have taught: give more "
                "images."
            )
        squares = self.products.diagonal()
        unsquared = bool((squares < 1e-290).any() and self.total[:, squares < 1e-290].any())
        if unsquared or not self.products.isfinite().all():
            raise ValueError(
                "PlaceDecoder has learnt from NaN or infinite responses, or such whose squares "
                "leave the range of float64: find the layer that makes them, or scale them."
            )
        means = self.total / self.images  # [places, channels]
        size, channels = means.shape[0] * self.images, means.shape[1]
        within = (self.products - self.images * means.mT @ means) / (size - means.shape[0])
        scale = within.trace().clamp(min=0) * RIDGE + self.products.trace() / size * 1e-9
        ridge = (scale / channels).clamp(min=torch.finfo(torch.float64).tiny)
        weights = torch.linalg.solve(within + ridge * torch.eye(channels).double(), means.mT)
        return weights, (means * weights.mT).sum(1) / 2

    def decode(self, tokens: Tensor) -> Tensor:
        """The most likely place of every token.

        Args:
            tokens: [images, places, channels].

        Returns:
            Numbers of places [images, places].
        """
        weights, offsets = self.compute()
        checked(tokens, "PlaceDecoder", signed=True)
        return (tokens.detach().cpu().double() @ weights - offsets).argmax(-1)
