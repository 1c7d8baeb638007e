"""Responsible for one agent's life on the loop: initialize, turns, the ladder, the end.

States move only through ``_move`` and its table. Everything here runs on one loop: the owner's, or
the reactor's, whose face to other threads is ``PythonSession``.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from vespera_agent_spawner._counters import Counters, kind_label
from vespera_agent_spawner._logging import logger_for
from vespera_agent_spawner.adapters import claude_frames as frames
from vespera_agent_spawner.adapters.launch import Launch
from vespera_agent_spawner.backends.python.background import BackgroundTasks, IdleClock
from vespera_agent_spawner.backends.python.census import Census
from vespera_agent_spawner.backends.python.framing import LineFramer, Oversize
from vespera_agent_spawner.backends.python.limits import LimitKeeper
from vespera_agent_spawner.backends.python.listener import Listener
from vespera_agent_spawner.backends.python.moves import MOVES
from vespera_agent_spawner.backends.python.owner_loop import begin
from vespera_agent_spawner.backends.python.process import ChildProcess
from vespera_agent_spawner.backends.python.stderr_tail import StderrTail, shown
from vespera_agent_spawner.backends.python.steps import Steps
from vespera_agent_spawner.backends.python.sweep import Sweeper
from vespera_agent_spawner.backends.python.turn import Turn
from vespera_agent_spawner.config import Limits
from vespera_agent_spawner.errors import AgentBusy, AgentError, AgentFailed, AgentTimeout
from vespera_agent_spawner.events import frame_of
from vespera_agent_spawner.results import ExitStatus, State, TurnResult

__all__ = ["Conversation"]

INTERRUPT_GRACE = 5.0  # how long an interrupted turn may take to answer, seconds
_CLOSED_OUTPUT_GRACE = 2.0  # stdout ended but the process lives
_SWEEP_DEADLINE = 2.0
_UNKILLABLE_GRACE = 3.0

# What a line is that is no frame; frames of these names are told apart by nobody.
_BARE = ("output", "oversize")


class Conversation(Steps):
    """One process and the conversation with it."""

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
        self._launch = launch
        self._process = process
        self._startup = startup
        self._write_deadline = write
        self._backend = backend
        self._counters = counters
        self._log = logger_for("agent_spawner.python", launch.agent_id)
        self._framer = LineFramer()
        self._numbers = itertools.count(1)
        self._asked: dict[str, asyncio.Future[Mapping[str, Any]]] = {}
        self._turn: Turn | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ladder: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[ExitStatus] = self._loop.create_future()
        self._mute: asyncio.TimerHandle | None = None
        self._died: tuple[int | None, int | None] = (None, None)
        self._limits = LimitKeeper(limits)
        self._ended_by: str | None = None
        self._why: str | None = None
        self._retrying: str | None = None
        self._greeted = False
        self.on_end: Callable[[], None] = _nothing
        self.listener: Listener | None = None
        self.idle_limits: float | Mapping[str, float] | None = None
        self._background_tasks = BackgroundTasks()
        self._idle = IdleClock(self)
        self._expired: tuple[str, float] | None = None
        self.sweeper = Sweeper(process.pid, process.born, tag, census)
        #: Its loop runs no more: what it says is written down but moves nothing.
        self.buried = False
        self.stderr = StderrTail()
        self.state = State.STARTING
        self.session_id = launch.session_id
        self.started_at = time.time()
        self.turns = 0
        self.cost_usd: float | None = None
        self.outcome: str | None = None
        self.exit_status: ExitStatus | None = None
        self.orphans_reaped = 0

    async def initialize(self) -> None:
        """Greet the CLI; raises with its stderr when it ends or stays silent."""
        self._attach()
        try:
            async with asyncio.timeout(self._startup):
                await self._ask(self._launch.initialize or {})
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
            raise
        self._greeted = True
        self._move(State.READY)

    def _attach(self) -> None:
        self._process.attach(
            self._loop, self._on_stdout, self.stderr.feed, self._on_stdout_end, self._on_exit
        )
        self._limits.watch(self.sweeper, self.begin_kill)
        self._log.info("started pid %d: %s", self._process.pid, self._launch.program)

    # -- turns -----------------------------------------------------------------------------

    async def turn(self, prompt: str, timeout: float | None) -> TurnResult:
        """One prompt to its ``result`` frame."""
        started = time.monotonic()
        await self._settled()
        self._require_ready()
        turn = Turn(str(uuid.uuid4()), asyncio.get_running_loop().create_future())
        self._turn = turn
        self._retrying = None
        self._move(State.IN_TURN)
        cost_before = self.cost_usd
        self._idle.arm()
        try:
            async with asyncio.timeout(timeout):
                await self._send(frames.user_frame(prompt, turn.uuid))
                frame = await asyncio.shield(turn.answer)
        except AgentTimeout:
            raise  # the write's own; it is a TimeoutError too
        except TimeoutError:
            if not turn.answer.done():
                turn.expired = ("turn", timeout or 0.0)
                raise await self._turn_timed_out(turn) from None
            frame = turn.answer.result()
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
        result = frames.turn_result(
            frame,
            session_id=self.session_id,
            backend=self._backend,
            cost_before=cost_before,
        )
        self._account(result, time.monotonic() - started)
        return result

    async def _settled(self) -> None:
        """A turn whose caller was interrupted (Ctrl-C) has a few seconds to end by itself."""
        if self._turn is not None and self._turn.abandoned:
            with contextlib.suppress(AgentError, TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._turn.answer), INTERRUPT_GRACE + 5)

    def _require_ready(self) -> None:
        if self.state is State.READY:
            return
        name = self._launch.agent_id
        if self.state is State.IN_TURN:
            raise AgentBusy(
                f"agent '{name}' is in a turn: wait for its answer or interrupt it",
                context=self._context(),
            )
        raise self.ended_error()

    async def _turn_timed_out(self, turn: Turn) -> AgentTimeout:
        name = self._launch.agent_id
        which, timeout = turn.expired or self._expired or ("turn", 0.0)
        self._counters.add("vespera_runs_total", outcome="timed_out")
        self.abandon_turn()
        with contextlib.suppress(AgentError, TimeoutError):
            await asyncio.wait_for(asyncio.shield(turn.answer), INTERRUPT_GRACE)
        if not turn.answer.done():
            await self._end_for("no answer to the interrupt after a turn's time-out")
        alive = self.state is State.READY
        fate = "it was interrupted and lives on" if alive else "it was ended"
        retrying = f"; the CLI was retrying: {self._retrying}" if self._retrying else ""
        return AgentTimeout(
            f"agent '{name}': no result within {timeout:g} s (timeouts.{which}); {fate}{retrying} "
            f"({shown(self.stderr.text())})",
            which=which,
            after=timeout,
            context=self._context(),
        )

    def expire(self, which: str, limit: float) -> None:
        """A limit of time passed: the turn is stopped; the whole run's limit ends the agent."""
        if self.state.is_over:
            return
        if which == "total":
            self._expired = (which, limit)
            self.begin_kill("total time-out")
        elif self._turn is not None:
            self._turn.expired = (which, limit)
            self.abandon_turn()

    def _account(self, result: TurnResult, seconds: float) -> None:
        self.turns += 1
        self.outcome = result["outcome"]
        if result["total_cost_usd"] is not None:
            self.cost_usd = result["total_cost_usd"]
        self._counters.count_turn(result, seconds)
        self._log.info("turn %d: %s in %.3f s", self.turns, result["outcome"], seconds)

    def abandon_turn(self) -> None:
        """Interrupt the turn in flight; if it does not answer in time, end the agent."""
        turn = self._turn
        if turn is None or turn.abandoned:
            return
        turn.abandoned = True
        self._background(self._interrupt_or_end(turn))

    async def _interrupt_or_end(self, turn: Turn) -> None:
        await self.interrupt()
        await asyncio.wait({turn.answer}, timeout=INTERRUPT_GRACE)
        if not turn.answer.done():
            await self._end_for("no answer to an interrupt")

    async def interrupt(self) -> None:
        """Ask the CLI to stop its turn; does nothing when there is none."""
        if self._turn is None or self.state is not State.IN_TURN:
            return
        with contextlib.suppress(AgentError, TimeoutError):
            async with asyncio.timeout(INTERRUPT_GRACE):
                await self._ask({"subtype": "interrupt"})

    # -- writing ---------------------------------------------------------------------------

    async def _send(self, frame: Mapping[str, Any]) -> None:
        try:
            async with asyncio.timeout(self._write_deadline) as limit:
                await self._process.write(frames.encode(frame))
        except TimeoutError:
            if not limit.expired():
                raise
            # Half a frame may be on its way: nothing can follow it.
            await self._end_for("it did not read its stdin")
            raise AgentTimeout(
                f"agent '{self._launch.agent_id}': it read nothing for {self._write_deadline:g} s "
                f"(timeouts.write) and was ended ({shown(self.stderr.text())})",
                which="write",
                after=self._write_deadline,
                context=self._context(),
            ) from None
        except OSError as error:
            # It closed stdin, so it is on its way out: its exit says more than EPIPE.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._ended), _CLOSED_OUTPUT_GRACE)
            if not self._ended.done():
                await self._end_for(f"it closed its stdin ({error})")
            raise self.ended_error() from None

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
        self._background_tasks.noted()
        kinds: Counter[str] = Counter()
        for line in lines:
            if self._process.transcript is not None:
                self._process.transcript.agent(line)
            if not self.buried:
                kinds[self._on_line(line)] += 1
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
            self._log.debug("not a frame: %r", line[:200])
            return "output"
        if self.idle_limits is not None:
            self._idle.note(frame)
        kind = frame.get("type")
        if not isinstance(kind, str):
            self._publish("output", line, len(line))
            return "other"
        receive = self._RECEIVERS.get(kind)
        # Kept before the result is told: whoever hears of the end finds all events. A consumer
        # may change what it is given, so a frame that is read on is not given.
        if kind != "control_response":
            self._publish(kind, line, len(line), frame if receive is None else None)
        if receive is not None:
            receive(self, frame)
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
        answer = self._asked.get(str(response.get("request_id")))
        if answer is not None and not answer.done():
            answer.set_result(response)

    def _on_request(self, frame: Mapping[str, Any]) -> None:
        request = frame.get("request")
        if isinstance(request, Mapping) and request.get("subtype") == "can_use_tool":
            if self.listener is not None and self.listener.ask(json.dumps(frame).encode()):
                self._idle.asking.add(str(frame.get("request_id")))
                return
            self._log.warning("asks for %s: denied", request.get("tool_name"))
        self._background(self._reply(frames.answer_to(frame)))

    async def _reply(self, frame: Mapping[str, Any]) -> None:
        # A reply that cannot be written means that the agent is ending; its end is reported.
        with contextlib.suppress(AgentError):
            await self._send(frame)

    def _on_result(self, frame: Mapping[str, Any]) -> None:
        turn = self._turn
        answered = frame.get("user_message_uuids")
        if turn is None or (isinstance(answered, list) and answered and turn.uuid not in answered):
            # A background task's own result: no turn of ours ends with it.
            self._log.debug("a result outside of the turn")
            if turn is None and self.listener is not None and self.state is State.READY:
                self._late_result(frame)
            return
        self._turn = None
        if self.state is State.IN_TURN:
            self._move(State.READY)
        if not turn.answer.done():
            turn.answer.set_result(frame)

    def _late_result(self, frame: Mapping[str, Any]) -> None:
        result = frames.turn_result(
            frame,
            session_id=self.session_id,
            backend=self._backend,
            cost_before=self.cost_usd,
        )
        self._account(result, 0.0)
        if self.listener is not None:
            self.listener.late_result(result)

    def _on_system(self, frame: Mapping[str, Any]) -> None:
        self._background_tasks.follow(frame)
        if frame.get("subtype") == "api_retry":
            self._retrying = f"{frame.get('error')} (HTTP {frame.get('error_status')})"
            self._log.warning("the CLI retries: %s", self._retrying)

    def _on_reset(self, frame: Mapping[str, Any]) -> None:
        for key in ("new_conversation_id", "new_session_id", "session_id"):
            if isinstance(frame.get(key), str):
                self.session_id = frame[key]
                return

    _RECEIVERS: Mapping[str, Callable[[Conversation, Mapping[str, Any]], None]] = {
        "control_response": _on_response,
        "control_request": _on_request,
        "result": _on_result,
        "system": _on_system,
        "conversation_reset": _on_reset,
    }

    def _on_stdout_end(self) -> None:
        self._mute = self._loop.call_later(_CLOSED_OUTPUT_GRACE, self._end_if_mute)

    def _end_if_mute(self) -> None:
        if self.state is not State.DRAINING:
            self.begin_kill("it closed its output but did not exit")

    async def ask(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """A control request of the host; the CLI's response, also when it says no."""
        return await self._ask(request)

    async def answer(self, ask: str, frame: Mapping[str, Any]) -> None:
        """The host's answer to a permission ask; nothing happens when it was withdrawn."""
        if ask in self._idle.asking:
            self._idle.asking.discard(ask)
            await self._reply(frame)

    async def background_quiet(self) -> None:
        """Wait until no background task is in flight and the CLI has been quiet for a while."""
        await self._background_tasks.quiet(self._ended)

    async def leave(self, after_result: float) -> None:
        """A run has said everything: its input ends and it leaves, or is made to."""
        if self._ended.done():
            return
        self._move(State.DRAINING)
        self._process.end_input()
        if not await self._ends_within(after_result):
            self.terminate()
            if not await self._ends_within(1.0):
                self.force()

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

    # -- the end ---------------------------------------------------------------------------

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

    async def interrupt_quietly(self) -> None:
        """A turn in flight is told to stop, so that the transcript ends cleanly; no waiting."""
        if self._turn is not None:
            with contextlib.suppress(AgentError, OSError, TimeoutError):
                request = frames.control_request("vespera-stop", {"subtype": "interrupt"})
                async with asyncio.timeout(0.2):
                    await self._process.write(frames.encode(request))

    def _on_exit(self) -> None:
        """Exited, plus a bounded drain; then the sweep, then the zombie, then the waiters."""
        self.note_exit()
        self.sweeper.sweep(_SWEEP_DEADLINE, self.conclude)

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
        if survivors:
            self._log.error("processes that would not die: %s", survivors)
        self.sweeper.forget_leader()
        self._process.reap()
        self._launch.discard()
        self.exit_status = self._limits.exit_status(
            *self._died, self._ended_by, self._why, [str(pid) for pid in survivors]
        )
        self._move(State.ENDED if self._greeted else State.SPAWN_FAILED)
        self._log.info("ended: %s", self.exit_status.reason)
        # A closed loop wakes nobody, and says so.
        with contextlib.suppress(RuntimeError):
            self._fail_waiters()
            self._ended.set_result(self.exit_status)
        self.on_end()
        # They hold us: without this only the collector would let go of all.
        self.listener = None
        self.on_end = _nothing

    def _fail_waiters(self) -> None:
        turn, self._turn = self._turn, None
        waiting = [*self._asked.values(), *([turn.answer] if turn else [])]
        for future in waiting:
            if not future.done():
                future.set_exception(self.ended_error())
                # Seen: whoever was interrupted waits no more, and that is no unhandled error.
                future.exception()

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
