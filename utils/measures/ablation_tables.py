"""What an ablation profile holds, image by image, and the numbers and intervals made of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from scipy import stats

from utils.measures import ablation_curves
from utils.measures.ablation_curves import ABOVE_CHANCE, NO_RELIANCE
from utils.measures.statistics import Estimate, bootstrap_means, percentiles
from utils.measures.vector_measures import gini


@dataclass
class AblationProfile:
    """What removing units did to each image; parts of different images can be `merged`.

    `ranks` [ranks] of `n` units; `index`, `labels` [images]. `kl`, `right`, `margin`: order →
    [draws, images, ranks], float32: KL(intact ‖ ablated) in nats, whether the answer was right, and
    the log-odds of the true class in nats. Orders: "top", "bottom", "random", and for attention
    "matched" (random, of the mass of the top set) and "shrink" (all units alike, by that mass).
    `overlap_removed`, `overlap_kept` [images, 3]: margins with the sets A, B and both removed, or
    alone kept. `alone` [images, n]: KL of leaving one unit out, NaN where not measured; `scores`
    [images, n]: the responses that decided the order. Images are sorted by index.
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
    alone: np.ndarray
    scores: np.ndarray
    about: dict = field(default_factory=dict)

    @classmethod
    def merged(cls, parts: Sequence["AblationProfile"]) -> "AblationProfile":
        """One profile of all images, from those of minibatches or ranks; ValueError if they differ
        in anything but images, or share an image."""
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

        def tables(name: str) -> dict[str, np.ndarray]:
            each = [getattr(part, name) for part in parts]
            return {key: np.concatenate([t[key] for t in each], 1)[:, order] for key in each[0]}

        whole = ("labels", "overlap_removed", "overlap_kept", "alone", "scores")
        return cls(
            ranks=first.ranks,
            n=first.n,
            chance=first.chance,
            index=index[order],
            **{name: images_first(name) for name in whole},
            **{name: tables(name) for name in ("kl", "right", "margin")},
            about=first.about,
        )

    @property
    def fractions(self) -> np.ndarray:
        """The share of the units that each rank removes [ranks]."""
        return self.ranks / self.n

    def table(self, samples: int = 2000, seed: int = 0, confidence: float = 0.95) -> pd.DataFrame:
        """The curves, tidy: order, k, fraction; means of kl (nats), accuracy, margin (nats) over
        images and draws, each with "… low" and "… high", bootstrapped as in `summary`."""
        columns = {"kl": self.kl, "accuracy": self.right, "margin": self.margin}
        each = {
            (order, name): tables[order].mean(0, dtype=np.float64)
            for name, tables in columns.items()
            for order in tables
        }
        means = self._resampled(each, samples, seed)
        bounds = (1 - confidence) / 2, (1 + confidence) / 2
        parts = []
        for order in self.kl:
            part = {"order": order, "k": self.ranks, "fraction": self.fractions}
            for name in columns:
                part[name], drawn = means[order, name][0], means[order, name][1:]
                part[f"{name} low"], part[f"{name} high"] = np.quantile(drawn, bounds, axis=0)
            parts.append(pd.DataFrame(part))
        return pd.concat(parts, ignore_index=True)

    def _resampled(self, each: dict, samples: int, seed: int) -> dict:
        if len(self.index) < 2:
            raise ValueError(
                f"A profile of {len(self.index)} image has no interval: run at least 2."
            )
        return bootstrap_means(each, samples, seed)

    def per_class(self, fraction: float = 0.2, confidence: float = 0.95) -> pd.DataFrame:
        """Of each class: images, intact accuracy, accuracy with the top and with as many random
        units removed (the rank nearest to `fraction`), and their gap, with a paired t-interval over
        its images."""
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

    def summary(self, samples: int = 2000, seed: int = 0, confidence: float = 0.95) -> pd.DataFrame:
        """All numbers with intervals: measure, estimate, low, high, n images, note.

        A paired bootstrap over images: each sample draws images once, for all curves and orders.
        Without reliance (the lower bound of the accuracy that the whole scope is worth is below 1
        point, or the intact accuracy is not 10 points above chance) what is relative to it is NaN.
        Alignment and concentration are of the images whose units were left out one by one, and in
        which they are defined: that is their n.
        """
        each = {("kl", order): x.mean(0, dtype=np.float64) for order, x in self.kl.items()}
        each |= {
            ("right", order): self.right[order].mean(0, dtype=np.float64)
            for order in ("top", "random")
        }
        overlaps, alone = self._overlaps(), self._alone()
        each |= overlaps
        for name, values in alone.items():
            each[name, "sum"], each[name, "n"] = np.nan_to_num(values), np.isfinite(values)
        means = self._resampled(each, samples, seed)
        images = len(self.index)

        accuracy, random = means["right", "top"], means["right", "random"]
        worth = percentiles(accuracy[:, 0] - accuracy[:, -1], images, confidence)
        kl = {order: means["kl", order] for order in self.kl}
        absolute = {
            "intact accuracy": percentiles(accuracy[:, 0], images, confidence),
            "reliance, KL": percentiles(kl["top"][:, -1], images, confidence),
            "reliance, accuracy": worth,
        }
        for at, share in self._shown():
            values = {
                "top removed": accuracy[:, at],
                "random removed": random[:, at],
                "random − top": random[:, at] - accuracy[:, at],
            }
            for name, value in values.items():
                found = percentiles(value, images, confidence)
                absolute[f"accuracy, {name} at {share:.3g}%"] = found
        for name in overlaps:
            absolute[name] = percentiles(means[name], images, confidence)
        with np.errstate(invalid="ignore", divide="ignore"):  # a sample without such images
            for name, values in alone.items():
                known = int(np.isfinite(values).sum())
                ratio = means[name, "sum"] / means[name, "n"]
                absolute[name] = percentiles(ratio, known, confidence)
            relative = ablation_curves.describe(kl, self.fractions)
        reliant = (
            worth.low >= NO_RELIANCE
            and accuracy[0, 0] - self.chance >= ABOVE_CHANCE
            and kl["top"][0, -1] > 0
        )
        nothing = Estimate(np.nan, np.nan, np.nan, np.nan, images)
        rows = [(name, found, "") for name, found in absolute.items()]
        for name, values in relative.items():
            if reliant:
                rows.append((name, percentiles(values, images, confidence), ""))
            else:
                rows.append((name, nothing, "no reliance"))
        return pd.DataFrame(
            [
                {
                    "measure": name,
                    "estimate": found.estimate,
                    "low": found.low,
                    "high": found.high,
                    "n": found.n,
                    "note": note,
                }
                for name, found, note in rows
            ]
        )

    def _shown(self) -> list[tuple[int, float]]:
        """Where accuracy is shown: number of the rank, and the percentage."""
        wanted = ablation_curves.shown(self.n)
        places = {int(k): at for at, k in enumerate(self.ranks)}
        return [(places[k], 100 * share) for share, k in wanted.items() if k in places]

    def _overlaps(self) -> dict[str, np.ndarray]:
        """I_rem and I_keep of each image, on the margin of the true class."""
        intact, nothing = (self.margin["top"][0, :, i].astype(np.float64) for i in (0, -1))
        lost = intact[:, None] - self.overlap_removed  # e(A), e(B), e(A ∪ B)
        restored = self.overlap_kept - nothing[:, None]  # k(A), k(B), k(A ∪ B)
        return {
            name: effect[:, 2] - effect[:, 0] - effect[:, 1]
            for name, effect in (("I_rem", lost), ("I_keep", restored))
        }

    def _alone(self) -> dict[str, np.ndarray]:
        """Alignment and concentration [images] of the leave-one-out effects; NaN where there are
        none, or all are equal (alignment) or zero (concentration)."""
        measured = np.isfinite(self.alone).all(1)
        if measured.sum() < 2:
            return {}
        ranked = (stats.rankdata(x[measured], axis=1) for x in (self.alone, self.scores))
        a, b = (x - x.mean(1, keepdims=True) for x in ranked)
        alignment, concentration = np.full((2, len(measured)), np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            alignment[measured] = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
        effects = torch.from_numpy(self.alone[measured]).double()
        concentration[measured] = gini(effects).numpy()
        return {"alignment": alignment, "concentration": concentration}
