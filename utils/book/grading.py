"""Grading hand-ins: a submission's answers, judged by the book's own checks, out of harm's way.

Of a submission only the code between the text of an exercise and its check is taken. It is run in
a process of its own, after those cells of the book's chapter that the exercise needs, in an empty
folder, with a time limit and without what an answer has no use for: other processes, the network,
files elsewhere; what it makes of the functions that checks are made of is found out. That keeps
accidents from doing harm, and simple tricks from scoring; grade strangers' code in a container, as
Gradescope does.
"""

import ast
import contextlib
import io
import json
import os
import secrets
import select
import signal
import symtable
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

from .exercises import BROKEN, UNANSWERED, Verdict

PARTS = ("exercise", "exercise-stub", "check", "hint", "solution")  # tags of an exercise's cells
ANSWER = "answer"  # of a text cell to answer in words, after the check
SECONDS = 60.0  # that the answer to one exercise may take
LEARNING = "_gradients_are_kept"  # after a chapter's cells, among their names
MEMORY = 4e9  # bytes that it may take beyond what the chapter has
# What an answer may not do, as Python's audit events name it.
FORBIDDEN = ("subprocess.", "os.system", "os.exec", "os.fork", "os.kill", "os.spawn", "socket.")
CHECKS = ("utils", "torch", "numpy", "scipy", "pandas", "math", "builtins")  # are made of these
CHANGES = ("os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "shutil.")


class Exercise(NamedTuple):
    """The cells of one exercise; `words` is that for an answer in words, None where none is asked.

    Attributes are in the order of the notebook.
    """

    text: Any
    stub: Any
    check: Any
    words: Any
    hint: Any
    solution: Any

    @property
    def number(self) -> str:
        """As the title of its check says it, such as "3.1"."""
        return self.check.source.split("\n", 1)[0].rsplit(" ", 1)[-1]


def tags(cell) -> set[str]:
    """The tags of a cell."""
    return set(cell.metadata.get("tags", []))


def exercises(notebook) -> list[Exercise]:
    """The exercises of a chapter of which no cell is missing."""
    found = []
    starts = [i for i, cell in enumerate(notebook.cells) if "exercise" in tags(cell)]
    for start, end in pairwise([*starts, len(notebook.cells)]):
        own = notebook.cells[start:end]
        parts = {tag: next((c for c in own if tag in tags(c)), None) for tag in (*PARTS, ANSWER)}
        if all(parts[tag] is not None for tag in PARTS):
            text, stub, check, hint, solution, words = parts.values()
            found.append(Exercise(text, stub, check, words, hint, solution))
    return found


def parsed(cell) -> ast.Module:
    """The code of a cell, but for lines that only IPython understands."""
    lines = cell.source.split("\n")
    return ast.parse("\n".join("" if line[:1] in ("%", "!") else line for line in lines))


def names(source: str) -> tuple[set[str], set[str]]:
    """The names of a chapter that code gives a value, wholly or in part, and those it needs."""
    given, needs = set(), set()
    for statement in ast.parse(source).body:
        gives, reads = set(), set()
        tables = [symtable.symtable(ast.unparse(statement), "", "exec")]
        while tables:  # the statement's own names, then what its functions take from outside
            table = tables.pop()
            tables += table.get_children()
            outside = [n for n in table.get_symbols() if n.is_global() or n.is_local()]
            if table.get_type() == "module":
                gives = {n.get_name() for n in outside if n.is_assigned() or n.is_imported()}
                reads |= {n.get_name() for n in outside if n.is_referenced()}
            else:
                reads |= {n.get_name() for n in outside if n.is_global()}
        # An assignment reads a name as it was before; a loop or a function names its own.
        needs |= reads - given - (set() if isinstance(statement, ast.Assign) else gives)
        given |= gives
        for node in ast.walk(statement):  # x[0] = …, x.y = …
            if isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store):
                given |= {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
    return given, needs


def needed(notebook) -> list[str]:
    """The code of a chapter without which its exercises cannot be solved and checked."""
    group = exercises(notebook)
    left = {cell.id for each in group for cell in (each.stub, each.check)}
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    left.add(code[0].id)  # the set-up cell
    wanted = set()
    for each in group:
        cells = (each.stub, each.solution, each.check)
        wanted |= names("\n".join(ast.unparse(parsed(cell)) for cell in cells))[1]
    chosen = []
    for cell in reversed([cell for cell in code if cell.id not in left]):
        given, needs = names(ast.unparse(parsed(cell)))
        if given & wanted or "set_grad_enabled" in cell.source:
            wanted |= needs
            chosen.append(cell.source)
    return chosen[::-1]


def prepared(notebook) -> dict[str, Any]:
    """The names that a chapter's needed cells leave behind."""
    import torch

    space = {"__name__": "__main__", "device": torch.device("cpu")}
    for source in needed(notebook):
        exec(compile(source, "chapter", "exec"), space)
    return space


def answers(submission) -> dict[str, tuple[list[str], str]]:
    """Number of an exercise → the code cells of a submission that answer it, and its words.

    All between the text of the exercise and its check, so that helpers in cells of their own count.
    """
    found: dict[str, tuple[list[str], str]] = {}
    number, code, words, asked = "", [], "", False
    for cell in submission.cells:
        heading = next((x for x in cell.source.split("\n") if x.startswith("### Exercise ")), "")
        if cell.cell_type == "markdown" and heading:
            number, code, words = heading.removeprefix("### Exercise ").partition(":")[0], [], ""
            found[number], asked = (code, words), True
        elif cell.cell_type == "code" and "check" in tags(cell):
            asked = False
        elif cell.cell_type == "code" and number and asked:
            code.append(cell.source)
        elif ANSWER in tags(cell) and number:
            found[number] = (code, cell.source)
    return found


def grade(
    chapter, submission, given: dict[str, dict[str, Any]] | None = None, seconds: float = SECONDS
) -> dict[str, Verdict]:
    """Judge the answers of one submission.

    Args:
        chapter: The book's notebook, with its checks.
        submission: The notebook that was handed in.
        given: Number of an exercise → the values of names that its stub gives, where a student has
            other ones than the book.
        seconds: That each answer may take.

    Returns:
        Number of an exercise → what its check says; "not answered yet" where it is missing.
    """
    return next(grade_all(chapter, [submission], [given or {}], seconds))


def grade_all(
    chapter, submissions: Sequence, given: Sequence[dict] | None = None, seconds: float = SECONDS
) -> Iterator[dict[str, Verdict]]:
    """As `grade`, of many submissions: the chapter's cells are run once.

    Raises:
        OSError: Where processes cannot be forked (Windows).
    """
    if not hasattr(os, "fork"):
        raise OSError("Grading forks processes, which Windows cannot: run it in WSL or Docker.")
    import torch

    learning = torch.is_grad_enabled()
    space = prepared(chapter)
    space[LEARNING] = torch.is_grad_enabled()
    torch.set_grad_enabled(learning)  # a chapter may switch it off, for itself
    before = _functions()
    for submission, values in zip(submissions, given or [{}] * len(submissions), strict=True):
        handed_in = answers(submission)
        verdicts = {}
        for each in exercises(chapter):
            code, _ = handed_in.get(each.number, ([], ""))
            own = values.get(each.number, {})
            verdicts[each.number] = _apart(each, code, space, own, before, seconds)
        yield verdicts


def worth(text) -> int:
    """The points that the check of an exercise with this text gives; a rubric gives the others."""
    return text.metadata["points"] - sum(line["points"] for line in text.metadata.get("rubric", []))


def judge(each: Exercise, code: Sequence[str], space: dict, given: dict[str, Any]) -> Verdict:
    """What a check says of code that answers an exercise, all of it in this process.

    Args:
        each: The exercise.
        code: Cells, run one after another on top of the stub.
        space: What the chapter's needed cells leave behind; it is not changed.
        given: Names that the stub gives, with their values, which the code cannot change.

    Returns:
        The verdict; what the code raises is part of it.
    """
    *definition, call = parsed(each.check).body
    checks = dict(space)  # the check uses the book's names, whatever the code made of them
    for statement in parsed(each.stub).body:  # what follows from a given value follows from it
        exec(compile(ast.Module([statement], []), "stub", "exec"), checks)
        checks |= given
    own = dict(checks)
    try:
        for source in code:
            lines = ["" if line[:1] in ("%", "!") else line for line in source.split("\n")]
            exec(compile("\n".join(lines), "answer", "exec"), own)
            own |= given
    except (Exception, SystemExit) as problem:
        why = f"{type(problem).__name__}: {problem}"
        return _broken(each, f"Your code stops with “{why:.300}”.")
    exec(compile(ast.Module(definition, []), "check", "exec"), checks)
    return checks[call.value.func.id].verdict(*(own.get(name.id) for name in call.value.args))


def _broken(each: Exercise, why: str) -> Verdict:
    return Verdict(BROKEN, 0, worth(each.text), f"Exercise {each.number}: not yet. {why}")


def _functions() -> dict[tuple[str, str], Any]:
    """The functions and methods of which checks are made: where, name → what is there.

    Of a function written in Python that is its code, which can be exchanged inside it.
    """
    found = {}
    for path, module in list(sys.modules.items()):
        if path.partition(".")[0] not in CHECKS:
            continue
        for name, thing in list(vars(module).items()):
            if callable(thing):
                found[path, name] = thing
            # By its type: some deprecated things warn when they are asked what they are.
            if issubclass(type(thing), type) and thing.__module__ == path:
                methods = {key: value for key, value in vars(thing).items() if callable(value)}
                found |= {(f"{path}.{name}", key): value for key, value in methods.items()}
    return {
        at: thing.__code__ if type(thing) is FunctionType else thing for at, thing in found.items()
    }


def _apart(
    each: Exercise, code: Sequence[str], space: dict, given: dict, before: dict, seconds: float
) -> Verdict:
    """As `judge`, in a process of its own that can harm nothing but its verdict."""
    if not code:
        said = f"Exercise {each.number}: not answered yet."
        return Verdict(UNANSWERED, 0, worth(each.text), said)
    import torch

    reads, writes = os.pipe()
    signature = secrets.token_hex()  # without it nothing that comes through the pipe is a verdict
    with tempfile.TemporaryDirectory() as folder:
        if not (child := os.fork()):
            try:
                os.close(reads)
                _harmless(folder, seconds)
                torch.set_grad_enabled(space[LEARNING])
                verdict = judge(each, code, space, given)
                now = _functions()
                if others := [".".join(at) for at in before if now.get(at) is not before[at]]:
                    verdict = _broken(each, f"Your code replaces {others[0]}, which checks use.")
                os.write(writes, json.dumps([signature, *verdict]).encode())
            finally:  # whatever was raised, this process never goes on with what the other does
                os._exit(0)
        os.close(writes)
        said = _until(reads, time.monotonic() + seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    try:
        signed, *verdict = json.loads(said)
        if signed != signature:
            raise ValueError("not of this judge")
        return Verdict(*verdict)
    except (TypeError, ValueError):
        late = "took longer than is allowed" if said is None else "ended before it was judged"
        return _broken(each, f"Your code {late} ({seconds:g} s, {MEMORY / 1e9:g} GB).")


def _until(pipe: int, end: float) -> str | None:
    """What is written into a pipe before it is closed; None if it is not closed in time."""
    parts = []
    with os.fdopen(pipe, "rb", buffering=0) as source:
        while select.select([source], [], [], max(0, end - time.monotonic()))[0]:
            if not (part := source.read(65536)):
                return b"".join(parts).decode(errors="replace")
            parts.append(part)
    return None


def _harmless(folder: str, seconds: float) -> None:
    """Take from this process, for good, what an answer has no use for."""
    import resource

    os.setsid()
    os.chdir(folder)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    # A notebook's own may go elsewhere.
    sys.stdout = sys.stderr = io.TextIOWrapper(io.FileIO(1, "w"), encoding="utf-8")
    sys.dont_write_bytecode = True
    for limit, most in (
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_FSIZE, int(1e7)),
        (resource.RLIMIT_AS, _held() + int(MEMORY)),
    ):
        resource.setrlimit(limit, (most, most))
    own = os.path.realpath(folder)

    def elsewhere(paths: tuple) -> bool:
        named = [os.path.realpath(os.fsdecode(p)) for p in paths if isinstance(p, str | bytes)]
        return any(not path.startswith((own, os.devnull)) for path in named)

    def refuse(event: str, arguments: tuple) -> None:
        refused = event.startswith(FORBIDDEN)
        if event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            refused = elsewhere(arguments[:1])
        elif event.startswith(CHANGES):
            refused = elsewhere(arguments[:2])
        if refused:
            raise PermissionError(f"an answer may use {event} in its own folder at most")

    sys.addaudithook(refuse)


def _held() -> int:
    """Bytes of address space that this process has."""
    with contextlib.suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 1 << 40
