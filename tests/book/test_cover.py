"""The cover is the figure that chapter 1 draws today, not one that it drew once."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from utils.book import cover


@pytest.mark.slow
def test_the_cover_is_what_chapter_1_draws(tmp_path):
    drawn = tmp_path / "cover.png"
    command = [sys.executable, "-m", "utils.book.cover", str(drawn)]
    subprocess.run(command, cwd=cover.ROOT, check=True)
    pictures = [Image.open(path).convert("RGB") for path in (drawn, cover.COVER)]
    assert pictures[0].size == pictures[1].size
    small = [np.asarray(picture.resize((80, 80)), dtype=float) for picture in pictures]
    assert np.abs(small[0] - small[1]).max() < 16  # of 255: letters may differ, places may not
