"""Responsible for what an agent's tree uses.

Who has not run since the last look is not read again: its CPU clock tells that for a tenth of what
reading takes.
"""

# ruff: noqa: PTH116, PTH208 - os.stat, os.listdir: pathlib takes four times as long as the kernel
from __future__ import annotations

import os
import time

from vespera_agent_spawner.backends.python.proc import Process, look_at
from vespera_agent_spawner.backends.python.roll import Roll
from vespera_agent_spawner.results import Usage

__all__ = ["TreeMeter"]

# For how long what was read is good at most, milliseconds: memory shrinks without its owner
# (reclaim, swap). What puts neighbours at different places in that time.
_GOOD_FOR = 10_000
_SHIFT = 617

# CPUCLOCK_SCHED of a whole process (linux/posix-timers.h).
_SCHED = 2


class _Kept:
    """One process as it was when it had run last."""

    __slots__ = ("open_files", "process", "when")

    def __init__(self, process: Process, when: tuple[int, int] | None) -> None:
        self.process = process
        self.when = when
        self.open_files: int | None = None


class TreeMeter:
    """What one tree uses, look after look."""

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}

    def usage(
        self,
        leader: int,
        born: int,
        tag: bytes,
        roll: Roll,
        *,
        reaped: bool = False,
        files: bool = True,
    ) -> Usage:
        """Sum over the tree, of whom the roll saw when it looked last.

        Shared pages are counted once per process that maps them. ``reaped`` adds the CPU time of
        the children that were waited for; without ``files`` no open file is counted, which is
        cheaper.
        """
        kept: dict[int, _Kept] = {}

        def read(pid: int) -> Process | None:
            now = self._look_at(pid)
            if now is None:
                return None
            kept[pid] = now
            return now.process

        found = roll.members(leader, born, tag, read=read)
        top = read(leader)
        if top is not None and top.state not in "ZX":
            found.append(top)
        # Another thread may look at the same tree: it has a dict of its own.
        self._kept = kept
        page, ticks = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
        return Usage(
            rss=sum(process.resident_pages for process in found) * page,
            cpu_seconds=sum(
                process.cpu_ticks + (process.reaped_ticks if reaped else 0) for process in found
            )
            / ticks,
            processes=len(found),
            open_files=sum(_open_files(kept[process.pid]) for process in found) if files else 0,
        )

    def _look_at(self, pid: int) -> _Kept | None:
        # Before all else: what changes while the rest is read is seen the next time.
        when = _when(pid)
        kept = self._kept.get(pid)
        if kept is not None and when is not None and kept.when == when:
            return kept
        process = look_at(pid)
        return None if process is None else _Kept(process, when)


def _when(pid: int) -> tuple[int, int] | None:
    """How long a process has run, in nanoseconds, and the period of its own that this is.

    None where nobody tells that precisely: a clock that ticks (sandboxes have such) stands still
    for who runs between two ticks, and one that has not begun would be everybody's.
    """
    try:
        clock = time.clock_gettime_ns((~pid << 3) | _SCHED)
    except (AttributeError, OSError, OverflowError):
        return None
    # Each has periods of its own, so that not everybody is due in the same look.
    period = (time.monotonic_ns() // 1_000_000 + pid * _SHIFT) // _GOOD_FOR
    return (clock, period) if clock % 1000 else None


def _open_files(kept: _Kept) -> int:
    if kept.open_files is None:
        kept.open_files = _count_open_files(kept.process.pid)
    return kept.open_files


def _count_open_files(pid: int) -> int:
    try:
        # Since Linux 6.2 the directory's size is their number; before that it is 0.
        if size := os.stat(f"/proc/{pid}/fd").st_size:
            return size
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0
