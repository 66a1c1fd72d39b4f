"""How similar two layers are: linear CKA over minibatches, safe in any precision."""

import math
import zlib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

from .responses import checked, float64, float_responses, scaled
from .sparsity.streaming import Shaped, gather_states

PIECE = 128  # features that are multiplied together before their sum is widened
LARGEST_POWER = 240  # of two; the sums hold its fourth power
FEWEST = 4  # images in a minibatch: the unbiased estimator divides by n − 3

Features = Mapping[str, Tensor] | Sequence[Tensor]


class MinibatchCKA(Shaped):
    """Linear CKA between all layers of one model, or of two, accumulated over minibatches.

    `update(features)` or `update(features_a, features_b)`, then `compute()`. The unbiased HSIC of
    each minibatch is weighted by n(n − 3), nearly the number of pairs of its n images, and summed
    over the minibatches before the ratio. Minibatches of equal size so weigh equally, as in
    nguyen2021wide; a short last one, whose HSIC is hardly known, does not decide. The value depends
    on their size, so compare at equal size. Source: kornblith2019similarity, song2012feature,
    nguyen2021wide. Chapter 2.4.

    Attributes:
        names: The layers of both models, as keys of the dicts or numbers in the lists; part of the
            state, so that what is added, merged or gathered from ranks is of the same layers in the
            same order.

    Raises:
        ValueError: For no layers, minibatches of fewer than 4 images, layers with different images,
            layers that change, float64 responses whose products leave its range, and (in `compute`)
            NaN or infinite responses.

    Example:
        >>> import torch
        >>> from utils.measures import similarity
        >>> cka = similarity.MinibatchCKA()
        >>> draw = torch.Generator().manual_seed(0)
        >>> for minibatch in torch.randn(200, 10, generator=draw).split(50):
        ...     other = torch.randn(50, 10, generator=draw)
        ...     cka.update({"layer": minibatch, "scaled": 3 * minibatch, "independent": other})
        >>> cka.compute()[0].abs().round(decimals=1)
        tensor([1., 1., 0.], dtype=torch.float64)
    """

    full_state_update = False
    cross: Tensor
    own_a: Tensor
    own_b: Tensor
    minibatches: Tensor
    layers: Tensor  # what tells one list of names from another; 0 before the first minibatch

    def __init__(self) -> None:
        super().__init__(dist_sync_fn=gather_states)
        for name in ("cross", "own_a", "own_b", "minibatches"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("layers", torch.zeros((), dtype=torch.int64), dist_reduce_fx=_the_same)
        self.names: tuple[list, list] = ([], [])

    def reset(self) -> None:
        """Forget the minibatches and the names of the layers."""
        super().reset()
        self.names = ([], [])

    def merge_state(self, incoming_state: "dict | Metric") -> None:
        """Add what another metric of the same layers has seen, or its state.

        Args:
            incoming_state: The other metric, or its state.
        """
        super().merge_state(incoming_state)
        if isinstance(incoming_state, MinibatchCKA) and not self.names[0]:
            self.names = incoming_state.names

    def forward(self, features_a: Features, features_b: Features | None = None) -> Tensor:
        """Add one minibatch as `update` does, and give its own CKA.

        Args:
            features_a: As for `update`.
            features_b: As for `update`.

        Returns:
            CKA [layers_a, layers_b] of this minibatch.
        """
        self._given(features_a, features_b)  # refused before torchmetrics forgets the names
        return super().forward(features_a, features_b)

    def update(self, features_a: Features, features_b: Features | None = None) -> None:
        """Add one minibatch of responses to the same images, at least 4.

        Args:
            features_a: List or dict of responses [batch, …], in any unit.
            features_b: Those of another model; None to compare the layers of one.
        """
        given = self._given(features_a, features_b)
        self.names = (list(given[0]), list(given[-1]))
        number = zlib.crc32(repr(self.names).encode()) or 1
        self.layers = torch.full_like(self.layers, number)
        grams = [torch.stack([_gram(x) for x in layers.values()]) for layers in given]
        a, b = (_u_centred(gram).flatten(1) for gram in (grams[0], grams[-1]))  # [layers, images²]
        own_a, own_b = a.square().sum(1), b.square().sum(1)
        for name, value in {"cross": a @ b.mT, "own_a": own_a, "own_b": own_b}.items():
            setattr(self, name, getattr(self, name).to(value.device) + value)
        self.minibatches = self.minibatches + 1

    def _given(self, features_a: Features, features_b: Features | None) -> list[dict]:
        """The layers of each model, if they are those seen before."""
        models = [features_a] if features_b is None else [features_a, features_b]
        given = [_named(features) for features in models]
        lengths = {len(x) for layers in given for x in layers.values()}
        if len(lengths) > 1:
            raise ValueError(
                f"MinibatchCKA got layers with {' and '.join(map(str, sorted(lengths)))} images: "
                "give every layer's responses to the same images."
            )
        if (n := lengths.pop()) < FEWEST:
            raise ValueError(
                f"MinibatchCKA needs minibatches of at least {FEWEST} images, got {n}: leave out "
                "a short last minibatch."
            )
        names = (list(given[0]), list(given[-1]))
        if self.names[0] and names != self.names:
            raise ValueError(
                f"MinibatchCKA got the layers {names} after {self.names}: use one metric for each "
                "pair of models."
            )
        return given

    def compute(self) -> Tensor:
        """CKA of all pairs of layers over all minibatches seen, the same on every rank.

        Returns:
            [layers_a, layers_b] float64, from −1 to 1. 1 for layers that differ by rotation and
            scale,
            about 0 for independent ones, NaN where a layer does not vary over the images of any
            minibatch.
        """
        if not self.minibatches:
            raise ValueError("MinibatchCKA has seen no minibatch: update it first.")
        if not all(s.isfinite().all() for s in (self.cross, self.own_a, self.own_b)):
            raise ValueError(
                "MinibatchCKA got NaN or infinite responses (or such that their squares overflow): "
                "find the layer that makes them."
            )
        own_a, own_b = (own.masked_fill(own == 0, math.nan) for own in (self.own_a, self.own_b))
        return self.cross / (own_a.sqrt()[:, None] * own_b.sqrt())


def _the_same(numbers: Tensor) -> Tensor:
    """What tells the layers of one rank from another's, if it is the same on all."""
    seen = numbers[numbers != 0]
    if len(seen.unique()) > 1:
        raise ValueError(
            "MinibatchCKA was to add up other layers, or the same in another order: give all ranks "
            "the same layers."
        )
    return seen[0] if len(seen) else numbers.new_zeros(())


def _named(features: Features) -> dict:
    if isinstance(features, Tensor) or not len(features):
        raise ValueError(
            "MinibatchCKA needs a list or dict of layers, each [batch, …], and at least one: got "
            f"{'a tensor' if isinstance(features, Tensor) else 'none'}."
        )
    return dict(features) if isinstance(features, Mapping) else dict(enumerate(features))


def _gram(responses: Tensor) -> Tensor:
    """Inner products [images, images], float64, of responses [images, …] centred over images."""
    x = float_responses(responses, "MinibatchCKA")
    x = x.reshape(len(x), -1)
    if _products_are_rounded():
        x = float64(x)
    centred, mean, power = _within_range(x)
    # Products of a few features in their own precision, summed in float64: a hundred times as exact
    # as one product in float32, at a third of the price of one in float64.
    whole = x.shape[1] // PIECE * PIECE
    pieces = centred[:, :whole].unflatten(1, (-1, PIECE)).transpose(0, 1)  # [pieces, n, PIECE]
    rest = centred[:, whole:]
    with torch.autocast(x.device.type, enabled=False):
        gram = float64(pieces @ pieces.mT).sum(0) + float64(rest @ rest.mT)
    n = len(gram)
    # What is left of a layer that does not vary is the rounding of its mean: it is taken for zero.
    rounding = n * (n * torch.finfo(x.dtype).eps) ** 2 * float64(mean).square().sum()
    return gram.masked_fill(gram.trace() <= rounding, 0) * 4.0**power


def _within_range(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Responses less their mean, and the mean, over 2ᵖ if products would leave the range; and p.

    A common offset would eat the digits of every product.
    """
    power = math.frexp(max(abs(bound.item()) for bound in x.aminmax()))[1]
    if abs(power) > LARGEST_POWER:
        raise ValueError(
            f"MinibatchCKA got responses of about 2 to the power of {power}, whose products leave "
            "the range of float64: scale them."
        )
    power = power if abs(power) > 40 else 0  # as in nearly all networks
    if power:
        half = power // 2  # 2ᵖ itself may be out of the range of float32
        x = x * 2.0**-half * 2.0 ** -(power - half)
    mean = x.mean(0)
    return x - mean, mean, power


def _u_centred(grams: Tensor) -> Tensor:
    """Gram matrices [layers, n, n] without diagonal, less the means of their rows and columns.

    Σᵢⱼ of the product of two of them is n(n − 3) times the unbiased HSIC of the two layers
    (song2012feature, equation 5, reordered); the factor cancels in CKA.
    """
    n = grams.shape[-1]
    grams = grams - torch.diag_embed(grams.diagonal(dim1=1, dim2=2))
    rows = grams.sum(2, keepdim=True) / (n - 2)  # [layers, n, 1]
    grams = grams - rows - rows.mT + rows.sum(1, keepdim=True) / (n - 1)
    grams.diagonal(dim1=1, dim2=2).zero_()
    return grams


def _products_are_rounded() -> bool:
    """Whether float32 matrices are multiplied in TF32 or bfloat16, which keep three digits."""
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # torch refuses to say once it was set for a single backend
        return True


def skip_branch_ratio(skip: Tensor, branch: Tensor, channel_dim: int = -1) -> Tensor:
    """Norm of what a skip connection carries over that of its branch: ‖z‖ / ‖f(z)‖.

    Source: raghu2021do. Chapter 2.4.

    Args:
        skip: z [batch, tokens, channels], or maps with `channel_dim` 1.
        branch: f(z), of the same shape.
        channel_dim: The axis of the channels.

    Returns:
        The ratio, of the shape of `skip` without its channels, from 0; above 1 the skip connection
        dominates, infinite where the branch is silent, NaN where both are.

    Raises:
        ValueError: For unequal shapes, NaN and infinite values.

    Example:
        >>> import torch
        >>> from utils.measures import similarity
        >>> skip, branch = torch.ones(1, 3, 4), torch.full((1, 3, 4), 0.5)
        >>> similarity.skip_branch_ratio(skip, branch)
        tensor([[2., 2., 2.]])
    """
    if skip.shape != branch.shape:
        raise ValueError(
            f"skip_branch_ratio got a skip of shape {tuple(skip.shape)} and a branch of shape "
            f"{tuple(branch.shape)}: give what is added to each other."
        )
    z, f = (checked(x, "skip_branch_ratio", signed=True) for x in (skip, branch))
    both = scaled(torch.cat([z, f], channel_dim), channel_dim)
    lengths = [
        torch.linalg.vector_norm(x, dim=channel_dim, dtype=torch.float64)
        for x in both.chunk(2, channel_dim)
    ]
    return (lengths[0] / lengths[1]).to(z)
