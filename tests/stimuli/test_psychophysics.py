"""Stimuli by formula: what the formulas say, and that nothing depends on the minibatch."""

import math

import pytest
import torch

from utils.stimuli import psychophysics as pp


@pytest.fixture
def images():
    return torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_grating_has_all_its_power_at_its_frequency():
    power = torch.fft.rfft(pp.grating(64, cycles=4).double(), dim=1).abs().mean(0)
    assert power.argmax() == 4
    assert power[4] / power.sum() > 0.999


def test_a_grating_without_phase_is_bright_in_the_centre():
    assert pp.grating(65, cycles=4)[32, 32] == 1
    assert pp.grating(65, cycles=4, phase=math.pi)[32, 32] == -1


def test_orientation_turns_bars():
    assert torch.allclose(pp.grating(33, 3, math.pi / 2), pp.grating(33, 3).T, atol=1e-5)
    leaning_left = pp.grating(33, 3, math.pi / 4)  # anticlockwise: from upper left to lower right
    assert torch.allclose(leaning_left.diag(), torch.ones(33), atol=1e-5)


def test_gabors_a_quarter_period_apart_have_the_same_energy_at_every_phase():
    even, odd = (pp.gabor(65, 6, phase=p).double() for p in (0, math.pi / 2))
    energies = []
    for phase in torch.linspace(0, 2 * math.pi, 9).tolist():
        wave = pp.grating(65, 6, phase=phase).double()
        energies.append(float((even * wave).sum() ** 2 + (odd * wave).sum() ** 2))
    assert max(energies) / min(energies) < 1.01


def test_a_difference_of_gaussians_does_not_answer_to_uniform_light():
    field = pp.difference_of_gaussians(33)
    assert abs(field.sum().item()) < 1e-6
    assert field[16, 16] == field.max()
    assert field.min() < 0


def test_phase_scrambling_keeps_amplitudes_and_the_mean(images):
    scrambled = pp.phase_scramble(images)
    before, after = (torch.fft.fft2(x.double()).abs() for x in (images, scrambled))
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(images.mean((2, 3)), scrambled.mean((2, 3)))
    assert (images - scrambled).abs().mean() > 0.1


def test_permuted_patches_are_the_same_patches(images):
    mixed = pp.permute_patches(images, 8)

    def blocks(x):
        return x.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 1, 4, 5).flatten(1, 2).flatten(2)

    for before, after in zip(blocks(images), blocks(mixed), strict=True):
        assert {tuple(b.tolist()) for b in before} == {tuple(a.tolist()) for a in after}
    assert not torch.equal(mixed, images)


def test_one_block_as_large_as_the_image_changes_nothing(images):
    assert torch.equal(pp.permute_patches(images, 32), images)


def test_a_shift_moves_pixels_and_repeats_the_border():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    assert pp.shift(image, 1, 0)[0, 0].tolist() == [
        [0, 1, 2, 3],
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
    ]
    assert pp.shift(image, 0, -2)[0, 0, 0].tolist() == [2, 3, 3, 3]
    assert torch.equal(pp.shift(image, 0, 0), image)


@pytest.mark.parametrize("kind", pp.CORRUPTIONS)
def test_corruptions_grow_with_severity_and_stay_in_range(images, kind):
    images = 0.2 + 0.6 * images  # room at both ends
    distances = []
    for severity in pp.SEVERITIES:
        changed = pp.corrupt(images, kind, severity)
        assert changed.shape == images.shape
        assert 0 <= changed.min() <= changed.max() <= 1
        distances.append((changed - images).abs().mean().item())
    assert distances == sorted(distances)
    assert distances[0] > 0


def test_contrast_keeps_the_mean_and_takes_its_share(images):
    changed = pp.corrupt(images, "contrast", 5)
    torch.testing.assert_close(changed.mean((2, 3)), images.mean((2, 3)))
    torch.testing.assert_close(changed.std((2, 3)), 0.2 * images.std((2, 3)))


@pytest.mark.parametrize(
    "change",
    [
        lambda x, i: pp.phase_scramble(x, 3, i),
        lambda x, i: pp.permute_patches(x, 4, 3, i),
        *(lambda x, i, kind=kind: pp.corrupt(x, kind, 3, 3, i) for kind in pp.CORRUPTIONS),
    ],
    ids=["phase", "patches", *pp.CORRUPTIONS],
)
def test_a_changed_image_depends_on_its_index_and_not_on_its_minibatch(images, change):
    index = torch.arange(6)
    whole = change(images, index)
    parts = torch.cat([change(images[2:], index[2:]), change(images[:2], index[:2])])
    torch.testing.assert_close(whole.roll(-2, 0), parts, atol=1e-6, rtol=0)


def test_another_seed_gives_other_noise(images):
    one, other = (pp.corrupt(images, "noise", 3, seed) for seed in (0, 1))
    assert not torch.equal(one, other)


def test_what_cannot_be_made_is_refused(images):
    with pytest.raises(ValueError, match="no corruption 'fog'; choose one of noise"):
        pp.corrupt(images, "fog", 1)
    with pytest.raises(ValueError, match="from 1 to 5, not 6"):
        pp.corrupt(images, "blur", 6)
    with pytest.raises(ValueError, match="outside of 0 … 1 are not corrupted"):
        pp.corrupt(images - 0.5, "blur", 1)
    with pytest.raises(ValueError, match="Blocks of 5 pixels do not fill 32 × 32"):
        pp.permute_patches(images, 5)
    with pytest.raises(ValueError, match="leaves nothing of 32 × 32"):
        pp.shift(images, 0, 32)
    with pytest.raises(ValueError, match="6 images, but 5 indices"):
        pp.phase_scramble(images, 0, torch.arange(5))
    with pytest.raises(ValueError, match=r"not \[3, 32, 32\]"):
        pp.phase_scramble(images[0])
