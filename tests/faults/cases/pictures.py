"""Files that are called pictures: their pixels as Pillow or numpy has them, or left out by name."""

import io
import os
import re
import struct
import subprocess
import zlib
from itertools import product
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from faults.case import Case
from utils.stimuli import datasets, image_folder

ENDING = {"JPEG": "jpg", "PNG": "png", "TIFF": "tif", "GIF": "gif", "WEBP": "webp", "BMP": "bmp",
          "PPM": "ppm"}  # fmt: skip
RAMP = np.linspace(0, 65535, 256).round().astype(np.uint16)[None].repeat(8, 0)
GREY = (np.arange(256) / 255)[None].repeat(8, 0)  # what RAMP must come out as, in [0, 1]
COLOURS = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8)
NOISE = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
SOUND = "z.png"
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")


def saved(picture: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def tiff(data: bytes, size: tuple[int, int], bits: int, photometric: int = 1, kind: int = 1):
    """An uncompressed grey TIFF, written by hand."""
    width, height = size
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, photometric),
            (273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, len(data)),
            (339, 3, kind)]  # fmt: skip
    data += bytes(len(data) % 2)
    entries = b"".join(struct.pack("<HHII", tag, form, 1, value) for tag, form, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory


def in_twelve_bits(values: np.ndarray) -> bytes:
    bits = np.unpackbits(values.astype(">u2").view(np.uint8).reshape(-1, 2), axis=1)[:, 4:]
    return np.packbits(bits).tobytes()


def chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))


def png(width: int, height: int, data: bytes, *more: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = header + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def place(folder: Path, name: str, content: bytes) -> Path:
    (folder / "pets" / "cat").mkdir(parents=True)
    (folder / "pets" / "cat" / name).write_bytes(content)
    return folder / "pets"


def pixels(name: str, content: bytes):
    """Its pixels in [0, 1], [y, x, 3]."""

    def act(folder: Path):
        image, _, _ = datasets.load(place(folder, name, content))[0]
        return image.permute(1, 2, 0)

    return act


def left_out(name: str, content: bytes):
    """How many pictures are read where one of two is this; the reason is told in a warning."""

    def act(folder: Path):
        pets = place(folder, name, content)
        (pets / "cat" / SOUND).write_bytes(saved(Image.new("RGB", (4, 4)), "PNG"))
        data = datasets.load(pets)
        return [len(data.everything().index), data.damaged]

    return act


def missing(content: bytes, name: str = "a.png", says: tuple[str, ...] = (), what: str = ""):
    return Case(f"{what}, called {name}", left_out(name, content), right=[1, [f"cat/{name}"]],
                says=(f"cat/{name}", "is damaged and left out: ", *says))  # fmt: skip


def without_programs(name: str, content: bytes):
    """The same where starting any program would be an error that nothing catches."""

    class Started(BaseException):
        pass

    act = left_out(name, content)

    def guarded(folder: Path):
        patched = [
            mock.patch.object(subprocess, "Popen", side_effect=Started),
            mock.patch.object(os, "system", side_effect=Started),
        ]
        with patched[0], patched[1]:
            return act(folder)

    return guarded


def without_addresses(content: bytes):
    """Whether the reason says where in memory something was."""

    def act(folder: Path):
        reason = datasets.load(place(folder, "a.png", content))[0].reason
        return bool(re.search(r"0x[0-9a-f]+|<|object at", reason))

    return act


def read_alone(folder: Path):
    pets = place(folder, "a.png", b"nothing")
    (pets / "cat" / SOUND).write_bytes(saved(Image.new("RGB", (4, 4)), "PNG"))
    return [name for name, _ in image_folder.read(pets)]


def many_damaged(folder: Path):
    pets = place(folder, "a.png", b"nothing")
    for i in range(500):
        (pets / "cat" / f"a rather long name of a picture {i:03}.png").write_bytes(b"nothing")
    (pets / "cat" / SOUND).write_bytes(saved(Image.new("RGB", (4, 4)), "PNG"))
    return len(list(image_folder.read(pets)))


def in_mode(mode: str, form: str):
    """A picture as one saves it, and what Pillow makes of it, alpha and all, in RGB."""
    picture = Image.fromarray(COLOURS).convert(mode)
    try:
        content = saved(picture, form, **({"lossless": True} if form == "WEBP" else {}))
        right = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) / 255
    except (OSError, KeyError, ValueError):  # the format, or this Pillow, does not know the mode
        return None
    return Case(f"a picture in mode {mode} as {form}", pixels(f"a.{ENDING[form]}", content), right)


def transparent() -> Image.Image:
    alpha = np.linspace(0, 255, 96).astype(np.uint8).reshape(8, 12, 1)
    return Image.fromarray(np.concatenate([COLOURS, alpha], 2))


def palette_with_alpha() -> bytes:
    picture = Image.fromarray(COLOURS).quantize(16)
    return saved(picture, "PNG", transparency=bytes(range(0, 256, 16)))


def turned(orientation: int, form: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    options = {"quality": 100, "subsampling": 0} if form == "JPEG" else {}
    return saved(Image.fromarray(COLOURS), form, exif=exif, **options)


def rgb(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")) / 255


def grey(values: np.ndarray) -> np.ndarray:
    return np.stack([values] * 3, 2)


def deep() -> dict[str, tuple[str, bytes, np.ndarray]]:
    """Ramps from black to white in more than eight bits."""
    as_16 = Image.fromarray(RAMP)
    twelve = in_twelve_bits(RAMP // 16)
    size = (256, 8)
    raw = b"P5\n256 8\n%d\n"
    colour = np.stack([RAMP] * 3, 2)
    ppm = b"P6\n256 8\n65535\n" + colour.astype(">u2").tobytes()
    return {
        "16 bits as PNG": ("a.png", saved(as_16, "PNG"), GREY),
        "16 bits as TIFF": ("a.tif", saved(as_16, "TIFF"), GREY),
        "16 bits as packed TIFF": ("a.tiff", saved(as_16, "TIFF", compression="tiff_lzw"), GREY),
        "16 bits as PGM": ("a.pgm", raw % 65535 + RAMP.astype(">u2").tobytes(), GREY),
        "12 bits as PGM": ("a.pgm", raw % 4095 + (RAMP // 16).astype(">u2").tobytes(), GREY),
        "16 bits as TIFF by hand": ("a.tif", tiff(RAMP.tobytes(), size, 16), GREY),
        "16 bits as TIFF, white is 0": ("a.tif", tiff(RAMP.tobytes(), size, 16, 0), 1 - GREY),
        "12 bits as TIFF": ("a.tif", tiff(twelve, size, 12), GREY),
        "48 bits of colour as PPM": ("a.ppm", ppm, GREY),
    }


def of_no_scale() -> dict[str, bytes]:
    """Numbers that no file says the black and white of."""
    size = (256, 8)
    return {
        "32-bit floats": saved(Image.fromarray(RAMP.astype(np.float32)), "TIFF"),
        "32-bit integers": saved(Image.fromarray(RAMP.astype(np.int32)), "TIFF"),
        "32-bit integers by hand": tiff(RAMP.astype("<u4").tobytes(), size, 32),
        "signed 16-bit integers": tiff((RAMP // 2).astype("<i2").tobytes(), size, 16, kind=2),
        "16-bit floats": tiff((RAMP / 65535).astype("<f2").tobytes(), size, 16, kind=3),
        "floats as PFM": b"Pf\n256 8\n-1.0\n" + RAMP.astype("<f4").tobytes(),
    }


WHOLE = {form: saved(Image.fromarray(NOISE), form) for form in ENDING}
ZEROS = zlib.compress(bytes(30_000 * 3 + 1))
BOMBS = {
    "30,000 × 30,000 pixels": png(30_000, 30_000, ZEROS),
    "two billion pixels": png(2**31 - 1, 1, ZEROS),
    "a comment of 2 MB": png(4, 4, ZEROS, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**21)))),
    "100,000 × 100,000 as BMP": b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 100_000,
                                                    100_000, 1, 24, 0, 0, 0, 0, 0, 0),
    "100,000 × 100,000 as GIF": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b",",
}  # fmt: skip
FOREIGN = {
    "EPS": EPS,
    "DOS EPS": b"\xc5\xd0\xd3\xc6" + struct.pack("<6IH", 30, len(EPS), 0, 0, 0, 0, 0xFFFF) + EPS,
    "PDF": b"%PDF-1.4\n%EOF\n",
    "HTML": b"<!DOCTYPE html><html><title>404 Not Found</title></html>",
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
    "nothing": b"",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n",
    "WMF": b"\xd7\xcd\xc6\x9a\0\0" + bytes(40),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(40),
    "MPEG": b"\0\0\1\xb3" + bytes(40),
    "GRIB": b"GRIB\0\0\0\1" + bytes(40),
    "FITS": b"SIMPLE  =                    T" + b" " * 50,
    "ICNS": b"icns\0\0\0\x08",
    "DDS": b"DDS " + bytes(124),
}

CASES = [
    *(
        Case(f"a ramp in {what}", pixels(name, content), grey(right), tolerance=1 / 250)
        for what, (name, content, right) in deep().items()
    ),
    *(
        missing(content, "a.ppm" if "PFM" in what else "a.tif",
                () if "16-bit floats" in what else ("black and white",), what)
        for what, content in of_no_scale().items()
    ),
    *filter(None, (
        in_mode(mode, form)
        for mode, form in product(MODES, ENDING)
    )),
    *(
        missing(content, f"a.{ending}", ("cannot be read as JPEG",), what)
        ._replace(act=without_programs(f"a.{ending}", content))
        for (what, content), ending in product(FOREIGN.items(), ("jpg", "PNG", "tif"))
    ),
    *(
        missing(WHOLE[form][: int(len(WHOLE[form]) * share)], f"a.{ENDING[form]}",
                what=f"{share:.0%} of a {form}")
        for form, share in product(ENDING, (0.01, 0.3, 0.6, 0.95))
        if not (form == "GIF" and share > 0.5)
    ),
    *(missing(content, what=what) for what, content in BOMBS.items()),
    *(
        Case(f"a reason without an address, of {what}", without_addresses(content), right=False)
        for what, content in {**FOREIGN, **BOMBS, "a cut PNG": WHOLE["PNG"][:2000]}.items()
    ),
    *(
        Case(f"a {form} that is called .{ending}",
             pixels(f"a.{ending}", WHOLE[form]), rgb(WHOLE[form]))
        for form, ending in (("PNG", "jpg"), ("JPEG", "png"), ("WEBP", "jpeg"), ("BMP", "gif"),
                             ("GIF", "JPG"), ("TIFF", "webp"), ("PPM", "bmp"), ("PNG", "jfif"))
    ),
    Case("transparency over colours as PNG", pixels("a.png", saved(transparent(), "PNG")),
         COLOURS / 255),
    Case("transparency over colours as TIFF", pixels("a.tif", saved(transparent(), "TIFF")),
         COLOURS / 255),
    Case("a palette of which some is transparent", pixels("a.png", palette_with_alpha()),
         np.asarray(Image.fromarray(COLOURS).quantize(16).convert("RGB")) / 255),
    Case("one colour is transparent as PNG",
         pixels("a.png", saved(Image.fromarray(COLOURS), "PNG",
                               transparency=tuple(COLOURS[0, 0].tolist()))),
         COLOURS / 255),
    *(
        Case(f"a {form} that EXIF turns, orientation {i}",
             pixels(f"a.{ENDING[form]}", turned(i, form)), rgb(turned(1, form)))
        for form, i in product(("JPEG", "PNG"), range(1, 9))
    ),
    *(
        Case(f"a {form} of several pictures",
             pixels(f"a.{ENDING[form]}", saved(
                 Image.fromarray(COLOURS), form, save_all=True, **options,
                 append_images=[Image.new("RGB", (12, 8), "red")])),
             rgb(saved(Image.fromarray(COLOURS), form, **options)))
        for form, options in {"TIFF": {}, "PNG": {}, "GIF": {}, "WEBP": {"lossless": True}}.items()
    ),
    Case("a telephone's JPEG of two pictures",
         pixels("a.jpg", saved(Image.fromarray(NOISE), "MPO", save_all=True,
                               append_images=[Image.new("RGB", (64, 64), "red")])),
         rgb(saved(Image.fromarray(NOISE), "JPEG"))),
    Case("a damaged picture among those that are read", read_alone, right=["cat/z.png"],
         says=("1 of 2 images in pets", "cat/a.png")),
    Case("501 damaged pictures", many_damaged, right=1, says=("501 of 502", "498 more")),
]  # fmt: skip
