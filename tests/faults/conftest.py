"""The tally of the catalogue, at the end of a run."""

from collections import Counter

from faults.case import VERDICTS

tally = Counter()


def pytest_runtest_logreport(report):
    if report.when == "call":
        tally.update(value for key, value in report.user_properties if key == "verdict")


def pytest_terminal_summary(terminalreporter):
    if tally:
        counts = ", ".join(f"{tally[verdict]} {verdict}" for verdict in VERDICTS)
        terminalreporter.write_line(f"{tally.total()} faults tried: {counts}.")
