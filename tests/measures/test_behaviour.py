"""Decisions counted by hand, κ and its bounds in closed form, attacks on models with a solution."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap
from timm.data import ImageNetInfo
from torch import nn
from torch.nn import functional as F
from torchmetrics.functional import cohen_kappa

from utils.measures.behaviour import (
    CATEGORIES,
    PUBLISHED_TRIALS,
    categories_of,
    consistency_with_people,
    decisions,
    error_consistency,
    pgd,
    retained_accuracy,
    shape_bias,
    shift_consistency,
)
from utils.models import zoo
from utils.stimuli import datasets, psychophysics


def rights(*counts: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two observers: both right, only the first, only the second, neither, each that many times."""
    a = torch.tensor([1, 1, 0, 0]).repeat_interleave(torch.tensor(counts))
    b = torch.tensor([1, 0, 1, 0]).repeat_interleave(torch.tensor(counts))
    return a.bool(), b.bool()


def test_shape_bias_counts_the_trials_that_name_either_cue():
    shape, texture = torch.tensor([0, 0, 0, 0, 0, 1]), torch.tensor([1, 1, 1, 1, 1, 1])
    found = shape_bias(torch.tensor([0, 0, 0, 1, 7, 1]), shape, texture)  # the last: no conflict
    assert found.bias == 3 / 4
    assert found.decided == 4 / 5
    assert found.trials == 5
    # Wilson's interval, from its formula
    z, p, n = 1.959964, 3 / 4, 4
    middle, half = p + z**2 / (2 * n), z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert found.low == pytest.approx((middle - half) / (1 + z**2 / n), abs=1e-5)
    assert found.high == pytest.approx((middle + half) / (1 + z**2 / n), abs=1e-5)


def test_without_a_decided_trial_there_is_no_shape_bias():
    found = shape_bias(torch.tensor([5, 6]), torch.tensor([0, 0]), torch.tensor([1, 1]))
    assert math.isnan(found.bias)
    assert found.decided == 0


def test_shape_bias_needs_conflict():
    same = torch.tensor([1, 2])
    with pytest.raises(ValueError, match="agree in all trials"):
        shape_bias(same, same, same)


def test_equal_errors_have_a_kappa_of_one():
    assert error_consistency(*rights(6, 0, 0, 4)).kappa == pytest.approx(1)


def test_independent_errors_have_a_kappa_of_zero():
    assert error_consistency(*rights(42, 18, 28, 12)).kappa == pytest.approx(0)  # .6 and .7


def test_kappa_is_cohens_kappa_of_being_right():
    a, b = rights(30, 10, 5, 15)
    chance = (40 * 35 + 20 * 25) / 60**2
    assert error_consistency(a, b).kappa == pytest.approx((45 / 60 - chance) / (1 - chance))
    library = cohen_kappa(a.long(), b.long(), task="binary").item()
    assert error_consistency(a, b).kappa == pytest.approx(library, abs=1e-6)


@pytest.mark.parametrize(("p", "q"), [(0.9, 0.6), (0.3, 0.5), (0.5, 0.5), (0.8, 0.8)])
def test_the_bounds_of_kappa_are_reached(p, q):
    n = 100
    a, b = round(p * n), round(q * n)
    most = error_consistency(*rights(min(a, b), max(a - b, 0), max(b - a, 0), n - max(a, b)))
    shared = max(a + b - n, 0)
    least = error_consistency(*rights(shared, a - shared, b - shared, n - a - b + shared))
    assert most.kappa == pytest.approx(most.highest)
    assert least.kappa == pytest.approx(least.lowest)


@pytest.mark.parametrize("p", [0.1, 0.4, 0.6, 0.95])
@pytest.mark.parametrize("q", [0.2, 0.5, 0.8])
def test_the_bounds_lie_within_those_that_know_only_the_expected_agreement(p, q):
    # Geirhos et al. 2020: the observed agreement that an expected one allows, whatever p and q
    n = 100
    a, b = torch.arange(n) < round(p * n), torch.arange(n) < round(q * n)
    found = error_consistency(a, b)
    c = found.expected
    least, most = (0, 1 - math.sqrt(1 - 2 * c)) if c < 0.5 else (math.sqrt(max(2 * c - 1, 0)), 1)
    assert found.lowest >= (least - c) / (1 - c) - 1e-9
    assert found.highest <= (most - c) / (1 - c) + 1e-9


def test_consistency_with_people_is_the_mean_over_them_with_an_interval_over_trials():
    rng = torch.Generator().manual_seed(0)
    a = torch.rand(400, generator=rng) < 0.7
    b = torch.where(torch.rand(400, generator=rng) < 0.4, a, torch.rand(400, generator=rng) < 0.6)
    kappa = error_consistency(a, b).kappa
    alone = consistency_with_people(a, b[None])
    assert alone.kappa == pytest.approx(kappa)
    draws = torch.randint(400, (500, 400), generator=rng)
    by_hand = torch.tensor([error_consistency(a[i], b[i]).kappa for i in draws])
    assert alone.se == pytest.approx(by_hand.std().item(), rel=0.1)
    low, high = by_hand.quantile(0.025).item(), by_hand.quantile(0.975).item()
    assert (alone.low, alone.high) == pytest.approx((low, high), abs=0.03)
    # Someone who answers like the model, and someone who errs by chance: people differ most.
    other = torch.rand(400, generator=rng) < 0.6
    three = consistency_with_people(a, torch.stack([a, b, other]))
    assert three.kappa == pytest.approx((1 + kappa + error_consistency(a, other).kappa) / 3)
    assert three.se > 2 * alone.se


def test_a_model_that_never_errs_has_no_consistency_with_people_who_never_err():
    right = torch.ones(6).bool()
    assert all(map(math.isnan, consistency_with_people(right, torch.stack([right, right]))))


def test_nobody_to_compare_with_is_refused():
    with pytest.raises(ValueError, match="nobody to compare with"):
        consistency_with_people(torch.ones(3).bool(), torch.ones(0, 3).bool())
    with pytest.raises(ValueError, match="same trials"):
        consistency_with_people(torch.ones(3).bool(), torch.ones(2, 4).bool())


def test_kappa_is_undefined_where_nobody_errs():
    found = error_consistency(*rights(10, 0, 0, 0))
    assert math.isnan(found.kappa)
    assert found.observed == 1


def test_decisions_on_other_trials_are_not_compared():
    with pytest.raises(ValueError, match=r"\[3, 4\] trials"):
        error_consistency(torch.ones(3), torch.ones(4))


def test_decisions_are_no_answers_that_are_right_or_wrong():
    with pytest.raises(ValueError, match=r"decisions == labels, not torch.int64"):
        error_consistency(torch.arange(3), torch.arange(3))


def test_the_categories_hold_the_classes_that_their_names_say():
    names = ImageNetInfo().label_descriptions()
    assert {name for i in CATEGORIES["cat"] for name in names[i].split(", ")} >= {"tabby", "cougar"}
    assert "African elephant" in names[CATEGORIES["elephant"][1]]
    assert names[CATEGORIES["oven"][0]].startswith("rotisserie")
    indices = [i for classes in CATEGORIES.values() for i in classes]
    assert len(indices) == len(set(indices)) == 207
    counts = {name: len(classes) for name, classes in CATEGORIES.items()}
    assert list(counts.values()) == [1, 4, 2, 49, 5, 7, 3, 6, 4, 3, 109, 2, 2, 1, 1, 8]
    assert list(counts) == sorted(counts)


def test_a_category_is_decided_by_its_mean_probability():
    logits = torch.full((2, 1000), -20.0)
    logits[0, [404, 152, 153]] = torch.tensor([5.0, 5.5, 5.5])  # dogs together, but 109 of them
    logits[1, [281, 499]] = torch.tensor([7.0, 5.0])  # mean over six cats against one knife
    names = list(CATEGORIES)
    assert [names[i] for i in categories_of(logits)] == ["airplane", "cat"]
    with pytest.raises(ValueError, match=r"not \[2, 10\]"):
        categories_of(torch.zeros(2, 10))


class Bright(nn.Module):
    """Says 1 where the upper left pixel is bright, else 0."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        bright = (x[:, 0, 0, 0] - 0.5) * self.weight
        return torch.stack([-bright, bright], 1)


def test_a_uniform_image_is_decided_alike_wherever_it_moves_and_a_corner_is_not():
    images = torch.full((2, 3, 8, 8), 0.9)
    images[1, :, 0, 0] = 0.1
    # down and right keep the corner, of which the border rule makes more
    assert shift_consistency(Bright(), images, 1).tolist() == [1, 0.5]


def test_decisions_are_made_in_evaluation_mode_and_leave_the_model_as_it_was():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(1.0), Bright())
    model[0].eval()
    images = torch.tensor([0.1, 0.9]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    assert decisions(model, images).tolist() == [0, 1]
    assert [m.training for m in model] == [False, True, True]


def test_a_share_is_retained_above_chance():
    clean = torch.tensor([1] * 80 + [0] * 20).bool()
    changed = torch.tensor([1] * 40 + [0] * 40 + [1] * 5 + [0] * 15).bool()
    assert retained_accuracy(clean, changed).share == pytest.approx(0.45 / 0.8)
    found = retained_accuracy(clean, changed, chance=0.1)
    assert found.share == pytest.approx(0.35 / 0.7)
    assert (found.clean, found.changed) == (0.8, 0.45)
    assert retained_accuracy(clean, clean, chance=0.1)[:3] == pytest.approx((1, 1, 1))


def test_the_interval_of_a_retained_share_is_the_paired_bootstrap_over_images():
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(400, generator=generator) < 0.8
    changed = clean & (torch.rand(400, generator=generator) < 0.6)

    def share(a, b, axis):
        return (b.mean(axis) - 0.1) / (a.mean(axis) - 0.1)

    data = (clean.double().numpy(), changed.double().numpy())
    expected = bootstrap(
        data, share, paired=True, method="percentile", n_resamples=4_000, rng=0
    ).confidence_interval
    found = retained_accuracy(clean, changed, chance=0.1)
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=0.006)


def test_nothing_is_retained_of_an_accuracy_at_chance():
    half, ten = torch.arange(100) < 50, torch.arange(100) < 10
    assert math.isnan(retained_accuracy(half, ten, chance=0.5).share)
    close = retained_accuracy(half, ten, chance=0.45)  # above chance, but not in every draw
    assert close.share == pytest.approx(-7)
    assert math.isnan(close.low)
    with pytest.raises(ValueError, match="as bool"):
        retained_accuracy(half.long(), ten.long())


class Coarse(nn.Module):
    """A bag of tokens: means over tokens of how unequal the pixels of a token are."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        tokens = x.unfold(2, 4, 4).unfold(3, 4, 4).flatten(-2)  # [n, 3, 2, 2, 16]
        unequal = tokens.std(-1).mean((1, 2, 3)) * self.weight
        return torch.stack([-unequal, unequal - 0.1], 1)


def test_a_bag_of_tokens_bears_blocks_of_its_size_and_not_smaller_ones():
    images = torch.zeros(20, 3, 8, 8)
    images[..., :4] = 1.0  # every token is uniform
    right = decisions(Coarse(), images) == 0
    whole = decisions(Coarse(), psychophysics.permute_patches(images, 4)) == 0
    broken = decisions(Coarse(), psychophysics.permute_patches(images, 2)) == 0
    assert retained_accuracy(right, whole, chance=0.5).share == 1
    assert retained_accuracy(right, broken, chance=0.5).share < 0


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 2))


def test_an_attack_on_a_linear_model_finds_the_worst_image(linear):
    images = torch.full((3, 3, 2, 2), 0.5)
    labels = torch.tensor([0, 1, 0])
    found = pgd(linear, images, labels, 0.1)
    weight = linear[1].weight
    towards = torch.where(labels[:, None] == 0, weight[1] - weight[0], weight[0] - weight[1])
    torch.testing.assert_close(found, images + 0.1 * towards.sign().view(3, 3, 2, 2))
    at_the_edge = pgd(linear, torch.full_like(images, 0.95), labels, 0.1)
    worst = (0.95 + 0.1 * towards.sign().view(3, 3, 2, 2)).clamp(0, 1)
    torch.testing.assert_close(at_the_edge, worst)


def test_an_attack_raises_the_loss_of_every_image():
    torch.manual_seed(0)
    model = zoo.create("vit-d1-h2").eval()
    images, labels = torch.rand(4, 3, 32, 32), torch.arange(4)
    attacked = pgd(model, images, labels, 0.02, steps=5)
    before, after = (
        F.cross_entropy(model(x), labels, reduction="none") for x in (images, attacked)
    )
    assert (after > before).all()


def test_an_attack_stays_within_epsilon_and_the_range_of_pixels(linear):
    images = torch.rand(4, 3, 2, 2)
    found = pgd(linear, images, torch.zeros(4).long(), 0.3, steps=5)
    assert (found - images).abs().max() <= 0.3 + 1e-6
    assert 0 <= found.min() <= found.max() <= 1


def test_an_attack_depends_on_the_index_of_an_image_and_not_on_its_minibatch():
    model = zoo.create("vit-d1-h2")
    images, labels = torch.rand(4, 3, 32, 32), torch.arange(4)
    whole = pgd(model, images, labels, 0.02, steps=2)
    part = pgd(model, images[2:], labels[2:], 0.02, steps=2, index=torch.arange(2, 4))
    # a gradient of nearly zero may change its sign with rounding
    assert ((whole[2:] - part).abs() < 1e-6).float().mean() > 0.99


def test_an_attack_leaves_the_model_as_it_was_even_if_the_model_fails(linear):
    linear.train()
    linear[0].eval()
    linear[1].bias.requires_grad_(False)
    pgd(linear, torch.rand(2, 3, 2, 2), torch.zeros(2).long(), 0.1, steps=1)
    with pytest.raises(RuntimeError):
        pgd(linear, torch.rand(2, 3, 5, 5), torch.zeros(2).long(), 0.1)
    assert [m.training for m in linear.modules()] == [True, False, True]
    assert [p.requires_grad for p in linear.parameters()] == [True, False]
    assert all(p.grad is None for p in linear.parameters())


def test_an_attack_gives_images_without_a_graph(linear):
    found = pgd(linear, torch.rand(2, 3, 2, 2), torch.zeros(2).long(), 0.1, steps=1)
    assert not found.requires_grad


def test_an_attack_without_room_is_the_image(linear):
    images = torch.rand(2, 3, 2, 2)
    assert torch.equal(pgd(linear, images, torch.zeros(2).long(), 0.0, steps=2), images)


def test_an_impossible_attack_is_refused(linear):
    images, labels = torch.rand(2, 3, 2, 2), torch.zeros(2).long()
    with pytest.raises(ValueError, match=r"images in 0 … 1: .*Normalize\("):
        pgd(linear, images + 1, labels, 0.1)
    with pytest.raises(ValueError, match=r"steps ≥ 1, not 0\.1 and 0"):
        pgd(linear, images, labels, 0.1, steps=0)


@pytest.fixture(scope="module")
def conflicts(shared_data):
    """All human trials with the published stimuli in which shape and texture conflict."""
    trials = datasets.cue_conflict().trials
    return trials[trials["shape"] != trials["texture"]]


def test_people_decide_by_shape(conflicts):
    # Geirhos et al. 2019 report 95.9 %
    numbers = {name: i for i, name in enumerate(CATEGORIES)}
    coded = [
        torch.tensor(conflicts[column].map(numbers).fillna(-1).astype(int).to_numpy())
        for column in ("response", "shape", "texture")
    ]
    found = shape_bias(*coded)
    assert found.trials == 12_000
    assert found.bias == pytest.approx(0.959, abs=0.0005)
    assert (found.bias, found.decided) == pytest.approx(PUBLISHED_TRIALS["people"], abs=0.0005)


def test_people_err_alike_as_published(conflicts):
    # Geirhos et al. 2020 report a mean κ of .331 between two people
    right = conflicts.assign(right=conflicts["response"] == conflicts["shape"])
    table = right.pivot(index="stimulus", columns="subject", values="right").astype(bool)
    people = torch.tensor(table.to_numpy()).T  # [subjects, stimuli]
    assert people.shape == (10, 1200)
    kappas = [error_consistency(a, b).kappa for a, b in itertools.combinations(people, 2)]
    assert np.mean(kappas) == pytest.approx(0.331, abs=0.01)
    assert 0.15 < min(kappas) < max(kappas) < 0.5
