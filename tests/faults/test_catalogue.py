"""Every fault of the catalogue is answered rightly or with one sentence, and nothing is lost."""

import pytest

from faults.case import GOOD, Case, judge
from faults.cases import catalogue


def _parameter(case: Case):
    return pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.slow else [])


@pytest.mark.parametrize("case", [_parameter(case) for case in catalogue()])
def test_is_answered_well(case, tmp_path, monkeypatch, record_property):
    monkeypatch.chdir(tmp_path)
    verdict, why = judge(case, tmp_path)
    record_property("verdict", verdict)
    assert verdict in GOOD, f"{verdict}: {why}"
