"""Responsible for what the agent tools answer, and how a member of the fleet is told of."""

from __future__ import annotations

from pydantic import BaseModel, Field

from vespera_server.serve.answers import Answer
from vespera_server.serve.event_log import Entry
from vespera_server.serve.member import Member

__all__ = [
    "AgentRow",
    "EndAnswer",
    "EventsAnswer",
    "ListAnswer",
    "MetricsAnswer",
    "SpawnAnswer",
    "StatusAnswer",
    "TurnAnswer",
    "fit",
    "row_of",
    "tell_turn",
]


class AgentRow(BaseModel):
    """One agent as it is at this moment."""

    agent_id: str
    session_id: str | None = None
    state: str = Field(description="starting, ready, in_turn, waiting_for_permission, ended, …")
    backend: str
    containment: str | None = Field(
        default=None, description="What is guaranteed about its processes: cgroup, subreaper, …"
    )
    pid: int | None = None
    turns: int = 0
    cost_usd: float | None = Field(default=None, description="US dollars so far.")
    outcome: str | None = Field(default=None, description="How its last turn or its task ended.")
    working_directory: str | None = None
    started_at: float = Field(description="Unix seconds.")
    activity: str | None = Field(default=None, description="What it did last.")
    failure: str | None = Field(default=None, description="Why it never started.")
    cursor: int = Field(description="Where its events end now.")


class SpawnAnswer(Answer):
    """A session that was started."""

    agent_id: str | None = None
    session_id: str | None = None
    state: str | None = None


class TurnAnswer(Answer):
    """A turn: its result, or `state` "running" and the cursor to go on from."""

    agent_id: str | None = None
    session_id: str | None = None
    state: str | None = Field(default=None, description="'running', or 'done' with an outcome.")
    cursor: int | None = Field(default=None, description="Give it to agent_events.")
    outcome: str | None = Field(default=None, description="completed, failed, timed_out, …")
    result: str | None = Field(default=None, description="The agent's last words.")
    turns: int | None = None
    cost_usd: float | None = Field(default=None, description="US dollars of this turn.")
    duration_seconds: float | None = None


class EventsAnswer(TurnAnswer):
    """What an agent did since a cursor; with the result once its turn is over."""

    events: list[Entry] = Field(default_factory=list)
    missed: int | None = Field(default=None, description="Events that are no longer kept.")
    more: bool | None = Field(default=None, description="Whether there are further events already.")


class StatusAnswer(Answer):
    agent: AgentRow | None = None


class ListAnswer(Answer):
    agents: list[AgentRow] = Field(default_factory=list)
    spent_usd: float | None = Field(default=None, description="US dollars of all agents so far.")


class EndAnswer(Answer):
    """How an agent's process ended."""

    agent_id: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    ended_by: str | None = Field(default=None, description="agent, shutdown, terminate, kill, …")
    reason: str | None = None


class MetricsAnswer(Answer):
    metrics: dict[str, float] = Field(
        default={}, description="Counters and gauges, named as Prometheus prints them."
    )


def tell_turn(member: Member, answer: TurnAnswer) -> TurnAnswer:
    """What is to be said of the last turn, or of the task."""
    answer.agent_id = member.agent_id
    answer.session_id = member.session_id
    answer.backend = member.backend
    answer.cursor = member.turn_began
    result = member.result
    if member.in_turn or (member.is_task and not member.is_over):
        answer.state = "running"
        return answer
    answer.state = "done" if member.turn is not None or member.is_task else str(member.state)
    if result is not None:
        answer.outcome = str(result.outcome)
        answer.result = None if result.result is None else member.log.redact(result.result)
        answer.turns = result.turns
        answer.cost_usd = result.cost_usd
        answer.duration_seconds = round(result.duration, 3)
        answer.message = None if result.error is None else member.log.redact(result.error)
    return answer


def row_of(member: Member) -> AgentRow:
    info = member.agent.info() if member.agent is not None else None
    outcome = member.result.outcome if member.result is not None else None
    return AgentRow(
        agent_id=member.agent_id,
        session_id=member.session_id,
        state=str(member.state),
        backend=member.backend,
        containment=info.containment if info else None,
        pid=info.pid if info else None,
        turns=info.turns if info else 0,
        cost_usd=info.cost_usd if info else None,
        outcome=str(outcome) if outcome else None,
        working_directory=member.config.working_directory,
        started_at=member.since,
        activity=member.activity,
        failure=None if member.failure is None else member.log.redact(str(member.failure)),
        cursor=member.log.cursor,
    )


def fit(answer: EventsAnswer, largest: int) -> None:
    """Leave out the newest events that do not fit; there is always one."""
    size = 0
    for number, entry in enumerate(answer.events):
        size += len(entry.model_dump_json())
        if size > largest and number > 0:
            del answer.events[number:]
            return
