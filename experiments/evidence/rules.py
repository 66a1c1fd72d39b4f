"""The rules by which claims are judged: what a claim is, which kinds of rule there are, verdicts.

What each rule needs is recorded as evidence: rows of claim, criterion, rung, variant, estimate,
low, high and p. The claims themselves are in `claims`.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

SUPPORTED, NOT_SUPPORTED, MIXED = "supported", "not supported", "mixed"
UNDECIDED, NOT_TESTED = "undecided", "not tested here"
VERDICTS = (SUPPORTED, NOT_SUPPORTED, MIXED, UNDECIDED, NOT_TESTED)
RUNGS = {"O": "objects", "C": "cifar10", "I": "imagenet", "E": "exact"}
EVIDENCE = ["claim", "criterion", "rung", "variant", "estimate", "low", "high", "p"]


@dataclass(frozen=True)
class Effect:
    """An effect, such as a slope per doubling or a difference of family means, in one direction.

    Supported: the interval excludes 0 in the `direction` (+1 or −1) and the effect is at least
    `delta`. Not supported: the interval lies inside ±`delta`, or excludes 0 in the other direction.
    """

    direction: int
    delta: float

    def judge(self, estimate: float, low: float, high: float) -> str:
        towards = self.direction * (low if self.direction > 0 else high)
        away = self.direction * (high if self.direction > 0 else low)
        if towards > 0 and abs(estimate) >= self.delta:
            return SUPPORTED
        if away < 0 or max(abs(low), abs(high)) < self.delta:
            return NOT_SUPPORTED
        return UNDECIDED


@dataclass(frozen=True)
class Above:
    """The whole interval lies above `bound`; not supported if the whole of it does not."""

    bound: float

    def judge(self, estimate: float, low: float, high: float) -> str:
        return SUPPORTED if low > self.bound else NOT_SUPPORTED if high <= self.bound else UNDECIDED


@dataclass(frozen=True)
class Below:
    """The whole interval lies below `bound`; not supported if the whole of it does not."""

    bound: float

    def judge(self, estimate: float, low: float, high: float) -> str:
        return SUPPORTED if high < self.bound else NOT_SUPPORTED if low >= self.bound else UNDECIDED


@dataclass(frozen=True)
class Equivalence:
    """The whole interval lies inside ±`margin`; not supported if it lies wholly outside."""

    margin: float

    def judge(self, estimate: float, low: float, high: float) -> str:
        if max(abs(low), abs(high)) < self.margin:
            return SUPPORTED
        return NOT_SUPPORTED if min(high, -low) < -self.margin else UNDECIDED


@dataclass(frozen=True)
class Share:
    """The share of cases (layers, budgets, corruptions) in which a condition holds.

    Supported from `most` on, mixed from `some` on, else not supported; it has no interval.
    """

    most: float = 0.75
    some: float = 0.25

    def judge(self, estimate: float, low: float, high: float) -> str:
        return (
            SUPPORTED
            if estimate >= self.most
            else MIXED
            if estimate >= self.some
            else NOT_SUPPORTED
        )


@dataclass(frozen=True)
class ShareOf:
    """The share of cases in which a condition holds, with an interval over networks.

    Supported if the whole interval is at `most` or above, mixed if all of it lies between `some`
    and `most`, not supported below `some`, and else undecided.
    """

    most: float = 0.75
    some: float = 0.25

    def judge(self, estimate: float, low: float, high: float) -> str:
        if low >= self.most:
            return SUPPORTED
        if high < self.some:
            return NOT_SUPPORTED
        return MIXED if low >= self.some and high < self.most else UNDECIDED


@dataclass(frozen=True)
class Counted:
    """A number that is counted in steps, so that seeds may not differ: it is judged without an
    interval, and undecided within one `step` of the bound."""

    bound: float
    step: float

    def judge(self, estimate: float, low: float, high: float) -> str:
        if abs(estimate - self.bound) < self.step:
            return UNDECIDED
        return SUPPORTED if estimate > self.bound else NOT_SUPPORTED


Rule = Effect | Above | Below | Equivalence | Share | ShareOf | Counted


@dataclass(frozen=True)
class Criterion:
    """One thing that must hold: a quantity, its rule, and the variants in which it must hold.

    With the same verdict in all `variants` that is the verdict; if some support it and others
    contradict it, the verdict is mixed. If some contradict it and others are undecided, it is not
    supported, although more data could make it mixed.
    """

    name: str
    quantity: str
    rule: Rule
    variants: tuple[str, ...] = ("main",)


@dataclass(frozen=True)
class Claim:
    """A claim, the works that make it (none: it is ours), and what would count for and against it.

    Every criterion must hold. `fallback` is a weaker one that turns "not supported" into "mixed",
    for the reason `because`; where `halves` is set, half of the criteria do the same. `holm` marks
    the claims whose p values are adjusted together. `reason` says why a claim is not tested.
    """

    id: str
    statement: str
    sources: tuple[str, ...]
    criteria: tuple[Criterion, ...] = ()
    rungs: str = "OC"
    fallback: Criterion | None = None
    because: str = ""
    halves: bool = False
    holm: bool = False
    needs: str | None = None
    reason: str = ""

    @property
    def every(self) -> tuple[Criterion, ...]:
        """All criteria and the fallback, each once."""
        return tuple(dict.fromkeys((*self.criteria, *filter(None, [self.fallback]))))


@dataclass(frozen=True)
class Verdict:
    """What the rule says of one claim on one rung, and why."""

    claim: str
    rung: str
    verdict: str
    because: str = ""


def _combined(outcomes: list[str]) -> str:
    """All must hold; what supports in part and contradicts in part is mixed."""
    if NOT_TESTED in outcomes:
        return NOT_TESTED
    if len(set(outcomes)) == 1:
        return outcomes[0]
    if MIXED in outcomes or {SUPPORTED, NOT_SUPPORTED} <= set(outcomes):
        return MIXED
    return NOT_SUPPORTED if NOT_SUPPORTED in outcomes else UNDECIDED


def _judge(criterion: Criterion, rows: pd.DataFrame) -> str:
    rows = rows[rows["criterion"] == criterion.name].set_index("variant")
    outcomes = []
    for variant in criterion.variants:
        numbers = rows.loc[variant, ["estimate", "low", "high"]] if variant in rows.index else None
        if numbers is None or math.isnan(numbers["estimate"]):
            outcomes.append(NOT_TESTED)
        else:
            outcomes.append(criterion.rule.judge(*numbers.astype(float)))
    return _combined(outcomes)


def _untested(claim: Claim, rows: pd.DataFrame) -> str:
    """Why there is no verdict: what is recorded may still give no number, as a line of two dots."""
    found = rows.set_index(["criterion", "variant"])["estimate"]
    asked = [(each.name, variant) for each in claim.criteria for variant in each.variants]
    if not asked or not set(asked) <= set(found.index):
        return claim.reason or "not recorded on this rung"
    (criterion, variant), *others = [each for each in asked if math.isnan(found[each])]
    more = f" and {len(others)} more" if others else ""
    return f"too few models for {criterion if variant == 'main' else variant}{more}"


def _verdict(claim: Claim, rung: str, rows: pd.DataFrame) -> Verdict:
    outcomes = [_judge(criterion, rows) for criterion in claim.criteria]
    if not outcomes or NOT_TESTED in outcomes:
        return Verdict(claim.id, rung, NOT_TESTED, _untested(claim, rows))
    if claim.halves:
        verdict = _combined(outcomes)
        return Verdict(claim.id, rung, verdict, claim.because if verdict == MIXED else "")
    # Unlike variants of one criterion, criteria are all needed: one that fails decides.
    for verdict in (NOT_SUPPORTED, MIXED, UNDECIDED):
        if verdict in outcomes:
            failing = [
                criterion.name
                for criterion, outcome in zip(claim.criteria, outcomes, strict=True)
                if outcome == verdict
            ]
            weaker = claim.fallback and _judge(claim.fallback, rows) == SUPPORTED
            if verdict == NOT_SUPPORTED and weaker:
                return Verdict(claim.id, rung, MIXED, claim.because)
            return Verdict(claim.id, rung, verdict, ", ".join(failing))
    return Verdict(claim.id, rung, SUPPORTED)


def _weakest(claim: Claim, rows: pd.DataFrame) -> float:
    """The largest p of the claim's criteria, for all of them must hold; NaN if none is a test."""
    names = [criterion.name for criterion in claim.criteria]
    return rows.loc[(rows["claim"] == claim.id) & rows["criterion"].isin(names), "p"].max()


def holm(p: dict[str, float]) -> dict[str, float]:
    """p values adjusted for testing all of them (Holm's step-down), in [0, 1]."""
    adjusted, floor = {}, 0.0
    for rank, name in enumerate(sorted(p, key=p.get)):
        floor = max(floor, min(1.0, (len(p) - rank) * p[name]))
        adjusted[name] = floor
    return adjusted


def verdicts(evidence: pd.DataFrame, claims: Sequence[Claim]) -> list[Verdict]:
    """One verdict for every claim and each of its rungs, by the rules fixed beforehand.

    A claim of the Holm family that its intervals support is undecided when the adjusted p of its
    weakest criterion is .05 or more.

    Args:
        evidence: Columns EVIDENCE; one row for each criterion, rung and variant; p may be NaN where
            a criterion is no test.
        claims: With their rules, such as `claims.CLAIMS`.

    Raises:
        ValueError: For missing columns, for evidence of a claim or criterion that was not declared,
            and for a repeated row.
    """
    if missing := set(EVIDENCE) - set(evidence.columns):
        raise ValueError(f"The evidence lacks the columns {', '.join(sorted(missing))}.")
    declared = {
        (claim.id, criterion.name, variant)
        for claim in claims
        for criterion in claim.every
        for variant in criterion.variants
    }
    rows = list(evidence[["claim", "criterion", "variant"]].itertuples(index=False, name=None))
    if strangers := [row for row in rows if row not in declared]:
        raise ValueError(
            f"No rule was declared for {strangers[0]}: evidence is judged by the criteria and "
            "variants that its claims declare, alone."
        )
    keys = ["claim", "criterion", "rung", "variant"]
    if evidence.duplicated(keys).any():
        twice = evidence.loc[evidence.duplicated(keys), keys].iloc[0].tolist()
        raise ValueError(f"The evidence holds {twice} twice: keep one row of each.")
    found = {}
    for rung in RUNGS:
        here = evidence[evidence["rung"] == RUNGS[rung]]
        asked = [claim for claim in claims if rung in claim.rungs]
        p = {claim.id: _weakest(claim, here) for claim in asked if claim.holm}
        adjusted = holm({name: value for name, value in p.items() if not math.isnan(value)})
        for claim in asked:
            verdict = _verdict(claim, RUNGS[rung], here[here["claim"] == claim.id])
            if verdict.verdict == SUPPORTED and adjusted.get(claim.id, 0.0) >= 0.05:
                verdict = Verdict(claim.id, RUNGS[rung], UNDECIDED, "after Holm's adjustment")
            needed = found.get((claim.needs, rung))
            if needed is not None and needed.verdict != SUPPORTED:
                verdict = Verdict(
                    claim.id, RUNGS[rung], NOT_TESTED, f"{claim.needs} is {needed.verdict}"
                )
            found[claim.id, rung] = verdict
    return [found[claim.id, rung] for claim in claims for rung in RUNGS if rung in claim.rungs]
