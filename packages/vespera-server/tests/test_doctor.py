"""The doctor's judgement, check by check."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from vespera_server.doctor import claude, limits, surroundings
from vespera_server.doctor.finding import Finding, Status


def program(directory: Path, text: str) -> str:
    """A little program that stands for a CLI that answers oddly."""
    path = directory / "claude"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_a_warning_without_a_remedy_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="without a remedy"):
        Finding("limits", "memory", Status.WARNING, "low")


@pytest.mark.parametrize(
    ("version", "status", "words"),
    [
        (claude.TESTED[0], Status.OK, "tested"),
        ((1, 0, 0), Status.WARNING, "older"),
        ((99, 0, 0), Status.WARNING, "newer"),
    ],
)
def test_a_version_outside_the_tested_range_is_a_warning(
    version: tuple[int, int, int], status: Status, words: str
) -> None:
    finding = claude.judge_version(version)
    assert (finding.status, words in finding.value) == (status, True)


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        ("echo '99.1.2 (Claude Code)'", Status.WARNING, "99.1.2 is newer"),
        ("echo hello", Status.WARNING, "printed 'hello'"),
        ("exit 3", Status.PROBLEM, "exit status 3"),
    ],
)
def test_the_cli_is_asked_for_its_version(
    tmp_path: Path, script: str, status: Status, words: str
) -> None:
    path = program(tmp_path, script)
    found = by_name(list(claude.check_claude(path, {"PATH": "/usr/bin:/bin"})))
    assert found["program"].value == path
    assert (found["version"].status, words in found["version"].value) == (status, True)


def test_a_missing_cli_is_a_problem_that_says_where_it_was_sought(tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere" / "claude")
    found = by_name(list(claude.check_claude(missing, {"PATH": "/usr/bin:/bin"})))
    assert found["program"].status is Status.PROBLEM
    assert missing in found["program"].value
    assert "vespera-server[demo]" in found["program"].remedy
    assert "version" not in found


@pytest.mark.parametrize(
    ("environment", "status", "words"),
    [
        ({}, Status.OK, "none"),
        ({"HTTP_PROXY": "http://u:secret@h"}, Status.WARNING, "HTTP_PROXY"),
        ({"https_proxy": "http://h", "NO_PROXY": "example.org"}, Status.WARNING, "https_proxy"),
        ({"ALL_PROXY": "http://h", "no_proxy": "127.0.0.1, localhost"}, Status.OK, "excepts"),
        ({"HTTPS_PROXY": "http://h", "NO_PROXY": "*"}, Status.OK, "excepts"),
    ],
)
def test_proxies_are_named_and_never_shown(
    environment: dict[str, str], status: Status, words: str
) -> None:
    finding = by_name(list(surroundings.check_environment(environment)))["proxies"]
    assert (finding.status, words in finding.value) == (status, True)
    assert "secret" not in finding.value + finding.remedy


def test_variables_that_redirect_the_cli_are_named() -> None:
    environment = {"ANTHROPIC_API_KEY": "sk-secret", "CLAUDECODE": "1"}
    found = by_name(list(surroundings.check_environment(environment)))
    assert "ANTHROPIC_API_KEY" in found["account"].value
    assert "secret" not in found["account"].value
    assert found["CLAUDECODE"].status is Status.NOTE


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_limits_that_matter_are_all_there() -> None:
    found = by_name(list(limits.check_limits()))
    assert {"open files", "processes", "pipe-user-pages-soft", "memory"} <= set(found)
    assert "GiB" in found["memory"].value
    assert all(f.remedy for f in found.values() if f.status is not Status.OK)


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
def test_a_low_limit_of_open_files_is_a_warning_with_the_command() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (80, hard))
    try:
        finding = by_name(list(limits.check_limits()))["open files"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert finding.status is Status.WARNING
    assert finding.value.startswith("80 ")
    assert finding.remedy.startswith("ulimit -n ")
