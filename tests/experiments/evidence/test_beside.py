"""What stands next to the evidence and is not judged: other settings, networks and orders."""

import math

import pandas as pd
import pytest
from helpers.tables import accuracy, behaviour, jitter, profile, write

from experiments.engine.results import file_of
from experiments.evidence import claims
from experiments.evidence.beside import beside
from experiments.training.groups import GROUPS
from utils.models.architectures import Spec

N, LOST = "necessity N, probability", "effect, top kept at 1%, probability"


def shown(folder, claim):
    found = beside(folder)
    return found[found["claim"] == claim].set_index(["criterion", "variant"])


def deeper(slope, least=0, quantity=N, **setting):
    """ViTs of the depth sweep whose number grows so much a doubling, from a depth on."""
    for name in GROUPS["depth"].members():
        size = math.log2(max(Spec.parse(name).depth, least or 1))
        value = 0.3 + slope * size + 0.002 * jitter(name)
        yield profile(name, quantity, value, **setting)


def test_nothing_recorded_has_nothing_beside_it(tmp_path):
    assert beside(tmp_path).empty


def test_another_setting_agrees_where_the_rule_would_say_the_same_of_it(tmp_path):
    rows = [*deeper(0.1), *deeper(-0.1, by="zero"), *deeper(0.1, by="mean")]
    rows += deeper(0.1, quantity="necessity N")
    write(tmp_path, "ablation-depth-all", rows)
    write(tmp_path, "ablation-depth", list(deeper(0.0, scope="last")))
    said = shown(tmp_path, "hu4")["beside"].xs("N").to_dict()
    assert said == {
        "last block": "differs",
        "zero": "differs",
        "mean": "agrees",
        "in KL": "agrees",
        "without the smallest": "agrees",
    }


def test_without_its_primary_setting_another_neither_agrees_nor_differs(tmp_path):
    write(tmp_path, "ablation-depth-all", list(deeper(0.1, by="zero")))
    assert shown(tmp_path, "hu4")["beside"].isna().all()


def test_without_the_smallest_a_slope_is_of_all_other_designs(tmp_path):
    write(tmp_path, "ablation-depth-all", list(deeper(0.1, least=4)))
    found = shown(tmp_path, "hu4").loc[("N", "without the smallest")]
    assert found["models"] == sum("-d2-" not in name for name in GROUPS["depth"].members())
    assert found["estimate"] == pytest.approx(0.1, abs=0.005)


def test_an_order_of_attention_is_shown_next_to_each_heads_own(tmp_path):
    write(tmp_path, "ablation-depth-all", [*deeper(0.1), *deeper(0.1, quantity=LOST)])
    rows = [r for each in ("head-averaged", "centre") for r in deeper(0.2, ordered_by=each)]
    write(tmp_path, "ablation-orders", rows)
    found = shown(tmp_path, "hu4").xs("N")
    assert found.loc["head-averaged order", "estimate"] == pytest.approx(0.2, abs=0.005)
    assert "centre order" not in found.index  # which depth is not asked of


def test_equal_loss_is_the_lowest_that_all_networks_of_a_sweep_reached(tmp_path):
    both = (N, "necessity N")  # by which it is known who is ablated
    write(tmp_path, "ablation-depth-all", [r for q in both for r in deeper(0.1, quantity=q)])
    few = GROUPS["depth"].members()[:6]
    for loss, slope, names in ((0.6, 0.2, few), (0.9, 0.3, GROUPS["depth"].members())):
        file = file_of("ablation-depth-all", "objects", loss, tmp_path)
        rows = [r for q in both for r in deeper(slope, quantity=q) if r["model"] in names]
        pd.DataFrame(rows).to_csv(file, index=False)
    found = shown(tmp_path, "hu4").loc[("N", "equal loss")]
    assert found["estimate"] == pytest.approx(0.3, abs=0.005)
    assert found["models"] == len(GROUPS["depth"].members())


def test_necessity_is_shown_by_other_values_orders_and_the_same_disc_for_all(tmp_path):
    rows = []
    for i, name in enumerate(("vit-d6-h1", "vit-d6-h2", "vit-d6-h8")):
        rows.append(profile(name, N, 0.3 + 0.01 * i))
        rows.append(profile(name, N, -0.3 - 0.01 * i, by="zero"))
        rows.append(profile(name, N, 0.7, ordered_by="centre"))
        rows.append(profile(name, "necessity N, centre", 0.1))
        rows.append(profile(name, "damage, permuted − removed, KL", 0.2 + 0.01 * i))
        rows.append(profile(name, "damage, uniform − removed, KL", 0.4))
    write(tmp_path, "ablation-heads-all", rows)
    found = shown(tmp_path, "hu3")
    assert found["estimate"].to_dict() == pytest.approx(
        {
            ("necessity", "zero"): -0.31,
            ("necessity", "the same central disc for all images"): 0.1,
            ("place", "the same mass spread evenly"): 0.4,
            ("necessity", "centre order"): 0.7,
        }
    )
    assert found["beside"].tolist() == ["differs", "agrees", "agrees", "agrees"]


def test_more_heads_are_also_shown_at_a_fixed_width_and_from_four_heads_on(tmp_path):
    rows = []
    for name in {n for group in ("decoupled", "heads", "width") for n in GROUPS[group].members()}:
        spec = Spec.parse(name)
        heads, size, width = map(math.log2, (spec.heads, spec.head_dim, spec.width / 64))
        n = 0.9 - 0.1 * heads - 0.3 * size - 0.2 * width + 0.002 * jitter(name)
        rows.append(profile(name, N, n))
    write(tmp_path, "ablation-heads-all", rows)
    found = shown(tmp_path, "hu6").xs("N")
    assert found["estimate"].to_dict() == pytest.approx(
        {
            "h ≥ 4": -0.1,
            "without the smallest": -0.1,
            "fixed width": 0.2,
            "fixed head dimension": -0.3,
        },
        abs=0.01,
    )
    assert found["beside"].tolist() == ["agrees", "agrees", "differs", "agrees"]
    grid = GROUPS["decoupled"].members()
    assert found.loc["h ≥ 4", "models"] == sum(Spec.parse(n).heads >= 4 for n in grid)


def test_cnns_are_shown_layer_by_layer_and_by_other_units(tmp_path):
    rows = []
    for name in GROUPS["cnn-depth"].members():
        size = math.log2(Spec.parse(name).depth)
        for scope, slope in (("1/3", 0.0), ("2/3", 0.1), ("last", 0.2)):
            for unit in ("group", "position"):
                n = slope * size + 0.002 * jitter(name)
                rows.append(profile(name, N, n, unit, scope, "mean"))
    write(tmp_path, "ablation-cnn", rows)
    found = shown(tmp_path, "hu5").xs("N")["estimate"]
    assert found.to_dict() == pytest.approx(
        {
            "layer at 1/3": 0.0,
            "layer at 2/3": 0.1,
            "layer at last": 0.2,
            "unit position": 0.1,
            "without the smallest": 0.1,
        },
        abs=0.005,
    )


def test_shifts_are_also_shown_at_any_accuracy_and_without_cnns_of_fewer_images(tmp_path):
    (fewer,) = GROUPS["matched"].names
    values = {"vit-d2-h4": (0.90, 0.5), "vit-d6-h4": (0.93, 0.6), "resnet-d8": (0.90, 0.8)}
    values |= {fewer: (0.93, 0.7), "resnet-d20": (0.95, 0.9)}
    write(tmp_path, "accuracy", [accuracy(name, clean) for name, (clean, _) in values.items()])
    rows = [behaviour(name, "consistency", "shift", kept) for name, (_, kept) in values.items()]
    write(tmp_path, "behaviour", rows)
    found = shown(tmp_path, "ti").xs("consistency")
    assert found["estimate"].to_dict() == pytest.approx(
        {"without CNNs of fewer images": 0.3, "at any accuracy": 0.85 - 0.55}
    )
    assert found["models"].tolist() == [1, 4]


def test_the_published_pair_is_shown_model_by_model_without_a_difference(tmp_path):
    rows = [
        behaviour(name, quantity, kind, value, n=1280)
        for name, value in (("some/vit", 0.4), ("some/cnn", 0.3), ("people", 0.9))
        for kind in (["people"] if name == "people" else ["conflict"])
        for quantity in ("shape_bias", "decided", "error_consistency")
    ]
    write(tmp_path, "cue-conflict", rows, "imagenet")
    found = beside(tmp_path)
    assert set(found["beside"]) == {claims.ONE_PAIR}
    assert set(zip(found["claim"], found["criterion"], strict=True)) == {
        ("tu1", "consistency"),
        ("tu2", "bias"),
        ("tu2", "decided"),
    }
    assert found.groupby("variant")["estimate"].unique().map(list).to_dict() == {
        "some/vit": [0.4],
        "some/cnn": [0.3],
    }
