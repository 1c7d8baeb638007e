"""Responsible for the life of one process on the loop: its states, the ladder, the end.

States move only through ``_move`` and its table. What is said in between is ``Conversation``'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from vespera_agent_spawner._counters import Counters
from vespera_agent_spawner._logging import logger_for
from vespera_agent_spawner._waiting import wait_for_end
from vespera_agent_spawner.adapters.launch import Launch
from vespera_agent_spawner.backends.python.census import Census
from vespera_agent_spawner.backends.python.framing import LineFramer, Oversize
from vespera_agent_spawner.backends.python.limits import LimitKeeper
from vespera_agent_spawner.backends.python.listener import Listener
from vespera_agent_spawner.backends.python.moves import MOVES
from vespera_agent_spawner.backends.python.owner_loop import begin
from vespera_agent_spawner.backends.python.process import ChildProcess
from vespera_agent_spawner.backends.python.stderr_tail import StderrTail, shown
from vespera_agent_spawner.backends.python.sweep import Sweeper
from vespera_agent_spawner.config import Limits
from vespera_agent_spawner.errors import AgentFailed
from vespera_agent_spawner.results import ExitStatus, State

__all__ = ["Life"]

_SWEEP_DEADLINE = 2.0
_UNKILLABLE_GRACE = 3.0


class Life(ABC):
    """One process from its start to the last of its tree."""

    def __init__(
        self,
        launch: Launch,
        process: ChildProcess,
        tag: tuple[str, str],
        census: Census,
        *,
        backend: str,
        counters: Counters,
        limits: Limits | None,
    ) -> None:
        self._launch = launch
        self._process = process
        self._backend = backend
        self._counters = counters
        self.rename(launch.agent_id)
        self._framer = LineFramer()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ladder: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        # From the first moment: it may be ended before it was greeted.
        self._ended: asyncio.Future[ExitStatus] = self._loop.create_future()
        self._mute: asyncio.TimerHandle | None = None
        self._died: tuple[int | None, int | None] = (None, None)
        self._limits = LimitKeeper(limits)
        self._ended_by: str | None = None
        self._why: str | None = None
        self._greeted = False
        self._born = time.monotonic()
        self.on_end: Callable[[], None] = _nothing
        self.listener: Listener | None = None
        # It has said everything: only its exit is left.
        self.said_all = False
        #: Its loop runs no more: what it says is written down but moves nothing.
        self.buried = False
        self.sweeper = Sweeper(process.pid, process.born, tag, census)
        self.stderr = StderrTail()
        self.state = State.STARTING
        self.session_id = launch.session_id
        self.started_at = time.time()
        self.exit_status: ExitStatus | None = None
        self.orphans_reaped = 0

    @abstractmethod
    def _on_stdout(self, data: bytes) -> None:
        """Output came."""

    @abstractmethod
    def _on_lines(self, lines: Sequence[bytes | Oversize]) -> None:
        """Whole lines came."""

    @abstractmethod
    def _on_stdout_end(self) -> None:
        """The output ended."""

    @abstractmethod
    def _fail_waiters(self) -> None:
        """Nothing is left that could answer."""

    @abstractmethod
    async def interrupt_quietly(self) -> None:
        """What it does is told to stop, so that it ends cleanly; no waiting."""

    def _attach(self) -> None:
        self._process.attach(
            self._loop, self._on_stdout, self.stderr.feed, self._on_stdout_end, self._on_exit
        )
        self._limits.watch(self.sweeper, self.begin_kill)
        self._log.info("started pid %d", self._process.pid)

    def rename(self, agent_id: str) -> None:
        """Whose it is, in the log."""
        self._log = logger_for("agent_spawner.agent", agent_id)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def leave(self, after_result: float) -> None:
        """A run has said everything: its input ends and it leaves, or is made to."""
        if self._ended.done():
            return
        # What it had to say is said: only its exit is left, which has a limit of its own.
        self.said_all = True
        self._move(State.DRAINING)
        self._process.end_input()
        if not await self._ends_within(after_result):
            self.terminate()
            if not await self._ends_within(1.0):
                self.force()

    async def ended(self) -> ExitStatus:
        """Wait until nothing of the agent is left."""
        return await wait_for_end(self._ended)

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

    def begin_shutdown(self, grace: float) -> None:
        """``shutdown`` without waiting."""
        if self._ladder is None and not self._ended.done():
            self._move(State.DRAINING)
            self._ladder = self._background(self._descend(grace))

    def ended_error(self) -> AgentFailed:
        """Why the agent takes no more turns."""
        reason = self.exit_status.reason if self.exit_status else "it is ending"
        return AgentFailed(
            f"agent '{self._launch.agent_id}' ended: {reason}; {shown(self.stderr.text())}",
            context=self._context(),
        )

    def forget_in_fork(self) -> None:
        self._process.forget_in_fork()
        self.sweeper.forget_tree()

    async def shutdown(self, grace: float) -> ExitStatus:
        """End of input, SIGTERM after half of the grace, force after all of it."""
        self.begin_shutdown(grace)
        limit = grace + _SWEEP_DEADLINE + _UNKILLABLE_GRACE
        await asyncio.wait({self._ended}, timeout=limit)
        if not self._ended.done():
            raise AgentFailed(
                f"agent '{self._launch.agent_id}': pid {self._process.pid} did not die within "
                f"{limit:g} s of SIGKILL (uninterruptible sleep?); look at /proc/<pid>/stack",
                context=self._context(),
            )
        return self._ended.result()

    def begin_kill(self, reason: str) -> None:
        """Force, at once; idempotent."""
        if self._ended.done():
            return
        if self._ended_by != "kill":
            self._log.info("killed: %s", reason)
        self._why = self._why or reason
        self._move(State.DRAINING)
        self.force()

    async def _end_for(self, reason: str) -> None:
        self.begin_kill(reason)
        await asyncio.wait({self._ended}, timeout=_SWEEP_DEADLINE + 1)

    async def _descend(self, grace: float) -> None:
        self.sweeper.remember()
        await self.interrupt_quietly()
        self.close_input()
        if await self._ends_within(grace / 2):
            return
        self.sweeper.remember()
        self.terminate()
        if not await self._ends_within(grace / 2):
            self.force()

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
        if self._ended_by != "kill":
            self._step("kill", "kill")
        self._process.signal_group(signal.SIGKILL)

    def _step(self, rung: str, by: str) -> None:
        self._ended_by = by
        if by != "kill":
            self._log.debug("ending: %s", by)
        self._counters.add("vespera_kills_total", rung=rung)

    async def _ends_within(self, seconds: float) -> bool:
        await asyncio.wait({self._ended}, timeout=seconds)
        return self._ended.done()

    def _on_exit(self) -> None:
        """Exited, plus a bounded drain; then the sweep, then the zombie, then the waiters."""
        self.note_exit()
        self.sweeper.sweep(_SWEEP_DEADLINE, self.conclude)

    def has_exited(self) -> bool:
        """Whether the leader is dead, reaped or not."""
        return self._process.has_exited()

    def note_exit(self) -> None:
        """The leader is dead: how it died, and what it said last."""
        self._limits.unwatch()
        if self._mute is not None:
            self._mute.cancel()
        self._died = self._process.peek_exit()
        if self._died == (None, None):
            self.sweeper.forget_leader()
        self._process.drain()
        self._on_lines(self._framer.finish())

    def conclude(self, survivors: Sequence[int]) -> None:
        """Nobody else is left of the tree, but for those that would not die."""
        self.orphans_reaped = self.sweeper.killed
        self._counters.add("vespera_orphans_reaped_total", self.orphans_reaped)
        if self.orphans_reaped:
            self._log.info("%d processes that it left behind were ended", self.orphans_reaped)
        if survivors:
            self._log.error("still alive after force: %s", ", ".join(map(str, survivors)))
        self.sweeper.forget_leader()
        self._process.reap()
        self._launch.discard()
        self.exit_status = self._limits.exit_status(
            *self._died, self._ended_by, self._why, [str(pid) for pid in survivors]
        )
        self._move(State.ENDED if self._greeted else State.SPAWN_FAILED)
        # A closed loop wakes nobody, and says so.
        with contextlib.suppress(RuntimeError):
            self._fail_waiters()
            self._ended.set_result(self.exit_status)
        self.on_end()
        # They hold us: without this only the collector would let go of all.
        self.listener = None
        self.on_end = _nothing

    def _move(self, to: State) -> None:
        if to is self.state or to not in MOVES[self.state]:
            return
        self.state = to
        if self.listener is not None:
            self.listener.changed()

    def _context(self) -> dict[str, Any]:
        status = self.exit_status
        return {
            "agent_id": self._launch.agent_id,
            "session_id": self.session_id,
            "pid": self._process.pid,
            "state": self.state.value,
            "backend": self._backend,
            "exit_code": status.code if status else None,
            "signal": status.signal if status else None,
            "stderr_tail": self.stderr.text(),
        }

    def _background(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        return begin(self._loop, self._tasks, work)


def _nothing() -> None:
    """Nobody wants to hear of the end."""
