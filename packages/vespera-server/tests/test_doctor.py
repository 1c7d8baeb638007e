"""The doctor's judgement, check by check."""

from __future__ import annotations

import pwd
import sys
from pathlib import Path

import pytest

from vespera_server.doctor import account, claude, limits, surroundings
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


def credentials(root: Path, **environment: str) -> Finding:
    """What the doctor says of credentials where nothing but these is there."""
    given = {"PATH": str(root), "HOME": str(root / "home"), **environment}
    (finding,) = account.check_account(None, given, root / "project")
    return finding


def test_no_credentials_are_a_note_that_says_how_to_log_in(tmp_path: Path) -> None:
    path = program(tmp_path, "exit 0")
    finding = credentials(tmp_path)
    assert finding.status is Status.NOTE
    assert "exit code 4" in finding.value
    assert f"log in: {path}, there /login" in finding.remedy


@pytest.mark.parametrize(
    "name", ["ANTHROPIC_API_KEY", "CLAUDE_CODE_OAUTH_TOKEN", "CLAUDE_CODE_USE_BEDROCK"]
)
def test_credentials_of_the_environment_are_named_and_not_shown(name: str, tmp_path: Path) -> None:
    finding = credentials(tmp_path, **{name: "sk-secret"})
    assert (finding.status, finding.value) == (Status.OK, f"seen: {name}")


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("home/.claude/.credentials.json", "{}", "the CLI's login in"),
        ("home/.claude/settings.json", '{"apiKeyHelper": "sk-secret"}', "apiKeyHelper in"),
        ("project/.claude/settings.local.json", '{"apiKeyHelper": "x"}', "apiKeyHelper in"),
        ("home/.claude/settings.json", '{"env": {"ANTHROPIC_API_KEY": "sk-secret"}}', "_KEY in"),
    ],
)
def test_credentials_of_the_cli_are_seen_where_it_keeps_them(
    file: str, text: str, words: str, tmp_path: Path
) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    finding = credentials(tmp_path)
    assert finding.status is Status.OK
    assert f"{words} {path}" in finding.value
    assert "secret" not in finding.value
    moved = credentials(tmp_path, CLAUDE_CONFIG_DIR=str(tmp_path / "elsewhere"))
    assert moved.status is (Status.OK if file.startswith("project") else Status.NOTE)


def test_what_cannot_be_read_is_no_end_of_the_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "home" / ".claude" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text("[" * 100_000)
    assert credentials(tmp_path).status is Status.NOTE
    # No name of a file is as long: the system refuses to look, as in another user's home.
    assert credentials(tmp_path, HOME="/" + "x" * 300).status is Status.NOTE
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)  # a number that no user has
    assert credentials(tmp_path, HOME="").status is Status.NOTE


def test_certificates_that_cannot_be_read_are_a_warning(tmp_path: Path) -> None:
    there, missing = tmp_path / "ca.pem", tmp_path / "missing.pem"
    there.touch()
    environment = {"SSL_CERT_FILE": str(tmp_path), "SSL_CERT_DIR": str(there)}
    found = by_name(list(surroundings.check_environment(environment)))
    assert "Is a directory" in found["SSL_CERT_FILE"].value
    assert "Not a directory" in found["SSL_CERT_DIR"].value
    environment = {"NODE_EXTRA_CA_CERTS": str(missing), "SSL_CERT_FILE": str(there)}
    found = by_name(list(surroundings.check_environment(environment)))
    assert found["NODE_EXTRA_CA_CERTS"].status is Status.WARNING
    assert f"{missing}: No such file" in found["NODE_EXTRA_CA_CERTS"].value
    assert found["SSL_CERT_FILE"].status is Status.OK


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
