"""Networks in which a known number of patches matters: the profile says what was planted."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from scipy.stats import hypergeom
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from utils.measures.ablation.profiling import ablation_profile
from utils.measures.ablation.reliance import reliance
from utils.measures.ablation.units import mean_responses, units_of

N, MARKED, IMAGES = 64, 8, 60
STRONG = 9.0  # by how much the logits of marked patches exceed those of the others
GAIN = 3.0  # of the log-odds, for a mass of 1 on patches that hold evidence


def planted() -> nn.Module:
    """A ViT whose second block attends, by one head, to what is marked, and reads evidence there.

    Tokens have four entries: mark, evidence, class token, answer. The log-odds of its two classes
    are GAIN times Σ attention · evidence; the first block adds nothing.
    """
    model = VisionTransformer(
        img_size=32,
        patch_size=4,
        num_classes=2,
        embed_dim=4,
        depth=2,
        num_heads=1,
        mlp_ratio=1,
        qkv_bias=False,
        norm_layer=nn.Identity,
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.cls_token[..., 2] = 1
        for pixel, entry in ((0, 0), (1, 1)):  # the means of two colours
            model.patch_embed.proj.weight[entry, pixel] = 1 / 16
        query, key, value = model.blocks[1].attn.qkv.weight.split(4)
        query[0, 2] = 2.0  # over √4, the scale of a head of four
        key[0, 0], key[0, 2] = STRONG, -40.0  # nothing is left for the class token itself
        value[0, 1] = 1
        model.blocks[1].attn.proj.weight[3, 0] = 1
        model.head.weight[:, 3] = torch.tensor([GAIN, -GAIN]) / 2
    return model


def pictures(marked, evidence=None, seed=0):
    """Images [images, 3, 32, 32] of their patches' marks and evidence [images, 64], and labels."""
    evidence = marked if evidence is None else evidence
    labels = torch.arange(IMAGES) % 2
    signed = evidence * (1 - 2 * labels[:, None])  # class 0 is where the log-odds are above 0
    patches = torch.stack([marked, signed, torch.zeros_like(marked)], 1)
    pixels = patches.unflatten(-1, (8, 8)).repeat_interleave(4, -1).repeat_interleave(4, -2)
    return pixels, labels


def scattered(count=MARKED, seed=0):
    """`count` patches marked in each image, where chance puts them [images, 64]."""
    order = torch.rand(IMAGES, N, generator=torch.Generator().manual_seed(seed)).argsort(-1)
    return torch.zeros(IMAGES, N).scatter(-1, order[:, :count], 1.0)


def profile(images, labels, layer="blocks.1.attn", **options):
    batches = [(images, labels, torch.arange(len(images)))]
    options = dict(ranks=65, matched_draws=0) | options
    return ablation_profile(planted(), batches, layer, **options)


def estimates(profile, **options):
    return profile.summary(200, **options).set_index("measure")["estimate"]


F = np.arange(N + 1) / N
# What a patch gets: in all 1, and marked ones e^STRONG times as much as the others.
MASS = math.exp(STRONG) / (MARKED * math.exp(STRONG) + N - MARKED)
REST = 1 / (MARKED * math.exp(STRONG) + N - MARKED)


def nats(left):
    """KL in nats of log-odds GAIN · left of the whole, where the whole is MARKED · MASS."""
    s, t = GAIN * MARKED * MASS, GAIN * np.asarray(left)
    p, q = 1 / (1 + np.exp(-s)), 1 / (1 + np.exp(-t))
    return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


def expected(damage):
    """N, K, f₅₀⁻ and f₅₀⁺ of the closed form: `damage` of a number of marked patches kept."""
    k = np.arange(N + 1)
    top = damage(np.maximum(MARKED - k, 0))
    bottom = damage(np.minimum(N - k, MARKED))
    left = np.arange(MARKED + 1)
    random = np.array([hypergeom(N, MARKED, N - removed).pmf(left) @ damage(left) for removed in k])
    n = trapezoid(top - random, F) / top[-1]
    half = np.interp(top[-1] / 2, top[: MARKED + 1], F[: MARKED + 1])
    kept = np.interp(-top[-1] / 2, -damage(left), left / N)
    return n, trapezoid(random - bottom, F) / top[-1], half, kept


def test_the_network_is_what_was_planted():
    images, labels = pictures(scattered())
    with torch.no_grad():
        logits = planted()(images)
    margin = (logits[:, 0] - logits[:, 1]) * (1 - 2 * labels)
    torch.testing.assert_close(margin, torch.full((IMAGES,), GAIN * MARKED * MASS))


def test_necessity_sufficiency_and_half_function_are_those_of_the_planted_number():
    found = estimates(profile(*pictures(scattered()), draws=8))
    linear = expected(lambda left: GAIN * MASS * (MARKED - left))
    assert linear[:2] == pytest.approx([(1 - MARKED / N) / 2] * 2)  # exactly, and symmetric
    assert linear[2:] == pytest.approx([MARKED / N / 2] * 2)
    for suffix, closed in ((", margin", linear), ("", expected(lambda left: nats(left * MASS)))):
        n, k, half, kept = closed
        assert found[f"necessity N{suffix}"] == pytest.approx(n, abs=0.01)
        assert found[f"sufficiency K{suffix}"] == pytest.approx(k, abs=0.01)
        assert found[f"half removed, top{suffix}"] == pytest.approx(half, abs=1e-4)
        assert found[f"half kept, top{suffix}"] == pytest.approx(kept, abs=1e-4)
    # On KL the same network has N above K, because damage is convex; on the margin it has not.
    assert found["N − K"] > 0.05
    assert found["N − K, margin"] == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("marked", [2, 16])
def test_fewer_needed_patches_are_sparser_by_both_readings(marked):
    found = estimates(profile(*pictures(scattered(marked)), draws=4))
    assert found["half kept, top, margin"] == pytest.approx(marked / N / 2, abs=1e-3)
    assert found["necessity N, margin"] == pytest.approx((1 - marked / N) / 2, abs=0.02)


def test_what_the_strongest_few_keep():
    one = profile(*pictures(scattered()), draws=1)
    found = one.summary(200).set_index("measure")
    for percent, count in {1: 1, 3: 2, 5: 3}.items():
        row = found.loc[f"effect, top kept at {percent}%"]
        left = nats(count * MASS) / nats(0)
        assert row["estimate"] == pytest.approx(1 - left, abs=1e-4)
        assert row["note"] == f"{count} of 64 kept"
        assert found.loc[f"accuracy, top kept at {percent}%", "estimate"] == 1
    assert one.sentence() == (
        f"With only the strongest 3 of 64 patches in each head kept, {100 * (1 - left):.0f} % of "
        "the effect and an accuracy of 100.0 % remain (intact 100.0 %, with none 50.0 %)."
    )
    with pytest.raises(ValueError, match=r"0.5 of the units .* not among \[0.01, 0.03, 0.05\]"):
        one.sentence(0.5)


def test_where_only_the_place_counts_weights_elsewhere_do_as_much_damage_as_none():
    images, labels = pictures(scattered())
    found = estimates(profile(images, labels, draws=1, place_draws=20))
    whole = GAIN * MARKED * MASS
    even = GAIN * MARKED / N  # what a mass of 1, spread evenly, brings to the evidence
    assert found["reliance, margin"] == pytest.approx(whole, abs=1e-4)
    assert found["damage, uniform, margin"] == pytest.approx(whole - even, abs=1e-4)
    assert found["damage, uniform, KL"] == pytest.approx(nats(MARKED / N), abs=1e-4)
    # The same in the mean over permutations.
    assert found["damage, permuted, margin"] == pytest.approx(whole - even, abs=0.02 * whole)
    assert found["damage, uniform − removed, margin"] == pytest.approx(-even, abs=1e-4)
    left = np.arange(MARKED + 1)  # marked weights that meet evidence
    met = hypergeom(N, MARKED, MARKED).pmf(left) @ nats(left * MASS + (MARKED - left) * REST)
    assert found["damage, permuted, KL"] == pytest.approx(met, abs=0.01)
    # No mass is lost by `renormalise`: what is needed is needed for its place.
    kept = estimates(profile(images, labels, draws=4, value="renormalise"))
    k = np.arange(N)
    share = np.maximum(MARKED - k, 0) * MASS
    top = np.append(1 - share / (share + np.minimum(N - k, N - MARKED) * REST), 1)
    expected = trapezoid(top, F)
    random = trapezoid(profile_margin(images, labels, "renormalise"), F)
    assert kept["necessity N, margin"] == pytest.approx(expected - random, abs=0.02)
    assert kept["necessity N, margin"] > 0.6


def profile_margin(images, labels, value):
    """The mean random curve on the margin, as a share of all: written out mask by mask."""
    marked = images[:, 0, ::4, ::4].flatten(1).double()
    weight = torch.where(marked > 0, MASS, REST)
    generator = torch.Generator().manual_seed(1)
    order = torch.rand(4, *marked.shape, generator=generator).argsort(-1)
    curves = []
    for k in range(N + 1):
        kept = torch.ones_like(order, dtype=torch.float64).scatter(-1, order[..., :k], 0.0)
        mass = (kept * weight).sum(-1)
        share = (kept * weight * marked).sum(-1)
        if value == "renormalise":
            share = torch.where(mass > 0, share / mass.clamp(min=1e-12), 0)
        curves.append((1 - share / (MARKED * MASS)).mean())
    return np.array(curves)


def test_where_only_the_amount_counts_weights_elsewhere_do_no_damage():
    images, labels = pictures(scattered(), torch.ones(IMAGES, N))  # all patches say the same
    found = estimates(profile(images, labels, draws=4, place_draws=4))
    assert found["reliance, margin"] == pytest.approx(GAIN, abs=1e-4)
    for put in ("permuted", "uniform"):
        assert found[f"damage, {put}, margin"] == pytest.approx(0, abs=1e-5)
        assert found[f"damage, {put}, KL"] == pytest.approx(0, abs=1e-6)
        assert found[f"damage, {put} − removed, margin"] == pytest.approx(-GAIN, abs=1e-4)
    # N alone cannot tell it from the other: the strongest hold the mass.
    assert found["necessity N, margin"] == pytest.approx((1 - MARKED / N) / 2, abs=0.02)
    kept = estimates(profile(images, labels, draws=2, value="renormalise"))
    assert kept["necessity N, margin"] == pytest.approx(0, abs=1e-4)
    assert kept["sufficiency K, margin"] == pytest.approx(0, abs=1e-4)


def test_curves_against_mass_say_that_amount_is_all_there_is():
    images, labels = pictures(scattered(), torch.ones(IMAGES, N))
    table = profile(images, labels, draws=2, matched_draws=2).table(10)
    lost = (table["margin"].max() - table["margin"]) / GAIN
    np.testing.assert_allclose(lost, table["mass"], atol=1e-4)
    assert set(table["order"]) == {"top", "bottom", "random", "matched", "shrink"}
    k = table.set_index(["order", "k"])["mass"]
    assert k["top", 4] == pytest.approx(4 * MASS, abs=1e-5)
    assert k["bottom", 4] == pytest.approx(4 * REST, abs=1e-5)
    assert k["matched", 4] == k["shrink", 4] == k["top", 4]
    assert k["random", 32] == pytest.approx(0.5, abs=0.05)


def middle():
    """The four patches in the middle, and two of the next ring on either side, in every image."""
    one = torch.zeros(8, 8)
    one[3:5, 3:5] = 1
    one[2, 3:5] = one[5, 3:5] = 1
    return one.flatten().expand(IMAGES, N)


def test_a_fixed_mask_reaches_all_of_n_where_the_same_patches_matter_in_every_image():
    found = estimates(
        profile(*pictures(middle()), draws=4, fixed=("centre", "mean map"), place_draws=2)
    )
    assert found["necessity N, mean map"] == pytest.approx(found["necessity N"], abs=1e-6)
    assert found["necessity N, beyond mean map"] == pytest.approx(0, abs=1e-6)
    # Of the ring of eight around the middle four the disc takes others first: nearly all of N.
    assert 0 < found["necessity N, beyond centre"] < 0.2 * found["necessity N"]


def test_a_fixed_mask_reaches_nothing_where_chance_places_what_matters():
    images, labels = pictures(scattered())
    units = units_of(planted(), "blocks.1.attn", "attention")
    means = mean_responses(units, [pictures(scattered(seed=1))])
    options = dict(draws=8, fixed=("centre", "mean map"))
    found = profile(images, labels, means=means, **options).summary(500).set_index("measure")
    n = found.loc["necessity N", "estimate"]
    for name in ("centre", "mean map"):
        reached = found.loc[f"necessity N, {name}", "estimate"]
        assert abs(reached) < 0.08 * n
        row = found.loc[f"necessity N, beyond {name}"]
        assert row["estimate"] == pytest.approx(n - reached)
        assert row["low"] > 0.8 * n
    # In the mean of few images an image finds its own share again.
    seen = estimates(profile(images, labels, **options))
    assert seen["necessity N, mean map"] > 0.15 * n


def test_a_fixed_order_is_the_order_of_the_whole_profile_if_it_is_asked_for():
    images, labels = pictures(scattered())
    extra = profile(images, labels, draws=1, fixed=("centre", "mean map"))
    for order in ("centre", "mean map"):
        own = profile(images, labels, draws=1, order=order)
        np.testing.assert_allclose(own.kl["top"], extra.kl[order], atol=1e-6)
        np.testing.assert_allclose(own.mass["top"], extra.mass[order], atol=1e-6)
        assert own.about["order"] == order
    nearest = own_scores(images, labels)
    assert nearest.argsort(descending=True, stable=True)[:4].tolist() == [27, 28, 35, 36]


def own_scores(images, labels):
    return torch.as_tensor(profile(images, labels, draws=1, ranks=3, order="centre").scores[0])


@pytest.mark.parametrize("value", ["zero", "mean", "renormalise", "resample"])
def test_a_network_whose_logits_do_not_depend_on_the_layer_has_no_numbers(value):
    images, labels = pictures(scattered())
    one = profile(images, labels, "blocks.0.attn", draws=2, ranks=5, value=value, place_draws=1)
    for table in (one.summary(200), one.summary(200, reliance=one.reliance())):
        found = table.set_index("measure")
        assert found.loc["intact accuracy", "estimate"] == 1
        assert found.loc["reliance, KL", "estimate"] == pytest.approx(0, abs=1e-9)
        relative = found[found["note"] == "no reliance"]
        assert relative["estimate"].isna().all()
        assert {"necessity N", "half kept, top", "necessity N, margin"} <= set(relative.index)
        assert "effect, top kept at 5%" in relative.index
    assert one.sentence() == (
        "The network does not rely on these patches in each head: there is no effect to keep."
    )


def test_reliance_on_more_images_decides_what_accuracy_on_few_cannot():
    images, labels = pictures(scattered())
    model, batches = planted(), [(images, labels, torch.arange(IMAGES))]
    found = reliance(model, batches, "blocks.1.attn")
    assert found.kl == pytest.approx(np.full(IMAGES, nats(0)), abs=1e-5)
    assert found.estimate().estimate == pytest.approx(nats(0), abs=1e-5)
    assert found.intact.all()
    assert found.removed.mean() == 0.5  # log-odds of zero: class 0
    assert found.exists()
    few = ablation_profile(model, batches, "blocks.1.attn", ranks=5, draws=1, matched_draws=0)
    few.right["top"][:, :, -1] = 1  # as if accuracy showed nothing
    assert math.isnan(estimates(few)["necessity N"])
    on_kl = few.summary(200, reliance=few.reliance()).set_index("measure")
    assert np.isfinite(on_kl.loc["necessity N", "estimate"])
    assert on_kl.loc["existence, KL", "low"] >= 0.01


def test_reliance_below_the_bound_or_at_chance_is_none():
    images, labels = pictures(scattered())
    model, batches = planted(), [(images, labels, torch.arange(IMAGES))]
    assert not reliance(model, batches, "blocks.0.attn").exists()
    assert not reliance(model, [(images, 1 - labels, torch.arange(IMAGES))], "*.1.attn").exists()
    with torch.no_grad():
        model.head.weight *= 0.05  # KL of 0.0028 nats
    assert not reliance(model, batches, "blocks.1.attn").exists()
