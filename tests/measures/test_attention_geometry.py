import math

import numpy as np
import pytest
import torch

from utils.measures.attention_geometry import (
    mean_attention_distance,
    offset_shares,
    rollout,
    uniform_attention_distance,
)


def random_maps(*shape, seed=0):
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=shape)) * 2
    return logits.softmax(-1)


def uniform_maps(tokens, batch=1, heads=1):
    return torch.full((batch, heads, tokens, tokens), 1 / tokens)


def test_two_patches_are_one_patch_apart():
    for grid in ((2, 1), (1, 2)):
        assert uniform_attention_distance(grid, 16) == 8  # half of the weight stays in place
        assert mean_attention_distance(uniform_maps(2), grid, 16, prefix=0).item() == 8
        swap = torch.tensor([[[[0.0, 1.0], [1.0, 0.0]]]])
        assert mean_attention_distance(swap, grid, 16, prefix=0).item() == 16


def test_a_square_of_four_patches_by_hand():
    expected = 10 * (0 + 1 + 1 + math.sqrt(2)) / 4
    assert uniform_attention_distance((2, 2), 10) == pytest.approx(expected)


@pytest.mark.parametrize("grid", [(1, 1), (3, 5), (14, 14)])
def test_uniform_attention_has_the_uniform_distance(grid):
    found = mean_attention_distance(uniform_maps(grid[0] * grid[1]), grid, 16, prefix=0)
    assert found.item() == pytest.approx(uniform_attention_distance(grid, 16), rel=1e-6)


def test_the_uniform_distance_of_a_large_square_nears_that_of_two_random_points():
    # 0.5214 sides, the mean distance of two points in the unit square
    assert uniform_attention_distance((60, 60), 1 / 60) == pytest.approx(0.5214, abs=1e-3)


def test_attention_to_itself_has_no_distance():
    maps = torch.eye(12).expand(2, 3, 12, 12)
    assert torch.equal(mean_attention_distance(maps, (3, 4), 16, prefix=0), torch.zeros(2, 3))


def test_prefix_queries_and_keys_do_not_count():
    maps = random_maps(2, 3, 14, 14)
    patches = maps[..., 2:, 2:]
    expected = mean_attention_distance(
        patches / patches.sum(-1, keepdim=True), (3, 4), 16, prefix=0
    )
    torch.testing.assert_close(mean_attention_distance(maps, (3, 4), 16, prefix=2), expected)


def test_distances_equal_a_reference_written_as_loops():
    rows, columns, patch = 3, 5, 8
    maps = random_maps(2, 2, 16, 16)
    expected = np.zeros((2, 2))
    for b, h in np.ndindex(2, 2):
        for q in range(15):
            row = maps[b, h, 1 + q, 1:].numpy()
            for k in range(15):
                away = math.dist(divmod(q, columns), divmod(k, columns))
                expected[b, h] += patch * away * row[k] / row.sum() / 15
    found = mean_attention_distance(maps, (rows, columns), patch, prefix=1)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    found = mean_attention_distance(maps.float(), (rows, columns), patch, prefix=1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_rows_spent_on_the_prefix_make_the_head_nan():
    maps = random_maps(1, 2, 5, 5)
    maps[0, 1, 3] = torch.eye(5)[0]
    assert mean_attention_distance(maps, (2, 2), 16, prefix=1).isnan().tolist() == [[False, True]]


def test_maps_that_do_not_fit_the_grid_are_refused():
    for bad in (torch.ones(1, 1, 9, 9), torch.ones(1, 1, 1, 5), torch.ones(1, 5, 5)):
        with pytest.raises(ValueError, match=r"needs maps \[batch, heads, 5, 5\] for 1 prefix"):
            mean_attention_distance(bad, (2, 2), 16, prefix=1)
    with pytest.raises(ValueError, match="mean_attention_distance got NaN"):
        mean_attention_distance(torch.full((1, 1, 4, 4), math.nan), (2, 2), 16, prefix=0)


def test_rollout_of_identity_is_identity():
    identity = torch.eye(5).expand(2, 3, 5, 5)
    torch.testing.assert_close(rollout([identity] * 4), torch.eye(5).expand(2, 5, 5))


def test_rollout_of_one_uniform_layer_is_half_identity_half_uniform():
    expected = (torch.eye(4) + 1 / 4) / 2
    torch.testing.assert_close(rollout([uniform_maps(4, heads=2)])[0], expected)


def test_rollout_equals_the_product_from_the_last_layer_to_the_first():
    layers = [random_maps(2, 3, 6, 6, seed=seed) for seed in range(4)]
    expected = np.stack([np.eye(6)] * 2)
    for layer in layers:
        expected = (0.5 * layer.numpy().mean(1) + 0.5 * np.eye(6)) @ expected
    found = rollout(layers)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-12)
    found = rollout({str(i): layer.half() for i, layer in enumerate(layers)}.values())
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_rollout_refuses_what_it_cannot_multiply():
    with pytest.raises(ValueError, match="rollout got no maps"):
        rollout([])
    with pytest.raises(ValueError, match=r"\(2, 3, 1, 6\) in map 0: read all rows"):
        rollout([torch.ones(2, 3, 1, 6)])
    with pytest.raises(ValueError, match="same tokens in every layer"):
        rollout([uniform_maps(4), uniform_maps(6)])
    with pytest.raises(ValueError, match="rollout got NaN"):
        rollout([torch.full((1, 1, 4, 4), math.nan)])
    with pytest.raises(ValueError, match="rollout is defined for"):
        rollout([-uniform_maps(4)])


def test_a_head_that_looks_at_one_offset_has_all_of_its_share_there():
    down, right, rows, columns = 1, -1, 4, 5
    maps = uniform_maps(rows * columns).clone()
    for row in range(rows - down):
        for column in range(-right, columns):
            query, key = row * columns + column, (row + down) * columns + column + right
            maps[0, 0, query] = torch.eye(rows * columns)[key]
    shares = offset_shares(maps, (rows, columns), prefix=0)
    assert shares[0, 0, 1 + down, 1 + right] == 1
    assert shares[0, 0].flatten().sort().values[-2] < 0.2


def test_shares_at_offsets_are_means_over_the_queries_whose_key_is_in_the_image():
    grid, prefix, reach = (3, 4), 2, 2
    maps = random_maps(2, 3, 14, 14)
    patches = maps[..., prefix:, prefix:]
    patches = (patches / patches.sum(-1, keepdim=True)).unflatten(-1, grid).unflatten(2, grid)
    found = offset_shares(maps, grid, prefix, reach)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            inside = [
                patches[:, :, row, column, row + down, column + right]
                for row in range(max(0, -down), min(3, 3 - down))
                for column in range(max(0, -right), min(4, 4 - right))
            ]
            wanted = torch.stack(inside).mean(0)
            assert torch.allclose(found[..., reach + down, reach + right], wanted)


def test_uniform_attention_gives_every_offset_the_same_share():
    shares = offset_shares(uniform_maps(13), (3, 4), prefix=1, reach=2)
    assert torch.allclose(shares, torch.full_like(shares, 1 / 12))


def test_offsets_that_no_two_patches_have_are_refused():
    with pytest.raises(ValueError, match="3 × 4 grid are 3 apart"):
        offset_shares(uniform_maps(12), (3, 4), prefix=0, reach=3)
