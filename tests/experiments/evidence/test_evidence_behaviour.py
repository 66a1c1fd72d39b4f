"""Evidence on what networks decide: made-up tables of which arithmetic knows the answer."""

import math

import pytest
from helpers.tables import accuracy, behaviour, by_criterion, found, judged, seeds, write

from experiments.evidence import rules
from experiments.evidence.behaviour import pairs
from experiments.evidence.recorded import PUBLISHED
from experiments.training.groups import GROUPS

VIT, CNN = "vit-d6-h4", "resnet-d20"
(FEWER,) = GROUPS["matched"].names
VITS, CNNS = [f"vit-d{d}-h4" for d in (2, 4, 6)], [f"resnet-d{d}" for d in (8, 14, 20)]
ALONE = "vit-d12-h4"


@pytest.fixture
def equal(tmp_path):
    """A folder where VITS and CNNS are of equal accuracy one by one, and a ViT has no partner."""
    rows = [
        accuracy(name, value)
        for kind in (VITS, CNNS)
        for name, value in zip(kind, (0.80, 0.85, 0.90), strict=True)
    ]
    write(tmp_path, "accuracy", [*rows, accuracy(ALONE, 0.6)])
    return tmp_path


# Pairs.


def test_pairs_are_as_many_as_there_can_be_and_no_network_is_in_two():
    values = {"v1": 0.900, "v2": 0.907, "v3": 0.5, "c1": 0.901, "c2": 0.893}
    chosen = pairs(values, ["v1", "v2", "v3"], ["c1", "c2"])
    # v1 is nearest to c1, but then v2 would be left alone.
    assert sorted(chosen) == [("v1", "c2"), ("v2", "c1")]
    assert pairs(values, ["v3"], ["c1", "c2"]) == []


def shifts(values):
    return [behaviour(name, "consistency", "shift", value) for name, value in values.items()]


def test_shifts_are_compared_at_equal_accuracy_and_on_enough_images(equal):
    values = {name: 0.5 + 0.01 * i for i, name in enumerate(VITS)}
    values |= {name: 0.7 + 0.01 * i for i, name in enumerate(CNNS)}
    rows = shifts(values | {ALONE: 0.0})
    write(equal, "behaviour", rows)
    evidence = found("ti", equal)
    assert evidence["estimate"].tolist() == pytest.approx([0.2])
    assert evidence["models"].tolist() == [3]
    assert judged(evidence, "ti") == (rules.SUPPORTED, "")
    write(equal, "behaviour", [row | {"n": 1000} for row in rows])
    assert found("ti", equal).empty


def test_accuracies_on_few_images_make_no_pair(tmp_path):
    write(tmp_path, "behaviour", shifts({VIT: 0.5, CNN: 0.9}))
    for n, waits in ((10_000, False), (1000, True)):
        write(tmp_path, "accuracy", [accuracy(name, 0.9) | {"n": n} for name in (VIT, CNN)])
        assert found("ti", tmp_path).empty == waits


def test_a_cnn_of_fewer_images_makes_a_pair_where_no_cnn_of_all_is_near(tmp_path):
    values = {VIT: 0.92, CNN: 0.95, FEWER: 0.925}
    write(tmp_path, "accuracy", [accuracy(*each) for each in values.items()])
    write(tmp_path, "behaviour", shifts({VIT: 0.5, CNN: 0.9, FEWER: 0.8}))
    evidence = found("ti", tmp_path)
    assert evidence["estimate"].tolist() == pytest.approx([0.3])
    assert evidence["models"].tolist() == [1]
    assert judged(evidence, "ti")[0] == rules.UNDECIDED  # a single pair has no interval


def test_on_photographs_published_models_of_plain_recipes_are_paired(tmp_path):
    names = [name for kind in (VIT, CNN) for name in PUBLISHED[kind]]
    assert [name.split(".")[1] for name in names] == [*["fb_in1k"] * 2, *["a1_in1k"] * 2]
    clean = dict(zip(names, (0.72, 0.80, 0.715, 0.804), strict=True))
    clean["resnet34.a1_in1k"] = 0.72  # of another recipe than those compared
    write(tmp_path, "accuracy", [accuracy(*each) for each in clean.items()], "imagenet")
    kept = dict(zip(names, (0.70, 0.71, 0.90, 0.912), strict=True)) | {"resnet34.a1_in1k": 0.0}
    write(tmp_path, "behaviour", shifts(kept), "imagenet")
    evidence = found("ti", tmp_path, "imagenet")
    assert evidence["estimate"].tolist() == pytest.approx([0.201])
    assert evidence["models"].tolist() == [2]
    assert judged(evidence, "ti") == (rules.SUPPORTED, "")


# Attacks and corruptions.


def test_an_attack_is_compared_at_the_strength_that_halves_the_cnn(equal):
    rows = []
    for i, (vit, cnn) in enumerate(zip(VITS, CNNS, strict=True)):
        for level, kept in ((1, 0.9), (2, 0.55), (4, 0.1)):
            rows.append(behaviour(cnn, "kept", "pgd", kept, level))
            rows.append(behaviour(vit, "kept", "pgd", 0.0, level))
            rows.append(behaviour(cnn, "accuracy", "pgd", 0.4, level))
            value = 0.4 + 0.001 * (i - 1) + (0.0 if level == 2 else 0.3)
            rows.append(behaviour(vit, "accuracy", "pgd", value, level))
    write(equal, "attack", rows)
    evidence = found("ba1", equal)
    assert evidence["estimate"].tolist() == pytest.approx([0.0], abs=1e-9)
    assert judged(evidence, "ba1") == (rules.SUPPORTED, "")


def test_without_networks_of_equal_accuracy_nothing_is_compared(tmp_path):
    write(tmp_path, "accuracy", [accuracy(VIT, 0.8), accuracy(CNN, 0.9)])
    names = (VIT, CNN)
    attack = [behaviour(n, q, "pgd", 0.5) for n in names for q in ("accuracy", "kept")]
    write(tmp_path, "attack", attack)
    kept = [behaviour(name, "kept", "noise", 0.5) for name in names]
    write(tmp_path, "behaviour", kept + shifts(dict.fromkeys(names, 0.5)))
    conflict = [behaviour(n, q, "conflict", 0.5) for n in names for q in ("shape_bias", "decided")]
    write(tmp_path, "cue-conflict", conflict)
    for claim in ("ba1", "ba2", "tu2", "ti"):
        assert found(claim, tmp_path).empty, claim


def corruptions(gaps):
    """What is left under each corruption: half of the CNNs, and of ViTs so much more."""
    for kind, each in gaps.items():
        for vit, cnn, gap in zip(VITS, CNNS, each, strict=True):
            yield behaviour(vit, "kept", kind, 0.5 + gap)
            yield behaviour(cnn, "kept", kind, 0.5)


SHOWN, OPEN, SMALL, LOST = (
    (0.10, 0.11, 0.12), (0.10, -0.10, 0.2), (0.001, 0.002, 0.003), (-0.1, -0.11, -0.12)
)  # fmt: skip


def test_corruptions_are_counted_with_those_that_are_open(equal):
    gaps = {"noise": SHOWN, "blur": OPEN, "fog": SMALL, "snow": LOST}
    gaps["permutation"] = (0.5, 0.5, 0.5)  # no corruption
    write(equal, "behaviour", list(corruptions(gaps)))
    evidence = found("ba2", equal)
    (numbers,) = evidence[["estimate", "low", "high"]].to_numpy()
    assert numbers.tolist() == pytest.approx([0.25, 0.25, 0.5])
    assert evidence["models"].tolist() == [3]  # pairs
    assert judged(evidence, "ba2") == (rules.MIXED, "corruptions")


def test_an_advantage_under_most_corruptions_is_one_out_of_distribution(equal):
    gaps = dict(zip(("noise", "blur", "fog", "snow"), [SHOWN] * 3 + [OPEN], strict=True))
    write(equal, "behaviour", list(corruptions(gaps)))
    assert judged(found("ba2", equal), "ba2") == (rules.SUPPORTED, "")


def test_severities_of_a_corruption_are_one_case(equal):
    rows = [r | {"level": level} for level in (1, 2) for r in corruptions({"noise": SHOWN})]
    for each in rows:  # less is left at the second, and the gap is ten times as small
        if each["level"] == 2 and each["model"] in VITS:
            each["value"] -= 0.09
    write(equal, "behaviour", rows)
    assert found("ba2", equal)["estimate"].tolist() == [1]


# Shape or texture.


def test_shape_bias_is_compared_at_equal_accuracy(equal):
    rows = []
    for i, (vit, cnn) in enumerate(zip(VITS, CNNS, strict=True)):
        for name, bias in ((vit, 0.4 + 0.01 * i), (cnn, 0.2)):
            rows.append(behaviour(name, "shape_bias", "conflict", bias, n=900))
            rows.append(behaviour(name, "decided", "conflict", 0.8, n=900))
    write(equal, "cue-conflict", rows)
    evidence = found("tu2", equal)
    assert by_criterion(evidence)["estimate"].to_dict() == pytest.approx(
        {("bias", "main"): 0.21, ("decided", "ViT"): 0.8, ("decided", "CNN"): 0.8}
    )
    assert judged(evidence, "tu2") == (rules.SUPPORTED, "")


def test_one_published_pair_is_no_evidence_on_architecture(tmp_path):
    rows = [
        behaviour(name, quantity, "conflict", 0.4, n=1280)
        for kind in (VIT, CNN)
        for name in PUBLISHED[kind]
        for quantity in ("shape_bias", "decided", "error_consistency")
    ]
    write(tmp_path, "cue-conflict", rows, "imagenet")
    write(tmp_path, "accuracy", [accuracy(r["model"], 0.8) for r in rows[::3]], "imagenet")
    assert found("tu1", tmp_path, "imagenet").empty
    assert found("tu2", tmp_path, "imagenet").empty


# Order and place.


def permuted(values):
    """What is kept above chance of each network with blocks of each size permuted."""
    for name, by_block in values.items():
        for block, value in by_block.items():
            yield behaviour(name, "kept_above_chance", "permutation", value, block)


def test_blocks_smaller_than_a_token_are_set_apart_with_and_without_positions(tmp_path):
    values = {}
    for i in range(3):
        shift = 0.002 * i
        for design, large, small in ((VIT, 0.8, 0.3), (f"{VIT}-nopos", 0.9, 0.4), (CNN, 0.5, 0.2)):
            # Tokens have four pixels.
            by_block = {8: large + 0.1, 4: large - 0.1, 2: small}
            values[seeds(design)[i]] = {block: x + shift for block, x in by_block.items()}
    write(tmp_path, "behaviour", list(permuted(values)))
    evidence = found("pe", tmp_path)
    assert by_criterion(evidence)["estimate"].to_dict() == pytest.approx(
        {
            ("not smaller tokens", "with position embedding"): 0.3,
            ("not smaller tokens", "without position embedding"): 0.4,
            ("smaller tokens", "with position embedding"): 0.1,
            ("smaller tokens", "without position embedding"): 0.2,
        }
    )
    assert set(evidence["models"]) == {6}
    assert judged(evidence, "pe") == (rules.SUPPORTED, "")


def test_tokens_of_published_models_have_sixteen_pixels(tmp_path):
    large = {name: 0.8 for name in PUBLISHED[VIT]} | {name: 0.5 for name in PUBLISHED[CNN]}
    small = {name: 0.6 for name in PUBLISHED[VIT]} | {name: 0.5 for name in PUBLISHED[CNN]}
    values = {name: {32: large[name], 16: large[name], 8: small[name]} for name in large}
    write(tmp_path, "behaviour", list(permuted(values)), "imagenet")
    gaps = found("pe", tmp_path, "imagenet").set_index("criterion")
    assert gaps["estimate"].to_dict() == pytest.approx(
        {"not smaller tokens": 0.3, "smaller tokens": 0.1}
    )
    assert set(gaps["variant"]) == {"with position embedding"}
    assert not any(map(math.isinf, gaps["low"]))  # over published models
