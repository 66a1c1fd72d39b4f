"""What the Lab's page loads: pictures, weights, and what is true of them before it runs a network.

Nothing depends on particular weights: which picture comes first, and which states the guided steps
lead to, follows from rules.
"""

import json
import shutil
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..models import zoo
from ..probes import AttentionProbe, token_layout
from ..stimuli import datasets, objects

NETWORKS = {"vit": "vit-d6-h4", "cnn": "resnet-d20"}  # that the Lab runs
EACH = 3  # test pictures of each class
CONFIDENT = 0.9  # probability that both networks give to the class of the first picture
USUAL = 1000  # validation pictures that say what is usual
PLACING = 2  # the draw of place, ground and light that all mixed pictures share


class Shown(NamedTuple):
    """Pictures, and what was drawn for each.

    Attributes:
        images: float32 [n, 3, 32, 32] in [0, 1].
        index: Number of each in the test split, by which random orders are keyed.
        shape: Class of the shape of each.
        texture: Class of the texture of each.
    """

    images: Tensor
    index: Tensor
    shape: Tensor
    texture: Tensor


class Read(NamedTuple):
    """What both networks make of some pictures.

    Attributes:
        vit: Probabilities [n, classes].
        cnn: Probabilities [n, classes].
        attention: The ViT's [n, layers, heads, tokens, tokens].
        evidence: What each place of the CNN's last map adds to each logit [n, classes, h, w].
    """

    vit: Tensor
    cnn: Tensor
    attention: Tensor
    evidence: Tensor


def _drawn(split: str, numbers: list[int], pairs: list | None = None) -> Shown:
    recipes = [
        objects.draw(split, 0, number, pair=pair)
        for number, pair in zip(numbers, pairs or [None] * len(numbers), strict=True)
    ]
    cues = torch.tensor([(recipe.shape, recipe.texture) for recipe in recipes])
    pixels = torch.from_numpy(np.stack([objects.render(recipe) for recipe in recipes]))
    return Shown(pixels.float() / 255, torch.tensor(numbers), *cues.T)


@cache
def test_pictures() -> tuple[Shown, Tensor]:
    """The first `EACH` test pictures of each class, all first ones first, and their labels."""
    labels = datasets.load("objects").labels
    numbers = torch.stack([(labels == label).nonzero()[:EACH, 0] for label in range(10)], 1)
    numbers = numbers.flatten()
    return _drawn("test", numbers.tolist()), labels[numbers]


@cache
def mixed_pictures() -> Shown:
    """Each shape with each texture, in one place and light: picture 10 · shape + texture."""
    pairs = [(shape, texture) for shape in range(10) for texture in range(10)]
    mixed = _drawn("cue_conflict", [PLACING] * 100, pairs)
    return mixed._replace(index=torch.arange(100))


@cache
def networks() -> dict[str, nn.Module]:
    """The two networks, by role."""
    return {role: zoo.load(name) for role, name in NETWORKS.items()}


def read(images: Tensor) -> Read:
    """What both networks make of images [n, 3, 32, 32]."""
    vit, cnn = (networks()[role] for role in ("vit", "cnn"))
    with torch.no_grad(), AttentionProbe(vit, rows="all") as probe:
        seen = vit(images).softmax(-1)
    with torch.no_grad():
        maps = cnn.forward_features(images)
        said = cnn.forward_head(maps).softmax(-1)
    places = maps.shape[-2] * maps.shape[-1]
    evidence = torch.einsum("kc,bchw->bkhw", cnn.fc.weight, maps).detach() / places
    return Read(seen, said, torch.stack(list(probe.maps.values()), 1), evidence)


@cache
def first() -> int:
    """The place of the picture that the Lab opens with.

    It is the first that shows both cues of its class and that both networks give the right name,
    with confidence if there is such a one; if neither is there, the very first.
    """
    shown, labels = test_pictures()
    found = read(shown.images)
    own = (shown.shape == labels) & (shown.texture == labels)
    rights = torch.stack([p.gather(1, labels[:, None])[:, 0] for p in (found.vit, found.cnn)])
    named = torch.stack([p.argmax(1) == labels for p in (found.vit, found.cnn)]).all(0) & own
    confident = named & (rights >= CONFIDENT).all(0)
    wanted = confident if confident.any() else named
    return int(wanted.float().argmax())


def peak(attention: Tensor, prefix: int) -> tuple[int, int]:
    """The layer and head whose class row [layers, heads, tokens, tokens] gives most to a patch."""
    strongest = attention[:, :, 0, prefix:].amax(-1)
    return divmod(int(strongest.argmax()), strongest.shape[1])


# What is usual.


def statistics(images: np.ndarray) -> np.ndarray:
    """Of images [n, 3, 32, 32] in [0, 1]: [n, 11], in the order of the Lab's unusual.js."""
    images = images.astype(np.float64)
    grey = images.mean(1)
    blocks = grey.reshape(len(grey), 8, 4, 8, 4)
    detail = np.log(blocks.std((2, 4)) + 1e-3)
    plane = (1, 2)
    return np.stack(
        [
            grey.mean(plane),
            _log_contrast(grey, plane),
            _log_contrast(np.diff(grey, axis=2), plane),
            _log_contrast(np.diff(grey, axis=1), plane),
            images.mean((2, 3)).std(1),
            grey.max(plane),
            grey.min(plane),
            _log_contrast(images - grey[:, None], (1, 2, 3)),
            _log_contrast(blocks.mean((2, 4)), plane),
            detail.mean(plane),
            detail.std(plane),
        ],
        axis=1,
    )


def _log_contrast(values, axes):
    return np.log(np.maximum(values.std(axes), 1e-4))


def distances(images: np.ndarray, mean: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Mahalanobis distances [n] of the statistics of images."""
    away = statistics(images) - mean
    return np.sqrt(np.einsum("ni,ij,nj->n", away, inverse, away))


def reference(images: np.ndarray) -> dict:
    """What `unlike` of unusual.js takes, from the usual images; 101 of their distances."""
    found = statistics(images)
    mean, inverse = found.mean(0), np.linalg.inv(np.cov(found.T))
    own = np.quantile(distances(images, mean, inverse), np.linspace(0, 1, 101))
    found = {"mean": mean, "inverse": inverse, "distances": own}
    return {name: _short(values.tolist()) for name, values in found.items()}


def _short(values):
    """Numbers in nested lists with seven digits, which are enough and weigh little in a file."""
    return [_short(v) for v in values] if isinstance(values, list) else float(f"{values:.7g}")


# Files.


def _sprite(images: Tensor, file: Path) -> None:
    """Write images [n, 3, 32, 32] as one lossless picture, ten a row."""
    rows = (images * 255).round().byte().unflatten(0, (-1, 10))  # [rows, 10, 3, 32, 32]
    sheet = rows.permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1).numpy()
    Image.fromarray(sheet).save(file, "webp", lossless=True, quality=100)


def _about(role: str) -> dict:
    """What the page must know of a network before it has its weights."""
    name, model = NETWORKS[role], networks()[role]
    known = {
        "name": name,
        "role": role,
        "sha256": zoo.fingerprint(name),
        "bytes": zoo.weights_file(name).stat().st_size,
    }
    if role == "vit":
        layout, found = token_layout(model), read(torch.zeros(1, 3, 32, 32)).attention
        _, layers, heads, tokens, _ = found.shape
        side = round((tokens - layout.prefix) ** 0.5)
        return known | {"layers": layers, "heads": heads, "prefix": layout.prefix, "side": side}
    blocks = [len(getattr(model, f"layer{stage}")) for stage in (1, 2, 3)]
    sides = [32, *(side for side, n in zip((32, 16, 8), blocks, strict=True) for _ in range(n))]
    stages = (f"layer{stage + 1}.{i}" for stage, n in enumerate(blocks) for i in range(n))
    return known | {"layers": ["act1", *stages], "sides": sides}


def _rounded(values: Tensor, digits: int) -> list[float]:
    return [round(value, digits) for value in values.flatten().tolist()]


def view(place: int) -> dict:
    """What is seen of a picture before there are weights.

    Args:
        place: Of the picture among `test_pictures`.

    Returns:
        Its number; the layer and head with the strongest weight, from 1 on; what both networks say;
        the class rows of all heads; and the CNN's evidence for its answer.
    """
    shown, _ = test_pictures()
    found = read(shown.images[place : place + 1])
    prefix = token_layout(networks()["vit"]).prefix
    layer, head = peak(found.attention[0], prefix)
    answer = int(found.cnn[0].argmax())
    return {
        "picture": int(shown.index[place]),
        "layer": layer + 1,
        "head": head + 1,
        "vit": _rounded(found.vit[0], 6),
        "cnn": _rounded(found.cnn[0], 6),
        "attention": _rounded(found.attention[0, :, :, 0, prefix:], 4),
        "evidence": _rounded(found.evidence[0, answer], 4),
    }


def write(folder: Path, steps: list[dict]) -> None:
    """Write all that the page loads.

    Args:
        folder: Which is made.
        steps: See `lab_steps.steps`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (shown, labels), mixed = test_pictures(), mixed_pictures()
    _sprite(shown.images, folder / "pictures.webp")
    _sprite(mixed.images, folder / "mixed.webp")
    for name in NETWORKS.values():
        shutil.copyfile(zoo.weights_file(name), folder / f"{name}.safetensors")
    usual = datasets.load("objects/validation")
    usual = torch.stack([usual[i][0] for i in range(USUAL)])
    columns = zip(
        *(column.tolist() for column in (shown.index, labels, shown.shape, shown.texture)),
        strict=True,
    )
    about = {
        "shapes": list(objects.SHAPES),
        "textures": list(objects.TEXTURES),
        "networks": {role: _about(role) for role in NETWORKS},
        "pictures": [list(row) for row in columns],  # number, label, shape, texture
        "first": view(first()),
        "usual": reference(usual.numpy()),
        "steps": steps,
    }
    text = json.dumps(about, separators=(",", ":"))
    (folder / "lab.json").write_text(text, encoding="utf-8")
