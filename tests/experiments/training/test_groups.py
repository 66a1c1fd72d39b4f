"""The groups: sweeps that vary one thing, and what of them is still to be trained."""

import pytest

from experiments.training import groups
from utils.models import zoo
from utils.models.architectures import Spec, build, forward_flops


def test_every_member_can_be_built_and_is_named_in_its_short_form():
    for group in groups.GROUPS.values():
        for name in group.members():
            assert Spec.parse(name).short == name


@pytest.mark.parametrize(
    ("group", "varied"),
    [("heads", {"heads", "head_dim"}), ("depth", {"depth"}), ("cnn-depth", {"depth"})],
)
def test_a_sweep_varies_one_thing_and_the_seed(group, varied):
    specs = [vars(Spec.parse(name)) for name in groups.GROUPS[group].members()]
    differing = {key for key in specs[0] if len({spec[key] for spec in specs}) > 1}
    assert differing == varied | {"seed"}


def test_decoupled_models_have_every_head_count_with_every_head_dimension():
    specs = [Spec.parse(name) for name in groups.GROUPS["decoupled"].members()]
    assert {(s.heads, s.head_dim) for s in specs} == {
        (heads, dim) for heads in (1, 2, 4, 8, 16) for dim in (4, 8, 16, 32)
    }
    assert {s.width for s in specs} == {64}


@pytest.mark.parametrize("budget", groups.BUDGETS)
def test_at_each_budget_parameters_and_operations_agree_within_5_percent(budget):
    models = [build(Spec.parse(name)) for name in budget]
    parameters = [sum(p.numel() for p in model.parameters()) for model in models]
    operations = [forward_flops(model) for model in models]
    assert max(parameters) <= 1.05 * min(parameters)
    assert max(operations) <= 1.05 * min(operations)


def test_stages_come_in_turn_and_in_each_all_groups_seed_by_seed(monkeypatch):
    monkeypatch.setattr(zoo, "manifest", dict)
    names, begun = groups.missing(), set()
    assert len(names) == len(set(names))
    others = tuple(name for name in groups.GROUPS if name not in sum(groups.STAGES, ()))
    for stage in (*groups.STAGES, others):
        new = {name for key in stage for name in groups.GROUPS[key].members()} - begun
        part, names = names[: len(new)], names[len(new) :]
        assert set(part) == new
        seeds = [Spec.parse(name).seed for name in part]
        assert seeds == sorted(seeds)
        begun |= new
    assert names == []


def test_every_model_is_in_the_zoo_that_the_floor_or_a_chapter_needs():
    kept = {n for name in (*groups.FLOOR, "live") for n in groups.GROUPS[name].members()}
    assert all(map(groups.keeps, kept))
    assert groups.keeps("vit-d6-h4-w80")  # of no group
    assert not groups.keeps("vit-d6-h2-k4")


def test_what_the_zoo_holds_is_not_missing(monkeypatch):
    monkeypatch.setattr(zoo, "manifest", lambda: {"vit-d6-h2": {}})
    assert "vit-d6-h2" not in groups.missing(["heads"])
    assert "vit-d6-h2-s1" in groups.missing(["heads"])
    assert "heads" in groups.status()
    assert " 1 of  15" in groups.status()


def test_status_says_how_long_the_rest_will_take_at_the_pace_so_far(monkeypatch):
    flops = forward_flops(build(Spec.parse("vit-d6-h2")))
    timed = {"seconds": 7200, "training_flops": 3 * flops * 200_000}
    everything = {name: {} for f in groups.GROUPS.values() for name in f.members()}
    monkeypatch.setattr(zoo, "manifest", lambda: everything | {"vit-d6-h2": timed})
    assert "hours" not in groups.status()
    del everything["vit-d6-h2-s1"], everything["vit-d6-h2-s2"]
    assert "2 models are missing: about 4 hours of one device" in groups.status()


def test_an_unknown_group_names_those_there_are():
    with pytest.raises(ValueError, match="no group 'head'; there are pair, live, heads, depth"):
        groups.missing(["head"])
