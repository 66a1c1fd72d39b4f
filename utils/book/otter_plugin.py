"""What otter-grader runs before it would run a submission: the book's own, harmless grading.

A copy of this file goes into the autograder of a chapter (see `coursework.autograder`). In place of
the submission otter runs a cell with the verdicts, which the tests of the package read.
"""

import sys
from pathlib import Path

import nbformat
from otter.plugins import AbstractOtterPlugin


class Apart(AbstractOtterPlugin):
    """Judges each answer in a process of its own; the configuration holds the course's secret."""

    def before_execution(self, submission):
        """A notebook that knows the verdicts on `submission`."""
        place = Path(self.submission_path).parent  # where otter puts the files of the package
        sys.path.insert(0, str(place))
        from utils.book import coursework, grading

        chapter = nbformat.read(place / "chapter.json", as_version=4)
        student = submission.metadata.get(coursework.ABOUT, {}).get("student")
        secret = self.plugin_config.get("secret", "")
        given = coursework.values_of(chapter, student, secret) if student and secret else {}
        verdicts = grading.grade(chapter, submission, given)
        plain = {number: tuple(verdict) for number, verdict in verdicts.items()}
        cell = nbformat.v4.new_code_cell(f"verdicts = {plain!r}")
        return nbformat.v4.new_notebook(cells=[cell], metadata=dict(submission.metadata))
