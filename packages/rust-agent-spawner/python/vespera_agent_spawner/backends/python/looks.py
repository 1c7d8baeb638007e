"""Responsible for what a session of the Python backend shows of itself; nothing here changes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vespera_agent_spawner.backends._protocol import Summary
from vespera_agent_spawner.backends.python.conversation import Conversation
from vespera_agent_spawner.backends.python.program import Program
from vespera_agent_spawner.errors import AgentError
from vespera_agent_spawner.results import AgentInfo, ExitStatus, Outcome, State, Usage

if TYPE_CHECKING:
    from vespera_agent_spawner.adapters.launch import Launch
    from vespera_agent_spawner.backends.python import PythonBackend
    from vespera_agent_spawner.backends.python.process import ChildProcess
    from vespera_agent_spawner.backends.python.roll import Roll
    from vespera_agent_spawner.config import AgentConfig

__all__ = ["LiveLooks"]

_TIER = "pgroup"


class LiveLooks:
    """The part of ``LiveSession`` that only looks."""

    _backend: PythonBackend
    _config: AgentConfig
    _launch: Launch
    _process: ChildProcess | None
    _conversation: Conversation | None
    _failure: AgentError | None
    _talks: bool
    _in_turn: bool
    _ready: bool
    _over: bool
    _started_at: float
    _first_output: float | None
    spare: bool

    @property
    def _is_run(self) -> bool:
        return self._config.prompt is not None and not self.spare

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
        if self._conversation is None:
            return State.STARTING
        state = self._conversation.state
        if state.is_over and not self._over:
            # The process is gone, but what it said last is still on its way.
            return State.DRAINING if self._ready else State.STARTING
        if state is State.DRAINING and not self._ready:
            # It is being ended before it was ready: how its start went is not known yet.
            return State.STARTING
        if state is State.READY and (self._in_turn or not self._talks or self._is_run):
            return State.IN_TURN
        return state

    @property
    def stderr_tail(self) -> str:
        if self._conversation is not None:
            return self._conversation.stderr.text()
        return "" if self._failure is None else self._failure.stderr_tail

    @property
    def exit_status(self) -> ExitStatus | None:
        if self._conversation is not None:
            return self._conversation.exit_status
        if self._failure is not None:
            return ExitStatus(None, None, "spawn", f"never started: {self._failure}")
        return None

    @property
    def last_line(self) -> str:
        talk = self._conversation
        return talk.last_line if isinstance(talk, Program) else ""

    @property
    def transcript_lost(self) -> str | None:
        return self._process.transcript_lost if self._process is not None else None

    @property
    def refused(self) -> tuple[str, str] | None:
        talk = self._conversation
        if talk is None or talk.refused is None:
            return None
        return talk.refused.outcome, talk.refused.words

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
            total_cost_usd=None if talk is None else talk.total_cost_usd,
        )

    @property
    def backend_name(self) -> str:
        return self._backend.name

    @property
    def tells_itself(self) -> bool:
        return False

    @property
    def containment(self) -> str:
        return _TIER

    def summary(self) -> Summary:
        talk = self._conversation
        return (
            self.state,
            self.session_id,
            0 if talk is None else talk.turns,
            None if talk is None else talk.cost_usd,
            None if talk is None else talk.total_cost_usd,
            self._first_output,
            self.stderr_tail,
            0 if talk is None else talk.orphans_reaped,
            None if self._process is None else self._process.cpu_seconds,
        )

    def spent(self) -> tuple[float, int, int]:
        talk = self._conversation
        return (0.0, 0, 0) if talk is None else talk.spent

    def usage(self) -> Usage:
        return self.usage_in(None)

    def usage_in(self, roll: Roll | None) -> Usage:
        """``usage()``, read from a roll that others share and that has looked."""
        talk = self._conversation
        if talk is None or self.state.is_over:
            used = 0.0 if self._process is None else self._process.cpu_seconds or 0.0
            return Usage(rss=0, cpu_seconds=used, processes=0, open_files=0)
        return talk.sweeper.usage(roll)
