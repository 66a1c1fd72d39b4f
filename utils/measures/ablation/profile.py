"""What an ablation profile holds, image by image, and the numbers and intervals made of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from . import curves
from .reliance import Reliance
from .summary import resampled, summarised

# What the units are called in a sentence.
NAMES = {
    "attention": "patches in each head",
    "head": "heads",
    "channel": "channels",
    "position": "positions",
    "unit": "units",
}


@dataclass
class AblationProfile:
    """What removing units did to each image; parts of different images can be `merged`.

    Orders are "top", "bottom", "random", for attention "matched" (random, of the mass of the top
    set) and "shrink" (all units equally, by that mass), and those of FIXED sets. Images are sorted
    by index.

    Attributes:
        ranks: Numbers of removed units [ranks], from 0 to n.
        n: Number of units.
        chance: Accuracy of guessing, in 0 … 1.
        index: Global indices of the images [images].
        labels: [images].
        kl: Order → [draws, images, ranks], KL(intact ‖ ablated) in nats, float32.
        right: Order → [draws, images, ranks], whether the answer was right.
        margin: Order → [draws, images, ranks], the log-odds of the true class in nats.
        overlap_removed: [images, 3], margins with the sets A, B and both removed.
        overlap_kept: [images, 3], margins with those sets alone kept.
        scores: [images, n], the responses that decided the order.
        mass: Order → [draws, images, ranks], the share of all response (0 … 1, mean over layers)
            that is removed.
        place: "kl", "right" or "margin" → "permuted" or "uniform" → [draws, images], with the same
            attention weights at other places.
        about: The settings of the profile.
    """

    ranks: np.ndarray
    n: int
    chance: float
    index: np.ndarray
    labels: np.ndarray
    kl: dict[str, np.ndarray]
    right: dict[str, np.ndarray]
    margin: dict[str, np.ndarray]
    overlap_removed: np.ndarray
    overlap_kept: np.ndarray
    scores: np.ndarray
    mass: dict[str, np.ndarray] = field(default_factory=dict)
    place: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    about: dict = field(default_factory=dict)

    @classmethod
    def merged(cls, parts: Sequence["AblationProfile"]) -> "AblationProfile":
        """One profile of all images, from those of minibatches or ranks.

        Args:
            parts: Profiles of different images.

        Raises:
            ValueError: If they differ in anything but images, or share an image.
        """
        first = parts[0]
        for part in parts:
            if part.about != first.about or part.ranks.tolist() != first.ranks.tolist():
                raise ValueError("Profiles of different conditions cannot be merged.")
        index = np.concatenate([part.index for part in parts])
        if len(np.unique(index)) < len(index):
            raise ValueError("The profiles share images: each image may be in one of them only.")
        order = np.argsort(index)

        def images_first(name: str) -> np.ndarray:
            return np.concatenate([getattr(part, name) for part in parts])[order]

        def joined(each: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
            return {key: np.concatenate([t[key] for t in each], 1)[:, order] for key in each[0]}

        def tables(name: str) -> dict[str, np.ndarray]:
            return joined([getattr(part, name) for part in parts])

        return cls(
            ranks=first.ranks,
            n=first.n,
            chance=first.chance,
            index=index[order],
            labels=images_first("labels"),
            kl=tables("kl"),
            right=tables("right"),
            margin=tables("margin"),
            overlap_removed=images_first("overlap_removed"),
            overlap_kept=images_first("overlap_kept"),
            scores=images_first("scores"),
            mass=tables("mass"),
            place={name: joined([part.place[name] for part in parts]) for name in first.place},
            about=first.about,
        )

    @property
    def fractions(self) -> np.ndarray:
        """The share of the units that each rank removes [ranks]."""
        return self.ranks / self.n

    def table(self, samples: int = 2000, seed: int = 0, confidence: float = 0.95) -> pd.DataFrame:
        """The curves, tidy, with intervals bootstrapped as in `summary`.

        Args:
            samples: Bootstrap samples.
            seed: Of the samples.
            confidence: Of the intervals.

        Returns:
            One row for each order and rank, with order, k, fraction, mass (the share of all
            response that is
            removed, 0 … 1); means of kl (nats), accuracy, margin (nats) over images and draws, each
            with "…
            low" and "… high".
        """
        columns = {"kl": self.kl, "accuracy": self.right, "margin": self.margin}
        each = {
            (order, name): tables[order].mean(0, dtype=np.float64)
            for name, tables in columns.items()
            for order in tables
        }
        means = resampled(self, each, samples, seed)
        bounds = (1 - confidence) / 2, (1 + confidence) / 2
        parts = []
        for order in self.kl:
            part = {"order": order, "k": self.ranks, "fraction": self.fractions}
            part["mass"] = self.mass[order].mean((0, 1), dtype=np.float64)
            for name in columns:
                part[name], drawn = means[order, name][0], means[order, name][1:]
                part[f"{name} low"], part[f"{name} high"] = np.quantile(drawn, bounds, axis=0)
            parts.append(pd.DataFrame(part))
        return pd.concat(parts, ignore_index=True)

    def per_class(self, fraction: float = 0.2, confidence: float = 0.95) -> pd.DataFrame:
        """What removing the top and as many random units costs each class.

        Args:
            fraction: Of the units; the rank nearest to it is taken.
            confidence: Of the interval.

        Returns:
            One row for each class, with its images, intact accuracy, accuracy with the top and with
            random units
            removed, and their gap, with a paired t-interval over its images.
        """
        at = int(np.abs(self.fractions - fraction).argmin())
        top, random = self.right["top"][0, :, at], self.right["random"].mean(0)[:, at]
        frame = pd.DataFrame(
            {
                "class": self.labels,
                "intact": self.right["top"][0, :, 0],
                "top removed": top,
                "random removed": random,
                "random − top": random - top,
            }
        )
        grouped = frame.groupby("class")
        means, images = grouped.mean(), grouped.size()
        half = grouped["random − top"].sem() * stats.t.ppf((1 + confidence) / 2, images - 1)
        gap = means["random − top"]
        return means.assign(low=gap - half, high=gap + half, images=images).reset_index()

    def reliance(self) -> Reliance:
        """What removing everything does to these images, for the rule on KL in `summary`."""
        right = self.right["top"][0]
        return Reliance(
            self.index, self.kl["top"][0, :, -1], right[:, 0], right[:, -1], self.chance
        )

    def summary(
        self,
        samples: int = 2000,
        seed: int = 0,
        confidence: float = 0.95,
        reliance: Reliance | None = None,
    ) -> pd.DataFrame:
        """All numbers with intervals.

        A paired bootstrap over images: each sample draws images once, for all curves and orders.
        Without reliance (the lower bound of the accuracy that the whole scope is worth is below 1
        point, or the intact accuracy is not 10 points above chance) what is relative to it is NaN;
        on the margin also where the whole scope is not surely worth more than nothing.

        Args:
            samples: Bootstrap samples.
            seed: Of the samples.
            confidence: Of the intervals.
            reliance: Of these images (`self.reliance()`) or more; whether there is any is then told
                by KL, see `Reliance.exists`, and not by the accuracy of these images.

        Returns:
            One row for each number, with measure, estimate, low, high, n images, note.
        """
        return summarised(self, samples, seed, confidence, reliance)

    def sentence(self, share: float = 0.05, reliance: Reliance | None = None) -> str:
        """Functional sparsity in words: what the strongest units do alone.

        Args:
            share: Of the units, one of curves.KEPT, which have a row in `summary`.
            reliance: As for `summary`.

        Raises:
            ValueError: For a share that the ranks do not tell.
        """
        table = self.summary(reliance=reliance).set_index("measure")
        told = curves.kept(self.ranks)
        if share not in told:
            raise ValueError(f"What {share:.3g} of the units do alone is not among {list(told)}.")
        effect, accuracy, intact, worth = (
            table.loc[name, "estimate"]
            for name in (
                f"effect, top kept at {100 * share:.3g}%",
                f"accuracy, top kept at {100 * share:.3g}%",
                "intact accuracy",
                "reliance, accuracy",
            )
        )
        units = NAMES[self.about["unit"]]
        if np.isnan(effect):
            return f"The network does not rely on these {units}: there is no effect to keep."
        return (
            f"With only the strongest {told[share]} of {self.n} {units} kept, {100 * effect:.0f} % "
            f"of the effect and an accuracy of {100 * accuracy:.1f} % remain (intact "
            f"{100 * intact:.1f} %, with none {100 * (intact - worth):.1f} %)."
        )
