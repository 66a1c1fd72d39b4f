"""Interactive figures: `choose` works wherever HTML is shown, `live` where a kernel computes.

Under `choose` every picture is drawn beforehand; radio buttons choose which one is seen, by style
sheet alone.
A chart takes about 4 kB of a compressed page, a photograph of 640 px 20 to 80 kB: keep strips to a
few dozen.
"""

import base64
import html
import io
import os
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from urllib.parse import quote

import ipywidgets
import matplotlib.pyplot as plt
import torch
from IPython.display import HTML
from matplotlib.figure import Figure
from PIL import Image

from .runtime import PAGES

MINIMUM_ALT = 40  # characters; less cannot say what is seen
SMALL = 128  # px; pictures up to this size are stimuli whose single pixels should stay visible
# The look of the buttons, in the colours of whatever page they are on.
_STYLE = """
#ID fieldset{display:flex;flex-wrap:wrap;align-items:center;gap:4px;border:0;margin:0 0 6px;
padding:0}
#ID legend{float:left;padding:0;margin:0 8px 0 0;font-size:1rem;width:auto}
#ID label{position:relative;min-width:28px;min-height:28px;margin:0;padding:2px 9px;
box-sizing:border-box;text-align:center;border:1px solid #767676;border-radius:6px;cursor:pointer}
#ID label:has(:checked){background:#0072B2;border-color:#0072B2;color:#fff}
#ID label:has(:focus-visible){outline:3px solid #E69F00;outline-offset:2px}
#ID input{position:absolute;opacity:0;inset:0;width:100%;height:100%;margin:0;cursor:pointer}
#ID figure{margin:0;width:100%}
#ID img{display:block;width:100%}
#ID figcaption{color:inherit;text-align:left;font-size:1rem;line-height:1.4}
@supports selector(:has(*)){#ID figure{display:none}}
"""


def choose(
    pictures: Sequence,
    steps: Mapping[str, Sequence],
    captions: Sequence,
    alts: Sequence,
    start: Sequence[int] = (),
    width: int = 640,
) -> HTML:
    """A figure whose picture the reader chooses by one or two rows of named buttons.

    Used from chapter 1 on.

    Args:
        pictures: One for each step, or [rows][columns] for two rows of buttons: matplotlib
            figures, which are closed, or images [3, H, W] with values in 0 … 1.
        steps: What is chosen → the name of each step, such as {"Layer": [1, 2], "Head": "abcd"}.
        captions: One for each picture, nested in the same way.
        alts: One for each picture, nested in the same way, no two the same: what is seen, in 40
            characters or more.
        start: The number of the step that is seen first, for each row of buttons; the first if
            left out.
        width: Of figures and of the largest image, in px.

    Returns:
        The figure, for the last line of a cell.

    Raises:
        ValueError: For anything else.

    Example:
        >>> import torch
        >>> from utils.book import widgets
        >>> alts = [f"A square of one even grey, {share} per cent of white" for share in (20, 80)]
        >>> greys = [torch.full((3, 8, 8), grey) for grey in (0.2, 0.8)]
        >>> figure = widgets.choose(greys, {"Grey": ["dark", "light"]}, ["20 %", "80 %"], alts)
        >>> figure._repr_html_().count("<img")
        2
    """
    if len(steps) not in (1, 2):
        raise ValueError(f"A figure is chosen by one or two rows of buttons, not {len(steps)}.")
    if len(steps) == 1:
        pictures, captions, alts = [pictures], [captions], [alts]
    names = [[str(name) for name in row] for row in steps.values()]
    _check(pictures, captions, alts, names)
    start = tuple(start) or (0,) * len(names)
    if len(start) != len(names) or any(k not in range(len(names[i])) for i, k in enumerate(start)):
        raise ValueError(f"start={start!r} is not one step for each of {list(steps)}.")
    figures = [
        _figure(*parts, place, width)
        for row, rows in enumerate(zip(pictures, captions, alts, strict=True))
        for place, parts in enumerate(zip(*rows, strict=True), start=row * len(names[-1]))
    ]
    body = "".join(figures)
    key = "choose-" + sha256((repr(steps) + body).encode()).hexdigest()[:10]
    buttons = "".join(
        _buttons(f"{key}-{k}", title, names[k], start[k]) for k, title in enumerate(steps)
    )
    style = (_STYLE.replace("\n", "") + _rules(names)).replace("ID", key)
    return HTML(
        f'<div id="{key}" class="choose" style="max-width:{width}px"><style>{style}</style>'
        f'{buttons}<div aria-live="polite">{body}</div></div>'
    )


def live(draw: Callable, **choices: Sequence) -> ipywidgets.Widget | None:
    """Draw again with whatever the reader chooses, in Jupyter; a page shows the first choice.

    Used in the page on your own notebook.

    Args:
        draw: Called with one of each of the choices by name; what it draws and prints is shown.
        **choices: Name → the values that can be chosen, the first one first.

    Returns:
        The controls with what is drawn, for the last line of a cell; None in a page.

    Raises:
        ValueError: If there is nothing to choose from.
    """
    if not choices or not all(map(len, choices.values())):
        raise ValueError(f"Each choice needs at least one value: {choices!r}.")
    if os.environ.get(PAGES):
        return draw(**{name: next(iter(values)) for name, values in choices.items()})
    return ipywidgets.interactive(draw, **{name: list(each) for name, each in choices.items()})


def _check(pictures, captions, alts, names) -> None:
    """Raise one sentence on the first thing that is wrong with the table of pictures."""
    shape = [len(row) for row in pictures]
    if not shape or 0 in shape:
        raise ValueError("There are no pictures to show: give at least one in each row.")
    if len(set(shape)) > 1:
        raise ValueError(f"Each row needs equally many pictures, not {shape}.")
    for name, texts in (("caption", captions), ("alt text", alts)):
        found = [len(row) for row in texts]
        if found != shape:
            raise ValueError(f"Each picture needs one {name}: {shape} in each row, not {found}.")
    wanted = [len(shape), shape[0]][-len(names) :]
    if (found := [len(row) for row in names]) != wanted:
        raise ValueError(f"Each step needs a name: {wanted} in all, not {found}.")
    every = [alt for row in alts for alt in row]
    for alt in every:
        if len(alt.strip()) < MINIMUM_ALT:
            raise ValueError(
                f"The alt text {alt!r} is too short: say in {MINIMUM_ALT} characters or more "
                "what is seen."
            )
        if every.count(alt) > 1:
            raise ValueError(f"Two pictures share the alt text {alt!r}: say what differs.")


def _buttons(group: str, title: str, names: Sequence[str], start: int) -> str:
    """One row of radio buttons: arrow keys move in it, and a screen reader says "2 of 6"."""
    labels = "".join(
        f'<label><input type="radio" name="{group}" value="{k}"{" checked" * (k == start)}>'
        f"{html.escape(name)}</label>"
        for k, name in enumerate(names)
    )
    return f"<fieldset><legend>{html.escape(title)}</legend>{labels}</fieldset>"


def _rules(names) -> str:
    """The style sheet that shows the figure of the steps that are chosen."""
    columns = len(names[-1])
    rows = len(names[0]) if len(names) == 2 else 1
    chosen = []
    for place in range(rows * columns):
        steps = divmod(place, columns)[-len(names) :]
        checked = "".join(
            f':has([name="ID-{k}"][value="{step}"]:checked)' for k, step in enumerate(steps)
        )
        chosen.append(f"#ID{checked} .p{place}")
    return ",".join(chosen) + "{display:block}"


def _figure(picture, caption: str, alt: str, place: int, width: int) -> str:
    """One picture with its caption, as HTML that carries everything it needs."""
    shown, look = width, ""
    if isinstance(picture, Figure):
        address, kind = _drawn(picture, width)
    else:
        image = as_image(picture, width)
        address, kind, shown = data_url(image), "pictures", image.width
        if image.width <= SMALL:
            shown, look = min(width, 10 * image.width), "image-rendering:pixelated;"
    return (
        f'<figure class="p{place}"><img class="{kind}" alt="{html.escape(alt.strip())}" '
        f'src="{address}" style="{look}max-width:{shown}px">'
        f"<figcaption>{html.escape(caption)}</figcaption></figure>"
    )


def _drawn(figure: Figure, width: int) -> tuple[str, str]:
    """A figure's address and kind; it is closed, so that it does not appear a second time.

    A chart stays lines (SVG), which are sharp and compress well; what shows images is one itself.
    """
    if not any(ax.images for ax in figure.axes):
        address = _vector(figure)
        plt.close(figure)
        return address, "chart"
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=width / figure.get_figwidth())
    plt.close(figure)
    return data_url(Image.open(buffer).convert("RGB")), "pictures"


def _vector(figure: Figure) -> str:
    buffer = io.StringIO()
    # The same picture is the same text each time, so that pages can be compared.
    with plt.rc_context({"svg.hashsalt": "chart", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    drawing = buffer.getvalue()
    drawing = " ".join(drawing[drawing.index("<svg") :].split())
    return "data:image/svg+xml," + quote(drawing, safe=" ='/:;,.()-!*@~&+$?")


def as_image(picture, width: int) -> Image.Image:
    """[3, H, W] in [0, 1] as an image at most `width` px wide.

    Args:
        picture: A tensor, or what can be made one.
        width: In px.

    Returns:
        The image.

    Raises:
        ValueError: For another shape or range.
    """
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


def data_url(image: Image.Image) -> str:
    """The image as a data address: exact if small, else the shorter of two encodings.

    Lines and flat colours come out shorter as PNG with a palette, photographs as WebP.

    Args:
        image: In RGB.

    Returns:
        The address.
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
