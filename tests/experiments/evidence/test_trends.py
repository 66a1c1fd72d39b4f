"""Trends of made-up tables of which the slopes are known."""

import math

import numpy as np
import pytest
from helpers.tables import layer, profile, write

from experiments.evidence import trends
from experiments.training.groups import GROUPS
from utils.models.architectures import Spec


def test_an_effect_of_head_dimension_does_not_lean_on_unevenly_seeded_heads(tmp_path):
    more = [f"vit-d6-h{heads}-s{seed}" for heads in (2, 4, 8) for seed in (3, 4)]  # as they shrink
    models = [*GROUPS["decoupled"].members(), *more]
    rows = [
        profile(name, "necessity N", 0.1 * math.log2(Spec.parse(name).head_dim)) for name in models
    ]
    write(tmp_path, "ablation-heads-all", rows)
    found = trends.trends("objects", out=tmp_path)
    found = found[(found["group"] == "decoupled") & (found["range"] == "all")]
    assert (found["models"] == len(models)).all()
    assert len(found)
    np.testing.assert_allclose(found["slope"], 0, atol=1e-9)


def test_one_model_ablated_by_another_unit_makes_no_line_of_its_family(tmp_path):
    names = GROUPS["depth"].members()
    write(tmp_path, "ablation-depth", [profile(n, "necessity N", 0.4, scope="last") for n in names])
    write(tmp_path, "ablation-cnn", [profile("vit-d6-h4", "necessity N", 0.4, "unit", "last")])
    found = trends.trends("objects", out=tmp_path)
    missing = found[found["group"] == "depth"].groupby("unit")["missing"].unique()
    assert missing["attention"] == [0]
    assert missing["unit"] == [4]


def test_a_model_of_two_groups_is_one_point(tmp_path):
    names = GROUPS["depth"].members()
    for experiment in ("ablation-heads-all", "ablation-depth-all"):  # both have vit-d6-h4
        write(tmp_path, experiment, [profile(name, "necessity N", 0.4) for name in names])
    found = trends.trends("objects", out=tmp_path).set_index("group")
    assert found.loc["depth", "models"] == len(names)


def test_only_what_is_asked_is_fitted_and_it_is_fitted_as_before(tmp_path):
    rows = [
        profile(name, quantity, value + 0.01 * i, scope=scope)
        for i, name in enumerate(GROUPS["heads"].members())
        for quantity, value in (("necessity N", 0.5), ("I_rem", 0.2), ("I_keep", -0.1))
        for scope in ("all", "last")
    ]
    write(tmp_path, "ablation-heads-all", rows)
    write(tmp_path, "sparseness", [layer(n, "gini", 0.7) for n in GROUPS["heads"].members()])
    values = trends.values("objects", out=tmp_path)
    everything = trends.slopes(values, "objects", trends.SWEEPS)
    asked = trends.slopes(values, "objects", trends.SWEEPS, measure=("N", "I_rem"), scope=("all",))
    wanted = everything["measure"].isin(("N", "I_rem")) & (everything["scope"] == "all")
    assert 0 < len(asked) < len(everything)
    assert asked.equals(everything[wanted].reset_index(drop=True))


def test_a_scope_of_layers_is_the_mean_over_heads_and_then_over_its_layers(tmp_path):
    rows = [
        layer("vit-d2-h4", "gini", 0.1 * place + 0.2 * head, place=place, head=head)
        for place in range(2)
        for head in range(4)
    ]
    rows.append(layer("vit-d2-h4", "overlap", math.nan))
    write(tmp_path, "sparseness", rows)
    found = trends.values("objects", out=tmp_path).set_index(["measure", "scope"])["value"]
    assert found["Gini, per head", "all"] == pytest.approx(0.3 + 0.05)
    assert found["Gini, per head", "last"] == pytest.approx(0.3 + 0.1)
    assert math.isnan(found["placement overlap O", "all"])
