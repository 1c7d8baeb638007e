"""Responsible for one task of a kept batch while this server works on it: from its claim to the end
that is written down, or until it is given back.

It ends for good by what becomes of its agent, or because somebody ended that. When its caller or
the server goes away it is given back instead: interrupted, until somebody asks for it again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from vespera_agent_spawner import Outcome, RunResult
from vespera_agent_spawner._description import never_started
from vespera_agent_spawner._logging import logger_for
from vespera_server.problems import Problem, problem_of
from vespera_server.serve.fleet import Fleet
from vespera_server.serve.member import Member
from vespera_server.serve.policy import Wish
from vespera_server.serve.task_database import TaskDatabase
from vespera_server.tasks import Claim, LeaseLost, Start
from vespera_server.tasks.executor import RESUME_PROMPT, refuses_session
from vespera_server.tasks.fence import end_holders

__all__ = ["KeptTask"]

_log = logger_for("server.tasks")


class KeptTask:
    """A claimed task. ``problem`` is why it was given back, once it was."""

    def __init__(
        self, fleet: Fleet, database: TaskDatabase, claim: Claim, wish: Wish, owner: str | None
    ) -> None:
        self._fleet = fleet
        self._database = database
        self._wish = wish
        self._owner = owner
        self._lost = False
        self._unprepared: Exception | None = None
        self._work: asyncio.Task[RunResult] | None = None
        self.claim = claim
        self.problem: Problem | None = None
        self.member: Member | None = None

    def enlist(self, member: Member | None = None) -> Member:
        """Its agent, within the policy of now; raises what ``Fleet.enlist_task`` does."""
        member = member or self._fleet.enlist_task(self._wish, owner=self._owner)
        if self.claim.start is Start.RESUMED:
            session = {"resume": self.claim.session_id, "prompt": RESUME_PROMPT}
        else:
            session = {"session_id": self.claim.session_id}
        member.config = member.config._with(**session)
        member.prepare = self._prepare
        self.member = member
        return member

    def begin(self, over: Callable[[], None]) -> None:
        """Work on it; ``over`` is called when that is over."""
        self._work = self._fleet.begin_task(self._agent, self._run())
        self._work.add_done_callback(lambda _: over())

    @property
    def work(self) -> asyncio.Task[RunResult]:
        """What is done about it; its end is written by then."""
        assert self._work is not None
        return self._work

    def leave(self) -> None:
        """Whoever asked for it is gone: end its agent and give it back."""
        self._agent.left = True
        self.work.cancel()

    def lose(self) -> None:
        """Another process has it: end its agent and write nothing."""
        self._lost = True
        self.work.cancel()

    @property
    def _agent(self) -> Member:
        assert self.member is not None
        return self.member

    async def _run(self) -> RunResult:
        try:
            result = await self._attempts()
        except asyncio.CancelledError:
            ending = asyncio.ensure_future(self._cancelled())
            while not ending.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([ending])
            raise
        except Exception as error:  # the queue, or a fresh session that is refused
            _log.warning("task %s is given back: %s", self.claim.task_id, error)
            self._unprepared = error
            agent = self._agent
            result = never_started(error, agent.config, agent.agent_id, agent.backend, "")
        await self._write(result)
        return result

    async def _attempts(self) -> RunResult:
        while True:
            result = await self._fleet.run_task(self._agent)
            refused = self.claim.start is Start.RESUMED and self._unprepared is None
            if not (refused and refuses_session(result, self.claim.session_id)):
                return result
            self.claim = await self._database.restart(self.claim)
            self.enlist().turn = asyncio.current_task()

    async def _prepare(self) -> None:
        """A place is there. What is written now lets the next owner resume the session."""
        try:
            if self.claim.start is Start.RESUMED and await end_holders(self.claim.session_id):
                _log.warning("task %s: an old holder of its session was ended", self.claim.task_id)
            await self._database.launch(self.claim)
        except Exception as error:
            self._unprepared = error
            raise

    async def _cancelled(self) -> None:
        with contextlib.suppress(Exception):
            await self._fleet.gone(self._agent)
        await self._write(None)

    async def _write(self, result: RunResult | None) -> None:
        """How it ended, or that it did not."""
        member, redactor = self._agent, self._fleet.policy.redactor
        try:
            if self._lost or isinstance(self._unprepared, LeaseLost):
                return
            if self._unprepared is not None:
                self.problem = problem_of(self._unprepared, redactor)
                await self._database.release(self.claim)
            elif member.left and (result is None or result.outcome is not Outcome.COMPLETED):
                await self._database.release(self.claim)
            else:
                failure = member.failure
                problem = problem_of(failure, redactor) if failure is not None else None
                await self._database.finish(self.claim, result or _ended(member), problem)
        except LeaseLost:
            _log.warning("task %s: another process has it by now", self.claim.task_id)
        except Exception as error:
            # Its lease ends, and it is interrupted: what is not written down is not done.
            _log.exception("task %s: its end could not be written", self.claim.task_id)
            self.problem = problem_of(error, redactor)


def _ended(member: Member) -> RunResult:
    """The result of a task that somebody ended."""
    return RunResult(
        outcome=Outcome.CANCELLED,
        result=None,
        session_id=member.session_id or "",
        exit=member.exit,
        turns=0,
        usage={},
        cost_usd=member.cost_usd,
        duration=0.0,
        time_to_first_output=None,
        error="it was ended",
        backend=member.backend,
        containment="",
        agent_id=member.agent_id,
    )
