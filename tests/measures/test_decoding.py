"""Thresholds and decoders on responses small enough to do by hand."""

import numpy as np
import pytest
import torch

from utils.measures.decoding import (
    RIDGE,
    PlaceDecoder,
    decode_classes,
    nearest_centroid_accuracy,
    threshold,
)

GRID = torch.tensor([[4.0, 1.0, -9.0, 0.5], [3.0, 2.0, 0.1, 8.0]])


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_largest_responses_are_those_across_all_images_by_size():
    assert threshold(GRID, 0.25, "top only").tolist() == [[0, 0, -9, 0], [0, 0, 0, 8]]
    kept = threshold(GRID, 0.25, "top excluded")
    torch.testing.assert_close(kept, torch.tensor([[4, 1, 0, 0.5], [3, 2, 0.1, 0]]))


def test_relative_to_its_own_peak_every_unit_has_its_day():
    relative = threshold(GRID, 0.5, "top only", peak=True)
    assert relative.tolist() == [[4, 0, -9, 0], [0, 2, 0, 8]]


def test_the_two_parts_add_up_to_the_whole():
    x = draw(3, 20, 7)
    whole = sum(threshold(x, 0.3, part) for part in ("top only", "top excluded"))
    torch.testing.assert_close(whole, x)


def test_a_dead_unit_is_never_at_its_peak():
    x = torch.tensor([[0.0, 1.0], [0.0, 3.0]])
    assert threshold(x, 0.5, "top only", peak=True).tolist() == [[0, 1], [0, 3]]


def test_the_nearest_centroid_is_found_as_by_hand():
    train, labels = torch.tensor([[0.0, 0], [2, 0], [10, 0]]), torch.tensor([3, 3, 7])
    test = torch.tensor([[5.4, 0.0], [5.6, 0.0]])  # means at 1 and 10
    assert nearest_centroid_accuracy(train, labels, test, torch.tensor([3, 7])) == 1
    assert nearest_centroid_accuracy(train, labels, test, torch.tensor([7, 7])) == 0.5


def test_classes_are_decoded_from_the_other_half_of_the_images():
    labels = torch.arange(4).repeat_interleave(10)
    responses = 3 * torch.eye(4)[labels] + 0.1 * draw(40, 4)
    found = decode_classes(responses, labels, [1.0, 0.25, 0.0])
    assert found.accuracy.tolist() == pytest.approx([1, 1, 0.25])


def test_decoding_of_classes_is_that_of_a_loop_however_they_are_ordered():
    labels = torch.arange(30) % 2  # odd images are all of one class
    responses = 0.6 * labels[:, None] + draw(30, 5)
    order = torch.cat([torch.where(labels == label)[0] for label in (0, 1)])
    accuracies = []
    for data, names in ((responses, labels), (responses[order], labels[order])):
        found = decode_classes(data, names, [1.0]).accuracy.item()
        halves = [[], []]
        for label in (0, 1):
            own = [i for i in range(30) if names[i] == label]
            halves[0] += own[::2]
            halves[1] += own[1::2]
        folds = []
        for train, test in (halves, halves[::-1]):
            means = [data[[i for i in train if names[i] == label]].mean(0) for label in (0, 1)]
            hits = 0
            for i in test:
                distances = [(data[i] - mean).norm().item() for mean in means]
                hits += distances.index(min(distances)) == names[i].item()
            folds.append(hits / len(test))
        assert 0.5 < found < 1
        assert found == pytest.approx(sum(folds) / 2)
        accuracies.append(found)
    assert accuracies[0] == accuracies[1]


def test_what_cannot_be_decoded_is_refused():
    with pytest.raises(ValueError, match="Class 2 is tested and was not trained"):
        decode_classes(draw(4, 3), torch.tensor([0, 2, 0, 0]), [1.0])
    with pytest.raises(ValueError, match="between 0 and 1, not 2"):
        threshold(GRID, 2, "top only")
    with pytest.raises(ValueError, match="not 'top'"):
        threshold(GRID, 0.5, "top")


def test_places_that_are_written_into_the_tokens_are_decoded_and_noise_is_at_chance():
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(400, 9, 5, generator=draw)
    marked = noise * torch.tensor([1, 50, 50, 50, 50]) + 1000  # a small mark, and large variation
    marked[..., 0] += 30 * torch.arange(9)
    for tokens, low, high in ((marked, 0.999, 1), (noise, 0.08, 0.145)):
        decoder = PlaceDecoder()
        decoder.update(tokens[:200])
        right = (decoder.decode(tokens[200:]) == torch.arange(9)).double().mean()
        assert low <= right <= high


def test_the_decoder_takes_the_nearest_mean_in_mahalanobis_distance():
    draw = torch.Generator().manual_seed(1)
    tokens = torch.randn(60, 4, 3, generator=draw).double()
    tokens += torch.randn(4, 3, generator=draw).double()
    decoder = PlaceDecoder()
    decoder.update(tokens)
    means = tokens.mean(0)
    within = np.cov((tokens - means).flatten(0, 1).mT.numpy(), ddof=4)
    within += np.eye(3) * (RIDGE * np.trace(within) / 3)
    distances = [
        [(x - m) @ np.linalg.solve(within, x - m) for m in means.numpy()]
        for x in tokens.flatten(0, 1).numpy()
    ]
    assert decoder.decode(tokens).flatten().tolist() == np.argmin(distances, 1).tolist()
