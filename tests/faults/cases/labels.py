"""labels.csv as people, spreadsheets and scripts write it: its labels, or one sentence."""

import tarfile
from itertools import product
from pathlib import Path

from faults.case import Case, command
from faults.cases.folders import make, pets, seen
from utils.stimuli import datasets

FILES = {"cat/1.png": (7, 10), "dog/3.png": (999, 30), "cat/2.png": (0, 20)}
HEAD = "file,class_index\n"
ROWS = "cat/1.png,7\ndog/3.png,999\ncat/2.png,0\n"
RIGHT = dict(sorted((name, list(found)) for name, found in FILES.items()))
PLACES = ("folder", "images.tar in it", "tar next to it")


def written(folder: Path, table: bytes, where: str) -> Path:
    """Pictures and a table in one of PLACES."""
    place = pets(folder)
    if where == "folder":
        (place / "labels.csv").write_bytes(table)
        return place
    new = folder / "packed"
    new.mkdir()
    (new / "labels.csv").write_bytes(table)
    archive = new / ("images.tar" if where == "images.tar in it" else "pets.tar")
    with tarfile.open(archive, "w") as tar:
        tar.add(place, ".")
    return new if where == "images.tar in it" else archive


def with_table(table: str | bytes, where: str = "folder"):
    content = table if isinstance(table, bytes) else table.encode()
    return lambda folder: seen(written(folder, content, where))


def names_in_order(folder: Path):
    return datasets.load(written(folder, (HEAD + ROWS).encode(), "folder")).names


def listed(name: str, written_as: str):
    def act(folder: Path):
        place = make(folder / "pets", {name: 10, "z.png": 20})
        (place / "labels.csv").write_text(f"{HEAD}{written_as},5\n", encoding="utf-8")
        return list(seen(place).values())

    return act


def as_a_folder(folder: Path):
    place = pets(folder)
    (place / "labels.csv").mkdir()
    return seen(place)


def digests_differ(one: str, other: str):
    def act(folder: Path):
        place = pets(folder)
        found = []
        for table in (one, other):
            (place / "labels.csv").write_text(HEAD + table, encoding="utf-8")
            found.append(datasets.load(place).digest)
        return found[0] != found[1]

    return act


def measured(table: str):
    def act(folder: Path):
        written(folder, table.encode(), "folder")
        return command("measure", "vit-d1-h2", "--data", "pets", "--measures", "accuracy")

    return act


READ = {
    "plain": HEAD + ROWS,
    "without a last line break": (HEAD + ROWS).rstrip(),
    "with a byte-order mark": "\ufeff" + HEAD + ROWS,
    "with line breaks of Windows": (HEAD + ROWS).replace("\n", "\r\n"),
    "with a byte-order mark and line breaks of Windows":
        "\ufeff" + (HEAD + ROWS).replace("\n", "\r\n"),
    "with empty lines": HEAD + "\n" + ROWS.replace("\n", "\n\n"),
    "with quotes": 'file,"class_index"\n'
        + "".join(f'"{f}","{c}"\n' for f, (c, _) in FILES.items()),
    "with blanks": "file, class_index\n" + ROWS.replace(",", " ,  "),
    "with more columns": "author,class_index,file\n"
        + "".join(f'"A, B",{c},{f}\n' for f, (c, _) in FILES.items()),
    "with ./": HEAD + "".join(f"./{line}\n" for line in ROWS.split()),
    "of whole floats": HEAD + "cat/1.png,7.0\ndog/3.png,999.\ncat/2.png,0.00\n",
    "with zeros in front": HEAD + "cat/1.png,007\ndog/3.png,999\ncat/2.png,0\n",
    "with Mac line breaks": (HEAD + ROWS).replace("\n", "\r"),
}  # fmt: skip
REFUSED = {
    "with a file twice": (HEAD + ROWS + "cat/1.png,7\n", ("cat/1.png", "twice")),
    "with a file twice, of two classes": (HEAD + ROWS + "cat/1.png,8\n", ("cat/1.png", "twice")),
    "with a file twice, once with ./": (HEAD + ROWS + "./cat/1.png,7\n", ("cat/1.png", "twice")),
    "with nothing": ("", ("class_index", "file")),
    "of blank lines": ("\n\n\n", ("class_index", "file")),
    "with a header only": (HEAD, ("lists no images",)),
    "without a header": (ROWS, ("lacks the column class_index and file",)),
    "without class_index": ("file,label\ncat/1.png,7\n", ("lacks the column class_index",)),
    "without file": ("name,class_index\ncat/1.png,7\n", ("lacks the column file",)),
    "with a column twice": (
        "file,class_index,class_index\ncat/1.png,7,8\n",
        ("two columns", "class_index"),
    ),
    "with semicolons": ((HEAD + ROWS).replace(",", ";"), ("commas",)),
    "with tabs": ((HEAD + ROWS).replace(",", "\t"), ("commas",)),
    "with an open quote": (HEAD + 'cat/1.png,7\n"dog/3.png,999\n', ("table",)),
    "with a quote inside": (HEAD + '"cat"/1.png,7\n', ("table",)),
    "in latin-1": ((HEAD + "café.png,7\n").encode("latin-1"), ("UTF-8",)),
    "in UTF-16": ((HEAD + ROWS).encode("utf-16"), ("UTF-8",)),
    "of noise": (bytes(range(256)), ("UTF-8",)),
    "with NUL": (HEAD + "cat/1.png,7\n\0\n", ("labels.csv",)),
    "with a missing value": (HEAD + "cat/1.png\n", ("2 columns", "cat/1.png")),
    "with a value too many": (HEAD + "cat/1.png,7,8\n", ("2 columns", "cat/1.png")),
    "with an empty label": (HEAD + "cat/1.png,\n", ("class_index", "nothing", "cat/1.png")),
    "with nan": (HEAD + "cat/1.png,nan\n", ("class_index", "nan", "cat/1.png")),
    "with a fraction": (HEAD + "cat/1.png,3.5\n", ("class_index", "3.5", "cat/1.png")),
    "with a name for a label": (HEAD + "cat/1.png,tench\n", ("class_index", "tench")),
    "with a synset for a label": (HEAD + "cat/1.png,n01440764\n", ("class_index", "n01440764")),
    "with a negative label": (HEAD + "cat/1.png,-1\n", ("class_index", "-1", "0 … 999")),
    "with label 1000": (HEAD + "cat/1.png,1000\n", ("class_index", "1000", "0 … 999")),
    "with an enormous label": (HEAD + f"cat/1.png,{10**30}\n", ("class_index", "0 … 999")),
    "with a power of ten": (HEAD + "cat/1.png,1e2\n", ("class_index", "1e2")),
    "with a label of other digits": (HEAD + "cat/1.png,٣\n", ("class_index", "0 … 999")),
    "with a list of labels": (HEAD + 'cat/1.png,"3,4"\n', ("class_index", "3,4")),
    "with a file that is not there": (HEAD + ROWS + "fox/1.png,7\n", ("fox/1.png", "not there")),
    "with an absolute name": (HEAD + "/data/cat/1.png,7\n", ("/data/cat/1.png", "not there")),
    "with a name from outside": (HEAD + "../pets/cat/1.png,7\n", ("../pets", "not there")),
    "with backslashes": (HEAD + "cat\\1.png,7\n", ("cat\\1.png", "not there")),
    "with names without a folder": (HEAD + "1.png,7\n", ("1.png", "not there")),
    "with names without an ending": (HEAD + "cat/1,7\n", ("cat/1", "not there")),
    "with an empty name": (HEAD + ",7\n", ("not there",)),
    "with a hidden picture": (HEAD + "cat/._1.png,7\n", ("cat/._1.png", "not there")),
    "with a text file": (HEAD + "labels.csv,7\n", ("labels.csv", "not there")),
    "with a field of 200,000 characters": (HEAD + "x" * 200_000 + ",7\n", ("table",)),
}

CASES = [
    *(
        Case(f"a table {what}, {where}", with_table(table, where), right=RIGHT)
        for (what, table), where in product(READ.items(), PLACES)
    ),
    *(
        Case(f"a table {what}, {where}", with_table(table, where), says=says)
        for (what, (table, says)), where in product(REFUSED.items(), PLACES)
    ),
    Case("the order of the table", names_in_order, right=list(FILES)),
    *(
        Case(f"a file called {name!r} in the table", listed(name, f'"{name}"'), right=[[5, 10]])
        for name in ("NA", "nan", "None", "é", "日本", "a b", "a,b", "#1", "001", "1e5", "-", "'",
                     "true", "a  b", "screen\u202fshot")
        for name in (f"{name}.png",)
    ),
    *(
        Case(f"a file in {depth} folders in the table",
             listed(f"{'a/' * depth}1.png", f"{'a/' * depth}1.png"), right=[[5, 10]])
        for depth in (0, 1, 5)
    ),
    Case("a folder called labels.csv", as_a_folder, says=("labels.csv", "without an image")),
    Case("the digest of other labels", digests_differ("cat/1.png,7\n", "cat/1.png,8\n"),
         right=True),
    Case("the digest of another order",
         digests_differ("cat/1.png,7\ncat/2.png,7\n", "cat/2.png,7\ncat/1.png,7\n"), right=True),
    Case("the digest of a longer table",
         digests_differ("cat/1.png,7\n", "cat/1.png,7\ncat/2.png,7\n"), right=True),
    *(
        Case(f"a table {what}, by the command", measured(REFUSED[what][0]), says=REFUSED[what][1],
             slow=True)
        for what in ("with a header only", "with a file twice", "with an open quote")
    ),
]  # fmt: skip
