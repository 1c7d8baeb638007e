"""Responsible for what host and CLI say to each other: initialize, turns, asks, results.

Everything here runs on one loop: the owner's, or the reactor's, whose face to other threads is
``PythonSession``. How the process lives and ends is in ``life``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vespera_agent_spawner._counters import Counters, kind_label
from vespera_agent_spawner._ids import random_uuid
from vespera_agent_spawner._patience import Deadline
from vespera_agent_spawner._waiting import wait_for_end
from vespera_agent_spawner.adapters import claude_frames as frames
from vespera_agent_spawner.adapters.launch import Launch
from vespera_agent_spawner.backends.python.background import BackgroundTasks, IdleClock
from vespera_agent_spawner.backends.python.census import Census
from vespera_agent_spawner.backends.python.framing import Oversize
from vespera_agent_spawner.backends.python.life import Life
from vespera_agent_spawner.backends.python.process import ChildProcess
from vespera_agent_spawner.backends.python.stderr_tail import shown
from vespera_agent_spawner.backends.python.turn import Turn
from vespera_agent_spawner.config import Limits
from vespera_agent_spawner.errors import AgentBusy, AgentError, AgentFailed, AgentTimeout
from vespera_agent_spawner.events import exact_frame_of, frame_of
from vespera_agent_spawner.results import Outcome, State, TurnResult
from vespera_agent_spawner.spending import tokens_in_and_out

__all__ = ["Conversation"]

INTERRUPT_GRACE = 5.0  # how long an interrupted turn may take to answer, seconds
_CLOSED_OUTPUT_GRACE = 2.0  # stdout ended but the process lives

# What a line is that is no frame; frames of these names are told apart by nobody.
_BARE = ("output", "oversize")

# That a function of the host is called: a hook, or a tool that it offers.
_CALLS = ("hook_callback", "mcp_message")

# What the CLI says on a clock of its own, whatever hangs.
_NO_LIFE = "keep_alive"

# What the model says: the service takes work again.
_ANSWERS = ("assistant", "stream_event")


class Conversation(Life):
    """One process and the conversation with it."""

    #: Kinds of frames that no consumer sees: answers to what only we have asked.
    _UNTOLD = frozenset({"control_response"})

    def __init__(
        self,
        launch: Launch,
        process: ChildProcess,
        tag: tuple[str, str],
        census: Census,
        *,
        startup: float,
        write: float,
        backend: str,
        counters: Counters,
        limits: Limits | None = None,
    ) -> None:
        super().__init__(
            launch, process, tag, census, backend=backend, counters=counters, limits=limits
        )
        self._startup = startup
        self._write_deadline = write
        self._numbers = itertools.count(1)
        self._asked: dict[str, asyncio.Future[Mapping[str, Any]]] = {}
        self._turn: Turn | None = None
        self.refused: frames.Refused | None = None
        self._unanswered: Outcome | None = None
        self.idle_limits: float | Mapping[str, float] | None = None
        # Asks for tools that have no answer yet: a background task's outlive the turn.
        self._asking: set[str] = set()
        # Calls of the host's functions that have none.
        self._calling: set[str] = set()
        self._background_tasks = BackgroundTasks()
        self._idle = IdleClock(self)
        self._expired: tuple[str, float] | None = None
        # A run's background task may answer after its own result.
        self.is_run = False
        self.turns = 0
        #: Of the session, as the CLI told it last: what its earlier processes cost is in it.
        self.total_cost_usd: float | None = None
        self._restored_usd = 0.0
        self._tokens = (0, 0)
        self.outcome: str | None = None

    @property
    def cost_usd(self) -> float | None:
        """What this process has cost."""
        total = self.total_cost_usd
        return None if total is None else max(0.0, total - self._restored_usd)

    async def initialize(self) -> None:
        """Greet the CLI; raises with its stderr when it ends or stays silent."""
        self._attach()
        try:
            async with Deadline(self._startup):
                await self._ask(self._launch.initialize or {})
                if self._launch.goes_on:
                    await self._send(frames.ask_cost_before())
        except AgentTimeout:
            raise
        except TimeoutError:
            await self._end_for("no answer to initialize")
            raise AgentTimeout(
                f"agent '{self._launch.agent_id}': no answer to initialize within "
                f"{self._startup:g} s (pid {self._process.pid}, ended now; "
                f"{shown(self.stderr.text())}); raise timeouts.startup or run 'vespera doctor'",
                which="startup",
                after=self._startup,
                context=self._context(),
            ) from None
        except asyncio.CancelledError:
            # Ctrl-C while starting: the caller is told at once, the tree is ended behind it.
            self.begin_kill("the start was interrupted")
            raise
        except BaseException:
            await self._end_for("initialize failed")
            late = self.timed_out()
            if late is not None:
                raise late from None
            raise
        self._begin()

    def _begin(self) -> None:
        """It runs and has answered whatever it is greeted with."""
        self._greeted = True
        self._counters.observe("vespera_spawn_seconds", time.monotonic() - self._born)
        self._move(State.READY)

    # -- turns -----------------------------------------------------------------------------

    async def turn(self, prompt: str, timeout: float | None) -> TurnResult:
        """One prompt to its ``result``."""
        await self._settled()
        self._require_ready()
        turn = Turn(random_uuid(), asyncio.get_running_loop().create_future())
        self._turn = turn
        self.refused = None
        self._move(State.IN_TURN)
        self._idle.arm()
        try:
            async with Deadline(timeout) as turn.clock:
                await self._send(frames.user_frame(prompt, turn.uuid))
                result = await wait_for_end(turn.answer)
        except AgentTimeout:
            raise  # the write's own; it is a TimeoutError too
        except TimeoutError:
            if not turn.answer.done():
                turn.expired = ("turn", timeout or 0.0)
                raise await self._turn_timed_out(turn) from None
            result = turn.answer.result()
        except AgentFailed:
            if turn.expired is None and self._expired is None:
                raise
            raise await self._turn_timed_out(turn) from None
        except asyncio.CancelledError:
            self.abandon_turn()
            raise
        finally:
            self._idle.disarm()
        if turn.expired is not None:
            raise await self._turn_timed_out(turn)
        return result

    async def _settled(self) -> None:
        """A turn whose caller was interrupted (Ctrl-C) has a few seconds to end by itself."""
        if self._turn is not None and self._turn.abandoned:
            with contextlib.suppress(AgentError, TimeoutError):
                await asyncio.wait_for(wait_for_end(self._turn.answer), INTERRUPT_GRACE + 5)

    def _require_ready(self) -> None:
        if self.state is State.READY:
            return
        name = self._launch.agent_id
        if self.state.is_in_turn:
            raise AgentBusy(
                f"agent '{name}' is in a turn: wait for its answer or interrupt it",
                context=self._context(),
            )
        raise self.ended_error()

    async def _turn_timed_out(self, turn: Turn) -> AgentTimeout:
        self.abandon_turn()
        with contextlib.suppress(AgentError, TimeoutError):
            await asyncio.wait_for(wait_for_end(turn.answer), INTERRUPT_GRACE)
        if not turn.answer.done():
            await self._end_for("no answer to the interrupt after a turn's time-out")
        return self._late(turn)

    def _late(self, turn: Turn) -> AgentTimeout:
        name = self._launch.agent_id
        which, timeout = turn.expired or self._expired or ("turn", 0.0)
        self.outcome = "timed_out"
        alive = self.state is State.READY
        fate = "the turn was interrupted, after which a session lives on and a run ends"
        fate = fate if alive else "its tree was ended"
        retrying = f"; the CLI was retrying: {self.refused.words}" if self.refused else ""
        return AgentTimeout(
            f"agent '{name}': no result within {timeout:g} s (timeouts.{which}); {fate}{retrying} "
            f"({shown(self.stderr.text())}); raise the limit",
            which=which,
            after=timeout,
            context=self._context(),
        )

    def timed_out(self) -> AgentTimeout | None:
        """The limit of time that ended the agent, as its error."""
        if self._expired is None:
            return None
        which, limit = self._expired
        return AgentTimeout(
            f"agent '{self._launch.agent_id}': no end within {limit:g} s (timeouts.{which}); its "
            f"tree was ended ({shown(self.stderr.text())}); raise the limit",
            which=which,
            after=limit,
            context=self._context(),
        )

    def expire(self, which: str, limit: float) -> None:
        """A limit of time passed: the turn is stopped; the whole run's limit ends the agent."""
        if self.state.is_over or self.said_all:
            return
        if which == "total":
            self._expired = (which, limit)
            self.begin_kill("total time-out")
        elif self._turn is not None:
            self._turn.expired = (which, limit)
            self.abandon_turn()

    def _accounted(self, frame: Mapping[str, Any], refused: frames.Refused | None) -> TurnResult:
        """What a ``result`` frame says, once it counts in the session's sums."""
        result = frames.turn_result(
            frame,
            session_id=self.session_id,
            backend=self._backend,
            cost_before=self._restored_usd if self.total_cost_usd is None else self.total_cost_usd,
            refused=refused,
        )
        self.outcome = result["outcome"]
        self._count(result["total_cost_usd"], result["usage"])
        return result

    def _count(self, total_usd: float | None, usage: Any) -> None:
        """A ``result`` counts, whoever began its turn and however that is called."""
        self.turns += 1
        if total_usd is not None:
            self.total_cost_usd = total_usd
        taken, given = tokens_in_and_out(usage)
        self._tokens = (self._tokens[0] + taken, self._tokens[1] + given)

    @property
    def spent(self) -> tuple[float, int, int]:
        """Dollars, and tokens in and out, so far."""
        return self.cost_usd or 0.0, *self._tokens

    def abandon_turn(self) -> None:
        """Interrupt the turn in flight; if it does not answer in time, end the agent."""
        turn = self._turn
        if turn is None or turn.abandoned:
            return
        turn.abandoned = True
        self._background(self._interrupt_or_end(turn))

    async def _interrupt_or_end(self, turn: Turn) -> None:
        began = self._loop.time()
        await self.interrupt()
        # One that acknowledges nothing has had its time by now.
        left = began + INTERRUPT_GRACE - self._loop.time()
        await asyncio.wait({turn.answer}, timeout=max(0.0, left))
        if not turn.answer.done():
            await self._end_for("no answer to an interrupt")

    async def interrupt(self) -> None:
        """Ask the CLI to stop its turn; does nothing when there is none."""
        if self._turn is None or not self.state.is_in_turn:
            return
        with contextlib.suppress(AgentError, TimeoutError):
            async with asyncio.timeout(INTERRUPT_GRACE):
                await self._ask({"subtype": "interrupt"})

    # -- writing ---------------------------------------------------------------------------

    async def _send(self, frame: Mapping[str, Any]) -> None:
        await self._send_bytes(frames.encode(frame))

    async def _send_bytes(self, data: bytes) -> None:
        try:
            await self._process.write(data, self._write_deadline)
        except TimeoutError:
            # Half a frame may be on its way: nothing can follow it.
            self._expired = ("write", self._write_deadline)
            await self._end_for("it did not take its input")
            raise self._deaf() from None
        except OSError as error:
            # It closed stdin, so it is on its way out: its exit says more than EPIPE.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(wait_for_end(self._ended), _CLOSED_OUTPUT_GRACE)
            if not self._ended.done():
                await self._end_for(f"it closed its stdin ({error})")
            raise self.ended_error() from None

    def _deaf(self) -> AgentTimeout:
        return AgentTimeout(
            f"agent '{self._launch.agent_id}': it took none of its input for "
            f"{self._write_deadline:g} s (timeouts.write); its tree was ended "
            f"({shown(self.stderr.text())}); raise the limit",
            which="write",
            after=self._write_deadline,
            context=self._context(),
        )

    async def _ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        request_id = f"vespera-{next(self._numbers)}"
        answer: asyncio.Future[Mapping[str, Any]] = asyncio.get_running_loop().create_future()
        self._asked[request_id] = answer
        try:
            await self._send(frames.control_request(request_id, request))
            response = await answer
        finally:
            self._asked.pop(request_id, None)
        if response.get("subtype") == "error":
            raise AgentFailed(
                f"agent '{self._launch.agent_id}' refused {request.get('subtype')}: "
                f"{response.get('error')} ({shown(self.stderr.text())})",
                context=self._context(),
            )
        return response

    # -- reading ---------------------------------------------------------------------------

    def _on_stdout(self, data: bytes) -> None:
        self._counters.add("vespera_event_bytes_total", len(data))
        self._on_lines(self._framer.feed(data))

    def _on_lines(self, lines: Sequence[bytes | Oversize]) -> None:
        """All lines of one reading; counters and clocks take them as one."""
        if not lines:
            return
        kinds: Counter[str] = Counter()
        for line in lines:
            if self._process.transcript is not None:
                self._process.transcript.agent(line)
            if not self.buried:
                kinds[self._on_line(line)] += 1
        if kinds.keys() != {_NO_LIFE}:
            self._background_tasks.noted()
        for kind, count in kinds.items():
            label = kind if kind in _BARE else kind_label(kind)
            self._counters.add("vespera_events_total", count, kind=label)

    def _on_line(self, line: bytes | Oversize) -> str:
        """One line; returns its kind."""
        if isinstance(line, Oversize):
            self._publish("oversize", line.head, line.length)
            self._log.warning("a line of %d bytes is over the cap and was skipped", line.length)
            return "oversize"
        frame = frame_of(line)
        if frame is None:
            self._publish("output", line, len(line))
            return "output"
        kind = frame.get("type")
        told = frame.get("session_id")
        if isinstance(told, str) and told and kind != "conversation_reset":
            self.session_id = told
        if self.idle_limits is not None and kind != _NO_LIFE:
            self._idle.note(frame)
        if not isinstance(kind, str):
            self._publish("output", line, len(line))
            return "other"
        if self.refused is not None and kind in _ANSWERS:
            self.refused = None
        if kind == "assistant":
            self._unanswered = frames.unanswered(frame)
        receive = self._RECEIVERS.get(kind)
        # Kept before the result is told: whoever hears of the end finds all events. A consumer
        # may change what it is given, so a frame that is read on is not given.
        if kind not in self._UNTOLD:
            self._publish(kind, line, len(line), frame if receive is None else None)
        if receive is not None:
            receive(self, (exact_frame_of(line) or frame) if kind == "result" else frame)
        return kind

    def _publish(
        self, kind: str, raw: bytes, length: int, frame: dict[str, Any] | None = None
    ) -> None:
        if self.listener is not None:
            self.listener.event(kind, raw, length, frame)

    def _on_response(self, frame: Mapping[str, Any]) -> None:
        response = frame.get("response")
        if not isinstance(response, Mapping):
            return
        if response.get("request_id") == frames.COST_BEFORE and self.turns == 0:
            self._restored_usd = frames.cost_before(response)
        answer = self._asked.get(str(response.get("request_id")))
        if answer is not None and not answer.done():
            answer.set_result(response)

    def _on_request(self, frame: Mapping[str, Any]) -> None:
        request = frame.get("request")
        asks = isinstance(request, Mapping) and request.get("subtype") == "can_use_tool"
        if asks and self.listener is not None and self.listener.ask(json.dumps(frame).encode()):
            ask = str(frame.get("request_id"))
            self._asking.add(ask)
            if self._turn is not None:
                self._idle.asking.add(ask)
                self._turn.hold()
            self._move(State.WAITING_FOR_PERMISSION)
            self._idle.decided()
            return
        calls = isinstance(request, Mapping) and request.get("subtype") in _CALLS
        if calls and self.listener is not None and self.listener.call(json.dumps(frame).encode()):
            # No person decides here: the turn's time runs on, and the handler has its own.
            self._calling.add(str(frame.get("request_id")))
            return
        self._log.warning("asks for %s: denied", frames.asked(frame))
        self._background(self._reply(frames.answer_to(frame)))

    def _on_withdrawn(self, frame: Mapping[str, Any]) -> None:
        ask = str(frame.get("request_id"))
        asked, called = ask in self._asking, ask in self._calling
        self._calling.discard(ask)
        if (asked or called) and self.listener is not None:
            self.listener.withdrawn(json.dumps(frame).encode())
        if asked:
            self._decided(ask)

    def _decided(self, ask: str) -> None:
        """An ask was answered or withdrawn; after the turn's last one its time goes on."""
        self._asking.discard(ask)
        self._idle.asking.discard(ask)
        if not self._asking and self.listener is not None:
            self.listener.decided()
        if self._idle.asking:
            return
        if self._turn is not None:
            self._turn.go_on()
        if self.state is State.WAITING_FOR_PERMISSION:
            self._move(State.IN_TURN)
        self._idle.decided()

    async def _reply(self, frame: Mapping[str, Any]) -> None:
        if self.state is State.DRAINING:
            return  # its input has ended, and to try it would cost the agent its time to leave
        # A reply that cannot be written means that the agent is ending; its end is reported.
        with contextlib.suppress(AgentError):
            await self._send(frame)

    def _on_result(self, frame: Mapping[str, Any]) -> None:
        turn = self._turn
        answered = frame.get("user_message_uuids")
        if turn is None or (isinstance(answered, list) and answered and turn.uuid not in answered):
            # A background task's own result: no turn of ours ends with it.
            self._log.debug("a result outside of the turn")
            if turn is None and self.is_run and self.listener is not None:
                self.listener.late_result(self._accounted(frame, None))
            return
        self._turn = None
        self._idle.asking.clear()
        if self.state.is_in_turn:
            self._move(State.READY)
        refused = turn.refused or frames.blamed(frame, self._unanswered)
        result = self._accounted(frame, refused)
        if turn.answer.done():
            return
        turn.answer.set_result(result)
        if self.listener is not None:
            self.listener.answered(result if turn.expired is None else self._late(turn))

    def _on_system(self, frame: Mapping[str, Any]) -> None:
        self._background_tasks.follow(frame)
        if frame.get("subtype") == "api_retry":
            self._on_retry(frame)

    def _on_retry(self, frame: Mapping[str, Any]) -> None:
        """The CLI asks the service again; where that is hopeless, the turn is stopped."""
        retry = frames.read_retry(frame)
        self._log.warning("the CLI retries: %s", retry.refused.words)
        self.refused = retry.refused
        if retry.limit_ends_in is not None:
            self._notice(frame)
        turn = self._turn
        if retry.hopeless and turn is not None and not turn.abandoned:
            turn.refused = retry.refused
            self.abandon_turn()

    def _on_rate_limit(self, frame: Mapping[str, Any]) -> None:
        if frames.limit_reached(frame):
            self._notice(frame)

    def _notice(self, frame: Mapping[str, Any]) -> None:
        """Something that the owner of the fleet is to know, and did not ask for."""
        if self.listener is not None:
            self.listener.notice(json.dumps(frame).encode())

    def _on_reset(self, frame: Mapping[str, Any]) -> None:
        new = frame.get("new_conversation_id")
        if isinstance(new, str):
            self.session_id = new
            self._notice(frame)

    _RECEIVERS: Mapping[str, Callable[[Conversation, Mapping[str, Any]], None]] = {
        "control_response": _on_response,
        "control_request": _on_request,
        "control_cancel_request": _on_withdrawn,
        "rate_limit_event": _on_rate_limit,
        "result": _on_result,
        "system": _on_system,
        "conversation_reset": _on_reset,
    }

    def _on_stdout_end(self) -> None:
        self._mute = self._loop.call_later(_CLOSED_OUTPUT_GRACE, self._end_if_mute)

    def _end_if_mute(self) -> None:
        if self.state is not State.DRAINING:
            self.begin_kill("it closed its output but did not exit")

    def pause_reading(self, pause: bool) -> None:
        """Let the agent wait in its pipe, or read on."""
        self._idle.hear(not pause)
        self._process.pause_reading(pause)

    async def ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """A control request of the host; the CLI's response, also when it says no."""
        return await self._ask(request)

    def tell_spill(self) -> None:
        """More events wait than memory may hold."""
        self._log.info("its undelivered events go to disk from now on")

    async def answer(self, ask: str, frame: Mapping[str, Any]) -> None:
        """The host's answer to what was asked; nothing happens when it was withdrawn."""
        if ask in self._asking:
            self._decided(ask)
            await self._reply(frame)
        elif ask in self._calling:
            self._calling.discard(ask)
            await self._reply(frame)

    async def background_quiet(self) -> None:
        """Wait until no background task is in flight and the CLI has been quiet for a while."""
        await self._background_tasks.quiet(self._ended)

    # -- what Life asks for ----------------------------------------------------------------

    async def interrupt_quietly(self) -> None:
        """A turn in flight is told to stop, so that the transcript ends cleanly; no waiting."""
        if self._turn is not None:
            with contextlib.suppress(AgentError, OSError, TimeoutError):
                request = frames.control_request("vespera-stop", {"subtype": "interrupt"})
                async with asyncio.timeout(0.2):
                    await self._process.write(frames.encode(request))

    def _fail_waiters(self) -> None:
        turn, self._turn = self._turn, None
        waiting: list[asyncio.Future[Any]] = [*self._asked.values()]
        if turn is not None:
            waiting.append(turn.answer)
        for future in waiting:
            if not future.done():
                future.set_exception(self.ended_error())
                # Seen: whoever was interrupted waits no more, and that is no unhandled error.
                future.exception()
