"""Responsible for the limits of an agent of the Python backend.

What the kernel can keep for one process is set from outside, right after its start: a child that
it starts inherits it. What concerns the whole tree is watched.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from vespera_agent_spawner._units import format_size
from vespera_agent_spawner.backends._ending import exit_status, exit_status_of
from vespera_agent_spawner.backends.python.proc import content
from vespera_agent_spawner.backends.python.sweep import Sweeper
from vespera_agent_spawner.config import Limits
from vespera_agent_spawner.results import ExitStatus

__all__ = ["LimitKeeper", "apply", "oom_kills", "unenforced"]

_PERIOD = 0.2
_MOMENT = 1.0

# From SIGXCPU, which says why, to SIGKILL.
_CPU_SLACK = 2


@functools.cache
def unenforced() -> tuple[str, ...]:
    """The limits that cannot be kept on this system."""
    missing = () if hasattr(resource, "prlimit") else ("open_files", "cpu_seconds", "file_size")
    return missing if Path("/proc/self/stat").exists() else (*missing, "memory", "processes")


def apply(pid: int, limits: Limits) -> None:
    """Set the kernel's limits of a process that has just started; raises ``OSError``."""
    for number, value, slack in (
        (resource.RLIMIT_NOFILE, limits.open_files, 0),
        (resource.RLIMIT_CPU, limits.cpu_seconds, _CPU_SLACK),
        (resource.RLIMIT_FSIZE, limits.file_size, 0),
    ):
        if value is None:
            continue
        whole = math.ceil(value)
        _, hard = resource.prlimit(pid, number)
        most = whole + slack if hard == resource.RLIM_INFINITY else min(whole + slack, hard)
        resource.prlimit(pid, number, (min(whole, most), most))
    if limits.nice is not None:
        os.setpriority(os.PRIO_PROCESS, pid, limits.nice)


class LimitKeeper:
    """The limits of one agent's tree: watched while it lives, told when it ended for one."""

    def __init__(self, limits: Limits | None) -> None:
        self._limits = limits
        self._oom_before = _oom_kills_lately()
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, sweeper: Sweeper, breach: Callable[[str], None]) -> None:
        """Look at the tree now and then, on the running loop; ``breach`` is told once, in words."""
        limits = self._limits
        if limits is None or (limits.memory, limits.processes, limits.cpu_seconds) == (None,) * 3:
            return
        loop = asyncio.get_running_loop()

        def look() -> None:
            words = _breach(limits, sweeper)
            if words is None:
                self._timer = loop.call_later(_PERIOD, look)
            else:
                breach(words)

        self._timer = loop.call_later(_PERIOD, look)

    def unwatch(self) -> None:
        """The agent has ended."""
        if self._timer is not None:
            self._timer.cancel()

    def exit_status(
        self,
        code: int | None,
        number: int | None,
        by: str | None,
        why: str | None,
        survivors: Sequence[str],
    ) -> ExitStatus:
        """How it ended, and whether that was the kernel keeping one of its limits."""
        cause = None if by is not None else _cause(number, self._oom_before)
        if cause is not None:
            return exit_status_of(cause, code, number, self._limits, survivors)
        return exit_status(code, number, by, why, survivors)


def _breach(limits: Limits, sweeper: Sweeper) -> str | None:
    used = sweeper.usage(reaped=True, files=False)
    if limits.memory is not None and used.rss > limits.memory:
        most = format_size(limits.memory)
        return f"limits.memory: the tree used {format_size(used.rss)} of {most}"
    if limits.processes is not None and used.processes > limits.processes:
        return f"limits.processes: the tree had {used.processes} processes of {limits.processes}"
    if limits.cpu_seconds is not None and used.cpu_seconds > limits.cpu_seconds:
        return (
            f"limits.cpu_seconds: the tree used {used.cpu_seconds:.1f} s of {limits.cpu_seconds:g}"
        )
    return None


def _cause(number: int | None, oom_before: int) -> str | None:
    """What the kernel ended a process for, as far as its signal and its counts tell."""
    if number == signal.SIGXCPU:
        return "cpu_seconds"
    if number == signal.SIGXFSZ:
        return "file_size"
    if number == signal.SIGKILL and oom_kills() > oom_before:
        return "oom"
    return None


def oom_kills() -> int:
    """How many processes the OOM killer has ended so far; 0 where the system does not tell.

    Evidence, not proof: another victim in the same moment counts too.
    """
    global _counted
    with contextlib.suppress(OSError, ValueError):
        text = content("/proc/vmstat")
        found = text.find(b"\noom_kill ")
        if found != -1:
            _counted = (time.monotonic(), int(text[found:].split(None, 2)[1]))
            return _counted[1]
    return 0


def _oom_kills_lately() -> int:
    """The same, as of a moment ago: the kernel takes long to write that file."""
    when, count = _counted
    return count if time.monotonic() - when < _MOMENT else oom_kills()


_counted = (-math.inf, 0)
