"""Responsible for one agent as asyncio programs see it: events, turns, its end.

The processes, the pipes and the clocks are the backend's. Everything here runs on the loop that
the agent was spawned on; the backend calls ``_news`` there whenever something changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from vespera_agent_spawner import _requests
from vespera_agent_spawner import _validation as rules
from vespera_agent_spawner._counters import PROCESS, Bill
from vespera_agent_spawner._description import describe, start_failure
from vespera_agent_spawner._logging import AgentLogger, logger_for
from vespera_agent_spawner._own_loop import check_own_loop
from vespera_agent_spawner._request import checked_turn
from vespera_agent_spawner._waiting import wait_for_end
from vespera_agent_spawner.adapters import adapter_named
from vespera_agent_spawner.adapters.claude_frames import has_prompt
from vespera_agent_spawner.backends._protocol import NOTICE, LiveSession
from vespera_agent_spawner.config import PERMISSION_MODE, AgentConfig, Duration
from vespera_agent_spawner.errors import (
    AgentBusy,
    AgentError,
    AgentFailed,
    BudgetExceeded,
    ProtocolError,
)
from vespera_agent_spawner.events import Event
from vespera_agent_spawner.handlers import Handlers
from vespera_agent_spawner.iteration import AgentEvents
from vespera_agent_spawner.results import (
    AgentInfo,
    ExitStatus,
    Outcome,
    RunResult,
    State,
    TurnResult,
    Usage,
)
from vespera_agent_spawner.session_hold import Hold, hold_reset
from vespera_agent_spawner.spending import Meter
from vespera_agent_spawner.transcripts import end_transcript

__all__ = ["Agent"]

_LOGGER = logging.getLogger("vespera.agent_spawner.agent")
_BATCH = 256
# Seconds for a run that may spend nothing more to leave by itself.
_STOP_GRACE = 5.0
_OVER = (State.ENDED, State.SPAWN_FAILED)
_NOT_READY = (State.QUEUED, State.STARTING, State.DRAINING)


class Agent:
    """An agent of a ``Supervisor``.

    With a prompt it is a run: iterate its events, then ``await result()``. Without one it is a
    session: ``await run(prompt)`` per turn, then ``await shutdown()``. An agent that is dropped
    without an end warns (``ResourceWarning``) and its tree is ended.
    """

    # What most agents never change stands here: it is not set for each of them, and one with more
    # than thirty attributes of its own gets a dict for them (CPython's SHARED_KEYS_MAX_SIZE).
    #: An attempt of a run: whoever tries it again counts the run.
    _is_attempt = False
    _on_start: Callable[[Agent, AgentError | None], None] | None = None
    _session: LiveSession | None = None
    # Only an iteration has one.
    _bell: asyncio.Event | None = None
    _turn: asyncio.Future[TurnResult] | None = None
    _last_turn: TurnResult | None = None
    _last_error: AgentError | None = None
    _cancelled = False
    _iterating: weakref.ref[AgentEvents] | None = None
    _was_iterated = False
    _merged: Callable[[Agent], None] | None = None
    _handlers: Handlers | None = None
    _on_service: Callable[[Agent, Mapping[str, Any]], None] | None = None
    _on_refused: Callable[[Agent, str | None], None] | None = None
    _meter: Meter | None = None
    #: Why it may spend nothing more.
    _overspent: str | None = None
    _final: RunResult | None = None

    def __init__(self, config: AgentConfig, on_end: Callable[[Agent], None]) -> None:
        loop = asyncio.get_running_loop()
        self.config = config
        self._id = config.agent_id or ""
        self._adapter = adapter_named(config.adapter)
        self._is_run = config.prompt is not None or self._adapter.runs_to_exit
        self._loop = loop
        self._on_end = on_end
        self._started = self._turn_began = time.monotonic()
        # Not by the loop's own method, which comes to the same by a call more.
        self._ready: asyncio.Future[None] = asyncio.Future(loop=loop)
        self._ended: asyncio.Future[ExitStatus] = asyncio.Future(loop=loop)
        self._answers: _requests.Waiting = {}
        self._holds: list[Hold] = []
        self._bill = Bill()

    @property
    def _log(self) -> AgentLogger:
        return logger_for("agent_spawner.agent", self.config.agent_id)

    # -- identity --------------------------------------------------------------------------

    @property
    def agent_id(self) -> str:
        return self._id

    @property
    def session_id(self) -> str:
        """The CLI's session; it changes only on a fork or a conversation reset."""
        return self._live.session_id

    @property
    def pid(self) -> int | None:
        return self._live.pid

    @property
    def state(self) -> State:
        return State.QUEUED if self._session is None else self._session.state

    @property
    def stderr_tail(self) -> str:
        """The last 64 KiB of stderr."""
        return self._live.stderr_tail

    @property
    def is_run(self) -> bool:
        """True when it ends by itself: with a prompt, or a program that runs to its exit."""
        return self._is_run

    def info(self) -> AgentInfo:
        """State, counters and identity."""
        return self._live.info()

    def usage(self) -> Usage:
        """What the whole process tree uses now; after its end the CPU time of what was reaped."""
        return self._live.usage()

    @property
    def _live(self) -> LiveSession:
        if self._session is None:
            raise AgentFailed(f"agent '{self.agent_id}' has not started")
        return self._session

    # -- events ----------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Event]:
        """The events from now on, in order and without a gap, until the agent ends.

        One iterator at a time. Ending an iteration only stops watching.
        """
        with contextlib.suppress(RuntimeError):  # where no loop runs, the first event is refused
            self._check_loop()
        if self._is_iterated():
            raise AgentBusy(
                f"agent '{self.agent_id}': its events are being read by another iterator; "
                "one at a time"
            )
        events = AgentEvents(self)
        self._iterating = weakref.ref(events)
        self._was_iterated = True
        self._live.listen(True)
        weakref.finalize(events, self._live.listen, False).atexit = False
        return events

    def _is_iterated(self) -> bool:
        return self._iterating is not None and self._iterating() is not None

    def _stop_collecting_soon(self) -> None:
        # Somebody may begin to iterate in this turn of the loop, as in gather(result(), read()).
        if not self._was_iterated:
            asyncio.get_running_loop().call_soon(self._stop_collecting)

    def _stop_collecting(self) -> None:
        """Nobody iterates and somebody waits for the end: events would only pile up."""
        if not self._was_iterated and self._merged is None:
            self._live.listen(False)

    # -- turns -----------------------------------------------------------------------------

    async def run(self, prompt: str, *, timeout: Duration | None = None) -> RunResult:
        """One turn of a session; the result's ``exit`` is None.

        ``timeout`` in seconds or as ``"5m"``, else ``timeouts.turn``. A failure is in the result;
        ``AgentBusy`` and ``AgentFailed`` (the agent has ended) are raised. Cancelling interrupts
        the turn.
        """
        self._check_loop()
        started = time.monotonic()
        self._stop_collecting_soon()
        turn = self._begin(prompt, timeout)
        result: TurnResult | None = None
        error: AgentError | None = None
        try:
            await asyncio.wait([turn])
            result = turn.result()
        except asyncio.CancelledError:
            self._live.abandon()
            raise
        except AgentError as failure:
            error = failure
        return describe(
            self._live,
            turn=result,
            error=error,
            cancelled=False,
            duration=time.monotonic() - started,
            ended=self._ended.done(),
            overspent=self._overspent,
        )

    async def send(self, prompt: str) -> None:
        """Begin a turn without waiting for its end; iterate to see it."""
        self._check_loop()
        self._begin(prompt, None)

    def _begin(self, prompt: str, timeout: Duration | None) -> asyncio.Future[TurnResult]:
        if self.is_run:
            raise AgentFailed(
                f"agent '{self.agent_id}' is a run: its prompt is in its configuration; spawn "
                "a CLI without a prompt for a session"
            )
        if self._adapter.relayed:
            raise AgentFailed(f"agent '{self.agent_id}' is relayed: who speaks with it has turns")
        if self._turn is not None:
            # The CLI may be ready for another before the loop has heard how the last one ended.
            self._news()
        if self._turn is not None:
            raise AgentBusy(
                f"agent '{self.agent_id}' is in a turn: wait for its answer or interrupt it",
                context={"agent_id": self.agent_id},
            )
        prompt, timeout = checked_turn(prompt, timeout)
        if self._overspent is None and self._meter is not None:
            self._overspent = self._meter.empty
        if self._overspent is not None:
            raise BudgetExceeded(f"agent '{self.agent_id}': {self._overspent}; raise the budget")
        if timeout is None and self.config.timeouts is not None:
            timeout = self.config.timeouts.turn
        self._live.begin_turn(prompt, timeout)
        turn: asyncio.Future[TurnResult] = self._loop.create_future()
        # A turn that nobody awaits (send) may fail without a complaint of asyncio.
        turn.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._turn = turn
        self._turn_began = time.monotonic()
        return turn

    async def result(self) -> RunResult:
        """The whole run, once it has ended. Cancelling only stops the wait."""
        self._check_loop()
        self._stop_collecting_soon()
        await wait_for_end(self._ended)
        return self._result()

    def _result(self) -> RunResult:
        if self._final is None:
            self._final = describe(
                self._live,
                turn=self._last_turn,
                error=self._last_error,
                cancelled=self._cancelled,
                duration=self._duration,
                ended=True,
                by_exit=self._adapter.runs_to_exit or self._adapter.relayed,
                overspent=self._overspent,
            )
        return self._final

    # -- control ---------------------------------------------------------------------------

    async def interrupt(self) -> None:
        """Ask the CLI to stop the turn in flight; its result says ``cancelled``."""
        self._check_loop()
        self._live.interrupt()

    async def set_model(self, model: str | None) -> None:
        """Use another model from the next request on; None is the CLI's default."""
        model = rules.optional(rules.text)("model", model)
        await self._request({"subtype": "set_model", "model": model})

    async def set_permission_mode(self, mode: str) -> None:
        """Change the permission mode of the session."""
        mode = PERMISSION_MODE("mode", mode)
        await self._request({"subtype": "set_permission_mode", "mode": mode})

    async def _request(self, request: Mapping[str, Any]) -> None:
        self._check_loop()
        if self._adapter.runs_to_exit or self._adapter.relayed:
            raise AgentFailed(
                f"agent '{self.agent_id}': adapter '{self._adapter.name}' answers no requests"
            )
        if self._ended.done():
            reason = self._ended.result().reason
            raise AgentFailed(f"agent '{self.agent_id}' has ended: {reason}")
        await _requests.ask(self._live, self._answers, request)

    def _check_loop(self) -> None:
        if self._ended.done():  # what it has come to may be asked from anywhere
            return
        check_own_loop(
            self._loop,
            f"agent '{self.agent_id}' belongs to the event loop that started it",
            "await it there, from elsewhere by asyncio.run_coroutine_threadsafe(…, loop)",
        )

    def write(self, data: bytes) -> None:
        """Whole lines to a CLI that somebody else speaks with (adapter ``relay``); never waits."""
        self._relayed.write(data)
        if self._last_turn is not None and has_prompt(data):
            # What is there is the answer to an earlier one.
            self._last_turn = None

    def end_input(self) -> None:
        """End the input of a CLI that somebody else speaks with, behind what was written."""
        self._relayed.end_input()

    @property
    def _relayed(self) -> LiveSession:
        if not self._adapter.relayed:
            raise AgentFailed(
                f"agent '{self.agent_id}': only what adapter 'relay' starts takes lines of others"
            )
        return self._live

    async def shutdown(self, grace: Duration = 5.0) -> ExitStatus:
        """End the tree: stdin ends, SIGTERM after half of ``grace`` seconds, then force."""
        self._check_loop()
        grace = rules.duration("grace", grace)
        if not self._ended.done():
            self._live.begin_shutdown(grace)
        return await wait_for_end(self._ended)

    def kill(self) -> None:
        """End the tree by force; ``result()`` tells when it is gone."""
        self._live.kill()

    async def cancel(self, grace: Duration = 5.0) -> None:
        """End the work: the turn is interrupted, then the ladder within ``grace`` seconds."""
        self._check_loop()
        if self._begin_cancel(rules.duration("grace", grace)):
            await wait_for_end(self._ended)

    def _begin_cancel(self, grace: float) -> bool:
        if self._session is None or self._ended.done():
            return False
        self._cancelled = True
        self._session.interrupt()
        self._session.begin_shutdown(grace)
        return True

    # -- what the backend tells ------------------------------------------------------------

    def _attach(self, session: LiveSession) -> None:
        self._session = session
        if Handlers.wanted(self.config):
            self._handlers = Handlers(self.config, session)

    def _enter(self, session: LiveSession, ago: float) -> None:
        """It has a place since so many seconds, and was made before."""
        self._started = self._turn_began = time.monotonic() - ago
        self._attach(session)

    def _news(self) -> bool:
        """Something changed: called on the loop's thread, coalesced. True: somebody listens."""
        session = self._session
        if session is None:
            return True
        try:
            state = session.heard()
            if state is not None:
                self._changed(session, state)
        finally:
            if self._bell is not None:
                self._bell.set()
            if self._merged is not None:
                self._merged(self)
        return True

    def _changed(self, session: LiveSession, state: State) -> None:
        """More than events came."""
        # Taken before the answers are, so that those hold all messages of a turn that has ended,
        # and accounted after them.
        ends = self._take_turns(session) if session.turns_ended else ()
        # Whatever is raised on the way: nobody else tells of an end that was taken.
        try:
            if self._handlers is not None:
                for ask in session.take_asks():
                    self._guarded(self._handlers.hear, ask)
            for request_id, frame in session.take_answers() if session.has_answers else ():
                self._guarded(self._answered, session, request_id, frame)
        finally:
            try:
                for end in ends:
                    self._guarded(self._turn_over, session, end)
            finally:
                # One that is being ended was ready before, or never is.
                if not self._ready.done() and state not in _NOT_READY:
                    self._guarded(self._settle_start, session)
                if state in _OVER and not self._ended.done():
                    self._end(session)

    def _guarded(self, act: Callable[..., object], *what: Any) -> None:
        """What cannot be handled is reported, and the rest goes on."""
        try:
            act(*what)
        except Exception as error:
            words = f"agent '{self.agent_id}': what it said could not be handled"
            self._loop.call_exception_handler({"message": words, "exception": error})

    def _answered(self, session: LiveSession, request_id: str, frame: bytes) -> None:
        if request_id == NOTICE:
            try:
                self._noticed(json.loads(frame))
            finally:
                session.noted()
            return
        _requests.tell(self._answers, request_id, frame)

    def _turn_over(self, session: LiveSession, end: TurnResult | AgentError) -> None:
        turn, self._turn = self._turn, None
        try:
            if isinstance(end, AgentError):
                self._turn_failed(session, end, counts=turn is not None)
            else:
                self._turn_ended(session, end, counts=turn is not None)
        finally:
            if turn is not None and not turn.done():
                if isinstance(end, AgentError):
                    turn.set_exception(end)
                else:
                    turn.set_result(end)

    def _noticed(self, frame: Mapping[str, Any]) -> None:
        kind = frame.get("type")
        if kind == "conversation_reset":
            # The command line, by which others see who has a session, still tells the old one.
            new = frame.get("new_conversation_id")
            if isinstance(new, str) and (hold := hold_reset(self.agent_id, new)) is not None:
                self._holds.append(hold)
        elif kind != "assistant":
            if self._on_service is not None:
                self._on_service(self, frame)
        elif self._meter is not None and (words := self._meter.message(frame)) is not None:
            self._spent(words)

    def _spent(self, words: str) -> None:
        """Its budget, or its fleet's, is spent: the work ends where it is."""
        if self._overspent is not None or self._session is None or self._ended.done():
            return
        self._overspent = words
        self._log.warning("%s: nothing more is spent", words)
        self._session.interrupt()
        if self.is_run or self._adapter.relayed:
            self._session.begin_shutdown(_STOP_GRACE)

    def _take_turns(self, session: LiveSession) -> list[TurnResult | AgentError]:
        """The turn's end; a run may have several, of which the last one counts."""
        ends: list[TurnResult | AgentError] = []
        many = self._is_run or self._adapter.relayed
        if not (many or self._turn is not None) or (self._last_error is not None and many):
            return ends
        try:
            while session.turns_ended and (result := session.take_turn()) is not None:
                ends.append(result)
                if not many:
                    break
        except AgentError as error:
            ends.append(error)
        except Exception as error:
            # It is taken: whoever waits for it hears why it is none.
            words = f"agent '{self.agent_id}': the end of a turn cannot be read: {error!r}"
            ends.append(ProtocolError(words, context={"agent_id": self.agent_id}))
        return ends

    def _turn_failed(self, session: LiveSession, error: AgentError, *, counts: bool) -> None:
        self._last_error = error
        PROCESS.count_spent(self._bill, session.spent())
        if self._meter is not None and not self._adapter.relayed:
            # A turn that was stopped for its time may have told its cost all the same.
            self._meter.lost(session.info().cost_usd)
        if counts:
            self._judge_failed_turn(session, error)

    def _turn_ended(self, session: LiveSession, result: TurnResult, *, counts: bool) -> None:
        self._last_turn = result
        if not self._is_attempt:
            # Others may be dropped; of a list's all that is spent is counted at the end.
            PROCESS.count_spent(self._bill, session.spent())
        # What others' turns cost is counted at the end, so that no answer that is paid for is taken
        # from whom it was given to.
        meter = None if self._adapter.relayed else self._meter
        if meter is not None and (words := meter.turn(result)) is not None:
            # What is there is paid for; a session says so when it is asked for more.
            self._overspent = self._overspent or (None if self.is_run else words)
        if result["outcome"] != "completed":
            self._note_refusal(result["outcome"], result.get("error"))
        if counts:
            PROCESS.count_run(result["outcome"], time.monotonic() - self._turn_began)

    def _note_refusal(self, outcome: str, error: str | None) -> None:
        if outcome == Outcome.AUTH_FAILED and self._on_refused is not None:
            self._on_refused(self, error)

    def _judge_failed_turn(self, session: LiveSession, error: AgentError) -> None:
        took = time.monotonic() - self._turn_began
        described = describe(
            session,
            turn=None,
            error=error,
            cancelled=self._cancelled,
            duration=took,
            ended=session.state.is_over,
        )
        PROCESS.count_run(described.outcome, took)
        self._note_refusal(described.outcome, described.error)

    def _settle_start(self, session: LiveSession) -> None:
        failure: AgentError | None = None
        try:
            session.check_start()
        except AgentError as error:
            failure = start_failure(session, error)
            self._ready.set_exception(failure)
            self._ready.exception()
        else:
            self._ready.set_result(None)
        if self._on_start is not None:
            self._on_start(self, failure)

    def _end(self, session: LiveSession) -> None:
        self._duration = time.monotonic() - self._started
        status = session.exit_status or ExitStatus(None, None, "unknown", "gone")
        try:
            self._conclude(session, status)
        finally:
            if self._handlers is not None:
                self._handlers.close()
            for hold in self._holds:
                hold.release()
            self._ended.set_result(status)
            self._on_end(self)

    def _conclude(self, session: LiveSession, status: ExitStatus) -> None:
        """What is to be told of the end before whoever waits for it goes on."""
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(AgentFailed(f"agent '{self.agent_id}' ended: {status.reason}"))
                answer.exception()
        if (path := self.config.transcript) is not None:
            lost = end_transcript(path, self._result(), session.transcript_lost)
            if lost is not None:
                self._log.warning("its transcript %s is not whole: %s", path, lost)
        PROCESS.count_spent(self._bill, session.spent())
        relayed = self._adapter.relayed
        counts = self._is_run or relayed
        if counts and self._ready.done() and self._ready.exception() is None:
            final = self._result()
            if not self._is_attempt:
                PROCESS.count_run(final.outcome, final.duration)
            if relayed and self._meter is not None:
                self._meter.whole(final.cost_usd or 0.0)
            if final.outcome is not Outcome.COMPLETED:
                self._note_refusal(final.outcome, final.error)
        if _LOGGER.isEnabledFor(logging.INFO):
            self._log.info("ended: %s", status.reason)

    def __del__(self) -> None:
        session = getattr(self, "_session", None)
        # Most have told their end, and are asked no more.
        if session is not None and not self._ended.done() and not session.state.is_over:
            warnings.warn(
                f"agent '{self.agent_id}' was dropped without shutdown(); its tree is ended",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )
            session.kill()
            if self._handlers is not None:
                self._handlers.close()

    def __repr__(self) -> str:
        return f"<Agent {self.agent_id!r} {self.state}>"
