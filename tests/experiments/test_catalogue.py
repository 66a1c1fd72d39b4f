"""What the experiments ask is what the claims are judged from."""

import pytest

from experiments import catalogue
from experiments.catalogue import EXPERIMENTS
from experiments.evidence import claims
from experiments.evidence.recorded import BLOCKS, VIT
from experiments.evidence.sparsity import ATTENTION, IN_GROUPS
from experiments.evidence.table import CLAIMS
from experiments.training.groups import GROUPS


def by_their_own(name):
    """The settings of an ablation by which units are ordered by what they do themselves."""
    asked = [dict(setting) for setting in EXPERIMENTS[name].settings]
    return [s for s in asked if s.pop("ordered_by", "own") == "own"]


@pytest.mark.parametrize("name", ["ablation-heads-all", "ablation-depth-all"])
def test_attention_is_ablated_by_the_setting_that_decides_before_all_others(name):
    assert by_their_own(name)[0] == ATTENTION


def test_cnns_are_ablated_by_the_setting_that_decides_in_each_of_the_layers():
    asked = [s for s in by_their_own("ablation-cnn") if IN_GROUPS.items() <= s.items()]
    assert [s["scope"] for s in asked] == list(BLOCKS)


def test_nothing_is_asked_twice():
    for experiment in EXPERIMENTS.values():
        if not isinstance(experiment.settings, dict):
            settings = [tuple(setting.items()) for setting in experiment.settings]
            assert len(settings) == len(set(settings)), experiment.asks
        assert len(experiment.pairs) == len(set(experiment.pairs))


def test_there_are_as_many_twins_and_images_as_the_rules_ask_for():
    assert catalogue.TWINS == claims.TWINS
    assert catalogue.ENOUGH == claims.IMAGES
    alone = EXPERIMENTS["similarity"].twins([f"{VIT}-s1"])
    assert sorted(alone) == [VIT, *(f"{VIT}-s{i}" for i in range(1, claims.TWINS))]
    for name in ("behaviour", "attack", "accuracy"):
        assert EXPERIMENTS[name].n >= claims.IMAGES


def test_each_seed_of_a_tenth_of_the_data_has_both_others_of_all_of_it():
    tenths = [pair for pair in EXPERIMENTS["pairs"].pairs if pair[0].startswith(f"{VIT}-n10")]
    seeds = ("", "-s1", "-s2")
    expected = {
        (f"{VIT}-n10{one}", VIT + other) for one in seeds for other in seeds if one != other
    }
    assert set(tenths) == expected


@pytest.mark.parametrize("claim", [claim.id for claim in claims.CLAIMS if claim.criteria])
def test_networks_of_each_group_that_a_claim_is_judged_from_are_asked(claim):
    asked = [EXPERIMENTS[name] for name in CLAIMS[claim].experiments if name in EXPERIMENTS]
    models = {model for each in asked for model in each.models("objects")}
    for group in CLAIMS[claim].groups:
        assert models & set(GROUPS[group].members()), group
