"""What records say about where they came from."""

import json
import subprocess

import torch

from experiments.engine.provenance import commit, provenance


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


def test_a_commit_is_dirty_only_where_code_differs_from_it(monkeypatch, tmp_path):
    def git(*arguments):
        name = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *name, *arguments], cwd=tmp_path, check=True, capture_output=True)

    code, weights = tmp_path / "experiments" / "engine" / "provenance.py", tmp_path / "zoo" / "a"
    for file in (code, weights):
        file.parent.mkdir(parents=True)
        file.write_text("first", encoding="utf-8")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.delenv("BOOK_COMMIT", raising=False)
    monkeypatch.setattr("experiments.engine.provenance.__file__", str(code))
    clean = commit()
    weights.write_text("second", encoding="utf-8")
    assert commit() == clean
    assert len(clean) == 12
    code.write_text("second", encoding="utf-8")
    assert commit() == f"{clean}-dirty"
