"""The Lab's networks, ablations and pictures in Node, against PyTorch, Pillow and the library."""

import json
import re
import shutil
import struct
from functools import cache

import numpy as np
import pytest
import safetensors.torch
import torch
from helpers import lab_node
from helpers.lab_node import ask
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from utils.book import lab_data
from utils.book.serve import served
from utils.measures.ablation import ablation_profile
from utils.measures.ablation.units import units_of
from utils.models import zoo
from utils.probes import (
    AblationSpec,
    Ablator,
    AttentionProbe,
    attention_layers,
    keyed_orders,
    token_layout,
)
from utils.stimuli import datasets

LAB = lab_node.HERE.parents[1] / "_static" / "lab"
LIVE = [
    "vit-d6-h4",
    "vit-d6-h1",
    "vit-d12-h4",
    "vit-d6-h4-gap",
    "vit-d6-h4-reg4",
    "vit-d6-h4-nopos",
    "vit-d6-h4-relu",
    "vit-d6-h8-k32",
    "hybrid-d6-h4",
    "resnet-d20",
    "resnet-d8",
    "plain-d8",
    "late-d26-w24",
]
CNNS = [name for name in LIVE if name.startswith(("resnet", "plain", "late"))]
PICTURES = 8
CLOSE = dict(rtol=0, atol=1e-4)


@cache
def _pictures(count=PICTURES):
    data = datasets.load("objects")
    return torch.stack([data[i][0] for i in range(count)])


@pytest.fixture
def folder(tmp_path):
    """A folder with pictures, in which calls find what they name."""
    _pictures().numpy().tofile(tmp_path / "pictures")
    return tmp_path


def _run(folder, name):
    call, model = lab_node.network(folder, name)
    (found,) = ask(folder, {"do": "run", **call, "pictures": "pictures"})
    return found, model


# Networks.


@pytest.mark.parametrize("name", LIVE)
def test_logits_and_attention_are_those_of_pytorch(folder, name):
    found, model = _run(folder, name)
    with torch.no_grad():
        logits = model(_pictures())
        features = model.forward_head(model.forward_features(_pictures()), pre_logits=True)
    np.testing.assert_allclose(found["logits"].reshape(logits.shape), logits, **CLOSE)
    np.testing.assert_allclose(found["features"].reshape(features.shape), features, **CLOSE)
    if name in CNNS:
        assert "attention" not in found
        return
    with AttentionProbe(model, rows="all") as probe, torch.no_grad():
        model(_pictures())
    maps = torch.stack(list(probe.maps.values()), 1)  # [pictures, layers, heads, tokens, tokens]
    for own, theirs in zip(found["attention"], maps, strict=True):
        np.testing.assert_allclose(own.reshape(theirs.shape), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["resnet-d8", "plain-d8"])
def test_evidence_over_the_picture_adds_up_to_the_logits(folder, name):
    found, model = _run(folder, name)
    with torch.no_grad():
        maps = model.forward_features(_pictures())
    shares = torch.einsum("kc,bchw->bkhw", model.fc.weight, maps).detach() / 64
    own = found["evidence"].reshape(shares.shape)
    np.testing.assert_allclose(own, shares, **CLOSE)
    logits = own.sum((2, 3)) + found["bias"]
    np.testing.assert_allclose(logits, found["logits"].reshape(logits.shape), **CLOSE)


def test_names_with_rung_width_and_seed_are_known(folder):
    spelt = [zoo.spec(name).canonical for name in ("vit-d6-h4", "resnet-d8")]
    files = [lab_node.network(folder, name)[0]["file"] for name in ("vit-d6-h4", "resnet-d8")]
    calls = [{"do": "build", "name": n, "file": f} for n, f in zip(spelt, files, strict=True)]
    assert ask(folder, *calls) == spelt


# Weights as files.


def test_half_precision_is_decoded_exactly(tmp_path):
    every = np.arange(2**16, dtype=np.uint16)
    every.tofile(tmp_path / "halves")
    (own,) = ask(tmp_path, {"do": "halves", "file": "halves"})
    with np.errstate(invalid="ignore"):
        expected = every.view(np.float16).astype(np.float32)
    number = ~np.isnan(expected)
    assert np.array_equal(own.view(np.uint32)[number], expected.view(np.uint32)[number])
    assert np.isnan(own[~number]).all()


def test_weights_in_single_precision_give_the_same_logits(folder):
    _, model = lab_node.network(folder, "vit-d6-h4")
    single = {key: value.float() for key, value in model.state_dict().items()}
    safetensors.torch.save_file(single, folder / "single")
    call = {"do": "run", "name": "vit-d6-h4", "pictures": "pictures"}
    one, two = ask(folder, call | {"file": "single"}, call | {"file": "vit-d6-h4.safetensors"})
    assert np.array_equal(one["logits"], two["logits"])


def _changed(name, change):
    """The file of a network whose tensors were changed."""
    tensors = zoo.create(name).state_dict()
    change(tensors)
    return safetensors.torch.save(tensors)


def _listing(entry):
    text = json.dumps({"head.weight": entry}).encode()
    return struct.pack("<Q", len(text)) + text + bytes(8)


def _nan(tensors):
    tensors["norm.bias"][3] = torch.nan


SOUND = cache(lambda: _changed("vit-d6-h4", lambda tensors: None))
ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
FAULTS = {
    "empty": (lambda: b"", "no safetensors file"),
    "a page": (lambda: b"<!doctype html><title>Not found</title>", "no safetensors file"),
    "cut in its list": (lambda: SOUND()[:500], "ends too early"),
    "cut in its numbers": (lambda: SOUND()[:-100], "ends too early"),
    "too long": (lambda: SOUND() + b"\0\0", "goes on behind"),
    "list no JSON": (lambda: struct.pack("<Q", 4) + b"{{{{", "list of tensors is damaged"),
    "list no UTF-8": (lambda: struct.pack("<Q", 4) + b"\xff" * 4, "list of tensors is damaged"),
    "list null": (lambda: struct.pack("<Q", 4) + b"null", "list of tensors is damaged"),
    "entry no object": (lambda: _listing(3), "list of tensors is damaged"),
    "offsets backwards": (
        lambda: _listing(ENTRY | {"data_offsets": [8, 0]}),
        "list of tensors is damaged",
    ),
    "shape negative": (lambda: _listing(ENTRY | {"shape": [-2]}), "list of tensors is damaged"),
    "shape and size": (lambda: _listing(ENTRY | {"shape": [3]}), "not of its shape"),
    "bfloat16": (lambda: _listing(ENTRY | {"dtype": "BF16"}), "of the kind BF16"),
    "nothing in it": (lambda: struct.pack("<Q", 2) + b"{}", "is missing"),
    "not a number": (lambda: _changed("vit-d6-h4", _nan), "norm.bias holds what is no number"),
    "a tensor missing": (
        lambda: _changed("vit-d6-h4", lambda tensors: tensors.pop("blocks.2.norm1.bias")),
        "blocks.2.norm1.bias is missing",
    ),
    "a tensor more": (
        lambda: _changed("vit-d6-h4", lambda tensors: tensors.update(extra=torch.zeros(2))),
        "extra has no place",
    ),
    "of another width": (
        lambda: _changed(
            "vit-d6-h4", lambda tensors: tensors.update({"head.weight": torch.zeros(10, 32)})
        ),
        "head.weight is of another shape, 10 × 32",
    ),
    "a deeper network": (lambda: _changed("vit-d8-h4", lambda _: None), "has no place"),
    "a shallower network": (lambda: _changed("vit-d4-h4", lambda _: None), "is missing"),
    "a CNN": (lambda: _changed("resnet-d8", lambda _: None), "is missing"),
}


def test_a_file_that_holds_no_weights_of_the_network_is_refused_in_a_sentence(tmp_path):
    for number, (content, _) in enumerate(FAULTS.values()):
        (tmp_path / str(number)).write_bytes(content())
    calls = [{"do": "build", "name": "vit-d6-h4", "file": str(n)} for n in range(len(FAULTS))]
    for fault, answer in zip(FAULTS, ask(tmp_path, *calls), strict=True):
        assert isinstance(answer, dict), fault
        _is_sentence(answer["error"], "vit-d6-h4", FAULTS[fault][1], "reload the page")


def test_a_file_cut_or_damaged_anywhere_in_its_list_is_refused_in_a_sentence(tmp_path):
    call, _ = lab_node.network(tmp_path, "vit-d6-h1-w16")
    content = (tmp_path / call["file"]).read_bytes()
    rng, calls = np.random.default_rng(0), []
    (size,) = struct.unpack_from("<Q", content)
    for number in range(150):
        at = int(rng.integers(8 + size))
        damaged = bytearray(content)
        damaged[at] ^= 1 << int(rng.integers(8))
        cut = content[: int(rng.integers(len(content)))]
        (tmp_path / f"{number}").write_bytes(cut if number % 5 == 0 else damaged)
        calls.append({"do": "build", "name": call["name"], "file": str(number)})
    for number, answer in enumerate(ask(tmp_path, *calls)):
        assert isinstance(answer, dict), f"{number} was taken for sound"
        _is_sentence(answer["error"], call["name"], "reload the page")


def test_weights_of_another_depth_or_number_of_heads_are_refused_in_a_sentence(tmp_path):
    deep, _ = lab_node.network(tmp_path, "resnet-d20")
    heads, _ = lab_node.network(tmp_path, "vit-d6-h4")
    depth, divided = ask(
        tmp_path,
        {"do": "build", **deep, "name": "resnet-d14"},
        {"do": "build", **heads, "name": "vit-d6-h3"},
    )
    _is_sentence(depth["error"], "resnet-d14", "they are of 20 layers")
    _is_sentence(divided["error"], "vit-d6-h3", "3 heads do not divide")


@pytest.mark.parametrize("name", ["mixer-d6", "vit-d6", "vit-d0-h4", "resnet-d8-h4", "", "d6"])
def test_a_name_of_no_live_network_is_refused_in_a_sentence(tmp_path, name):
    (tmp_path / "file").write_bytes(b"")
    (answer,) = ask(tmp_path, {"do": "build", "name": name, "file": "file"})
    _is_sentence(answer["error"], f"There is no network {name}", "choose")


def _is_sentence(text, *words):
    assert re.fullmatch(r"[A-Z][^\n]{20,300}\.", text), text
    assert all(word in text for word in words), (text, words)


# Pictures.


@pytest.mark.parametrize("mode", ["noise", "edges"])
def test_pictures_of_any_size_are_prepared_to_the_last_bit_as_by_timm(tmp_path, mode):
    transform = create_transform(**resolve_model_data_config(zoo.architecture("vit-d6-h4")))
    sizes = [(32, 32), (64, 32), (33, 40), (35, 32), (31, 47), (5, 1), (1, 90), (500, 333), (8, 8)]
    rng, calls, expected = np.random.default_rng(0), [], []
    for width, height in sizes:
        levels = 256 if mode == "noise" else 2
        pixels = rng.integers(levels, size=(height, width, 4)) * (255 // (levels - 1))
        pixels = pixels.astype(np.uint8)
        pixels.tofile(tmp_path / f"{width}x{height}")
        calls.append(dict(do="pixels", file=f"{width}x{height}", width=width, height=height))
        expected.append(transform(Image.fromarray(pixels[..., :3].copy())))
    for own, theirs in zip(ask(tmp_path, *calls), expected, strict=True):
        assert np.array_equal(own.reshape(3, 32, 32), theirs)


def test_a_picture_of_another_size_or_without_numbers_is_refused_in_a_sentence(folder):
    network, _ = lab_node.network(folder, "resnet-d8")
    (folder / "bytes").write_bytes(bytes(10))
    short, empty, blank, odd, none = ask(
        folder,
        {"do": "picture", **network, "numbers": [0.5] * 100},
        {"do": "picture", **network, "numbers": []},
        {"do": "picture", **network, "numbers": ["none"] * 3072},
        {"do": "pixels", "file": "bytes", "width": 32, "height": 32},
        {"do": "pixels", "file": "bytes", "width": 0, "height": 0},
    )
    _is_sentence(short["error"], "3,072 numbers", "this one has 100", "fromPixels")
    _is_sentence(empty["error"], "this one has 0")
    _is_sentence(blank["error"], "holds what is no number", "choose")
    _is_sentence(odd["error"], "32 × 32 pixels", "10 bytes", "choose another")
    _is_sentence(none["error"], "0 × 0 pixels")


def test_pictures_unlike_the_usual_are_told_by_their_statistics(folder):
    data = datasets.load("objects/validation")
    usual = np.stack([data[i][0] for i in range(300)])
    flat = np.full((1, 3, 32, 32), 0.5, np.float32)
    noise = np.random.default_rng(0).random((3, 3, 32, 32), np.float32)
    drawing = np.ones((1, 3, 32, 32), np.float32)
    drawing[..., 8:24, 15:17] = 0
    images = np.concatenate([_pictures().numpy(), flat, noise, drawing])
    images.tofile(folder / "images")
    reference = lab_data.reference(usual)
    (found,) = ask(folder, {"do": "unusual", "pictures": "images", "reference": reference})
    own = np.array([each["statistics"] for each in found])
    np.testing.assert_allclose(own, lab_data.statistics(images), rtol=0, atol=1e-9)
    mean, inverse = (np.array(reference[key]) for key in ("mean", "inverse"))
    expected = lab_data.distances(images, mean, inverse)
    np.testing.assert_allclose([each["distance"] for each in found], expected, rtol=1e-6)
    shares = np.array([each["share"] for each in found])
    nearer = (np.array(reference["distances"]) < expected[:, None]).mean(1)
    np.testing.assert_allclose(shares, nearer)
    assert (shares[PICTURES:] == 1).all()
    assert np.median(shares[:PICTURES]) < 0.95


# Ablation.


@pytest.mark.parametrize("seed", [0, 1, 2**40 + 3])
def test_random_orders_are_the_books_own(tmp_path, seed):
    cases = [
        (index, draw, shape)
        for index in (0, 1, 9_999, 2**33)
        for draw in (-14, -1, 0, 5)
        for shape in ((1, 64), (4, 64), (1, 4))
    ]
    calls = [
        dict(do="orders", seed=seed, index=index, draw=draw, groups=shape[0], n=shape[1])
        for index, draw, shape in cases
    ]
    for (index, draw, shape), own in zip(cases, ask(tmp_path, *calls), strict=True):
        theirs = keyed_orders(seed, torch.tensor([index]), draw, shape)[0]
        assert np.array_equal(own.reshape(shape), theirs)


class Removed:
    """What the Lab removed of two pictures, and the logits after it, one scope a call."""

    def __init__(self, folder, name, layers, conditions, unit="patch", means=None, **scope):
        call, self.model = lab_node.network(folder, name)
        self.images, self.conditions = _pictures(2), conditions
        self.images.numpy().tofile(folder / "two")
        scope |= {"layers": layers, "unit": unit, "seed": 3}
        if means is not None:
            call["means"] = means
        (found,) = ask(
            folder,
            {"do": "ablate", **call, "pictures": "two", "scope": scope, "conditions": conditions},
        )
        self.found = found  # [picture][condition]
        self.layers, self.unit, self.value = layers, unit, scope.get("value", "zero")

    def logits(self, condition):
        return np.stack([picture[condition]["logits"] for picture in self.found])

    def shares(self, condition, i, part=0):
        """Of one layer's units, with keys of prefix tokens, both pictures: [2, …]."""
        return torch.tensor(
            np.stack([picture[condition]["edits"][i][part] for picture in self.found])
        )


ORDERS = [
    ["top", 5, 0],
    ["top", 64, 0],
    ["bottom", 40, 0],
    ["random", 20, 0],
    ["random", 20, 3],
    ["centre", 10, 0],
    ["matched", 5, 1],
    ["permuted", 0, 0],
    ["permuted", 0, 2],
    [[9, 3, 60], 3, 0],
    ["top", 0, 0],
]
SCOPES = {
    "first": [0],
    "one": [2],
    "before the last": [4],
    "last": [5],
    "some": [1, 4],
    "all": list(range(6)),
}
VARIANTS = [
    ("vit-d6-h4", scope, value) for scope in SCOPES for value in ("zero", "renormalise", "uniform")
] + [
    (name, scope, value)
    for name in ("vit-d6-h1", "vit-d6-h4-gap", "vit-d6-h4-reg4", "vit-d6-h8-k32")
    for scope, value in (("one", "zero"), ("last", "renormalise"), ("all", "zero"))
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "scope", "value"), VARIANTS)
def test_removing_patches_gives_the_logits_of_ablator(folder, name, scope, value):
    ran = Removed(folder, name, SCOPES[scope], ORDERS, value=value)
    names = list(attention_layers(ran.model))
    rows = "class" if token_layout(ran.model).has_class_token else "all"
    heads = ran.model.blocks[0].attn.num_heads
    conditions = []
    for number, (order, _, _) in enumerate(ORDERS):
        specs = []
        for i, layer in enumerate(SCOPES[scope]):
            keys = ran.shares(number, i).unflatten(1, (heads, -1))
            put = value
            if order == "permuted":
                put = ran.shares(number, i, part=1).long().unflatten(1, (heads, -1))
            specs.append(AblationSpec(names[layer], keys=keys, query_rows=rows, value=put))
        conditions.append(specs)
    expected = Ablator(ran.model).run(ran.images, conditions)
    for number, order in enumerate(ORDERS):
        own = ran.logits(number)
        np.testing.assert_allclose(own, expected[number], **CLOSE, err_msg=str(order))


def _first(order, k, n):
    """The first k of orders [..., n], as shares."""
    return torch.zeros(*order.shape[:-1], n).scatter(-1, order[..., :k], 1.0)


def _hold_the_strongest(shares, scores):
    """Whether what goes is no weaker than what stays; near ties may go either way."""
    least = torch.where(shares > 0, scores, torch.inf).amin(-1)
    most = torch.where(shares > 0, -torch.inf, scores).amax(-1)
    return bool((least >= most - 1e-5).all())


@pytest.mark.parametrize("name", ["vit-d6-h4", "vit-d6-h4-gap", "vit-d6-h4-reg4"])
@pytest.mark.parametrize("i", [0, 1])
def test_the_patches_that_go_are_those_that_the_library_removes(folder, name, i):
    layers = [1, 4]
    ran = Removed(folder, name, layers, ORDERS)
    names = [list(attention_layers(ran.model))[layer] for layer in layers]
    units = units_of(ran.model, names, "attention")
    scores = units.read(ran.images)[names[i]].scores
    heads, n = scores.shape[1:]
    every = range(len(ORDERS))
    gone = [ran.shares(c, i).unflatten(1, (heads, -1))[..., -n:] for c in every]
    for number, k, sign in ((0, 5, 1), (1, 64, 1), (2, 40, -1)):
        assert (gone[number].sum(-1) == k).all()
        assert _hold_the_strongest(gone[number], sign * scores)
    random = {
        draw: keyed_orders(3, torch.arange(2), draw * len(layers) + i, (heads, n))
        for draw in (0, 1, 3, -2, -4)
    }
    assert gone[3].equal(_first(random[0], 20, n))
    assert gone[4].equal(_first(random[3], 20, n))
    centre = units.centre(names[i], n).argsort(descending=True, stable=True)
    assert gone[5].equal(_first(centre.expand(2, heads, -1), 10, n))
    assert gone[9].equal(_first(torch.tensor([9, 3, 60]).expand(2, heads, -1), 3, n))
    assert (gone[10] == 0).all()
    for number, draw in ((7, -2), (8, -4)):
        places = ran.shares(number, i, part=1).unflatten(1, (heads, -1))[..., -n:]
        assert places.equal(random[draw] + token_layout(ran.model).prefix)
        assert (gone[number] == 1).all()
    along = gone[6].gather(-1, random[1])
    assert (along.diff() <= 0).all()
    assert (((along > 0) & (along < 1)).sum(-1) <= 1).all()
    held, meant = ((shares * scores).sum(-1) for shares in (gone[6], gone[0]))
    np.testing.assert_allclose(held, meant, rtol=0, atol=1e-6)


def test_only_the_chosen_heads_lose_patches_and_in_the_same_order(folder):
    all_heads = Removed(folder, "vit-d6-h4", [2, 3], ORDERS)
    one = Removed(folder, "vit-d6-h4", [2, 3], ORDERS, heads=[1])
    specs = []
    for number in (0, 3):
        for i in range(2):
            before = all_heads.shares(number, i).unflatten(1, (4, -1))
            after = one.shares(number, i).unflatten(1, (4, -1))
            assert after[:, 1].equal(before[:, 1])
            assert (after[:, [0, 2, 3]] == 0).all()
        keys = [all_heads.shares(number, i).unflatten(1, (4, -1)) for i in range(2)]
        specs.append(
            [AblationSpec(f"blocks.{2 + i}.attn", keys=keys[i], heads=1) for i in range(2)]
        )
    expected = Ablator(one.model).run(one.images, specs)
    np.testing.assert_allclose(one.logits(0), expected[0], **CLOSE)
    np.testing.assert_allclose(one.logits(3), expected[1], **CLOSE)


@pytest.mark.parametrize("name", ["vit-d6-h4", "vit-d6-h4-gap", "vit-d6-h8-k32"])
def test_whole_heads_and_blocks_go_as_in_ablator(folder, name):
    heads = zoo.spec(name).heads
    conditions = [["top", 1, 0], ["random", 2, 1], [[0, 2], 2, 0], ["top", heads, 0]]
    ran = Removed(folder, name, [1, 5], conditions, unit="head")
    model = ran.model
    names = list(attention_layers(model))
    layers = [names[1], names[5]]
    rows = "class" if token_layout(model).has_class_token else "all"
    scores = {
        k: v.scores[:, 0] for k, v in units_of(model, layers, "head").read(ran.images).items()
    }
    for i, layer in enumerate(layers):
        gone = [ran.shares(c, i).unflatten(1, (heads, -1))[..., 0] for c in range(4)]
        assert gone[0].argmax(-1).equal(scores[layer].argmax(-1))
        order = keyed_orders(3, torch.arange(2), 2 + i, (1, heads))[:, 0, :2]
        assert gone[1].equal(torch.zeros(2, heads).scatter(-1, order, 1.0))
    listed = [[AblationSpec(layer, heads=[0, 2], query_rows=rows) for layer in layers]]
    listed += [[AblationSpec(layer, heads=range(heads), query_rows=rows) for layer in layers]]
    expected = Ablator(model).run(ran.images, listed)
    np.testing.assert_allclose(ran.logits(2), expected[0], **CLOSE)
    np.testing.assert_allclose(ran.logits(3), expected[1], **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("name", CNNS)
@pytest.mark.parametrize("value", ["zero", "mean"])
def test_places_of_a_cnn_go_as_in_ablator(folder, name, value):
    call, model = lab_node.network(folder, name)
    (about,) = ask(folder, {"do": "run", **call, "pictures": "pictures"})
    names = about["layers"]
    chosen = [0, len(names) // 2, len(names) - 1]
    conditions = [["top", 100, 0], ["bottom", 300, 0], ["random", 17, 2], ["centre", 64, 0]]
    means = "pictures" if value == "mean" else None
    ran = Removed(folder, name, chosen, conditions, "position", means, value=value)
    ablator, layers = Ablator(model), [names[i] for i in chosen]
    if means:
        ablator.fit_means([_pictures()], layers)
    units = units_of(model, layers, "position")
    read = units.read(ran.images)
    wanted = [[] for _ in conditions]
    for number, (order, k, draw) in enumerate(conditions):
        for i, layer in enumerate(layers):
            shares = ran.shares(number, i).unsqueeze(1)
            n = shares.shape[-1]
            count = round(k * n / 1024)
            assert (shares.sum(-1) == count).all()
            if order == "random":
                drawn = keyed_orders(3, torch.arange(2), draw * len(layers) + i, (1, n))
                assert shares.equal(_first(drawn, count, n))
            elif order == "top":
                assert _hold_the_strongest(shares, read[layer].scores)
            wanted[number].append(units.spec(layer, shares, value))
    expected = ablator.run(ran.images, wanted)
    for number, condition in enumerate(conditions):
        own = ran.logits(number)
        np.testing.assert_allclose(own, expected[number], **CLOSE, err_msg=str(condition))


@pytest.mark.slow
def test_curves_are_those_of_the_ablation_profile(folder):
    call, model = lab_node.network(folder, "vit-d6-h4")
    batches = [(_pictures(3), torch.tensor([1, 2, 3]), torch.arange(3))]
    profile = ablation_profile(
        model, batches, "blocks.*.attn", ranks=9, draws=2, matched_draws=0, fixed=["centre"]
    )
    picture = 2
    scope = {"layers": list(range(6)), "unit": "patch", "index": picture}
    options = {
        "orders": ["random", "centre"],
        "draws": 2,
        "ranks": profile.ranks.tolist(),
        "label": 3,
    }
    asked = dict(do="curve", picture=picture, pictures="pictures", scope=scope, options=options)
    (found,) = ask(folder, call | asked)
    assert (found["label"], found["n"], found["ranks"]) == (3, 64, profile.ranks.tolist())
    assert [point["done"] for point in found["seen"]] == list(range(1, 28))
    for order in ("random", "centre"):
        assert len(found["points"][order]) == 9 * (2 if order == "random" else 1)
        for point in found["points"][order]:
            rank = found["ranks"].index(point["k"])
            for measure in ("kl", "margin", "right"):
                theirs = getattr(profile, measure)[order][point["draw"], picture, rank]
                np.testing.assert_allclose(point[measure], theirs, rtol=0, atol=2e-4)


def test_outcome_and_classes_are_those_of_double_precision(tmp_path):
    rng = np.random.default_rng(0)
    intact, ablated = torch.from_numpy(rng.normal(size=(2, 10)) * 4)
    far = [1000.0, *[0.0] * 9]
    first, same, extreme, classes = ask(
        tmp_path,
        dict(do="outcome", intact=intact.tolist(), ablated=ablated.tolist(), label=4),
        dict(do="outcome", intact=intact.tolist(), ablated=intact.tolist(), label=0),
        dict(do="outcome", intact=far, ablated=far, label=0),
        dict(do="classes", logits=intact.tolist(), count=3),
    )
    p, q = intact.log_softmax(0), ablated.log_softmax(0)
    assert first["kl"] == pytest.approx(float((p.exp() * (p - q)).sum()))
    share = q[4].exp()
    assert first["margin"] == pytest.approx(float((share / (1 - share)).log()))
    assert first["right"] == (int(ablated.argmax()) == 4)
    assert same["kl"] == 0
    assert extreme["kl"] == 0
    assert extreme["right"]
    top = intact.softmax(0).topk(3)
    assert [c["label"] for c in classes] == top.indices.tolist()
    assert [c["probability"] for c in classes] == pytest.approx(top.values.tolist())


IMPOSSIBLE = [
    ({"layers": [6]}, ["top", 1, 0], "has layers 0 to 5, not 6"),
    ({"layers": []}, ["top", 1, 0], "has layers 0 to 5"),
    ({"unit": "channel"}, ["top", 1, 0], "There is no unit channel"),
    ({"unit": "position"}, ["top", 1, 0], "There is no unit position"),
    ({"heads": [4]}, ["top", 1, 0], "heads 4"),
    ({"value": "median"}, ["top", 1, 0], "There is no value median"),
    ({"value": "mean"}, ["top", 1, 0], "cannot be replaced by mean"),
    ({"unit": "head", "value": "renormalise"}, ["top", 1, 0], "head cannot be replaced"),
    ({"unit": "head"}, ["centre", 1, 0], "Heads have no place"),
    ({"unit": "head"}, ["permuted", 1, 0], "Only patches have weights to move"),
    ({}, ["upwards", 1, 0], "There is no order upwards"),
    ({}, ["top", 65, 0], "0 to 64 units can go, not 65"),
    ({}, ["top", 1.5, 0], "not 1.5"),
    ({}, [[1, 1], 2, 0], "The list 1,1"),
    ({}, [[64], 1, 0], "not of units 0 to 63"),
]


def test_an_impossible_ablation_is_refused_in_a_sentence(folder):
    network, _ = lab_node.network(folder, "vit-d6-h4")
    calls = [
        {
            "do": "ablate",
            **network,
            "pictures": "pictures",
            "scope": {"layers": [0], "unit": "patch", **scope},
            "conditions": [condition],
        }
        for scope, condition, _ in IMPOSSIBLE
    ]
    for (_, _, words), answer in zip(IMPOSSIBLE, ask(folder, *calls), strict=True):
        assert isinstance(answer, dict), words
        _is_sentence(answer["error"], words, "choose")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"orders": ["permuted"]}, "no order of a curve permuted"),
        ({"orders": ["strongest"]}, "no order of a curve strongest"),
        ({"orders": ["top"], "label": 10}, "no class 10"),
        ({"orders": ["top"], "ranks": [65]}, "0 to 64 units can go, not 65"),
    ],
)
def test_an_impossible_curve_is_refused_in_a_sentence(folder, options, words):
    network, _ = lab_node.network(folder, "vit-d2-h4")
    scope = {"layers": [0], "unit": "patch"}
    asked = dict(do="curve", picture=0, pictures="pictures", scope=scope, options=options)
    (answer,) = ask(folder, network | asked)
    _is_sentence(answer["error"], words, "choose")


# Jobs.


@pytest.fixture(scope="module")
def queue(tmp_path_factory):
    """What became of jobs; see lab_queue.mjs."""
    folder = tmp_path_factory.mktemp("queue")
    call, _ = lab_node.network(folder, "vit-d2-h4")
    return json.loads(lab_node.run("lab_queue.mjs", folder / call["file"], call["name"]))


def test_a_job_gives_what_it_promises(queue):
    assert queue["about"] == {
        "name": "vit-d2-h4",
        "layers": ["blocks.0", "blocks.1"],
        "classes": 10,
        "heads": 4,
        "tokens": 65,
        "prefix": 1,
        "side": 8,
    }
    assert dict(queue["kinds"]) == {
        "logits": "Float32Array",
        "features": "Float32Array",
        "attention": "Float32Array",
        "evidence": None,
        "classes": "Array",
    }
    assert sum(queue["shares"]) == pytest.approx(1)
    assert queue["shares"] == sorted(queue["shares"], reverse=True)
    assert queue["nothing"] == 0
    assert queue["picture"] == 3072


def test_a_short_job_overtakes_a_curve_and_curves_follow_each_other(queue):
    assert queue["order"] in (
        ["begun", "run", "curve", "later curve"],
        ["run", "begun", "curve", "later curve"],
    )
    assert queue["points"] == list(range(65))


def test_a_cancelled_job_ends_before_it_begins_or_after_a_step_and_others_go_on(queue):
    for name in ("cancelled", "early", "after", "loading"):
        assert queue[name]["name"] == "AbortError", name
    assert 3 <= queue["steps"] < 65
    assert queue["still"]


def test_what_cannot_be_done_is_said_in_a_sentence(queue):
    _is_sentence(queue["unloaded"]["error"], "vit-d2-h4 has not been loaded", "load it first")
    _is_sentence(queue["missing"]["error"], "no safetensors file", "reload the page")
    _is_sentence(queue["unreachable"]["error"], "could not be fetched", "reload the page")
    _is_sentence(queue["otherFile"]["error"], "not the file that was asked for", "reload")
    assert [message["id"] for message in queue["messages"]] == [1, 2, 3]
    for message, words in zip(queue["messages"], ("no job dance", "undefined", ""), strict=True):
        _is_sentence(message["error"], words)


# In a browser.


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A page below a path of its own, next to the Lab's files and weights, and its address."""
    root = tmp_path_factory.mktemp("site")
    home = root / "some" / "book"
    shutil.copytree(LAB, home / "_static" / "lab")
    lab_node.network(home, "vit-d2-h4")
    head = '<!doctype html><html lang="en"><title>Lab</title><link rel="icon" href="data:,">'
    (home / "index.html").write_text(head, encoding="utf-8")
    with served(root) as address:
        yield f"{address}/some/book/index.html"


IN_PAGE = """async (numbers) => {
  const { connect } = await import("./_static/lab/client.js");
  const lab = connect();
  const network = "vit-d2-h4";
  await lab.load({ network, url: "vit-d2-h4.safetensors" });
  const picture = Float32Array.from(numbers);
  const { logits, attention } = await lab.run({ network, picture });
  const failed = await lab.run({ network, picture: picture.slice(1) }).catch((e) => e.message);
  lab.close();
  return { logits: Array.from(logits), count: attention.length, failed };
}"""
PAGES = {
    "with workers": "",
    "where there are none": "delete window.Worker",
    "where none may be made": "window.Worker = class { constructor() { throw new Error(); } }",
    "where their file is not to be had": "file",
}


@pytest.mark.slow
@pytest.mark.parametrize("case", PAGES)
def test_a_page_gets_the_logits_of_pytorch(browser, site, case):
    page = browser.new_page()
    script, requested = PAGES[case], []
    page.on("request", lambda request: requested.append(request.url.rsplit("/", 1)[-1]))
    if script == "file":
        page.route("**/worker.js", lambda route: route.abort())
    else:
        page.add_init_script(script)
    page.goto(site)
    found = page.evaluate(IN_PAGE, _pictures()[0].flatten().tolist())
    page.close()
    with torch.no_grad():
        expected = zoo.load("vit-d2-h4")(_pictures()[:1])[0]
    np.testing.assert_allclose(found["logits"], expected, **CLOSE)
    assert found["count"] == 2 * 4 * 65 * 65
    _is_sentence(found["failed"], "this one has 3,071")
    assert ("worker.js" in requested) == (
        case in ("with workers", "where their file is not to be had")
    )


@pytest.mark.slow
def test_where_files_of_the_lab_are_not_to_be_had_a_page_says_so(browser, site):
    page = browser.new_page()
    page.route("**/jobs.js", lambda route: route.abort())
    page.goto(site)
    script = """async () => {
      const { connect } = await import("./_static/lab/client.js");
      const url = "vit-d2-h4.safetensors";
      return connect().load({ network: "vit-d2-h4", url }).catch((error) => error.message);
    }"""
    _is_sentence(page.evaluate(script), "could not start", "reload the page")
    page.close()
