"""Evidence on what networks represent: made-up tables of which SciPy or arithmetic knows more."""

import math

import numpy as np
import pytest
from helpers.tables import by_criterion, found, judged, row, seeds, write
from scipy import stats

from experiments.catalogue import PINNED_VITS
from experiments.evidence import claims
from experiments.evidence.recorded import PUBLISHED

VIT, CNN = "vit-d6-h4", "resnet-d20"
both = pytest.mark.parametrize("edition", ["first", "second"])


def interval(test):
    """Estimate and bounds of a SciPy test of one mean, or of two with one SD."""
    bounds = test.confidence_interval()
    return (bounds.low + bounds.high) / 2, bounds.low, bounds.high


def numbers(evidence, criterion, variant="main"):
    return by_criterion(evidence).loc[(criterion, variant), ["estimate", "low", "high"]].tolist()


def reach(model, blocks, early, late, between):
    """Heads of all blocks: those of the first and the last blocks, and all others."""
    for i in range(blocks):
        heads = early[i] if i < len(early) else between
        heads = late[i - blocks] if i >= blocks - len(late) else heads
        for head, value in enumerate(heads):
            place = dict(layer=f"blocks.{i}", head=head, depth=float(f"{(i + 1) / blocks:.8g}"))
            yield row(model, "relative_distance", value, **place)


EXTREME = (0.01, 1.9)  # where no criterion looks


@both
def test_heads_of_the_first_and_the_last_quarter_of_the_blocks_are_compared_and_no_others(
    edition, tmp_path
):
    rows, expected = [], []
    for i, name in enumerate(seeds(VIT)):
        narrow, wide, last = 0.3 + 0.02 * i, 0.9 + 0.01 * i**2, 0.5 - 0.03 * i
        # Of six blocks the first two and the last two; the extremes lie in the second of them.
        early, late = ((0.6, 0.7), (narrow, wide)), ((last, 1.0), (0.8, 1.2))
        rows += reach(name, 6, early, late, EXTREME)
        expected.append((wide - narrow, narrow, wide, last - narrow))
    rows += reach("vit-d6-h8", 6, *[((0.0, 2.0),) * 2] * 2, EXTREME)  # another design
    write(tmp_path, "similarity", rows)
    evidence = found("ra2", tmp_path, edition)
    for criterion, values in zip(
        ("range", "local", "global", "late"), np.transpose(expected), strict=True
    ):
        known = interval(stats.ttest_1samp(values, 0))
        assert numbers(evidence, criterion) == pytest.approx(known)
    assert set(evidence["models"]) == {3}
    assert judged(evidence, "ra2", edition) == (claims.SUPPORTED, "")


@both
@pytest.mark.parametrize(("blocks", "quarter"), [(2, 1), (4, 1), (8, 2), (12, 3)])
def test_a_quarter_is_so_many_blocks_and_one_at_least(edition, blocks, quarter, tmp_path):
    early, late = ((0.5, 0.6),) * quarter, ((0.7, 0.8),) * quarter
    write(tmp_path, "similarity", list(reach(VIT, blocks, early, late, EXTREME)))
    said = found("ra2", tmp_path, edition).set_index("criterion")["estimate"]
    known = {"range": 0.1, "local": 0.5, "global": 0.6, "late": 0.2}
    assert said.to_dict() == pytest.approx(known)


def test_on_photographs_the_first_edition_takes_vits_trained_alike_and_the_second_all(tmp_path):
    rows, value = [], {name: 0.1 * (i + 1) for i, name in enumerate(PINNED_VITS)}
    for name in PINNED_VITS:
        heads = ((value[name], 1.0),) * 3
        rows += reach(name, 12, heads, heads, EXTREME)
    write(tmp_path, "similarity", rows, "imagenet")
    for edition, models in (("first", PUBLISHED[VIT]), ("second", PINNED_VITS)):
        evidence = found("ra2", tmp_path, edition, "imagenet")
        known = interval(stats.ttest_1samp([value[name] for name in models], 0))
        assert numbers(evidence, "local") == pytest.approx(known)
        assert set(evidence["models"]) == {len(models)}


def location(value):
    """Rows of design → values of its seeds; and of tokens at the edge, which do not count."""
    for design, values in value.items():
        for name, each in zip(seeds(design, len(values)), values, strict=True):
            yield row(name, "location", each, unit="interior")
            yield row(name, "location", 0.9, unit="edge")
            yield row(name, "location", 0.9, "random", unit="interior")


LOCATION = {VIT: [0.6, 0.62, 0.67], f"{VIT}-gap": [0.2, 0.25, 0.21], CNN: [0.1, 0.12]}


@both
def test_location_is_compared_with_a_pooled_vit_and_a_cnn_over_seeds(edition, tmp_path):
    write(tmp_path, "representation", list(location(LOCATION)))
    evidence = found("ra4", tmp_path, edition)
    for criterion, other in (("pooling", f"{VIT}-gap"), ("family", CNN)):
        test = stats.ttest_ind(LOCATION[VIT], LOCATION[other])
        assert numbers(evidence, criterion) == pytest.approx(interval(test))
        p, models = by_criterion(evidence).loc[(criterion, "main"), ["p", "models"]]
        assert p == pytest.approx(test.pvalue)
        assert models == 3 + len(LOCATION[other])
    assert judged(evidence, "ra4", edition) == (claims.SUPPORTED, "")


@both
def test_location_kept_against_one_of_the_two_is_mixed(edition, tmp_path):
    write(tmp_path, "representation", list(location(LOCATION | {CNN: [0.6, 0.62, 0.67]})))
    verdict = judged(found("ra4", tmp_path, edition), "ra4", edition)
    assert verdict == (claims.MIXED, "only one of the two contrasts")


def similar(model, other, by_depth):
    for depth, value in by_depth.items():
        depth = float(f"{depth:.8g}")  # as it is recorded
        yield row(model, "matched_cka", value, beside=other, depth=depth)


@both
def test_thirds_of_the_depth_end_with_the_blocks_at_one_and_two_thirds(edition, tmp_path):
    rows = []
    sixth = [(i + 1) / 6 for i in range(6)]
    for kind in (VIT, CNN):
        for seed in ("-s1", "-s2"):
            same = (0.9, 0.9, 0.5, 0.5, 0.8, 0.8)
            fewer = (0.8, 0.6, 0.0, 0.0, 0.3, 0.5)
            rows += similar(kind, kind + seed, dict(zip(sixth, same, strict=True)))
            rows += similar(f"{kind}-n10", kind + seed, dict(zip(sixth, fewer, strict=True)))
    write(tmp_path, "pairs", rows)
    # Early: .9 to .7; late: .8 to .4.
    estimate = by_criterion(found("ra5", tmp_path, edition))["estimate"]
    assert estimate.loc[("late", "main")] == pytest.approx(0.4 - 0.2)


def test_what_fewer_images_change_is_set_against_seeds_with_two_kinds_as_the_cases(tmp_path):
    rows = []
    for kind, early, late in ((VIT, 0.6, 0.3), (CNN, 0.7, 0.5)):
        for i, seed in enumerate(("-s1", "-s2")):
            rows += similar(kind, kind + seed, {0.2: 0.9, 0.9: 0.8 + 0.02 * i})
            rows += similar(f"{kind}-n10", kind + seed, {0.2: early, 0.9: late})
            rows += similar(f"{kind}-n3", kind + seed, {0.2: 0.0, 0.9: 1.0})  # less yet: not asked
        rows += similar(kind, "mixer-d6-s1", {0.2: 0.0, 0.9: 1.0})
    write(tmp_path, "pairs", rows)
    evidence = found("ra5", tmp_path)
    falls = [(0.81 - 0.3) - (0.9 - 0.6), (0.81 - 0.5) - (0.9 - 0.7)]
    assert numbers(evidence, "late") == pytest.approx(interval(stats.ttest_1samp(falls, 0)))
    assert evidence["models"].tolist() == [2]
    assert judged(evidence, "ra5") == (claims.UNDECIDED, "late")


def mixers(count):
    near = {VIT: [0.70, 0.74, 0.72], CNN: [0.50, 0.53, 0.56]}
    for kind, values in near.items():
        names = zip(seeds("mixer-d6"), seeds(kind), values, strict=True)
        for mixer, other, value in list(names)[:count]:
            yield from similar(mixer, other, {0.5: value - 0.1, 1.0: value + 0.1})
    yield from similar(VIT, CNN, {0.5: 0.0, 1.0: 0.0})  # not of a mixer
    for name in seeds(CNN):
        yield row("mixer-d6", "cka", 1.0, beside=name, depth=1.0)


@both
def test_mixers_are_compared_with_each_kind_over_seeds(edition, tmp_path):
    write(tmp_path, "pairs", list(mixers(3)))
    evidence = found("ra6", tmp_path, edition)
    known = interval(stats.ttest_ind([0.70, 0.74, 0.72], [0.50, 0.53, 0.56]))
    assert numbers(evidence, "nearness") == pytest.approx(known)
    assert judged(evidence, "ra6", edition) == (claims.SUPPORTED, "")


@both
def test_two_mixers_are_too_few_for_a_verdict(edition, tmp_path):
    write(tmp_path, "pairs", list(mixers(2)))
    evidence = found("ra6", tmp_path, edition)
    expected = [pytest.approx(0.72 - 0.515), -math.inf, math.inf]
    assert numbers(evidence, "nearness") == expected
    assert judged(evidence, "ra6", edition) == (claims.UNDECIDED, "nearness")


def test_a_receptive_field_is_the_mean_of_the_first_third_and_must_be_learned(tmp_path):
    trained = {VIT: [0.80, 0.84, 0.88], CNN: [0.30, 0.33, 0.27]}
    random = {VIT: [0.20, 0.22, 0.21], CNN: [0.20, 0.19, 0.24]}
    rows = []
    for weights, radii in (("trained", trained), ("random", random)):
        for kind, values in radii.items():
            for name, value in zip(seeds(kind), values, strict=True):
                by_depth = {1 / 6: value - 0.1, 0.33333333: value + 0.1, 0.5: 9.0, 1.0: 9.0}
                rows += [
                    row(name, "field_radius", radius, weights, depth=depth)
                    for depth, radius in by_depth.items()
                ]
    write(tmp_path, "representation", rows)
    evidence = found("ra7", tmp_path)
    learned = [np.subtract(trained[kind], random[kind]) for kind in (VIT, CNN)]
    for criterion, test in (
        ("radius", stats.ttest_1samp(trained[VIT], 0)),
        ("family", stats.ttest_ind(trained[VIT], trained[CNN])),
        ("learned", stats.ttest_ind(*learned)),
    ):
        assert numbers(evidence, criterion) == pytest.approx(interval(test))
    assert judged(evidence, "ra7") == (claims.SUPPORTED, "")
