"""How far attention of a given sharpness, with nine heads or with eight, is from a convolution."""

from collections.abc import Callable, Iterator

import torch
from torch.nn import functional as F

from utils.models.convolutional_attention import ConvolutionalAttention

COLUMNS = ("heads", "place", "sharpness", "value", "n")
SHARPNESS = (1.0, 2.0, 4.0, 8.0, 16.0)
PIXELS, IMAGES, CHANNELS, OUT = 8, 20, 3, 4


def errors(sharpness: float) -> Iterator[dict]:
    """The largest error of any pixel of n images, whose values and the kernel's are normal.

    place : "interior", "border". Of eight heads that of the best choice, whichever is left out.
    """
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(IMAGES, CHANNELS, PIXELS, PIXELS, generator=draw, dtype=torch.float64)
    kernel = torch.randn(OUT, CHANNELS, 3, 3, generator=draw, dtype=torch.float64)
    wanted = F.conv2d(images, kernel, padding=1)
    border = torch.ones(PIXELS, PIXELS, dtype=torch.bool)
    border[1:-1, 1:-1] = False

    def largest(heads: list[int]) -> torch.Tensor:
        found = ConvolutionalAttention(kernel, sharpness, heads)(images)
        return (found - wanted).abs().amax((0, 1))

    nine = largest(list(range(9)))
    eight = min((largest([h for h in range(9) if h != out]) for out in range(9)), key=torch.max)
    for heads, each in ((9, nine), (8, eight)):
        for place, where in (("interior", ~border), ("border", border)):
            about = {"heads": heads, "place": place, "sharpness": sharpness}
            yield {**about, "value": each[where].max().item(), "n": IMAGES}


PARTS: dict[str, Callable[[], Iterator[dict]]] = {
    f"sharpness {sharpness:g}": lambda sharpness=sharpness: errors(sharpness)
    for sharpness in SHARPNESS
}
