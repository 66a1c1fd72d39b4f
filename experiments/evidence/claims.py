"""The claims that the book judges and the rules by which it does, fixed before the first result.

What has changed since is in `changes`. Longer than two screens because the claims are data and
belong together. Explained in chapter 1, shown in chapter 6.
"""

from experiments.evidence.rules import (
    MIXED,
    SUPPORTED,
    Above,
    Below,
    Claim,
    Counted,
    Criterion,
    Effect,
    Equivalence,
    Share,
    ShareOf,
    Verdict,
)

# The smallest effects of interest, chosen so that a true 2Δ of both readings is found in 80 % of
# repetitions or more, at a seed SD of up to SEED_SD, whether the readings scatter together or not,
# and with the p values of TRENDS claims adjusted together (simulated by experiments.power; a test
# repeats it). Three seeds of vit-d6-h4 and of resnet-d20 scatter less (results/scatter.csv),
# on 300 validation images each: `experiments ablate … --data objects/validation -n 300 --draws 2`
# with the primary settings.
DELTA_N = 0.03  # of N, per doubling, as in the first edition
DELTA_HALF = 0.15  # of log₂ f₅₀⁺, per doubling: half of the function by 10 % fewer units
DELTA_LOST = 0.3  # of log₂ of what is lost with 1 % kept, per doubling: a fifth less
DELTA_OVERLAP = 0.03  # of O, per doubling, as in the first edition
SEED_SD = {"N": 0.045, "half kept": 0.225, "lost with 1 % kept": 0.45}
TRENDS = 4  # hu4 to hu7
EQUAL = 0.01  # accuracies of a ViT and a CNN that make a pair
IMAGES = 5_000  # that both of a pair were tested on, or more
TWINS = 5  # initialisations of random weights, or more
PIXEL = 0.08  # of the radius of a uniform field: a pixel of the 32 of an object picture
# What is said of a claim next to its verdict.
WORDS = {
    ("hu1", SUPPORTED): "sparse beyond the spread of logits",
    ("hu1", MIXED): "sparse weights",
} | {
    # A level reading contradicts, too; the declared words fit an opposite one alone.
    (name, MIXED): "one of the two readings supports the claim, the other contradicts it"
    for name in ("hu4", "hu5", "hu6")
}
ONE_PAIR = "one pair, trained differently"


def wording(verdict: Verdict) -> str:
    """The words that go with a verdict: which of two wordings holds, or why it is what it is."""
    if verdict.claim == "hu1" and verdict.because not in ("", WORDS["hu1", MIXED]):
        return verdict.because
    return WORDS.get((verdict.claim, verdict.verdict), verdict.because)


def _sparser(of: str, direction: int, unit: str) -> tuple[Criterion, Criterion]:
    """The two readings of functional sparsity: sparser is both (direction +1).

    Both are on the probability of the true class. With everything removed a network gives all
    images one answer, and how sure of it it is differs from seed to seed: so did, in the pilots,
    all that is relative to the damage in KL or on the margin. And pilots of attention kept more
    than half of their function with a single patch of each head, so that f₅₀⁺ was below one patch
    in all of them; how much is lost with one has no such floor.
    """
    enough = (
        Criterion(
            "lost with 1 % kept",
            f"{of}: log₂ of the share of the effect that is lost with only the strongest 1 % "
            "of each head's patches, one of 64",
            Effect(-direction, DELTA_LOST),
        )
        if unit == "attention"
        else Criterion(
            "half kept",
            f"{of}: log₂ of the smallest share of the strongest units that, kept alone, keeps half "
            "of the function (f₅₀⁺)",
            Effect(-direction, DELTA_HALF),
        )
    )
    needed = Criterion(
        "N", f"{of}: N on the probability of the true class", Effect(direction, DELTA_N)
    )
    return needed, enough


PART = "one of the two readings says sparser, the other denser"
END = "all layers together, end of training, each head's own order, renormalised"
SPARSE_LAYERS = Criterion(
    "layers",
    "share of the layers of each network of the heads and depth sweeps whose per-head class-row "
    "Gini, prefix dropped, is above .50 and at least .1 above random weights, both by the lower "
    "bound over images; mean and interval over networks",
    ShareOf(),
)
# In the pilots every CNN of the sweeps, even of eight layers, was more than a point above all ViTs.
PAIRS = (
    "one-to-one pairs of networks of the sweeps, and of a ResNet that fewer training images make "
    "as accurate as the ViTs, within 1 point of clean accuracy, 5,000 images or more"
)
HU, RAGHU = ("hu2023comparative",), ("raghu2021do",)

CLAIMS = (
    Claim(
        "hu1",
        "Attention is sparse.",
        HU,
        (
            SPARSE_LAYERS,
            Criterion(
                "beyond",
                "share of the layers of each network whose Gini is, by the lower bound over "
                "images, above that of Gaussian logits of each row's own spread",
                ShareOf(),
            ),
        ),
        rungs="OCI",
        fallback=SPARSE_LAYERS,
        because=WORDS["hu1", MIXED],
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
                f"N on the probability of the true class, {END}, mean over the networks of the "
                "heads and depth sweeps",
                Above(0),
            ),
            Criterion(
                "place",
                "damage in KL of each head's own weights at permuted places, all layers together, "
                "less that of removing all, mean over the same networks",
                Above(0),
            ),
        ),
        rungs="OCI",
        holm=True,
    ),
    Claim(
        "hu4",
        "Deeper ViTs are sparser.",
        HU,
        _sparser(f"slope per doubling of depth, {END}", +1, "attention"),
        because=PART,
        halves=True,
        holm=True,
    ),
    Claim(
        "hu5",
        "Deeper CNNs are sparser.",
        HU,
        _sparser(
            "slope per doubling of the depth of ResNets, groups of units replaced by their mean, "
            "mean over the single layers at 1/3, 2/3 and the end of the depth",
            +1,
            "group",
        ),
        because=PART,
        halves=True,
        holm=True,
    ),
    Claim(
        "hu6",
        "Too many heads make a ViT less sparse.",
        HU,
        _sparser(
            "slope per doubling of heads at equal head dimension, both in the fit, fixed width, "
            + END,
            -1,
            "attention",
        ),
        because=PART,
        halves=True,
        holm=True,
    ),
    Claim(
        "hu7",
        "More heads are less sparse because the effects of units overlap.",
        HU,
        (
            Criterion(
                "overlap",
                "slope of the placement overlap O per doubling of heads at equal head dimension, "
                "over the networks of the grid that have all numbers of this claim",
                Effect(+1, DELTA_OVERLAP),
            ),
            Criterion(
                "association",
                "rank correlation of O and of N on the probability, over the same networks",
                Below(0),
            ),
            Criterion(
                "removal", "I_rem, log-odds margin, all layers, mean over the same", Above(0)
            ),
            Criterion(
                "keeping", "I_keep, log-odds margin, all layers, mean over the same", Below(0)
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
                "share of the layers of each network of the depth sweep whose ReLU units have a "
                "population Gini above .50 and .05 above random weights, and of which fewer than "
                "half are active, dead units apart; mean and interval over networks",
                ShareOf(),
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
                "slope per doubling of the data of the accuracy gap, CNN − ViT, in points; one "
                "point for each pair of equal seed and share of the data",
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
                "mean off-diagonal CKA over equally spaced blocks, ViT − ResNet, all networks of "
                "the sweeps",
                Effect(+1, 0.05),
            ),
            Criterion(
                "learned",
                "that of each network less the mean of five or more random twins of its design, "
                "ViT − ResNet",
                Above(0),
            ),
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
                "whole block removed, all ViTs of the sweeps",
                Effect(+1, 0.1),
            ),
            Criterion("family", "the same, ViT − ResNet, all networks of the sweeps", Above(0)),
            Criterion(
                "learned",
                "that of each network less the mean of five or more random twins of its design, "
                "ViT − ResNet",
                Above(0),
            ),
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
                "fall from CKA(all, all) to CKA(10 % of the data, all), late − early layers: mean "
                "of ViT and CNN, interval over the seeds within each",
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
                "radius of half the effective receptive field ÷ that of a uniform one, first "
                "third; counted in pixels, without an interval",
                Counted(0.7, PIXEL),
            ),
            Criterion("family", "the same, ViT − ResNet", Counted(0.2, PIXEL)),
            Criterion("learned", "that minus the same at random weights", Counted(0, PIXEL)),
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
                "share of the attention sub-blocks of each network that lower the log amplitude at "
                "1.0π against that at 0, by the upper bound; mean and interval over networks",
                ShareOf(),
            ),
            Criterion(
                "convolution", "share of the convolutions of each network that raise it", ShareOf()
            ),
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
                "both, lower bound above 0, three seeds or more, rates tuned per family",
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
                "accuracy under PGD-20 at the strength that leaves the CNN nearest to half of its "
                f"accuracy, ViT − CNN, in points; {PAIRS}",
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
                "points or more, lower bound above 0; from the share of which this is shown to the "
                f"share of which it is not excluded; {PAIRS}",
                ShareOf(),
            ),
        ),
    ),
    Claim(
        "tu1",
        "The errors of ViTs are nearer to those of humans.",
        ("tuli2021are",),
        rungs="I",
        reason=f"{ONE_PAIR}: shown, no verdict on architecture",
    ),
    Claim(
        "tu2",
        "The shape bias of ViTs is nearer to that of humans.",
        ("tuli2021are", "geirhos2019imagenet"),
        (
            Criterion("bias", f"shape ÷ (shape + texture), ViT − CNN; {PAIRS}", Effect(+1, 0.05)),
            Criterion("decided", "share of decided trials", Above(0.5), ("ViT", "CNN")),
        ),
        rungs="O",
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
                "it, with the interval that the scatter of seeds gives it; the worse of ViT and "
                "CNN",
                Below(0.05),
            ),
            Criterion(
                "offset",
                "ΔAICc by which a law with an offset is better, one point for each network; the "
                "worse of ViT and CNN",
                Below(4.0),
            ),
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
                f"decisions kept under shifts of 1 to 8 pixels, CNN − ViT; {PAIRS}",
                Effect(+1, 0.05),
            ),
        ),
        rungs="OCI",
    ),
)
BY_ID = {claim.id: claim for claim in CLAIMS}

_SPEARMAN = "per-image Spearman correlation of the maps of"
_FALL = "fall of CKA(block, last) with one middle skip removed, minus that with its block removed"
_RADIUS = "radius of half the effective receptive field ÷ that of a uniform one, first third"
_GRID = "over the networks of the grid that have all numbers of this claim"
# Claim and criterion → its quantity as it is shown, where the declared words, which stay as they
# were, cannot stand alone. What is judged is the same.
SHOWN = {
    ("hu2", "layers"): f"{_SPEARMAN} neighbouring layers, mean map removed",
    ("hu2", "distance"): f"{_SPEARMAN} layers, neighbouring minus distant ones",
    ("hu2", "raw"): "per-image Spearman correlation of raw maps",
    ("hu3", "place"): "damage in KL of each head's own weights at permuted places, all layers "
    "together, less that of removing all, mean over the networks of the heads and depth sweeps",
    ("hu7", "association"): f"rank correlation of O and of N on the probability, {_GRID}",
    ("hu7", "removal"): f"I_rem, log-odds margin, all layers, mean {_GRID}",
    ("hu7", "keeping"): f"I_keep, log-odds margin, all layers, mean {_GRID}",
    ("ra1", "learned"): "mean off-diagonal CKA, trained less the mean of five or more random twins "
    "of the same design, ViT − ResNet",
    ("ra3", "family"): f"{_FALL}, ViT − ResNet, all networks of the sweeps",
    ("ra3", "learned"): f"{_FALL}, trained less the mean of five or more random twins of the same "
    "design, ViT − ResNet",
    ("ra4", "family"): "chance-corrected decoding of a final token's own location, edge tokens "
    "apart: class-token ViT − ResNet at the same grid",
    ("ra7", "radius"): f"{_RADIUS}; in pixels",
    ("ra7", "family"): f"{_RADIUS}, ViT − ResNet; in pixels",
    ("ra7", "learned"): f"{_RADIUS}, trained − random; in pixels",
    ("ba2", "corruptions"): "share of corruptions under which accuracy relative to clean is shown "
    "to be 2 points or more higher in the ViT than in the CNN; the interval ends at the share for "
    f"which it cannot be excluded; {PAIRS}",
}


def quantity(claim: str, criterion: Criterion) -> str:
    """What a criterion is about, in words that stand alone."""
    return SHOWN.get((claim, criterion.name), criterion.quantity)
