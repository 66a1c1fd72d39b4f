"""The catalogue: each module holds `CASES` of one area, as data."""

import importlib
import pkgutil

from faults.case import Case


def catalogue() -> list[Case]:
    """All cases of all areas, in the order of their modules' names; ValueError for a name twice."""
    cases = []
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        area = importlib.import_module(f"{__name__}.{module.name}")
        cases += [case._replace(name=f"{module.name}: {case.name}") for case in area.CASES]
    names = [case.name for case in cases]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"Two cases have one name: {sorted(twice)[0]!r}.")
    return cases
