"""Coursework from the chapters: `python -m utils.book.coursework make 3 5_1 --out handout`.

Makes, of each chapter, an edition for students (no solution, no test that tells one), one for
instructors (rubric, and the misconceptions that each check catches) and an autograder for
otter-grader and Gradescope; with a roster, an edition for each student, with values of their own.
`grade` judges a folder of submissions and writes a table for a learning management system.
"""

import argparse
import ast
import base64
import copy
import csv
import hashlib
import hmac
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
from tqdm import tqdm

from . import grading, launch
from .citations import written_out
from .exercises import RIGHT
from .runtime import ROOT, version

CHAPTERS = ROOT / "chapters"
ABOUT = "seeing_sparsely"  # key of a notebook's metadata
PRIVATE = ("wrong", "right", "rubric", "sealed")  # of a cell's metadata: they tell the solution
OBJECTIVES = "After this chapter you can"
ASKS = '"""Says whether there is an answer of the right kind."""'
CODE = ("utils", "experiments")  # what a chapter imports
# What a cell with `sealed` in its metadata becomes for students: names without how they are made.
SEALED = """\
{title}
# What is packed in here is what the exercise asks for.
import base64
import zlib

packed = \"""
{packed}
\"""
box = dict(globals())
exec(zlib.decompress(base64.b64decode(packed)), box)
{given}"""
# Run as a script: the files that the exercises of a chapter read.
READS = """
import ast, json, os, sys
import nbformat
opened = set()
def note(event, arguments):
    if event == "open" and not isinstance(arguments[0], int):
        opened.add(os.path.realpath(os.fsdecode(arguments[0])))
sys.addaudithook(note)
from utils.book import grading
chapter = nbformat.read(sys.argv[1], as_version=4)
space, stdout = grading.prepared(chapter), sys.stdout
for each in grading.exercises(chapter):
    answer = ast.unparse(ast.Module(grading.parsed(each.solution).body[:-1], []))
    grading.judge(each, [answer], space, {})
print(json.dumps(sorted(opened)))
"""
OWN_FILES = ("tests", "otter_config.json", "requirements.txt")  # of the package itself


def chapter_files(asked: list[str]) -> list[Path]:
    """The notebooks of chapters that are named by their numbers, such as "3" or "5_1".

    Args:
        asked: The numbers; all chapters that have exercises where there are none.

    Returns:
        Paths, in the order of the book.

    Raises:
        ValueError: For a number that no chapter with exercises has.
    """
    found = {path: nbformat.read(path, as_version=4) for path in sorted(CHAPTERS.glob("*.ipynb"))}
    found = {path: each for path, each in found.items() if grading.exercises(each)}
    if not asked:
        return list(found)
    chosen = []
    for number in asked:
        start = number.replace(".", "_")
        match = [path for path in found if path.stem == start or path.stem.startswith(f"{start}_")]
        # 2 is not 2.1 and 2.2
        match = [path for path in match if not path.stem.removeprefix(f"{start}_")[:1].isdigit()]
        if len(match) != 1:
            known = ", ".join(path.stem for path in found)
            raise ValueError(f"There is no chapter {number!r} with exercises; there are {known}.")
        chosen += match
    return chosen


def values_of(notebook, student: str, secret: str) -> dict[str, dict[str, Any]]:
    """The values that a student is given in place of the book's.

    Args:
        notebook: A chapter; the metadata `variants` of a stub list the values of a name.
        student: Any text that tells students apart.
        secret: The course's; without it nobody knows who gets what.

    Returns:
        Number of an exercise → name → value; empty where a stub has no variants.
    """
    given: dict[str, dict[str, Any]] = {}
    for each in grading.exercises(notebook):
        for name, values in each.stub.metadata.get("variants", {}).items():
            words = f"{student}/{each.number}/{name}".encode()
            drawn = hmac.new(secret.encode(), words, hashlib.sha256).digest()
            given.setdefault(each.number, {})[name] = values[
                int.from_bytes(drawn[:8]) % len(values)
            ]
    return given


def student_edition(notebook, given: dict[str, dict[str, Any]] | None = None, student: str = ""):
    """A chapter as students get it: to be answered, with hints, and nothing that tells a solution.

    Args:
        notebook: The chapter; it is not changed.
        given: As `values_of` gives it.
        student: Put into the notebook's metadata, so that a submission says whose it is.

    Returns:
        A new notebook.
    """
    edition = copy.deepcopy(notebook)
    left_out = set()
    for each in grading.exercises(edition):
        left_out.add(each.solution.id)
        each.check.source = _received(each)
        for name, value in (given or {}).get(each.number, {}).items():
            each.stub.source = _with_value(each.stub.source, name, value)
        each.stub.metadata.pop("variants", None)
    edition.cells = [cell for cell in edition.cells if cell.id not in left_out]
    for cell in edition.cells:
        if names := cell.metadata.get("sealed"):
            cell.source = _sealed(cell.source, names)
        for key in PRIVATE:
            cell.metadata.pop(key, None)
        if cell.cell_type == "markdown":
            cell.source = launch.LINK.sub(r"\1 of the book", cell.source)
    edition.metadata[ABOUT] = {"student": student, "version": version()}
    return written_out(edition, ROOT / "references.bib")


def _sealed(source: str, names: list[str]) -> str:
    """Code that gives some names the values that `source` gives them, and does not show how."""
    packed = base64.b64encode(zlib.compress(source.encode())).decode()
    return SEALED.format(
        title=source.partition("\n")[0],
        packed="\n".join(textwrap.wrap(packed, 80)),
        given="\n".join(f'{name} = box["{name}"]' for name in names),
    )


def _received(each: grading.Exercise) -> str:
    """A check that only says whether an answer is of the right kind."""
    *_, call = grading.parsed(each.check).body
    check = next(n for n in grading.parsed(each.check).body if isinstance(n, ast.FunctionDef))
    check.body = ast.parse(ASKS).body
    check.decorator_list = [
        ast.parse(f"exercise({each.number!r}, points={grading.worth(each.text)}, graded=False)")
        .body[0]
        .value
    ]
    return f"# @title Check {each.number}\n{ast.unparse(check)}\n\n\n{ast.unparse(call)}"


def _with_value(source: str, name: str, value: Any) -> str:
    lines = source.split("\n")
    for i, line in enumerate(lines):
        if line.startswith(f"{name} = "):
            comment = line.partition("#")[2]
            lines[i] = f"{name} = {value!r}" + (f"  #{comment}" if comment else "")
    return "\n".join(lines)


def instructor_edition(notebook):
    """A chapter with, after each exercise, its rubric and the misconceptions that are caught.

    Args:
        notebook: The chapter; it is not changed.

    Returns:
        A new notebook.
    """
    edition = copy.deepcopy(notebook)
    for each in grading.exercises(edition):
        lines = [f"**For instructors: exercise {each.number}.**", ""]
        lines += [f"- The check gives {grading.worth(each.text)} of {_points(each.text)}."]
        lines += [
            f"- In words, {line['points']} for: {line['for']}"
            for line in each.text.metadata.get("rubric", [])
        ]
        for name, values in each.stub.metadata.get("variants", {}).items():
            lines.append(f"- Students are given one of these as `{name}`: {values}.")
        own = "With the book's value, the" if each.stub.metadata.get("variants") else "The"
        lines += ["", f"{own} check refuses these, each with a sentence of its own:", ""]
        wrong = [f"```python\n{code}\n```" for code in each.check.metadata.get("wrong", [])]
        cell = nbformat.v4.new_markdown_cell("\n".join([*lines, *wrong]))
        edition.cells.insert(edition.cells.index(each.solution) + 1, cell)
    return written_out(edition, ROOT / "references.bib")


def _points(text) -> str:
    points = text.metadata["points"]
    return f"{points} point{'s' * (points != 1)}"


def executed(notebook):
    """A notebook with its outputs, which it gets in place, run where the chapters are."""
    from nbclient import NotebookClient

    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": CHAPTERS}})
    client.execute()
    return notebook


def autograder(chapter: Path, file: Path, secret: str = "") -> None:
    """Write the package that otter-grader and Gradescope grade a chapter with.

    Args:
        chapter: Its notebook.
        file: The .zip.
        secret: Of the course, where students have values of their own.

    Raises:
        ValueError: Where otter-grader is not installed.
    """
    try:
        from otter.generate import main as generate
    except ImportError:
        raise ValueError(
            "The autograder needs otter-grader: install it with `pip install otter-grader`, or "
            "leave the package out with --no-autograder."
        ) from None
    notebook = nbformat.read(chapter, as_version=4)
    plugin = (Path(__file__).with_name("otter_plugin.py")).read_text(encoding="utf-8")
    before, path = Path.cwd(), list(sys.path)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "tests").mkdir()
        for each in grading.exercises(notebook):
            name = f"q{each.number.replace('.', '_')}"
            (place / "tests" / f"{name}.py").write_text(_test(each, name), encoding="utf-8")
        for file_read in _reads(chapter):
            (place / file_read).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / file_read, place / file_read)
        shutil.copy(chapter, place / "chapter.json")  # by otter's leave one notebook alone
        (place / "autograding.py").write_text(plugin, encoding="utf-8")
        config = {"plugins": [{"autograding.Apart": {"secret": secret}}], "show_stdout": False}
        (place / "otter_config.json").write_text(json.dumps(config), encoding="utf-8")
        (place / "requirements.txt").write_text(_requirements(), encoding="utf-8")
        try:
            os.chdir(place)  # where otter looks for everything, its plugin too
            sys.path.insert(0, folder)
            generate(
                tests_dir="tests",
                output_path="autograder.zip",
                files=[p.name for p in place.iterdir() if p.name not in OWN_FILES],
                no_environment=True,
            )
        finally:
            os.chdir(before)
            sys.path[:] = path
            sys.modules.pop("autograding", None)
        file.parent.mkdir(parents=True, exist_ok=True)
        written = zipfile.ZipFile(place / "autograder.zip")
        with written, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as package:
            for name in written.namelist():
                package.writestr(name, written.read(name))
            package.writestr("autograding.py", plugin)  # next to the script that Gradescope runs


def _reads(chapter: Path) -> list[str]:
    """The files below ROOT that the exercises of a chapter need, code and data."""
    command = [sys.executable, "-c", READS, str(chapter)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1]
        raise ValueError(f"The exercises of {chapter.name} could not be run: {why}")
    opened = [Path(name) for name in json.loads(done.stdout.splitlines()[-1])]
    below = {p.relative_to(ROOT) for p in opened if p.is_relative_to(ROOT) and p.is_file()}
    data = {p for p in below if p.parts[0] in ("zoo", "results") or p.name == "pyproject.toml"}
    code = {p.relative_to(ROOT) for name in CODE for p in (ROOT / name).rglob("*.py")}
    return sorted(str(path) for path in data | code)


def _requirements() -> str:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return "\n".join([*project["dependencies"], ""])


def _test(each: grading.Exercise, name: str) -> str:
    return f'''\
"""Exercise {each.number}: the verdict that the book's own check gave."""

from otter.test_files import test_case

OK_FORMAT = False
name = {name!r}
points = {grading.worth(each.text)}


@test_case(points=points)
def judged(verdicts):
    state, _, _, sentence = verdicts[{each.number!r}]
    assert state == {RIGHT!r}, sentence
'''


def make(
    chapters: list[Path],
    out: Path,
    students: list[str] | None = None,
    secret: str = "",
    run: bool = True,
    packages: bool = True,
) -> None:
    """Write all editions of chapters, and the table of their exercises.

    Args:
        chapters: Notebooks.
        out: Folder: student/, instructor/, autograder/ and exercises.csv.
        students: Where given, each has a folder in student/ with values of their own.
        secret: Of the course; needed with students.
        run: Whether the editions have their figures, for which each chapter is run once: what
            students' values change has no outputs.
        packages: Whether there are autograders.

    Raises:
        ValueError: For students without a secret.
    """
    if students and not secret:
        raise ValueError(
            "Values of their own need a secret: give --secret, a file with some words."
        )
    rows, found = [], launch.published(ROOT)  # what an edition fetches outside a checkout
    for path in tqdm(chapters, "chapters", disable=None):
        text = path.read_text(encoding="utf-8")
        if found:
            text = launch.launched(text, *found)
        notebook = nbformat.reads(text, as_version=4)
        if run:
            executed(notebook)
        _write(instructor_edition(notebook), out / "instructor" / path.name)
        for student in students or [""]:
            given = values_of(notebook, student, secret) if student else None
            edition = student_edition(notebook, given, student)
            _write(edition, out / "student" / student / path.name)
        if packages:
            autograder(path, out / "autograder" / f"{path.stem}.zip", secret)
        rows += [dict(chapter=path.stem, **row) for row in table(notebook)]
    _write_table(out / "exercises.csv", rows)


def objectives(notebook) -> list[str]:
    """What a reader can do after a chapter.

    Args:
        notebook: The chapter, with a list below OBJECTIVES.

    Returns:
        The points of that list, without their last semicolon or stop; empty where there is no list.
    """
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    text = next((source for source in cells if source.startswith(OBJECTIVES)), "")
    return [line[2:].rstrip(".;") for line in text.splitlines() if line.startswith("- ")]


def table(notebook) -> Iterator[dict[str, Any]]:
    """What the exercises of a chapter are, one row each.

    Args:
        notebook: The chapter.

    Yields:
        number, title, points, by_check, in_words, minutes, difficulty, own_values: the names
        whose values differ between students.
    """
    for each in grading.exercises(notebook):
        heading = next(x for x in each.text.source.split("\n") if x.startswith("### Exercise"))
        about = each.text.metadata
        by_check = grading.worth(each.text)
        yield {
            "number": each.number,
            "title": heading.partition(": ")[2],
            "points": about["points"],
            "by_check": by_check,
            "in_words": about["points"] - by_check,
            "minutes": about["minutes"],
            "difficulty": about["difficulty"],
            "own_values": ", ".join(each.stub.metadata.get("variants", {})),
        }


def grade(
    chapter: Path, submissions: list[Path], secret: str = "", seconds: float = grading.SECONDS
) -> list[dict[str, Any]]:
    """One row for each submission: whose it is, points for each exercise and in all, and words.

    Args:
        chapter: The book's notebook.
        submissions: Notebooks; whose each is says its metadata, or else the name of its folder.
        secret: Of the course, where students had values of their own.
        seconds: That each answer may take.

    Returns:
        Rows with student, file, problem, one column an exercise, points, of, and the sentences
        and the answers in words of each exercise. What is to be looked at by hand has a problem,
        such as a file that is no notebook, which gets no points.
    """
    notebook = nbformat.read(chapter, as_version=4)
    asked = {each.number: each.words for each in grading.exercises(notebook)}
    rows, read = [], []
    for path in submissions:
        row = {"student": path.parent.name, "file": path.name, "problem": ""}
        try:
            handed_in = nbformat.read(path, as_version=4)
            handed_in.cells = [cell for cell in handed_in.cells if isinstance(cell.source, str)]
        except Exception as problem:
            row["problem"] = f"This is no notebook: {type(problem).__name__}."
            handed_in = nbformat.v4.new_notebook()
        else:
            named = handed_in.metadata.get(ABOUT, {}).get("student")
            row["student"] = named or row["student"]
            if not asked.keys() & grading.answers(handed_in).keys():
                row["problem"] = "None of the chapter's exercises is in it."
            elif secret and not named:
                row["problem"] = "It names no student: the values are those of the folder's name."
        rows.append(row)
        read.append(handed_in)
    given = [values_of(notebook, row["student"], secret) if secret else {} for row in rows]
    judged = grading.grade_all(notebook, read, given, seconds)
    for row, handed_in, verdicts in zip(
        rows, read, tqdm(judged, "submissions", len(rows), disable=None), strict=True
    ):
        row |= {number: verdict.points for number, verdict in verdicts.items()}
        row["points"] = sum(verdict.points for verdict in verdicts.values())
        row["of"] = sum(verdict.of for verdict in verdicts.values())
        answers = grading.answers(handed_in)
        for number, verdict in verdicts.items():
            row[f"{number} says"] = verdict.sentence
            if asked[number]:
                _, words = answers.get(number, ([], ""))
                row[f"{number} in words"] = words if words != asked[number].source else ""
    return rows


def _write(notebook, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, file)


def _write_table(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with file.open("w", newline="", encoding="utf-8-sig") as target:  # which spreadsheets know
        writer = csv.DictWriter(target, columns, restval="")
        writer.writeheader()
        writer.writerows({key: _harmless(value) for key, value in row.items()} for row in rows)


def _harmless(value: Any) -> Any:
    """Text that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m utils.book.coursework", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="write the editions of chapters")
    making.add_argument("chapters", nargs="*", help="numbers, such as 3 5_1 (default: all)")
    making.add_argument("--out", type=Path, default=Path("_build/coursework"))
    making.add_argument("--students", type=Path, help="a file with one student's id a line")
    making.add_argument("--plain", action="store_true", help="without figures: nothing is run")
    making.add_argument("--no-autograder", action="store_true", help="without otter-grader")
    grades = commands.add_parser("grade", help="judge submissions and write a table")
    grades.add_argument("chapter", help="its number, such as 3")
    grades.add_argument("submissions", type=Path, help="a folder with notebooks, at any depth")
    grades.add_argument("--out", type=Path, default=Path("grades.csv"))
    grades.add_argument("--seconds", type=float, default=grading.SECONDS, help="for each answer")
    for each in (making, grades):
        each.add_argument("--secret", type=Path, help="a file with the secret of the course")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status."""
    options = _parser().parse_args(arguments)
    try:
        secret = options.secret.read_text(encoding="utf-8").strip() if options.secret else ""
        if options.command == "make":
            students = None
            if options.students:
                lines = options.students.read_text(encoding="utf-8").splitlines()
                students = [line.strip() for line in lines if line.strip()]
            run, packages = not options.plain, not options.no_autograder
            make(chapter_files(options.chapters), options.out, students, secret, run, packages)
            print(f"{options.out} holds the editions.")
            return 0
        (chapter,) = chapter_files([options.chapter])
        found = sorted(options.submissions.rglob("[!.]*.ipynb"))
        found = [path for path in found if path.parent.name != ".ipynb_checkpoints"]
        if not found:
            raise ValueError(f"There is no notebook in {options.submissions}: give their folder.")
        _write_table(options.out, grade(chapter, found, secret, options.seconds))
        print(f"{options.out} holds the points of {len(found)} submissions.")
        return 0
    except (ValueError, OSError) as problem:
        print(f"python -m utils.book.coursework: {problem}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
