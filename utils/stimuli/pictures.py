"""The RGB picture in the content of a file."""

import io

import numpy as np
from PIL import Image, UnidentifiedImageError

from .minibatches import Damaged
from .places import printable

# Formats that Pillow decodes in this process: others start programs (EPS) or read on the network.
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "GIF", "TIFF", "WEBP")
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # tags of TIFF
WHITE_IS_ZERO = 0
MEANT = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # of Pillow, with a reason


def decode(name: str, content: bytes) -> Image.Image | Damaged:
    """The RGB picture in the content of a file.

    Args:
        name: What a damaged one is called.
        content: Of a file in one of FORMATS. Of several pictures in it the first counts.
            Transparency, colour profiles and the EXIF orientation are ignored, as torchvision and
            timm do. Grey of more than eight bits is scaled to eight.
    """
    try:
        return _rgb(Image.open(io.BytesIO(content), formats=FORMATS))
    except UnidentifiedImageError:  # whose words are about the buffer
        return Damaged(printable(name), f"it cannot be read as {', '.join(FORMATS)}")
    except Exception as error:  # files of any content come here
        if isinstance(error, MEANT) and not isinstance(error, UnicodeError):
            return Damaged(printable(name), printable(error).rstrip("."))
        return Damaged(printable(name), f"Pillow fails to decode it ({type(error).__name__})")


def _rgb(image: Image.Image) -> Image.Image:
    image.load()
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return _of_levels(image).convert("RGB")
    image.info.pop("transparency", None)  # or Pillow warns of what is ignored
    return image.convert("RGB")


def _of_levels(image: Image.Image) -> Image.Image:
    """Grey of more than eight bits, scaled to eight."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITS_PER_SAMPLE, (16,))[0]
    if image.mode == "F" or bits > 16 or (image.mode == "I" and tags):
        raise ValueError(f"which values are black and white is not known (mode {image.mode})")
    levels = np.asarray(image).astype(np.float64) / (2**bits - 1)
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        levels = 1 - levels
    return Image.fromarray((255 * levels).round().astype(np.uint8))
