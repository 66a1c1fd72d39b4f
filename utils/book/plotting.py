"""The one figure style of the book, and the few kinds of figure that chapters share."""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, PowerNorm, to_rgba
from matplotlib.figure import Figure

# Okabe & Ito's colours keep apart under the common kinds of colour blindness. A Transformer and a
# CNN have the same two everywhere; controls and everything neutral are grey.
COLOURS = {
    "vit": "#0072B2",
    "cnn": "#D55E00",
    "mixer": "#009E73",
    "brain": "#CC79A7",
    "highlight": "#E69F00",
    "control": "#767676",
    "neutral": "#333333",
}
SEQUENTIAL = "viridis"  # amounts, from none upwards
DIVERGING = "RdBu_r"  # signed values, centred on zero
HALFWAY = 0.179  # relative luminance against which black and white have the same contrast
WIDTH = 6.4  # inches: at 400 px, type of 11 pt is still about 9 px high


def use_style() -> None:
    """Apply the book's figure style to everything drawn from now on.

    Wide type for narrow screens, no frame at the top and right, and an opaque white ground, on
    which figures stay legible where a page is dark.

    Example:
        >>> import matplotlib.pyplot as plt
        >>> from utils.book import plotting
        >>> plotting.use_style()
        >>> plt.rcParams["axes.spines.top"], plt.rcParams["figure.facecolor"]
        (False, 'white')
    """
    sns.set_theme(
        context="notebook",
        style="ticks",
        palette=[
            COLOURS[name] for name in ("vit", "cnn", "mixer", "brain", "highlight", "control")
        ],
        rc={
            "figure.figsize": (WIDTH, 3.8),
            "figure.dpi": 144,
            "figure.facecolor": "white",
            "figure.constrained_layout.use": True,
            "savefig.facecolor": "white",
            "savefig.transparent": False,
            "axes.facecolor": "white",
            "axes.edgecolor": COLOURS["neutral"],
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 12,
            "axes.labelsize": 12,
            "xtick.labelsize": 11,
            "ytick.labelsize": 11,
            "legend.fontsize": 11,
            "legend.frameon": False,
            "font.size": 12,
            "lines.linewidth": 2,
            "image.cmap": SEQUENTIAL,
            "image.interpolation": "nearest",
        },
    )


def image_grid(
    images: torch.Tensor,
    titles: Sequence[str] | None = None,
    columns: int = 4,
    title_size: float = 11,
) -> Figure:
    """Show images in rows, each under its title.

    Used from chapter 1 on.

    Args:
        images: [N, 3, H, W], values in 0 … 1, at least one.
        titles: N strings.
        columns: How many images a row holds at most.
        title_size: Of the titles, in points.

    Returns:
        The figure.

    Raises:
        ValueError: For any other shape, range or number.

    Example:
        >>> import torch
        >>> from utils.book import plotting
        >>> figure = plotting.image_grid(torch.rand(3, 3, 8, 8), ["a", "b", "c"], columns=2)
        >>> [ax.get_title() for ax in figure.axes]
        ['a', 'b', 'c', '']
    """
    pixels = _as_pixels(images)  # [N, H, W, 3]
    if titles is not None and len(titles) != len(pixels):
        raise ValueError(f"{len(pixels)} images need as many titles, not {len(titles)}.")
    if columns < 1:
        raise ValueError(f"A grid needs at least one column, not {columns}.")
    columns = min(columns, len(pixels))
    rows = math.ceil(len(pixels) / columns)
    width = min(WIDTH, 2.4 * columns)  # few pictures do not grow beyond their worth
    lines = max((str(title).count("\n") + 1 for title in titles), default=0) if titles else 0
    cell = width / columns * pixels.shape[1] / pixels.shape[2] + lines * 1.6 * title_size / 72
    fig, axes = plt.subplots(rows, columns, figsize=(width, rows * cell), squeeze=False)
    for place, ax in enumerate(axes.flat):
        ax.axis("off")
        if place < len(pixels):
            ax.imshow(pixels[place])
            ax.set_title(titles[place] if titles else "", fontsize=title_size)
    return fig


def heatmap(
    matrix,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    xlabel: str = "",
    ylabel: str = "",
    unit: str = "",
    digits: int | None = None,
    centre: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw a matrix as colours, with names along both sides and the unit next to the colour bar.

    Args:
        matrix: [rows, columns], finite: a tensor, an array or nested lists.
        rows: A name for each row.
        columns: A name for each column.
        xlabel: What the columns are.
        ylabel: What the rows are.
        unit: What the values are, with their unit.
        digits: The number of decimals with which each value is written into its cell; None to
            write none.
        centre: The value around which the diverging colours are used; None for amounts from none
            upwards.
        ax: Where to draw, instead of in a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If shapes and names disagree, or a value is not finite.

    Example:
        >>> from utils.book import plotting
        >>> ax = plotting.heatmap([[0.25, 0.75], [1, 0]], rows=["disc", "ring"], digits=2)
        >>> [text.get_text() for text in ax.texts]
        ['0.25', '0.75', '1.00', '0.00']
    """
    values = np.asarray(matrix.cpu() if isinstance(matrix, torch.Tensor) else matrix, dtype=float)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"A heat map needs a matrix [rows, columns], not shape {values.shape}.")
    if not np.isfinite(values).all():
        raise ValueError("A heat map needs finite values: remove NaN and infinity first.")
    for side, names, length in zip(("row", "column"), (rows, columns), values.shape, strict=True):
        if names is not None and len(names) != length:
            raise ValueError(f"{length} {side}s need as many {side} names, not {len(names)}.")
    if ax is None:
        height = 1.2 + min(0.45 * len(values), 5.2)
        _, ax = plt.subplots(figsize=(WIDTH, height))
    sns.heatmap(
        values,
        ax=ax,
        cmap=SEQUENTIAL if centre is None else DIVERGING,
        center=centre,
        annot=None if digits is None else _written(values, digits),
        fmt="",
        annot_kws={"fontsize": 10},
        xticklabels="auto" if columns is None else list(columns),
        yticklabels="auto" if rows is None else list(rows),
        cbar_kws={"label": unit},
        linewidths=0.5 if values.size <= 400 else 0,
    )
    for text, ground in zip(ax.texts, ax.collections[0].get_facecolors(), strict=False):
        light = sns.utils.relative_luminance(ground)
        text.set_color("black" if light > HALFWAY else "white")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.tick_params(axis="x", rotation=45 if columns is not None else 0, length=0)
    plt.setp(ax.get_xticklabels(), ha="right" if columns is not None else "center")
    plt.setp(ax.get_xticklabels(), rotation_mode="anchor")
    ax.tick_params(axis="y", rotation=0, length=0)
    return ax


def _written(values: np.ndarray, digits: int) -> np.ndarray:
    """Each value as text, with a minus sign that is no hyphen."""
    return np.vectorize(lambda value: f"{value:z.{digits}f}".replace("-", "−"))(values)


def overlay(
    image: torch.Tensor,
    weights: torch.Tensor,
    ax: Axes | None = None,
    full: float | None = None,
    colour: str = COLOURS["vit"],
) -> Axes:
    """Lay a map of weights over an image: the image in bright greys, the weights as colour.

    The colour grows with the square root of the weight, so that small weights are seen too.
    `ax.figure.colorbar(ax.images[-1], ax=ax)` draws its scale. Used from chapter 1 on.

    Args:
        image: [3, H, W], values in 0 … 1.
        weights: [h, w], not negative, such as attention to a grid of patches; stretched over the
            image.
        ax: Where to draw, instead of in a new figure.
        full: The weight that has the full colour. Overlays with the same `full` can be compared;
            by default it is the largest of the weights.
        colour: Of the weights: blue for a Transformer's, `COLOURS["cnn"]` for a CNN's.

    Returns:
        The axes; its last image is the weights.

    Raises:
        ValueError: For other shapes or ranges, and weights that are all zero where `full` is not
            given.

    Example:
        >>> import torch
        >>> from utils.book import plotting
        >>> ax = plotting.overlay(torch.ones(3, 8, 8), torch.tensor([[0.0, 0.5]]))
        >>> [f"{alpha:.2f}" for alpha in ax.images[-1].to_rgba([0, 0.125, 0.5])[:, 3]]
        ['0.00', '0.43', '0.85']
    """
    pixels = _as_pixels(image.unsqueeze(0))[0]  # [H, W, 3]
    if weights.ndim != 2 or weights.numel() == 0:
        raise ValueError(f"Weights need the shape [h, w], not {list(weights.shape)}.")
    if not torch.isfinite(weights).all() or weights.min() < 0:
        raise ValueError("Weights must be finite and not negative.")
    full = weights.max().item() if full is None else full
    if not 0 < full < math.inf:
        raise ValueError("Without `full`, at least one weight must be above zero, as must `full`.")
    height, width = pixels.shape[:2]
    if ax is None:
        _, ax = plt.subplots(figsize=(WIDTH / 2, WIDTH / 2 * height / width))
    grey = pixels @ (0.299, 0.587, 0.114)  # [H, W], as bright as the colours look
    ax.imshow(0.4 + 0.55 * grey, cmap="gray", vmin=0, vmax=1)
    ax.imshow(
        weights.detach().float().cpu().numpy(),
        cmap=LinearSegmentedColormap.from_list("layer", [to_rgba(colour, a) for a in (0, 0.85)]),
        norm=PowerNorm(0.5, vmin=0, vmax=full, clip=True),
        extent=(-0.5, width - 0.5, height - 0.5, -0.5),
    )
    ax.axis("off")
    return ax


def _as_pixels(images: torch.Tensor) -> np.ndarray:
    """[N, 3, H, W] in [0, 1] → [N, H, W, 3] for matplotlib, or a sentence on what is wrong."""
    if not isinstance(images, torch.Tensor) or images.ndim != 4 or images.shape[1] != 3:
        found = list(images.shape) if hasattr(images, "shape") else type(images).__name__
        raise ValueError(f"Images need the shape [N, 3, H, W], not {found}.")
    if images.numel() == 0:
        raise ValueError("There are no images to show: the batch is empty.")
    low, high = images.min().item(), images.max().item()
    if not (low >= 0 and high <= 1):  # also false for NaN
        raise ValueError(
            f"Images need values from 0 to 1, not {low:.3g} to {high:.3g}: undo the model's "
            "normalisation or divide by 255 first."
        )
    return images.detach().float().cpu().permute(0, 2, 3, 1).numpy()
