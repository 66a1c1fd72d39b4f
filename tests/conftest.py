"""What all tests share. Nothing here or in any test asks the network."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real images and recordings: `BOOK_DATA`, or `../shared/data`.

    Where there is none the test is skipped; in CI that fails if `../shared` is there, because
    then the data went missing. A test that gets the folder opens its files without asking
    whether they exist, so that a missing one fails.
    """
    folder = Path(os.environ.get("BOOK_DATA") or ROOT.parent / "shared/data")
    if folder.is_dir():
        return folder
    sentence = f"There are no data at {folder}: set BOOK_DATA to the folder that holds them."
    if os.environ.get("CI") == "true" and (ROOT.parent / "shared").is_dir():
        pytest.fail(sentence)
    pytest.skip(sentence)
