"""The numbers that describe an ablation profile, each with its bootstrap interval."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import expit

from ..statistics import Estimate, bootstrap_means, percentiles
from . import curves
from .curves import ABOVE_CHANCE, NO_RELIANCE
from .reliance import Reliance

if TYPE_CHECKING:
    from .profile import AblationProfile

# What is told on the margin of the true class as well, for KL is about quadratic in what is
# removed, and on its probability: with everything removed a network gives all images one answer,
# and how sure of it it is, an accident of its training, makes KL and margin large or small. The
# mean probability of the true class is that of guessing then.
OTHERWISE = (
    "necessity N",
    "sufficiency K",
    "N − K",
    "half removed, top",
    "half removed, random",
    "half kept, top",
    "half kept, random",
)
ORDERS = ("top", "random", "bottom")
Rows = Iterator[tuple[str, Estimate, str]]
Told = Callable[..., Estimate]


def summarised(
    profile: "AblationProfile",
    samples: int,
    seed: int,
    confidence: float,
    reliance: Reliance | None,
) -> pd.DataFrame:
    """See `AblationProfile.summary`."""
    images = len(profile.index)
    overlaps = _overlaps(profile)
    means = resampled(profile, _tables(profile) | overlaps, samples, seed)

    def told(values: np.ndarray, n: int = images) -> Estimate:
        return percentiles(values, n, confidence)

    accuracy = means["right", "top"]
    worth = told(accuracy[:, 0] - accuracy[:, -1])
    exists = worth.low >= NO_RELIANCE and accuracy[0, 0] - profile.chance >= ABOVE_CHANCE
    if reliance is not None:
        exists = reliance.exists(samples, seed, confidence)
    relied = bool(exists and means["kl", "top"][0, -1] > 0)

    def related(name: str, values: np.ndarray, note: str = "", sure: bool = True):
        if relied and sure:
            return name, told(values), note
        return name, Estimate(np.nan, np.nan, np.nan, np.nan, images), "no reliance"

    def rows() -> Rows:
        yield "intact accuracy", told(accuracy[:, 0]), ""
        yield "reliance, KL", told(means["kl", "top"][:, -1]), ""
        yield "reliance, accuracy", worth, ""
        lost = means["margin", "top"][:, 0] - means["margin", "top"][:, -1]
        yield "reliance, margin", told(lost), ""
        if reliance is not None:
            yield "existence, KL", reliance.estimate(samples, seed, confidence), ""
        yield from _accuracies(profile, means, told)
        for name in overlaps:
            yield name, told(means[name]), ""
        with np.errstate(invalid="ignore", divide="ignore"):  # a sample without such images
            kl = {order: means["kl", order] for order in profile.kl}
            for name, values in curves.describe(kl, profile.fractions).items():
                yield related(name, values)
            for scale in ("margin", "probability"):
                damage = {order: means[scale, order] for order in ORDERS}
                damage = {order: curve[:, :1] - curve for order, curve in damage.items()}
                numbers = curves.describe(damage, profile.fractions)
                sure = told(damage["top"][:, -1]).low > 0
                for name in OTHERWISE:
                    yield related(f"{name}, {scale}", numbers[name], sure=sure)
            at = {profile.n - int(k): i for i, k in enumerate(profile.ranks)}
            for share, count in curves.kept(profile.ranks).items():
                note, i = f"{count} of {profile.n} kept", at[count]
                effect = 1 - kl["bottom"][:, i] / kl["bottom"][:, -1]
                yield related(f"effect, top kept at {100 * share:.3g}%", effect, note)
                effect = 1 - damage["bottom"][:, i] / damage["bottom"][:, -1]
                name = f"effect, top kept at {100 * share:.3g}%, probability"
                yield related(name, effect, note, sure=sure)
                right = told(means["right", "bottom"][:, i])
                yield f"accuracy, top kept at {100 * share:.3g}%", right, note
        yield from _placed(profile, means, told)

    columns = ("estimate", "low", "high", "n")
    return pd.DataFrame(
        [
            {"measure": name, **{c: getattr(found, c) for c in columns}, "note": note}
            for name, found, note in rows()
        ]
    )


def resampled(profile: "AblationProfile", each: dict, samples: int, seed: int) -> dict:
    """The bootstrapped means of tables.

    Args:
        profile: Of the images.
        each: Name → [images, …].
        samples: Bootstrap samples.
        seed: Of the samples.

    Returns:
        Name → [1 + samples, …].

    Raises:
        ValueError: For a single image.
    """
    if len(profile.index) < 2:
        raise ValueError(
            f"A profile of {len(profile.index)} image has no interval: run at least 2."
        )
    return bootstrap_means(each, samples, seed)


def _tables(profile: "AblationProfile") -> dict:
    """What is bootstrapped: (quantity, order or place) → [images, ranks] or [images]."""
    tables = {("kl", order): table for order, table in profile.kl.items()}
    for order in ORDERS:
        tables["right", order] = profile.right[order]
        tables["margin", order] = profile.margin[order]
        tables["probability", order] = expit(profile.margin[order])
    for name, places in profile.place.items():
        tables |= {(name, put): table for put, table in places.items()}
    return {key: table.mean(0, dtype=np.float64) for key, table in tables.items()}


def _accuracies(profile: "AblationProfile", means: dict, told: Told) -> Rows:
    """Accuracy with the top or as many random units removed, and their difference."""
    places = {int(k): at for at, k in enumerate(profile.ranks)}
    for share, k in curves.shown(profile.n).items():
        if k in places:
            top, random = (means["right", order][:, places[k]] for order in ("top", "random"))
            values = {"top removed": top, "random removed": random, "random − top": random - top}
            for name, value in values.items():
                yield f"accuracy, {name} at {100 * share:.3g}%", told(value), ""


def _placed(profile: "AblationProfile", means: dict, told: Told) -> Rows:
    """The damage of the same weights at other places, and what of it exceeds removing all."""
    signs = {"kl": ("KL", 1), "right": ("accuracy", -1), "margin": ("margin", -1)}
    for name, places in profile.place.items():
        shown, sign = signs[name]
        intact, removed = means[name, "top"][:, 0], means[name, "top"][:, -1]
        for put in places:
            moved = means[name, put]
            yield f"damage, {put}, {shown}", told(sign * (moved - intact)), ""
            yield f"damage, {put} − removed, {shown}", told(sign * (moved - removed)), ""


def _overlaps(profile: "AblationProfile") -> dict[str, np.ndarray]:
    """I_rem and I_keep of each image, on the margin of the true class."""
    intact, nothing = (profile.margin["top"][0, :, i].astype(np.float64) for i in (0, -1))
    lost = intact[:, None] - profile.overlap_removed  # e(A), e(B), e(A ∪ B)
    restored = profile.overlap_kept - nothing[:, None]  # k(A), k(B), k(A ∪ B)
    return {
        name: effect[:, 2] - effect[:, 0] - effect[:, 1]
        for name, effect in (("I_rem", lost), ("I_keep", restored))
    }
