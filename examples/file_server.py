"""An MCP server with six file tools over the names that callers of ``vespera_file_ops`` know.

    python examples/file_server.py DIRECTORY

It speaks MCP on stdin and stdout (``pip install vespera-file-ops "mcp>=2.3,<3"``, once released;
until then as the README says). Every path is resolved beneath DIRECTORY and none leaves it. The
conditional import and the answers with ``success`` and ``backend`` are those of the servers that
the names come from.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from mcp.server import MCPServer

try:
    import vespera_file_ops

    RUST_FILE_OPS_AVAILABLE = vespera_file_ops.RUST_FILE_OPS_AVAILABLE
except ImportError as error:
    sys.exit(f"vespera_file_ops is not installed: {error}; pip install vespera-file-ops")

server = MCPServer("files", instructions="Files of one directory; paths are relative to it.")
root = sys.argv[1] if len(sys.argv) > 1 else "."
try:
    files = vespera_file_ops.Workspace(root)
except OSError as error:
    sys.exit(f"DIRECTORY {root}: {error.strerror}; give a directory that exists")


def answer(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the work gives, or its error with a code that a model can act on."""
    backend = vespera_file_ops.backend()
    try:
        return {"success": True, "backend": backend, **work()}
    except (OSError, ValueError, vespera_file_ops.FileOpError) as error:
        code = getattr(error, "code", None) or type(error).__name__
        return {"success": False, "backend": backend, "error": str(error), "code": code}


@server.tool()
def read_file(path: str) -> dict[str, Any]:
    """Read a whole text file, at most 1 MiB."""
    return answer(lambda: {"content": files.read_file_string(path, max_bytes=1 << 20)})


@server.tool()
def read_lines(path: str, start: int = 1, count: int = 200) -> dict[str, Any]:
    """Read lines of a text file, from line `start` (counted from 1) on."""

    def work() -> dict[str, Any]:
        found = files.read_lines(path, start, count, max_bytes=1 << 20)
        return {"lines": found.lines, "end_of_file": found.end_of_file}

    return answer(work)


@server.tool()
def write_file(path: str, content: str) -> dict[str, Any]:
    """Write a text file whole: it has the old content or the new one, never a mixture."""

    def work() -> dict[str, Any]:
        files.write_file_atomic(path, content)
        size, _, _ = files.get_file_info(path)
        return {"size": size}

    return answer(work)


@server.tool()
def append_file(path: str, content: str) -> dict[str, Any]:
    """Add text at the end of a file."""

    def work() -> dict[str, Any]:
        files.append_file(path, content)
        return {}

    return answer(work)


@server.tool()
def edit_file(path: str, old: str, new: str, replace_all: bool = False) -> dict[str, Any]:
    """Replace text that stands exactly once in a file, or, with `replace_all`, everywhere."""

    def work() -> dict[str, Any]:
        result = files.edit_file(path, old, new, replace_all=replace_all)
        return {"replacements": result.replacements, "diff": result.diff}

    return answer(work)


@server.tool()
def list_files(pattern: str = "**", directory: str = ".") -> dict[str, Any]:
    """List the files beneath a directory whose path matches a glob pattern, with their sizes."""

    def work() -> dict[str, Any]:
        found = [path.removeprefix("./") for path in files.glob_files(directory, pattern)]
        return {"files": [{"path": path, "size": files.get_file_info(path)[0]} for path in found]}

    return answer(work)


if __name__ == "__main__":
    server.run()
