import math
import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from utils.measures import sparsity
from utils.measures.sparsity import LifetimeSparseness, PopulationSparseness
from utils.measures.sparsity.vector import MEASURES


def exponential(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).exponential(size=shape)).float()


def streamed(metric, minibatches):
    for responses in minibatches:
        metric.update(responses)
    return metric.compute()


SPLITS = [(120,), (1, 119), (50, 50, 20), (1,) * 120]


@pytest.mark.parametrize("sizes", SPLITS)
def test_streamed_lifetime_sparseness_equals_that_of_the_whole(sizes):
    r = exponential(120, 30) - 0.3
    r = r.clamp(min=0)
    r[:, 4] = 0
    result = streamed(LifetimeSparseness(threshold=0.1), r.split(sizes))
    whole = r.double()
    close = {"rtol": 1e-6, "atol": 0, "equal_nan": True}
    torch.testing.assert_close(result.treves_rolls, sparsity.treves_rolls(whole, dim=0), **close)
    torch.testing.assert_close(result.vinje_gallant, sparsity.vinje_gallant(whole, dim=0), **close)
    active = sparsity.active_fraction(whole, threshold=0.1, dim=0)
    torch.testing.assert_close(result.active_fraction, active, **close)
    torch.testing.assert_close(result.mean, whole.mean(0), **close)
    assert result.treves_rolls.dtype == torch.float64
    assert (result.dead, result.stimuli) == (1, 120)


@pytest.mark.parametrize("sizes", SPLITS)
@pytest.mark.parametrize("measure", MEASURES)
def test_streamed_population_sparseness_equals_that_of_the_whole(measure, sizes):
    r = (exponential(120, 30) - 0.3).clamp(min=0)
    r[7] = 0
    result = streamed(PopulationSparseness(measure), r.split(sizes))
    values = getattr(sparsity, measure)(r.double()).numpy()
    values = values[~np.isnan(values)]
    assert len(values) == 119
    assert result.mean.item() == pytest.approx(values.mean(), rel=1e-6)
    assert result.sd.item() == pytest.approx(values.std(ddof=1), rel=1e-6)
    assert result.se.item() == pytest.approx(values.std(ddof=1) / math.sqrt(119), rel=1e-6)
    assert (result.stimuli, result.undefined.item()) == (120, 1)


def test_attention_maps_keep_heads_and_queries_apart():
    maps = exponential(10, 3, 4, 17)  # [batch, heads, queries, keys]
    result = streamed(PopulationSparseness("gini", unit="key"), maps.split(4))
    assert result.mean.shape == (3, 4)
    torch.testing.assert_close(result.mean, sparsity.gini(maps.double()).mean(0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("channel_dim", [1, -1])
def test_a_channel_is_the_mean_over_its_positions(channel_dim):
    maps = exponential(12, 5, 4, 3)
    given = maps if channel_dim == 1 else maps.movedim(1, -1)
    pooled = maps.double().mean((2, 3))  # [batch, channels]
    lifetime = streamed(LifetimeSparseness("channel", channel_dim=channel_dim), given.split(5))
    expected = sparsity.treves_rolls(pooled, dim=0)
    torch.testing.assert_close(lifetime.treves_rolls, expected, rtol=1e-6, atol=0)
    metric = PopulationSparseness("hoyer", "channel", channel_dim=channel_dim)
    population = streamed(metric, given.split(5))
    assert population.mean.item() == pytest.approx(sparsity.hoyer(pooled).mean().item(), rel=1e-6)


def test_channels_last_memory_gives_the_same_numbers():
    maps = exponential(6, 5, 4, 3)
    last = maps.to(memory_format=torch.channels_last)
    for unit in ("channel", "position"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one = streamed(LifetimeSparseness(unit), [maps])
            other = streamed(LifetimeSparseness(unit), [last])
        torch.testing.assert_close(one.treves_rolls, other.treves_rolls, rtol=1e-6, atol=0)


def test_a_position_is_a_unit_and_its_memory_is_announced_once():
    maps = exponential(9, 4, 32, 32)
    metric = LifetimeSparseness("position")
    with pytest.warns(UserWarning, match=r"unit='position' keeps 0\.1 MiB .* \(4, 32, 32\)") as w:
        result = streamed(metric, maps.split(3))
    assert len(w) == 1
    expected = sparsity.treves_rolls(maps.double(), dim=0)
    torch.testing.assert_close(result.treves_rolls, expected, rtol=1e-6, atol=0)
    population = streamed(PopulationSparseness("gini", "position"), maps.split(3))
    expected = sparsity.gini(maps.double().flatten(1)).mean().item()
    assert population.mean.item() == pytest.approx(expected, rel=1e-6)


def test_one_large_minibatch_is_as_exact_as_many_small_ones():
    r = exponential(100_000, 4) + 100
    one, many = (streamed(LifetimeSparseness(), r.split(size)) for size in (100_000, 100))
    torch.testing.assert_close(one.treves_rolls, many.treves_rolls, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_responses_are_upcast_before_squaring(dtype):
    r = (300 * exponential(40, 8)).to(dtype)
    result = streamed(LifetimeSparseness(), r.split(9))
    expected = sparsity.treves_rolls(r.double(), dim=0)
    torch.testing.assert_close(result.treves_rolls, expected, rtol=1e-6, atol=0)


def test_metrics_updated_in_inference_mode_go_on_outside_it():
    r = exponential(10, 4)
    metric = LifetimeSparseness()
    with torch.inference_mode():
        metric.update(r[:5])
    metric.update(r[5:])
    torch.testing.assert_close(
        metric.compute().treves_rolls, sparsity.treves_rolls(r.double(), dim=0), rtol=1e-6, atol=0
    )


def test_reset_forgets_all_stimuli():
    metric = LifetimeSparseness()
    metric.update(torch.full((3, 2), math.nan))
    metric.reset()
    r = exponential(6, 2)
    assert streamed(metric, [r]).stimuli == 6


@pytest.mark.parametrize("make", [LifetimeSparseness, PopulationSparseness])
def test_merged_ranks_equal_one_also_if_one_saw_nothing(make):
    r = exponential(60, 7)
    one = streamed(make(), [r])
    ranks = [make(), make(), make()]
    ranks[0].update(r[:10])
    ranks[1].update(r[10:])
    ranks[0].merge_state(ranks[1])
    ranks[0].merge_state(ranks[2])
    for value, expected in zip(ranks[0].compute(), one, strict=True):
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-9)


MAKERS = {"lifetime": LifetimeSparseness, "population": PopulationSparseness}


def _rank(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    parts = exponential(60, 7).split([20, 30, 10])
    for case, minibatches in {
        "both": parts[:2] if rank == 0 else parts[2:],
        "one": parts if rank == 0 else [],
    }.items():
        found = {name: streamed(make(), minibatches) for name, make in MAKERS.items()}
        torch.save({name: tuple(value) for name, value in found.items()}, folder / f"{case}{rank}")
    dist.destroy_process_group()


@pytest.mark.slow
def test_all_ranks_hold_the_result_of_all_stimuli_also_if_one_saw_nothing(tmp_path):
    mp.spawn(_rank, (tmp_path,), nprocs=2)
    r = exponential(60, 7)
    expected = {name: tuple(streamed(make(), [r])) for name, make in MAKERS.items()}
    for file in ("both0", "both1", "one0", "one1"):
        found = torch.load(tmp_path / file)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("make", MAKERS.values())
def test_nan_and_infinite_responses_are_found_in_compute(make, bad):
    metric = make()
    r = torch.ones(4, 3)
    r[1, 2] = bad
    metric.update(r)
    metric.update(torch.ones(4, 3))
    with pytest.raises(ValueError, match=f"{make.__name__} got NaN or infinite"):
        metric.compute()


@pytest.mark.parametrize("make", [LifetimeSparseness, PopulationSparseness])
def test_negative_responses_are_found_in_compute(make):
    metric = make()
    metric.update(torch.tensor([[1.0, -0.2], [1.0, 1.0]]))
    with pytest.raises(ValueError, match=rf"{make.__name__} is defined for .* minimum of -0\.2"):
        metric.compute()


def test_kurtosis_takes_signed_responses_and_counts_constant_stimuli():
    r = torch.randn(6, 50, generator=torch.Generator().manual_seed(0))
    r[2] = -1.5
    result = streamed(PopulationSparseness("excess_kurtosis"), [r])
    assert result.undefined.item() == 1
    expected = sparsity.excess_kurtosis(r).double().nanmean().item()
    assert result.mean.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("make", MAKERS.values())
def test_fewer_than_two_stimuli_are_refused(make):
    metric = make()
    metric.update(torch.ones(1, 3))
    with pytest.raises(ValueError, match=f"{make.__name__} needs at least 2 stimuli, got 1"):
        metric.compute()


@pytest.mark.parametrize("make", MAKERS.values())
def test_feature_maps_without_a_unit_are_refused(make):
    with pytest.raises(ValueError, match=r"shape \(2, 3, 4, 4\).*'channel' .* or 'position'"):
        make().update(torch.ones(2, 3, 4, 4))


@pytest.mark.parametrize("make", MAKERS.values())
def test_units_of_another_shape_are_refused(make):
    metric = make(unit="key") if make is PopulationSparseness else make()
    metric.update(torch.ones(2, 3, 5) if make is PopulationSparseness else torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"units of shape \(1,\) after \(3,\)"):
        metric.update(torch.ones(2, 1, 5) if make is PopulationSparseness else torch.ones(2, 1))


def test_unknown_options_are_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="unit='neuron': choose one of channel, position"):
        LifetimeSparseness("neuron")
    with pytest.raises(ValueError, match="measure='ginni' is not known: choose gini"):
        PopulationSparseness("ginni")
    with pytest.raises(ValueError, match="measure='gini' has no threshold"):
        PopulationSparseness("gini", threshold=0.1)
    with pytest.raises(ValueError, match="gini needs at least 2 units, got 1"):
        PopulationSparseness("gini").update(torch.ones(3, 1))
