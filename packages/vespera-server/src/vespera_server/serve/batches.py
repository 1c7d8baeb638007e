"""Responsible for batches of tasks: several agents with one prompt each, followed by one name."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, Field

from vespera_agent_spawner import AgentNotFound, RunResult
from vespera_server.executor import describe
from vespera_server.problems import Problem, problem_of
from vespera_server.serve.fleet import Fleet
from vespera_server.serve.member import Member
from vespera_server.serve.policy import Wish

__all__ = ["Batch", "Batches", "TaskRow"]

_KEPT = 64


class TaskRow(BaseModel):
    """One task of a batch as it is at this moment."""

    agent_id: str
    state: str = Field(description="queued, starting, in_turn, …, ended.")
    session_id: str | None = None
    backend: str | None = None
    success: bool | None = Field(default=None, description="Once it has ended.")
    outcome: str | None = None
    result: str | None = None
    cost_usd: float | None = None
    duration_seconds: float | None = None
    activity: str | None = None
    error: Problem | None = None


@dataclass(eq=False)
class Batch:
    """Tasks that were given in one call."""

    batch_id: str
    members: list[Member]
    running: list[asyncio.Task[RunResult]] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        return all(task.done() for task in self.running)

    def cancel(self) -> None:
        """End what is left of it."""
        for task in self.running:
            task.cancel()

    def rows(self, fleet: Fleet) -> list[TaskRow]:
        """Every task, in the order in which they were given."""
        return [
            _row(member, task, fleet)
            for member, task in zip(self.members, self.running, strict=True)
        ]


class Batches:
    """The batches of one server, the last of them also after their end."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._batches: dict[str, Batch] = {}

    def start(self, wishes: Sequence[Wish], owner: str | None) -> Batch:
        """Begin all; raises what the policy refuses, before any has begun."""
        members: list[Member] = []
        try:
            for wish in wishes:
                members.append(self._fleet.enlist_task(wish, owner=owner))  # noqa: PERF401
        except Exception:
            for member in members:
                self._fleet.withdraw(member)
            raise
        batch = Batch(f"batch-{secrets.token_hex(4)}", members)
        batch.running = [self._fleet.begin_task(member) for member in members]
        self._batches[batch.batch_id] = batch
        over = [name for name, each in self._batches.items() if each.is_over]
        for name in over[: max(0, len(over) - _KEPT)]:
            del self._batches[name]
        return batch

    def find(self, batch_id: str) -> Batch:
        """A batch by its name; raises ``AgentNotFound``."""
        batch = self._batches.get(batch_id)
        if batch is None:
            raise AgentNotFound(
                f"no batch '{batch_id[:80]}' on this server; a batch ends with its server",
                code="batch_not_found",
                context={
                    "remedy": "use the batch_id that run_tasks answered; if the server was "
                    "started anew since, give the tasks to run_tasks again"
                },
            )
        return batch

    async def wait(self, batch: Batch, seconds: float) -> None:
        """Until the batch is over, or for that long."""
        if batch.running:
            await asyncio.wait(batch.running, timeout=seconds)


def _row(member: Member, task: asyncio.Task[RunResult], fleet: Fleet) -> TaskRow:
    row = TaskRow(
        agent_id=member.agent_id,
        state=str(member.state) if member.starting is not None else "queued",
        session_id=member.session_id,
        backend=member.backend,
        cost_usd=member.cost_usd,
        activity=member.activity,
    )
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
        told = describe(member.agent_id, task.result(), fleet.policy.redactor)
        row.success, row.outcome = told["success"], told["outcome"]
        row.result, row.duration_seconds = told.get("result"), told["duration_seconds"]
        row.error = Problem(**told["error"]) if "error" in told else None
        if member.failure is not None:
            row.error = problem_of(member.failure, fleet.policy.redactor)
    return row
