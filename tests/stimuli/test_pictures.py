"""Contents of any kind become a picture or a reason in words."""

import io
import random
import warnings

import numpy as np
import pytest
from faults.case import is_a_sentence
from PIL import Image

from utils.stimuli.minibatches import Damaged
from utils.stimuli.pictures import FORMATS, decode

NOISE = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)


def content(form: str, mode: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).convert(mode).save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("form", "mode"), [*((form, "RGB") for form in FORMATS), ("TIFF", "I;16"), ("PNG", "P")]
)
def test_flipped_bytes_give_a_picture_or_a_reason(form, mode):
    whole, chance, damaged = content(form, mode), random.Random(0), 0
    for _ in range(150):
        flipped = bytearray(whole)
        for _ in range(chance.choice((1, 2, 20))):
            at = chance.randrange(chance.choice((60, len(whole), len(whole))))
            flipped[at % len(whole)] = chance.randrange(256)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = decode("a/1.png", bytes(flipped))
        if isinstance(found, Damaged):
            damaged += 1
            text = f"{found.name} is damaged and left out: {found.reason}."
            assert is_a_sentence(text, ("a/1.png",)), text
            assert "0x" not in text
        else:
            assert found.mode == "RGB"
    assert damaged


@pytest.mark.parametrize("form", [form for form in FORMATS if form != "GIF"])
def test_pictures_cut_short_are_never_half_shown(form):
    whole = content(form, "RGB")
    for size in random.Random(0).sample(range(len(whole) * 9 // 10), 40):
        assert isinstance(decode("1.png", whole[:size]), Damaged)


def test_a_header_that_is_no_text_is_said_without_its_bytes(monkeypatch):
    def confused(*args, **options):
        return b"\x82".decode("ascii")

    monkeypatch.setattr("utils.stimuli.pictures.Image.open", confused)
    assert decode("a/1.ppm", b"").reason == "Pillow fails to decode it (UnicodeDecodeError)"
