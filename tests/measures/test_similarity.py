"""CKA over minibatches against its definition, in float64, written out."""

import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from utils.measures.similarity import MinibatchCKA, skip_branch_ratio


def unbiased_hsic(x, y):
    """Song et al. 2012, equation 5, in float64."""
    n = len(x)
    x, y = x - x.mean(0), y - y.mean(0)  # changes nothing but the rounding
    k, m = x @ x.T, y @ y.T
    k.fill_diagonal_(0)
    m.fill_diagonal_(0)
    one = torch.ones(n, dtype=torch.float64)
    term = (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
    return (torch.trace(k @ m) + term - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))


def pairs(n):
    """n(n − 3), by which the estimator weighs a minibatch."""
    return n * (n - 3)


def reference(minibatches_a, minibatches_b, weight=pairs):
    """Sums over minibatches first, then the ratio."""

    def total(left, right):
        return sum(
            weight(len(x)) * unbiased_hsic(x.double().flatten(1), y.double().flatten(1))
            for x, y in zip(left, right, strict=True)
        )

    cross = total(minibatches_a, minibatches_b)
    own = total(minibatches_a, minibatches_a) * total(minibatches_b, minibatches_b)
    return (cross / own.sqrt()).item()


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def layers():
    """Three minibatches of three layers that share part of their signal."""
    found = []
    for seed in range(3):
        shared = draw(16, 20, seed=seed)
        found.append(
            {
                "one": shared @ draw(20, 30, seed=90),
                "two": torch.relu(shared @ draw(20, 50, seed=91)).unflatten(1, (5, 10)),
                "three": draw(16, 40, seed=seed + 50),
            }
        )
    return found


def test_cka_is_that_of_its_definition_over_the_same_minibatches(layers):
    metric = MinibatchCKA()
    for minibatch in layers:
        metric.update(minibatch)
    found = metric.compute()
    names = list(layers[0])
    for i, a in enumerate(names):
        for j, b in enumerate(names):
            expected = reference([m[a] for m in layers], [m[b] for m in layers])
            assert found[i, j].item() == pytest.approx(expected, abs=1e-6)
    assert found.dtype == torch.float64
    assert metric.names == (names, names)


def related(n, seed):
    """Two layers that share five features."""
    shared = draw(n, 5, seed=seed).double()
    one = torch.cat([shared + 0.5 * draw(n, 5, seed=1000 + seed), draw(n, 3, seed=2000 + seed)], 1)
    return one, torch.cat([2 * shared, draw(n, 6, seed=3000 + seed)], 1)


def test_minibatches_of_unequal_size_weigh_by_their_pairs():
    sizes = torch.Generator().manual_seed(0)
    for seed in range(20):
        split = torch.randint(4, 30, (3,), generator=sizes).tolist()
        a, b = (x.split(split) for x in related(sum(split), seed))
        metric = MinibatchCKA()
        for x, y in zip(a, b, strict=True):
            metric.update([x], [y])
        assert metric.compute().shape == (1, 1)
        assert metric.compute().item() == pytest.approx(reference(a, b), abs=1e-9)


def test_the_weight_keeps_a_short_last_minibatch_from_deciding():
    errors = {"pairs": [], "equal": []}
    for seed in range(60):
        a, b = related(154, seed)
        whole = reference([a], [b])
        parts = [x.split([50, 50, 50, 4]) for x in (a, b)]
        errors["pairs"].append(reference(*parts) - whole)
        errors["equal"].append(reference(*parts, weight=lambda n: 1) - whole)
    rms = {name: torch.tensor(e).square().mean().sqrt().item() for name, e in errors.items()}
    assert rms["pairs"] < 0.02
    assert rms["equal"] > 4 * rms["pairs"]


def test_a_common_offset_of_ten_changes_nothing(layers):
    plain, shifted = MinibatchCKA(), MinibatchCKA()
    for minibatch in layers:
        plain.update(minibatch)
        shifted.update({name: x + 10 for name, x in minibatch.items()})
    torch.testing.assert_close(plain.compute(), shifted.compute(), atol=1e-6, rtol=0)


def test_many_features_with_an_offset_stay_within_a_millionth():
    minibatches = [
        [draw(8, 60_000, seed=s) * 0.1 + 10, draw(8, 500, seed=s + 9) + 10] for s in (0, 1)
    ]
    metric = MinibatchCKA()
    for minibatch in minibatches:
        metric.update(minibatch)
    expected = reference([m[0] for m in minibatches], [m[1] for m in minibatches])
    assert metric.compute()[0, 1].item() == pytest.approx(expected, abs=1e-6)


def test_cka_does_not_change_with_rotation_and_scale():
    x, metric = draw(32, 24), MinibatchCKA()
    rotation, _ = torch.linalg.qr(draw(24, 24, seed=1))
    metric.update([x, 3 * x @ rotation])
    torch.testing.assert_close(metric.compute(), torch.ones(2, 2).double(), atol=1e-6, rtol=0)


def test_independent_features_have_a_cka_near_zero():
    metric = MinibatchCKA()
    for seed in range(40):
        metric.update([draw(32, 64, seed=seed)], [draw(32, 64, seed=seed + 100)])
    assert abs(metric.compute().item()) < 0.02  # the biased estimator gives about .67


def test_two_models_may_have_different_numbers_of_layers():
    metric = MinibatchCKA()
    metric.update([draw(8, 5)], {"a": draw(8, 6), "b": draw(8, 7)})
    assert metric.compute().shape == (1, 2)


def test_merged_metrics_agree_with_one_that_saw_everything(layers):
    alone, left, right = MinibatchCKA(), MinibatchCKA(), MinibatchCKA()
    for i, minibatch in enumerate(layers):
        alone.update(minibatch)
        (left if i % 2 else right).update(minibatch)
    left.merge_state(right)
    torch.testing.assert_close(alone.compute(), left.compute(), atol=1e-12, rtol=0)
    assert left.names == alone.names


def shared(number):
    return [draw(8, 30, seed=number), draw(8, 6, 5, seed=number).relu() + 3]


def _rank(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for case, numbers in {
        "both": (0, 2) if rank else (1,),
        "one": range(3) if rank else (),
    }.items():
        metric = MinibatchCKA()
        for number in numbers:
            metric.update(shared(number))
        torch.save(metric.compute(), folder / f"{case}{rank}")
    dist.destroy_process_group()


@pytest.mark.slow
def test_all_ranks_hold_the_cka_of_all_minibatches_also_if_one_saw_none(tmp_path):
    mp.spawn(_rank, (tmp_path,), nprocs=2)
    metric = MinibatchCKA()
    for number in range(3):
        metric.update(shared(number))
    for file in ("both0", "both1", "one0", "one1"):
        torch.testing.assert_close(
            torch.load(tmp_path / file), metric.compute(), rtol=1e-12, atol=0
        )


def test_half_precision_is_widened_before_the_products():
    x = draw(16, 4000) * 20
    metric = MinibatchCKA()
    metric.update([x.half()], [x.half().float()])
    assert metric.compute().item() == pytest.approx(1, abs=1e-6)


def test_autocast_around_the_update_changes_nothing():
    x = [draw(16, 300), draw(16, 40, seed=1)]
    inside, outside = MinibatchCKA(), MinibatchCKA()
    outside.update(x)
    with torch.autocast("cpu", torch.bfloat16):
        inside.update(x)
    assert torch.equal(inside.compute(), outside.compute())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tf32_changes_nothing(layers):
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        metric = MinibatchCKA()
        for minibatch in layers:
            metric.update({name: x.cuda() for name, x in minibatch.items()})
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    found = metric.compute()[0, 1].item()
    expected = reference([m["one"] for m in layers], [m["two"] for m in layers])
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1234.567, -3e-5])
def test_a_layer_that_does_not_vary_has_no_cka(value):
    metric = MinibatchCKA()
    for seed in range(2):
        metric.update([torch.full((9, 500), value), draw(9, 5, seed=seed)])
    assert metric.compute().isnan().tolist() == [[True, True], [True, False]]


def test_a_layer_that_varies_in_one_minibatch_only_has_a_cka():
    metric = MinibatchCKA()
    metric.update([torch.ones(8, 5), draw(8, 5)])
    metric.update([draw(8, 5, seed=1), draw(8, 5, seed=2)])
    assert metric.compute().isfinite().all()


def test_reset_forgets_the_layers_too():
    metric = MinibatchCKA()
    metric.update({"a": draw(8, 5)})
    metric.reset()
    metric.update({"b": draw(8, 5)})
    assert metric.names == (["b"], ["b"])


def test_what_cannot_be_compared_is_refused():
    metric = MinibatchCKA()
    with pytest.raises(ValueError, match="at least 4 images, got 3"):
        metric.update([draw(3, 5)])
    with pytest.raises(ValueError, match="layers with 8 and 9 images"):
        metric.update([draw(8, 5), draw(9, 5)])
    with pytest.raises(ValueError, match="at least one: got none"):
        metric.update([])
    with pytest.raises(ValueError, match="got a tensor"):
        metric.update(draw(8, 5))
    metric.update({"a": draw(8, 5)})
    with pytest.raises(ValueError, match="one metric for each pair"):
        metric.update({"b": draw(8, 5)})


@pytest.mark.filterwarnings("ignore:The ``compute`` method")  # torchmetrics warns of the same
def test_without_a_minibatch_there_is_no_cka():
    with pytest.raises(ValueError, match="seen no minibatch"):
        MinibatchCKA().compute()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_and_infinite_responses_are_found_in_compute(bad):
    metric = MinibatchCKA()
    x = draw(8, 5)
    x[2, 3] = bad
    metric.update([x, draw(8, 5)])
    metric.update([draw(8, 5), draw(8, 5)])
    with pytest.raises(ValueError, match="NaN or infinite"):
        metric.compute()


def test_the_skip_connection_is_weighed_against_its_branch():
    skip, branch = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4)
    skip[..., 0], branch[..., :2] = 10, torch.tensor([3.0, 4.0])
    assert torch.equal(skip_branch_ratio(skip, branch), torch.full((2, 3), 2.0))
    assert torch.equal(
        skip_branch_ratio(skip.mT, branch.mT, channel_dim=1), torch.full((2, 3), 2.0)
    )
    with pytest.raises(ValueError, match=r"skip of shape \(2, 3, 4\) and a branch of shape \(2, 4"):
        skip_branch_ratio(skip, branch.mT)
