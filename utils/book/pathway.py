"""The figure of the visual pathway between two networks: what is like what, and how surely."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from .plotting import COLOURS, WIDTH

# The head of a column, its colour, and its boxes: row → name and what is known of it.
COLUMNS = (
    (
        "ResNet-20",
        "cnn",
        {
            0: ("image", "32 × 32 pixels"),
            2: ("stage 1", "convolve, rectify\nfields 3 to 15 px"),
            3: ("stage 2", "fields to 37 px"),
            4: ("stage 3", "fields: all"),
            5: ("mean", "over places;\nten classes"),
        },
    ),
    (
        "macaque",
        "brain",
        {
            0: ("retina", "ON and OFF cells"),
            1: ("LGN", "of the thalamus"),
            2: ("V1", "simple, complex\nfields below 1°"),
            3: ("V2", "fields grow"),
            4: ("V4", "and grow"),
            5: ("IT", "objects\nfields above 10°"),
        },
    ),
    (
        "ViT",
        "vit",
        {
            0: ("image", "64 patches"),
            2: ("embedding", "one filter bank\nfields 4 px"),
            3: ("block 1", "attention, MLP\nfields: all"),
            4: ("blocks 2 to 6", "the same"),
            5: ("class token", "ten classes"),
        },
    ),
)
# (side of the macaque, row), what the likeness is, how strong: 3 good, 2 fair, 1 weak.
LINKS = (
    (0, 2, "filter,\nrectify", 3),
    (0, 3, "wider\nfields", 2),
    (0, 5, "predicts", 2),
    (2, 2, "filter", 1),
    (2, 4, "normalise,\nweigh", 2),
    (2, 5, "predicts", 2),
)
DASHES = (0, (2, 1.3))  # of feedback: short enough for its arrows
STYLES = {3: ("-", 4.0), 2: ("-", 2.0), 1: (":", 2.0)}  # line and its width
WIDE, HIGH, STEP = 2.1, 0.84, 3.3  # of a box; from one column to the next


def draw() -> Figure:
    """The pathway from retina to IT between a CNN and a ViT.

    Used in chapter 2.1, which says where each statement comes from.

    Returns:
        The figure.
    """
    fig, ax = plt.subplots(figsize=(WIDTH, 6.7))
    for column, (head, name, boxes) in enumerate(COLUMNS):
        middle, colour = column * STEP, COLOURS[name]
        ax.text(middle, 0.6, head, ha="center", fontsize=13, weight="bold", color=colour)
        for row, (title, known) in boxes.items():
            _box(ax, middle, -row, title, known, colour)
        for above, below in zip(boxes, list(boxes)[1:], strict=False):
            tip = (middle, HIGH / 2 - below)
            _arrow(ax, (middle, -above - HIGH / 2), tip, color=colour, lw=1.5)
    for row in range(2, 5):  # what neither network has
        ends = ((STEP + 0.72, y) for y in (HIGH / 2 - row - 1, -row - HIGH / 2))
        _arrow(ax, *ends, color=COLOURS["brain"], lw=1.5, ls=DASHES)
    for side, row, said, strength in LINKS:
        ends = [STEP - WIDE / 2, WIDE / 2] if side == 0 else [STEP + WIDE / 2, 2 * STEP - WIDE / 2]
        line, width = STYLES[strength]
        ax.plot(ends, [-row, -row], line, color=COLOURS["neutral"], lw=width)
        ax.text(sum(ends) / 2, 0.08 - row, said, ha="center", va="bottom", fontsize=10)
    for strength, said in ((3, "good"), (2, "fair"), (1, "weak")):
        line, width = STYLES[strength]
        ax.plot([], [], line, color=COLOURS["neutral"], lw=width, label=said)
    ax.plot([], [], ls=DASHES, color=COLOURS["brain"], lw=1.5, label="feedback")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0.03), ncols=4, fontsize=11)
    ax.set(xlim=(-WIDE / 2 - 0.05, 2 * STEP + WIDE / 2 + 0.05), ylim=(-5.9, 0.9))
    ax.axis("off")
    return fig


def _box(ax: Axes, middle: float, height: float, title: str, known: str, colour: str) -> None:
    corner = middle - WIDE / 2, height - HIGH / 2
    look = {"boxstyle": "round,pad=0,rounding_size=0.1", "fc": "white", "ec": colour, "lw": 1.5}
    ax.add_patch(FancyBboxPatch(corner, WIDE, HIGH, **look))
    ax.text(middle, height + 0.25, title, ha="center", va="center", fontsize=12, weight="bold")
    ax.text(middle, height - 0.14, known, ha="center", va="center", fontsize=11, linespacing=1.1)


def _arrow(ax: Axes, start, end, **look) -> None:
    ax.annotate("", end, start, arrowprops={"arrowstyle": "->", "shrinkA": 0, "shrinkB": 0, **look})
