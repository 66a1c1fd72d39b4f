"""Editions: what a student gets, what an instructor gets, and that both are graded rightly."""

import ast
import copy
import csv
import json
import os
import subprocess
import sys
import zipfile

import nbformat
import pytest
import torch

from utils.book import coursework, grading, launch
from utils.book.exercises import RECEIVED, UNANSWERED

CHAPTER = coursework.CHAPTERS / "3_attention_sparsity.ipynb"
ALL = coursework.chapter_files([])
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="grading forks processes")


def read(path=CHAPTER):
    return nbformat.read(path, as_version=4)


def solution(each) -> str:
    """The code of a solution, but for the call of the check."""
    return ast.unparse(ast.Module(grading.parsed(each.solution).body[:-1], []))


def solved(chapter, edition):
    """A student's notebook with the book's solutions in it."""
    edition = copy.deepcopy(edition)
    for each in grading.exercises(chapter):
        stub = next(cell for cell in edition.cells if cell.id == each.stub.id)
        stub.source += "\n" + solution(each)
    return edition


@pytest.mark.parametrize(
    "path", coursework.CHAPTERS.glob("[0-9]_*.ipynb"), ids=lambda path: path.stem
)
def test_a_chapter_says_what_its_reader_can_do_then(path):
    found = coursework.objectives(read(path))
    assert 2 <= len(found) <= 5
    assert all(10 < len(each) < 200 and each[-1] not in ".;," for each in found)


def test_chapters_are_found_by_their_numbers():
    assert coursework.chapter_files(["3", "5_1", "2.1"])[0] == CHAPTER
    assert len(coursework.chapter_files(["3", "5_1", "2.1"])) == 3
    for number in ("9", "2", ""):
        with pytest.raises(ValueError, match="There is no chapter"):
            coursework.chapter_files([number])


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_a_student_edition_tells_no_solution_and_nothing_of_its_checks(path):
    chapter = read(path)
    edition = coursework.student_edition(chapter)
    text = json.dumps(edition, ensure_ascii=False)
    hidden = {
        cell.id for each in grading.exercises(chapter) for cell in (each.solution, each.check)
    }
    shown = "\n".join(cell.source for cell in chapter.cells if cell.id not in hidden)
    for each in grading.exercises(chapter):
        secret = [line.strip() for line in each.solution.source.split("\n")[1:-1]]
        check = ast.walk(grading.parsed(each.check))
        secret += [node.value for node in check if isinstance(node, ast.Constant)]
        secret += each.check.metadata.get("wrong", []) + each.check.metadata.get("right", [])
        for line in secret:
            if isinstance(line, str) and len(line) > 25 and line not in shown:
                assert json.dumps(line, ensure_ascii=False)[1:-1] not in text, line
        assert "rubric" not in next(c for c in edition.cells if c.id == each.text.id).metadata
    assert "{cite" not in text
    assert ".ipynb)" not in text
    assert "## References" in text or "{cite" not in json.dumps(chapter)


@pytest.mark.slow
def test_the_command_writes_editions_with_figures_and_none_of_the_solutions_outputs(tmp_path):
    assert coursework.main(["make", "2.2b", "--no-autograder", "--out", str(tmp_path)]) == 0
    files = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    name = "2_2b_how_sure.ipynb"
    assert files == {f"student/{name}", f"instructor/{name}", "exercises.csv"}
    whole, handed_out = (read(tmp_path / who / name) for who in ("instructor", "student"))
    outputs = {cell.id: json.dumps(cell.get("outputs", [])) for cell in handed_out.cells}
    assert sum("image/png" in said for said in outputs.values()) > 3
    text, solutions = json.dumps(handed_out), grading.exercises(whole)
    assert len(solutions) >= 3
    for each in solutions:
        assert f"Exercise {each.number}: not answered yet." in outputs[each.check.id]
        said = "".join(out.get("text", "") for out in each.solution.outputs)
        lines = [line for line in said.splitlines() if "not yet" not in line]
        assert f"Exercise {each.number}: right" in lines[-1]
        assert [line for line in lines if len(line) > 8 and line in text] == []


def test_a_students_mystery_cell_answers_as_the_books_and_does_not_show_what_it_is():
    (path,) = coursework.chapter_files(["2.1"])
    chapter = read(path)
    edition = coursework.student_edition(chapter)
    text = json.dumps(edition)
    assert "hidden(seed)" not in text
    assert "sealed" not in text
    setting = "import math, torch\nfrom utils.stimuli import psychophysics"
    books, students = {}, {}
    for notebook, space in ((chapter, books), (edition, students)):
        (box,) = [cell for cell in notebook.cells if cell.id == "mystery-box"]
        exec(f"{setting}\n{box.source}", space)
    assert "hidden" in books
    assert "hidden" not in students
    images = torch.rand(5, 32, 32)
    for seed in (1, 5):
        assert torch.equal(books["mystery"](seed)(images), students["mystery"](seed)(images))


def test_a_students_check_asks_for_an_answer_and_judges_none():
    edition = coursework.student_edition(read())
    check = next(cell for cell in edition.cells if "check" in grading.tags(cell))
    space = {"answer": ...}
    exec("from utils.book.exercises import exercise\nfrom collections.abc import Callable", space)
    exec(check.source, space)
    made = space["check_3_1"]
    assert made.verdict(0.5).state == RECEIVED
    assert made.verdict(...).state == UNANSWERED


def test_an_instructors_edition_has_solutions_rubric_and_misconceptions():
    chapter = read()
    text = json.dumps(coursework.instructor_edition(chapter), ensure_ascii=False)
    for each in grading.exercises(chapter):
        assert each.solution.source.split("\n")[1] in text.replace('\\"', '"')
        assert f"For instructors: exercise {each.number}" in text
    assert "The check gives 2 of " in text


def varied():
    chapter = read()
    each = grading.exercises(chapter)[0]
    each.stub.metadata["variants"] = {"patches": [81, 100, 121, 144]}
    return chapter


def test_each_student_has_values_that_only_who_knows_the_secret_can_tell():
    chapter = varied()
    students = [f"student {i}" for i in range(40)]
    of = [coursework.values_of(chapter, student, "secret") for student in students]
    assert of == [coursework.values_of(chapter, student, "secret") for student in students]
    drawn = [given["3.1"]["patches"] for given in of]
    assert set(drawn) == {81, 100, 121, 144}
    assert drawn != [
        coursework.values_of(chapter, student, "another")["3.1"]["patches"] for student in students
    ]
    edition = coursework.student_edition(chapter, of[0], students[0])
    assert any(f"patches = {drawn[0]}\n" in cell.source for cell in edition.cells)
    assert edition.metadata[coursework.ABOUT]["student"] == students[0]
    assert "variants" not in json.dumps(edition)


@pytest.mark.slow
def test_a_students_edition_runs_from_top_to_bottom_and_asks_for_every_answer():
    chapter = read()
    edition = coursework.executed(coursework.student_edition(chapter))
    checks = [cell for cell in edition.cells if "check" in grading.tags(cell)]
    said = ["".join(output["text"] for output in cell.outputs) for cell in checks]
    numbers = [each.number for each in grading.exercises(chapter)]
    assert said == [f"Exercise {number}: not answered yet.\n" for number in numbers]


@forks
@pytest.mark.slow
def test_submissions_become_a_table_that_leaves_none_out(tmp_path):
    chapter, secret = varied(), "secret"
    book = tmp_path / "3_attention_sparsity.ipynb"
    nbformat.write(chapter, book)
    for i in range(30):
        given = coursework.values_of(chapter, f"s{i}", secret)
        edition = coursework.student_edition(chapter, given, f"s{i}")
        handed_in = solved(chapter, edition) if i % 3 == 0 else edition
        if i % 3 == 1:  # the answer for the book's value, not the student's own
            stub = grading.exercises(chapter)[0].stub
            for cell in handed_in.cells:
                if cell.id == stub.id:
                    cell.source = "answer = 0.96875"
        folder = tmp_path / "in" / f"folder {i}"
        folder.mkdir(parents=True)
        nbformat.write(handed_in, folder / "3.ipynb")
    (tmp_path / "in" / "folder 3" / "bad.ipynb").write_text("{", encoding="utf-8")
    rows = coursework.grade(book, sorted((tmp_path / "in").rglob("*.ipynb")), secret)
    assert len(rows) == 31
    points = {row["student"]: row["points"] for row in rows if not row["problem"]}
    assert all(points[f"s{i}"] == 10 for i in range(0, 30, 3))
    assert all(points[f"s{i}"] == 0 for i in range(2, 30, 3))
    assert all(points[f"s{i}"] == 0 for i in range(1, 30, 3))
    (bad,) = [row for row in rows if row["problem"]]
    assert (bad["student"], bad["points"], bad["of"]) == ("folder 3", 0, 10)
    coursework._write_table(tmp_path / "grades.csv", [*rows, {"student": "=1+1"}])
    with (tmp_path / "grades.csv").open(encoding="utf-8-sig", newline="") as file:
        held = list(csv.DictReader(file))
    assert [int(row["points"]) for row in held[:31]] == [row["points"] for row in rows]
    assert held[31]["student"] == "'=1+1"  # no formula


@forks
@pytest.mark.slow
def test_what_is_to_be_looked_at_by_hand_is_named_in_the_table(tmp_path):
    chapter = read()
    edition = coursework.student_edition(chapter, {}, "ada")
    nameless = copy.deepcopy(edition)
    nameless.metadata.pop(coursework.ABOUT)
    foreign = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("answer = 1")])
    (words,) = [c for c in edition.cells if c.id == grading.exercises(chapter)[0].words.id]
    words.source = "Because."
    for name, handed_in in (("named", edition), ("nameless", nameless), ("foreign", foreign)):
        (tmp_path / f"{name}/.ipynb_checkpoints").mkdir(parents=True)
        nbformat.write(handed_in, tmp_path / name / "3.ipynb")
        nbformat.write(handed_in, tmp_path / name / ".ipynb_checkpoints/3-checkpoint.ipynb")
        nbformat.write(handed_in, tmp_path / name / "._3.ipynb")
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    options = ["--secret", str(tmp_path / "secret"), "--out", str(tmp_path / "grades.csv")]
    assert coursework.main(["grade", "3", str(tmp_path), *options]) == 0
    with (tmp_path / "grades.csv").open(encoding="utf-8-sig", newline="") as file:
        of = {row["student"]: row for row in csv.DictReader(file)}
    assert of.keys() == {"ada", "nameless", "foreign"}
    assert of["ada"]["problem"] == ""
    assert (of["ada"]["3.1 in words"], of["nameless"]["3.1 in words"]) == ("Because.", "")
    assert "names no student" in of["nameless"]["problem"]
    assert "None of the chapter's exercises" in of["foreign"]["problem"]


@forks
@pytest.mark.slow
@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_the_solution_scores_full_marks_and_the_untouched_edition_none(path):
    chapter = read(path)
    edition = coursework.student_edition(chapter)
    full, none = grading.grade_all(chapter, [solved(chapter, edition), edition])
    assert all(verdict.points == verdict.of for verdict in full.values()), full
    assert all(verdict.state == UNANSWERED for verdict in none.values()), none


@forks
@pytest.mark.slow
def test_otter_grades_as_the_book_does(tmp_path):
    pytest.importorskip("otter")
    chapter = read()
    edition = coursework.student_edition(chapter)
    package = tmp_path / "autograder.zip"
    coursework.autograder(CHAPTER, package)
    with zipfile.ZipFile(package) as held:
        assert sum(info.compress_size for info in held.infolist()) < 20e6
        held.extract("autograding.py", tmp_path / "source")  # where Gradescope has it
    nbformat.write(solved(chapter, edition), tmp_path / "solved.ipynb")
    nbformat.write(edition, tmp_path / "untouched.ipynb")
    for name, share in (("solved", 1), ("untouched", 0)):
        command = [sys.executable, "-m", "otter", "run", "-a", package, "-o", tmp_path, "--no-logo"]
        subprocess.run(
            [*command, tmp_path / f"{name}.ipynb"],
            check=True,
            capture_output=True,
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(tmp_path / "source")},
        )
        tests = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["tests"]
        scores = {test["name"]: (test["score"], test["max_score"]) for test in tests[1:]}
        expected = {
            f"q{each.number.replace('.', '_')}": grading.worth(each.text)
            for each in grading.exercises(chapter)
        }
        assert scores == {key: (share * of, of) for key, of in expected.items()}


def test_editions_fetch_the_commit_that_they_were_made_from(tmp_path, monkeypatch):
    monkeypatch.setenv("REPOSITORY_URL", "https://github.com/a/fork")
    coursework.make([CHAPTER], tmp_path, ["ada"], "secret", run=False, packages=False)
    line = f'URL, VERSION = "https://github.com/a/fork", "{launch.revision(coursework.ROOT)}"'
    for edition in ("student/ada", "instructor"):
        made = read(tmp_path / edition / CHAPTER.name)
        assert line in next(cell.source for cell in made.cells if cell.cell_type == "code")


def test_the_command_says_in_a_sentence_what_it_cannot_do(tmp_path, capsys):
    for arguments, words in (
        (["make", "99"], "There is no chapter '99'"),
        (["grade", "3", str(tmp_path)], "There is no notebook in"),
        (["make", "3", "--plain", "--students", str(tmp_path / "none")], "No such file"),
    ):
        assert coursework.main([*arguments]) == 1
        assert words in capsys.readouterr().err
    (tmp_path / "roster").write_text("ada\n", encoding="utf-8")
    roster = ["--students", str(tmp_path / "roster"), "--out", str(tmp_path / "out")]
    assert coursework.main(["make", "3", "--plain", "--no-autograder", *roster]) == 1
    assert "need a secret" in capsys.readouterr().err
