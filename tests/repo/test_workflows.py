"""Responsible for workflows that hold no logic: what CI runs, a laptop runs with the same words."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
INSTALL = re.compile(
    r"python -m pip install --require-hashes --requirement=requirements/\w+\.txt"
    r"|sudo apt-get install --yes [\w-]+"
)
NOX = re.compile(r"nox -s (\w+)( --python \S+)?")
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")


def load(path: Path) -> dict[str, Any]:
    document = yaml.safe_load(path.read_text())
    assert isinstance(document, dict)
    return document


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in WORKFLOWS:
        for name, job in load(path)["jobs"].items():
            for number, step in enumerate(job["steps"], 1):
                yield f"{path.name}: {name}, step {number}", step


def nox_sessions() -> set[str]:
    """Sessions of the noxfile, read from its source: nox is no part of the test environment."""
    found = re.findall(
        r"^@nox\.session.*\ndef (\w+)\(", (ROOT / "noxfile.py").read_text(), re.MULTILINE
    )
    return set(found)


def test_there_are_workflows() -> None:
    assert WORKFLOWS


def test_every_run_is_an_install_line_or_one_nox_session() -> None:
    sessions = nox_sessions()
    for where, step in steps():
        if "run" not in step:
            continue
        line = step["run"]
        if INSTALL.fullmatch(line):
            continue
        found = NOX.fullmatch(line)
        assert found, f"{where}: {line!r} is neither an install line nor `nox -s NAME`"
        assert found[1] in sessions, f"{where}: the noxfile has no session {found[1]!r}"


def test_every_action_is_pinned_by_its_hash_and_says_its_version() -> None:
    for path in WORKFLOWS:
        for line in path.read_text().splitlines():
            if "uses:" in line:
                action, _, version = line.split("uses:")[1].strip().partition(" # ")
                assert PINNED.fullmatch(action), f"{path.name}: {action!r} is not pinned"
                assert version.startswith("v"), f"{path.name}: {action!r} names no version"


def test_no_job_gets_more_rights_than_it_asks_for() -> None:
    for path in WORKFLOWS:
        document = load(path)
        assert document["permissions"] == {}, f"{path.name}: workflow-level permissions"
        for name, job in document["jobs"].items():
            assert "permissions" in job, f"{path.name}: job {name} says nothing about its rights"
            assert "timeout-minutes" in job, f"{path.name}: job {name} may run for ever"


def test_checkouts_keep_no_credentials() -> None:
    for where, step in steps():
        if "actions/checkout@" in step.get("uses", ""):
            assert step["with"]["persist-credentials"] is False, where


def test_jobs_that_never_ran_say_so() -> None:
    for path in WORKFLOWS:
        text = path.read_text()
        for name in load(path)["jobs"]:
            block = re.search(rf"^  {name}:\n((?:    .*\n|\n)+)", text, re.MULTILINE)
            assert block, f"{path.name}: job {name} not found as text"
            assert "never run on GitHub" in block[1] or "runs on GitHub since" in block[1], (
                f"{path.name}: job {name} does not say whether it has ever run"
            )


def test_the_gate_waits_for_every_job_that_can_fail() -> None:
    jobs = load(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]
    informational = {"bench", "api", "check"}
    assert set(jobs["check"]["needs"]) == set(jobs) - informational


def test_ci_run_ends_with_the_readmes_test_command() -> None:
    code = (
        "import json, runpy; names = runpy.run_path('.ci/stages.py');"
        "print(json.dumps(names['stages']()[-1][1]))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert json.loads(answer.stdout)[:3] == [".venv/bin/nox", "-s", "test"]


def test_what_only_ci_runs_is_named() -> None:
    ci = {found[1] for _, step in steps() if (found := NOX.fullmatch(step.get("run", "")))}
    here = set(re.findall(r"\w+", (ROOT / ".ci" / "stages.py").read_text()))
    # Parts of bench_smoke and of the release; cargo-deny is an action there.
    others = {"dashboard", "cibuildwheel", "release_whole"}
    told = re.search(r"^CI runs besides: (.+)\.$", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    assert told
    assert set(re.findall(r"`(\w+)`", told[1])) == ci - here - others | {"licences"}


@pytest.mark.parametrize("session", ["lint", "typecheck", "test", "test_pure", "build", "bench"])
def test_the_noxfile_has(session: str) -> None:
    assert session in nox_sessions()
