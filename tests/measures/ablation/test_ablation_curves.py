"""Numbers from curves whose areas and crossings are known."""

import numpy as np
import pytest

from utils.measures.ablation import curves as curves
from utils.measures.ablation.curves import at_fraction, symmetric_ranks

F = np.linspace(0, 1, 101)
AT_ONCE = np.where(F > 0, 1.0, 0.0)  # the first unit does all the damage
AT_LAST = np.where(F < 1, 0.0, 1.0)


@pytest.mark.parametrize(
    ("n", "most"), [(64, 33), (196, 33), (196, 9), (16, 33), (1000, 17), (7, 5)]
)
def test_ranks_are_symmetric_and_no_more_than_asked_for(n, most):
    ranks = symmetric_ranks(n, most)
    assert len(ranks) <= most
    assert (ranks[0], ranks[-1]) == (0, n)
    assert sorted(n - ranks) == ranks.tolist()
    assert (np.diff(ranks) > 0).all()


def test_few_units_are_all_ranks():
    assert symmetric_ranks(16, 33).tolist() == list(range(17))


def test_the_fractions_of_the_accuracy_table_are_among_the_ranks():
    for n in (64, 196):
        assert {at_fraction(n, f) for f in curves.FRACTIONS} <= set(symmetric_ranks(n, 33).tolist())


def test_few_ranks_hold_what_the_curves_bend_at():
    assert symmetric_ranks(64, 9).tolist() == [0, 3, 6, 13, 32, 51, 58, 61, 64]


@pytest.mark.parametrize(("most", "error"), [(9, 0.013), (17, 0.005), (33, 0.002)])
def test_a_few_ranks_give_the_area_of_all(most, error):
    def steep(f):  # nine tenths of the damage by a quarter of the units
        return (1 - np.exp(-9 * f)) / (1 - np.exp(-9))

    f = symmetric_ranks(196, most) / 196
    every = np.arange(197) / 196
    assert curves.necessity(steep(f), f, f) == pytest.approx(
        curves.necessity(steep(every), every, every), abs=error
    )


def test_one_percent_and_less_is_shown_only_of_whole_units():
    assert curves.shown(64) == {0.02: 1, 0.05: 3, 0.1: 6, 0.2: 13, 0.3: 19, 0.5: 32}
    assert {f: k for f, k in curves.shown(196).items() if f < 0.05} == {0.01: 2, 0.02: 4}
    assert list(curves.shown(4096).values()) == [20, 41, 82, 205, 410, 819, 1229, 2048]


@pytest.mark.parametrize(
    ("n", "most", "expected"),
    [
        (64, 65, {0.01: 1, 0.03: 2, 0.05: 3}),
        (64, 33, {0.01: 1, 0.03: 2, 0.05: 3}),
        (196, 33, {0.01: 2, 0.03: 6, 0.05: 10}),
        (64, 9, {0.05: 3}),  # the rank nearest to all three
        (10, 11, {0.05: 1}),
        (4, 5, {}),  # one of four is no few per cent
    ],
)
def test_what_the_strongest_few_do_is_told_at_the_nearest_ranks(n, most, expected):
    assert curves.kept(symmetric_ranks(n, most)) == expected


def test_a_fraction_is_at_least_one_unit():
    assert at_fraction(64, 0.005) == 1
    assert at_fraction(196, 0.1) == 20


def test_too_few_ranks_or_units_are_refused():
    for n, most in ((1, 33), (64, 2), (49, 3)):
        with pytest.raises(ValueError, match="make no curve"):
            symmetric_ranks(n, most)


@pytest.mark.parametrize("n", range(2, 60))
def test_the_least_number_of_ranks_that_is_asked_for_makes_a_curve(n):
    with pytest.raises(ValueError, match=r"give at least \d ranks") as refused:
        symmetric_ranks(n, 2)
    least = int(str(refused.value).split("at least ")[1].split()[0])
    assert least == 3 + (n % 2 and n > 1)
    for most in range(least, least + 3):
        ranks = symmetric_ranks(n, most)
        assert len(ranks) >= 3
        assert sorted(n - ranks) == ranks.tolist()


def test_where_order_does_not_matter_both_numbers_are_zero():
    assert curves.necessity(F, F, F) == curves.sufficiency(F, F, F) == 0


def test_a_first_unit_that_does_everything_has_necessity_one_half_of_a_straight_line():
    assert curves.necessity(AT_ONCE, F, F) == pytest.approx(0.5, abs=0.01)
    assert curves.sufficiency(F, AT_LAST, F) == pytest.approx(0.5, abs=0.01)


def test_the_numbers_do_not_depend_on_the_scale_of_the_damage():
    assert curves.necessity(7 * np.sqrt(F), 7 * F, F) == pytest.approx(1 / 6, abs=1e-3)  # 2/3 − 1/2
    assert curves.sufficiency(7 * F, 7 * F**2, F) == pytest.approx(1 / 6, abs=1e-3)  # 1/2 − 1/3


def test_half_of_the_damage_is_done_where_the_curve_says():
    assert curves.half_removed(F, F) == pytest.approx(0.5)
    assert curves.half_removed(F**2, F) == pytest.approx(np.sqrt(0.5), abs=1e-3)
    assert curves.half_removed(np.sqrt(F), F) == pytest.approx(0.25, abs=1e-3)


def test_keeping_a_fraction_is_removing_the_rest():
    # the damage of removing the bottom share f is f²: keeping g leaves (1 − g)²
    assert curves.half_kept(F**2, F) == pytest.approx(1 - np.sqrt(0.5), abs=1e-3)
    assert curves.half_kept(AT_LAST, F) < 0.011  # one unit is enough


def test_a_curve_that_is_not_defined_has_no_half():
    assert np.isnan(curves.half_removed(np.full(101, np.nan), F))


def test_a_batch_of_curves_is_described_one_by_one():
    kl = {
        "top": np.stack([np.sqrt(F), F]),
        "random": np.stack([F, F]),
        "bottom": np.stack([F**2, F]),
    }
    found = curves.describe(kl, F)
    assert found["necessity N"] == pytest.approx([1 / 6, 0], abs=1e-3)
    assert found["sufficiency K"] == pytest.approx([1 / 6, 0], abs=1e-3)
    assert found["N − K"] == pytest.approx([0, 0], abs=1e-3)
    assert found["half removed, top"] == pytest.approx([0.25, 0.5], abs=1e-3)
    assert "place index" not in found
    assert curves.describe(kl | {"matched": kl["top"]}, F)["place index"] == pytest.approx([0, 0])
