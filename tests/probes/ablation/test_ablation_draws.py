"""Controls of an ablation: keyed orders, mass-matched sets, uniform shrink."""

import pytest
import torch
from scipy.stats import chisquare

from utils.probes import keyed_orders, mass_matched, uniform_shrink


def weights(batch=4, heads=3, keys=10):
    return torch.randn(batch, heads, keys, generator=torch.Generator().manual_seed(0)).softmax(-1)


def orders(batch=4, heads=3, keys=9, prefix=1):
    return keyed_orders(0, torch.arange(batch), 0, (heads, keys)) + prefix


def test_each_order_is_a_permutation():
    found = keyed_orders(3, torch.tensor([5, 0, 123456789]), 2, (4, 50))
    assert found.shape == (3, 4, 50)
    assert found.dtype == torch.int64
    assert found.sort(-1).values.equal(torch.arange(50).expand(3, 4, 50))


def test_an_order_depends_on_seed_image_and_draw_alone():
    index = torch.tensor([7, 3, 11])
    found = keyed_orders(1, index, 2, (20,))
    for place in range(3):  # whatever else is in the minibatch
        assert keyed_orders(1, index[place : place + 1], 2, (20,))[0].equal(found[place])
    torch.manual_seed(5)
    assert keyed_orders(1, index, 2, (20,)).equal(found)
    others = [
        keyed_orders(2, index, 2, (20,)),
        keyed_orders(1, index, 3, (20,)),
        keyed_orders(1, index + 1, 2, (20,)),
    ]
    assert not any((other == found).all(-1).any() for other in others)
    heads = keyed_orders(1, index, 2, (2, 20))
    assert not heads[:, 0].equal(heads[:, 1])


def test_orders_stay_what_they_are_between_versions():
    found = keyed_orders(0, torch.tensor([0, 1]), 0, (8,))
    assert found.tolist() == [[0, 3, 1, 6, 4, 5, 7, 2], [5, 2, 3, 1, 7, 0, 6, 4]]


@pytest.mark.parametrize("vary", ["images", "draws", "seeds"])
def test_every_unit_is_equally_often_first(vary):
    n, trials = 8, 4000
    if vary == "images":
        first = keyed_orders(0, torch.arange(trials), 0, (n,))[:, 0]
    elif vary == "draws":
        first = torch.cat(
            [keyed_orders(0, torch.tensor([9]), d, (n,))[:, 0] for d in range(trials)]
        )
    else:
        first = torch.cat(
            [keyed_orders(s, torch.tensor([9]), 0, (n,))[:, 0] for s in range(trials)]
        )
    assert chisquare(first.bincount(minlength=n).numpy()).pvalue > 1e-3


def test_neighbouring_images_have_uncorrelated_orders():
    found = keyed_orders(0, torch.arange(2000), 0, (30,)).argsort(-1).float()
    left, right = found[:-1].flatten(), found[1:].flatten()
    assert abs(torch.corrcoef(torch.stack([left, right]))[0, 1]) < 0.02


def test_an_index_must_be_whole_and_one_dimensional():
    for index in (torch.tensor([1.0]), torch.tensor(3), torch.ones(2, 2, dtype=torch.long)):
        with pytest.raises(ValueError, match=r"whole image indices \[batch\]"):
            keyed_orders(0, index, 0, (4,))


def test_the_removed_mass_is_exactly_the_mass_asked_for():
    w, order = weights(), orders()
    mass = w[..., 1:].sort(-1).values[..., -3:].sum(-1)  # of the three largest patches
    shares = mass_matched(w, mass, order)
    torch.testing.assert_close((w * shares).sum(-1), mass, atol=1e-7, rtol=1e-6)
    assert shares[..., 0].count_nonzero() == 0  # the class token is in no order
    assert shares.aminmax().min >= 0
    assert shares.aminmax().max <= 1


def test_entries_go_along_the_order_and_only_the_last_in_part():
    w, order = weights(), orders()
    shares = mass_matched(w, 0.4 * w[..., 1:].sum(-1), order).gather(-1, order)
    assert (shares.diff(dim=-1) <= 0).all()
    assert (((shares > 0) & (shares < 1)).sum(-1) <= 1).all()


def test_one_order_may_serve_all_heads():
    w = weights()
    order = orders(heads=1)[:, 0]
    mass = torch.full((4, 3), 0.2)
    every = order[:, None].expand(-1, 3, -1)
    assert mass_matched(w, mass, order).equal(mass_matched(w, mass, every))


def test_no_mass_ablates_nothing_and_all_mass_ablates_all():
    w, order = weights(), orders()
    assert mass_matched(w, torch.zeros(4, 3), order).count_nonzero() == 0
    shares = mass_matched(w, w[..., 1:].sum(-1), order)
    torch.testing.assert_close(shares[..., 1:], torch.ones(4, 3, 9))


def test_rows_with_exact_zeros_are_matched_too():
    w = torch.tensor([[[0.0, 0.5, 0.0, 0.5]]])
    shares = mass_matched(w, torch.tensor([[0.75]]), torch.tensor([[0, 1, 2, 3]]))
    assert (w * shares).sum() == 0.75
    assert shares.isfinite().all()


def test_shrinking_takes_the_same_share_of_every_patch_and_none_of_the_prefix():
    w = weights()
    shares = uniform_shrink(w, torch.full((4, 3), 0.3), prefix=2)
    torch.testing.assert_close((w * shares).sum(-1), torch.full((4, 3), 0.3))
    assert shares[..., :2].count_nonzero() == 0
    torch.testing.assert_close(shares[..., 2:], shares[..., 2:3].expand(-1, -1, 8))


def test_more_mass_than_there_is_cannot_be_taken():
    w, mass = weights(), torch.full((4, 3), 0.999)
    with pytest.raises(ValueError, match=r"mass of 0\.999 cannot be ablated"):
        mass_matched(w, mass, orders()[..., :3])
    with pytest.raises(ValueError, match=r"mass of 0\.999 cannot be ablated"):
        uniform_shrink(w, mass, prefix=5)


def test_the_shapes_are_told():
    with pytest.raises(ValueError, match=r"not \[4, 3, 1, 10\] and \[4, 3\]"):
        mass_matched(weights()[:, :, None], torch.zeros(4, 3), orders())
    with pytest.raises(ValueError, match=r"not \[4, 3, 10\] and \[4\]"):
        uniform_shrink(weights(), torch.zeros(4))
