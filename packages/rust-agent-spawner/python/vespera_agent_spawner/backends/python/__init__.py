"""Responsible for the Python backend: its face to other threads, over one reactor per process.

It is what a careful engineer writes with asyncio: it drains both pipes, bounds every wait and
sweeps the tree. It cannot outlive its host, so its containment tier is ``pgroup``.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from vespera_agent_spawner._counters import Counters
from vespera_agent_spawner.adapters.launch import Launch, prepare
from vespera_agent_spawner.backends import in_subinterpreter
from vespera_agent_spawner.backends._protocol import Ownership, Session
from vespera_agent_spawner.backends.python import proc
from vespera_agent_spawner.backends.python.conversation import Conversation
from vespera_agent_spawner.backends.python.limits import unenforced
from vespera_agent_spawner.backends.python.live import LivePythonSession
from vespera_agent_spawner.backends.python.process import ChildProcess
from vespera_agent_spawner.backends.python.reactor import Reactor
from vespera_agent_spawner.config import Timeouts
from vespera_agent_spawner.errors import AgentFailed, SpawnError
from vespera_agent_spawner.results import (
    AgentInfo,
    ExitStatus,
    Outcome,
    State,
    TurnResult,
    Usage,
)

if TYPE_CHECKING:
    from vespera_agent_spawner.config import AgentConfig

__all__ = ["PythonBackend", "PythonSession"]

_T = TypeVar("_T")
_TIER = "pgroup"


class PythonBackend:
    """Starts agents as children of this process."""

    name = "python"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reactor: Reactor | None = None
        self._slots = itertools.count(1)
        self._counters = Counters()
        self._sessions: set[PythonSession] = set()
        self._live: weakref.WeakSet[LivePythonSession] = weakref.WeakSet()
        # What a forked child must not collect: see forget_in_fork.
        self._forgotten: list[object] = []

    def containment(self) -> str:
        return _TIER

    def containment_reason(self) -> str:
        return (
            "the Python backend starts agents as children of the host: it ends their trees while "
            "the host lives, but cannot when the host is killed"
        )

    def metrics(self) -> dict[str, float]:
        live = list(self._live)
        values = self._counters.snapshot()
        values["vespera_queue_depth"] = float(sum(session.backlog()[0] for session in live))
        used = self.usage_of([*live, *self._sessions])
        values["vespera_tree_rss_bytes"] = float(sum(one.rss for one in used))
        return values

    def usage_of(self, sessions: Sequence[Session]) -> list[Usage]:
        table = proc.Table()
        return [
            session.usage_in(table) if isinstance(session, _OURS) else session.usage()
            for session in sessions
        ]

    def spawn(self, config: AgentConfig) -> PythonSession:
        _require_posix(config)
        launch = prepare(config, unenforced())
        try:
            return self._start(config, launch)
        except BaseException:
            self._counters.add("vespera_spawns_total", outcome="spawn_failed")
            launch.discard()
            self.rest()
            raise

    def _start(self, config: AgentConfig, launch: Launch) -> PythonSession:
        reactor = self._running_reactor()
        tag = (proc.host_tag_name(), str(next(self._slots)))
        timeouts = config.timeouts or Timeouts()

        async def start() -> PythonSession:
            # Not in a worker: CPython holds its lock until the child has called exec (vfork), so
            # a worker would stop this thread as well, and hand over twice.
            process = ChildProcess(launch, tag, config.limits)
            conversation = Conversation(
                launch,
                process,
                tag,
                reactor.census,
                startup=timeouts.startup,
                write=timeouts.write,
                backend=self.name,
                counters=self._counters,
                limits=config.limits,
            )
            conversation.idle_limits = timeouts.idle
            session = PythonSession(self, reactor, launch, process, conversation)
            self._sessions.add(session)
            watch = None
            if timeouts.total is not None:
                loop = asyncio.get_running_loop()
                watch = loop.call_later(
                    timeouts.total, conversation.expire, "total", timeouts.total
                )

            def over() -> None:
                self._sessions.discard(session)
                if watch is not None:
                    watch.cancel()

            conversation.on_end = over
            await conversation.initialize()
            return session

        try:
            session = reactor.wait(start())
        except AgentFailed as error:
            raise SpawnError(
                str(error), program=launch.program, stage="initialize", context=error.context
            ) from error
        self._counters.add("vespera_spawns_total", outcome="completed")
        return session

    @property
    def counters(self) -> Counters:
        return self._counters

    def start(
        self,
        config: AgentConfig,
        news: Callable[[], bool],
        *,
        listening: bool,
        ownership: Ownership,
    ) -> LivePythonSession:
        _require_posix(config)
        # Nothing here outlives the host to keep a grace: see containment_reason().
        launch = prepare(config, unenforced(), ownership)
        reactor = self._running_reactor()
        session = LivePythonSession(self, reactor, config, launch, news, listening=listening)
        self._live.add(session)
        session.begin((proc.host_tag_name(), str(next(self._slots))))
        return session

    def _running_reactor(self) -> Reactor:
        with self._lock:
            if self._reactor is None:
                try:
                    self._reactor = Reactor()
                except RuntimeError as error:
                    raise SpawnError(
                        f"no thread can be started here ({error}): an isolated subinterpreter may "
                        "start neither threads nor processes; create it without isolation, or "
                        "spawn from the main interpreter",
                        stage="thread",
                    ) from error
            return self._reactor

    def rest(self) -> None:
        """A subinterpreter cannot be destroyed while a thread of its own is still there."""
        if not in_subinterpreter():
            return
        with self._lock:
            if self._sessions or self._live:
                return
            reactor, self._reactor = self._reactor, None
        if reactor is not None:
            reactor.stop()

    def close(self, grace: float) -> None:
        """End every agent within ``grace`` seconds, by force after it, and stop the thread."""
        with self._lock:
            reactor, self._reactor = self._reactor, None
        if reactor is None:
            return

        async def end_all(grace: float) -> None:
            living = [live for live in self._live if live.pid is not None]
            work = [session.end(grace) for session in self._sessions]
            work += [session.end(grace) for session in living]
            await asyncio.gather(*work, return_exceptions=True)

        try:
            reactor.submit(end_all(grace)).result()
        except KeyboardInterrupt:
            # Ctrl-C for the second time: now, but not without them.
            reactor.submit(end_all(0.0)).result()
        reactor.stop()

    def forget_in_fork(self) -> None:
        """In a forked child: the agents, the thread and the loop belong to the parent."""
        for session in self._sessions:
            session.forget_in_fork()
        for live in self._live:
            live.forget_in_fork()
        self._forgotten.append((self._reactor, self._sessions, tuple(self._live)))
        self._live = weakref.WeakSet()
        self._lock = threading.Lock()
        self._counters = Counters()
        self._reactor = None
        self._sessions = set()


def _require_posix(config: AgentConfig) -> None:
    if os.name != "posix":
        raise SpawnError(
            "the Python backend needs a POSIX system; it does not run on this one yet",
            program=str(config.program or ""),
            stage="platform",
        )


class PythonSession:
    """One agent, as other threads see it."""

    def __init__(
        self,
        backend: PythonBackend,
        reactor: Reactor,
        launch: Launch,
        process: ChildProcess,
        conversation: Conversation,
    ) -> None:
        self._backend = backend
        self._reactor = reactor
        self._launch = launch
        self._process = process
        self._conversation = conversation

    @property
    def agent_id(self) -> str:
        return self._launch.agent_id

    @property
    def session_id(self) -> str:
        return self._conversation.session_id

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def state(self) -> State:
        return self._conversation.state

    @property
    def stderr_tail(self) -> str:
        return self._conversation.stderr.text()

    @property
    def orphans_reaped(self) -> int:
        return self._conversation.orphans_reaped

    @property
    def exit_status(self) -> ExitStatus | None:
        return self._conversation.exit_status

    def info(self) -> AgentInfo:
        talk = self._conversation
        return AgentInfo(
            agent_id=self.agent_id,
            session_id=talk.session_id,
            pid=self._process.pid,
            state=talk.state,
            backend=PythonBackend.name,
            containment=_TIER,
            started_at=talk.started_at,
            turns=talk.turns,
            cost_usd=talk.cost_usd,
            outcome=Outcome(talk.outcome) if talk.outcome else None,
        )

    def usage(self) -> Usage:
        return self.usage_in(None)

    def usage_in(self, table: proc.Table | None) -> Usage:
        """``usage()``, read from a table that others share."""
        if self.state.is_over:
            return Usage(rss=0, cpu_seconds=0.0, processes=0, open_files=0)
        tag = self._conversation.sweeper.tag
        return proc.tree_usage(self._process.pid, tag, table=table)

    def execute(self, prompt: str, timeout: float | None) -> TurnResult:
        # Cancelling interrupts the turn; the caller does not wait for its answer.
        return self._reactor.wait(self._conversation.turn(prompt, timeout))

    def interrupt(self) -> None:
        self._wait(self._conversation.interrupt())

    def shutdown(self, grace: float) -> ExitStatus:
        if (status := self.exit_status) is not None:
            return status
        status = self._wait(self._conversation.shutdown(grace))
        self._backend.rest()
        return status

    def end(self, grace: float) -> Coroutine[Any, Any, ExitStatus]:
        """The work of ``shutdown``, for the loop's own thread."""
        return self._conversation.shutdown(grace)

    def kill(self) -> None:
        self._reactor.call_soon(lambda: self._conversation.begin_kill("asked to"))

    def forget_in_fork(self) -> None:
        self._process.forget_in_fork()

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        # Who stops waiting does not stop an end that has begun.
        return self._reactor.wait(work, cancel=False)


_OURS = (PythonSession, LivePythonSession)
