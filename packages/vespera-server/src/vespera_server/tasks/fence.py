"""Responsible for a session that has one process at most: ends whoever still holds it.

The CLI that a dead owner left is usually dying already: its guardian saw to that. One that is not
(the Python backend, an owner that was stopped for longer than its lease) would write into the
session beside the new one. A holder is known by the session id in its command line, which is a
uuid4 that this queue chose.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

__all__ = ["end_holders", "holders"]

_PROC = Path("/proc")
_POLL = 0.05
# Seconds for it to go by itself, after SIGTERM (a session that gets one can be resumed), at last.
_PATIENCE = ((None, 1.0), (signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0))


def holders(session_id: str) -> list[int]:
    """Process ids of the CLIs that have this session; none where there is no /proc."""
    wanted = {f"{flag}={session_id}".encode() for flag in ("--session-id", "--resume")}
    try:
        processes = [entry for entry in _PROC.iterdir() if entry.name.isdigit()]
    except OSError:
        return []
    return [int(entry.name) for entry in processes if not wanted.isdisjoint(_arguments(entry))]


async def end_holders(session_id: str) -> int:
    """Wait for the holders to go, then end them; returns how many had to be ended.

    Takes 9 s at most; raises ``TimeoutError`` when a holder survives even that.
    """
    ended = 0
    for number, patience in _PATIENCE:
        deadline = time.monotonic() + patience
        found = await asyncio.to_thread(holders, session_id)
        if number is not None:
            ended = max(ended, len(found))
            for pid in found:
                _signal(pid, session_id, number)
        while found:
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(_POLL)
            found = await asyncio.to_thread(holders, session_id)
        if not found:
            return ended
    raise TimeoutError(
        f"session {session_id} is held by process {found[0]}, which does not end; end it by hand"
    )


def _arguments(process: Path) -> set[bytes]:
    try:
        return set((process / "cmdline").read_bytes().split(b"\0"))
    except OSError:
        return set()


def _signal(pid: int, session_id: str, number: int) -> None:
    with contextlib.suppress(OSError):
        # The handle first, then a second look: the number may be a stranger's by now.
        handle = os.pidfd_open(pid)
        try:
            if pid in holders(session_id):
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)
