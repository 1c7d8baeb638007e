"""Responsible for the Rust backend's face: it translates values and nothing else.

Importing this module imports the extension and raises what that raises.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from vespera_agent_spawner import _native
from vespera_agent_spawner._counters import Counters, merge, series
from vespera_agent_spawner._ids import random_uuid
from vespera_agent_spawner._snapshot import snapshot
from vespera_agent_spawner.adapters.claude_frames import (
    Refused,
    control_request,
    encode,
    turn_result,
)
from vespera_agent_spawner.adapters.launch import Launch, prepare
from vespera_agent_spawner.backends._diagnostics import Diagnostics
from vespera_agent_spawner.backends._ending import exit_status, exit_status_of
from vespera_agent_spawner.backends._loop_bridge import LoopBridge
from vespera_agent_spawner.backends._protocol import Ownership, Session, Standby, Summary
from vespera_agent_spawner.errors import SpawnError
from vespera_agent_spawner.events import Event, exact_frame_of
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
    from vespera_agent_spawner.config import AgentConfig, Limits, Timeouts

__all__ = ["RustBackend", "RustSession"]

# What of a configuration the engine decides by; the rest is in argv and the environment.
_ENGINE = ("adapter", "timeouts", "limits", "overflow", "agents")

# Code, signal, rung, reason, what the kernel ended it for, who outlived force.
_Told = tuple[int | None, int | None, str | None, str | None, str | None, list[str]]

_STATES = {state.value: state for state in State}


class RustBackend:
    """Starts agents through the guardian."""

    name = "rust"

    def __init__(self) -> None:
        self.build = _native.build_info()
        self._counters = Counters()
        self._diagnostics = Diagnostics()
        # Those that a bridge holds anyway are here once somebody reads their events.
        self._sessions: weakref.WeakSet[RustSession] = weakref.WeakSet()
        self._bridges: dict[asyncio.AbstractEventLoop, LoopBridge] = {}
        #: In a forked child: what is the parent's.
        self._forgotten: list[object] = []

    def containment(self) -> str:
        return _native.containment()[0]

    def containment_reason(self) -> str:
        return _native.containment()[1]

    def tier(self) -> str:
        try:
            return _tier()
        except SpawnError:
            return ""

    def metrics(self) -> dict[str, float]:
        merged = self._counters.snapshot()
        merge(merged, _native.metrics())
        sessions = self._known()
        merged["vespera_queue_depth"] = float(sum(one.backlog()[0] for one in sessions))
        used = self.usage_of(sessions)
        merged["vespera_tree_rss_bytes"] = float(sum(one.rss for one in used))
        return merged

    def usage_of(self, sessions: Sequence[Session]) -> list[Usage]:
        leashes = [one.leash if isinstance(one, RustSession) else 0 for one in sessions]
        return [Usage(*used) for used in _native.usage_of(leashes)]

    def spawn(self, config: AgentConfig) -> RustSession:
        launch = prepare(config)
        self._diagnostics.look()
        try:
            native = _native.Session.spawn(
                _settings_of(config),
                _encoded(launch),
                (launch.agent_id, launch.session_id, launch.argv, launch.working_directory),
                (launch.host_death_grace, launch.cgroup, launch.transcript, 0),
            )
        except BaseException:
            self._counters.add("vespera_spawns_total", outcome="spawn_failed")
            launch.discard()
            raise
        self._counters.add(_SPAWNED)
        session = RustSession(native, launch, config.limits, self._counters)
        self._sessions.add(session)
        return session

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
    ) -> RustSession:
        bridge = self._bridge()
        if lookups is not None:
            lookups.moment = bridge.moment
        launch = prepare(config, (), ownership, lookups)
        self._diagnostics.look()
        prompt = None if spare else _prompt_of(config)
        # Not a cast, which is a call.
        ours: Any = standby
        try:
            native = _native.Session.start(
                _settings_of(config),
                launch.environment.encoded or _encoded(launch),
                (launch.agent_id, launch.session_id, launch.argv, launch.working_directory),
                (launch.host_death_grace, launch.cgroup, launch.transcript, bridge.moment),
                bridge.native,
                prompt,
                _answers(config, launch),
                (counting, spare, ours, stands_by),
                listening,
            )
        except BaseException:
            # One that stands by is started again, in its turn.
            if not stands_by:
                self._counters.add("vespera_spawns_total", outcome="spawn_failed")
            launch.discard()
            bridge.close_if_idle()
            raise
        session = RustSession(native, launch, config.limits, self._counters)
        session.bridge, session.readers = bridge, self._sessions
        if listening:
            self._sessions.add(session)
        bridge.add(native.number, session, news, None if stands_by else native)
        return session

    def standby(self, most_starting: int) -> _native.Standby:
        return _native.Standby(most_starting)

    def _bridge(self) -> LoopBridge:
        loop = asyncio.get_running_loop()
        bridge = self._bridges.get(loop)
        if bridge is None or bridge.closed:
            # A bridge holds its loop and a descriptor: those of loops that are done with go here.
            for other, old in snapshot(self._bridges.items):
                if old.closed and other.is_closed():
                    self._bridges.pop(other, None)
            bridge = self._bridges[loop] = LoopBridge(loop)
        return bridge

    def _known(self) -> list[RustSession]:
        """Everybody who lives, or has events that nobody has taken."""
        known = set(snapshot(lambda: self._sessions))
        for bridge in snapshot(self._bridges.values):
            known.update(bridge.sessions())
        return list(known)

    def close(self, grace: float) -> None:
        threads = []
        for session in self._known():
            if session.state.is_over or session.withdraw():
                continue
            thread = threading.Thread(target=_end_quietly, args=(session, grace), daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # Late in the interpreter's exit no thread can be started: one after the other.
                _end_quietly(session, 0.0)
            else:
                threads.append(thread)
        for thread in threads:
            thread.join(grace + 5)
        self._diagnostics.close()

    def forget_in_fork(self) -> None:
        # The extension has closed its descriptors (pthread_atfork).
        for session in self._known():
            session.forget_in_fork()
        for bridge in snapshot(self._bridges.values):
            bridge.forget_in_fork()
        # Kept, as who lets go of an agent ends it.
        self._forgotten.append(self._bridges)
        self._bridges = {}
        self._sessions = weakref.WeakSet()
        self._diagnostics.forget_in_fork()


_SPAWNED = series("vespera_spawns_total", outcome="completed")


def _answers(config: AgentConfig, launch: Launch) -> tuple[bool, bool, str | None]:
    """Whether the host decides on tools, whether it has functions, and its hooks as JSON."""
    hooks = (launch.initialize or {}).get("hooks")
    return (
        config.on_permission is not None,
        config.hooks is not None or config.tools is not None,
        None if hooks is None else _hooks_text(hooks),
    )


# The agents of a fleet mostly have the same hooks, and one object that nobody changes for them.
_written: tuple[Mapping[str, Any], str] = ({}, "{}")


def _hooks_text(hooks: Mapping[str, Any]) -> str:
    global _written
    last, text = _written
    if last is not hooks:
        text = json.dumps(hooks)
        _written = (hooks, text)
    return text


def _encoded(launch: Launch) -> _native.Environment:
    environment = launch.environment
    if environment.encoded is None:
        environment.encoded = _native.Environment(
            [(os.fsencode(name), os.fsencode(value)) for name, value in environment.items()]
        )
    encoded: _native.Environment = environment.encoded
    return encoded


# Agents of a fleet mostly share their timeouts and limits, as objects: what the engine makes of
# them is kept with them, so that no id can be another's.
_Shared = tuple["Timeouts | None", "Limits | None", _native.Settings]
_settings: OrderedDict[tuple[str, int, int, str], _Shared] = OrderedDict()
_KEPT_SETTINGS = 64


def _settings_of(config: AgentConfig) -> _native.Settings:
    timeouts, limits = config.timeouts, config.limits
    key = (config.adapter, id(timeouts), id(limits), config.overflow)
    known = _settings.get(key) if config.agents is None else None
    if known is not None:
        return known[2]
    given = config._given()
    told = {name: given[name] for name in _ENGINE if name in given}
    text = json.dumps(told, ensure_ascii=False).encode("utf-8", "replace").decode("utf-8")
    settings = _native.Settings(text)
    if config.agents is None:
        _settings[key] = (timeouts, limits, settings)
        while len(_settings) > _KEPT_SETTINGS:
            _settings.popitem(last=False)
    return settings


@functools.cache
def _tier() -> str:
    """The tier without a cgroup; asked once, as the answer takes a look at the guardian."""
    return _native.containment()[0]


def _prompt_of(config: AgentConfig) -> tuple[str, str] | None:
    return None if config.prompt is None else (config.prompt, random_uuid())


def _end_quietly(session: RustSession, grace: float) -> None:
    try:
        session.shutdown(grace)
    except Exception:
        session.kill()


class RustSession:
    """One agent of the Rust backend."""

    backend_name = RustBackend.name
    tells_itself = True

    def __init__(
        self,
        native: _native.Session,
        launch: Launch,
        limits: Limits | None,
        counters: Counters,
    ) -> None:
        self._native = native
        self._limits = limits
        self._launch = launch
        self._counters = counters
        self._started_at = time.time()
        self.was_over = False
        self.turns_ended = 0
        self.has_answers = False
        #: Where its news are told; none for one of a thread that waits.
        self.bridge: LoopBridge | None = None
        #: Who may have events that nobody has taken.
        self.readers: weakref.WeakSet[RustSession] | None = None
        self._ending = threading.Lock()
        self.containment = _tier() if launch.cgroup is None else "cgroup"
        self._exit: ExitStatus | None = None
        self._discard: weakref.finalize[[], RustSession] | None = None
        if launch.private_directory is not None:
            self._discard = weakref.finalize(self, launch.discard)

    @property
    def agent_id(self) -> str:
        return self._native.agent_id

    @property
    def session_id(self) -> str:
        return self._native.session_id

    @property
    def pid(self) -> int | None:
        return self._native.pid

    @property
    def state(self) -> State:
        return _STATES[self._native.state()]

    @property
    def stderr_tail(self) -> str:
        return self._native.stderr_tail()

    @property
    def exit_status(self) -> ExitStatus | None:
        if self._exit is None and (told := self._native.ending()) is not None:
            self._remember(told)
        return self._exit

    def summary(self) -> Summary:
        state, *rest = self._native.summary()
        return cast("Summary", (_STATES[state], *rest))

    def info(self) -> AgentInfo:
        session_id, pid, state, turns, cost, outcome, total = self._native.info()
        return AgentInfo(
            agent_id=self.agent_id,
            session_id=session_id,
            pid=pid,
            state=_STATES[state],
            backend=RustBackend.name,
            containment=self.containment,
            started_at=self._started_at,
            turns=turns,
            cost_usd=cost,
            outcome=Outcome(outcome) if outcome else None,
            total_cost_usd=total,
        )

    def spent(self) -> tuple[float, int, int]:
        return self._native.spent()

    def usage(self) -> Usage:
        return Usage(*self._native.usage())

    @property
    def leash(self) -> int:
        """The process under which the whole tree is; 0 while there is none."""
        return self._native.leash

    def execute(self, prompt: str, timeout: float | None) -> TurnResult:
        return self._result(*self._native.execute(prompt, random_uuid(), timeout))

    def _result(
        self,
        told: bytes | dict[str, Any],
        cost_before: float | None,
        refused: tuple[str, str] | None,
    ) -> TurnResult:
        # A line that is no frame raises what json says of it.
        frame = told if isinstance(told, dict) else exact_frame_of(told) or json.loads(told)
        return turn_result(
            frame,
            session_id=frame.get("session_id") or self.session_id,
            backend=RustBackend.name,
            cost_before=cost_before,
            refused=None if refused is None else Refused(Outcome(refused[0]), refused[1]),
        )

    # -- on an event loop ------------------------------------------------------------------

    @property
    def last_line(self) -> str:
        return self._native.last_line()

    @property
    def transcript_lost(self) -> str | None:
        return self._native.transcript_lost()

    @property
    def refused(self) -> tuple[str, str] | None:
        return self._native.refused()

    def heard(self) -> State | None:
        heard = self._native.heard()
        if heard is None:
            return None
        over, state, self.turns_ended, self.has_answers = heard
        # Its owner may ask before the ring that tells of its end.
        self.was_over = self.was_over or over
        return _STATES[state]

    def listen(self, listening: bool) -> None:
        if listening and self.readers is not None:
            self.readers.add(self)
        self._native.listen(listening)

    def take_events(self, limit: int) -> list[Event]:
        return cast("list[Event]", self._native.take_events(limit))

    def backlog(self) -> tuple[int, int, int]:
        return self._native.backlog()

    def waiting_kinds(self) -> set[str]:
        return self._native.kinds()

    def take_asks(self) -> list[bytes]:
        return self._native.take_asks()

    def take_answers(self) -> list[tuple[str, bytes]]:
        return self._native.take_answers()

    def noted(self) -> None:
        self._native.noted()

    def answer(self, ask: str, frame: Mapping[str, Any]) -> None:
        self._native.answer(ask, encode(frame))

    def request(self, request: Mapping[str, Any]) -> str:
        request_id = f"vespera-{random_uuid()}"
        self._native.write(encode(control_request(request_id, request)))
        return request_id

    def write(self, data: bytes) -> None:
        self._native.write(data)

    def end_input(self) -> None:
        self._native.end_input()

    def begin_turn(self, prompt: str, timeout: float | None) -> None:
        self._native.begin_turn(prompt, random_uuid(), timeout)

    def take_turn(self) -> TurnResult | None:
        self.turns_ended -= 1
        taken = self._native.take_turn()
        return None if taken is None else self._result(*taken)

    def check_start(self) -> None:
        # Whose end nobody has heard of was ready.
        if self.was_over and self.state is State.SPAWN_FAILED:
            self._counters.add("vespera_spawns_total", outcome="spawn_failed")
            self._native.raise_start_failure()
        self._counters.add(_SPAWNED)

    def abandon(self) -> None:
        self._native.abandon()

    def claim(self, config: AgentConfig, news: Callable[[], bool], *, listening: bool) -> None:
        if self.bridge is not None:
            self.bridge.add(self._native.number, self, news)
        if listening and self.readers is not None:
            self.readers.add(self)
        self._started_at = time.time()
        self._native.claim(config.agent_id or "", _prompt_of(config), listening)

    def has_begun(self) -> bool:
        return self._native.has_begun()

    def withdraw(self) -> bool:
        if not self._native.withdraw():
            return False
        if self.bridge is not None:
            self.bridge.forget(self._native.number)
        if self._discard is not None:
            self._discard()
        return True

    def entered(self) -> float:
        age = self._native.age()
        self._started_at = time.time() - age
        return age

    def begin_shutdown(self, grace: float) -> None:
        self._native.begin_shutdown(grace)

    # -- from any thread -------------------------------------------------------------------

    def interrupt(self) -> None:
        self._native.interrupt()

    def shutdown(self, grace: float) -> ExitStatus:
        if self._exit is not None:
            return self._exit
        return self._remember(self._native.shutdown(grace))

    def kill(self) -> None:
        self._native.kill()

    def forget_in_fork(self) -> None:
        # The files are the parent's.
        if self._discard is not None:
            self._discard.detach()

    def _remember(self, told: _Told) -> ExitStatus:
        with self._ending:
            if self._exit is None:
                code, number, by, why, cause, survivors = told
                if by is None and cause is not None:
                    self._exit = exit_status_of(cause, code, number, self._limits, survivors)
                else:
                    why = why if by == "kill" else None
                    self._exit = exit_status(code, number, by, why, survivors)
                if self._discard is not None:
                    self._discard()
            return self._exit


Event.register(_native.Event)
