"""What a rendered page need not load, or need not load yet."""

import re
from functools import cache
from pathlib import Path

from PIL import Image

# The icons come from a font, and the search has an index of its own.
UNUSED = re.compile(r"/fontawesome\.js|searchtools\.js|language_data\.js|searchindex\.js")
PHOTOGRAPHIC = 20_000  # colours from which a picture is stored with a loss that nobody sees
QUALITY = 85
THUMBNAIL = 480, 240  # pixels, at most


def mend(page) -> None:
    """Leave out scripts that nothing uses, and store pictures as WebP with their size.

    Args:
        page: A `finish.Page`; pictures after the first wait until the reader is near.
    """
    for script in page.html.find_all("script", src=UNUSED):
        script.decompose()
    for number, image in enumerate(page.html.select("article img[src$='.png']")):
        small, (width, height) = as_webp(page.path(image["src"]))
        image["src"] = page.to(small)
        image["width"], image["height"] = width, height
        if number:
            image["loading"] = "lazy"
        for link in image.find_parents("a", href=re.compile(r"_images/.*\.png$")):
            link["href"] = image["src"]


@cache
def as_webp(file: Path) -> tuple[Path, tuple[int, int]]:
    """A picture as WebP, next to the file, in whose place it comes if it is smaller.

    Args:
        file: A PNG.

    Returns:
        The smaller of the two files, and its width and height.
    """
    small = file.with_suffix(".webp")
    with Image.open(file) as picture:
        size = picture.size
        picture = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    lossless = picture.getcolors(PHOTOGRAPHIC) is not None
    picture.save(small, lossless=lossless, quality=60 if lossless else QUALITY, method=4)
    unused = file if small.stat().st_size < file.stat().st_size else small
    unused.unlink()
    return (small if unused == file else file), size


@cache
def thumbnail(file: Path) -> tuple[Path, tuple[int, int]]:
    """A small WebP of a picture, next to it.

    Args:
        file: Of the picture.

    Returns:
        The small file, and its width and height.
    """
    small = file.with_name(f"{file.stem}-small.webp")
    with Image.open(file) as picture:
        mode = "RGBA" if picture.has_transparency_data else "RGB"
        picture = picture.convert(mode)
    picture.thumbnail(THUMBNAIL)
    picture.save(small, quality=60, method=4)
    return small, picture.size
