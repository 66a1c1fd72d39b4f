"""The Lab's figures: recorded by the cell that makes them, live where a page has the Lab.

`figure` shows a picture in the two networks, a head's attention or an ablation. In the rendered
book the Lab takes the recorded figure's place and computes; in Jupyter, in Colab, in print and
without scripts the recorded one stays.
"""

import base64
import html
import io
import json

import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from ..measures.ablation.outcomes import compared
from ..measures.ablation.units import units_of
from ..probes import Ablator, token_layout
from ..stimuli import objects
from . import lab_data
from .plotting import COLOURS, WIDTH, overlay

KINDS = ("teaser", "both", "attention", "ablation")
SHADES = 256  # colours of a recorded figure, which goes into the page in whole
NAMES = {"vit": "ViT", "cnn": "ResNet"}


class LabFigure:
    """What `figure` returns; show it as the last line of a cell.

    Attributes:
        kind: One of KINDS.
        state: The Lab's address of what is shown, after "#".
        alt: What is seen, in words.
        view: What is seen before there are weights, see `lab_data.view`.
    """

    def __init__(self, kind: str, state: str, alt: str, drawn: Figure, view: dict) -> None:
        self.kind, self.state, self.alt, self.view = kind, state, alt, view
        full, small = io.BytesIO(), io.BytesIO()
        drawn.savefig(full, format="png", dpi=120)
        plt.close(drawn)
        few = Image.open(full).convert("RGB").quantize(SHADES)
        few.save(small, "png", optimize=True)
        self._png = small.getvalue()

    def _repr_png_(self) -> bytes:
        return self._png

    def still(self) -> str:
        """The recorded figure, as HTML."""
        source = f"data:image/png;base64,{base64.b64encode(self._png).decode('ascii')}"
        return (
            f'<figure class="lab-still"><img class="pictures" alt="{html.escape(self.alt)}" '
            f'src="{source}" style="width:100%;max-width:640px;background:white"></figure>'
        )

    def _repr_html_(self) -> str:
        view = json.dumps(self.view, separators=(",", ":"))
        data = {"lab": self.kind, "state": self.state, "view": view}
        marks = " ".join(f'data-{name}="{html.escape(value)}"' for name, value in data.items())
        return f'<div class="lab" {marks}>{self.still()}</div>'


def figure(
    kind: str,
    picture: int | None = None,
    layer: int | None = None,
    head: int | None = None,
    k: int = 8,
) -> LabFigure:
    """A figure of the Lab.

    Args:
        kind: "both", a picture and what both networks say; "attention", where a head of the ViT
            looks; "teaser", both of these; "ablation", what the ViT says without the k strongest
            patches of every head.
        picture: Its number in the test split, one of `lab_data.test_pictures`; the Lab's first
            picture if None.
        layer: From 1 on; the one with the strongest weight if None.
        head: From 1 on; as `layer`.
        k: How many patches are taken away until the reader says.

    Returns:
        The figure, to be shown by the last line of a cell.

    Raises:
        ValueError: For an unknown kind, and a picture, layer, head or number that is not there.

    Example:
        >>> from utils.book import lab
        >>> lab.figure("attention", layer=6, head=2).state.split("&")[1:]
        ['layer=6', 'head=2']
    """
    if kind not in KINDS:
        raise ValueError(f"There is no figure {kind!r} of the Lab: choose {', '.join(KINDS)}.")
    shown, labels = lab_data.test_pictures()
    numbers = shown.index.tolist()
    picture = numbers[lab_data.first()] if picture is None else picture
    if picture not in numbers:
        raise ValueError(f"Picture {picture} is not one of the Lab's: choose of {sorted(numbers)}.")
    place = numbers.index(picture)
    image, view = shown.images[place : place + 1], lab_data.view(place)
    found = lab_data.read(image)
    prefix = token_layout(lab_data.networks()["vit"]).prefix
    attention = found.attention[0, :, :, 0, prefix:]  # [layers, heads, patches]
    layers, heads, n = attention.shape
    layer = _inside("layer", view["layer"] if layer is None else layer, layers)
    head = _inside("head", view["head"] if head is None else head, heads)
    if kind == "teaser":
        drawn, alt = _teaser(image, found, attention, layer, head)
    elif kind == "both":
        drawn, alt = _both(image, found)
    elif kind == "attention":
        drawn, alt = _attention(image, attention, layer, head)
    else:
        after = _without(image, layer, _inside("number of patches", k, n))
        drawn, alt = _ablation(image, found.vit[0], torch.tensor(after["probabilities"]), k)
        view = view | {"ablated": after}
    alt = f"Picture {picture}, labelled {objects.SHAPES[int(labels[place])]}; {alt}"
    state = f"picture={picture}&layer={layer}&head={head}"
    if kind == "ablation":
        state += f"&net={lab_data.NETWORKS['vit']}&scope=all&order=top&k={k}"
    return LabFigure(kind, state, alt, drawn, view)


def _inside(what: str, number: int, most: int) -> int:
    if not 1 <= number <= most:
        raise ValueError(f"There is no {what} {number} in this ViT: choose 1 to {most}.")
    return number


def _answer(probabilities: Tensor) -> str:
    share, label = probabilities.max(0)
    return f"{objects.SHAPES[int(label)]} with {share:.0%}"


def _axes(panels: int) -> tuple[Figure, list]:
    fig, axes = plt.subplots(1, panels, figsize=(WIDTH, WIDTH / panels), constrained_layout=True)
    return fig, list(axes)


def _picture(ax, image: Tensor, title: str) -> None:
    ax.imshow(image[0].permute(1, 2, 0).numpy(), interpolation="nearest")
    ax.set_title(title, fontsize=11)
    ax.axis("off")


def _bars(ax, sides: list[tuple[str, Tensor, str, float]]) -> None:
    """Probabilities class by class; each side has a name, values, a colour and an opacity."""
    names = objects.SHAPES
    height = 0.8 / len(sides)
    for i, (name, values, colour, alpha) in enumerate(sides):
        at = np.arange(len(names)) + i * height
        ax.barh(at, values.numpy(), height, color=colour, alpha=alpha, label=name)
    ax.set(xlim=(0, 1), xlabel="probability")
    ax.set_yticks(np.arange(len(names)) + 0.4 - height / 2, names, fontsize=10)
    ax.invert_yaxis()
    ax.legend(fontsize=10, frameon=False, loc="lower right")
    ax.spines[["top", "right"]].set_visible(False)


def _both(image: Tensor, found: lab_data.Read) -> tuple[Figure, str]:
    fig, (left, right) = _axes(2)
    _picture(left, image, "the picture")
    return fig, _said(right, found)


def _attention(image: Tensor, attention: Tensor, layer: int, head: int) -> tuple[Figure, str]:
    fig, (left, right) = _axes(2)
    _picture(left, image, "the picture")
    return fig, _looks(right, image, attention, layer, head)


def _teaser(
    image: Tensor, found: lab_data.Read, attention: Tensor, layer: int, head: int
) -> tuple[Figure, str]:
    fig, (left, middle, right) = _axes(3)
    _picture(left, image, "the picture")
    looks = _looks(middle, image, attention, layer, head)
    return fig, f"{_said(right, found)} In the ViT {looks}"


def _said(ax, found: lab_data.Read) -> str:
    """What both networks say, as bars and in words."""
    _bars(ax, [(NAMES[r], getattr(found, r)[0], COLOURS[r], 1) for r in NAMES])
    said = (f"the {NAMES[role]} says {_answer(getattr(found, role)[0])}" for role in NAMES)
    return " and ".join(said) + "."


def _looks(ax, image: Tensor, attention: Tensor, layer: int, head: int) -> str:
    """Where a head looks, as a map and in words."""
    own, full = attention[layer - 1, head - 1], float(attention.max())
    side = round(len(own) ** 0.5)
    overlay(image[0], own.unflatten(0, (side, side)), ax, full)
    ax.set_title(f"layer {layer}, head {head}", fontsize=11)
    ticks = [0, full / 4, full]
    ax.figure.colorbar(ax.images[-1], ax=ax, shrink=0.7, label="attention", ticks=ticks)
    row, column = divmod(int(own.argmax()), side)
    return (
        f"the class token attends most, with {float(own.max()):.3f}, to the patch in row "
        f"{row + 1}, column {column + 1}, in layer {layer}, head {head}; full colour is {full:.3f}."
    )


def _without(image: Tensor, layer: int, k: int) -> dict:
    """What the ViT says without the k strongest patches of every head, as the Lab has it.

    Of the patches that go, those of one layer, which is shown.
    """
    vit = lab_data.networks()["vit"]
    units = units_of(vit, "blocks.*.attn", "attention")
    shares = {}
    for name, found in units.read(image).items():
        top = found.scores.argsort(dim=-1, descending=True, stable=True)[..., :k]
        shares[name] = torch.zeros_like(found.scores).scatter(-1, top, 1.0)
    specs = [units.spec(name, share, "zero") for name, share in shares.items()]
    intact, after = Ablator(vit).run_with_intact(image, [specs])
    answer = intact.argmax(-1)
    before, outcome = (compared(intact, logits, answer) for logits in (intact[None], after))
    probabilities = after[0, 0].softmax(-1)
    changes: list[dict | None] = [None] * len(shares)
    gone = list(shares.values())[layer - 1][0]  # [heads, patches]
    keys = F.pad(gone, (token_layout(vit).prefix, 0)).flatten().int()
    changes[layer - 1] = {"shares": keys.tolist()}
    return {
        "role": "vit",
        "order": "top",
        "probabilities": [round(share, 6) for share in probabilities.tolist()],
        "answer": int(probabilities.argmax()),
        "kl": round(outcome.kl.item(), 6),
        "before": round(before.margin.item(), 6),
        "margin": round(outcome.margin.item(), 6),
        "changes": changes,
    }


def _ablation(image: Tensor, intact: Tensor, after: Tensor, k: int) -> tuple[Figure, str]:
    fig, (left, right) = _axes(2)
    _picture(left, image, "the picture")
    sides = [
        ("intact", intact, COLOURS["vit"], 0.4),
        (f"without {k} patches", after, COLOURS["vit"], 1),
    ]
    _bars(right, sides)
    return fig, (
        f"the ViT says {_answer(intact)}, and {_answer(after)} without the {k} strongest patches "
        "of every head."
    )
