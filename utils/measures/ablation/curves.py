"""From curves of damage against the share of units removed to the numbers that describe them.

Everything here is arithmetic on arrays whose last axis runs over ranks k, the numbers of removed
units, from 0 to n; all other axes are a batch, such as bootstrap samples. Chapter 5.1.
"""

import numpy as np
from scipy.integrate import trapezoid

# At which accuracy is shown; those that matter most for a short list of ranks come first.
FRACTIONS = (0.5, 0.2, 0.1, 0.05, 0.3, 0.02)
FIXED = ("centre", "mean map")  # orders that are the same for all images
SMALL = (0.01, 0.005)  # where that is a unit or more
KEPT = (0.01, 0.03, 0.05)  # with only these strongest, how much remains is told
NO_RELIANCE = 0.01  # points of accuracy that the whole layer must be worth, by the lower bound
NO_RELIANCE_KL = 0.01  # or nats
ABOVE_CHANCE = 0.10  # by which the intact network must be


def at_fraction(n: int, fraction: float) -> int:
    """How many of n units a fraction is, at least one.

    Args:
        n: Number of units.
        fraction: Of them, in 0 … 1.
    """
    return max(1, round(fraction * n))


def shown(n: int) -> dict[float, int]:
    """Where accuracy is shown: fraction → number of units, from small to large.

    A fraction of less than half a unit (a whole unit for 1 % and less) has none.

    Args:
        n: Number of units.
    """
    fractions = [f for f in FRACTIONS if f * n >= 0.5] + [f for f in SMALL if f * n >= 1]
    return {f: at_fraction(n, f) for f in sorted(fractions)}


def kept(ranks: np.ndarray) -> dict[float, int]:
    """Which ranks tell what the strongest few do alone.

    Of n − k for all ranks k, the number nearest to each fraction of half a unit or more; where that
    is one number for several, it stands for the fraction that it is closest to.

    Args:
        ranks: Numbers of removed units, from 0 to n.

    Returns:
        Fraction of KEPT → number of units kept.
    """
    n = int(ranks[-1])
    there = (n - ranks)[1:-1]
    found: dict[int, float] = {}
    for fraction in (f for f in KEPT if f * n >= 0.5 and len(there)):
        count = int(there[np.abs(there - at_fraction(n, fraction)).argmin()])
        found[count] = _nearest({fraction, found.get(count, fraction)}, count / n)
    return {fraction: count for count, fraction in sorted(found.items())}


def _nearest(fractions: set[float], share: float) -> float:
    return min(fractions, key=lambda f: abs(share - f))


def symmetric_ranks(n: int, most: int = 33) -> np.ndarray:
    """Numbers of removed units from 0 to n, with n − k for every k.

    They hold those of FRACTIONS and SMALL where there is room; the rest are spread evenly.

    Args:
        n: Number of units.
        most: Largest number of ranks.

    Returns:
        The ranks in ascending order.

    Raises:
        ValueError: For fewer than 3 ranks, of an odd number of units fewer than 4, or 2 units.

    Example:
        >>> from utils.measures.ablation import curves
        >>> curves.symmetric_ranks(64, most=5)
        array([ 0, 13, 32, 51, 64])
    """
    least = min(3 + n % 2, n + 1)  # an odd number has no middle, so its inner ranks come in pairs
    if n < 2 or most < least:
        raise ValueError(
            f"{most} ranks of {n} units make no curve: give at least {max(least, 3)} ranks, and 2 "
            "units or more."
        )
    if n + 1 <= most:
        return np.arange(n + 1)
    places = shown(n)
    wanted = [places[f] for f in (*FRACTIONS, *SMALL) if f in places]
    ranks = {0, n}
    for k in [*wanted, *_spread(n, most)]:
        if len(ranks | {k, n - k}) <= most:
            ranks |= {k, n - k}
    return np.array(sorted(ranks))


def _spread(n: int, most: int) -> list[int]:
    """Ranks up to n/2, those first that halve the widest gap."""
    order, parts = [], 2
    while parts <= 4 * most:
        order += [round(n * i / parts) for i in range(1, parts // 2 + 1)]
        parts *= 2
    return list(dict.fromkeys(order))


def _area(curve: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    return trapezoid(curve, fractions, axis=-1)


def necessity(top: np.ndarray, random: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """∫ (D_top − D_random) df / D_all: how much more the strongest matter than random units.

    Args:
        top: Damage [..., ranks] as the strongest are removed first.
        random: Damage [..., ranks] in random order.
        fractions: The share of units that each rank removes [ranks].

    Returns:
        N [...], at most 1 where no damage exceeds D_all, that of removing everything.

    Example:
        >>> import numpy as np
        >>> from utils.measures.ablation import curves
        >>> fractions = np.linspace(0, 1, 101)
        >>> at_once = np.minimum(1, 100 * fractions)  # all damage by the first hundredth
        >>> round(float(curves.necessity(at_once, fractions, fractions)), 3)
        0.495
    """
    return _area(top - random, fractions) / top[..., -1]


def sufficiency(random: np.ndarray, bottom: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """∫ (D_random − D_bottom) df / D_all: how much less is lost where the strongest are kept.

    Args:
        random: Damage [..., ranks] in random order.
        bottom: Damage [..., ranks] as the weakest are removed first.
        fractions: The share of units that each rank removes [ranks].

    Returns:
        K [...], at most 1 where no damage exceeds D_all.
    """
    return _area(random - bottom, fractions) / bottom[..., -1]


def half_removed(curve: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """f₅₀⁻: the smallest fraction whose removal does half of the whole damage.

    Linear between ranks, as `half_kept`.

    Args:
        curve: Damage [..., ranks].
        fractions: The share of units that each rank removes [ranks].

    Returns:
        The fraction [...] in 0 … 1, NaN if the curve never reaches its half.
    """
    return _crossing(curve, curve[..., -1:] / 2, fractions)


def half_kept(curve: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """f₅₀⁺: the smallest fraction that, kept alone, leaves less than half of the whole damage.

    Args:
        curve: Damage [..., ranks] as the others are removed first; keeping f is removing 1 − f.
        fractions: The share of units that each rank removes [ranks].

    Returns:
        The fraction [...] in 0 … 1, NaN if the curve never reaches its half.
    """
    # From everything removed (nothing kept) to nothing removed: where damage falls below half.
    whole = curve[..., -1:]
    return _crossing(whole - curve[..., ::-1], whole / 2, fractions)


def _crossing(curve: np.ndarray, level: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    """Where curves [..., ranks] first come to levels [..., 1], linear between ranks [...]."""
    reached = curve >= level
    at = reached.argmax(-1)[..., None]
    before = np.maximum(at - 1, 0)
    low, high = (np.take_along_axis(curve, i, -1) for i in (before, at))
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.where(at > 0, (level - low) / (high - low), 0)
    found = fractions[before] + part * (fractions[at] - fractions[before])
    known = reached.any(-1) & np.isfinite(curve).all(-1)
    return np.where(known, found[..., 0], np.nan)


def describe(damage: dict[str, np.ndarray], fractions: np.ndarray) -> dict[str, np.ndarray]:
    """All numbers that need nothing but the damage curves.

    Args:
        damage: Order ("top", "random", "bottom", and where they are "matched" and those of FIXED) →
            curves [..., ranks].
        fractions: The share of units that each rank removes [ranks].

    Returns:
        Name of the number → [...].
    """
    top, random, bottom = damage["top"], damage["random"], damage["bottom"]
    n, k = necessity(top, random, fractions), sufficiency(random, bottom, fractions)
    found = {
        "necessity N": n,
        "sufficiency K": k,
        "N − K": n - k,
        "reconstruction (N + K)/2": (n + k) / 2,
        "half removed, top": half_removed(top, fractions),
        "half removed, random": half_removed(random, fractions),
        "half kept, top": half_kept(bottom, fractions),
        "half kept, random": half_kept(random, fractions),
    }
    if "matched" in damage:
        found["place index"] = necessity(top, damage["matched"], fractions)
    for name in FIXED:
        if name in damage:
            reached = necessity(damage[name], random, fractions)
            found |= {f"necessity N, {name}": reached, f"necessity N, beyond {name}": n - reached}
    return found
