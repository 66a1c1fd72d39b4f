"""The second edition's evidence from made-up tables of which the answer is known."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments.engine.results import file_of
from experiments.evidence import claims, rules
from experiments.evidence import second as second
from experiments.evidence.second import Second, beside, evidence, extrapolation, pairs
from experiments.training.groups import GROUPS
from utils.measures.statistics import rank_correlation, share_over, unequal
from utils.models.architectures import Spec


def write(folder, experiment, rows, rung="objects"):
    file = file_of(experiment, rung, out=folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(file, index=False)


def rows_of(claim, folder, rung="objects"):
    found = pd.DataFrame(list(second.CLAIMS[claim](Second(rung, folder))))
    return found.set_index(["criterion", "variant"]) if len(found) else found


def profile(model, quantity, value, unit="attention", scope="all", by="renormalise", **more):
    about = {"model": model, "weights": "trained", "unit": unit, "scope": scope}
    return about | {"replaced_by": by, "quantity": quantity, "value": value} | more


def layer(model, quantity, value, weights="trained", place=0, unit="class", se=0.001, **more):
    about = {"model": model, "weights": weights, "quantity": quantity, "unit": unit}
    about |= {"layer": f"blocks.{place}", "depth": 1.0, "head": 0, "value": value, "se": se}
    return about | more


def jitter(name):
    """A scatter of seeds that is the same every time, −1, 0 or 1."""
    return sum(map(ord, name)) % 3 - 1


def test_nothing_recorded_is_no_evidence(tmp_path):
    assert evidence(tmp_path).empty
    assert beside(tmp_path).empty
    found = claims.verdicts(evidence(tmp_path)[list(claims.EVIDENCE)], rules.CLAIMS)
    assert {v.verdict for v in found} == {claims.NOT_TESTED}


def test_layers_are_shares_of_networks_and_the_control_of_logits_is_its_own_criterion(tmp_path):
    rows = []
    for depth, passing in ((2, 2), (4, 3), (6, 0), (8, 8), (12, 6)):
        for i in range(depth):
            name = f"vit-d{depth}-h4"
            rows.append(layer(name, "gini", 0.7, place=i))
            # Of two twins, the mean counts.
            for twin, value in (("random", 0.1), ("random 1", 0.3 if i < passing else 1.2)):
                rows.append(layer(name, "gini", value, twin, place=i))
            rows.append(layer(name, "gini_beyond_gaussian", -0.1 if i else 0.1, place=i))
    write(tmp_path, "sparseness", rows)
    found = rows_of("hu1", tmp_path)
    assert found.loc[("layers", "main"), "estimate"] == pytest.approx(
        np.mean([1, 0.75, 0, 1, 0.5])
    )  # never of all 32 layers
    assert found.loc[("beyond", "main"), "estimate"] == pytest.approx(
        np.mean([1 / 2, 1 / 4, 1 / 6, 1 / 8, 1 / 12])
    )
    low, high = found.loc[("layers", "main"), ["low", "high"]]
    assert 0 < low < 0.65 < high <= 1


def test_neurons_are_a_share_of_networks(tmp_path):
    rows = []
    for depth, active in ((8, 0.3), (14, 0.3), (20, 0.3), (32, 0.3), (44, 0.7)):
        for i in range(depth):
            for weights, value in (("trained", 0.8), ("random", 0.6)):
                about = dict(weights=weights, place=i, unit="position")
                rows.append(layer(f"resnet-d{depth}", "population_gini", value, **about))
                rows.append(layer(f"resnet-d{depth}", "active_share", active, **about))
                rows.append(layer(f"resnet-d{depth}", "dead_share", 0.0, **about))
    write(tmp_path, "sparseness", rows)
    assert rows_of("hu8", tmp_path).loc[("layers", "main"), "estimate"] == pytest.approx(0.8)


def test_a_share_of_few_networks_has_no_bounds_and_of_equal_ones_no_width():
    few = share_over([1.0, 0.5, 1.0])
    assert (few.low, few.high) == (0.0, 1.0)
    same = share_over([0.8] * 6)
    assert (same.estimate, same.low, same.high) == pytest.approx((0.8, 0.8, 0.8))


def test_necessity_and_place_are_means_over_the_sweeps_by_the_primary_settings(tmp_path):
    rows = []
    for model, n, place in (("vit-d6-h1", 0.2, 0.5), ("vit-d6-h2", 0.4, 0.7)):
        rows.append(profile(model, "necessity N, probability", n))
        rows.append(profile(model, "damage, permuted − removed, KL", place))
        rows.append(profile(model, "necessity N, probability", 9.0, by="zero"))
        rows.append(profile(model, "necessity N, probability", 9.0, scope="last"))
        rows.append(profile(model, "necessity N, centre", 0.1))
    rows.append(profile("vit-d6-h4-gap", "necessity N, probability", 9.0))  # not of the sweeps
    for r in rows:
        r["ordered_by"] = None
    rows += [profile("vit-d6-h1", "necessity N, probability", 7.0, ordered_by="centre")]
    write(tmp_path, "ablation-heads-all", rows)
    found = rows_of("hu3", tmp_path)["estimate"]
    assert found.to_dict() == pytest.approx({("necessity", "main"): 0.3, ("place", "main"): 0.6})
    others = beside(tmp_path).set_index(["criterion", "variant"])["estimate"]
    assert others["necessity", "zero"] == 9.0
    assert others["necessity", "the same central disc for all images"] == pytest.approx(0.1)
    assert others["necessity", "centre order"] == 7.0


def trend_rows(names, slope_n, slope_half, varied, unit="attention", scopes=("all",), by=None):
    for name in names:
        size = math.log2(getattr(Spec.parse(name), varied))
        for scope in scopes:
            about = dict(unit=unit, scope=scope, by=by or "renormalise")
            n = 0.1 + slope_n * size + 0.002 * jitter(name)
            half = 0.3 * 2 ** (slope_half * size + 0.002 * jitter(name))
            yield profile(name, "necessity N, probability", n, **about)
            yield profile(
                name, "half kept, top, probability", half if unit == "group" else 0.01, **about
            )
            kept = 1 - half if unit == "attention" else 0.5
            yield profile(name, "effect, top kept at 1%, probability", kept, **about)


def test_deeper_is_sparser_where_more_is_needed_and_less_is_enough(tmp_path):
    names = GROUPS["depth"].members()
    rows = [*trend_rows(names, 0.1, -0.5, "depth"), *trend_rows(names, -0.1, 0, "depth", by="zero")]
    write(tmp_path, "ablation-depth-all", rows)
    found = rows_of("hu4", tmp_path)
    assert found["estimate"].to_dict() == pytest.approx(
        {("N", "main"): 0.1, ("lost with 1 % kept", "main"): -0.5}, abs=0.005
    )
    table = evidence(tmp_path)
    said = {(v.claim, v.rung): v for v in claims.verdicts(table[claims.EVIDENCE], rules.CLAIMS)}
    assert said["hu4", "objects"].verdict == claims.SUPPORTED
    others = beside(tmp_path).set_index(["claim", "criterion", "variant"])
    assert others.loc[("hu4", "N", "zero"), "beside"] == "differs"
    assert others.loc[("hu4", "N", "without the smallest"), "beside"] == "agrees"
    assert others.loc[("hu4", "N", "without the smallest"), "models"] < len(names)


def test_a_trend_waits_for_each_design_of_its_family(tmp_path):
    names = [n for n in GROUPS["depth"].members() if "d12" not in n]
    write(tmp_path, "ablation-depth-all", list(trend_rows(names, 0.1, -0.5, "depth")))
    assert rows_of("hu4", tmp_path).empty


def test_seeds_beyond_the_family_count_too(tmp_path):
    names = [*GROUPS["depth"].members(), "vit-d4-h4-s3", "vit-d12-h4-s4"]
    write(tmp_path, "ablation-depth-all", list(trend_rows(names, 0.1, -0.5, "depth")))
    assert (rows_of("hu4", tmp_path)["models"] == len(names)).all()


def test_cnns_are_judged_by_the_mean_over_single_layers(tmp_path):
    names, rows = GROUPS["cnn-depth"].members(), []
    for scope, slope in (("1/3", 0.0), ("2/3", 0.1), ("last", 0.2)):
        about = dict(unit="group", scopes=(scope,), by="mean")
        rows += trend_rows(names, slope, -0.3, "depth", **about)
    # A network without one of the layers has no mean.
    rows = [r for r in rows if (r["model"], r["scope"]) != ("resnet-d8", "1/3")]
    write(tmp_path, "ablation-cnn", rows)
    found = rows_of("hu5", tmp_path)
    assert found.loc[("N", "main"), "estimate"] == pytest.approx(0.1, abs=0.005)
    assert found.loc[("half kept", "main"), "estimate"] == pytest.approx(-0.3, abs=0.005)
    assert (found["models"] == len(names) - 1).all()


def grid():
    """The grid with a relation of heads to N, to the overlap, and of the size of heads to N."""
    for name in GROUPS["decoupled"].members():
        spec = Spec.parse(name)
        heads, size = math.log2(spec.heads), math.log2(spec.head_dim)
        yield name, heads, size


def test_more_heads_are_less_sparse_at_an_equal_size_of_heads(tmp_path):
    rows = []
    for name, heads, size in grid():
        n = 0.9 - 0.1 * heads + 0.05 * size + 0.002 * jitter(name)
        rows.append(profile(name, "necessity N, probability", n))
        lost = 0.05 * 2 ** (0.3 * heads - 0.1 * size + 0.002 * jitter(name))
        rows.append(profile(name, "effect, top kept at 1%, probability", 1 - lost))
    write(tmp_path, "ablation-heads-all", rows)
    found = rows_of("hu6", tmp_path)["estimate"]
    assert found["N", "main"] == pytest.approx(-0.1, abs=0.005)
    assert found["lost with 1 % kept", "main"] == pytest.approx(0.3, abs=0.01)


def test_overlap_is_judged_on_one_sample(tmp_path):
    sparseness, ablation = [], []
    for name, heads, size in grid():
        if heads:  # a single head has no overlap
            overlap = 0.1 + 0.1 * heads + 0.004 * jitter(name)
            sparseness.append(layer(name, "overlap", overlap))
        ablation.append(profile(name, "necessity N, probability", 0.9 - 0.1 * heads - 0.001 * size))
        ablation.append(profile(name, "I_rem", 0.5 + 0.01 * size))
        if name != "vit-d6-h8":
            ablation.append(profile(name, "I_keep", -0.5 - 0.01 * size))
    write(tmp_path, "sparseness", sparseness)
    write(tmp_path, "ablation-heads-all", ablation)
    found = rows_of("hu7", tmp_path)
    lacking = sum(Spec.parse(n).design == "vit-d6-h8" for n in GROUPS["decoupled"].members())
    expected = len(sparseness) - (1 if lacking else 0)
    assert set(found["models"]) == {expected}
    assert found.loc[("overlap", "main"), "estimate"] == pytest.approx(0.1, abs=0.01)
    assert found.loc[("association", "main"), "high"] < 0
    assert found.loc[("removal", "main"), "low"] > 0 > found.loc[("keeping", "main"), "high"]


def test_a_gap_has_one_point_for_each_trained_pair(tmp_path):
    rows = []
    for n, gap in ((3, 0.40), (10, 0.34), (30, 0.28), (100, 0.22)):
        for seed in ("", "-s1"):
            ending = ("" if n == 100 else f"-n{n}") + seed
            rows.append(layer(f"resnet-d20{ending}", "accuracy", 0.9, n=10_000))
            value = 0.9 - gap + (0.01 if seed else -0.01)
            rows.append(layer(f"vit-d6-h4{ending}", "accuracy", value, n=10_000))
    rows.append(layer("resnet-d20-n3-s2", "accuracy", 0.1, n=10_000))  # without a partner
    write(tmp_path, "accuracy", rows)
    found = rows_of("hu10", tmp_path).loc[("gap", "main")]
    assert found["models"] == 8
    assert found["estimate"] == pytest.approx(-3.55, abs=0.1)  # points a doubling


def similarity(uniformity):
    """Tables of CKA for networks of three blocks, with so much of all pairs."""
    for model, weights, value in uniformity:
        for i in range(3):
            for j in range(3):
                about = {"layer": f"b{i}", "other": f"b{j}", "depth": (i + 1) / 3}
                about |= {"model": model, "weights": weights, "quantity": "cka"}
                yield about | {"value": 1.0 if i == j else value}


def test_uniformity_is_of_all_sweep_networks_against_five_twins_of_a_design(tmp_path):
    made = []
    for names, trained, random in (
        (("vit-d6-h1", "vit-d6-h1-s1", "vit-d12-h4"), 0.8, 0.3),
        (("resnet-d8", "resnet-d8-s1", "resnet-d44"), 0.5, 0.4),
    ):
        for i, name in enumerate(names):
            made.append((name, "trained", trained + 0.02 * i))
        for twin in range(5):
            weights = "random" if twin == 0 else f"random {twin}"
            made.append((names[0], weights, random + 0.01 * (twin - 2)))
        made.append((names[2], "random", 0.99))  # one twin of that design does not count
    write(tmp_path, "similarity", list(similarity(made)))
    found = rows_of("ra1", tmp_path)
    assert found.loc[("uniformity", "main"), ["estimate", "models"]].tolist() == [
        pytest.approx(0.3), 6
    ]  # fmt: skip
    assert found.loc[("learned", "main"), ["estimate", "models"]].tolist() == [
        pytest.approx(0.3 + 0.1), 4
    ]  # fmt: skip
    few = [row for row in made if row[1] != "random 4"]
    write(tmp_path, "similarity", list(similarity(few)))
    assert ("learned", "main") not in rows_of("ra1", tmp_path).index


def test_skips_are_compared_over_all_sweep_networks(tmp_path):
    rows = []
    for name, skip in (("vit-d6-h1", 0.6), ("vit-d6-h2", 0.8), ("resnet-d8", 0.3)):
        for weights in ("trained", *(f"random {i}" for i in range(5))):
            base = skip if weights == "trained" else 0.15
            for unit, value in (("attention", base + 0.1), ("mlp", base + 0.1), ("block", 0.1)):
                rows.append(layer(name, "skip_fall", value, weights, unit=unit))
    write(tmp_path, "representation", rows)
    found = rows_of("ra3", tmp_path)["estimate"]
    assert found.to_dict() == pytest.approx(
        {("skip", "main"): 0.7, ("family", "main"): 0.4, ("learned", "main"): 0.4}
    )


def test_late_layers_are_told_by_seeds_within_each_kind(tmp_path):
    rows = []

    def similar(model, other, early, late):
        for depth, value in ((0.2, early), (0.5, 0.5), (0.9, late)):
            about = {"model": model, "beside": other, "weights": "trained", "depth": depth}
            rows.append(about | {"quantity": "matched_cka", "value": value})

    for kind, fall in (("vit-d6-h4", 0.2), ("resnet-d20", 0.4)):
        seeds = ("", "-s1", "-s2")
        for i, a in enumerate(seeds):
            for b in seeds:
                if a < b:
                    similar(kind + a, kind + b, 0.9, 0.9)
                if a != b:
                    similar(f"{kind}-n10{a}", kind + b, 0.8, 0.8 - fall - 0.01 * (i - 1))
    write(tmp_path, "pairs", rows)
    found = rows_of("ra5", tmp_path).loc[("late", "main")]
    assert found["models"] == 6  # seeds, not kinds
    assert found["estimate"] == pytest.approx(0.3)
    assert 0.25 < found["low"] < found["high"] < 0.35


def test_a_counted_radius_has_no_interval(tmp_path):
    rows = []
    for name, value in (("vit-d6-h4", 0.9), ("vit-d6-h4-s1", 0.9), ("resnet-d20", 0.2)):
        rows.append(layer(name, "field_radius", value, depth=0.3))
        rows.append(layer(name, "field_radius", 0.2, "random", depth=0.3))
        rows.append(layer(name, "field_radius", 9.0, depth=0.9))
    write(tmp_path, "representation", rows)
    found = rows_of("ra7", tmp_path)
    assert found["estimate"].tolist() == pytest.approx([0.9, 0.7, 0.7])
    assert found[["low", "high", "p"]].isna().all(axis=None)


def test_filters_are_shares_of_networks(tmp_path):
    rows = []
    for i, name in enumerate(GROUPS["depth"].names):
        for k in range(4 * (i + 1)):
            rows.append(layer(name, "frequency", -1.0 if k % 4 else 1.0, place=k, unit="attention"))
    write(tmp_path, "representation", rows)
    found = rows_of("pk", tmp_path).loc[("attention", "main")]
    assert found[["estimate", "low", "high"]].tolist() == pytest.approx([0.75] * 3)
    assert found["models"] == 5


def test_pairs_are_as_many_as_there_can_be_and_no_network_is_in_two():
    accuracy = {"v1": 0.900, "v2": 0.907, "v3": 0.5, "c1": 0.901, "c2": 0.893}
    chosen = pairs(accuracy, ["v1", "v2", "v3"], ["c1", "c2"])
    # v1 is nearest to c1, but then v2 would be left alone.
    assert sorted(chosen) == [("v1", "c2"), ("v2", "c1")]
    assert pairs(accuracy, ["v3"], ["c1", "c2"]) == []


def behaviour(model, quantity, kind, value, level=1, n=5000):
    about = {"model": model, "weights": "trained", "quantity": quantity, "kind": kind}
    return about | {"level": level, "value": value, "n": n}


@pytest.fixture
def equal(tmp_path):
    """Three pairs of equal accuracy, and a ViT that has no partner."""
    names = [f"vit-d{d}-h4" for d in (2, 4, 6)], [f"resnet-d{d}" for d in (8, 14, 20)]
    levels = 0.80, 0.85, 0.90
    rows = [
        layer(name, "accuracy", level, n=10_000)
        for kind in names
        for name, level in zip(kind, levels, strict=True)
    ]
    rows.append(layer("vit-d12-h4", "accuracy", 0.6, n=10_000))
    write(tmp_path, "accuracy", rows)
    return tmp_path, *names


def test_shifts_are_compared_at_equal_accuracy_and_on_enough_images(equal):
    folder, vits, cnns = equal
    rows = [behaviour(n, "consistency", "shift", 0.5 + 0.01 * i) for i, n in enumerate(vits)]
    rows += [behaviour(n, "consistency", "shift", 0.7 + 0.01 * i) for i, n in enumerate(cnns)]
    rows.append(behaviour("vit-d12-h4", "consistency", "shift", 0.0))
    write(folder, "behaviour", rows)
    found = rows_of("ti", folder).loc[("consistency", "main")]
    assert found[["estimate", "models"]].tolist() == [pytest.approx(0.2), 3]
    others = beside(folder).set_index("variant")["estimate"]
    assert others["at any accuracy"] > 0.3
    write(folder, "behaviour", [row | {"n": 1000} for row in rows])
    assert rows_of("ti", folder).empty


def test_a_cnn_of_fewer_images_makes_a_pair_where_no_cnn_of_all_is_near(tmp_path):
    vit, cnn, fewer = "vit-d6-h4", "resnet-d20", GROUPS["matched"].names[0]
    for experiment, numbers in (
        ("accuracy", {vit: 0.92, cnn: 0.95, fewer: 0.925}),
        ("behaviour", {vit: 0.5, cnn: 0.9, fewer: 0.8}),
    ):
        rows = [
            layer(name, experiment, number, n=10_000)
            if experiment == "accuracy"
            else behaviour(name, "consistency", "shift", number)
            for name, number in numbers.items()
        ]
        write(tmp_path, experiment, rows)
    found = rows_of("ti", tmp_path).loc[("consistency", "main")]
    assert found[["estimate", "models"]].tolist() == [pytest.approx(0.3), 1]
    assert "without CNNs of fewer images" not in set(beside(tmp_path)["variant"])


def test_an_attack_is_compared_at_the_strength_that_halves_the_cnn(equal):
    folder, vits, cnns = equal
    rows = []
    for i, (vit, cnn) in enumerate(zip(vits, cnns, strict=True)):
        for level, kept in ((1, 0.9), (2, 0.55), (4, 0.1)):
            rows.append(behaviour(cnn, "kept", "pgd", kept, level))
            rows.append(behaviour(vit, "kept", "pgd", 0.0, level))
            rows.append(behaviour(cnn, "accuracy", "pgd", 0.4, level))
            value = 0.4 + 0.001 * (i - 1) + (0.0 if level == 2 else 0.3)
            rows.append(behaviour(vit, "accuracy", "pgd", value, level))
    write(folder, "attack", rows)
    found = rows_of("ba1", folder).loc[("attack", "main")]
    assert found["estimate"] == pytest.approx(0.0, abs=1e-9)
    assert -2 < found["low"] < found["high"] < 2


def test_corruptions_are_counted_with_those_that_are_open(equal):
    folder, vits, cnns = equal
    rows = []
    for kind, gaps in (
        ("noise", (0.10, 0.11, 0.12)),  # shown
        ("blur", (0.10, -0.10, 0.2)),  # open
        ("fog", (0.001, 0.002, 0.003)),  # shown to be small
        ("snow", (-0.1, -0.11, -0.12)),
        ("permutation", (0.5, 0.5, 0.5)),  # no corruption
    ):
        for vit, cnn, gap in zip(vits, cnns, gaps, strict=True):
            rows += [behaviour(vit, "kept", kind, 0.5 + gap), behaviour(cnn, "kept", kind, 0.5)]
    write(folder, "behaviour", rows)
    found = rows_of("ba2", folder).loc[("corruptions", "main")]
    assert found[["estimate", "low", "high"]].tolist() == pytest.approx([0.25, 0.25, 0.5])


def test_shape_bias_is_compared_at_equal_accuracy_and_a_single_pair_by_nothing(equal):
    folder, vits, cnns = equal
    rows = []
    for i, (vit, cnn) in enumerate(zip(vits, cnns, strict=True)):
        for name, bias in ((vit, 0.4 + 0.01 * i), (cnn, 0.2)):
            rows.append(behaviour(name, "shape_bias", "conflict", bias, n=900))
            rows.append(behaviour(name, "decided", "conflict", 0.8, n=900))
    write(folder, "cue-conflict", rows)
    found = rows_of("tu2", folder)["estimate"]
    assert found["bias", "main"] == pytest.approx(0.21)
    assert found["decided", "ViT"] == found["decided", "CNN"] == pytest.approx(0.8)
    published = [behaviour("some/vit", "shape_bias", "conflict", 0.4, n=1280)]
    published += [behaviour("some/vit", "error_consistency", "conflict", 0.1, n=1280)]
    write(folder, "cue-conflict", published, "imagenet")
    assert rows_of("tu2", folder, "imagenet").empty
    shown = beside(folder)
    shown = shown[shown["rung"] == "imagenet"]
    assert set(shown["beside"]) == {rules.ONE_PAIR}
    assert set(shown["claim"]) == {"tu1", "tu2"}


def test_an_extrapolation_has_the_interval_of_the_seeds():
    flops = 2.0 ** np.arange(6)
    law = 3 * flops**-0.3
    seeds = [[x * math.exp(0.05 * s) for s in (-1, 0, 1)] for x in law]
    found = extrapolation(flops, seeds)
    assert found.estimate == pytest.approx(0.0, abs=1e-9)
    assert found.low == 0.0 < found.high
    # By hand: the line's weights at the last of equally spaced points, and the point itself.
    x = np.arange(5.0)
    weights = 1 / 5 + (5 - x.mean()) * (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    error = 0.05 * math.sqrt(((weights**2).sum() + 1) / 3)
    assert found.high == pytest.approx(math.expm1(stats.t.ppf(0.975, 12) * error))
    broken = [*seeds[:-1], [2 * x for x in seeds[-1]]]
    assert extrapolation(flops, broken).low > 0.3
    assert extrapolation(flops, [[x] for x in law]).high == math.inf


def test_a_true_law_of_noisy_seeds_is_seldom_refuted():
    rng, flops = np.random.default_rng(0), 2.0 ** np.arange(6)
    rule, said = claims.Below(0.05), []
    for _ in range(200):
        noise = 0.1 * rng.standard_normal((6, 3))
        found = extrapolation(flops, list(flops[:, None] ** -0.3 * np.exp(noise)))
        said.append(rule.judge(found.estimate, found.low, found.high))
    assert said.count(claims.NOT_SUPPORTED) <= 10


def test_kinds_that_scatter_unlike_keep_their_own_scatter():
    a, b = [0.1, 0.5, 0.9, 0.3], [0.30, 0.31, 0.29, 0.30, 0.32, math.nan]
    found = unequal(a, b)
    known = stats.ttest_ind(a, b[:-1], equal_var=False)
    interval = known.confidence_interval()
    assert (found.low, found.high, found.p) == pytest.approx((*interval, known.pvalue))
    assert (found.n, found.undefined) == (9, 1)
    assert unequal([1.0], b).high == math.inf
    with pytest.raises(ValueError, match="no model with a value"):
        unequal([], b)


def test_a_rank_correlation_has_an_interval_that_covers():
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(300):
        x, y = rng.standard_normal((2, 20))
        found = rank_correlation(x, y)
        covered += found.low < 0 < found.high
    assert covered / 300 == pytest.approx(0.95, abs=0.03)
    assert rank_correlation(range(6), [0, -1, -2, -3, -4, -6]).estimate == -1
    with pytest.raises(ValueError, match="at least 5"):
        rank_correlation([1, 2, 3], [1, 2, 3])
