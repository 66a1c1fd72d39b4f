"""A release: version, changelog, editions and tag agree, and nothing is half done in silence."""

import subprocess
import zipfile
from datetime import date

import pytest

from utils.book import runtime
from utils.book.release import CHANGELOG, SAYS, release, said

DAY = date(2030, 1, 2)


@pytest.fixture
def checkout(tmp_path):
    """A repository with files that say the version, 0.1.0, and one commit."""
    run = Checkout(tmp_path)
    run.write("pyproject.toml", '[project]\nname = "a"\nversion = "0.1.0"\n')
    run.write("CITATION.cff", "cff-version: 1.2.0\nversion: 0.1.0\nlicense: MIT\n")
    run.write("utils/book/runtime.py", 'URL, VERSION = "https://a.b/v", "v0.1.0"\n')
    run.write("chapters/1_one.ipynb", '["URL, VERSION = \\"https://a.b/v\\", \\"v0.1.0\\"\\n"]')
    run.write(".gitignore", "_build/\n")
    run.git("init", "-q", "-b", "main")
    run.git("config", "user.name", "a")
    run.git("config", "user.email", "a@b")
    run.commit("All there is")
    return run


class Checkout:
    def __init__(self, root):
        self.root = root

    def git(self, *words):
        command = ["git", "-C", str(self.root), *words]
        done = subprocess.run(command, check=True, capture_output=True, encoding="utf-8")
        return done.stdout.strip()

    def write(self, name, text):
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text, encoding="utf-8")

    def read(self, name):
        return (self.root / name).read_text(encoding="utf-8")

    def commit(self, subject):
        self.git("add", ".")
        self.git("commit", "-qm", subject)

    def release(self, version, editions=None):
        return release(version, self.root, DAY, editions or one_edition)


def one_edition(folder):
    folder.mkdir(parents=True)
    (folder / "exercises.csv").write_text("chapter\n3\n", encoding="utf-8")


def interrupted(folder):
    folder.mkdir(parents=True)
    raise KeyboardInterrupt


def test_says_one_version_everywhere_and_tags_what_says_it(checkout):
    packed = checkout.release("0.2.0")
    assert checkout.git("describe", "--exact-match") == "v0.2.0"
    assert checkout.git("status", "--porcelain") == ""
    assert 'version = "0.2.0"' in checkout.read("pyproject.toml")
    cited = "cff-version: 1.2.0\nversion: 0.2.0\ndate-released: 2030-01-02\nlicense: MIT\n"
    assert checkout.read("CITATION.cff") == cited
    assert checkout.read("utils/book/runtime.py") == 'URL, VERSION = "https://a.b/v", "v0.2.0"\n'
    fetched = '["URL, VERSION = \\"https://a.b/v\\", \\"v0.2.0\\"\\n"]'
    assert checkout.read("chapters/1_one.ipynb") == fetched
    first = "# What changed\n\n## 0.2.0 (2030-01-02)\n\nThe first release.\n"
    assert checkout.read(CHANGELOG) == first
    assert zipfile.ZipFile(packed).read("seeing-sparsely-0.2.0-coursework/exercises.csv")


@pytest.mark.parametrize("names", SAYS)
def test_the_book_says_one_version_wherever_it_says_one(names):
    found = said(runtime.ROOT, names)
    assert set(found.values()) == {runtime.version()}
    if names.endswith(".ipynb"):
        assert len(found) == len(list((runtime.ROOT / "chapters").glob("*.ipynb")))


def test_a_file_that_says_no_version_is_named(checkout):
    checkout.write("chapters/1_one.ipynb", "[]")
    checkout.commit("It is lost")
    with pytest.raises(ValueError, match=r"1_one\.ipynb says no version"):
        checkout.release("0.2.0")


def test_lists_what_was_committed_since_the_last_one_newest_first(checkout):
    checkout.release("0.2.0")
    checkout.write("a.txt", "a")
    checkout.commit("A figure is mended")
    checkout.release("0.10.0")
    checkout.release("0.11.0")
    assert checkout.read(CHANGELOG) == (
        "# What changed\n\n## 0.11.0 (2030-01-02)\n\nNothing but the version.\n"
        "\n## 0.10.0 (2030-01-02)\n\n- A figure is mended\n"
        "\n## 0.2.0 (2030-01-02)\n\nThe first release.\n"
    )
    assert checkout.read("CITATION.cff").count("date-released") == 1


def test_goes_on_where_it_was_interrupted(checkout):
    with pytest.raises(KeyboardInterrupt):
        checkout.release("0.2.0", interrupted)
    assert checkout.git("tag") == ""
    checkout.release("0.2.0")
    assert checkout.git("tag") == "v0.2.0"
    assert checkout.git("rev-list", "--count", "HEAD") == "2"


def test_tags_nothing_that_was_committed_after_an_interruption(checkout):
    with pytest.raises(KeyboardInterrupt):
        checkout.release("0.2.0", interrupted)
    written = checkout.git("rev-parse", "HEAD")
    checkout.write("a.txt", "a")
    checkout.commit("Too late")
    with pytest.raises(ValueError, match=f"was written in commit {written[:7]}"):
        checkout.release("0.2.0")
    assert checkout.git("tag") == ""
    checkout.git("checkout", "-q", written)
    checkout.release("0.2.0")
    assert checkout.git("rev-parse", "v0.2.0^{commit}") == written


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("second", "'second' is no version"),
        ("0.0.9", "older than this checkout's, 0.1.0"),
        ("0.1.0", "is released: its tag is v0.1.0"),
    ],
)
def test_refuses_what_can_be_no_release(checkout, version, said):
    checkout.git("tag", "v0.1.0")
    head = checkout.git("rev-parse", "HEAD")
    with pytest.raises(ValueError, match=said):
        checkout.release(version)
    assert checkout.git("rev-parse", "HEAD") == head


def test_refuses_a_checkout_with_changes(checkout):
    checkout.write("a.txt", "a")
    with pytest.raises(ValueError, match="has changes: commit or remove them"):
        checkout.release("0.2.0")
    assert checkout.git("tag") == ""
