"""Evidence on what networks represent: made-up tables of which SciPy or arithmetic knows more."""

import math

import numpy as np
import pandas as pd
import pytest
from helpers.tables import by_criterion, found, judged, layer, row, seeds, write
from scipy import stats

from experiments.catalogue import PINNED_VITS
from experiments.evidence import rules
from experiments.tasks.standalone import record
from experiments.training.groups import GROUPS

VIT, CNN = "vit-d6-h4", "resnet-d20"


def interval(test):
    """Estimate and bounds of a SciPy test of one mean, or of two."""
    bounds = test.confidence_interval()
    return (bounds.low + bounds.high) / 2, bounds.low, bounds.high


def numbers(evidence, criterion, variant="main"):
    return by_criterion(evidence).loc[(criterion, variant), ["estimate", "low", "high"]].tolist()


# Layers that are alike.

FAR = 9.0  # what should not count


def uniform(models, off_diagonal, weights="trained"):
    """CKA of three blocks of each network, with so much of all pairs."""
    for i, name in enumerate(models):
        for one in range(3):
            for other in range(3):
                value = 1.0 if one == other else off_diagonal + 0.02 * i
                about = dict(layer=f"b{one}", other=f"b{other}", depth=(one + 1) / 3)
                yield row(name, "cka", value, weights, **about)


def test_uniformity_is_of_all_networks_of_the_sweeps_each_kind_with_its_own_scatter(tmp_path):
    vits = {"vit-d6-h1": 0.8, "vit-d6-h1-s1": 0.82, "vit-d12-h4": 0.87}
    cnns = {"resnet-d8": 0.5, "resnet-d8-s1": 0.52, "resnet-d44": 0.51}
    rows = [r for name, value in (vits | cnns).items() for r in uniform([name], value)]
    rows += uniform([f"{VIT}-gap", "resnet-d20-n10"], FAR)  # not of the sweeps
    write(tmp_path, "similarity", rows)
    evidence = found("ra1", tmp_path)
    test = stats.ttest_ind([*vits.values()], [*cnns.values()], equal_var=False)
    assert numbers(evidence, "uniformity") == pytest.approx(interval(test))
    assert evidence[["criterion", "models"]].to_numpy().tolist() == [["uniformity", 6]]


def random_twins(vit, cnn, count=5):
    """Random weights are of the networks themselves and of further seeds of their design."""
    rows = uniform(seeds("vit-d6-h1", count), vit, "random")
    return [*rows, *uniform(seeds("resnet-d8", count), cnn, "random")]


def test_uniformity_must_be_learned_against_five_random_twins_of_a_design(tmp_path):
    vits, cnns = ("vit-d6-h1", "vit-d6-h1-s1"), ("resnet-d8", "resnet-d8-s1")
    rows = [*uniform(vits, 0.8), *uniform(cnns, 0.5), *uniform(["vit-d12-h4"], 0.84)]
    rows += uniform(["vit-d12-h4"], FAR, "random")  # one twin of a design does not count
    write(tmp_path, "similarity", rows + random_twins(0.26, 0.36))
    evidence = found("ra1", tmp_path)
    # Means of five twins: .30 and .40.
    assert numbers(evidence, "learned")[0] == pytest.approx(0.3 + 0.1)
    models = by_criterion(evidence)["models"].to_dict()
    assert models == {("uniformity", "main"): 5, ("learned", "main"): 4}
    assert judged(evidence, "ra1") == (rules.SUPPORTED, "")
    # As large a difference without training is one of architecture.
    write(tmp_path, "similarity", rows + random_twins(0.66, 0.36))
    assert judged(found("ra1", tmp_path), "ra1")[1] == "learned"
    write(tmp_path, "similarity", rows + random_twins(0.26, 0.36, count=4))
    assert "learned" not in set(found("ra1", tmp_path)["criterion"])


def test_blocks_are_equally_spaced_however_many_there_are(tmp_path):
    chosen = {0, 2, 4, 7, 9, 11}  # of twelve: multiples of 11/5
    rows = [
        row(
            "vit-d12-h4",
            "cka",
            0.7 if {one, other} <= chosen else FAR,
            layer=f"b{one}",
            other=f"b{other}",
            depth=(one + 1) / 12,
        )
        for one in range(12)
        for other in range(12)
    ]
    write(tmp_path, "similarity", [*rows, *uniform(["resnet-d8"], 0.5)])
    assert numbers(found("ra1", tmp_path), "uniformity")[0] == pytest.approx(0.2)


# How far heads look.


def reach(model, blocks, early, late, between):
    """Heads of all blocks: those of the first and the last blocks, and all others."""
    for i in range(blocks):
        heads = early[i] if i < len(early) else between
        heads = late[i - blocks] if i >= blocks - len(late) else heads
        for head, value in enumerate(heads):
            place = dict(layer=f"blocks.{i}", head=head, depth=float(f"{(i + 1) / blocks:.8g}"))
            yield row(model, "relative_distance", value, **place)


EXTREME = (0.01, 1.9)  # where no criterion looks


def test_heads_of_the_first_and_the_last_quarter_of_the_blocks_are_compared_and_no_others(
    tmp_path,
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
    evidence = found("ra2", tmp_path)
    for criterion, values in zip(
        ("range", "local", "global", "late"), np.transpose(expected), strict=True
    ):
        known = interval(stats.ttest_1samp(values, 0))
        assert numbers(evidence, criterion) == pytest.approx(known)
    assert set(evidence["models"]) == {3}
    assert judged(evidence, "ra2") == (rules.SUPPORTED, "")


@pytest.mark.parametrize(("blocks", "quarter"), [(2, 1), (4, 1), (8, 2), (12, 3)])
def test_a_quarter_is_so_many_blocks_and_one_at_least(blocks, quarter, tmp_path):
    early, late = ((0.5, 0.6),) * quarter, ((0.7, 0.8),) * quarter
    write(tmp_path, "similarity", list(reach(VIT, blocks, early, late, EXTREME)))
    said = found("ra2", tmp_path).set_index("criterion")["estimate"]
    known = {"range": 0.1, "local": 0.5, "global": 0.6, "late": 0.2}
    assert said.to_dict() == pytest.approx(known)


def test_on_photographs_the_heads_of_all_published_vits_count(tmp_path):
    rows, value = [], {name: 0.1 * (i + 1) for i, name in enumerate(PINNED_VITS)}
    for name in PINNED_VITS:
        heads = ((value[name], 1.0),) * 3
        rows += reach(name, 12, heads, heads, EXTREME)
    write(tmp_path, "similarity", rows, "imagenet")
    evidence = found("ra2", tmp_path, "imagenet")
    known = interval(stats.ttest_1samp([*value.values()], 0))
    assert numbers(evidence, "local") == pytest.approx(known)
    assert set(evidence["models"]) == {len(PINNED_VITS)}


# Skips.


def skips(name, without_skip, without_block=0.1, weights="trained"):
    for unit, value in (("attention", without_skip - 0.1), ("mlp", without_skip + 0.1)):
        yield layer(name, "skip_fall", value, weights, unit=unit)
    yield layer(name, "skip_fall", without_block, weights, unit="block")


def test_skips_are_compared_over_all_networks_of_the_sweeps_and_with_random_ones(tmp_path):
    rows = []
    for name, fall in (("vit-d6-h1", 0.7), ("vit-d6-h2", 0.9), ("resnet-d8", 0.4)):
        rows += skips(name, fall)
        for twin in seeds(name, 5):
            rows += skips(twin, 0.2 if "h1" in name else 0.25, weights="random")
    write(tmp_path, "representation", rows)
    evidence = found("ra3", tmp_path)
    # Less that without the block: .6, .8 and .3; with random weights .1, .15 and .15.
    assert by_criterion(evidence)["estimate"].to_dict() == pytest.approx(
        {("skip", "main"): 0.7, ("family", "main"): 0.4, ("learned", "main"): 0.575 - 0.15}
    )
    assert by_criterion(evidence)["models"].tolist() == [2, 3, 3]


# Location.


def location(value):
    """Rows of design → values of its seeds; and of tokens at the edge, which do not count."""
    for design, values in value.items():
        for name, each in zip(seeds(design, len(values)), values, strict=True):
            yield row(name, "location", each, unit="interior")
            yield row(name, "location", 0.9, unit="edge")
            yield row(name, "location", 0.9, "random", unit="interior")


LOCATION = {VIT: [0.6, 0.62, 0.67], f"{VIT}-gap": [0.2, 0.25, 0.21], CNN: [0.1, 0.12]}


def test_location_is_compared_with_a_pooled_vit_and_a_cnn_over_seeds(tmp_path):
    write(tmp_path, "representation", list(location(LOCATION)))
    evidence = found("ra4", tmp_path)
    for criterion, other in (("pooling", f"{VIT}-gap"), ("family", CNN)):
        test = stats.ttest_ind(LOCATION[VIT], LOCATION[other])
        assert numbers(evidence, criterion) == pytest.approx(interval(test))
        p, models = by_criterion(evidence).loc[(criterion, "main"), ["p", "models"]]
        assert p == pytest.approx(test.pvalue)
        assert models == 3 + len(LOCATION[other])
    assert judged(evidence, "ra4") == (rules.SUPPORTED, "")


def test_location_kept_against_one_of_the_two_is_mixed(tmp_path):
    write(tmp_path, "representation", list(location(LOCATION | {CNN: [0.6, 0.62, 0.67]})))
    verdict = judged(found("ra4", tmp_path), "ra4")
    assert verdict == (rules.MIXED, "only one of the two contrasts")


def test_a_difference_of_single_seeds_has_no_bounds_and_is_undecided(tmp_path):
    write(tmp_path, "representation", list(location({k: v[:1] for k, v in LOCATION.items()})))
    evidence = found("ra4", tmp_path)
    assert numbers(evidence, "family") == [pytest.approx(0.5), -math.inf, math.inf]
    assert judged(evidence, "ra4") == (rules.UNDECIDED, "")


# Pairs of networks.


def similar(model, other, by_depth):
    for depth, value in by_depth.items():
        depth = float(f"{depth:.8g}")  # as it is recorded
        yield row(model, "matched_cka", value, beside=other, depth=depth)


def test_thirds_of_the_depth_end_with_the_blocks_at_one_and_two_thirds(tmp_path):
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
    assert numbers(found("ra5", tmp_path), "late")[0] == pytest.approx(0.4 - 0.2)


def test_what_fewer_images_change_is_told_by_seeds_within_each_kind(tmp_path):
    rows, falls = [], {VIT: [0.19, 0.20, 0.21], CNN: [0.37, 0.40, 0.43]}
    for kind, values in falls.items():
        for i, (one, fall) in enumerate(zip(seeds(kind), values, strict=True)):
            for other in seeds(kind)[i + 1 :]:
                rows += similar(one, other, {0.2: 0.9, 0.5: 0.5, 0.9: 0.9})
            part = one.replace(kind, f"{kind}-n10")
            for other in seeds(kind):
                if other != one:
                    rows += similar(part, other, {0.2: 0.8, 0.5: 0.5, 0.9: 0.8 - fall})
            rows += similar(part.replace("n10", "n3"), kind, {0.2: 0.0, 0.9: 1.0})  # not asked
        rows += similar(kind, "mixer-d6-s1", {0.2: 0.0, 0.9: 1.0})
    write(tmp_path, "pairs", rows)
    evidence = found("ra5", tmp_path)
    # The mean of two kinds: half of a sum, that is of a difference to minus the other.
    test = stats.ttest_ind(falls[VIT], [-x for x in falls[CNN]])
    assert numbers(evidence, "late") == pytest.approx([x / 2 for x in interval(test)])
    assert evidence["models"].tolist() == [6]  # seeds, not kinds
    assert judged(evidence, "ra5") == (rules.SUPPORTED, "")


def test_one_seed_of_each_kind_leaves_open_what_fewer_images_change(tmp_path):
    rows = []
    for kind in (VIT, CNN):
        rows += similar(kind, f"{kind}-s1", {0.2: 0.9, 0.9: 0.9})
        rows += similar(f"{kind}-n10", f"{kind}-s1", {0.2: 0.8, 0.9: 0.5})
    write(tmp_path, "pairs", rows)
    evidence = found("ra5", tmp_path)
    assert numbers(evidence, "late") == [pytest.approx(0.3), -math.inf, math.inf]
    write(tmp_path, "pairs", [r for r in rows if r["model"].startswith(VIT)])
    assert found("ra5", tmp_path).empty


def mixers(count):
    near = {VIT: [0.70, 0.74, 0.72], CNN: [0.50, 0.53, 0.56]}
    for kind, values in near.items():
        names = zip(seeds("mixer-d6"), seeds(kind), values, strict=True)
        for mixer, other, value in list(names)[:count]:
            yield from similar(mixer, other, {0.5: value - 0.1, 1.0: value + 0.1})
    yield from similar(VIT, CNN, {0.5: 0.0, 1.0: 0.0})  # not of a mixer
    for name in seeds(CNN):
        yield row("mixer-d6", "cka", 1.0, beside=name, depth=1.0)


def test_mixers_are_compared_with_each_kind_over_seeds(tmp_path):
    write(tmp_path, "pairs", list(mixers(3)))
    evidence = found("ra6", tmp_path)
    known = interval(stats.ttest_ind([0.70, 0.74, 0.72], [0.50, 0.53, 0.56]))
    assert numbers(evidence, "nearness") == pytest.approx(known)
    assert judged(evidence, "ra6") == (rules.SUPPORTED, "")


def test_two_mixers_are_too_few_for_a_verdict(tmp_path):
    write(tmp_path, "pairs", list(mixers(2)))
    evidence = found("ra6", tmp_path)
    expected = [pytest.approx(0.72 - 0.515), -math.inf, math.inf]
    assert numbers(evidence, "nearness") == expected
    assert judged(evidence, "ra6") == (rules.UNDECIDED, "nearness")


# Receptive fields and filters.


def test_a_receptive_field_is_counted_in_the_first_third_and_must_be_learned(tmp_path):
    trained = {VIT: [0.80, 0.84, 0.88], CNN: [0.30, 0.33, 0.27]}
    random = {VIT: [0.20, 0.22, 0.21], CNN: [0.20, 0.19, 0.24]}
    rows = []
    for weights, radii in (("trained", trained), ("random", random)):
        for kind, values in radii.items():
            for name, value in zip(seeds(kind), values, strict=True):
                by_depth = {1 / 6: value - 0.1, 0.33333333: value + 0.1, 0.5: FAR, 1.0: FAR}
                rows += [
                    row(name, "field_radius", radius, weights, depth=depth)
                    for depth, radius in by_depth.items()
                ]
    write(tmp_path, "representation", rows)
    evidence = found("ra7", tmp_path)
    assert evidence["estimate"].tolist() == pytest.approx(
        [0.84, 0.84 - 0.30, 0.84 - 0.30 - (0.21 - 0.21)]
    )
    assert evidence[["low", "high", "p"]].isna().all(axis=None)
    assert evidence["models"].tolist() == [3, 6, 6]
    assert judged(evidence, "ra7") == (rules.SUPPORTED, "")


def test_filters_are_the_share_of_each_networks_sub_blocks_that_are_so_beyond_their_error(
    tmp_path,
):
    rows = []
    for i, name in enumerate(GROUPS["depth"].names):
        for place in range(4 * (i + 1)):
            change = (-1.0, -1.0, -0.01, 1.0)[place % 4]
            rows.append(layer(name, "frequency", change, place=place, unit="attention", se=0.006))
    for name in GROUPS["cnn-depth"].names:
        for place, change in enumerate((1.0, 0.5, 0.2, 0.1, -1.0)):
            unit = "convolution"
            rows.append(layer(name, "frequency", change, place=place, unit=unit, se=0.001))
    rows.append(layer(f"{VIT}-gap", "frequency", 1.0, unit="attention"))  # not of the sweeps
    write(tmp_path, "representation", rows)
    evidence = found("pk", tmp_path)
    # The third of each four is negative by 1.7 standard errors.
    assert numbers(evidence, "attention") == pytest.approx([0.5] * 3)
    assert numbers(evidence, "convolution") == pytest.approx([0.8] * 3)
    assert evidence["models"].tolist() == [5, 5]
    assert judged(evidence, "pk") == (rules.MIXED, "attention")


def test_attention_with_nine_heads_is_found_to_be_a_convolution(tmp_path):
    record("convolution", tmp_path / "convolution.csv")
    evidence = found("co", tmp_path, "exact")
    assert judged(evidence, "co") == (rules.SUPPORTED, "")
    # The nearest other shift is one pixel away: the error falls as exp(−α).
    table = pd.read_csv(tmp_path / "convolution.csv").query("heads == 9 and place == 'interior'")
    last, sharpest = table["value"].iloc[-2:]
    assert np.log(last / sharpest) == pytest.approx(8, abs=0.01)
    assert numbers(evidence, "error", "border")[0] == pytest.approx(sharpest, rel=0.1)
