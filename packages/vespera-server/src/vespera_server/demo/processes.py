"""Looks at /proc from outside: a tree's memory, and processes that live in a directory.

The engine has counters of its own; the demo does not take its word for it. Elsewhere than on
Linux everything here answers None or nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one with its number."""

    pid: int
    started: str  # clock ticks since boot, as /proc prints them


def tree_memory(root_pid: int) -> int | None:
    """Resident bytes of a process and all its descendants, shared pages counted once per process.

    None when it is gone or the system has no /proc.
    """
    children: defaultdict[int, list[int]] = defaultdict(list)
    for pid in _pids():
        fields = _stat(pid)
        if fields is not None:
            children[int(fields[1])].append(pid)
    total, waiting = 0, [root_pid]
    while waiting:
        pid = waiting.pop()
        total += _resident(pid)
        waiting += children[pid]
    return total or None


def processes_in(directory: Path) -> set[Process]:
    """Processes whose working directory is `directory` or beneath it."""
    found = set()
    for pid in _pids():
        fields = _stat(pid)
        if fields is not None and fields[0] != "Z" and _lives_in(pid, directory):
            found.add(Process(pid, fields[19]))
    return found


def end_processes_in(directory: Path) -> int:
    """Kills what `processes_in` finds; returns how many. Only for what the demo started."""
    ended = 0
    for process in processes_in(directory):
        with contextlib.suppress(OSError):
            # The handle is taken first and the directory looked at again: the number may have
            # been given to a stranger in between.
            handle = os.pidfd_open(process.pid)
            try:
                if _lives_in(process.pid, directory):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
                    ended += 1
            finally:
                os.close(handle)
    return ended


def _pids() -> Iterator[int]:
    try:
        entries = list(_PROC.iterdir())
    except OSError:
        return
    yield from (int(entry.name) for entry in entries if entry.name.isdigit())


def _stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on (the name before may hold anything)."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.rpartition(")")[2].split()


def _resident(pid: int) -> int:
    try:
        pages = (_PROC / str(pid) / "statm").read_text(encoding="ascii").split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _lives_in(pid: int, directory: Path) -> bool:
    try:
        place = (_PROC / str(pid) / "cwd").readlink()
    except OSError:
        return False
    return place.is_relative_to(directory)
