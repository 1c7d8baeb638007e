"""Responsible for ending what an agent leaves behind: every process of its tree, by force.

This is the fallback's containment, tier ``pgroup``: it works while the host lives and can run
code. Only the Rust backend's guardian also works when the host is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import time
from collections.abc import Callable

from vespera_agent_spawner.backends.python import proc
from vespera_agent_spawner.backends.python.census import Census
from vespera_agent_spawner.backends.python.roll import Roll, enter_leader, forget_leader
from vespera_agent_spawner.backends.python.usage import TreeMeter
from vespera_agent_spawner.results import Usage

__all__ = ["Sweeper"]

_PAUSE = 0.01


class Sweeper:
    """The tree of one agent. The leader must not be reaped before the last sweep."""

    def __init__(self, leader: int, born: int, tag: tuple[str, str], census: Census) -> None:
        self._leader = leader
        self.born = born
        self._census = census
        self._tag = f"{tag[0]}={tag[1]}".encode()
        self._known: set[tuple[int, int]] = set()
        self._killed: set[tuple[int, int]] = set()
        self._meter = TreeMeter()
        enter_leader(leader)

    @property
    def killed(self) -> int:
        """How many processes were ended so far."""
        return len(self._killed)

    @property
    def tag(self) -> bytes:
        return self._tag

    def forget_leader(self) -> None:
        """It is reaped: its number may be a stranger's, so trust it no more."""
        forget_leader(self._leader)
        self._leader = -1

    def forget_tree(self) -> None:
        """In a forked child: nobody of it is ours to end."""
        self._leader = -1
        self._tag = b""
        self._known.clear()

    def remember(self) -> None:
        """Note who belongs to the tree now, while descent still shows it."""
        found = proc.descendants(self._leader)
        if found is None:
            # One of its own: whoever kills out of a finalizer may have interrupted a look.
            roll = Roll()
            roll.look()
            found = self._members(roll)
        for process in found:
            self._known.add((process.pid, process.start_time))

    def sweep(self, deadline: float, swept: Callable[[list[int]], None]) -> None:
        """Kill until nobody is left, on the running loop; ``swept`` is told the pids that
        outlived ``deadline`` seconds.

        Not a task: whoever cancels all tasks of a loop must not stop this one.
        """
        end = time.monotonic() + deadline
        self._census.ask(lambda: self._taken(end, swept))

    def _taken(self, end: float, swept: Callable[[list[int]], None]) -> None:
        left = self.kill(Roll.of_this_thread())
        if left and time.monotonic() < end:
            again = functools.partial(self._taken, end, swept)
            asyncio.get_running_loop().call_later(_PAUSE, self._census.ask, again)
        else:
            swept(left)

    def kill(self, roll: Roll) -> list[int]:
        """Kill whoever the roll, which has just looked, shows; returns their pids.

        A process may fork between the look and the kill: so do it again until nobody is found.
        """
        found = self._members(roll)
        for process in found:
            if _kill_exactly(process.pid, process.start_time):
                self._killed.add((process.pid, process.start_time))
            self._known.add((process.pid, process.start_time))
        if found:
            roll.doubt()
        else:
            self._reap_adopted()
        return [process.pid for process in found]

    def usage(self, roll: Roll | None = None, *, reaped: bool = False, files: bool = True) -> Usage:
        """What the tree uses now; see ``TreeMeter``. A ``roll`` of the caller's has looked."""
        if roll is None:
            roll = Roll.of_this_thread()
            roll.look()
        return self._meter.usage(
            self._leader, self.born, self._tag, roll, reaped=reaped, files=files
        )

    def _reap_adopted(self) -> None:
        """Orphans of the tree are ours where the host is PID 1 of a container, or a subreaper."""
        for pid, born in self._killed:
            # Not the same process: its parent has reaped it, and the number may be another's.
            if proc.start_time(pid) == born:
                # ECHILD: somebody else's child, as usual.
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def _members(self, roll: Roll) -> list[proc.Process]:
        return roll.members(self._leader, self.born, self._tag, self._known)


def _kill_exactly(pid: int, start_time: int) -> bool:
    """SIGKILL one process and no other that got its number meanwhile.

    The pidfd is opened first and the start time compared after: the handle then surely names
    the process that was read.
    """
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except (AttributeError, OSError):
        handle = None
    try:
        if proc.start_time(pid) != start_time:
            return False
        if handle is not None:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        else:
            os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        if handle is not None:
            with contextlib.suppress(OSError):
                os.close(handle)
    return True
