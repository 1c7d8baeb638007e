"""Responsible for what a caller learns of a failure.

A caller gets a stable code, words and what to do; never a traceback, and no secret. What nobody
foresaw is logged with a number that the answer repeats.
"""

from __future__ import annotations

import errno
import secrets
from typing import Any

from pydantic import BaseModel, Field

from vespera_agent_spawner._logging import logger_for
from vespera_agent_spawner.errors import AgentError, BudgetExceeded, LimitExceeded
from vespera_file_ops import FileOpError
from vespera_server.redaction import Redactor

__all__ = ["Problem", "Refused", "problem_of"]

_log = logger_for("server")

_REMEDIES = {
    "agent_not_found": "call list_agents, or start one with spawn_claude_agent",
    "agent_exists": "choose another agent_id, or end that one with shutdown_agent",
    "agent_busy": "wait for its turn with agent_events, or end the turn with interrupt_agent",
    "agent_failed": "look at its events with agent_events, then start another agent",
    "spawn_failed": "ask the operator to run 'vespera doctor'",
    "program_not_found": "ask the operator to install the program, or to name it with --program",
    "backend_unavailable": "use spawn_claude_agent",
    "supervisor_closed": "the server is ending; start it again",
    "timeout": "try again, or ask for less at once",
    "auth_failed": "ask the operator to log in with the Claude CLI ('vespera doctor' says where)",
    "outside_workspace": "give a path beneath a root of this server",
    "read_only_workspace": "ask the operator to start the server without --read-only",
    "string_not_found": "read the file and give old exactly as it stands there",
    "ambiguous_match": "give more of the text around it, or set replace_all",
    "content_changed": "read the file again, then edit",
    "file_locked": "another process holds a lock on the file: try again later",
    "encoding": "only text can be read or edited: UTF-8, or UTF-16 with a byte order mark",
    "pattern": "give a glob such as '**/*.py'",
    "file_too_large": "ask for a smaller file, or the operator to raise --largest-file",
}

_SYSTEM = {
    errno.ENOENT: ("not_found", "check the path with list_files"),
    errno.ENOTDIR: ("not_a_directory", "give the path of a directory"),
    errno.EISDIR: ("is_a_directory", "give the path of a file; list_files shows what is there"),
    errno.EACCES: ("permission_denied", "ask the operator for the right to this file"),
    errno.EPERM: ("permission_denied", "ask the operator for the right to this file"),
    errno.EROFS: ("read_only", "this place cannot be written"),
    errno.ENOSPC: ("no_space", "ask the operator to free space"),
    errno.EEXIST: ("exists", "choose another path"),
    errno.ELOOP: ("link_loop", "give a path without circular links"),
    errno.ENAMETOOLONG: ("name_too_long", "give a shorter path"),
    errno.ENXIO: ("not_a_file", "only regular files can be read or written"),
    errno.ENODEV: ("not_a_file", "only regular files can be read or written"),
    errno.EINVAL: ("not_a_path", "give a plain path"),
}


class Problem(BaseModel):
    """Why it did not work."""

    code: str = Field(description="A stable word for programs, such as 'agent_not_found'.")
    message: str = Field(description="What was tried and what came back.")
    remedy: str = Field(description="What to do about it.")


class Refused(AgentError):
    """Something that the operator does not allow, or that makes no sense here."""

    default_code = "refused"

    def __init__(self, code: str, message: str, remedy: str) -> None:
        super().__init__(message, code=code, context={"remedy": remedy})


def problem_of(error: Exception, redactor: Redactor) -> Problem:
    """What a caller may know of an exception."""
    code, message, remedy = _describe(error)
    return Problem(code=code, message=redactor.text(message)[:4000], remedy=redactor.text(remedy))


def _describe(error: Exception) -> tuple[str, str, str]:
    if isinstance(error, AgentError | FileOpError):
        code = error.code
        return code, str(error), _remedy(error.context, code, error)
    if isinstance(error, OSError) and error.errno in _SYSTEM:
        code, remedy = _SYSTEM[error.errno]
        where = f"{error.filename}: " if error.filename else ""
        return code, f"{where}{error.strerror}", remedy
    if isinstance(error, OSError):
        return "system", f"{type(error).__name__}: {error.strerror or error}", "try again"
    if isinstance(error, TimeoutError):
        return "timeout", str(error) or "it took too long", _REMEDIES["timeout"]
    number = secrets.token_hex(4)
    _log.error("unforeseen failure %s", number, exc_info=error)
    return (
        "internal",
        f"an unforeseen failure, number {number} in the server's log",
        "report it to the operator with that number",
    )


def _remedy(context: dict[str, Any], code: str, error: Exception) -> str:
    given = context.get("remedy")
    if given:
        return str(given)
    if isinstance(error, BudgetExceeded | LimitExceeded):
        return "end an agent with shutdown_agent, or ask the operator for more"
    return _REMEDIES.get(code, "change what the message names, then try again")
