"""Responsible for the plain values that go into a task queue and come out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from vespera_agent_spawner.errors import ConfigError

__all__ = ["Claim", "Start", "TaskEvent", "TaskRecord", "TaskSpec", "TaskState"]

_LONGEST_ID = 200
# What SQLite keeps exactly, less the range that nobody needs.
_PRIORITY = 1_000_000


class TaskState(StrEnum):
    """Where a task is: ``pending`` (also while it waits for others), ``running``, ``ended``."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"


class Start(StrEnum):
    """How a claimed task begins: fresh, in its old session, or in a fresh one once more."""

    STARTED = "started"
    RESUMED = "resumed"
    RESTARTED = "restarted"


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One task to be done.

    ``config`` is JSON data for whoever runs the task. ``needs`` are the tasks that must complete
    first. A higher ``priority`` goes first. ``restart=False`` ends the task ``incomplete`` where
    it would have to begin again in a fresh session. ``extra`` is JSON data of whoever adds the
    task: it is kept with it and looked at by nobody else.
    """

    task_id: str
    config: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    priority: int = 0
    restart: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.task_id or len(self.task_id) > _LONGEST_ID or not self.task_id.isprintable():
            _refuse("task_id", self.task_id, f"use 1 to {_LONGEST_ID} printable characters")
        needs: Any = self.needs  # callers without a type checker pass one id, a str of letters
        if isinstance(needs, str):
            _refuse("needs", self.needs, "give a tuple of task ids")
        if isinstance(self.priority, bool) or not -_PRIORITY <= self.priority <= _PRIORITY:
            _refuse("priority", self.priority, f"use an integer from -{_PRIORITY} to {_PRIORITY}")


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to work on a task until ``lease_until`` (Unix seconds), longer by heartbeats.

    ``token`` is unlike that of every other claim, so that a late owner can write nothing.
    """

    task_id: str
    config: Mapping[str, Any]
    session_id: str
    start: Start
    attempts: int
    token: str
    lease_until: float
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskRecord:
    """A task as the queue knows it. ``attempts`` counts the sessions that it was given.

    ``started_at`` (its first claim) and ``ended_at`` are Unix seconds.
    """

    task_id: str
    config: Mapping[str, Any]
    needs: tuple[str, ...]
    priority: int
    restart: bool
    state: TaskState
    attempts: int
    session_id: str | None
    outcome: str | None
    result: Any
    error: str | None
    cost_usd: float | None
    extra: Mapping[str, Any] = field(default_factory=dict)
    started_at: float | None = None
    ended_at: float | None = None


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """Something that happened to a task at ``at`` (Unix seconds)."""

    at: float
    kind: str
    detail: Mapping[str, Any]


def _refuse(name: str, value: object, remedy: str) -> None:
    raise ConfigError(f"{name} = {value!r}: {remedy}", field=name, value=value, remedy=remedy)
