"""The claims board: every claim, its evidence on each rung, and the verdict by its rule.

Chapters show their own claims from it, and chapter 6 all of them; a verdict that prose states
stands next to an assert on `verdict_of`, so that the two cannot drift apart.
"""

import html
import math
import re
import textwrap
from functools import cached_property
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure

from experiments.engine.results import RESULTS
from experiments.evidence import claim_cards, claims, rules
from experiments.evidence.beside import beside
from experiments.evidence.progress import commands, lacking
from experiments.evidence.recorded import EXACT
from experiments.evidence.table import evidence
from utils.book import plotting

__all__ = [
    "box",
    "cards",
    "conclusion",
    "effects",
    "figure",
    "recorded",
    "small",
    "verdict_of",
    "verdicts",
]
# Marks for those who see no colours, colours that keep apart for colour-blind eyes, and the ink.
MARKS = {
    rules.SUPPORTED: ("✓", plotting.COLOURS["mixer"], "white"),
    rules.NOT_SUPPORTED: ("✗", plotting.COLOURS["cnn"], "white"),
    rules.MIXED: ("±", plotting.COLOURS["highlight"], "black"),
    rules.UNDECIDED: ("?", plotting.COLOURS["control"], "white"),
    rules.NOT_TESTED: ("–", "#e6e6e6", plotting.COLOURS["neutral"]),
}
RUNG_NAMES = {
    "objects": "objects",
    "cifar10": "CIFAR-10",
    "imagenet": "ImageNet",
    "exact": "exact",
}


def _criterion(row) -> rules.Criterion | None:
    """The declared criterion that a number is about; None for one that is only shown."""
    declared = claims.BY_ID[row.claim].every
    return next((one for one in declared if one.name == row.criterion), None)


def _interval(row) -> str:
    if math.isnan(row.estimate):
        return "(too few models)"
    if math.isnan(row.low):
        counted = isinstance(_rule(row), rules.Counted)
        return "(counted, no interval)" if counted else "(a share, no interval)"
    if math.isinf(row.low):
        return "(too few seeds for an interval)"
    if isinstance(_rule(row), rules.ShareOf) and (row.low, row.high) == (0, 1):
        return "(any share is possible)"
    sign = "" if _is_share(row) else "+"
    return f"[{row.low:{sign}.3f}, {row.high:{sign}.3f}]".replace("-", "−")


def _is_share(row) -> bool:
    """Whether a number is a share or a count, which has no sign."""
    return math.isnan(row.low) or isinstance(_rule(row), rules.Share | rules.ShareOf)


def _rule(row):
    return getattr(_criterion(row), "rule", None)


def _quantity(row) -> str:
    """What a number is, after the name of its criterion where a claim has several."""
    said = claims.quantity(row.claim, _criterion(row))
    return f"*{row.criterion}*, {said}" if len(claims.BY_ID[row.claim].every) > 1 else said


def _effect(row) -> str:
    variant = "" if row.variant == "main" else f" ({row.variant})"
    if row.rung == EXACT:
        numbers = f"**{row.estimate:.1e}**"
    else:
        sign = "" if _is_share(row) else "+"
        estimate = f"{row.estimate:{sign}.3f}".replace("-", "−")
        of_pairs = claims.PAIRS in getattr(_criterion(row), "quantity", "")
        what = "pair" if of_pairs else "model"
        numbers = f"**{estimate}** {_interval(row)}, {row.models} {what}{'s' * (row.models != 1)}"
    return f"{variant}: {numbers}"


def _because(row) -> str:
    """What decided, in the words of the rule; what is missing is said by `lacking`."""
    said = claims.wording(rules.Verdict(row.claim, row.rung, row.verdict, row.because))
    if said in ("", "not recorded on this rung"):
        return ""
    names = {criterion.name for criterion in claims.BY_ID[row.claim].criteria}
    if said != row.because or not set(said.split(", ")) <= names:
        return f" ({said})"
    return f" ({'open' if row.verdict == rules.UNDECIDED else 'because of'}: {row.because})"


def _marked(rows: pd.DataFrame) -> list[str]:
    """A line for each verdict of a claim, with the rungs on which it is so, if it is tested."""
    by_verdict: dict[str, list[str]] = {}
    for row in rows.itertuples():
        said = f"{MARKS[row.verdict][0]} **{row.verdict}**{_because(row)}"
        by_verdict.setdefault(said, []).append(RUNG_NAMES[row.rung])
    if len(by_verdict) == 1 and set(rows["verdict"]) == {rules.NOT_TESTED}:
        return list(by_verdict)
    return [f"{said} on {', '.join(rungs)}" for said, rungs in by_verdict.items()]


def _as_html(markdown: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(markdown))


def _in_all(variants: tuple[str, ...]) -> str:
    return f"; for each of: {'; '.join(map(html.escape, variants))}" if len(variants) > 1 else ""


def _effects(rows: pd.DataFrame, criterion: rules.Criterion, named: bool) -> str:
    """A table of estimates and intervals, drawn and in numbers."""
    lines = []
    for row, drawn in zip(
        rows.itertuples(), claim_cards.intervals(rows, criterion.rule), strict=True
    ):
        name = "" if row.variant == "main" else f'<th scope="row">{html.escape(row.variant)}</th>'
        number = re.sub(r"\*\*", "", _effect(row)).partition(": ")[2]
        lines.append(f"<tr>{name}<td>{drawn}</td><td>{number}</td></tr>")
    said = html.escape(claims.quantity(rows["claim"].iloc[0], criterion))
    caption = f"<caption>{said}</caption>" if named else ""
    return f"<table>{caption}{''.join(lines)}</table>"


def _others(rows: pd.DataFrame) -> str:
    """A table of what is not judged, next to what is."""
    lines = []
    for row in rows.itertuples():
        said = row.beside if isinstance(row.beside, str) else "–"
        number = re.sub(r"\*\*", "", _effect(row)).partition(": ")[2]
        cells = (row.criterion, row.variant, number, said)
        lines.append("<tr>" + "".join(f"<td>{html.escape(each)}</td>" for each in cells) + "</tr>")
    caption = "Other settings, not judged: what the rule would say of each agrees or differs"
    return (
        f"<details><summary>Other settings ({len(rows)})</summary>"
        f"<table><caption>{caption}</caption>{''.join(lines)}</table></details>"
    )


class Board:
    """The claims with what is recorded of them in a folder of tables, each read once."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def recorded(self) -> pd.DataFrame:
        """The evidence in the folder, read once."""
        return self._evidence

    @cached_property
    def _evidence(self) -> pd.DataFrame:
        return evidence(self.out)

    @cached_property
    def _beside(self) -> pd.DataFrame:
        return beside(self.out)

    @cached_property
    def _verdicts(self) -> pd.DataFrame:
        return self.verdicts(self._evidence)

    def verdicts(self, found: pd.DataFrame | None = None) -> pd.DataFrame:
        """One row for every claim and rung.

        Chapter 6.

        Args:
            found: Evidence as `experiments.evidence.table` gives it; None for what is recorded.

        Returns:
            A table of claim, rung, verdict, because.
        """
        if found is None:
            return self._verdicts.copy()
        return pd.DataFrame(
            [vars(said) for said in rules.verdicts(found[list(rules.EVIDENCE)], claims.CLAIMS)]
        )

    def verdict_of(self, claim: str, rung: str = "objects") -> str:
        """The verdict on a claim, one of rules.VERDICTS.

        KeyError for a claim or rung that the board does not have.
        """
        found = self._verdicts.set_index(["claim", "rung"])["verdict"]
        if (claim, rung) not in found.index:
            raise KeyError(f"The board has no claim {claim!r} on the rung {rung!r}.")
        return found.loc[claim, rung]

    def effects(self, *ids: str) -> pd.DataFrame:
        """What was measured for some claims: quantity, variant, estimate, interval, models."""
        found = self._evidence
        found = found[found["claim"].isin(ids or list(claims.BY_ID))]
        names = [claims.quantity(row.claim, _criterion(row)) for row in found.itertuples()]
        intervals = [_interval(row) for row in found.itertuples()]
        found = found.assign(quantity=names, interval=intervals)
        shown = ["claim", "rung", "quantity", "variant", "estimate", "interval", "models"]
        return found[shown].round(3).reset_index(drop=True)

    def cards(self, *ids: str) -> claim_cards.Cards:
        """A card for each claim (all if none is named): what would count, what was measured on each
        rung, the verdict, what is lacking, and where it is shown. Chapter 6."""
        return claim_cards.Cards(
            [self._card(claims.BY_ID[claim], rows) for claim, rows in self._rows(*ids).items()]
        )

    def _card(self, claim: rules.Claim, rows: pd.DataFrame) -> str:
        found = self._evidence[self._evidence["claim"] == claim.id].dropna(subset="estimate")
        parts, named = [], len(claim.criteria) > 1 or claim.fallback is not None
        for row in rows.itertuples():
            mark, ground, ink = MARKS[row.verdict]
            why = html.escape(_because(row))
            parts.append(
                f'<h4><span class="verdict-mark" style="background:{ground};color:{ink}" '
                f'aria-hidden="true">{mark}</span>{RUNG_NAMES[row.rung]}: {row.verdict}{why}</h4>'
            )
            parts.append("<details><summary>The numbers</summary>")
            here = found[found["rung"] == row.rung]
            for criterion in claim.every:
                if len(numbers := here[here["criterion"] == criterion.name]):
                    parts.append(_effects(numbers, criterion, named))
            others = self._beside
            others = others[(others["claim"] == claim.id) & (others["rung"] == row.rung)]
            if len(others):
                parts.append(_others(others))
            parts.append(f"<p>{_as_html(lacking(claim.id, row.rung, self.out))}.</p>")
            if steps := commands(claim.id, row.rung, self.out):
                then = ", then ".join(f"<code>{html.escape(step)}</code>" for step in steps)
                parts.append(f"<p>To fill: {then}.</p>")
            parts.append("</details>")
        by = "; ".join(claim_cards.sources(claim))
        wanted = "".join(
            f"<li>{html.escape(claims.quantity(claim.id, each))}: {claim_cards.counts(each.rule)}"
            f"{_in_all(each.variants)}.</li>"
            for each in claim.criteria
        )
        if wanted:
            wanted = f"<ul>{wanted}</ul>{claim_cards.power_of(claim.id)}"
            wanted = f"<details><summary>What would count</summary>{wanted}</details>"
        data = {
            "verdicts": "|".join(f"{row.verdict}" for row in rows.itertuples()),
            "rungs": "|".join(RUNG_NAMES[row.rung] for row in rows.itertuples()),
            "sources": "|".join(claim_cards.sources(claim)),
        }
        said = " ".join(f'data-{name}="{html.escape(value)}"' for name, value in data.items())
        label = f'aria-labelledby="{claim.id}-claim"'
        return (
            f'<section class="claim-card" id="{claim.id}" {label} {said}>'
            f'<h3 id="{claim.id}-claim">{claim.id}: {html.escape(claim.statement)}</h3>'
            f"<p>Claimed by {html.escape(by)}. {claim_cards.shown_in(claim.id)}</p>"
            + wanted
            + "".join(parts)
            + "</section>"
        )

    def box(self, *ids: str) -> Markdown:
        """Claims with verdicts on each rung, and effect and interval, to close a chapter with."""
        parts = []
        for claim, rows in self._rows(*ids).items():
            statement = claims.BY_ID[claim].statement
            lines = [f"**{statement}** ({claim_cards.named(claim)})", *_marked(rows)]
            measured = ((row.rung, self._measured(row)) for row in rows.itertuples())
            lines += [f"{RUNG_NAMES[rung]}: {note}" for rung, note in measured if note]
            parts.append("\n".join(f"> {line}  " for line in lines))
        return Markdown("\n\n".join(parts))

    def conclusion(self, rung: str = "objects") -> Markdown:
        """The claims of one rung under the five verdicts. Chapter 6."""
        found = self._verdicts
        found = found[found["rung"] == rung]
        lines = []
        for verdict, (mark, *_) in MARKS.items():
            names = found.loc[found["verdict"] == verdict, "claim"]
            said = " ".join(
                f"{claims.BY_ID[name].statement[:-1]} ({claim_cards.named(name)});"
                for name in names
            )
            lines.append(f"- {mark} **{verdict}** ({len(names)}): {said[:-1] or 'none'}.")
        return Markdown("\n".join(lines))

    def small(self) -> str:
        """The claims of Hu, Zhang and Zhao with their marks, as HTML for the landing page."""
        badge = (
            "display:inline-block;width:1.5em;border-radius:50%;text-align:center;font-weight:bold;"
            "line-height:1.5em;margin-right:.3em;"
        )

        def marked(verdict: str, where: str) -> str:
            mark, ground, ink = MARKS[verdict]
            label = html.escape(f"{verdict}{where}")
            return (
                f'<span role="img" aria-label="{label}" title="{label}" '
                f'style="{badge}background:{ground};color:{ink}">{mark}</span>'
            )

        lines, cell = [], "padding:.25em .3em;border-bottom:1px solid #8888;text-align:left"
        own = [claim.id for claim in claims.CLAIMS if claim.sources == claims.HU]
        for claim, rows in self._rows(*own).items():
            marks = "".join(
                marked(row.verdict, f" on {RUNG_NAMES[row.rung]}") for row in rows.itertuples()
            )
            statement = html.escape(claims.BY_ID[claim].statement)
            lines.append(
                f'<tr><td style="{cell}"><a href="6_claims.ipynb#{claim}">{statement}</a></td>'
                f'<td style="{cell};white-space:nowrap">{marks}</td></tr>'
            )
        legend = " ".join(
            f'<span style="white-space:nowrap">{marked(verdict, "")}{verdict}</span>'
            for verdict in MARKS
        )
        return (
            f'<table style="width:100%;border-collapse:collapse;margin:0">{"".join(lines)}</table>'
            f'<p style="font-size:.9em;margin:.6em 0">Marks from left to right: objects, CIFAR-10 '
            f"and, where there are three, ImageNet. {legend}</p>"
        )

    def figure(self, *ids: str) -> Figure:
        """A mark for each claim and rung; empty where the claim is not for that rung. Chapter 6."""
        chosen = self._rows(*ids)
        rungs = list(RUNG_NAMES)
        names = [textwrap.fill(claims.BY_ID[claim].statement, 42) for claim in chosen]
        made, ax = plt.subplots(figsize=(plotting.WIDTH, 0.44 * len(chosen) + 1.4))
        for y, rows in enumerate(chosen.values()):
            for row in rows.itertuples():
                mark, ground, ink = MARKS[row.verdict]
                x = rungs.index(row.rung)
                ax.scatter(x, y, s=300, color=ground, edgecolor="none")
                ax.text(x, y, mark, ha="center", va="center", color=ink, weight="bold", size=13)
        ax.set_yticks(range(len(chosen)), names, fontsize=11, linespacing=1.05)
        ax.xaxis.tick_top()
        ax.set_xticks(range(len(rungs)), RUNG_NAMES.values(), rotation=50, ha="left", fontsize=11)
        ax.set(xlim=(-0.5, len(rungs) - 0.5), ylim=(len(chosen) - 0.4, -0.6))
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        handles = [
            plt.Line2D([], [], marker="o", ms=10, ls="", color=ground, label=f"{mark} {verdict}")
            for verdict, (mark, ground, _) in MARKS.items()
        ]
        made.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=11)
        return made

    def _rows(self, *ids: str) -> dict[str, pd.DataFrame]:
        found = self._verdicts
        chosen = ids or tuple(claims.BY_ID)
        if unknown := [name for name in chosen if name not in claims.BY_ID]:
            raise KeyError(f"The board has no claim {unknown[0]!r}.")
        return {claim: found[found["claim"] == claim] for claim in chosen}

    def _measured(self, verdict) -> str:
        """Effect and interval of what decided, of a contradiction both sides; else of what comes
        first; empty if there is none, or nothing is tested."""
        found = self._evidence.dropna(subset="estimate")
        found = found[(found["claim"] == verdict.claim) & (found["rung"] == verdict.rung)]
        if not len(found) or verdict.verdict == rules.NOT_TESTED:
            return ""
        named = found[found["criterion"].isin(verdict.because.split(", "))]
        first = {}  # of each judgement
        for row in (named if len(named) else found).itertuples():
            first.setdefault(_criterion(row).rule.judge(row.estimate, row.low, row.high), row)
        sides = {rules.MIXED: (rules.MIXED, rules.SUPPORTED, rules.NOT_SUPPORTED)}
        decided = [first[j] for j in sides.get(verdict.verdict, (verdict.verdict,)) if j in first]
        one, *others = decided or [*first.values()][:1]
        said = [f"{_quantity(one)}{_effect(one)}"]
        for row in others:
            again = row.criterion == one.criterion
            said.append(f"but{'' if again else f' {_quantity(row)}'}{_effect(row)}")
        return "; ".join(said)


# What the chapters call.
BOOK = Board(RESULTS)
recorded = BOOK.recorded
verdicts = BOOK.verdicts
verdict_of = BOOK.verdict_of
effects = BOOK.effects
box = BOOK.box
cards = BOOK.cards
conclusion = BOOK.conclusion
small = BOOK.small
figure = BOOK.figure
