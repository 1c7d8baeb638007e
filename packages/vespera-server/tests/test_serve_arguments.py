"""Responsible for arguments and options that are refused: field, value and remedy are named."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from vespera_agent_spawner.errors import ConfigError
from vespera_server.serve import ServerOptions, VesperaServer
from vespera_server.serve.beginning import check_beginning
from vespera_server.serve.policy import Policy


def error_of(tmp_path: Path, tool: str, **arguments: Any) -> dict[str, str]:
    """What a client reads of a call that fails."""

    async def main() -> dict[str, str]:
        server = VesperaServer({"roots": [str(tmp_path)]}, host={})
        async with Client(server.mcp_server) as client:
            answer = (await client.call_tool(tool, arguments)).structured_content
        assert answer is not None
        error: dict[str, str] = answer["error"]
        return error

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("tool", "arguments", "message", "remedy"),
    [
        (
            "execute_agent",
            {"agent_id": "a"},
            "execute_agent: prompt is missing",
            "give prompt: What the agent is to do, in plain words.",
        ),
        (
            "execute_agent",
            {"agent_id": "a b", "prompt": "x"},
            'execute_agent: agent_id = "a b": string should match pattern \'^[A-Za-z0-9]',
            "give agent_id as a string that matches pattern '^[A-Za-z0-9]",
        ),
        (
            "execute_agent",
            {"agent_id": "a", "prompt": "x", "wait_seconds": -1},
            "wait_seconds = -1: input should be greater than or equal to 0",
            "give wait_seconds as greater than or equal to 0",
        ),
        (
            "run_tasks",
            {"tasks": [{"prompt": "x"}, {"prompts": "x"}]},
            "run_tasks: tasks[1].prompt is missing; tasks[1] has no field 'prompts'",
            "did you mean",
        ),
        (
            "run_tasks",
            {"tasks": [{"prompt": "x", "timeout_seconds": "soon"}]},
            'run_tasks: tasks[0].timeout_seconds = "soon": input should be a valid number',
            "give tasks[0].timeout_seconds as a valid number",
        ),
        (
            "run_tasks",
            {"tasks": "x" * 100},
            "run_tasks: tasks = text of 100 characters: ",
            "give tasks as a valid list",
        ),
    ],
)
def test_wrong_arguments_are_named_with_value_and_remedy(
    tool: str, arguments: dict[str, Any], message: str, remedy: str, tmp_path: Path
) -> None:
    error = error_of(tmp_path, tool, **arguments)
    assert error["code"] == "invalid_arguments"
    assert message in error["message"]
    assert remedy in error["remedy"]


def test_a_pattern_that_means_nothing_has_the_remedy_of_its_kind(tmp_path: Path) -> None:
    error = error_of(tmp_path, "search_files", pattern="(")
    assert error["code"] == "pattern"
    assert "regular expression" in error["remedy"]
    assert "glob" in error_of(tmp_path, "search_files", pattern="x", include=["[z"])["remedy"]
    assert "glob" in error_of(tmp_path, "list_files", pattern="[z")["remedy"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--claude", "/nope"), "programs.claude: program '/nope': /nope does not exist; give a"),
        (("--program", "x=/nope"), "programs.x: program '/nope'"),
        (("--program", "x=not-there-at-all"), "programs.x: program 'not-there-at-all' not found"),
        (("--pass-env", "A B"), 'environment_names: got "A B"; give names of variables'),
        (("--pass-env", "A=b"), 'environment_names: got "A=b"'),
        (("--stdio", "--http", "8765"), "--stdio and --http 8765: a server has one door"),
        (("--transcripts", "/dev/null/x"), "transcript_dir: /dev/null/x: "),
        (("--transcripts", "~nobody-at-all/x"), "transcript_dir: ~nobody-at-all/x: there is no"),
        (("--root", "~nobody-at-all"), "roots: ~nobody-at-all: there is no such home; give the"),
        (("--task-database", "~nobody-at-all/x"), "task_database: ~nobody-at-all/x: there is no"),
        (
            ("--task-database", "/dev/null/a/b"),
            "task_database: /dev/null/a/b: there is no directory",
        ),
    ],
)
def test_what_the_operator_cannot_have_meant_is_refused_at_start(
    flags: tuple[str, ...], words: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "vespera_server", "serve", "--root", str(tmp_path), *flags],
        env={**os.environ, "HOME": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    assert f"vespera serve: {words}" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_tool_that_nobody_knows_is_a_warning_with_the_nearest_name(tmp_path: Path) -> None:
    rules = ["Reads", "Read", "Bash(git log:*)", "mcp__x__y", "*", "Quux"]
    options = ServerOptions(roots=[tmp_path], tools=rules, programs={"claude": sys.executable})
    assert check_beginning(options, Policy(options, {})) == [
        "tools: 'Reads' is no tool of the CLI that is known here; did you mean 'Read'?",
        "tools: 'Quux' is no tool of the CLI that is known here; agents have it if their CLI does",
    ]


def test_transcripts_have_a_directory_before_the_first_agent(tmp_path: Path) -> None:
    options = ServerOptions(roots=[tmp_path], transcript_dir=tmp_path / "a" / "b")
    assert check_beginning(options, Policy(options, {})) == []
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    file = tmp_path / "file"
    file.touch()
    options = ServerOptions(roots=[tmp_path], transcript_dir=file)
    with pytest.raises(ConfigError, match="name a directory that you may write"):
        check_beginning(options, Policy(options, {}))
