"""Responsible for a list of runs: each starts when there is a place, and ends with a result.

It lives in callbacks, not in a task per run: what one callback of the loop can do (an agent's end,
its result, the next one's start) does not wait for another turn of the loop. Beside a thread that
computes each turn costs the 5 ms of a thread switch; without one it is still the largest part of
what a start costs in Python.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import dataclasses
import functools
from collections import deque
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vespera_agent_spawner._counters import PROCESS
from vespera_agent_spawner.adapters.lookups import Lookups
from vespera_agent_spawner.errors import AgentError, SupervisorClosed
from vespera_agent_spawner.results import Outcome, RunResult
from vespera_agent_spawner.retries import Effort, is_settled

if TYPE_CHECKING:
    from vespera_agent_spawner.agent import Agent
    from vespera_agent_spawner.backends._protocol import StandingSession
    from vespera_agent_spawner.config import AgentConfig
    from vespera_agent_spawner.spending import Purse
    from vespera_agent_spawner.supervisor import Supervisor
    from vespera_agent_spawner.waiting_line import Ticket
    from vespera_agent_spawner.workspaces import Workspace

__all__ = ["Batch", "Seat"]

# As long as an agent of its own that is cancelled.
_GRACE = 5.0


@dataclass(slots=True, eq=False)
class Seat:
    """An agent's hold on its id and, once it has entered, on a place."""

    agent_id: str
    reserve: int
    entered: bool = False


@dataclass(slots=True, eq=False)
class _Run:
    """One of them; while it waits for a place, a ``Prospect``."""

    batch: Batch
    index: int
    effort: Effort
    seat: Seat
    purse: Purse | None
    workspace: Workspace | None
    ticket: Ticket | None = None
    agent: Agent | None = None
    #: Why it never started, until it is over.
    failed: RunResult | None = None
    #: The last attempt's end, while the next one has none.
    last: RunResult | None = None
    #: Whom the admission calls for the next attempt.
    again: Callable[[], None] | None = None
    #: Its workspace is being made or left.
    moving: asyncio.Task[None] | None = None
    #: What stands by, while the run has no place.
    standing: tuple[Agent, StandingSession] | None = None

    def prepare(self) -> bool:
        return self.batch._prepare(self)

    def has_begun(self) -> bool:
        return self.standing is not None and self.standing[1].has_begun()

    def withdraw(self) -> bool:
        if self.standing is not None and not self.standing[1].withdraw():
            return False
        self.standing = None
        return True


class Batch:
    """The runs of one ``Supervisor.run`` or ``as_completed``."""

    def __init__(self, supervisor: Supervisor, configs: Sequence[AgentConfig]) -> None:
        self._supervisor = supervisor
        self._places = supervisor._places
        if isinstance(self._places.closed, SupervisorClosed):
            # As with spawn: whoever asks too late is told so, no agent of the list has failed.
            raise SupervisorClosed(str(self._places.closed))
        self._configs = configs
        self._lookups = Lookups()
        # Whoever frees a place starts the next run: it has the caller's context all the same.
        self._context = contextvars.copy_context()
        self._loop = asyncio.get_running_loop()
        self._results: list[RunResult | None] = [None] * len(configs)
        self._left = len(configs)
        self._fresh: deque[RunResult] = deque()
        self._runs: dict[str, _Run] = {}
        self._broken: BaseException | None = None
        self._ending = False
        self._bell: asyncio.Future[None] | None = None
        self._enough = 1
        self._leaving: set[asyncio.Future[None]] = set()

    # -- for its owner ---------------------------------------------------------------------

    def begin(self) -> None:
        """Queue up for all of them; those that have a place start."""
        given = {config.agent_id for config in self._configs if config.agent_id is not None}
        for index, config in enumerate(self._configs):
            self._enter(index, config, given)
        if self._supervisor._pool is not None:
            self._supervisor._pool.look_soon()

    async def all(self) -> list[RunResult]:
        """Wait for all; in their order."""
        await self._until(len(self._results))
        return [result for result in self._results if result is not None]

    async def next(self) -> RunResult | None:
        """The next one that is there; None after the last."""
        if not self._fresh and not self._left:
            return None
        await self._until(1)
        return self._fresh.popleft()

    def stop(self) -> None:
        """Begin to end what is left: turns are interrupted, then the ladder."""
        self._ending = True
        for run in list(self._runs.values()):
            self._stop(run)

    def throw_away(self) -> None:
        """End what is left, for who can await nothing: its coroutine is closed."""
        self.stop()
        if self._loop.is_running():
            # Else nobody held the runs until their end, which gives back what they have.
            ending = self._loop.create_task(self._ended())
            self._supervisor._tenants.leaving.add(ending)
            ending.add_done_callback(self._supervisor._tenants.leaving.discard)

    async def end(self) -> None:
        """End what is left."""
        # All are begun before anything is waited for: whoever is in a hurry leaves nothing either.
        self.stop()
        await self._ended()

    async def _ended(self) -> None:
        runs = list(self._runs.values())
        waiting: list[asyncio.Future[Any]] = []
        waiting += [run.agent._ended for run in runs if run.agent is not None]
        waiting += [run.moving for run in runs if run.moving is not None]
        if waiting:
            await asyncio.wait(waiting)
        if self._leaving:
            await asyncio.wait(set(self._leaving))

    # -- callbacks -------------------------------------------------------------------------

    def _enter(self, index: int, config: AgentConfig, given: Container[str]) -> None:
        try:
            purse = self._supervisor._purse_of(config)
            seat = self._supervisor._enter(config, given)
        except (AgentError, OSError) as error:
            name = config.agent_id or self._supervisor._made_id(given)
            self._finish(index, self._supervisor._never_started(error, config, name))
            return
        effort = Effort(config, config.retry or self._supervisor.config.retry)
        run = self._runs[seat.agent_id] = _Run(
            self,
            index,
            effort,
            seat,
            purse,
            self._supervisor._workspace(config, seat),
        )
        self._ask(run)

    def _ask(self, run: _Run) -> None:
        run.again = None
        priority = run.effort.config.priority
        subject = (run.effort.config, run.seat.agent_id, self._lookups.here)
        may_stand = run.workspace is None and run.purse is None
        ticket = self._places.ask(
            priority,
            run.seat.reserve,
            functools.partial(self._told, run),
            subject,
            run if may_stand else None,
        )
        run.ticket = ticket if ticket.waits else None

    def _prepare(self, run: _Run) -> bool:
        """Everything but the start itself."""
        try:
            run.standing = self._context.copy().run(
                self._supervisor._stand_by, run.effort.config, run.seat, self._over, self._lookups
            )
        except Exception:
            # Whoever waits for it is told when its turn comes.
            return False
        if run.standing is None:
            return False
        agent = run.standing[0]
        agent._is_attempt, agent._on_start = True, self._started
        return True

    def _told(self, run: _Run, error: Exception | None) -> None:
        """There is a place, or there will be none."""
        # The two hold each other: a long list would leave thousands to the garbage collector.
        run.ticket = None
        if error is not None:
            self._drop(run)
            # Who is refused another attempt has the result of the last one.
            last = (
                self._never_started(run, error)
                if run.last is None
                else run.effort.settled(run.last)
            )
            self._conclude(run, last)
            return
        run.seat.entered = True
        if run.standing is not None:
            run.agent, session = run.standing
            run.standing = None
            try:
                self._supervisor._join(run.agent, session)
            except BaseException as failure:
                # It has begun: its end gives back what it has.
                session.kill()
                self._break(failure)
            return
        if run.workspace is None:
            self._context.copy().run(self._launch, run, run.effort.config)
            return
        run.moving = self._loop.create_task(
            self._move_in(run, run.workspace), context=self._context.copy()
        )
        run.moving.add_done_callback(lambda task: self._moved(run, task))

    async def _move_in(self, run: _Run, workspace: Workspace) -> None:
        try:
            config = await workspace.furnish(run.effort.config)
            if self._places.closed is not None:
                raise self._places.closed
        except Exception as failure:
            run.moving = None
            self._failed(run, failure)
        else:
            run.moving = None
            self._launch(run, config)

    def _moved(self, run: _Run, task: asyncio.Task[None]) -> None:
        # Cancelled, maybe before its first step: nobody else gives back what it had.
        if task.cancelled():
            run.moving = None
            self._supervisor._release(run.seat)
            self._left_start(run, asyncio.CancelledError())
            self._leave_unfinished(run)

    async def _move_out(self, run: _Run, workspace: Workspace, result: RunResult) -> None:
        try:
            await workspace.leave()
        finally:
            self._runs.pop(run.seat.agent_id, None)
            self._finish(run.index, result)

    def _conclude(self, run: _Run, result: RunResult) -> None:
        """The run's own end; its workspace is left before anybody hears of it."""
        if run.workspace is None:
            self._runs.pop(run.seat.agent_id, None)
            self._finish(run.index, result)
            return
        run.moving = self._loop.create_task(self._move_out(run, run.workspace, result))
        self._note_leaving(run.moving)

    def _launch(self, run: _Run, config: AgentConfig) -> None:
        try:
            run.agent = agent = self._supervisor._agent(config, run.seat, self._over, run.purse)
            agent._is_attempt, agent._on_start = True, self._started
            self._supervisor._launch(
                agent,
                run.seat,
                listening=False,
                lookups=self._lookups,
                workspace=run.workspace,
                owned=True,
            )
        except BaseException as failure:
            # Whoever stops the batch finds no agent that has nothing to end.
            run.agent = None
            self._failed(run, failure)

    def _failed(self, run: _Run, failure: BaseException) -> None:
        self._supervisor._release(run.seat)
        self._left_start(run, failure)
        if isinstance(failure, AgentError | OSError):
            self._attempted(run, self._never_started(run, failure), is_settled(failure))
        else:
            # Not in the middle of somebody else's callback.
            self._leave_unfinished(run)
            self._break(failure)

    def _started(self, agent: Agent, error: AgentError | None) -> None:
        """The start has an end."""
        run = self._runs[agent._id]
        if error is not None:
            run.failed = self._never_started(run, error)
        self._left_start(run, error)

    def _left_start(self, run: _Run, error: BaseException | None) -> None:
        self._places.note_start(error)
        self._places.left_start(run.seat.reserve)

    def _over(self, agent: Agent) -> None:
        """Nothing of the agent is left."""
        run = self._runs.get(agent._id)
        if run is None or run.agent is not agent:
            self._supervisor._forget(agent)
            return
        self._supervisor._release(run.seat)
        try:
            result = run.failed or agent._result()
            if self._ending:
                PROCESS.count_run(result.outcome, result.duration)
                self._leave_unfinished(run)
                return
            if run.failed is not None and agent._overspent is not None:
                result = dataclasses.replace(
                    result, outcome=Outcome.BUDGET_EXCEEDED, error=agent._overspent
                )
            self._attempted(run, result)
        except BaseException as failure:
            self._break(failure)

    def _attempted(self, run: _Run, result: RunResult, settled: bool = False) -> None:
        """An attempt has an end: another one, or the run's own end."""
        run.agent = run.failed = None
        wait = None if self._ending else run.effort.again(result)
        if (
            wait is not None
            and not settled
            and not _is_empty(run.purse)
            and not _is_empty(self._supervisor._purse)
            and self._holds_again(run)
        ):
            PROCESS.add("vespera_retries_total")
            run.last = result
            run.again = functools.partial(self._ask, run)
            self._places.call_later(wait, run.again)
            return
        self._conclude(run, run.effort.settled(result))

    def _leave_unfinished(self, run: _Run) -> None:
        """Nobody waits for its result."""
        self._runs.pop(run.seat.agent_id, None)
        if run.workspace is not None and not self._loop.is_closed():
            self._note_leaving(self._loop.create_task(run.workspace.leave()))

    def _note_leaving(self, leaving: asyncio.Task[None]) -> None:
        # Whoever waits for the batch, and whoever waits for the supervisor.
        for waited in (self._leaving, self._supervisor._tenants.leaving):
            waited.add(leaving)
            leaving.add_done_callback(waited.discard)

    def _holds_again(self, run: _Run) -> bool:
        """Its id was free for a moment, in which nobody else took it."""
        config = run.effort.config
        if config.agent_id is None:
            config = config._having({"agent_id": run.seat.agent_id})
        try:
            run.seat = self._supervisor._enter(config)
        except AgentError:
            return False
        return True

    # -- inside ----------------------------------------------------------------------------

    def _stop(self, run: _Run) -> None:
        if run.ticket is not None:
            self._places.settle(run.ticket)
        agent = run.agent
        if run.again is not None:
            self._places.call_off(run.again)
        if run.moving is not None and not run.moving.done():
            # One that is being left is left to its end.
            if run.seat.entered and self._supervisor._ids.get(run.seat.agent_id) is run.seat:
                run.moving.cancel()
        elif agent is None:
            self._drop(run)
            if run.last is not None:
                last = run.effort.settled(run.last)
                PROCESS.count_run(last.outcome, last.duration)
            self._leave_unfinished(run)
        elif not agent._ready.done():
            agent.kill()
        else:
            with contextlib.suppress(AgentError):
                agent._begin_cancel(_GRACE)

    def _drop(self, run: _Run) -> None:
        """It never gets a place."""
        if run.ticket is not None:
            self._places.withdraw(run.ticket)
        self._runs.pop(run.seat.agent_id, None)
        self._supervisor._release(run.seat)

    def _never_started(self, run: _Run, error: BaseException) -> RunResult:
        config, name = run.effort.config, run.seat.agent_id
        return self._supervisor._never_started(error, config, name)

    def _finish(self, index: int, result: RunResult) -> None:
        PROCESS.count_run(result.outcome, result.duration)
        self._results[index] = result
        self._fresh.append(result)
        self._left -= 1
        self._ring()

    def _break(self, error: BaseException) -> None:
        self._broken = self._broken or error
        self._ring()

    def _ring(self) -> None:
        enough = len(self._fresh) >= self._enough or self._broken is not None
        if enough and self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    async def _until(self, enough: int) -> None:
        """Wait for so many results that nobody has taken."""
        self._enough = enough
        while len(self._fresh) < enough and self._broken is None:
            self._bell = self._loop.create_future()
            await self._bell
        if self._broken is not None:
            raise self._broken


def _is_empty(purse: Purse | None) -> bool:
    return purse is not None and purse.empty is not None
