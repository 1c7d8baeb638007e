"""Responsible for batches that outlive the server: in a file first, at work second.

Tasks of a server that died, or of a caller who left, do not go on by themselves: it would be the
operator's money, and nobody would have asked. They are ``interrupted`` until a caller resumes
their batch, which the policy then checks as if it were new.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from vespera_agent_spawner import AgentExists, AgentNotFound, LimitExceeded, State
from vespera_agent_spawner._logging import logger_for
from vespera_server.continued import result_of
from vespera_server.problems import Problem, problem_of
from vespera_server.serve.batches import (
    Batch,
    Batches,
    BatchRow,
    TaskRow,
    enlist_all,
    new_batch_id,
    row_of_living,
    tell,
)
from vespera_server.serve.fleet import Fleet
from vespera_server.serve.kept_task import KeptTask
from vespera_server.serve.member import Member
from vespera_server.serve.policy import Wish
from vespera_server.serve.task_database import Kept, TaskDatabase, wish_of
from vespera_server.tasks import Claim, TaskError

__all__ = ["KeptBatches"]

_POLL = 0.5  # seconds between two looks at what another server does
_log = logger_for("server.tasks")


class KeptBatch(Batch):
    """A batch in the database; ``works`` are those of its tasks that this server is at."""

    def __init__(self, batches: KeptBatches, batch_id: str) -> None:
        self.batch_id = batch_id
        self._batches = batches
        self._elsewhere = False

    @property
    def _works(self) -> list[KeptTask]:
        return self._batches.works_of(self.batch_id)

    @property
    def members(self) -> list[Member]:
        return [work.member for work in self._works if work.member is not None]

    @property
    def is_over(self) -> bool:
        return not self._works and not self._elsewhere

    def cancel(self) -> None:
        for work in self._works:
            work.leave()

    async def rows(self) -> list[TaskRow]:
        kept = await self._batches.database.look(self.batch_id)
        rows = [self._batches.row(each) for each in kept]
        ours = {work.claim.task_id for work in self._works}
        self._elsewhere = any(each.held and each.record.task_id not in ours for each in kept)
        return rows

    async def wait(self, seconds: float) -> None:
        if works := [work.work for work in self._works]:
            await asyncio.wait(works, timeout=seconds)
        else:
            await asyncio.sleep(min(seconds, _POLL))
        if not self._works:
            await self.rows()


class KeptBatches(Batches):
    """All batches of a database. Use it as ``async with``, around nothing but the fleet's end."""

    def __init__(self, fleet: Fleet, database: TaskDatabase) -> None:
        self._fleet = fleet
        self.database = database
        self._works: dict[str, KeptTask] = {}
        self._problems: dict[str, Problem] = {}
        self._heart: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._heart = asyncio.ensure_future(self._beat())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._heart is not None:
            self._heart.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._heart
        self.database.close()

    async def start(self, wishes: Sequence[Wish], owner: str | None) -> Batch:
        members = enlist_all(self._fleet, wishes, owner)
        batch = KeptBatch(self, new_batch_id())
        try:
            claims = await self.database.add(batch.batch_id, wishes)
        except BaseException:
            for member in members:
                self._fleet.withdraw(member)
            raise
        for wish, member in zip(wishes, members, strict=True):
            # None would be another process that took it in this moment: it is that one's.
            if (claim := claims.get(wish.agent_id)) is not None:
                self._begin(claim, wish, owner, member)
            else:
                self._fleet.withdraw(member)
        return batch

    async def resume(self, batch_id: str, owner: str | None) -> Batch:
        batch = await self.find(batch_id)
        kept = await self.database.look(batch_id)
        for claim in await self.database.take(each for each in kept if each.is_interrupted):
            self._problems.pop(claim.task_id, None)
            try:
                self._begin(claim, wish_of(claim), owner)
            except (AgentExists, LimitExceeded) as error:
                # Not the task's fault, and over soon.
                self._problems[claim.task_id] = problem_of(error, self._fleet.policy.redactor)
                await self.database.release(claim)
            except Exception as error:
                problem = problem_of(error, self._fleet.policy.redactor)
                await self.database.refuse(claim, problem)
        await batch.rows()  # another server may have been first
        return batch

    async def find(self, batch_id: str) -> KeptBatch:
        batch = KeptBatch(self, batch_id)
        if not await batch.rows():
            raise AgentNotFound(
                f"no batch '{batch_id[:80]}' in this server's task database",
                code="batch_not_found",
                context={
                    "remedy": "use the batch_id that run_tasks answered; task_status without a "
                    "batch_id lists what there is"
                },
            )
        return batch

    async def newest(self, limit: int) -> list[BatchRow]:
        rows = []
        for tally in await self.database.tally(limit):
            over = tally.completed + tally.failed == tally.tasks
            rows.append(
                BatchRow(
                    batch_id=tally.name,
                    state="ended" if over else "running" if tally.held else "interrupted",
                    tasks=tally.tasks,
                    completed=tally.completed,
                    failed=tally.failed,
                )
            )
        return rows

    def works_of(self, batch_id: str) -> list[KeptTask]:
        """Those of a batch that this server is at."""
        return [work for name, work in self._works.items() if name.partition("/")[0] == batch_id]

    def row(self, kept: Kept) -> TaskRow:
        """A task as a caller sees it."""
        record = kept.record
        work = self._works.get(record.task_id)
        if work is not None and work.member is not None and not kept.is_over:
            row = row_of_living(work.member)
            if work.member.is_over or work.member.state.is_over:
                row.state = str(State.DRAINING)  # what became of it is not written yet
            row.session_id = work.claim.session_id
        else:
            row = TaskRow(
                agent_id=kept.agent_id,
                state="running" if kept.held else "interrupted",
                session_id=record.session_id,
                cost_usd=record.cost_usd,
            )
            if kept.is_over:
                self._tell(row, kept)
            elif kept.is_interrupted:
                row.error = self._problems.get(record.task_id) or _interrupted(record.task_id)
        row.start, row.attempts = kept.start, record.attempts
        return row

    def _tell(self, row: TaskRow, kept: Kept) -> None:
        result = result_of(kept.record)
        tell(row, result, self._fleet)
        row.backend = result.backend or None
        if isinstance(kept.record.result, dict) and (told := kept.record.result.get("problem")):
            row.error = Problem(**self._fleet.policy.redactor.value(told))

    def _begin(
        self, claim: Claim, wish: Wish, owner: str | None, member: Member | None = None
    ) -> None:
        work = KeptTask(self._fleet, self.database, claim, wish, owner)
        work.enlist(member)
        self._works[claim.task_id] = work

        def over() -> None:
            del self._works[claim.task_id]
            if work.problem is not None:
                self._problems[claim.task_id] = work.problem

        work.begin(over)

    # -- the leases ------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Prolong all leases; whoever lost one stops at once, and all stop when none can be."""
        patience = self.database.lease_seconds * 2 / 3
        prolonged = time.monotonic()
        while True:
            await asyncio.sleep(self.database.lease_seconds / 3)
            works = {work.claim.token: work for work in self._works.values()}
            asked = time.monotonic()
            try:
                lost = await self.database.prolong([work.claim for work in works.values()])
                prolonged = asked
            except TaskError as error:
                _log.warning("leases cannot be prolonged: %s", error)
                if time.monotonic() - prolonged < patience:
                    continue
                lost = [work.claim for work in works.values()]
            for claim in lost:
                if not works[claim.token].work.done():
                    works[claim.token].lose()


def _interrupted(task_id: str) -> Problem:
    batch_id = task_id.partition("/")[0]
    return Problem(
        code="interrupted",
        message="its server ended, or whoever asked for it left, before it did",
        remedy=f"call run_tasks with batch_id '{batch_id}' and resume true: it goes on in its "
        "session",
    )
