"""Responsible for batches of tasks: several agents with one prompt each, followed by one name.

What is here lives in memory and ends with the server; ``kept_batches`` are in a file.
"""

from __future__ import annotations

import abc
import asyncio
import secrets
from collections.abc import Sequence

from pydantic import BaseModel, Field

from vespera_agent_spawner import AgentNotFound, RunResult
from vespera_server.executor import describe
from vespera_server.problems import Problem, Refused, problem_of
from vespera_server.serve.fleet import Fleet
from vespera_server.serve.member import Member
from vespera_server.serve.policy import Wish

__all__ = [
    "Batch",
    "BatchInMemory",
    "BatchRow",
    "Batches",
    "BatchesInMemory",
    "TaskRow",
    "enlist_all",
    "new_batch_id",
    "row_of_living",
    "tell",
]

_KEPT = 64


class TaskRow(BaseModel):
    """One task of a batch as it is at this moment."""

    agent_id: str
    state: str = Field(
        description="queued, starting, in_turn, …, ended; interrupted: it did not end and nobody "
        "works on it, run_tasks with batch_id and resume goes on."
    )
    session_id: str | None = None
    backend: str | None = None
    success: bool | None = Field(default=None, description="Once it has ended.")
    outcome: str | None = None
    start: str | None = Field(
        default=None,
        description="How it began last: started, resumed (in its old session) or restarted (in a "
        "fresh one, as the old one is gone). With a task database.",
    )
    attempts: int | None = Field(
        default=None, description="Sessions that it was given. With a task database."
    )
    result: str | None = None
    cost_usd: float | None = Field(default=None, description="US dollars.")
    duration_seconds: float | None = None
    activity: str | None = None
    error: Problem | None = None


class BatchRow(BaseModel):
    """A batch in short."""

    batch_id: str
    state: str = Field(description="running, interrupted or ended.")
    tasks: int
    completed: int
    failed: int


class Batch(abc.ABC):
    """Tasks that were given in one call."""

    batch_id: str

    @property
    @abc.abstractmethod
    def members(self) -> list[Member]:
        """The agents of those that this server runs."""

    @property
    @abc.abstractmethod
    def is_over(self) -> bool:
        """Whether nothing of it is at work."""

    @abc.abstractmethod
    def cancel(self) -> None:
        """End what is left of it."""

    @abc.abstractmethod
    async def rows(self) -> list[TaskRow]:
        """Every task, in the order in which they were given."""

    @abc.abstractmethod
    async def wait(self, seconds: float) -> None:
        """Until it is over, or for that long."""


class Batches(abc.ABC):
    """The batches of one server."""

    @abc.abstractmethod
    async def start(self, wishes: Sequence[Wish], owner: str | None) -> Batch:
        """Begin all; raises what the policy refuses, before any has begun."""

    @abc.abstractmethod
    async def resume(self, batch_id: str, owner: str | None) -> Batch:
        """Go on with what was interrupted; raises ``AgentNotFound``, ``Refused``."""

    @abc.abstractmethod
    async def find(self, batch_id: str) -> Batch:
        """A batch by its name; raises ``AgentNotFound``."""

    @abc.abstractmethod
    async def newest(self, limit: int) -> list[BatchRow]:
        """The last ones, the newest first."""


class BatchInMemory(Batch):
    """A batch that only this server knows."""

    def __init__(self, fleet: Fleet, members: list[Member]) -> None:
        self.batch_id = new_batch_id()
        self._fleet = fleet
        self._members = members
        self._running = [fleet.begin_task(member) for member in members]

    @property
    def members(self) -> list[Member]:
        return self._members

    @property
    def is_over(self) -> bool:
        return all(task.done() for task in self._running)

    def cancel(self) -> None:
        for task in self._running:
            task.cancel()

    async def rows(self) -> list[TaskRow]:
        return self.now()

    def now(self) -> list[TaskRow]:
        """``rows`` without waiting."""
        pairs = zip(self._members, self._running, strict=True)
        return [_row(member, task, self._fleet) for member, task in pairs]

    async def wait(self, seconds: float) -> None:
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)


class BatchesInMemory(Batches):
    """The batches of one server, the last of them also after their end."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._batches: dict[str, BatchInMemory] = {}

    async def start(self, wishes: Sequence[Wish], owner: str | None) -> Batch:
        batch = BatchInMemory(self._fleet, enlist_all(self._fleet, wishes, owner))
        self._batches[batch.batch_id] = batch
        over = [name for name, each in self._batches.items() if each.is_over]
        for name in over[: max(0, len(over) - _KEPT)]:
            del self._batches[name]
        return batch

    async def resume(self, batch_id: str, owner: str | None) -> Batch:
        raise Refused(
            "no_task_database",
            "this server keeps batches in memory: what was interrupted is lost",
            "give the tasks to run_tasks again; an operator who starts 'vespera serve' with "
            "--task-database FILE has batches that can be resumed",
        )

    async def find(self, batch_id: str) -> Batch:
        batch = self._batches.get(batch_id)
        if batch is None:
            raise AgentNotFound(
                f"no batch '{batch_id[:80]}' on this server; a batch ends with its server",
                code="batch_not_found",
                context={
                    "remedy": "use the batch_id that run_tasks answered; if the server was "
                    "started anew since, give the tasks to run_tasks again (an operator keeps "
                    "batches over a restart with 'vespera serve --task-database FILE')"
                },
            )
        return batch

    async def newest(self, limit: int) -> list[BatchRow]:
        rows = []
        for batch in reversed([*self._batches.values()][-limit:]):
            tasks = batch.now()
            rows.append(
                BatchRow(
                    batch_id=batch.batch_id,
                    state="ended" if batch.is_over else "running",
                    tasks=len(tasks),
                    completed=sum(row.success is True for row in tasks),
                    failed=sum(row.success is False for row in tasks),
                )
            )
        return rows


def new_batch_id() -> str:
    """A name that no other batch has."""
    return f"batch-{secrets.token_hex(8)}"


def enlist_all(fleet: Fleet, wishes: Sequence[Wish], owner: str | None) -> list[Member]:
    """All or none; raises what the policy refuses."""
    members: list[Member] = []
    try:
        for wish in wishes:
            members.append(fleet.enlist_task(wish, owner=owner))  # noqa: PERF401
    except Exception:
        for member in members:
            fleet.withdraw(member)
        raise
    return members


def row_of_living(member: Member) -> TaskRow:
    """A task whose agent waits or works."""
    return TaskRow(
        agent_id=member.agent_id,
        state=str(member.state) if member.starting is not None else "queued",
        session_id=member.session_id,
        backend=member.backend,
        cost_usd=member.cost_usd,
        activity=member.activity,
    )


def tell(row: TaskRow, result: RunResult, fleet: Fleet) -> None:
    """Into the row, how its task ended."""
    told = describe(row.agent_id, result, fleet.policy.redactor)
    row.state, row.activity = "ended", None
    row.success, row.outcome = told["success"], told["outcome"]
    row.result, row.duration_seconds = told.get("result"), told["duration_seconds"]
    row.error = Problem(**told["error"]) if "error" in told else None


def _row(member: Member, task: asyncio.Task[RunResult], fleet: Fleet) -> TaskRow:
    row = row_of_living(member)
    if not task.done():
        return row
    row.state, row.success, row.activity = "ended", False, None
    if task.cancelled():
        row.outcome = "cancelled"
    elif (failure := task.exception()) is not None:
        row.outcome = "failed"
        if isinstance(failure, Exception):
            row.error = problem_of(failure, fleet.policy.redactor)
    else:
        tell(row, task.result(), fleet)
        if member.failure is not None:
            row.error = problem_of(member.failure, fleet.policy.redactor)
    return row
