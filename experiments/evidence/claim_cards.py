"""The claims as cards: what is claimed, what would count, what was measured, the verdict and why.

A card has the claim's name as its anchor. It is HTML without a script; on a page, a script adds a
filter. Links name notebooks, as they do in Jupyter; pages turn them into their own.
"""

import html
import math
from functools import cache

import pandas as pd

from experiments.evidence import power, rules
from experiments.evidence.progress import section

WIDTH, ROW = 220, 18  # of a line of intervals, in px
# Styles of the cards' own, so that they look the same in Jupyter.
STYLE = """
.claim-card{border:1px solid #8886;border-radius:8px;padding:.8em 1em;margin:0 0 1em;
scroll-margin-top:5rem}
.claim-card[hidden]{display:none}
.claim-card h3{margin:0 0 .3em;font-size:1.15rem;line-height:1.35}
.claim-card p{margin:.3em 0}
.claim-card h4{font-size:1rem;margin:.9em 0 .2em}
.claim-card .verdict-mark{display:inline-block;width:1.6em;height:1.6em;line-height:1.6em;
border-radius:50%;text-align:center;font-weight:bold;margin-right:.35em}
.claim-card table{border-collapse:collapse;margin:.4em 0;display:block;overflow-x:auto;border:0}
.claim-card caption{caption-side:top;text-align:left;color:inherit;padding:.2em 0}
.claim-card :is(th,td){text-align:left;font-weight:normal;padding:.1em .8em .1em 0;border:0;
background:none;font-variant-numeric:tabular-nums}
.claim-card svg{display:block}
@media (max-width:40rem){.claim-card :is(tr,th,td){display:block}}
"""


class Cards:
    """What a notebook or a page shows of some claims."""

    def __init__(self, markup: list[str]) -> None:
        self.markup = markup

    def _repr_html_(self) -> str:
        return f"<style>{STYLE}</style>\n" + "\n".join(self.markup)


def counts(rule) -> str:
    """A rule in words."""
    match rule:
        case rules.Effect(direction, delta):
            side = "above" if direction > 0 else "below"
            return f"the interval lies {side} 0, and the effect is {delta:g} or more"
        case rules.Above(bound):
            return f"the interval lies above {bound:g}"
        case rules.Below(bound):
            return f"the interval lies below {bound:g}"
        case rules.Equivalence(margin):
            return f"the interval lies within ±{margin:g}"
        case rules.Counted(bound, step):
            return f"{bound:g} or more, by {step:g} at least"
        case rules.ShareOf(most):
            return f"the interval lies at {100 * most:.3g} % or more"
    return f"{100 * rule.most:.3g} % or more"


def lines(rule) -> tuple[float, ...]:
    """The numbers that a rule compares with."""
    match rule:
        case rules.Effect(_, delta):
            return (-delta, 0.0, delta)
        case rules.Equivalence(margin):
            return (-margin, margin)
    return (rule.some, rule.most) if hasattr(rule, "most") else (rule.bound,)


def intervals(rows: pd.DataFrame, rule) -> list[str]:
    """A small drawing for each row: estimate, interval, and the lines of the rule, on one scale."""
    marks = lines(rule)
    ends = [*rows["estimate"], *rows["low"], *rows["high"], *marks]
    known = [end for end in ends if math.isfinite(end)]
    first, last = min(known), max(known)
    scale = (WIDTH - 12) / ((last - first) or 1.0)

    def x(value: float, beyond: float) -> float:
        return 6 + scale * (value - first) if math.isfinite(value) else beyond

    band = ""
    if len(marks) > 1:
        left, right = x(marks[0], 0), x(marks[-1], WIDTH)
        band = (
            f'<rect x="{left:.1f}" width="{right - left:.1f}" height="{ROW}" '
            'fill="currentColor" opacity=".13"/>'
        )
    rules = "".join(
        f'<path d="M{x(mark, 0):.1f} 0V{ROW}" stroke="currentColor" opacity=".45"/>'
        for mark in marks
    )
    drawn = []
    for row in rows.itertuples():
        bar = ""
        if not math.isnan(row.low):
            bar = (
                f'<path d="M{x(row.low, 0):.1f} {ROW / 2}H{x(row.high, WIDTH):.1f}" '
                'stroke="currentColor" stroke-width="2"/>'
            )
        drawn.append(
            f'<svg width="{WIDTH}" height="{ROW}" viewBox="0 0 {WIDTH} {ROW}" aria-hidden="true">'
            f'{band}{rules}{bar}<circle cx="{x(row.estimate, 0):.1f}" cy="{ROW / 2}" r="4" '
            'fill="#D55E00"/></svg>'
        )
    return drawn


@cache
def _simulated() -> pd.DataFrame:
    return power.of_rules().set_index(["claim", "effect"])


def power_of(claim: str) -> str:
    """How often the rule of a trend would find an effect of so many times the smallest of interest
    in the networks that are declared; empty for other claims."""
    if claim not in power.TRENDS:
        return ""
    found = _simulated().loc[claim]
    shares = ", ".join(
        f"{effect:g} Δ in {100 * found.loc[effect, rules.SUPPORTED]:.0f} %"
        for effect in found.index
        if effect
    )
    count = int(found["networks"].iloc[0])
    return (
        f"<p>In simulated repetitions with {count} networks the rule says <em>supported</em> of a "
        f"true slope of {shares} (Δ: the smallest effect of interest).</p>"
    )


def shown_in(claim: str) -> str:
    """A sentence that links to the section that shows a claim, if one does."""
    if (place := section(claim)) is None:
        return "No chapter shows it."
    chapter, heading = place
    number = ".".join(part for part in chapter.split("_") if part.isdigit())
    anchor = heading.replace(" ", "-")
    said = f"{number}, {html.escape(heading)}"
    return f'Shown in <a href="{chapter}.ipynb#{html.escape(anchor)}">{said}</a>.'


def named(claim: str) -> str:
    """A claim's name, which leads to its card."""
    return f'<a href="6_claims.ipynb#{claim}">{claim}</a>'


# Who makes a claim, as the filter names them.
SOURCES = {
    "hu2023comparative": "Hu, Zhang and Zhao (2023)",
    "raghu2021do": "Raghu et al. (2021)",
    "park2022how": "Park and Kim (2022)",
    "cordonnier2020relationship": "Cordonnier et al. (2020)",
    "li2021can": "Li et al. (2021)",
    "zhao2021battle": "Zhao et al. (2021)",
    "guo2022cmt": "Guo et al. (2022)",
    "bai2021are": "Bai et al. (2021)",
    "tuli2021are": "Tuli et al. (2021)",
    "geirhos2019imagenet": "Geirhos et al. (2019)",
    "smith2023convnets": "Smith et al. (2023)",
}
OURS = "this book"


def sources(claim: rules.Claim) -> list[str]:
    """Who makes a claim."""
    return [SOURCES[key] for key in claim.sources] or [OURS]
