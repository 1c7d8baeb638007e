"""Responsible for putting the end of a process into words, the same for every backend."""

from __future__ import annotations

import signal

from vespera_agent_spawner.results import ExitStatus

__all__ = ["exit_status"]

_ASKED = {
    "interrupt": "after an interrupt",
    "shutdown": "after its input was ended",
    "terminate": "after SIGTERM",
    "kill": "by force",
    "guardian": "since its guardian died",
}


def exit_status(
    code: int | None, number: int | None, by: str | None, why: str | None = None
) -> ExitStatus:
    """Describe an end by exit code or signal ``number``.

    ``by`` is the last rung of our own ladder that was stepped on, None when we did nothing;
    ``why`` is what made us step on it.
    """
    asked = _ASKED.get(by or "", "by itself") + (f": {why}" if by and why else "")
    if number is not None:
        name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
        words = f"killed by {name}" + (f" ({asked})" if by else " that was not ours")
        return ExitStatus(None, number, by or "outside", words)
    if code is None:
        return ExitStatus(None, None, "unknown", "gone; the host reaped it, so its code is lost")
    return ExitStatus(code, None, by or "agent", f"exit code {code}, {asked}")
