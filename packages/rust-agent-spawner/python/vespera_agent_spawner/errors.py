"""Responsible for the exceptions of the package: one class per thing a caller can act on.

The classes live in Python and are imported by the Rust extension, so that an ``except`` clause
means the same on both backends. Each carries a stable ``code`` (for programs), a ``context``
(plain data) and a message written for a person: what was tried, what came back, what to do.
"""

from __future__ import annotations

import errno as _errno
import os
from collections.abc import Mapping
from typing import Any, ClassVar, Self

__all__ = [
    "AgentBusy",
    "AgentError",
    "AgentExists",
    "AgentFailed",
    "AgentNotFound",
    "AgentTimeout",
    "BudgetExceeded",
    "ConfigError",
    "LimitExceeded",
    "ProgramNotFound",
    "ProtocolError",
    "SpawnError",
    "SupervisorClosed",
]


class AgentError(Exception):
    """Base of every error of this package.

    ``code`` is a stable string, ``context`` a dict of plain values (agent id, pid, stderr tail).
    """

    default_code: ClassVar[str] = "agent_error"

    code: str
    context: dict[str, Any]

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.context = dict(context or {})

    @classmethod
    def from_native(cls, message: str, context: Mapping[str, Any]) -> AgentError:
        """Build the exception from what Rust knows: a message and a dict of plain values."""
        code = context.get("code")
        return cls(message, code=str(code) if code else None, context=context)

    @property
    def agent_id(self) -> str | None:
        """The agent the error is about, when it is about one."""
        value = self.context.get("agent_id")
        return None if value is None else str(value)

    @property
    def stderr_tail(self) -> str:
        """The last lines the agent wrote to stderr, or an empty string."""
        return str(self.context.get("stderr_tail") or "")

    def __str__(self) -> str:
        # KeyError would print the repr of its argument and OSError "[Errno n] …".
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Keyword-only constructors do not survive the default protocol (args only), and
        # OSError's own __reduce__ drops the attributes: rebuild without calling __init__.
        return _rebuild, (type(self), self.message, dict(self.__dict__), _os_fields(self))


def _os_fields(error: BaseException) -> tuple[Any, Any]:
    """Errno and filename live in C slots of OSError, not in ``__dict__``."""
    if isinstance(error, OSError):
        return error.errno, error.filename
    return None, None


def _rebuild(
    cls: type[AgentError], message: str, state: dict[str, Any], os_fields: tuple[Any, Any]
) -> AgentError:
    error = cls.__new__(cls, message)
    error.args = (message,)
    error.__dict__.update(state)
    if isinstance(error, OSError):
        error.errno, error.filename = os_fields
    return error


class ConfigError(AgentError, ValueError):
    """A configuration value that cannot work: which field, which value, what to write instead."""

    default_code = "config"

    field: str
    value: Any
    remedy: str

    def __init__(
        self,
        message: str = "",
        *,
        field: str = "",
        value: Any = None,
        remedy: str = "",
        code: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        merged = {**(context or {}), "field": field, "value": value, "remedy": remedy}
        super().__init__(message, code=code, context=merged)
        self.field = field
        self.value = value
        self.remedy = remedy

    @classmethod
    def from_native(cls, message: str, context: Mapping[str, Any]) -> Self:
        code = context.get("code")
        return cls(
            message,
            field=str(context.get("field") or ""),
            value=context.get("value"),
            remedy=str(context.get("remedy") or ""),
            code=str(code) if code else None,
            context=context,
        )


class SpawnError(AgentError):
    """The agent did not start, or ended before it answered ``initialize``.

    ``errno`` is the system's number or None, ``program`` what was to be run, ``stage`` where it
    failed ("find", "chdir", "exec", "initialize", …).
    """

    default_code = "spawn_failed"

    errno: int | None
    program: str
    stage: str

    def __init__(
        self,
        message: str = "",
        *,
        errno: int | None = None,
        program: str = "",
        stage: str = "",
        code: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        merged = {**(context or {}), "errno": errno, "program": program, "stage": stage}
        super().__init__(message, code=code, context=merged)
        self.errno = errno
        self.program = program
        self.stage = stage

    @classmethod
    def from_native(cls, message: str, context: Mapping[str, Any]) -> SpawnError:
        number = context.get("errno")
        stage = str(context.get("stage") or "")
        missing = number == _errno.ENOENT and stage in ("", "find", "exec")
        chosen = ProgramNotFound if missing and cls is SpawnError else cls
        code = context.get("code")
        return chosen(
            message,
            errno=None if number is None else int(number),
            program=str(context.get("program") or ""),
            stage=stage,
            code=str(code) if code else None,
            context=context,
        )


class ProgramNotFound(SpawnError, FileNotFoundError):
    """The agent's program is nowhere: a ``SpawnError`` that is also a ``FileNotFoundError``."""

    default_code = "program_not_found"

    def __init__(
        self,
        message: str = "",
        *,
        errno: int | None = _errno.ENOENT,
        program: str = "",
        stage: str = "find",
        code: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        number = _errno.ENOENT if errno is None else errno
        super().__init__(
            message, errno=number, program=program, stage=stage, code=code, context=context
        )
        self.filename = program or None
        self.strerror = os.strerror(number)


class AgentNotFound(AgentError, KeyError):
    """No agent with this id was ever started here (or it ended too long ago)."""

    default_code = "agent_not_found"


class AgentExists(AgentError):
    """An agent with this id is alive: shut it down first or choose another id."""

    default_code = "agent_exists"


class AgentBusy(AgentError):
    """The agent is in a turn: wait for its answer or interrupt it."""

    default_code = "agent_busy"


class AgentTimeout(AgentError, TimeoutError):
    """A limit of time passed: ``which`` one (startup, turn, write, …) and ``after`` seconds."""

    default_code = "timeout"

    which: str
    after: float

    def __init__(
        self,
        message: str = "",
        *,
        which: str = "",
        after: float = 0.0,
        code: str | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> None:
        merged = {**(context or {}), "which": which, "after": after}
        super().__init__(message, code=code, context=merged)
        self.which = which
        self.after = after

    @classmethod
    def from_native(cls, message: str, context: Mapping[str, Any]) -> Self:
        code = context.get("code")
        return cls(
            message,
            which=str(context.get("which") or ""),
            after=float(context.get("after") or 0.0),
            code=str(code) if code else None,
            context=context,
        )


class AgentFailed(AgentError):
    """The agent ended, or could no longer be spoken to, while something was asked of it."""

    default_code = "agent_failed"


class ProtocolError(AgentError):
    """The agent answered something that its protocol does not allow."""

    default_code = "protocol"


class LimitExceeded(AgentError):
    """A limit (memory, output, open files, …) was reached; the message names it."""

    default_code = "limit_exceeded"


class BudgetExceeded(AgentError):
    """A budget (money or tokens) is spent."""

    default_code = "budget_exceeded"


class SupervisorClosed(AgentError):
    """The supervisor is closed or closing and starts nothing any more."""

    default_code = "supervisor_closed"
