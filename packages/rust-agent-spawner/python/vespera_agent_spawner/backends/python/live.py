"""Responsible for an agent of the Python backend as an event loop sees it.

The conversation runs on the owner's loop too, as a careful engineer would write it. What happens is
kept here until the owner, who is woken once, comes and asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from vespera_agent_spawner._ids import random_uuid
from vespera_agent_spawner._patience import Limit
from vespera_agent_spawner.adapters import adapter_named
from vespera_agent_spawner.adapters.claude_frames import is_final
from vespera_agent_spawner.adapters.launch import Launch
from vespera_agent_spawner.backends._protocol import NOTICE
from vespera_agent_spawner.backends.python.burial import bury
from vespera_agent_spawner.backends.python.conversation import Conversation
from vespera_agent_spawner.backends.python.event_queue import EventQueue
from vespera_agent_spawner.backends.python.looks import LiveLooks
from vespera_agent_spawner.backends.python.owner_loop import OwnerLoop, begin
from vespera_agent_spawner.backends.python.process import ChildProcess
from vespera_agent_spawner.backends.python.program import Program
from vespera_agent_spawner.backends.python.relayed import Relayed
from vespera_agent_spawner.config import AgentConfig, Limits, Timeouts
from vespera_agent_spawner.errors import AgentBusy, AgentError, AgentFailed, SpawnError
from vespera_agent_spawner.events import Event
from vespera_agent_spawner.results import (
    ExitStatus,
    State,
    TurnResult,
)

if TYPE_CHECKING:
    from vespera_agent_spawner.backends.python import PythonBackend

__all__ = ["LivePythonSession"]


def _nobody() -> bool:
    return True


class LivePythonSession(LiveLooks):
    """One agent; see ``LiveSession`` for what each method means."""

    def __init__(
        self,
        backend: PythonBackend,
        home: OwnerLoop,
        config: AgentConfig,
        launch: Launch,
        news: Callable[[], bool],
        *,
        listening: bool,
    ) -> None:
        self._backend = backend
        self._home = home
        self._config = config
        self._launch = launch
        self._news = news
        self._loop = asyncio.get_running_loop()
        # Whoever starts an agent asks at once.
        self._told = self._more = True
        self._timeouts = config.timeouts or Timeouts()
        self._queue = EventQueue(
            config.overflow, (config.limits or Limits()).output, backend.counters
        )
        self._queue.listen(listening)
        self._process: ChildProcess | None = None
        self._conversation: Conversation | None = None
        self._relayed = adapter_named(config.adapter).relayed
        # Without a greeting there is no conversation: it runs to its exit.
        self._talks = launch.initialize is not None or self._relayed
        self._failure: AgentError | None = None
        self._in_turn = False
        # Ends that nobody has taken.
        self._turn_ends: deque[TurnResult | AgentError] = deque()
        #: Which turn has no end yet.
        self._open_turn: object | None = None
        #: Whether the owner is told of each message of the model.
        self.counting = False
        #: Whether it waits for its owner.
        self.spare = False
        self._in_claimed_run = False
        self._asks: list[bytes] = []
        self._answers: list[tuple[str, bytes]] = []
        self._paused = False
        self._began = time.monotonic()
        self._started_at = time.time()
        self._first_output: float | None = None
        self._watch: Limit | None = None
        self._ready = False
        self._over = False
        self._tasks: set[asyncio.Task[Any]] = set()

    def begin(self, tag: tuple[str, str]) -> None:
        """Start the process; ``news`` tells how it went."""
        try:
            process = self._process = ChildProcess(
                self._launch,
                tag,
                self._config.limits,
                fed=self._talks or bool(self._config.prompt),
            )
        except AgentError as error:
            self._fail(error)
            return
        kind = Relayed if self._relayed else Conversation if self._talks else Program
        talk = self._conversation = kind(
            self._launch,
            process,
            tag,
            self._home.census,
            startup=self._timeouts.startup,
            write=self._timeouts.write,
            backend=self._backend.name,
            counters=self._backend.counters,
            limits=self._config.limits,
        )
        talk.listener = self
        talk.is_run = self._is_run
        talk.idle_limits = self._timeouts.idle
        talk.on_end = self._on_end
        self._home.living.add(talk)
        self._watch_total(talk)
        if isinstance(talk, Program):
            talk.run(self._config.prompt or "", self._timeouts.turn)
            talk.when_ended(lambda: self._program_over(talk))
            self._ready = True
        elif isinstance(talk, Relayed):
            talk.open()
            talk.when_ended(lambda: self._program_over(talk))
            self._ready = True
        else:
            self._begin(self._live(talk))

    def _watch_total(self, talk: Conversation) -> None:
        total = self._timeouts.total
        if total is not None and not self.spare:
            self._watch = Limit(total, talk.expire, "total", total)

    def claim(self, config: AgentConfig, news: Callable[[], bool], *, listening: bool) -> None:
        """A spare session gets its owner; with a prompt it is a run from now on."""
        talk = self._talk
        self._config, self._news, self.spare = config, news, False
        self._launch.agent_id = config.agent_id or ""
        talk.rename(self._launch.agent_id)
        self._began, self._started_at = time.monotonic(), time.time()
        self._queue.listen(listening)
        self._watch_total(talk)
        talk.is_run = self._is_run
        if self._ready and self._is_run and not talk.state.is_over:
            self._begin(self._run_claimed(talk, config.prompt or ""))
        # Its owner asks at once, as one that starts an agent does.
        self._told = self._more = True

    async def _run_claimed(self, talk: Conversation, prompt: str) -> None:
        self._in_claimed_run = True
        try:
            await self._run(talk, prompt)
        finally:
            self._in_claimed_run = False
            talk.when_ended(self._close)

    def _program_over(self, talk: Conversation) -> None:
        late = talk.timed_out()
        if late is not None:
            self._turn_ends.append(late)
        self._close()

    async def _live(self, talk: Conversation) -> None:
        try:
            await talk.initialize()
        except asyncio.CancelledError:
            await self._cancelled(talk)
            self._fail(self._start_error(talk.ended_error()))
            raise
        except AgentFailed as error:
            self._fail(self._start_error(error))
            return
        except AgentError as error:
            self._fail(error)
            return
        except Exception as error:
            self._fail(self._start_error(AgentFailed(f"the host failed: {error!r}")))
            return
        self._ready = True
        self.changed()
        try:
            if self._is_run:
                await self._run(talk, self._config.prompt or "")
        finally:
            talk.when_ended(self._close)

    async def _cancelled(self, talk: Conversation) -> None:
        """Only whoever ends all tasks of the loop cancels ours: the agent ends with them."""
        talk.begin_kill("its event loop ends")
        await talk.ended()
        await talk.tasks_done()

    def _start_error(self, error: AgentFailed) -> SpawnError:
        program = self._launch.program
        return SpawnError(str(error), program=program, stage="initialize", context=error.context)

    def _on_end(self) -> None:
        self._home.living.discard(self._talk)
        if self._watch is not None:
            self._watch.cancel()
        if self._talk.buried:
            self._in_turn = False
            self._close()

    def _close(self) -> None:
        if self._in_turn or self._in_claimed_run:
            # What the turn says about its end comes first.
            return
        self._over = True
        self.changed()

    def _begin(self, work: Coroutine[Any, Any, Any]) -> None:
        begin(self._loop, self._tasks, work)

    def _fail(self, error: AgentError) -> None:
        self._failure = error
        self._launch.discard()
        self.changed()

    async def _run(self, conversation: Conversation, prompt: str) -> None:
        end = await self._turn(conversation, prompt, self._timeouts.turn)
        if not isinstance(end, AgentError) and not is_final(end["outcome"]):
            await conversation.background_quiet()
            late = conversation.timed_out()
            if late is not None:
                self._turn_ends.append(late)
                self.changed()
        await conversation.leave(self._timeouts.after_result)

    async def _turn(
        self, conversation: Conversation, prompt: str, limit: float | None
    ) -> TurnResult | AgentError:
        turn = self._open_turn = object()
        try:
            return await conversation.turn(prompt, limit)
        except asyncio.CancelledError:
            self._in_turn = False
            await self._cancelled(conversation)
            raise
        except AgentError as error:
            end = error
        except Exception as error:
            # Where the conversation stands is not known.
            conversation.begin_kill(f"the host failed: {error!r}")
            end = AgentError(f"agent '{self.agent_id}': {error!r}", code="internal")
        # One that was answered is over already, and the next may have begun.
        if self._open_turn is turn:
            self.answered(end)
        return end

    def answered(self, end: TurnResult | AgentError) -> None:
        """The turn in flight has its end."""
        self._open_turn = None
        self._turn_ends.append(end)
        self._in_turn = False
        if self._talk.is_ended and not self._is_run:
            self._close()
        else:
            self.changed()

    def changed(self) -> None:
        """More than an event came: wake the owner, once until it has come."""
        self._more = True
        if self._told:
            return
        talk = self._conversation
        if talk is not None and talk.state.is_over and not self._over and self._failure is None:
            # Its last words come with its end.
            return
        self._wake()

    def _wake(self) -> None:
        self._told = True
        # A loop that is closed over its agent has nobody to be woken.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon(self._news)

    def event(self, kind: str, raw: bytes, length: int, frame: dict[str, Any] | None) -> None:
        """One line of output."""
        if self._first_output is None and (
            kind in ("assistant", "stream_event") or not self._talks
        ):
            self._first_output = time.monotonic() - self._began
        if self.counting and kind == "assistant":
            self.notice(raw)
        queue = self._queue
        if not queue.listening:
            return
        spilled = queue.spilled
        breach = queue.put(kind, raw, length, frame)
        if breach is not None:
            self._talk.begin_kill(breach)
        if not spilled and queue.spilled:
            self._talk.tell_spill()
        if not self._paused and queue.is_full:
            self._paused = True
            self._talk.pause_reading(True)
        if not self._told:
            self._wake()

    def late_result(self, result: TurnResult) -> None:
        """A run's background task answered after the turn: its result is the run's."""
        self._turn_ends.append(result)
        self.changed()

    def notice(self, frame: bytes) -> None:
        """What the CLI says of the service unasked."""
        self._answers.append((NOTICE, frame))
        self.changed()

    def ask(self, frame: bytes) -> bool:
        """A permission ask; False when nobody here decides."""
        if self._config.on_permission is None:
            return False
        if self._watch is not None:
            self._watch.hold()
        return self._to_handlers(frame)

    def decided(self) -> None:
        """What was left of the limit of the run runs on."""
        if self._watch is not None:
            self._watch.go_on()

    def call(self, frame: bytes) -> bool:
        """A call of the host's functions; False when it has none."""
        has_some = self._config.hooks is not None or self._config.tools is not None
        return has_some and self._to_handlers(frame)

    def withdrawn(self, frame: bytes) -> None:
        """The CLI waits no more for the answer to what it has asked."""
        self._to_handlers(frame)

    def _to_handlers(self, frame: bytes) -> bool:
        self._asks.append(frame)
        self.changed()
        return True

    # -- the owner's loop ------------------------------------------------------------------

    @property
    def turns_ended(self) -> int:
        # One that is over may have an end of its turn that is made when it is taken.
        return len(self._turn_ends) or 1

    @property
    def has_answers(self) -> bool:
        return bool(self._answers)

    def heard(self) -> State | None:
        more, self._more, self._told = self._more, False, False
        if not more:
            return None
        state = self.state
        if state.is_over:
            # That was the last: whoever listens, and holds this, is let go.
            self._news = _nobody
        return state

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
            talk.pause_reading(False)

    def backlog(self) -> tuple[int, int, int]:
        return len(self._queue), self._queue.dropped, self._queue.spilled

    def waiting_kinds(self) -> set[str]:
        return self._queue.kinds()

    def take_asks(self) -> list[bytes]:
        asks, self._asks = self._asks, []
        return asks

    def take_answers(self) -> list[tuple[str, bytes]]:
        answers, self._answers = self._answers, []
        return answers

    def noted(self) -> None:
        """Nobody starts without the loop, so nothing waits for this."""

    def answer(self, ask: str, frame: Mapping[str, Any]) -> None:
        self._begin(self._talk.answer(ask, frame))

    def request(self, request: Mapping[str, Any]) -> str:
        request_id = f"vespera-{random_uuid()}"
        self._begin(self._request(request_id, request))
        return request_id

    async def _request(self, request_id: str, request: Mapping[str, Any]) -> None:
        try:
            response = dict(await self._talk.ask(request))
        except Exception as error:
            response = {"subtype": "error", "error": str(error)}
        frame = {"type": "control_response", "response": response}
        self._answers.append((request_id, json.dumps(frame).encode()))
        self.changed()

    def write(self, data: bytes) -> None:
        self._begin(self._relay.pass_on(data))

    def end_input(self) -> None:
        self._begin(self._relay.end_input())

    @property
    def _relay(self) -> Relayed:
        talk = self._talk
        assert isinstance(talk, Relayed)
        return talk

    def begin_turn(self, prompt: str, timeout: float | None) -> None:
        talk = self._talk
        if self._in_turn or talk.state.is_in_turn:
            raise AgentBusy(
                f"agent '{self.agent_id}' is in a turn: wait for its answer or interrupt it",
                context={"agent_id": self.agent_id},
            )
        if talk.state is not State.READY:
            raise talk.ended_error()
        self._in_turn = True
        self._begin(self._turn(talk, prompt, timeout))

    def take_turn(self) -> TurnResult | None:
        end = self._turn_ends.popleft() if self._turn_ends else None
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
            # Behind a turn that is only asked for, as abandon() is.
            self._begin(self._conversation.interrupt())

    def abandon(self) -> None:
        if self._conversation is not None:
            # A task, as the turn is one: a call would overtake a turn that is only asked for.
            self._begin(self._abandon(self._conversation))

    async def _abandon(self, talk: Conversation) -> None:
        talk.abandon_turn()

    def begin_shutdown(self, grace: float) -> None:
        if self._conversation is None:
            return
        if grace <= 0:
            self.kill()
        else:
            self._conversation.begin_shutdown(grace)

    def kill(self) -> None:
        talk = self._conversation
        if talk is None or talk.state.is_over:
            return
        if self._loop.is_running():
            # Later even on its own thread: an agent that is dropped is killed out of the middle
            # of anything.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(talk.begin_kill, "asked to")
        else:
            bury([talk], 0.0)

    @property
    def _talk(self) -> Conversation:
        if self._conversation is None:
            raise AgentFailed(f"agent '{self.agent_id}' has not started")
        return self._conversation

    def execute(self, prompt: str, timeout: float | None) -> TurnResult:
        raise AgentFailed("an agent of a Supervisor is driven by its event loop")

    def shutdown(self, grace: float) -> ExitStatus:
        raise AgentFailed("an agent of a Supervisor is ended by its event loop")

    def forget_in_fork(self) -> None:
        if self._conversation is not None:
            self._conversation.forget_in_fork()
