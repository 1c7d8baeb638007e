"""The example server, run as a program and spoken to by the official client over stdio."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "file_server.py"

mcp = pytest.importorskip("mcp")


async def conversation(directory: Path, backend: str) -> list[dict[str, Any]]:
    parameters = mcp.StdioServerParameters(
        command=sys.executable,
        args=[str(EXAMPLE), str(directory)],
        env={**os.environ, "VESPERA_BACKEND": backend},
    )
    calls: list[tuple[str, dict[str, Any]]] = [
        ("write_file", {"path": "notes.txt", "content": "one\ntwo\n"}),
        ("append_file", {"path": "notes.txt", "content": "three\n"}),
        ("read_file", {"path": "notes.txt"}),
        ("read_lines", {"path": "notes.txt", "start": 2, "count": 1}),
        ("edit_file", {"path": "notes.txt", "old": "two", "new": "2"}),
        ("edit_file", {"path": "notes.txt", "old": "four", "new": "4"}),
        ("list_files", {"pattern": "*.txt"}),
        ("read_file", {"path": "../secret"}),
        ("read_file", {"path": "none"}),
    ]
    async with mcp.Client(parameters) as client:
        tools = await client.list_tools()
        assert {tool.name for tool in tools.tools} == {name for name, _ in calls}
        answers = []
        for name, arguments in calls:
            result = await client.call_tool(name, arguments)
            assert not result.is_error, result
            assert isinstance(result.structured_content, dict)
            answers.append(result.structured_content)
        return answers


def test_six_tools_work_and_stay_in_their_directory(ops: ModuleType, tmp_path: Path) -> None:
    backend = ops.__name__.rpartition(".")[2]
    directory = tmp_path / "project"
    directory.mkdir()
    (tmp_path / "secret").write_text("secret")
    answers = asyncio.run(asyncio.wait_for(conversation(directory, backend), 100))
    assert {answer["backend"] for answer in answers} == {backend}
    assert [answer["success"] for answer in answers] == [True] * 5 + [False, True, False, False]
    assert answers[0]["size"] == 8
    assert answers[2]["content"] == "one\ntwo\nthree\n"
    assert (answers[3]["lines"], answers[3]["end_of_file"]) == (["two"], False)
    assert "-two\n+2\n" in answers[4]["diff"]
    assert answers[5]["code"] == "string_not_found"
    assert answers[6]["files"] == [{"path": "notes.txt", "size": 12}]
    assert answers[7]["code"] == "outside_workspace"
    assert answers[8]["code"] == "FileNotFoundError"
    assert (directory / "notes.txt").read_text() == "one\n2\nthree\n"


def test_a_directory_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE), str(tmp_path / "nope")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.endswith("No such file or directory; give a directory that exists\n")
    assert "Traceback" not in done.stderr
