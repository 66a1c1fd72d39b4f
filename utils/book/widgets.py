"""Interactive figures that go on working in a static page, where no kernel is left to ask.

Every picture is drawn beforehand and lies in a `Stack`; the controls are linked to the stack in
the browser. A picture of 640 px takes about 30 kB drawn with lines, 20 to 80 kB as a photograph:
each goes into the page in whole, so keep strips to a few dozen.
"""

import base64
import html
import io
from collections.abc import Sequence

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

MINIMUM_ALT = 40  # characters; less cannot say what is seen
SMALL = 128  # px; pictures up to this size are stimuli whose single pixels should stay visible


def slider(
    pictures: Sequence[Figure | torch.Tensor | np.ndarray],
    labels: Sequence[str],
    alts: Sequence[str],
    description: str = "Picture",
    width: int = 640,
) -> ipywidgets.Widget:
    """A slider that leafs through pictures, each with its label below.

    Used from chapter 1 on.

    Args:
        pictures: Matplotlib figures, which are closed, or images [3, H, W] with values in 0 … 1.
        labels: One for each picture.
        alts: One for each picture, no two the same: what is seen, in 40 characters or more.
        description: What the slider changes.
        width: Of figures and of the largest image, in px.

    Returns:
        The slider above its pictures, for the last line of a cell.

    Raises:
        ValueError: For anything else.

    Example:
        >>> import torch
        >>> from utils.book import widgets
        >>> alts = [f"A square of one even grey, {share} per cent of white" for share in (20, 80)]
        >>> greys = [torch.full((3, 8, 8), grey) for grey in (0.2, 0.8)]
        >>> control, _ = widgets.slider(greys, ["dark", "light"], alts, "Grey").children
        >>> control.options
        ('1 of 2', '2 of 2')
    """
    return _leaf_through([pictures], [labels], [alts], [description], width)


def two_sliders(
    pictures: Sequence[Sequence[Figure | torch.Tensor | np.ndarray]],
    labels: Sequence[Sequence[str]],
    alts: Sequence[Sequence[str]],
    descriptions: tuple[str, str] = ("Row", "Column"),
    width: int = 480,
) -> ipywidgets.Widget:
    """Two sliders over a table of pictures, such as layer × head.

    Used in chapter 3.

    Args:
        pictures: [rows][columns], as for `slider`, no row shorter than another.
        labels: One for each picture, nested in the same way.
        alts: One for each picture, nested in the same way.
        descriptions: What the slider over rows and the one over columns change.
        width: As for `slider`.

    Returns:
        The sliders above their pictures, for the last line of a cell.

    Raises:
        ValueError: As `slider`.

    Example:
        >>> import torch
        >>> from utils.book import widgets
        >>> alts = [[f"A square of one even grey, picture {r} and {c}" for c in "ab"] for r in "AB"]
        >>> greys = torch.rand(2, 2, 3, 1, 1).expand(2, 2, 3, 8, 8)
        >>> box = widgets.two_sliders(greys, [["a", "b"], ["c", "d"]], alts, ("Layer", "Head"))
        >>> [control.description for control in box.children[:2]]
        ['Layer', 'Head']
    """
    return _leaf_through(pictures, labels, alts, descriptions, width)


def _leaf_through(pictures, labels, alts, descriptions, width) -> ipywidgets.Widget:
    """[rows][columns] of pictures under one slider per description; the last runs over columns."""
    _check(pictures, labels, alts)
    frames = [
        [_frame(*parts, width) for parts in zip(*row, strict=True)]
        for row in zip(pictures, labels, alts, strict=True)
    ]
    lengths = (len(frames), len(frames[0]))[-len(descriptions) :]
    controls = [_control(*each) for each in zip(descriptions, lengths, strict=True)]
    show = _linked_stack if hasattr(ipywidgets, "Stack") else _asked_picture
    return ipywidgets.VBox([*controls, show(frames, controls)])


def _linked_stack(frames, controls) -> ipywidgets.Widget:
    """A stack per row, and over more than one row a stack of these, linked in the browser."""
    rows = [_stack([_html(frame) for frame in row]) for row in frames]
    for stack in rows:
        ipywidgets.jslink((controls[-1], "index"), (stack, "selected_index"))
    if len(controls) == 1:
        return rows[0]
    table = _stack(rows)
    ipywidgets.jslink((controls[0], "index"), (table, "selected_index"))
    return table


def _asked_picture(frames, controls) -> ipywidgets.Widget:
    """One picture that the kernel changes, for ipywidgets 7, which has no Stack."""
    picture = _html(frames[0][0])

    def show(_change):
        row = controls[0].index if len(controls) == 2 else 0
        picture.value = frames[row][controls[-1].index]

    for control in controls:
        control.observe(show, "index")
    return picture


def _stack(layers) -> ipywidgets.Widget:
    return ipywidgets.Stack(layers, selected_index=0, layout={"width": "100%"})


def _html(frame: str) -> ipywidgets.HTML:
    return ipywidgets.HTML(frame, layout={"width": "100%"})


def _control(description: str, length: int) -> ipywidgets.SelectionSlider:
    # Words rather than a number, because a screen reader speaks what stands next to the slider.
    return ipywidgets.SelectionSlider(
        options=[f"{place} of {length}" for place in range(1, length + 1)],
        description=description,
        style={"description_width": "initial"},
        layout={"width": "95%", "max_width": "480px"},
    )


def _check(pictures, labels, alts) -> None:
    """Raise one sentence on the first thing that is wrong with the table of pictures."""
    shape = [len(row) for row in pictures]
    if not shape or 0 in shape:
        raise ValueError("There are no pictures to show: give at least one in each row.")
    if len(set(shape)) > 1:
        raise ValueError(f"Each row needs equally many pictures, not {shape}.")
    for name, texts in (("label", labels), ("alt text", alts)):
        found = [len(row) for row in texts]
        if found != shape:
            raise ValueError(f"Each picture needs one {name}: {shape} in each row, not {found}.")
    every = [alt for row in alts for alt in row]
    for alt in every:
        if len(alt.strip()) < MINIMUM_ALT:
            raise ValueError(
                f"The alt text {alt!r} is too short: say in {MINIMUM_ALT} characters or more "
                "what is seen."
            )
        if every.count(alt) > 1:
            raise ValueError(f"Two pictures share the alt text {alt!r}: say what differs.")


def _frame(picture, label: str, alt: str, width: int) -> str:
    """One picture with its label, as HTML that carries everything it needs."""
    image = _drawn(picture, width) if isinstance(picture, Figure) else _pixels(picture, width)
    small = image.width <= SMALL
    shown = min(width, 10 * image.width) if small else image.width
    scaling = "image-rendering:pixelated;" if small else ""
    return (
        f'<figure style="margin:0;width:100%;max-width:{shown}px">'
        f'<img alt="{html.escape(alt.strip(), quote=True)}" '
        f'src="{_data_url(image)}" style="width:100%;{scaling}">'
        # The page's own colour for captions is too pale on the light ground of a widget.
        '<figcaption style="color:inherit;text-align:left;font-size:1rem;line-height:1.4">'
        f"{html.escape(label)}</figcaption></figure>"
    )


def _drawn(figure: Figure, width: int) -> Image.Image:
    """A figure as an image `width` px wide; closed, so that it does not appear a second time."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=width / figure.get_figwidth())
    plt.close(figure)
    return Image.open(buffer).convert("RGB")


def _pixels(picture, width: int) -> Image.Image:
    """[3, H, W] in [0, 1] as an image at most `width` px wide."""
    pixels = torch.as_tensor(picture).detach().float().cpu()
    if pixels.ndim != 3 or pixels.shape[0] != 3 or pixels.numel() == 0:
        raise ValueError(
            f"A picture needs to be a figure or of shape [3, H, W], not {list(pixels.shape)}."
        )
    if not (pixels.min() >= 0 and pixels.max() <= 1):  # also true for NaN
        raise ValueError(
            f"A picture needs values from 0 to 1, not {pixels.min():.3g} to {pixels.max():.3g}."
        )
    image = Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy())  # [H, W, 3]
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)))
    return image


def _data_url(image: Image.Image) -> str:
    """The image as a data address: exact if small, else the shorter of two encodings.

    Lines and flat colours come out shorter as PNG with a palette, photographs as WebP.
    """
    if image.width <= SMALL:
        coded = {"png": _encoded(image, "png", optimize=True)}
    else:
        coded = {
            "png": _encoded(image.quantize(256), "png", optimize=True),
            "webp": _encoded(image, "webp", quality=90, method=6),
        }
    kind = min(coded, key=lambda name: len(coded[name]))
    return f"data:image/{kind};base64,{base64.b64encode(coded[kind]).decode('ascii')}"


def _encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
