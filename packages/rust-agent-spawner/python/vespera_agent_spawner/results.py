"""Responsible for what the package answers with: plain values that pickle, copy and compare.

Durations are seconds (float) unless a name says otherwise, sizes are bytes (int), times of day
are Unix seconds (float), money is US dollars (float).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NotRequired, TypedDict

__all__ = [
    "AgentInfo",
    "ExitStatus",
    "Outcome",
    "RunResult",
    "State",
    "TurnResult",
    "Usage",
]


class Outcome(StrEnum):
    """How a turn or a run ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    KILLED = "killed"
    OUT_OF_MEMORY = "out_of_memory"
    LIMIT_EXCEEDED = "limit_exceeded"
    BUDGET_EXCEEDED = "budget_exceeded"
    AUTH_FAILED = "auth_failed"
    RATE_LIMITED = "rate_limited"
    INCOMPLETE = "incomplete"
    SPAWN_FAILED = "spawn_failed"


#: By their names: calling the class looks them up through several functions.
OUTCOMES = {outcome.value: outcome for outcome in Outcome}


class State(StrEnum):
    """Where an agent is in its life."""

    QUEUED = "queued"
    STARTING = "starting"
    READY = "ready"
    IN_TURN = "in_turn"
    WAITING_FOR_PERMISSION = "waiting_for_permission"
    DRAINING = "draining"
    ENDED = "ended"
    SPAWN_FAILED = "spawn_failed"

    @property
    def is_over(self) -> bool:
        """True when nothing of the agent is left: its id may be used again."""
        return self in (State.ENDED, State.SPAWN_FAILED)

    @property
    def is_in_turn(self) -> bool:
        """True while a prompt has no result yet."""
        return self in (State.IN_TURN, State.WAITING_FOR_PERMISSION)


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How an agent's process ended.

    ``code`` is the exit code, ``signal`` the number of the signal; both are None when nobody
    could learn them (the host reaped the process), when no process was started, or when it did not
    end even by force. ``by`` says who ended it: ``"agent"`` (by itself), ``"interrupt"`` (our
    SIGINT), ``"shutdown"`` (stdin ended, it left), ``"terminate"`` (our SIGTERM), ``"kill"`` (our
    SIGKILL), ``"limit"`` (the kernel, for one of its limits), ``"oom"`` (the kernel, out of
    memory), ``"guardian"`` (its leash or its guardian died), ``"outside"`` (somebody else's
    signal), ``"spawn"`` (it never started) or ``"unknown"``. ``reason`` says the same in words, and
    names up to eight processes that are still alive.
    """

    code: int | None
    signal: int | None
    by: str
    reason: str

    @property
    def success(self) -> bool:
        """True when the process left with exit code 0."""
        return self.code == 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What the whole process tree of an agent uses now (``cpu_seconds``: since its start).

    The share of a process that has not run since it was looked at before may be as of then, for up
    to ten seconds: the kernel may have taken memory from it meanwhile.
    """

    rss: int
    cpu_seconds: float
    processes: int
    open_files: int


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """One agent as it is at this moment.

    ``cost_usd``: what this process has cost, None until a turn told it. ``total_cost_usd``: what
    its session has, in all processes, as the CLI tells it.
    """

    agent_id: str
    session_id: str
    pid: int | None
    state: State
    backend: str
    containment: str
    started_at: float
    turns: int = 0
    cost_usd: float | None = None
    outcome: Outcome | None = None
    total_cost_usd: float | None = None


class TurnResult(TypedDict):
    """One turn. It is plain data: ``json.dumps`` takes it as it is.

    ``is_error`` and ``outcome`` tell how the turn ended; ``error`` says why in words when it is
    not ``completed``. ``usage`` counts this turn's tokens, ``total_cost_usd`` is the session's
    cost so far (as the CLI tells it: cumulative, with what it restored of the session's earlier
    processes) and ``cost_usd`` this turn's share.
    """

    outcome: str
    result: str | None
    session_id: str
    is_error: bool
    num_turns: int
    duration_ms: int
    usage: dict[str, Any]
    total_cost_usd: float | None
    structured_output: Any
    backend: str
    cost_usd: NotRequired[float | None]
    error: NotRequired[str | None]
    metadata: NotRequired[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class RunResult:
    """One run from start to the end of its process tree. ``duration`` in seconds.

    ``cost_usd``: what this run, or turn, has cost, in all attempts. ``total_cost_usd``: what its
    session has, with the runs before that it goes on from, as the CLI tells it.
    ``cpu_seconds``: what the whole tree used, as far as its owner could reap it; None for a turn
    of a session and for an agent that never started.
    ``agent_id``: whose it is, given or made, also where nothing started; ``session_id`` is empty
    there, unless the configuration has one.
    """

    outcome: Outcome
    result: str | None
    session_id: str
    exit: ExitStatus | None
    turns: int
    usage: Mapping[str, Any]
    cost_usd: float | None
    duration: float
    time_to_first_output: float | None
    attempts: int = 1
    stderr_tail: str = ""
    error: str | None = None
    orphans_reaped: int = 0
    backend: str = ""
    containment: str = ""
    structured_output: Any = field(default=None)
    cpu_seconds: float | None = None
    total_cost_usd: float | None = None
    agent_id: str = ""
