"""What the repository's host runs: pinned, with no more rights than it needs, and known to make."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = {
    file.stem: yaml.safe_load(file.read_text(encoding="utf-8"))
    for file in sorted((ROOT / ".github/workflows").glob("*.yml"))
}
JOBS = {
    f"{name}-{job}": about
    for name, flow in WORKFLOWS.items()
    for job, about in flow["jobs"].items()
}


def writes(job: dict) -> bool:
    return "write" in job.get("permissions", {}).values()


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_may_read_and_its_actions_are_pinned_by_commit(name):
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    text = (ROOT / f".github/workflows/{name}.yml").read_text(encoding="utf-8")
    used = re.findall(r"uses: (.*)", text)
    assert used
    assert [x for x in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", x)] == []


@pytest.mark.parametrize("name", JOBS)
def test_a_job_ends_and_one_that_may_write_runs_nothing_of_the_package_index(name):
    job = JOBS[name]
    assert 0 < job["timeout-minutes"] <= 120
    for step in job["steps"]:
        if writes(job):
            assert re.findall(r"\b(make|pip|python\S*|uv|npm)\b", step.get("run", "")) == []
            assert "setup-python" not in step.get("uses", "")
        elif "checkout" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False


def test_what_is_made_is_a_target_and_pages_wait_for_the_tests():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    runs = [step.get("run", "") for job in JOBS.values() for step in job["steps"]]
    made = set(re.findall(r"\bmake ([a-z-]+)", "\n".join(runs)))
    assert {"env", "book", "links", "test-lowest", "test-runtime"} <= made <= targets
    after = WORKFLOWS["pages"][True]["workflow_run"]  # YAML reads the key `on` so
    assert after["workflows"] == [WORKFLOWS["test"]["name"]]
    assert "conclusion == 'success'" in WORKFLOWS["pages"]["jobs"]["build"]["if"]


def test_who_tells_of_the_weekly_run_waits_for_all_of_it():
    jobs = WORKFLOWS["test"]["jobs"]
    weekly = {name for name, job in jobs.items() if job.get("if") == JOBS["test-newest"]["if"]}
    assert weekly == set(jobs["tell"]["needs"]) == {"newest", "elsewhere", "runtime", "links"}
