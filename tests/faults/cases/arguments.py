"""Counts, seeds and names on the command line that cannot be meant."""

from itertools import product

from faults.case import Case, command

COMMANDS = ("measure", "represent", "behave", "ablate")
NO_COUNT = ("0", "-1", "1.5", "many", "", "1e3")

CASES = [
    Case(f"{name} -n {count!r}", lambda _, a=(name, "vit-d2-h4", "-n", count): command(*a))
    for name, count in product(COMMANDS, NO_COUNT)
]
