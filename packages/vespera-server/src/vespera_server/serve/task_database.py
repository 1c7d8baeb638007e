"""Responsible for the file in which a server keeps the tasks of its batches: off the loop, whole
writes only, and failures in words.

A task is kept as its caller wished it (``Wish``), never as the policy made it: what is taken up
again is checked against the limits of then, and no environment is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from vespera_agent_spawner import ConfigError, Outcome, RunResult
from vespera_server.problems import Problem, Refused
from vespera_server.selection import Selection, Tally, selection_at
from vespera_server.serve.places import expanded
from vespera_server.serve.policy import Wish
from vespera_server.tasks import Claim, TaskError, TaskRecord, TaskSpec
from vespera_server.tasks.executor import _kept, cost_of

__all__ = ["KEEPER", "Kept", "TaskDatabase", "wish_of"]

KEEPER = "vespera serve"
T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Kept:
    """A task as the file has it. ``held``: a living process works on it. ``start``: how it began
    last (``started``, ``resumed``, ``restarted``)."""

    record: TaskRecord
    held: bool
    start: str | None

    @property
    def agent_id(self) -> str:
        return str(self.record.task_id.partition("/")[2])

    @property
    def is_over(self) -> bool:
        return self.record.outcome is not None

    @property
    def is_interrupted(self) -> bool:
        return not (self.is_over or self.held)


class TaskDatabase:
    """All batches in the file at ``path``. Whatever is written is written whole, also when the
    caller is cancelled meanwhile; an unusable file is a ``TaskError``."""

    def __init__(self, path: str, roots: Sequence[str] = ()) -> None:
        """Raises ``ConfigError`` and ``NewerDatabase``."""
        real = expanded(path, "task_database").resolve()
        for root in roots:
            if real.is_relative_to(root):
                remedy = "name a file outside of the roots"
                raise ConfigError(
                    f"task_database: {path} is beneath the root {root}, where callers write; "
                    f"{remedy}",
                    field="task_database",
                    value=path,
                    remedy=remedy,
                )
        self._queue: Selection = selection_at(real, KEEPER, field="task_database")
        self.lease_seconds = self._queue.lease_seconds

    def close(self) -> None:
        """What is still held is for others to take."""
        self._queue.close()

    async def add(self, batch_id: str, wishes: Iterable[Wish]) -> dict[str, Claim]:
        """Keep the tasks of a new batch; the claims on all of them, by agent id."""
        specs = [
            TaskSpec(f"{batch_id}/{wish.agent_id}", dataclasses.asdict(wish)) for wish in wishes
        ]

        def write() -> list[Claim]:
            self._queue.add(specs)
            return self._queue.take(spec.task_id for spec in specs)

        return {claim.task_id.partition("/")[2]: claim for claim in await self._whole(write)}

    async def take(self, kept: Iterable[Kept]) -> list[Claim]:
        """The claims on those that are free now."""
        names = [each.record.task_id for each in kept]
        return await self._whole(lambda: self._queue.take(names))

    async def look(self, batch_id: str) -> list[Kept]:
        """The tasks of a batch in the order in which they were given; none of an unknown one."""

        def read() -> list[Kept]:
            starts = self._queue.starts(batch_id)
            return [
                Kept(record, held, starts.get(record.task_id))
                for record, held in self._queue.beneath(batch_id)
            ]

        return await self._whole(read)

    async def tally(self, limit: int) -> list[Tally]:
        """The newest batches."""
        return await self._whole(lambda: self._queue.tally(limit))

    async def prolong(self, claims: list[Claim]) -> list[Claim]:
        """Heartbeats; those that are void."""
        return await self._whole(lambda: self._queue.prolong(claims))

    async def launch(self, claim: Claim) -> None:
        """A process is about to be started with the claim's session."""
        await self._whole(lambda: self._queue.launch(claim))

    async def restart(self, claim: Claim) -> Claim:
        """The same task in a fresh session."""
        again = functools.partial(self._queue.restart, claim, launched=False)
        fresh = await self._whole(again)
        assert fresh is not None  # no task here says restart=False
        return fresh

    async def release(self, claim: Claim) -> None:
        """Nobody works on it any more; it did not end."""
        await self._whole(lambda: self._queue.release(claim))

    async def finish(self, claim: Claim, result: RunResult, problem: Problem | None) -> None:
        """It ended; ``problem`` is more than the result says."""
        kept = _kept(result) | ({"problem": problem.model_dump()} if problem else {})
        await self._end(claim, result.outcome, kept, result.error, cost_of(claim, result))

    async def refuse(self, claim: Claim, problem: Problem) -> None:
        """It ends without having begun."""
        kept = {"problem": problem.model_dump()}
        await self._end(claim, Outcome.SPAWN_FAILED, kept, problem.message, None)

    async def _end(
        self,
        claim: Claim,
        outcome: Outcome,
        kept: Mapping[str, Any],
        error: str | None,
        cost: float | None,
    ) -> None:
        write = functools.partial(
            self._queue.finish, claim, outcome, result=kept, error=error, cost_usd=cost
        )
        await self._whole(write)

    async def _whole(self, call: Callable[[], T]) -> T:
        task = asyncio.ensure_future(asyncio.to_thread(call))
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            with contextlib.suppress(Exception):
                task.result()
            raise cancelled
        try:
            return task.result()
        except sqlite3.Error as error:
            raise TaskError(
                f"the server's task database {self._queue.path} cannot be used: {error}",
                code="task_database",
                context={"remedy": "try again; if it stays so, tell the operator"},
            ) from error


def wish_of(claim: Claim) -> Wish:
    """What the caller wished; raises ``Refused`` for what another version kept."""
    try:
        return Wish(**claim.config)
    except TypeError as error:
        raise Refused(
            "task_not_known",
            f"the task was kept by another version of vespera-server: {error}",
            "give the task to run_tasks again",
        ) from error
