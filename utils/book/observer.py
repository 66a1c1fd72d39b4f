"""The reader as an observer: trials in the page, next to what networks decided in the same ones.

The markup is complete without a script: the pictures, and folded away what they show and what each
network decided. `_static/observer.js` makes trials of it, one picture at a time.
"""

import html
import json
from collections.abc import Mapping, Sequence

from IPython.display import HTML
from torch import Tensor

from . import widgets

# The look of the trials, in the colours of whatever page they are on.
_STYLE = """
.observer ol{display:grid;grid-template-columns:repeat(auto-fill,minmax(4.5rem,1fr));gap:.5rem;
margin:0 0 1rem;padding:0;list-style-position:inside}
.observer ol img{display:block;width:64px;height:64px}
.observer img{image-rendering:pixelated}
.observer [hidden]{display:none!important}
.observer .intro{display:flex;flex-wrap:wrap;gap:.5rem 1rem;align-items:center;margin:0 0 1rem}
.observer .shown{display:block;width:224px;height:224px;margin:0 0 .75rem;background:#808080}
.observer .shown img{width:100%;height:100%}
.observer .answers{display:grid;grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));gap:6px;
margin:0 0 .75rem}
.observer button{display:flex;gap:.5rem;align-items:center;min-height:28px;padding:3px 8px;
color:inherit;background:none;border:1px solid #767676;border-radius:6px;font:inherit;
text-align:left;cursor:pointer}
.observer .answers img{width:40px;height:40px}
.observer button:focus-visible{outline:3px solid #E69F00;outline-offset:2px}
.observer .scroll{overflow-x:auto}
.observer td,.observer th{padding:2px 10px 2px 0;text-align:left}
"""
_ASLEEP = (
    "The trials run in the book's own page, where scripts are allowed. Here, name each picture on "
    "paper, and then compare: below, folded away, is what each of them shows, and what the "
    "networks decided."
)


def trials(
    images: Tensor,
    shape: Tensor,
    texture: Tensor,
    examples: Tensor,
    names: Sequence[str],
    decisions: Mapping[str, Tensor],
) -> HTML:
    """Trials in which the reader names pictures whose shape and texture disagree.

    Used in chapter 2.5.

    Args:
        images: [n, 3, h, w] in 0 … 1, what is to be named.
        shape: int64 [n], the classes of the shapes.
        texture: int64 [n], the classes of the textures.
        examples: [classes, 3, h, w], a picture of each class whose cues agree.
        names: Of the classes, ten at most: each answer has a digit.
        decisions: Name of a network → int64 [n], what it decided.

    Returns:
        The trials, for the last line of a cell.

    Raises:
        ValueError: For unequal lengths, and more than ten classes.
    """
    lengths = {len(images), len(shape), len(texture), *map(len, decisions.values())}
    if len(lengths) > 1 or 0 in lengths:
        raise ValueError(f"Each trial needs a picture, cues and decisions, not {sorted(lengths)}.")
    if len(examples) != len(names) or len(names) > 10:
        raise ValueError(
            f"Each of ten classes at most needs an example and a name, not {len(examples)} and "
            f"{len(names)}."
        )
    told = {
        "names": list(names),
        "shape": shape.tolist(),
        "texture": texture.tolist(),
        "networks": {name: each.tolist() for name, each in decisions.items()},
    }
    items = "".join(
        f"<li>{_image(x, f'Picture {i} of {len(images)}, which is to be named')}</li>"
        for i, x in enumerate(images, start=1)
    )
    answers = "".join(
        f'<li value="{digit}">{_image(x, f"Example of the class {name}")} {html.escape(name)}</li>'
        for digit, x, name in zip((*range(1, 10), 0), examples, names, strict=False)
    )
    return HTML(
        f'<div class="observer" data-trials="{html.escape(json.dumps(told))}">'
        f"<style>{_STYLE.replace(chr(10), '')}</style>"
        f'<p class="asleep">{_ASLEEP}</p>'
        f'<p class="asleep">The classes, each with an example:</p>'
        f'<ol class="classes">{answers}</ol>'
        f'<div class="asleep"><p>The pictures:</p><ol class="to-name">{items}</ol></div>'
        f"<details><summary>What they show, and what the networks decided</summary>"
        f'<div class="scroll" tabindex="0">{_table(told)}</div></details></div>'
    )


def _image(picture: Tensor, alt: str) -> str:
    address = widgets.data_url(widgets.as_image(picture, widgets.SMALL))
    return f'<img class="pictures" alt="{html.escape(alt)}" src="{address}">'


def _table(told: dict) -> str:
    """The trials as rows: number, shape, texture, what each network decided."""

    def line(cells: Sequence, tag: str = "td") -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(c))}</{tag}>" for c in cells) + "</tr>"

    names, columns = told["names"], [told["shape"], told["texture"], *told["networks"].values()]
    head = line(["picture", "shape of", "texture of", *told["networks"]], "th")
    rows = (
        line([i, *(names[c] for c in each)])
        for i, each in enumerate(zip(*columns, strict=True), start=1)
    )
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"
