"""The claims that the book judges, and the rules by which it does, fixed before the results.

Longer than two screens because the claims are data and belong together. What each rule needs is
recorded as evidence: rows of claim, criterion, rung, variant, estimate, low, high and p. A claim
that changes after the first results are recorded is listed in AMENDMENTS with the reason; a test
compares with the history. Explained in chapter 1, shown in chapter 6.
"""

import math
from dataclasses import dataclass

import pandas as pd

SUPPORTED, NOT_SUPPORTED, MIXED = "supported", "not supported", "mixed"
UNDECIDED, NOT_TESTED = "undecided", "not tested here"
VERDICTS = (SUPPORTED, NOT_SUPPORTED, MIXED, UNDECIDED, NOT_TESTED)
RUNGS = {"O": "objects", "C": "cifar10", "I": "imagenet", "E": "exact"}
EVIDENCE = ["claim", "criterion", "rung", "variant", "estimate", "low", "high", "p"]

# id of a claim that was added, changed or dropped since → when and why
AMENDMENTS = {
    "pe": "2026-11-21: no longer attributed to Hu, Zhang and Zhao, in whose text we do not find "
    "it. The rule is what it was.",
    "hu6": "2026-11-22: the decoupled slope is fitted next to that of head dimension. Some cells "
    "of the grid have more seeds than others, so that the two are no longer uncorrelated. No "
    "verdict changed.",
    "hu7": "2026-11-22: its slopes are taken as that of hu6 is. No verdict changed.",
}


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


Rule = Effect | Above | Below | Equivalence | Share


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


HU, RAGHU = ("hu2023comparative",), ("raghu2021do",)
SCOPES = ("all layers", "block at two thirds")
N_AND_K = tuple(f"{measure}, {scope}" for measure in ("N", "K") for scope in SCOPES)
MATCHED = tuple(f"{v}, {at}" for v in N_AND_K for at in ("equal epochs", "equal loss"))
HEAD_TRENDS = tuple(f"{v}, {heads}" for v in (*N_AND_K, "Gini") for heads in ("all", "h ≥ 4"))

CLAIMS = (
    Claim(
        "hu1",
        "Attention is sparse.",
        HU,
        (
            Criterion(
                "layers",
                "share of the layers of the heads and depth sweeps whose per-head class-row Gini, "
                "prefix dropped, is above .50 and at least .1 above random weights, both by the "
                "lower bound over images",
                Share(),
            ),
        ),
        rungs="OCI",
        holm=True,
    ),
    Claim(
        "hu2",
        "Heads agree with one another, and so do neighbouring layers.",
        HU,
        (
            Criterion(
                "heads",
                "per-image Spearman correlation of the maps of two heads, mean map removed",
                Above(0.3),
            ),
            Criterion("layers", "the same of neighbouring layers", Above(0.3)),
            Criterion("distance", "neighbouring minus distant layers", Above(0)),
        ),
        rungs="OCI",
        fallback=Criterion("raw", "the same of the raw maps", Above(0.3), ("heads", "layers")),
        because="only the mean map is shared",
        holm=True,
    ),
    Claim(
        "hu3",
        "The units with the largest responses matter more than random ones.",
        HU,
        (
            Criterion(
                "necessity",
                "N on KL, units removed from all layers together, mean over the models of the "
                "heads and depth sweeps",
                Above(0),
                ("zero", "renormalise"),
            ),
            Criterion("place", "the same against mass-matched random units", Above(0)),
        ),
        rungs="OCI",
        fallback=Criterion("plain", "N on KL against plain random units", Above(0)),
        because="explained by mass",
        holm=True,
    ),
    Claim(
        "hu4",
        "Deeper ViTs are sparser.",
        HU,
        (Criterion("trend", "slope per doubling of depth", Effect(+1, 0.03), MATCHED),),
        holm=True,
    ),
    Claim(
        "hu5",
        "Deeper CNNs are sparser.",
        HU,
        (
            Criterion(
                "trend",
                "slope per doubling of the depth of ResNets",
                Effect(+1, 0.03),
                tuple(f"{v}, {units}" for v in MATCHED for units in ("positions", "ReLU units")),
            ),
        ),
        holm=True,
    ),
    Claim(
        "hu6",
        "Too many heads make a ViT less sparse.",
        HU,
        (
            Criterion(
                "decoupled",
                "slope per doubling of heads at equal head dimension, both in the fit, fixed width",
                Effect(-1, 0.03),
                HEAD_TRENDS,
            ),
        ),
        fallback=Criterion(
            "fixed width",
            "slope of N, all layers together, where head dimension = width / heads",
            Effect(-1, 0.03),
        ),
        because="head dimension",
        holm=True,
    ),
    Claim(
        "hu7",
        "More heads are less sparse because the effects of units overlap.",
        HU,
        (
            Criterion(
                "overlap",
                "slope of the placement overlap O per doubling of heads at equal head dimension",
                Effect(+1, 0.03),
            ),
            Criterion(
                "mediation",
                "share by which the slope of N shrinks when overlap is added, minus one half "
                "(bootstrap over models)",
                Above(0),
            ),
            Criterion(
                "removal", "I_rem, log-odds margin, all layers, mean over the models", Above(0)
            ),
            Criterion(
                "keeping", "I_keep, log-odds margin, all layers, mean over the models", Below(0)
            ),
        ),
        needs="hu6",
        holm=True,
    ),
    Claim(
        "hu8",
        "The neurons of CNNs are sparse.",
        HU,
        (
            Criterion(
                "layers",
                "share of the layers of the depth sweep whose ReLU units have a population Gini "
                "above .50 and .05 above random weights, and of which fewer than half are active, "
                "dead units apart",
                Share(),
            ),
        ),
        rungs="OCI",
        holm=True,
    ),
    Claim(
        "hu9",
        "Sparser coding is more evolved.",
        HU,
        reason="no animals are compared here; the literature contradicts it as a ladder",
        holm=True,
    ),
    Claim(
        "hu10",
        "Transformers have less bias for vision.",
        HU,
        (
            Criterion(
                "gap",
                "slope per doubling of the data of the accuracy gap, CNN − ViT, in points",
                Effect(-1, 1.0),
            ),
        ),
    ),
    Claim(
        "ra1",
        "The layers of a ViT are more uniform than those of a CNN.",
        RAGHU,
        (
            Criterion(
                "uniformity",
                "mean off-diagonal CKA over equally spaced blocks, ViT − ResNet",
                Effect(+1, 0.05),
            ),
            Criterion("learned", "that minus the same at random weights", Above(0)),
        ),
        rungs="OCI",
    ),
    Claim(
        "ra2",
        "Early layers of a ViT mix local and global heads.",
        RAGHU,
        (
            Criterion(
                "range",
                "attention distance ÷ that of uniform attention, first quarter of the blocks: "
                "widest minus narrowest head",
                Above(0.4),
            ),
            Criterion("local", "narrowest head of the first quarter", Below(0.5)),
            Criterion("global", "widest head of the first quarter", Above(0.8)),
            Criterion("late", "narrowest head, last quarter minus first", Above(0)),
        ),
        rungs="OCI",
    ),
    Claim(
        "ra3",
        "Skip connections carry features far, in ViTs above all.",
        RAGHU,
        (
            Criterion(
                "skip",
                "fall of CKA(block, last) with one middle skip removed, minus the fall with the "
                "whole block removed",
                Effect(+1, 0.1),
            ),
            Criterion("family", "the same, ViT − ResNet", Above(0)),
        ),
    ),
    Claim(
        "ra4",
        "ViTs keep location, and pooling loses it.",
        RAGHU,
        (
            Criterion(
                "pooling",
                "chance-corrected decoding of a final token's own location, edge tokens apart: "
                "class-token ViT − average-pooled ViT",
                Effect(+1, 0.1),
            ),
            Criterion("family", "class-token ViT − ResNet at the same grid", Effect(+1, 0.1)),
        ),
        halves=True,
        because="only one of the two contrasts",
    ),
    Claim(
        "ra5",
        "The size of the training set shapes late layers most.",
        RAGHU,
        (
            Criterion(
                "late",
                "fall of CKA(10 % of the data, all), less that of two seeds, late − early layers",
                Effect(+1, 0.05),
            ),
        ),
    ),
    Claim(
        "ra6",
        "MLP-Mixer is nearer to ViT than to ResNet.",
        RAGHU,
        (
            Criterion(
                "nearness",
                "CKA at the same relative depth, Mixer–ViT − Mixer–ResNet, three seeds or more",
                Effect(+1, 0.05),
            ),
        ),
        rungs="OCI",
    ),
    Claim(
        "ra7",
        "The receptive fields of ViTs are global early.",
        RAGHU,
        (
            Criterion(
                "radius",
                "radius of half the effective receptive field ÷ that of a uniform one, first third",
                Above(0.7),
            ),
            Criterion("family", "the same, ViT − ResNet", Effect(+1, 0.2)),
            Criterion("learned", "that minus the same at random weights", Above(0)),
        ),
        rungs="OCI",
    ),
    Claim(
        "pk",
        "Attention is a low-pass filter, convolution a high-pass filter.",
        ("park2022how",),
        (
            Criterion(
                "attention",
                "share of attention sub-blocks that lower the log amplitude at 1.0π against that "
                "at 0, by the upper bound",
                Share(),
            ),
            Criterion("convolution", "share of convolutions that raise it", Share()),
        ),
        rungs="OCI",
    ),
    Claim(
        "co",
        "Attention can be a convolution.",
        ("cordonnier2020relationship", "li2021can"),
        (
            Criterion(
                "error",
                "largest error against a 3×3 convolution, 9 heads, float64",
                Below(1e-4),
                ("interior", "border"),
            ),
            Criterion("sharpness", "slope of log error on the sharpness α", Below(0)),
            Criterion("eight heads", "largest error with 8 heads", Above(1e-2)),
        ),
        rungs="E",
    ),
    Claim(
        "zh",
        "Hybrids of convolution and attention win at equal budget.",
        ("zhao2021battle", "guo2022cmt"),
        (
            Criterion(
                "budgets",
                "share of budgets at which the hybrid is at least 1 point above the better of "
                "both, lower bound above 0, three seeds or more",
                Share(2 / 3, 1 / 3),
            ),
        ),
    ),
    Claim(
        "ba1",
        "Transformers have no adversarial advantage.",
        ("bai2021are",),
        (
            Criterion(
                "attack",
                "accuracy under PGD-20, ViT − CNN, in points, at equal recipe and clean accuracy",
                Equivalence(2.0),
            ),
        ),
    ),
    Claim(
        "ba2",
        "Transformers have an advantage out of distribution.",
        ("bai2021are",),
        (
            Criterion(
                "corruptions",
                "share of corruptions under which accuracy relative to clean, ViT − CNN, is 2 "
                "points or more, lower bound above 0",
                Share(),
            ),
        ),
    ),
    Claim(
        "tu1",
        "The errors of ViTs are nearer to those of humans.",
        ("tuli2021are",),
        (
            Criterion(
                "consistency",
                "κ(ViT, human) − κ(CNN, human), same trials",
                Effect(+1, 0.03),
            ),
        ),
        rungs="I",
    ),
    Claim(
        "tu2",
        "The shape bias of ViTs is nearer to that of humans.",
        ("tuli2021are", "geirhos2019imagenet"),
        (
            Criterion("bias", "shape ÷ (shape + texture), ViT − CNN", Effect(+1, 0.05)),
            Criterion("decided", "share of decided trials", Above(0.5), ("ViT", "CNN")),
        ),
        rungs="OI",
    ),
    Claim(
        "sm1",
        "At equal compute, CNNs and ViTs reach the same accuracy.",
        ("smith2023convnets",),
        (
            Criterion(
                "parity",
                "error at equal FLOPs, ViT − CNN, in points: the largest difference of all "
                "budgets, for this toy scale only",
                Equivalence(1.0),
            ),
        ),
    ),
    Claim(
        "sm2",
        "Loss falls as a power of compute.",
        ("smith2023convnets",),
        (
            Criterion(
                "prediction",
                "relative error of the law at the largest of six budgets or more, fitted without "
                "it",
                Below(0.05),
            ),
            Criterion("offset", "ΔAICc by which a law with an offset is better", Below(4.0)),
        ),
    ),
    Claim(
        "pe",
        "CNNs live on local order, and ViTs bear the permutation of patches.",
        (),
        tuple(
            Criterion(
                f"{blocks} tokens",
                f"accuracy above chance that is kept when blocks {blocks} than tokens are "
                "permuted, ViT − CNN",
                Effect(+1, 0.05),
                ("with position embedding", "without position embedding"),
            )
            for blocks in ("not smaller", "smaller")
        ),
        rungs="OCI",
        halves=True,
        because="only at one block size",
    ),
    Claim(
        "ti",
        "CNNs are invariant to translation.",
        HU,
        (
            Criterion(
                "consistency",
                "share of decisions kept under shifts of 1 to 8 pixels, CNN − ViT",
                Effect(+1, 0.05),
            ),
        ),
        rungs="OCI",
    ),
)
BY_ID = {claim.id: claim for claim in CLAIMS}


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


def verdicts(evidence: pd.DataFrame, claims: tuple[Claim, ...] = CLAIMS) -> list[Verdict]:
    """One verdict for every claim and each of its rungs, by the rules fixed beforehand.

    A claim of the Holm family that its intervals support is undecided when the adjusted p of its
    weakest criterion is .05 or more.

    Args:
        evidence: Columns EVIDENCE; one row for each criterion, rung and variant; p may be NaN where
            a criterion is no test.
        claims: The rules, those of the first edition or of another.

    Raises:
        ValueError: For missing columns, for evidence of a claim or criterion that was not declared,
            and for a repeated row.
    """
    if missing := set(EVIDENCE) - set(evidence.columns):
        raise ValueError(f"The evidence lacks the columns {', '.join(sorted(missing))}.")
    declared = {
        (claim.id, criterion.name, variant)
        for claim in claims
        for criterion in (*claim.criteria, *filter(None, [claim.fallback]))
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
