"""Responsible for the file tools as a client has them: contents, limits, refusals."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from vespera_server.serve import VesperaServer

Ask = Callable[..., dict[str, Any]]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """One call of a tool of a server whose root is the test's directory."""

    def ask(tool: str, options: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
        async def main() -> dict[str, Any]:
            fields = {"roots": [str(tmp_path)], "toolsets": ["files"]} | (options or {})
            async with Client(VesperaServer(fields, host={}).mcp_server) as client:
                result = await client.call_tool(tool, arguments)
            assert isinstance(result.structured_content, dict), result
            return result.structured_content

        return asyncio.run(main())

    return ask


def test_lines_are_read_as_editors_count_them(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\u2028still two\nthree", "utf-8")
    every = ask("read_file", path="a.txt")
    assert (every["text"], every["total_lines"], every["more"]) == (
        "one\ntwo\u2028still two\nthree",
        3,
        False,
    )
    part = ask("read_file", path=str(tmp_path / "a.txt"), first_line=2, lines=1)
    assert (part["text"], part["lines"], part["more"]) == ("two\u2028still two\n", 1, True)
    assert ask("read_file", path="a.txt", first_line=9)["text"] == ""


def test_an_answer_and_a_file_have_a_largest_size(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("0123456789\n" * 1000)
    answer = ask("read_file", {"largest_answer": 2048}, path="long.txt")
    assert 0 < len(answer["text"]) <= 2048
    assert answer["more"]
    refused = ask("read_file", {"largest_file": 100}, path="long.txt")
    assert refused["error"]["code"] == "file_too_large"
    refused = ask("write_file", {"largest_file": 100}, path="new.txt", text="x" * 101)
    assert refused["error"]["code"] == "file_too_large"
    assert not (tmp_path / "new.txt").exists()


def test_write_edit_and_what_changed(ask: Ask, tmp_path: Path) -> None:
    assert ask("write_file", path="a.py", text="x = 1\ny = 1\n")["size"] == 12
    many = ask("edit_file", path="a.py", old="1", new="2")
    assert many["error"]["code"] == "ambiguous_match"
    done = ask("edit_file", path="a.py", old="x = 1", new="x = 2")
    assert (done["replacements"], "+x = 2" in done["diff"]) == (1, True)
    stale = ask("edit_file", path="a.py", old="y", new="z", expect=done["mtime_ns"] - 1)
    assert stale["error"]["code"] == "content_changed"
    both = ask("edit_file", path="a.py", old=" = ", new="=", replace_all=True)
    assert both["replacements"] == 2
    assert (tmp_path / "a.py").read_text() == "x=2\ny=1\n"
    assert ask("write_file", path="no/such/dir.txt", text="")["error"]["code"] == "not_found"


def test_a_file_keeps_its_encoding_and_line_endings(ask: Ask, tmp_path: Path) -> None:
    path = tmp_path / "wide.txt"
    path.write_bytes("one\r\ntwo\r\n".encode("utf-16"))
    read = ask("read_file", path="wide.txt")
    assert (read["text"], read["size"]) == ("one\r\ntwo\r\n", len(path.read_bytes()))
    assert ask("edit_file", path="wide.txt", old="two", new="2", expect=read["mtime_ns"])["success"]
    stale = ask("write_file", path="wide.txt", text="x", expect=read["mtime_ns"] - 1)
    assert stale["error"]["code"] == "content_changed"
    done = ask("write_file", path="wide.txt", text="1\n")
    assert path.read_bytes() == "1\r\n".encode("utf-16")
    assert done["mtime_ns"] == path.stat().st_mtime_ns


def test_a_read_only_server_has_no_tool_that_writes(ask: Ask, tmp_path: Path) -> None:
    refused = ask("write_file", {"read_only": True}, path="a", text="b")
    assert refused["error"]["code"] == "unknown_tool"
    assert list(tmp_path.iterdir()) == []


def test_what_is_there(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    for name in ("src/a.py", "src/b.txt", "c.py"):
        (tmp_path / name).write_text(name)
    rows = ask("list_files")["files"]
    assert [(row["path"], row["kind"]) for row in rows] == [("c.py", "file"), ("src", "directory")]
    found = ask("list_files", pattern="**/*.py")["files"]
    assert sorted(Path(row["path"]).as_posix() for row in found) == ["c.py", "src/a.py"]
    cut = ask("list_files", limit=1)
    assert (len(cut["files"]), cut["more"]) == (1, True)
    info = ask("file_info", path="c.py", hash=True)
    assert (info["size"], info["is_file"], len(info["sha256"])) == (4, True, 64)
    assert ask("list_files", pattern="[")["error"]["code"] == "pattern"


def test_lines_are_found(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("import os\n\n# TODO: more\nprint(os)\n")
    (tmp_path / "b.txt").write_text("todo\n(TODO)\n")
    (tmp_path / ".hidden").write_text("TODO\n")
    found = ask("search_files", pattern="TODO")
    assert [(row["path"], row["line"]) for row in found["matches"]] == [
        ("b.txt", 2),
        ("src/a.py", 3),
    ]
    assert found["more"] is False
    wide = ask("search_files", pattern="todo", ignore_case=True, hidden=True)
    assert len(wide["matches"]) == 4
    near = ask("search_files", pattern="(TODO)", literal=True, around=1)
    assert near["matches"] == [{"path": "b.txt", "line": 2, "text": "(TODO)", "before": ["todo"]}]
    only = ask("search_files", pattern="TODO", include=["*.py"], directory="src")
    assert [row["line"] for row in only["matches"]] == [3]
    cut = ask("search_files", pattern="o", limit=1)
    assert (len(cut["matches"]), cut["more"]) == (1, True)
    small = ask("search_files", {"largest_answer": 1024}, pattern=".", hidden=True)
    assert small["success"]
    assert ask("search_files", pattern="(")["error"]["code"] == "pattern"
    assert ask("search_files", pattern="x", directory="..")["error"]["code"] == "outside_workspace"


def test_what_is_no_text_file_is_refused_at_once(ask: Ask, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "latin").write_bytes(b"\xe9")
    assert ask("read_file", path="fifo")["error"]["code"] == "not_a_file"
    assert ask("read_file", path=".")["error"]["code"] == "is_a_directory"
    assert ask("read_file", path="latin")["error"]["code"] == "encoding"
