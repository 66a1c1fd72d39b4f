"""Evidence on sparsity: made-up tables of which arithmetic by hand knows the answer."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from helpers.tables import accuracy, by_criterion, found, jitter, judged, layer, profile, row, write
from scipy import stats

from experiments.evidence import claims, rules
from experiments.evidence.table import evidence
from experiments.training.groups import GROUPS
from utils.measures.sparsity import active_fraction, gini
from utils.models.architectures import Spec

# Layers of one network.


def attention(model, trained, random, beyond=()):
    """Gini of each layer with trained and with random weights, and beyond Gaussian logits."""
    for place, values in enumerate(zip(trained, random, strict=True)):
        for weights, value in zip(("trained", "random"), values, strict=True):
            yield layer(model, "gini", value, weights, place)
    for place, value in enumerate(beyond):
        yield layer(model, "gini_beyond_gaussian", value, place=place)


def test_a_layer_of_attention_is_sparse_by_the_lower_bounds_over_images(tmp_path):
    # The second is too near to random weights, the third below ½; the fourth by its standard error.
    layers = [0.7, 0.7, 0.45, 0.55], [0.2, 0.65, 0.2, 0.4501]
    beyond = [0.1, 0.0019, 0.0021, -0.1]  # at a standard error of .001
    write(tmp_path, "sparseness", list(attention("vit-d6-h4", *layers, beyond)))
    estimate = by_criterion(found("hu1", tmp_path))["estimate"]
    assert estimate["layers", "main"] == pytest.approx(1 / 4)
    assert estimate["beyond", "main"] == pytest.approx(2 / 4)


def neurons(model, trained, random, active, dead=(0.0, 0.0)):
    """Gini, share of active and of dead units of each layer; dead: with trained and random."""
    for place, (own, twin, share) in enumerate(zip(trained, random, active, strict=True)):
        for weights, value, without in zip(("trained", "random"), (own, twin), dead, strict=True):
            about = dict(weights=weights, place=place, unit="position")
            yield layer(model, "population_gini", value, **about)
            yield layer(model, "active_share", share, **about)
            yield layer(model, "dead_share", without, **about)


def test_neurons_are_sparse_where_few_are_active_too(tmp_path):
    rows = []
    for model in GROUPS["cnn-depth"].names:
        rows += neurons(model, [0.8] * 4, [0.6] * 4, [0.3, 0.3, 0.3, 0.6])
    write(tmp_path, "sparseness", rows)
    numbers = found("hu8", tmp_path)
    assert numbers["estimate"].tolist() == pytest.approx([3 / 4])
    assert judged(numbers, "hu8") == (rules.SUPPORTED, "")


def test_dead_units_do_not_count_as_zeros_where_neurons_are_asked_to_be_sparse(tmp_path):
    trained, untrained = [0, 0, 0, 1, 2], [0, 0, 1, 1, 2]
    dead = 5 * [0]  # with random weights, half of the second layer
    rows = []
    for weights, first, second in (
        ("trained", trained, trained),
        ("random", untrained, untrained + dead),
    ):
        both = torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64)
        for quantity, numbers in (
            ("population_gini", [gini(r).item() for r in both]),
            ("active_share", [active_fraction(r).item() for r in both]),
            ("dead_share", [0, 1 - len(first) / len(second)]),
        ):
            for place, value in enumerate(numbers):
                rows.append(layer("resnet-d8", quantity, value, weights, place, "position"))
    write(tmp_path, "sparseness", rows)
    counted = [row["value"] for row in rows if row["quantity"] == "population_gini"]
    assert counted[1] - counted[3] < 0 < 0.05 < counted[0] - counted[2]
    assert found("hu8", tmp_path)["estimate"].tolist() == [1]


@pytest.mark.parametrize("weights", ["trained", "random"])
def test_layers_wait_for_both_kinds_of_weights(weights, tmp_path):
    rows = [*attention("vit-d6-h4", [0.7] * 4, [0.1] * 4)]
    rows += neurons("resnet-d8", [0.8] * 4, [0.6] * 4, [0.3] * 4)
    write(tmp_path, "sparseness", [r for r in rows if r["weights"] == weights])
    assert found("hu1", tmp_path).empty
    assert found("hu8", tmp_path).empty


# Shares of layers are counted network by network.


def test_layers_are_shares_of_networks_and_the_control_of_logits_is_its_own_criterion(tmp_path):
    rows = []
    for depth, passing in ((2, 2), (4, 3), (6, 0), (8, 8), (12, 6)):
        name = f"vit-d{depth}-h4"
        second = [0.3 if place < passing else 1.2 for place in range(depth)]
        rows += attention(name, [0.7] * depth, [0.1] * depth, [0.1] + [-0.1] * (depth - 1))
        # Of two twins, the mean counts.
        for place, value in enumerate(second):
            rows.append(layer(name, "gini", value, "random 1", place))
    write(tmp_path, "sparseness", rows)
    numbers = by_criterion(found("hu1", tmp_path))
    # Never of all 32 layers.
    estimate = numbers["estimate"]
    assert estimate["layers", "main"] == pytest.approx(np.mean([1, 0.75, 0, 1, 0.5]))
    assert estimate["beyond", "main"] == pytest.approx(np.mean([1 / d for d in (2, 4, 6, 8, 12)]))
    low, high = numbers.loc[("layers", "main"), ["low", "high"]]
    assert 0 < low < 0.65 < high <= 1
    assert set(numbers["models"]) == {5}


def test_sparse_neurons_are_a_share_of_networks(tmp_path):
    rows = []
    for depth, active in ((8, 0.3), (14, 0.3), (20, 0.3), (32, 0.3), (44, 0.7)):
        rows += neurons(f"resnet-d{depth}", [0.8] * depth, [0.6] * depth, [active] * depth)
    write(tmp_path, "sparseness", rows)
    assert found("hu8", tmp_path)["estimate"].tolist() == pytest.approx([0.8])


# Agreement.

AGREEMENT = (
    ("heads", "main", "head_agreement", "centred"),
    ("layers", "main", "neighbour_agreement", "centred"),
    ("distance", "main", "neighbour_advantage", "centred"),
    ("raw", "heads", "head_agreement", "raw"),
    ("raw", "layers", "neighbour_agreement", "raw"),
)
MODELS = ("vit-d6-h2", "vit-d6-h8-s1", "vit-d12-h4", "vit-d2-h4-s2")


def agreement(centred, raw):
    """One number for each network of the sweeps, and others that the claim is not about."""
    shift = dict(zip(MODELS, (-0.03, 0.0, 0.01, 0.04), strict=True))
    for *_, quantity, kind in AGREEMENT:
        level = raw if kind == "raw" else centred
        for name in MODELS:
            yield row(name, quantity, level + shift[name], unit=kind)
            yield row(name, quantity, -1.0, unit=kind, layer="blocks.0")  # of a single layer
            yield row(name, quantity, -1.0, "random", unit=kind)
        yield row("vit-d6-h4-relu", quantity, -1.0, unit=kind)
        yield row("resnet-d20", quantity, -1.0, unit=kind)


def test_agreement_is_the_mean_over_the_networks_of_the_sweeps(tmp_path):
    write(tmp_path, "representation", list(agreement(0.5, 0.7)))
    numbers = by_criterion(found("hu2", tmp_path))
    assert list(numbers.index) == [(criterion, variant) for criterion, variant, *_ in AGREEMENT]
    for criterion, variant, _, kind in AGREEMENT:
        level = {"raw": 0.7, "centred": 0.5}[kind]
        values = [level - 0.03, level, level + 0.01, level + 0.04]
        claim = claims.BY_ID["hu2"]
        rules_of = {one.name: one.rule for one in (*claim.criteria, claim.fallback)}
        test = stats.ttest_1samp(values, rules_of[criterion].bound)
        said = numbers.loc[(criterion, variant)]
        assert said["estimate"] == pytest.approx(level + 0.005)
        assert tuple(said[["low", "high"]]) == pytest.approx(test.confidence_interval())
        assert said["p"] == pytest.approx(test.pvalue)
        assert said["models"] == len(MODELS)


@pytest.mark.parametrize(
    ("centred", "raw", "verdict"),
    [
        (0.5, 0.7, (rules.SUPPORTED, "")),
        (0.1, 0.7, (rules.MIXED, "only the mean map is shared")),
        (0.1, 0.1, (rules.NOT_SUPPORTED, "heads, layers")),
    ],
)
def test_heads_that_share_their_mean_map_alone_agree_in_part(centred, raw, verdict, tmp_path):
    write(tmp_path, "representation", list(agreement(centred, raw)))
    assert judged(found("hu2", tmp_path), "hu2") == verdict


# What ablations say.


def test_necessity_and_place_are_means_over_the_sweeps_by_the_primary_settings(tmp_path):
    rows = []
    for model, n, place in (("vit-d6-h1", 0.2, 0.5), ("vit-d6-h2", 0.4, 0.7)):
        rows.append(profile(model, "necessity N, probability", n))
        rows.append(profile(model, "damage, permuted − removed, KL", place))
        rows.append(profile(model, "necessity N, probability", 9.0, by="zero"))
        rows.append(profile(model, "necessity N, probability", 9.0, scope="last"))
        rows.append(profile(model, "necessity N, probability", 9.0, ordered_by="centre"))
    rows.append(profile("vit-d6-h4-gap", "necessity N, probability", 9.0))  # not of the sweeps
    write(tmp_path, "ablation-heads-all", rows)
    estimate = by_criterion(found("hu3", tmp_path))["estimate"]
    assert estimate.to_dict() == pytest.approx({("necessity", "main"): 0.3, ("place", "main"): 0.6})


def readings(names, slope_n, slope_half, varied="depth", unit="attention", scope="all"):
    """N and log₂ of what is enough of networks, with these slopes per doubling."""
    by = {"attention": "renormalise", "group": "mean"}[unit]
    for name in names:
        size = math.log2(getattr(Spec.parse(name), varied))
        about = dict(unit=unit, scope=scope, by=by)
        shift = 0.002 * jitter(name)
        yield profile(name, "necessity N, probability", 0.1 + slope_n * size + shift, **about)
        share = 0.3 * 2 ** (slope_half * size + shift)
        # f₅₀⁺ of attention is at its floor; of units of CNNs, one per cent says nothing.
        half, lost = (share, 0.5) if unit == "group" else (0.01, share)
        yield profile(name, "half kept, top, probability", half, **about)
        yield profile(name, "effect, top kept at 1%, probability", 1 - lost, **about)


def test_deeper_is_sparser_where_more_is_needed_and_less_is_enough(tmp_path):
    names = GROUPS["depth"].members()
    write(tmp_path, "ablation-depth-all", list(readings(names, 0.1, -0.5)))
    numbers = found("hu4", tmp_path)
    assert by_criterion(numbers)["estimate"].to_dict() == pytest.approx(
        {("N", "main"): 0.1, ("lost with 1 % kept", "main"): -0.5}, abs=0.005
    )
    assert judged(numbers, "hu4") == (rules.SUPPORTED, "")


@pytest.mark.parametrize(
    ("claim", "experiment", "group", "varied"),
    [
        ("hu4", "ablation-depth-all", "depth", "depth"),
        ("hu5", "ablation-cnn", "cnn-depth", "depth"),
        ("hu6", "ablation-heads-all", "decoupled", "heads"),
    ],
)
def test_a_trend_waits_for_each_design_of_its_family(claim, experiment, group, varied, tmp_path):
    unit = "group" if claim == "hu5" else "attention"
    scopes = ("1/3", "2/3", "last") if claim == "hu5" else ("all",)
    last = GROUPS[group].names[-1]
    every = GROUPS[group].members()
    for names, waits in ((every, False), ([n for n in every if not n.startswith(last)], True)):
        rows = [r for scope in scopes for r in readings(names, 0.1, -0.5, varied, unit, scope)]
        write(tmp_path, experiment, rows)
        assert found(claim, tmp_path).empty == waits


def test_seeds_beyond_the_family_count_too(tmp_path):
    names = [*GROUPS["depth"].members(), "vit-d4-h4-s3", "vit-d12-h4-s4"]
    write(tmp_path, "ablation-depth-all", list(readings(names, 0.1, -0.5)))
    assert (found("hu4", tmp_path)["models"] == len(names)).all()


def test_cnns_are_judged_by_the_mean_over_single_layers(tmp_path):
    names, rows = GROUPS["cnn-depth"].members(), []
    for scope, slope in (("1/3", 0.0), ("2/3", 0.1), ("last", 0.2)):
        rows += readings(names, slope, -0.3, unit="group", scope=scope)
    # A network without one of the layers has no mean.
    rows = [r for r in rows if (r["model"], r["scope"]) != ("resnet-d8", "1/3")]
    write(tmp_path, "ablation-cnn", rows)
    numbers = by_criterion(found("hu5", tmp_path))
    assert numbers["estimate"].to_dict() == pytest.approx(
        {("N", "main"): 0.1, ("half kept", "main"): -0.3}, abs=0.005
    )
    assert (numbers["models"] == len(names) - 1).all()


def test_more_heads_are_less_sparse_at_an_equal_size_of_heads(tmp_path):
    rows = []
    for name in GROUPS["decoupled"].members():
        spec = Spec.parse(name)
        heads, size, shift = math.log2(spec.heads), math.log2(spec.head_dim), 0.002 * jitter(name)
        n = 0.9 - 0.1 * heads + 0.05 * size + shift
        rows.append(profile(name, "necessity N, probability", n))
        lost = 0.05 * 2 ** (0.4 * heads - 0.1 * size + shift)
        rows.append(profile(name, "effect, top kept at 1%, probability", 1 - lost))
    write(tmp_path, "ablation-heads-all", rows)
    numbers = found("hu6", tmp_path)
    estimate = by_criterion(numbers)["estimate"]
    assert estimate["N", "main"] == pytest.approx(-0.1, abs=0.005)
    assert estimate["lost with 1 % kept", "main"] == pytest.approx(0.4, abs=0.01)
    assert judged(numbers, "hu6") == (rules.SUPPORTED, "")


def test_claims_about_attention_are_judged_by_its_weights_alone(tmp_path):
    names = GROUPS["depth"].members()
    write(tmp_path, "ablation-depth-all", list(readings(names, 0.1, -0.5)))
    alone = evidence(tmp_path)
    heads = [profile(n, "necessity N, probability", 9.0, "head", by="mean") for n in names]
    write(tmp_path, "ablation-orders", heads)
    pd.testing.assert_frame_equal(evidence(tmp_path), alone)
    assert set(alone["claim"]) == {"hu3", "hu4"}


# Heads whose effects overlap.


def effects(seed=0):
    """Design → overlap, N and interactions that follow heads and head dimension, with noise."""
    rng = np.random.default_rng(seed)
    for spec in map(Spec.parse, GROUPS["decoupled"].names):
        heads, size = math.log2(spec.heads), math.log2(spec.head_dim)
        overlap = 0.1 + 0.08 * heads + 0.03 * size + 0.02 * rng.standard_normal()
        n = 0.8 - 0.5 * overlap - 0.02 * heads + 0.01 * size + 0.02 * rng.standard_normal()
        overlap = math.nan if spec.heads == 1 else overlap
        yield spec.short, heads, size, overlap, n, 0.2 + 0.01 * heads, -0.5 - 0.01 * size


def write_effects(folder, known, without_keeping=()):
    """Both tables; a network with one head has no overlap, and those named no I_keep."""
    sparseness, ablation = [], []
    for name, *_, overlap, n, removal, keeping in known:
        sparseness.append(layer(name, "gini", 0.7))
        if not math.isnan(overlap):
            # The mean over two layers, which no head owns.
            sparseness.append(layer(name, "overlap", overlap - 0.05, head=None))
            sparseness.append(layer(name, "overlap", overlap + 0.05, place=1, head=None))
        for by, shift in (("renormalise", 0.0), ("zero", 0.3)):
            for quantity, value in (
                ("necessity N", 9.0),
                ("necessity N, probability", n + shift),
                ("I_rem", removal + shift),
                ("I_keep", keeping + shift),
            ):
                if quantity != "I_keep" or name not in without_keeping:
                    ablation.append(profile(name, quantity, value, by=by))
                ablation.append(profile(name, quantity, 9.0, scope="last", by=by))
    write(folder, "sparseness", sparseness)
    write(folder, "ablation-heads-all", ablation)


def least_squares(y, *columns):
    """The slope of the first column, its interval and p, by the normal equations."""
    x = np.column_stack([*columns, np.ones(len(y))])
    inverse = np.linalg.inv(x.T @ x)
    slopes = inverse @ x.T @ y
    freedom = len(y) - x.shape[1]
    error = math.sqrt(((y - x @ slopes) ** 2).sum() / freedom * inverse[0, 0])
    half = stats.t.ppf(0.975, freedom) * error
    p = 2 * stats.t.sf(abs(slopes[0]) / error, freedom)
    return slopes[0], slopes[0] - half, slopes[0] + half, p


@pytest.mark.parametrize("lacking", [(), ("vit-d6-h8-k4",)])
def test_all_parts_of_overlap_are_of_the_networks_that_have_each_of_them(lacking, tmp_path):
    known = list(effects())
    write_effects(tmp_path, known, lacking)
    numbers = by_criterion(found("hu7", tmp_path))
    own = [each[1:] for each in known if not math.isnan(each[3]) and each[0] not in lacking]
    heads, size, overlap, n, removal, keeping = np.array(own).T
    assert set(numbers["models"]) == {len(n)} == {16 - len(lacking)}
    columns = ["estimate", "low", "high", "p"]
    assert tuple(numbers.loc[("overlap", "main"), columns]) == pytest.approx(
        least_squares(overlap, heads, size), abs=1e-7
    )
    assert numbers.loc[("association", "main"), "estimate"] == pytest.approx(
        stats.spearmanr(overlap, n).statistic
    )
    for criterion, values in (("removal", removal), ("keeping", keeping)):
        test = stats.ttest_1samp(values, 0)
        expected = (values.mean(), *test.confidence_interval(), test.pvalue)
        assert tuple(numbers.loc[(criterion, "main"), columns]) == pytest.approx(expected)


def test_of_networks_too_few_for_a_line_only_means_are_taken(tmp_path):
    write_effects(tmp_path, [each for each in effects() if each[0].startswith("vit-d6-h2-")][:3])
    assert found("hu7", tmp_path)["criterion"].tolist() == ["removal", "keeping"]


# The share of the training images.


def test_a_gap_has_one_point_for_each_trained_pair(tmp_path):
    rows = []
    for n, gap in ((3, 0.40), (10, 0.34), (30, 0.28), (100, 0.22)):
        for seed in ("", "-s1"):
            ending = ("" if n == 100 else f"-n{n}") + seed
            rows.append(accuracy(f"resnet-d20{ending}", 0.9))
            rows.append(accuracy(f"vit-d6-h4{ending}", 0.9 - gap + (0.01 if seed else -0.01)))
    rows.append(accuracy("resnet-d20-n3-s2", 0.1))  # without a partner
    write(tmp_path, "accuracy", rows)
    numbers = found("hu10", tmp_path)
    assert numbers["models"].tolist() == [8]
    seen = np.log2([1500, 5000, 15_000, 200_000])  # pictures: all of them are four fresh epochs
    slope = np.polyfit(seen, [40, 34, 28, 22], 1)[0]
    assert numbers["estimate"].tolist() == [pytest.approx(slope)]  # points a doubling
    assert judged(numbers, "hu10") == (rules.SUPPORTED, "")


def test_a_gap_waits_for_each_share_of_the_images(tmp_path):
    write(tmp_path, "accuracy", [accuracy(f"{n}-n3", 0.5) for n in ("resnet-d20", "vit-d6-h4")])
    assert found("hu10", tmp_path).empty
