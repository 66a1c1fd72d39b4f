"""The sparseness of recorded responses of V1, in the same measures as that of the networks."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch

from utils.measures import sparsity
from utils.stimuli import recordings

# One row a number: `value` and `sd` are over `n` images or cells, as `over` says, of which
# `undefined` have none. Source: tang2018large, antolik2016model. Chapter 4.
COLUMNS = ("quantity", "over", "value", "sd", "n", "undefined")


def macaque(monkey: str) -> Iterator[dict]:
    """The half-peak fractions of one macaque, and the Gini of the two examples it was shown by."""
    counts = recordings.macaque_half_peak(monkey)
    yield {"quantity": "half_peak_fraction", "over": "images", **_summary(counts.population)}
    yield {"quantity": "half_peak_fraction", "over": "cells", **_summary(counts.lifetime)}
    for over, responses in recordings.macaque_ranked(monkey)._asdict().items():
        # One image's, or one cell's, responses: ΔF/F may be below 0, and is cut off there.
        gini = sparsity.gini(torch.from_numpy(responses.clip(min=0)))
        yield {"quantity": "gini_of_one_example", "over": over, "value": gini.item(), "n": 1}


def mouse(region: int) -> Iterator[dict]:
    """Population and lifetime sparseness of one region, by every measure that needs no threshold,
    and the half-peak fraction."""
    responses = torch.from_numpy(recordings.mouse(region).training).double()  # [images, cells]
    for quantity in ("gini", "treves_rolls", "vinje_gallant"):
        measure = getattr(sparsity, quantity)
        for over, dim in (("images", 1), ("cells", 0)):
            yield {"quantity": quantity, "over": over, **_summary(measure(responses, dim))}
    halves = sparsity.half_peak_fraction(responses)
    yield {"quantity": "half_peak_fraction", "over": "images", **_summary(halves.population)}
    yield {"quantity": "half_peak_fraction", "over": "cells", **_summary(halves.lifetime)}


ANIMALS = {"macaque A": "A", "macaque B": "B", "mouse region 1": 1, "mouse region 2": 2}
RECORDINGS: dict[str, Callable[[], Iterator[dict]]] = {
    name: partial(mouse if isinstance(animal, int) else macaque, animal)
    for name, animal in ANIMALS.items()
}


def fingerprint(recording: str) -> str | None:
    """The hash of what is recorded of an animal; None where that is not on this machine."""
    try:
        return recordings.fingerprint(ANIMALS[recording])
    except FileNotFoundError:
        return None


def _summary(values) -> dict:
    values = np.asarray(values, dtype=np.float64)
    known = values[~np.isnan(values)]
    return {
        "value": float(known.mean()),
        "sd": float(known.std(ddof=1)),
        "n": len(values),
        "undefined": len(values) - len(known),
    }
