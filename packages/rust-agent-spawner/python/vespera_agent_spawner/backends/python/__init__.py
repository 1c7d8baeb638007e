"""Responsible for the Python backend: where its agents live, and its face to other threads.

It is what a careful engineer writes with asyncio: it drains both pipes, bounds every wait and
sweeps the tree. Agents of a ``Supervisor`` live on their owner's loop; those of the module
functions, which may be called from any thread, on the loop of one thread of our own. It cannot
outlive its host, so its containment tier is ``pgroup``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import os
import threading
import weakref
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from vespera_agent_spawner._counters import Counters
from vespera_agent_spawner._patience import Limit
from vespera_agent_spawner._snapshot import snapshot
from vespera_agent_spawner.adapters.launch import Launch, prepare
from vespera_agent_spawner.backends import in_subinterpreter
from vespera_agent_spawner.backends._protocol import Ownership, Session, Standby
from vespera_agent_spawner.backends.python import proc
from vespera_agent_spawner.backends.python.burial import bury
from vespera_agent_spawner.backends.python.conversation import Conversation
from vespera_agent_spawner.backends.python.limits import unenforced
from vespera_agent_spawner.backends.python.live import LivePythonSession
from vespera_agent_spawner.backends.python.owner_loop import OwnerLoop
from vespera_agent_spawner.backends.python.process import ChildProcess
from vespera_agent_spawner.backends.python.reactor import Reactor
from vespera_agent_spawner.backends.python.roll import Roll, forget_leaders
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
    from vespera_agent_spawner.adapters.lookups import Lookups
    from vespera_agent_spawner.config import AgentConfig

__all__ = ["PythonBackend", "PythonSession"]

_T = TypeVar("_T")
_TIER = "pgroup"
# Over the grace: for the sweep, and for a process that is slow to die.
_CLOSE_DEADLINE = 6.0


class PythonBackend:
    """Starts agents as children of this process."""

    name = "python"

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reactor: Reactor | None = None
        #: The interpreter is about to end.
        self._closed = False
        self._slots = itertools.count(1)
        self._counters = Counters()
        self._sessions: set[PythonSession] = set()
        self._live: weakref.WeakValueDictionary[str, LivePythonSession] = (
            weakref.WeakValueDictionary()
        )
        self._homes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, OwnerLoop] = (
            weakref.WeakKeyDictionary()
        )
        # What a forked child must not collect: see forget_in_fork.
        self._forgotten: list[object] = []

    def containment(self) -> str:
        return _TIER

    def tier(self) -> str:
        return _TIER

    def containment_reason(self) -> str:
        return (
            "the Python backend starts agents as children of the host: it ends their trees while "
            "the host lives, but cannot when the host is killed"
        )

    def metrics(self) -> dict[str, float]:
        # A list of references: another thread may start an agent meanwhile.
        live = [one for ref in self._live.valuerefs() if (one := ref()) is not None]
        values = self._counters.snapshot()
        values["vespera_queue_depth"] = float(sum(session.backlog()[0] for session in live))
        used = self.usage_of([*live, *self._sessions])
        values["vespera_tree_rss_bytes"] = float(sum(one.rss for one in used))
        return values

    def usage_of(self, sessions: Sequence[Session]) -> list[Usage]:
        roll = Roll.of_this_thread()
        roll.look()
        return [
            session.usage_in(roll) if isinstance(session, _OURS) else session.usage()
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
        reactor = self._running_reactor(launch)
        tag = (proc.host_tag_name(), str(next(self._slots)))
        timeouts = config.timeouts or Timeouts()

        async def start() -> PythonSession:
            self._require_open(launch)
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
                watch = Limit(timeouts.total, conversation.expire, "total", timeouts.total)

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
        lookups: Lookups | None = None,
        counting: bool = False,
        spare: bool = False,
        standby: Standby | None = None,
        stands_by: bool = False,
    ) -> LivePythonSession:
        assert not stands_by, "this backend needs the loop for each start"
        del standby
        _require_posix(config)
        # Nothing here outlives the host to keep a grace: see containment_reason().
        launch = prepare(config, unenforced(), ownership, lookups)
        # Before the question: who closes after it finds this loop, and ends what lives there.
        home = self._home()
        self._require_open(launch)
        session = LivePythonSession(self, home, config, launch, news, listening=listening)
        session.counting, session.spare = counting, spare
        slot = str(next(self._slots))
        self._live[slot] = session
        session.begin((proc.host_tag_name(), slot))
        return session

    def standby(self, most_starting: int) -> None:
        del most_starting

    def _home(self) -> OwnerLoop:
        loop = asyncio.get_running_loop()
        home = self._homes.get(loop)
        if home is None:
            home = self._homes[loop] = OwnerLoop(loop)
        return home

    def _require_open(self, launch: Launch) -> None:
        """Asked on the thread that ends the others: what it starts later, nobody would end."""
        if self._closed:
            launch.discard()
            raise SpawnError(
                f"agent '{launch.agent_id}': the interpreter is exiting, and nothing is started",
                program=launch.program,
                stage="exit",
            )

    def _running_reactor(self, launch: Launch) -> Reactor:
        with self._lock:
            self._require_open(launch)
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
            if self._sessions:
                return
            reactor, self._reactor = self._reactor, None
        if reactor is not None:
            reactor.stop()

    def close(self, grace: float) -> None:
        """End every agent within ``grace`` seconds, by force after it, and stop the thread."""
        with self._lock:
            self._closed = True
            reactor, self._reactor = self._reactor, None
        try:
            self._end_all(reactor, grace)
        except KeyboardInterrupt:
            # Ctrl-C for the second time: now, but not without them.
            self._end_all(reactor, 0.0)
        if reactor is not None:
            reactor.stop()

    def _end_all(self, reactor: Reactor | None, grace: float) -> None:
        elsewhere: list[concurrent.futures.Future[None]] = []
        stopped: list[Conversation] = []
        for loop, home in snapshot(self._homes.items):
            if loop.is_running() and not _is_mine(loop):
                ending = _end(home.living.copy, grace)
                try:
                    elsewhere.append(asyncio.run_coroutine_threadsafe(ending, loop))
                except RuntimeError:  # closed meanwhile, which ended them
                    ending.close()
            else:
                stopped += home.living
        if reactor is not None:
            elsewhere.append(reactor.submit(_end(self._conversations, grace)))
        bury(stopped, grace)
        concurrent.futures.wait(elsewhere, grace + _CLOSE_DEADLINE)

    def _conversations(self) -> list[Conversation]:
        return [session.conversation for session in self._sessions]

    def forget_in_fork(self) -> None:
        """In a forked child: the agents, the thread and the loop belong to the parent."""
        for session in self._sessions:
            session.forget_in_fork()
        for home in self._homes.values():
            for talk in home.living:
                talk.forget_in_fork()
            self._forgotten.append(tuple(home.living))
            home.forget_in_fork()
        forget_leaders()
        self._forgotten.append((self._reactor, self._sessions, snapshot(self._homes.items)))
        self._homes = weakref.WeakKeyDictionary()
        self._live = weakref.WeakValueDictionary()
        self._lock = threading.Lock()
        self._counters = Counters()
        self._reactor = None
        self._sessions = set()


async def _end(talks: Callable[[], Collection[Conversation]], grace: float) -> None:
    # Asked for on their own thread: one that is starting now is among them then.
    await asyncio.gather(*(talk.shutdown(grace) for talk in talks()), return_exceptions=True)


def _is_mine(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this thread runs it now, so that nobody may wait for it here."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


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
            total_cost_usd=talk.total_cost_usd,
        )

    def spent(self) -> tuple[float, int, int]:
        return self._conversation.spent

    def usage(self) -> Usage:
        return self.usage_in(None)

    def usage_in(self, roll: Roll | None) -> Usage:
        """``usage()``, read from a roll that others share and that has looked."""
        if self.state.is_over:
            return Usage(rss=0, cpu_seconds=0.0, processes=0, open_files=0)
        return self._conversation.sweeper.usage(roll)

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

    @property
    def conversation(self) -> Conversation:
        """For the loop's own thread."""
        return self._conversation

    def kill(self) -> None:
        self._reactor.call_soon(lambda: self._conversation.begin_kill("asked to"))

    def forget_in_fork(self) -> None:
        self._conversation.forget_in_fork()

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        # Who stops waiting does not stop an end that has begun.
        return self._reactor.wait(work, cancel=False)


_OURS = (PythonSession, LivePythonSession)
