"""Which room imports from which: the table in CONTRIBUTING.md is what the code does."""

import ast
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("utils", "experiments")
ROW = re.compile(r"^\| `([\w/]+)` \| (.*?) \| .+ \|$", re.MULTILINE)


def room_of(parts: list[str]) -> str:
    """The folder that a module lies in; files right below a package are that package's own."""
    inner = len(parts) > 1 and (ROOT / parts[0] / parts[1]).is_dir()
    return "/".join(parts[:2]) if inner else parts[0]


def imported(file: Path) -> set[str]:
    """The rooms that a file imports from."""
    package, rooms = list(file.relative_to(ROOT).parent.parts), set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        named = node.module.split(".") if node.module else []
        origin = package[: len(package) - node.level + 1] + named if node.level else named
        if origin and origin[0] in PACKAGES:
            rooms |= {room_of([*origin, alias.name]) for alias in node.names}
    return rooms


def drawing() -> dict[str, set[str]]:
    """Room → the rooms that it imports from, in the order of CONTRIBUTING.md."""
    rows = ROW.findall((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    return {room: set(re.findall(r"`([\w/]+)`", named)) for room, named in rows}


def test_the_rooms_import_as_contributing_says():
    found: dict[str, set[str]] = {}
    for package in PACKAGES:
        for file in (ROOT / package).rglob("*.py"):
            room = room_of(list(file.relative_to(ROOT).with_suffix("").parts))
            found.setdefault(room, set()).update(imported(file) - {room})
    assert {room: found[room] for room in sorted(found)} == dict(sorted(drawing().items()))


def test_imports_run_down_the_table_and_never_back():
    above: set[str] = set()
    for room, rooms in drawing().items():
        assert rooms <= above, f"{room} stands above what it imports"
        above.add(room)


def test_what_every_chapter_imports_leaves_slow_packages_alone():
    names = "utils.measures.sparsity, utils.book.widgets, experiments.evidence.board"
    slow = "print(*{'torchmetrics', 'nbformat', 'transformers'} & set(sys.modules))"
    said = subprocess.run(
        [sys.executable, "-c", f"import sys, {names}; {slow}"],
        cwd=ROOT,
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert said.stdout.strip() == ""


def test_the_style_of_figures_loads_few_modules():
    count = (
        "import sys, utils.book.plotting; print(sum(m.startswith('utils') for m in sys.modules))"
    )
    said = subprocess.run(
        [sys.executable, "-c", count], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    )
    assert 0 < int(said.stdout) <= 12
