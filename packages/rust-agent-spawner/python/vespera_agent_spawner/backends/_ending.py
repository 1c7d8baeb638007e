"""Responsible for putting the end of a process into words, the same for every backend."""

from __future__ import annotations

import functools
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vespera_agent_spawner._units import format_size
from vespera_agent_spawner.results import ExitStatus

if TYPE_CHECKING:
    from vespera_agent_spawner.config import Limits

__all__ = ["exit_status", "exit_status_of"]

# Looked at once: the enumeration makes its members anew each time that it is gone through.
_SIGNALS = {int(number): number.name for number in signal.Signals}

_ASKED = {
    "interrupt": "after an interrupt",
    "shutdown": "after its input was ended",
    "terminate": "after SIGTERM",
    "kill": "by force",
    "guardian": "since its leash or its guardian died",
}


def exit_status(
    code: int | None,
    number: int | None,
    by: str | None,
    why: str | None = None,
    survivors: Sequence[str] = (),
) -> ExitStatus:
    """Describe an end by exit code or signal ``number``.

    ``by`` is the last rung of our own ladder that was stepped on, None when we did nothing;
    ``why`` is what made us step on it; ``survivors`` outlived force.
    """
    return _exit_status(code, number, by, why, tuple(survivors))


# Most agents end as another one did; what is told of it never changes.
@functools.lru_cache(maxsize=64)
def _exit_status(
    code: int | None,
    number: int | None,
    by: str | None,
    why: str | None,
    survivors: tuple[str, ...],
) -> ExitStatus:
    asked = _ASKED.get(by or "", "by itself") + (f": {why}" if by and why else "")
    left = _left(survivors)
    if number is not None:
        words = f"killed by {_name(number)}" + (f" ({asked})" if by else " that was not ours")
        return ExitStatus(None, number, by or "outside", words + left)
    if code is None and survivors:
        return ExitStatus(None, None, by or "unknown", f"it did not end ({asked}){left}")
    if code is None:
        words = "gone; the host reaped it, so its code is lost"
        return ExitStatus(None, None, "unknown", words + left)
    # Programs that hear a signal leave with 128 and its number.
    if by is None and code - 128 in _SIGNALS:
        asked = f"it heard {_name(code - 128)} that was not ours"
    return ExitStatus(code, None, by or "agent", f"exit code {code}, {asked}{left}")


def exit_status_of(
    cause: str,
    code: int | None,
    number: int | None,
    limits: Limits | None,
    survivors: Sequence[str] = (),
) -> ExitStatus:
    """Describe an end that the kernel brought about.

    ``cause`` is the name of a limit, or ``"oom"``. A signal of a limit that nobody set is any
    other signal.
    """
    if cause == "oom":
        words = f"killed by {_name(number or 0)}: the system had no memory left (OOM killer)"
        return ExitStatus(None, number, "oom", words + _left(survivors))
    limit = getattr(limits, cause) if limits is not None else None
    if limit is None or (cause == "processes" and code == 0):
        return exit_status(code, number, None, None, survivors)
    figure = {
        "memory": lambda: f"its cgroup had used {format_size(limit)}",
        "processes": lambda: f"it was refused more than {limit} processes",
        "cpu_seconds": lambda: f"a process had used {limit:g} s of CPU time",
        "file_size": lambda: f"a file would have grown over {format_size(limit)}",
    }[cause]()
    how = f"exit code {code}" if number is None else f"killed by {_name(number)}"
    return ExitStatus(code, number, "limit", f"{how}: limits.{cause}: {figure}" + _left(survivors))


def _name(number: int) -> str:
    return _SIGNALS.get(number, str(number))


def _left(survivors: Sequence[str]) -> str:
    return f"; still alive: {', '.join(survivors)}" if survivors else ""
