"""`vespera demo` as a user runs it: a process of its own, judged from outside."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vespera_server.demo.processes import processes_in

pytestmark = pytest.mark.claude

COMMAND = [sys.executable, "-m", "vespera_server"]
DEAD_PROXY = "http://127.0.0.1:9"


@pytest.fixture
def user() -> Iterator[dict[str, str]]:
    """The environment of a user with a home that has something to lose, and a dead proxy."""
    with tempfile.TemporaryDirectory(prefix="vt-") as root:
        home, temporary = Path(root, "home"), Path(root, "tmp")
        (home / ".claude" / "projects").mkdir(parents=True)
        temporary.mkdir()
        (home / ".claude.json").write_text('{"numStartups": 7}')
        (home / ".claude" / "settings.json").write_text('{"model": "opus"}')
        (home / ".bashrc").write_text("export FROM_BASHRC=1\n")
        yield {
            **os.environ,
            "HOME": str(home),
            "TMPDIR": str(temporary),
            "HTTP_PROXY": DEAD_PROXY,
            "HTTPS_PROXY": DEAD_PROXY,
            "http_proxy": DEAD_PROXY,
            "https_proxy": DEAD_PROXY,
            "CLAUDECODE": "1",
        }


def fingerprint(directory: str) -> dict[str, tuple[int, int, str]]:
    """Every path beneath with its mode, modification time and content hash."""
    return {
        str(path): (
            path.lstat().st_mode,
            path.lstat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "",
        )
        for path in sorted(Path(directory).rglob("*"))
    }


def run(arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
    )


def test_the_demo_works_and_leaves_nothing_behind(
    claude: str, backend: str, user: dict[str, str]
) -> None:
    before = fingerprint(user["HOME"])
    done = run(["demo", "--claude", claude, "--backend", backend, "--json"], user)
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    rows = {row["task"]: row for row in report["agents"]}
    assert sorted(rows) == ["background", "edit", "fail", "read", "test", "write"]
    assert {row["backend"] for row in rows.values()} == {backend}
    assert all(row["as_expected"] for row in rows.values())
    assert rows["fail"]["outcome"] == "failed"
    assert "this agent is meant to fail" in f"{rows['fail']['answer']} {rows['fail']['error']}"
    assert "OK" in rows["edit"]["answer"]
    assert "failures=1" in rows["test"]["answer"]
    left = rows["background"]
    assert left["orphans_swept"] + left["left_behind"] >= 1
    if left["containment"] != "pgroup":
        assert left["left_behind"] == 0
    for row in rows.values():
        assert row["time_to_first_output_seconds"] > 0
        assert row["tree_memory_bytes"] > 50 * 2**20
    assert fingerprint(user["HOME"]) == before
    assert list(Path(user["TMPDIR"]).iterdir()) == []
    assert processes_in(Path(user["TMPDIR"])) == set()


def test_the_table_names_backend_and_tier_without_a_terminal(
    claude: str, user: dict[str, str]
) -> None:
    done = run(["demo", "--claude", claude, "--agents", "2"], user)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 agents in" in done.stdout
    assert "all as expected" in done.stdout
    assert "edit-1" in done.stdout
    table = [line.split() for line in done.stdout.splitlines() if line.startswith("✓")]
    backend, tier = table[0][-1].split("/")
    assert backend in ("rust", "python")
    assert tier in ("cgroup", "subreaper", "job_object", "pgroup")


def test_ctrl_c_ends_every_agent_and_says_so(
    claude: str, backend: str, user: dict[str, str]
) -> None:
    with subprocess.Popen(
        [*COMMAND, "demo", "--claude", claude, "--backend", backend, "--agents", "4"],
        env={**user, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as demo:
        try:
            assert demo.stdout is not None
            for line in demo.stdout:
                if "working" in line:
                    break
            demo.send_signal(signal.SIGINT)
            rest, _ = demo.communicate(timeout=30)
        finally:
            demo.kill()  # a demo that hangs must not hang the suite
    assert demo.returncode == 130, rest
    assert "NOT all as expected" in rest
    assert processes_in(Path(user["TMPDIR"])) == set()
    assert list(Path(user["TMPDIR"]).iterdir()) == []


@pytest.mark.skipif(
    Path("/usr/local/bin/claude").exists() or Path("/opt/homebrew/bin/claude").exists(),
    reason="this machine has a CLI where installers put it",
)
def test_no_claude_anywhere_is_a_clear_error(user: dict[str, str]) -> None:
    empty = Path(user["TMPDIR"], "bin")
    empty.mkdir()
    # The wheel may be installed here: a broken stand-in module hides it.
    blind = Path(user["TMPDIR"], "blind")
    blind.mkdir()
    (blind / "claude_agent_sdk.py").write_text("raise ImportError\n")
    path = os.pathsep.join([str(blind), user.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    environment = {**user, "PATH": str(empty), "PYTHONPATH": path}
    done = run(["demo"], environment)
    assert done.returncode == 2
    assert "'claude' not found; looked in: PATH" in done.stderr
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
    missing = run(["demo", "--claude", "/nowhere/claude"], environment)
    assert missing.returncode == 2
    assert "/nowhere/claude does not exist" in missing.stderr


def test_doctor_knows_the_cli_and_names_proxies_without_their_values(
    claude: str, user: dict[str, str]
) -> None:
    before = fingerprint(user["HOME"])
    secret = "http://name:password@127.0.0.1:9"
    environment = {**user, "HTTPS_PROXY": secret, "NO_PROXY": "", "no_proxy": ""}
    done = run(["doctor", "--claude", claude, "--json"], environment)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {(f["section"], f["name"]): f for f in json.loads(done.stdout)["findings"]}
    assert found["Claude CLI", "program"]["value"] == claude
    assert found["Claude CLI", "version"]["status"] in ("ok", "warning")
    assert found["environment", "proxies"]["status"] == "warning"
    assert "HTTPS_PROXY" in found["environment", "proxies"]["value"]
    assert "password" not in done.stdout
    assert fingerprint(user["HOME"]) == before
