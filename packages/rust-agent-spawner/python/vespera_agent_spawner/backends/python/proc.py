"""Responsible for reading processes out of /proc. Where there is none, it finds nothing.

Written with ``os`` calls alone: somebody is read whenever an agent ends, and ``pathlib`` takes
four times as long as the kernel.
"""

# ruff: noqa: PTH208 - os.listdir, for the reason above
from __future__ import annotations

import functools
import os
import time
from typing import NamedTuple

__all__ = [
    "Process",
    "content",
    "descendants",
    "host_tag_name",
    "last_number",
    "look_at",
    "start_clock",
    "start_time",
    "started",
]

_READ = 4096
_KERNEL_THREAD = 0x00200000


class Process(NamedTuple):
    """One line of /proc/<pid>/stat. A pid means something only together with ``start_time``."""

    pid: int
    parent: int
    group: int
    session: int
    state: str
    start_time: int
    cpu_ticks: int
    reaped_ticks: int
    resident_pages: int
    of_kernel: bool


def host_tag_name() -> str:
    """``VESPERA_<pid>_<starttime>``: the variable that marks everything this host starts."""
    return _tag_name_of(os.getpid())


@functools.cache
def _tag_name_of(host: int) -> str:
    return f"VESPERA_{host}_{start_time(host) or 0}"


def start_time(pid: int) -> int | None:
    """Clock ticks since boot at which the process started; None if it is gone."""
    found = look_at(pid)
    return None if found is None else found.start_time


def start_clock() -> int:
    """What the start time of a process would be that starts now; 0 where nobody knows."""
    try:
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    except (AttributeError, OSError):
        return 0
    return now * _ticks() // 1_000_000_000


def started(pid: int, not_before: int) -> int:
    """The start time of a child of ours, or a tick before it.

    ``not_before`` is what ``start_clock`` said then. It saves a look at each child where that
    clock is the one of /proc, which sandboxes need not keep; so the first child is looked at.
    """
    global _one_clock
    if not_before and _one_clock:
        return not_before
    found = start_time(pid)
    if found is not None and _one_clock is None:
        _one_clock = 0 <= found - not_before <= 10 * _ticks()
    return found or 0


_one_clock: bool | None = None


@functools.cache
def _ticks() -> int:
    return os.sysconf("SC_CLK_TCK")


def content(path: str) -> bytes:
    """A file of /proc; raises ``OSError``. It knows no length, so it is read until it ends."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(descriptor, _READ)
        while len(text) % _READ == 0 and (more := os.read(descriptor, 16 * _READ)):
            text += more
    finally:
        os.close(descriptor)
    return text


def last_number() -> int | None:
    """The number that was given last to a process or thread; None where nobody tells."""
    try:
        return int(content("/proc/loadavg").rsplit(None, 1)[-1])
    except (OSError, ValueError, IndexError):
        return None


def look_at(pid: int) -> Process | None:
    """One process; None if it is gone."""
    try:
        text = content(f"/proc/{pid}/stat")
    except OSError:
        return None
    # The name may hold spaces and parentheses: fields start after the last ')'.
    fields = text[text.rfind(b")") + 2 :].split()
    try:
        return Process(
            pid=pid,
            parent=int(fields[1]),
            group=int(fields[2]),
            session=int(fields[3]),
            state=fields[0].decode("ascii"),
            start_time=int(fields[19]),
            cpu_ticks=int(fields[11]) + int(fields[12]),
            reaped_ticks=int(fields[13]) + int(fields[14]),
            resident_pages=int(fields[21]),
            of_kernel=bool(int(fields[6]) & _KERNEL_THREAD),
        )
    except (IndexError, ValueError):
        return None


def descendants(leader: int) -> list[Process] | None:
    """Who descends from the leader now; None where the kernel does not tell quickly."""
    found: list[Process] = []
    pending = [leader]
    while pending:
        try:
            children = _children(pending.pop())
        except FileNotFoundError:
            return None
        except OSError:
            continue
        pending += children
        found += [process for child in children if (process := look_at(child)) is not None]
    return found


def _children(pid: int) -> list[int]:
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []
    return [
        int(child)
        for task in tasks
        for child in content(f"/proc/{pid}/task/{task}/children").split()
    ]
