"""Responsible for the steps of the kill ladder, and for who waits for the end.

Which step is taken when is decided by the conversation, or by whoever buries it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vespera_agent_spawner._counters import Counters
    from vespera_agent_spawner.backends.python.process import ChildProcess
    from vespera_agent_spawner.backends.python.sweep import Sweeper
    from vespera_agent_spawner.results import ExitStatus

__all__ = ["Steps"]


class Steps:
    """What a conversation can do to its process."""

    sweeper: Sweeper
    _process: ChildProcess
    _counters: Counters
    _ended: asyncio.Future[ExitStatus]
    _ended_by: str | None
    _tasks: set[asyncio.Task[Any]]

    @property
    def pid(self) -> int:
        return self._process.pid

    def pause_reading(self, pause: bool) -> None:
        """Let the agent wait in its pipe, or read on."""
        self._process.pause_reading(pause)

    def close_input(self) -> None:
        """The first step of the ladder."""
        self._step("eof", "shutdown")
        self._process.end_input()

    def terminate(self) -> None:
        """The second one."""
        self._step("term", "terminate")
        # CONT after TERM: a stopped process would keep the signal pending.
        self._process.signal_group(signal.SIGTERM)
        self._process.signal_group(signal.SIGCONT)

    def force(self) -> None:
        """The last one."""
        self.sweeper.remember()
        self._step("kill", "kill")
        self._process.signal_group(signal.SIGKILL)

    def has_exited(self) -> bool:
        """Whether the leader is dead, reaped or not."""
        return self._process.has_exited()

    async def ended(self) -> ExitStatus:
        """Wait until nothing of the agent is left."""
        return await asyncio.shield(self._ended)

    @property
    def is_ended(self) -> bool:
        """Whether nothing of the agent is left."""
        return self._ended.done()

    def when_ended(self, then: Callable[[], object]) -> None:
        """Call ``then`` on the loop when nothing of the agent is left."""
        self._ended.add_done_callback(lambda _: then())

    async def tasks_done(self) -> None:
        """Wait for what the end has woken."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _step(self, rung: str, by: str) -> None:
        self._ended_by = by
        self._counters.add("vespera_kills_total", rung=rung)

    async def _ends_within(self, seconds: float) -> bool:
        await asyncio.wait({self._ended}, timeout=seconds)
        return self._ended.done()

    def forget_in_fork(self) -> None:
        self._process.forget_in_fork()
        self.sweeper.forget_tree()
