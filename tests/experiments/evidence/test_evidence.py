"""Evidence from made-up tables of which the answer is known."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.evidence import claims
from experiments.evidence.recorded import PUBLISHED
from experiments.evidence.table import CLAIMS, evidence
from experiments.evidence.trends import trends
from experiments.tasks.standalone import record
from experiments.training.groups import GROUPS
from utils.measures.sparsity import active_fraction, gini
from utils.models.architectures import Spec

SCOPES = ("2/3", "all")


def write(folder, experiment, rows, rung="objects"):
    file = folder / rung / f"{experiment}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(file, index=False)


def profiles(models, number, unit="attention", value="zero", quantities=("necessity N",)):
    return [
        {
            "model": model,
            "weights": "trained",
            "unit": unit,
            "scope": scope,
            "replaced_by": value,
            "quantity": quantity,
            "value": number(model, scope, quantity),
        }
        for model in models
        for scope in SCOPES
        for quantity in quantities
    ]


def layers(model, weights, quantity, numbers, unit="class", se=0.001):
    return [
        {
            "model": model,
            "weights": weights,
            "quantity": quantity,
            "layer": f"blocks.{i}",
            "head": 0,
            "unit": unit,
            "value": number,
            "se": se,
        }
        for i, number in enumerate(numbers)
    ]


def judged(folder, claim, rung="objects"):
    found = evidence(folder)
    verdicts = claims.verdicts(found[list(claims.EVIDENCE)])
    (verdict,) = [v for v in verdicts if (v.claim, v.rung) == (claim, rung)]
    return found[found["claim"] == claim].set_index(["criterion", "variant"]), verdict


def test_nothing_recorded_is_no_evidence_and_nothing_is_tested(tmp_path):
    assert evidence(tmp_path).empty
    assert judged(tmp_path, "hu1")[1].verdict == claims.NOT_TESTED


def test_attention_is_sparse_in_the_share_of_layers_that_pass_both_bounds(tmp_path):
    rows = layers("vit-d6-h4", "trained", "gini", [0.7, 0.7, 0.45, 0.55])
    rows += layers("vit-d6-h4", "random", "gini", [0.2, 0.65, 0.2, 0.4501])
    write(tmp_path, "sparseness", rows)
    found, verdict = judged(tmp_path, "hu1")
    # The second is too near to random weights, the third below ½; the fourth by its standard error.
    assert found.loc[("layers", "main"), "estimate"] == pytest.approx(1 / 4)
    assert verdict.verdict == claims.MIXED


def test_neurons_are_sparse_where_few_are_active_too(tmp_path):
    rows = []
    for weights, value in (("trained", 0.8), ("random", 0.6)):
        rows += layers("resnet-d8", weights, "population_gini", [value] * 4, "position")
        rows += layers("resnet-d8", weights, "active_share", [0.3, 0.3, 0.3, 0.6], "position")
        rows += layers("resnet-d8", weights, "dead_share", [0.0] * 4, "position")
    write(tmp_path, "sparseness", rows)
    found, verdict = judged(tmp_path, "hu8")
    assert found.loc[("layers", "main"), "estimate"] == pytest.approx(3 / 4)
    assert verdict.verdict == claims.SUPPORTED


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
            rows += layers("resnet-d8", weights, quantity, numbers, "position")
    write(tmp_path, "sparseness", rows)
    counted = [row["value"] for row in rows if row["quantity"] == "population_gini"]
    assert counted[1] - counted[3] < 0 < 0.05 < counted[0] - counted[2]
    found, _ = judged(tmp_path, "hu8")
    assert found.loc[("layers", "main"), "estimate"] == 1


def test_a_slope_that_every_variant_shares_is_supported_at_equal_epochs_and_equal_loss(tmp_path):
    models = GROUPS["depth"].members()
    both = ("necessity N", "sufficiency K")

    def rising(model, scope, quantity):
        depth = int(model.split("-d")[1].split("-")[0])
        return 0.05 * math.log2(depth) + 0.001 * (hash_of(model) % 3)

    for experiment in ("ablation-depth", "ablation-depth-loss-0.5"):
        write(tmp_path, experiment, profiles(models, rising, quantities=both))
    found, verdict = judged(tmp_path, "hu4")
    assert len(found) == 8
    assert found["estimate"].tolist() == pytest.approx([0.05] * 8, abs=0.002)
    assert verdict.verdict == claims.SUPPORTED


def hash_of(text):
    return sum(map(ord, text))


def test_only_the_loss_that_all_models_reached_counts_as_equal(tmp_path):
    models = GROUPS["depth"].members()
    write(tmp_path, "ablation-depth", profiles(models, lambda *_: 0.1))
    write(tmp_path, "ablation-depth-loss-0.5", profiles(models[:6], lambda *_: 0.2))
    write(tmp_path, "ablation-depth-loss-0.8", profiles(models, lambda *_: 0.3))
    found, _ = judged(tmp_path, "hu4")
    at_equal_loss = found.xs("N, all layers, equal loss", level="variant").iloc[0]
    assert at_equal_loss["models"] == len(models)


def test_strong_units_that_matter_by_their_mass_alone_make_a_mixed_verdict(tmp_path):
    models = GROUPS["heads"].members()
    number = {"necessity N": 0.3, "place index": -0.05}

    def noisy(model, scope, quantity):
        return number[quantity] + 0.001 * (hash_of(model) % 5)

    rows = profiles(models, noisy, quantities=tuple(number))
    rows += profiles(models, noisy, value="renormalise")
    write(tmp_path, "ablation-heads", rows)
    found, verdict = judged(tmp_path, "hu3")
    assert found.loc[("necessity", "zero"), "estimate"] == pytest.approx(0.3, abs=0.005)
    assert (verdict.verdict, verdict.because) == (claims.MIXED, "explained by mass")


def test_the_gap_between_cnn_and_vit_falls_with_data_by_its_slope(tmp_path):
    rows = []
    for i, share in enumerate(("-n3", "-n10", "-n30", "")):
        for model, accuracy in (("resnet-d20", 0.9), ("vit-d6-h4", 0.4 + 0.1 * i)):
            rows.append(
                {
                    "model": model + share,
                    "weights": "trained",
                    "quantity": "accuracy",
                    "layer": None,
                    "head": None,
                    "unit": None,
                    "value": accuracy,
                    "se": 0.001,
                }
            )
    write(tmp_path, "accuracy", rows)
    found, verdict = judged(tmp_path, "hu10")
    # Data grow by about √10 a step, log₂ √10 doublings, and the gap falls by ten points.
    assert found.loc[("gap", "main"), "estimate"] == pytest.approx(-10 / math.log2(10**0.5), 0.02)
    assert verdict.verdict == claims.SUPPORTED


def test_a_trend_with_a_design_unrecorded_is_not_tested(tmp_path):
    decoupled = GROUPS["decoupled"].members()
    assert len(decoupled) == 16
    heads = {name: Spec.parse(name).heads for name in decoupled}

    def judge(models):
        rows = profiles(
            models,
            lambda model, scope, quantity: 1 - 0.1 * math.log2(heads[model]),
            quantities=("necessity N", "sufficiency K"),
        )
        write(tmp_path, "ablation-heads", rows)
        return judged(tmp_path, "hu6")[0]

    for models, judgeable in ((decoupled, True), (decoupled[1:], False)):
        found = judge(models)
        assert (("decoupled", "N, all layers, all") in found.index) is judgeable
    assert judge(decoupled).loc[("decoupled", "N, all layers, all"), "models"] == 16


def test_an_effect_of_head_dimension_does_not_lean_on_unevenly_seeded_heads(tmp_path):
    more = [f"vit-d6-h{heads}-s{seed}" for heads in (2, 4, 8) for seed in (1, 2)]  # as they shrink
    models = [*GROUPS["decoupled"].members(), *more]
    size = {name: Spec.parse(name).head_dim for name in models}
    rows = profiles(models, lambda model, *_: 0.1 * math.log2(size[model]))
    write(tmp_path, "ablation-heads-all", rows)
    found = trends("objects", out=tmp_path)
    found = found[(found["group"] == "decoupled") & (found["range"] == "all")]
    assert (found["models"] == len(models)).all()
    assert len(found)
    np.testing.assert_allclose(found["slope"], 0, atol=1e-9)


def test_claims_about_attention_are_judged_by_attention_alone(tmp_path):
    models = GROUPS["heads"].members()
    write(tmp_path, "ablation-heads-all", profiles(models, lambda *_: 0.4))
    alone = evidence(tmp_path)
    of_units = profiles(models, lambda *_: 0.9, unit="unit")
    write(tmp_path, "ablation-mlp-all", of_units)
    pd.testing.assert_frame_equal(evidence(tmp_path), alone)
    assert len(alone)


def test_one_model_ablated_by_another_unit_makes_no_line_of_its_family(tmp_path):
    write(tmp_path, "ablation-depth", profiles(GROUPS["depth"].members(), lambda *_: 0.4))
    write(tmp_path, "ablation-mlp", profiles(["vit-d6-h4"], lambda *_: 0.4, unit="unit"))
    found = trends("objects", out=tmp_path)
    missing = found[found["group"] == "depth"].groupby("unit")["missing"].unique()
    assert missing["attention"] == [0]
    assert missing["unit"] == [4]


VIT = ("vit-d6-h4", "vit-d6-h4-s1", "vit-d6-h4-s2")
CNN = ("resnet-d20", "resnet-d20-s1", "resnet-d20-s2")


def of_both(quantity, vit, cnn, **place):
    """A value for each seed, a little apart, of both kinds."""
    return [
        {
            "model": name,
            "weights": "trained",
            "quantity": quantity,
            "value": value + 0.002 * i,
            "se": 0.001,
            "layer": None,
            "other": None,
            "depth": 1.0,
            "unit": None,
            "kind": None,
            "level": None,
            **place,
        }
        for names, value in ((VIT, vit), (CNN, cnn))
        for i, name in enumerate(names)
    ]


def similarity(names, off_diagonal, weights):
    blocks = [f"b{i}" for i in range(4)]
    return [
        {
            "model": name,
            "weights": weights,
            "quantity": "cka",
            "layer": one,
            "other": other,
            "unit": None,
            "depth": (i + 1) / 4,
            "value": 1.0 if one == other else off_diagonal + 0.001 * seed,
        }
        for seed, name in enumerate(names)
        for i, one in enumerate(blocks)
        for other in blocks
    ]


def test_uniform_layers_must_be_learned(tmp_path):
    rows = similarity(VIT, 0.8, "trained") + similarity(CNN, 0.6, "trained")
    write(tmp_path, "similarity", rows + similarity((*VIT, *CNN), 0.5, "random"))
    found, verdict = judged(tmp_path, "ra1")
    assert found["estimate"].tolist() == pytest.approx([0.2, 0.2], abs=0.01)
    assert verdict.verdict == claims.SUPPORTED
    # As large a difference without training is one of architecture.
    rows += similarity(VIT, 0.7, "random") + similarity(CNN, 0.5, "random")
    write(tmp_path, "similarity", rows)
    assert judged(tmp_path, "ra1")[1].verdict != claims.SUPPORTED


def test_a_difference_of_single_seeds_has_no_bounds_and_is_undecided(tmp_path):
    rows = of_both("consistency", 0.7, 0.9, kind="shift", level=1)
    write(tmp_path, "behaviour", [row for row in rows if "-s" not in row["model"]])
    found, verdict = judged(tmp_path, "ti")
    assert found.loc[("consistency", "main"), "estimate"] == pytest.approx(0.2)
    assert verdict.verdict == claims.UNDECIDED


def of_published(quantity, vit, cnn, **place):
    names = dict.fromkeys(PUBLISHED["vit-d6-h4"], vit) | dict.fromkeys(PUBLISHED["resnet-d20"], cnn)
    own = {"weights": "trained", "quantity": quantity, "level": None, **place}
    return [
        {"model": name, "value": value + 0.002 * i, **own}
        for i, (name, value) in enumerate(names.items())
    ]


def test_on_imagenet_published_models_of_plain_recipes_stand_for_their_kinds(tmp_path):
    assert [name.split(".")[1] for name in sum(PUBLISHED.values(), ())] == [
        *("fb_in1k", "fb_in1k", "a1_in1k", "a1_in1k")
    ]
    write(tmp_path, "behaviour", of_published("consistency", 0.7, 0.9, kind="shift"), "imagenet")
    found, verdict = judged(tmp_path, "ti", "imagenet")
    assert found.loc[("consistency", "main"), "estimate"] == pytest.approx(0.2, abs=0.01)
    assert (found["models"] == 4).all()
    assert verdict.verdict == claims.SUPPORTED


def test_tokens_of_published_models_have_sixteen_pixels(tmp_path):
    rows = [
        row
        for block in (32, 16, 8)
        for row in of_published(
            "kept_above_chance", 0.8 if block < 16 else 0.6, 0.5, kind="permutation", level=block
        )
    ]
    write(tmp_path, "behaviour", rows, "imagenet")
    found, _ = judged(tmp_path, "pe", "imagenet")
    gaps = found.xs("with position embedding", level="variant")["estimate"]
    assert gaps["smaller tokens"] == pytest.approx(0.3, abs=0.01)
    assert gaps["not smaller tokens"] == pytest.approx(0.1, abs=0.01)


def test_errors_like_those_of_people_are_judged_over_images_and_people(tmp_path):
    def table(se):
        asked = of_published("error_consistency", 0.25, 0.2, kind="conflict", se=se)
        people = of_published("error_consistency", 0.33, 0.33, kind="people", se=None)
        return asked + people

    write(tmp_path, "cue-conflict", table(0.01), "imagenet")
    found, verdict = judged(tmp_path, "tu1", "imagenet")
    gap = found.loc[("consistency", "main")]
    assert gap["estimate"] == pytest.approx(0.05 - 0.004)
    assert gap["high"] - gap["estimate"] == pytest.approx(1.96 * 0.01 * math.sqrt(2))
    assert (gap["models"], verdict.verdict) == (4, claims.SUPPORTED)
    write(tmp_path, "cue-conflict", table(0.03), "imagenet")
    assert judged(tmp_path, "tu1", "imagenet")[1].verdict == claims.UNDECIDED
    cnns = [row for row in table(0.01) if row["model"].startswith("resnet")]
    write(tmp_path, "cue-conflict", cnns, "imagenet")
    assert judged(tmp_path, "tu1", "imagenet")[1].verdict == claims.NOT_TESTED


def test_three_seeds_decide_which_kind_keeps_its_decisions(tmp_path):
    write(tmp_path, "behaviour", of_both("consistency", 0.7, 0.9, kind="shift", level=1))
    assert judged(tmp_path, "ti")[1].verdict == claims.SUPPORTED


def test_an_advantage_under_most_corruptions_is_one_out_of_distribution(tmp_path):
    rows = [
        row
        for kind, gain in (("noise", 0.1), ("blur", 0.1), ("fog", 0.1), ("contrast", -0.1))
        for row in of_both("kept", 0.6 + gain, 0.6, kind=kind, level=1)
    ]
    write(tmp_path, "behaviour", rows)
    found, verdict = judged(tmp_path, "ba2")
    assert found.loc[("corruptions", "main"), "estimate"] == pytest.approx(3 / 4)
    assert verdict.verdict == claims.SUPPORTED


def test_attacks_are_compared_at_equal_accuracy_only(tmp_path):
    def table(vit, cnn):
        rows = of_both("accuracy", vit, cnn, kind="clean")
        for level, kept in ((1.0, 0.5), (2.0, 0.1)):
            rows += of_both("kept", kept, kept, kind="pgd", level=level)
            rows += of_both("accuracy", vit * kept, cnn * kept, kind="pgd", level=level)
        return rows

    write(tmp_path, "attack", table(0.8, 0.9))
    assert judged(tmp_path, "ba1")[1].verdict == claims.NOT_TESTED
    write(tmp_path, "attack", table(0.85, 0.85))
    found, verdict = judged(tmp_path, "ba1")
    assert abs(found.loc[("attack", "main"), "estimate"]) < 0.5
    assert verdict.verdict == claims.SUPPORTED


def test_filters_are_judged_by_the_share_of_sub_blocks_beyond_their_error(tmp_path):
    rows = of_both("frequency", -0.5, -0.5, layer="attn", unit="attention")
    rows += of_both("frequency", 0.5, 0.0001, layer="conv", unit="convolution")
    write(tmp_path, "representation", rows)
    found, verdict = judged(tmp_path, "pk")
    assert found.loc[("attention", "main"), "estimate"] == 1
    # Three models of six are surely positive, and two more by their seeds' offsets.
    assert found.loc[("convolution", "main"), "estimate"] == pytest.approx(5 / 6)
    assert verdict.verdict == claims.SUPPORTED


def test_attention_with_nine_heads_is_found_to_be_a_convolution(tmp_path):
    record("convolution", tmp_path / "convolution.csv")
    found, verdict = judged(tmp_path, "co", "exact")
    assert verdict.verdict == claims.SUPPORTED
    # The nearest other shift is one pixel away: the error falls as exp(−α).
    table = pd.read_csv(tmp_path / "convolution.csv").query("heads == 9 and place == 'interior'")
    last, sharpest = table["value"].iloc[-2:]
    assert np.log(last / sharpest) == pytest.approx(8, abs=0.01)
    assert found.loc[("error", "border"), "estimate"] == pytest.approx(sharpest, rel=0.1)


def test_every_row_belongs_to_a_criterion_that_was_declared_beforehand():
    untested = {claim.id for claim in claims.CLAIMS if not claim.criteria}
    assert set(CLAIMS) == set(claims.BY_ID) - untested
