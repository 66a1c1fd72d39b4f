"""What records say about where they came from."""

import json
import subprocess

import torch

from utils.models.provenance import commit, provenance


def test_book_commit_stands_in_where_git_is_absent(monkeypatch):
    monkeypatch.setenv("BOOK_COMMIT", "v1.2")
    assert commit() == "v1.2"


def test_without_git_and_book_commit_the_commit_is_unknown(monkeypatch):
    def no_git(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.delenv("BOOK_COMMIT", raising=False)
    monkeypatch.setattr(subprocess, "run", no_git)
    assert commit() == "unknown"


def test_provenance_names_device_and_versions_and_fits_into_json():
    record = json.loads(json.dumps(provenance(torch.device("cpu"))))
    assert record["device"].startswith("cpu")
    assert record["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
