"""Responsible for what is wrong with a file that somebody wrote: where, which field, what to do."""

from __future__ import annotations

from typing import Any

from vespera_agent_spawner.errors import ConfigError

__all__ = ["DocumentError", "dotted"]


class DocumentError(ConfigError):
    """A file that cannot be used. ``file``, ``line`` (None: not known) and ``field`` say where."""

    default_code = "document"

    file: str
    line: int | None

    def __init__(
        self,
        problem: str,
        *,
        file: str,
        line: int | None = None,
        field: str = "",
        value: Any = None,
        remedy: str = "",
    ) -> None:
        place = file if line is None else f"{file}:{line}"
        message = ": ".join(part for part in (place, field, problem) if part)
        super().__init__(
            message,
            field=field,
            value=value,
            remedy=remedy,
            context={"file": file, "line": line},
        )
        self.file = file
        self.line = line


def dotted(path: tuple[str | int, ...]) -> str:
    """A path as people write it: ``tasks[2].timeouts.turn``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text
