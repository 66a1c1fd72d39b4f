import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"


@pytest.fixture(scope="session")
def shared_data():
    """The folder of data sets too large or too foreign for the project, or a skip.

    Where continuous integration has the folder beside the checkout, missing data are a failure.
    """
    folder = Path(os.environ.get("BOOK_DATA", SHARED / "data"))
    if folder.is_dir():
        return folder
    sentence = f"There are no data at {folder}; set BOOK_DATA to the folder that holds them."
    if os.environ.get("CI") == "true" and SHARED.exists():
        pytest.fail(sentence)
    pytest.skip(sentence)
