"""Responsible for an agent of the Python backend as an event loop sees it.

The conversation runs on the backend's own thread. What happens there is kept here until the
owner's loop, which is woken once, comes and asks.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from vespera_agent_spawner._description import OUTPUT_LIMIT
from vespera_agent_spawner.adapters.claude_frames import is_final
from vespera_agent_spawner.adapters.launch import Launch
from vespera_agent_spawner.backends.python import proc
from vespera_agent_spawner.backends.python.conversation import Conversation
from vespera_agent_spawner.backends.python.event_queue import EventQueue
from vespera_agent_spawner.backends.python.process import ChildProcess
from vespera_agent_spawner.backends.python.program import Program
from vespera_agent_spawner.backends.python.reactor import Reactor
from vespera_agent_spawner.backends.python.stderr_tail import shown
from vespera_agent_spawner.config import AgentConfig, Limits, Timeouts
from vespera_agent_spawner.errors import (
    AgentBusy,
    AgentError,
    AgentFailed,
    AgentTimeout,
    SpawnError,
)
from vespera_agent_spawner.events import Event
from vespera_agent_spawner.results import (
    AgentInfo,
    ExitStatus,
    Outcome,
    State,
    TurnResult,
    Usage,
)

if TYPE_CHECKING:
    from vespera_agent_spawner.backends.python import PythonBackend

__all__ = ["LivePythonSession"]

_TIER = "pgroup"


class LivePythonSession:
    """One agent; see ``LiveSession`` for what each method means."""

    def __init__(
        self,
        backend: PythonBackend,
        reactor: Reactor,
        config: AgentConfig,
        launch: Launch,
        news: Callable[[], None],
        *,
        listening: bool,
    ) -> None:
        self._backend = backend
        self._reactor = reactor
        self._config = config
        self._launch = launch
        self._news = news
        self._loop = asyncio.get_running_loop()
        self._told = False
        self._timeouts = config.timeouts or Timeouts()
        self._queue = EventQueue(config.overflow, (config.limits or Limits()).output)
        self._queue.listen(listening)
        self._process: ChildProcess | None = None
        self._conversation: Conversation | None = None
        # Without a greeting there is no conversation: it runs to its exit.
        self._talks = launch.initialize is not None
        self._failure: AgentError | None = None
        self._in_turn = False
        self._turn_end: TurnResult | AgentError | None = None
        self._asks: list[bytes] = []
        self._answers: list[tuple[str, bytes]] = []
        self._paused = False
        self._began = time.monotonic()
        self._started_at = time.time()
        self._first_output: float | None = None
        self._ending: tuple[str, float] | None = None
        self._ready = False
        self._late: AgentTimeout | None = None
        self._over = False

    # -- the reactor's thread --------------------------------------------------------------

    def begin(self, tag: tuple[str, str]) -> None:
        """Start the process; ``news`` tells how it went."""
        self._reactor.submit(self._live(tag))

    async def _live(self, tag: tuple[str, str]) -> None:
        total = self._timeouts.total
        watch = None
        try:
            loop = asyncio.get_running_loop()
            process = ChildProcess(self._launch, tag, self._config.limits)
            self._process = process
            kind = Conversation if self._talks else Program
            conversation = kind(
                self._launch,
                process,
                tag,
                self._reactor.census,
                startup=self._timeouts.startup,
                write=self._timeouts.write,
                backend=self._backend.name,
                counters=self._backend.counters,
                limits=self._config.limits,
            )
            conversation.listener = self
            conversation.idle_limits = self._timeouts.idle
            self._conversation = conversation
            if self._ending is not None:
                self._carry_out(*self._ending)
            if total is not None:
                watch = loop.call_later(total, self._expire, conversation, total)
            await conversation.initialize()
            self._ready = True
        except AgentFailed as error:
            self._fail(
                self._late
                or SpawnError(
                    str(error),
                    program=self._launch.program,
                    stage="initialize",
                    context=error.context,
                )
            )
            return
        except AgentError as error:
            self._fail(error)
            return
        self.changed()
        if isinstance(conversation, Program):
            await self._turn(conversation, self._config.prompt or "", self._timeouts.turn)
        elif self._config.prompt is not None:
            await self._run(conversation, self._config.prompt)
        await conversation.ended()
        if watch is not None:
            watch.cancel()
        self._over = True
        self.changed()

    def _expire(self, conversation: Conversation, total: float) -> None:
        if not self._ready:
            self._late = AgentTimeout(
                f"agent '{self.agent_id}': not ready within {total:g} s (timeouts.total; pid "
                f"{self.pid}, {shown(self.stderr_tail)}); raise the limit",
                which="total",
                after=total,
                context={"agent_id": self.agent_id, "stderr_tail": self.stderr_tail},
            )
        conversation.expire("total", total)

    def _fail(self, error: AgentError) -> None:
        self._failure = error
        self._launch.discard()
        self.changed()

    async def _run(self, conversation: Conversation, prompt: str) -> None:
        end = await self._turn(conversation, prompt, self._timeouts.turn)
        if not isinstance(end, AgentError) and not is_final(end["outcome"]):
            await conversation.background_quiet()
        await conversation.leave(self._timeouts.after_result)

    async def _turn(
        self, conversation: Conversation, prompt: str, limit: float | None
    ) -> TurnResult | AgentError:
        try:
            end: TurnResult | AgentError = await conversation.turn(prompt, limit)
        except AgentError as error:
            end = error
        self._turn_end = end
        self._in_turn = False
        conversation.turn_told()
        self.changed()
        return end

    def changed(self) -> None:
        """Wake the owner's loop, once until it has come."""
        if self._told:
            return
        self._told = True
        try:
            self._loop.call_soon_threadsafe(self._news)
        except RuntimeError:
            # The owner's loop is closed: nobody is left to own the agent.
            if self._conversation is not None:
                self._conversation.begin_kill("its event loop is closed")

    def event(self, kind: str, raw: bytes, length: int) -> None:
        """One line of output."""
        if self._first_output is None and (
            kind in ("assistant", "stream_event") or not self._talks
        ):
            self._first_output = time.monotonic() - self._began
        if not self._queue.listening:
            return
        if not self._queue.put(kind, raw, length) and self._conversation is not None:
            self._conversation.begin_kill(OUTPUT_LIMIT)
        if self._queue.is_full and not self._paused and self._conversation is not None:
            self._paused = True
            self._conversation.pause_reading(True)
        self.changed()

    def late_result(self, result: TurnResult) -> None:
        """A run's background task answered after the turn: its result is the run's."""
        self._turn_end = result
        self.changed()

    def ask(self, frame: bytes) -> bool:
        """A permission ask; False when nobody here decides."""
        if self._config.on_permission is None:
            return False
        self._asks.append(frame)
        self.changed()
        return True

    # -- the owner's loop ------------------------------------------------------------------

    @property
    def agent_id(self) -> str:
        return self._launch.agent_id

    @property
    def session_id(self) -> str:
        talk = self._conversation
        return self._launch.session_id if talk is None else talk.session_id

    @property
    def pid(self) -> int | None:
        return None if self._conversation is None else self._conversation.pid

    @property
    def state(self) -> State:
        if self._failure is not None:
            return State.SPAWN_FAILED
        if self._conversation is None or not self._ready:
            # An end that comes before it was ready is told as the failure that it is.
            return State.STARTING
        state = self._conversation.state
        if state.is_over and not self._over:
            # The process is gone, but what it said last is still on its way.
            return State.DRAINING
        if state is State.READY and (
            self._in_turn or not self._talks or self._config.prompt is not None
        ):
            return State.IN_TURN
        return state

    @property
    def stderr_tail(self) -> str:
        if self._conversation is not None:
            return self._conversation.stderr.text()
        return "" if self._failure is None else self._failure.stderr_tail

    @property
    def orphans_reaped(self) -> int:
        return 0 if self._conversation is None else self._conversation.orphans_reaped

    @property
    def exit_status(self) -> ExitStatus | None:
        if self._conversation is not None:
            return self._conversation.exit_status
        if self._failure is not None:
            return ExitStatus(None, None, "spawn", f"never started: {self._failure}")
        return None

    @property
    def time_to_first_output(self) -> float | None:
        return self._first_output

    @property
    def last_line(self) -> str:
        talk = self._conversation
        return talk.last_line if isinstance(talk, Program) else ""

    @property
    def transcript_lost(self) -> str | None:
        return self._process.transcript_lost if self._process is not None else None

    def info(self) -> AgentInfo:
        talk = self._conversation
        return AgentInfo(
            agent_id=self.agent_id,
            session_id=self.session_id,
            pid=self.pid,
            state=self.state,
            backend=self._backend.name,
            containment=_TIER,
            started_at=self._started_at,
            turns=0 if talk is None else talk.turns,
            cost_usd=None if talk is None else talk.cost_usd,
            outcome=Outcome(talk.outcome) if talk is not None and talk.outcome else None,
        )

    def usage(self) -> Usage:
        talk = self._conversation
        if talk is None or self.state.is_over:
            return Usage(rss=0, cpu_seconds=0.0, processes=0, open_files=0)
        return proc.tree_usage(talk.pid, talk.sweeper.tag)

    def heard(self) -> None:
        self._told = False

    def listen(self, listening: bool) -> None:
        self._queue.listen(listening)
        self._read_on()

    def take_events(self, limit: int) -> list[Event]:
        events = self._queue.take(limit)
        self._read_on()
        return events

    def _read_on(self) -> None:
        talk = self._conversation
        if self._paused and not self._queue.is_full and talk is not None:
            self._paused = False
            self._reactor.call_soon(lambda: talk.pause_reading(False))

    def backlog(self) -> tuple[int, int, int]:
        return len(self._queue), self._queue.dropped, self._queue.spilled

    def take_asks(self) -> list[bytes]:
        asks, self._asks = self._asks, []
        return asks

    def take_answers(self) -> list[tuple[str, bytes]]:
        answers, self._answers = self._answers, []
        return answers

    def answer(self, ask: str, frame: Mapping[str, Any]) -> None:
        self._reactor.submit(self._talk.answer(ask, frame))

    def request(self, request: Mapping[str, Any]) -> str:
        request_id = f"vespera-{uuid.uuid4()}"
        self._reactor.submit(self._request(request_id, request))
        return request_id

    async def _request(self, request_id: str, request: Mapping[str, Any]) -> None:
        try:
            response = dict(await self._talk.ask(request))
        except AgentError as error:
            response = {"subtype": "error", "error": str(error)}
        frame = {"type": "control_response", "response": response}
        self._answers.append((request_id, json.dumps(frame).encode()))
        self.changed()

    def begin_turn(self, prompt: str, timeout: float | None) -> None:
        talk = self._talk
        if self._in_turn or talk.state is State.IN_TURN:
            raise AgentBusy(
                f"agent '{self.agent_id}' is in a turn: wait for its answer or interrupt it",
                context={"agent_id": self.agent_id},
            )
        if talk.state is not State.READY:
            raise talk.ended_error()
        self._in_turn = True
        self._turn_end = None
        self._reactor.submit(self._turn(talk, prompt, timeout))

    def take_turn(self) -> TurnResult | None:
        end, self._turn_end = self._turn_end, None
        if isinstance(end, AgentError):
            raise end
        return end

    def check_start(self) -> None:
        outcome = "completed" if self._failure is None else "spawn_failed"
        self._backend.counters.add("vespera_spawns_total", outcome=outcome)
        if self._failure is not None:
            raise self._failure

    def interrupt(self) -> None:
        if self._conversation is not None:
            self._reactor.submit(self._conversation.interrupt())

    def abandon(self) -> None:
        talk = self._conversation
        if talk is None:
            return

        async def abandon() -> None:
            talk.abandon_turn()

        # A task, as the turn is one: a callback would overtake a turn that has only been asked for.
        self._reactor.submit(abandon())

    def kill(self) -> None:
        self._end("kill", 0.0)

    def begin_shutdown(self, grace: float) -> None:
        self._end("shutdown", grace)

    def _end(self, how: str, grace: float) -> None:
        if self._conversation is None:
            # The process is being started by a worker that cannot be stopped: end it then.
            self._ending = (how, grace)
        else:
            self._reactor.call_soon(lambda: self._carry_out(how, grace))

    def _carry_out(self, how: str, grace: float) -> None:
        talk = self._talk
        if how == "kill" or grace <= 0:
            talk.begin_kill("asked to")
        else:
            talk.begin_shutdown(grace)

    @property
    def _talk(self) -> Conversation:
        if self._conversation is None:
            raise AgentFailed(f"agent '{self.agent_id}' has not started")
        return self._conversation

    # -- for the backend's close -----------------------------------------------------------

    def end(self, grace: float) -> Any:
        """The work of ``shutdown``, for the reactor's own thread."""
        return self._talk.shutdown(grace)

    def execute(self, prompt: str, timeout: float | None) -> TurnResult:
        raise AgentFailed("an agent of a Supervisor is driven by its event loop")

    def shutdown(self, grace: float) -> ExitStatus:
        raise AgentFailed("an agent of a Supervisor is ended by its event loop")

    def forget_in_fork(self) -> None:
        if self._conversation is not None:
            self._conversation.forget_in_fork()
