"""Encodings: of text files, of terminals and of file names."""

import ast
import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from unittest.mock import patch

import pandas as pd

from experiments import __main__ as program
from experiments.engine.results import Results, record_of
from faults.case import Case, CommandRefused, command
from faults.cases.records import measure, pictures

ROOT = Path(__file__).resolve().parents[3]
ROOMS = ("utils", "experiments", "benchmarks", "tests")
BINARY = ("tarfile", "Image", "os", "gzip", "zipfile")  # whose `open` opens no text


# Where text is opened.


def unnamed(tree: ast.AST) -> Iterator[ast.Call]:
    """The calls that open text, or read that of another process, in the system's encoding."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        method = isinstance(node.func, ast.Attribute)
        name = node.func.attr if method else getattr(node.func, "id", None)
        if "encoding" in given:
            continue
        if name in ("read_text", "write_text") or _is_true(given.get("text")):
            yield node
        elif name == "open":
            owner = getattr(node.func.value, "id", None) if method else None
            place = 0 if method else 1
            mode = given.get("mode", node.args[place] if len(node.args) > place else None)
            if owner not in BINARY and "b" not in str(getattr(mode, "value", "")):
                yield node


def _is_true(value) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


def opened_without(room: str) -> list[str]:
    found = []
    for file in sorted((ROOT / room).rglob("*.py")):
        for call in unnamed(ast.parse(file.read_text(encoding="utf-8"))):
            found.append(f"{file.relative_to(ROOT)}:{call.lineno}")
    return found


def found_in(source: str) -> int:
    return len([*unnamed(ast.parse(source))])


SOURCES = {
    "p.read_text()": 1,
    'p.write_text("a")': 1,
    'p.read_text(encoding="utf-8")': 0,
    "open(p)": 1,
    'open(p, "rb")': 0,
    'p.open("a")': 1,
    'p.open("wb")': 0,
    'p.open(mode="rb")': 0,
    "Image.open(p)": 0,
    "run(c, text=True)": 1,
    'run(c, text=True, encoding="utf-8")': 0,
}


# The system's encoding.


@contextlib.contextmanager
def system_encoding(encoding: str) -> Iterator[None]:
    """What text is opened with where no encoding is named, as on Windows before Python 3.15."""
    with patch.object(io, "text_encoding", lambda given, level=2: given or encoding):
        yield


def ablated(folder: Path, encoding: str):
    """The quantities of an ablation, of which one holds a minus sign."""
    data = pictures(folder / "val")
    given = ("--ranks", 3, "--draws", 1, "--data", data, "--out", "a")
    with system_encoding(encoding):
        command("ablate", "vit-d2-h4", *given)
    table = pd.read_csv(folder / "a.csv", encoding="utf-8")
    return any("−" in quantity for quantity in table["quantity"])


def kept_in(folder: Path, encoding: str, words: str):
    """What a record, written and read again, says of words that are not ASCII."""
    with system_encoding(encoding):
        for name in "ab":
            with closing(Results(folder / "t", ["model"], {"data": words})) as results:
                results.begin({"device": words})
                row, record = {"model": words}, {"weights": None, "damaged": [words]}
                results.add(name, [row], record)
        return [one["damaged"] for one in record_of(folder / "t.csv")["conditions"].values()]


# Names that are no text.


def odd_name(folder: Path, name: bytes):
    """A damaged picture whose name is in another encoding: what is said and recorded of it."""
    data = pictures(folder / "val")
    with open(os.path.join(os.fsencode(data / "a"), name + b".png"), "wb") as file:
        file.write((data / "a/0.png").read_bytes()[:200])
    said = ""
    try:
        measure("resnet-d8", data, "--out", "t")
    except CommandRefused as error:
        said = str(error)
    (folder / "t.json").read_text(encoding="utf-8")  # it is text for everyone
    (condition,) = record_of(folder / "t.csv")["conditions"].values()
    return said, condition["damaged"]


def named(name: bytes) -> tuple[str, list[str]]:
    """The same, spelled by hand."""
    text = spelled(name)
    return f"Left out: 1 damaged image, a/{text}.png.", [f"a/{text}.png"]


def spelled(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape").encode("utf-8", "backslashreplace").decode()


def folder_in_bytes(folder: Path, name: bytes):
    """Pictures in a folder whose name is in another encoding: what the record calls it."""
    pictures(folder / "val").rename(Path(os.fsdecode(os.fsencode(folder) + b"/" + name)))
    measure("resnet-d8", os.fsdecode(name), "--out", "t")
    (folder / "t.json").read_text(encoding="utf-8")
    return record_of(folder / "t.csv")["configuration"]["data"]


ODD = {
    "latin-1": "bär".encode("latin-1"),
    "cp1252": "€".encode("cp1252"),
    "shift-jis": "日本".encode("shift-jis"),
    "utf-8": "日本".encode(),
    "no encoding": b"\xff\xfe",
}


def folder_called(folder: Path, name: str):
    """Pictures in a folder of that name are measured, and the record has its name."""
    data = pictures(folder / name)
    measure("resnet-d8", data)
    (table,) = (folder / "_runs").glob("*.csv")
    return record_of(table)["configuration"]["data"]


# Terminals.


def spoken(text: str, encoding: str, errors: str = "strict") -> str:
    """What a terminal of that encoding shows."""
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors=errors)
    with patch.object(sys, "stdout", out), patch.object(sys, "stderr", out):
        program._speakable()
        print(text, end="", flush=True)
    return out.buffer.getvalue().decode(encoding)


def by_codes(text: str, encoding: str) -> str:
    """The same, letter by letter."""
    shown = ""
    for letter in text:
        try:
            shown += letter.encode(encoding).decode(encoding)
        except UnicodeEncodeError:
            code = ord(letter)
            shown += f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    return shown


def in_a_process(folder: Path, *arguments: object, status: int = 0) -> str:
    """What `python -m experiments` says under LC_ALL=C, with no coercion to UTF-8."""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONIOENCODING"} | plain
    done = subprocess.run(
        [sys.executable, "-m", "experiments", *map(str, arguments)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="ascii",
    )
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


def measured_in_ascii(folder: Path) -> str:
    """A damaged picture with a Japanese name under LC_ALL=C: how it is named."""
    data = pictures(folder / "val")
    (data / "a" / "日.png").write_bytes((data / "a/0.png").read_bytes()[:200])
    given = ("--measures", "accuracy", "--data", "val", "--out", "t")
    said = in_a_process(folder, "measure", "resnet-d8", *given, status=3)
    record = json.loads((folder / "t.json").read_text(encoding="utf-8"))
    (condition,) = record["conditions"].values()
    return condition["damaged"], said.strip().splitlines()[-1]


# What runs in the background is deaf to SIGINT, and so is what it starts.
HEARD = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("experiments", run_name="__main__", alter_sys=True)
"""


def interrupted_early(folder: Path) -> str:
    """SIGINT while the first library is imported, in a process of its own."""
    stop = "import signal, os; os.kill(os.getpid(), signal.SIGINT)\n"
    (folder / "torch.py").write_text(stop, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", HEARD, "measure", "resnet-d8"],
        env=os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        cwd=folder,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    return f"{done.returncode} {done.stderr.strip()}"


SPELLED = "\\udce6\\udc97\\udca5"  # 日, where names are no UTF-8
WORDS = ("−", "日本", "Gerät", "½ τ …", "a", "😀")
CASES = [
    *(Case(f"text is opened in {room}", lambda _, r=room: opened_without(r), []) for room in ROOMS),
    *(Case(f"text opened by {s}", lambda _, s=s: found_in(s), n) for s, n in SOURCES.items()),
    *(
        Case(f"an ablation in {encoding}", lambda folder, e=encoding: ablated(folder, e), True)
        for encoding in ("cp1252", "ascii", "shift-jis", "utf-8")
    ),
    *(
        Case(
            f"a record of {words!r} in {encoding}",
            lambda folder, e=encoding, w=words: kept_in(folder, e, w),
            [[words], [words]],
        )
        for encoding, words in product(("cp1252", "ascii", "utf-16"), WORDS)
    ),
    *(
        Case(
            f"a damaged picture with a name in {kind}",
            lambda folder, n=name: odd_name(folder, n),
            named(name),
        )
        for kind, name in ODD.items()
    ),
    *(
        Case(
            f"a folder with a name in {kind}",
            lambda folder, n=name: folder_in_bytes(folder, n),
            spelled(name),
        )
        for kind, name in ODD.items()
    ),
    *(
        Case(f"pictures in a folder {n!r}", lambda folder, n=n: folder_called(folder, n), n)
        for n in ("日本", "mit Leerzeichen", "a'b", 'a"b', "a;b&$(c)", "-n", "a,b", "ü" * 60)
    ),
    *(
        Case(
            f"{text!r} on a terminal in {encoding}",
            lambda _, t=text, e=encoding: spoken(t, e),
            by_codes(text, encoding),
        )
        for text, encoding in product(
            ("a/日本.png", "N − K", "½", "\udcff.png"), ("ascii", "cp1252", "latin-1", "utf-8")
        )
    ),
    *(
        Case(
            f"{' '.join(arguments)} under LC_ALL=C",
            lambda folder, a=arguments: "exit status" in in_a_process(folder, *a),
            True,
            slow=True,
        )
        for arguments in (("ablate", "--help"), ("replicate", "--help"), ("train", "--help"))
    ),
    Case(
        "a damaged 日.png under LC_ALL=C",
        measured_in_ascii,
        ([f"a/{SPELLED}.png"], f"Left out: 1 damaged image, a/{SPELLED}.png."),
        slow=True,
    ),
    Case(
        "Ctrl-C before anything is imported",
        interrupted_early,
        "130 python -m experiments measure: Interrupted before anything was measured.",
        slow=True,
    ),
]
