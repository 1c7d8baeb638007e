"""Responsible for finding an agent's program, and for saying where it was looked for.

Order: an explicit path, PATH (the agent's own when it sets one), the CLI that the
``claude-agent-sdk`` wheel carries, then the places where installers put it.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from vespera_agent_spawner.errors import ProgramNotFound, SpawnError

__all__ = ["DEFAULT_PROGRAM", "find_program"]

DEFAULT_PROGRAM = "claude"

_INSTALL = (
    "install it with 'npm install -g @anthropic-ai/claude-code', or 'pip install "
    "claude-agent-sdk' (the wheel carries the CLI), or give the full path as the program"
)


def find_program(
    program: str | None,
    environment: Mapping[str, str],
    working_directory: str | None = None,
) -> str:
    """Return the absolute path of the program.

    Raises ``ProgramNotFound`` (a ``SpawnError`` and a ``FileNotFoundError``) that names every
    place that was looked at and how to install the CLI.
    """
    name = program or DEFAULT_PROGRAM
    if name.startswith("/") and _is_program(name):
        return name
    if os.sep in name or (os.altsep and os.altsep in name):
        return _explicit(name, working_directory)
    looked: list[str] = []
    path = environment.get("PATH", os.defpath)
    if found := shutil.which(name, path=path):
        return str(Path(found).absolute())
    looked.append(f"PATH ({path})")
    if name == DEFAULT_PROGRAM:
        for place in _usual_places(environment):
            if _is_program(place):
                return str(place)
            looked.append(str(place))
    remedy = _INSTALL
    if name != DEFAULT_PROGRAM:
        remedy = "give the full path as the program, or extend PATH"
        if " " in name:
            remedy += "; arguments do not belong in the program, put them in 'args'"
    raise ProgramNotFound(
        f"program '{name}' not found; looked in: {'; '.join(looked)}. Remedy: {remedy}",
        program=name,
        context={"looked": looked, "remedy": remedy},
    )


def _explicit(name: str, working_directory: str | None) -> str:
    path = Path(name).expanduser()
    if not path.is_absolute() and working_directory is not None:
        # As a shell would: a relative path is relative to where the agent runs.
        beside = Path(working_directory) / path
        path = beside if beside.exists() else path
    path = path.absolute()
    if _is_program(path):
        return str(path)
    exists = path.exists()
    why = "is not an executable file" if exists else "does not exist"
    remedy = f"make it executable (chmod +x {path})" if exists else "give a path that exists"
    if path.is_dir():
        why, remedy = "is a directory", "give the path of a program"
    if not exists and path.name == DEFAULT_PROGRAM:
        remedy = _INSTALL
    kind = SpawnError if exists else ProgramNotFound
    raise kind(
        f"program '{name}': {path} {why}. Remedy: {remedy}",
        errno=errno.EACCES if exists else errno.ENOENT,
        program=str(path),
        stage="find",
        context={"looked": [str(path)], "remedy": remedy},
    )


def _usual_places(environment: Mapping[str, str]) -> Iterator[Path]:
    bundled = _bundled_in_sdk()
    if bundled is not None:
        yield bundled
    # Not Path.home(), which raises for a user without one, as a container's number may be.
    home = Path(environment.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111
    if home.is_absolute():
        yield home / ".local" / "bin" / "claude"
        yield home / ".claude" / "local" / "claude"
        yield home / ".npm-global" / "bin" / "claude"
        yield home / "node_modules" / ".bin" / "claude"
        yield home / ".yarn" / "bin" / "claude"
    yield Path("/usr/local/bin/claude")
    yield Path("/opt/homebrew/bin/claude")


def _bundled_in_sdk() -> Path | None:
    """The CLI inside the ``claude-agent-sdk`` wheel; the package itself is not imported."""
    try:
        spec = importlib.util.find_spec("claude_agent_sdk")
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    name = "claude.exe" if os.name == "nt" else "claude"
    return Path(spec.origin).parent / "_bundled" / name


def _is_program(path: Path | str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode) and os.access(path, os.X_OK)  # noqa: PTH116
    except (OSError, ValueError):
        return False
