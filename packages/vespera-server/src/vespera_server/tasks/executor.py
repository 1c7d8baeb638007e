"""Responsible for a batch that survives a crash: takes tasks from a queue, runs each as an agent.

It decides what is started, resumed, restarted or given back, and writes every end into the queue
before anybody hears of it. It re-adopts nothing: after a crash the agents of the dead process are
gone (the guardian ends them, ``fence`` the rest), and what goes on is the *session*. What one
agent does from start to end is the engine's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import logging
import sqlite3
import time
from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

from vespera_agent_spawner import AgentConfig, Outcome, RunResult, Supervisor, SupervisorConfig
from vespera_agent_spawner.adapters.claude import CLAUDE
from vespera_agent_spawner.admission import default_max_agents
from vespera_agent_spawner.errors import AgentError, AgentNotFound, ConfigError
from vespera_server.tasks.errors import LeaseLost
from vespera_server.tasks.fence import end_holders
from vespera_server.tasks.queue import TaskQueue
from vespera_server.tasks.records import Claim, Start

__all__ = ["RESUME_PROMPT", "DurableExecutor", "Ending", "Summary", "TaskNews"]

RESUME_PROMPT = (
    "The program that ran you ended before you did. Look at what is done already, do what is "
    "left of the task, and then give your final answer as if nothing had happened."
)
T = TypeVar("T")

_POLL = 0.5  # seconds between two looks for tasks that other processes give back
_LOG = logging.getLogger("vespera.tasks.executor")


class Ending(StrEnum):
    """Why ``run`` returned."""

    DONE = "done"
    STOPPED = "stopped"
    BUDGET = "budget"
    AUTH_FAILED = "auth_failed"


@dataclasses.dataclass(frozen=True, slots=True)
class TaskNews:
    """Something happened to a task: ``started``, ``resumed``, ``restarted``, ``released``,
    ``lost`` (another process has it) or ``ended``."""

    kind: str
    claim: Claim
    outcome: str | None = None
    error: str | None = None
    cost_usd: float | None = None
    duration: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Summary:
    """What there is in the queue at the end; ``counts`` by outcome or state, cost in dollars."""

    ending: Ending
    counts: dict[str, int]
    cost_usd: float
    reason: str | None = None


class DurableExecutor:
    """Runs the tasks of a queue under one supervisor.

    A task's ``config`` is an ``AgentConfig`` as JSON data, with a prompt. ``places`` is how many
    run at once (None: what ``supervisor.max_agents`` or the machine allows). ``budget_usd`` ends
    admission when that much was spent by tasks that ended; each agent is also told what is left,
    as its own ceiling. ``configure`` has the last word about a configuration (it may be another
    each time the task is taken up).
    """

    def __init__(
        self,
        queue: TaskQueue,
        supervisor: SupervisorConfig | None = None,
        *,
        places: int | None = None,
        budget_usd: float | None = None,
        resume_prompt: str = RESUME_PROMPT,
        configure: Callable[[Claim, AgentConfig], AgentConfig] = lambda claim, config: config,
        on_news: Callable[[TaskNews], None] = lambda news: None,
    ) -> None:
        if places is not None and places < 1:
            raise ConfigError(
                f"places = {places}: use 1 or more",
                field="places",
                value=places,
                remedy="use 1 or more",
            )
        self.queue = queue
        self.supervisor = supervisor or SupervisorConfig()
        self.places = places or self.supervisor.max_agents or _room(self.supervisor)
        self._budget = budget_usd
        self._resume_prompt = resume_prompt
        self._configure = configure
        self._on_news = on_news
        self._ending: Ending | None = None
        self._reason: str | None = None
        self._wake = asyncio.Event()
        self._running: dict[str, tuple[Claim, asyncio.Task[None]]] = {}
        self._sup: Supervisor | None = None

    # -- what others ask -------------------------------------------------------------------

    @property
    def running(self) -> dict[str, Claim]:
        """The claims in work, by task id."""
        return {task_id: claim for task_id, (claim, _) in self._running.items()}

    def state_of(self, task_id: str) -> str:
        """What the agent of a running task does now, as a word."""
        try:
            return str(self._sup.agent(task_id).state) if self._sup else "waiting"
        except AgentNotFound:
            return "waiting"

    def stop(self) -> None:
        """Start nothing more; what runs may end."""
        self._end(Ending.STOPPED, "stopped")

    def stop_now(self) -> None:
        """Start nothing more and end what runs; its tasks are given back, to be resumed."""
        self.stop()
        for _, task in list(self._running.values()):
            task.cancel()

    def kill(self) -> None:
        """As ``stop_now``, by force: a session whose turn is cut off may have to restart."""
        self.stop_now()
        for agent in self._sup.agents() if self._sup else ():
            with contextlib.suppress(AgentError):
                agent.kill()

    # -- the work --------------------------------------------------------------------------

    async def run(self) -> Summary:
        """Work until every task of the queue has ended, or until it may not go on.

        Tasks that another process works on are waited for, and taken over when it dies.
        """
        async with Supervisor(self.supervisor) as self._sup:
            heart = asyncio.ensure_future(self._beat())
            try:
                await self._work()
            finally:
                await self._drop_all()
                heart.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await heart
        return Summary(
            self._ending or Ending.DONE,
            await _off_loop(self.queue.counts),
            await _off_loop(self.queue.cost_usd),
            self._reason,
        )

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            while self._ending is None and len(self._running) < self.places:
                if not await self._within_budget():
                    break
                claim = await _off_loop(lambda: self.queue.claim(launched=False))
                if claim is None:
                    break
                task = asyncio.ensure_future(self._live(claim))
                self._running[claim.task_id] = (claim, task)
            if not self._running:
                counts = await _off_loop(self.queue.counts)
                if self._ending is not None or not counts.keys() & {"pending", "running"}:
                    return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL):
                    await self._wake.wait()

    async def _within_budget(self) -> bool:
        if self._budget is None:
            return True
        spent = await _off_loop(self.queue.cost_usd)
        if spent < self._budget:
            return True
        counts = await _off_loop(self.queue.counts)
        if "pending" in counts:
            self._end(
                Ending.BUDGET,
                f"{spent:.2f} of {self._budget:.2f} USD spent: nothing more is started",
            )
        return False

    def _end(self, ending: Ending, reason: str) -> None:
        if self._ending is None:
            self._ending, self._reason = ending, reason
        self._wake.set()

    async def _drop_all(self) -> None:
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- one task --------------------------------------------------------------------------

    async def _live(self, claim: Claim) -> None:
        """One task from its claim to its end, whatever happens on the way."""
        try:
            await self._attempts(claim)
        except LeaseLost as error:
            self._tell("lost", claim, error=str(error))
        except asyncio.CancelledError:
            await self._give_back(claim)
        except Exception as error:
            # The queue itself fails, or we do: what is not written down is not done.
            _LOG.exception("task %r is left to be resumed", claim.task_id)
            self._tell("released", claim, error=str(error))
            self._end(Ending.STOPPED, f"task {claim.task_id!r}: {error}")
        finally:
            self._running.pop(claim.task_id, None)
            self._wake.set()

    async def _give_back(self, claim: Claim) -> None:
        try:
            await _to_the_end(lambda: self.queue.release(self._newest(claim)))
        except LeaseLost as error:
            self._tell("lost", claim, error=str(error))
        else:
            self._tell("released", claim)

    def _newest(self, claim: Claim) -> Claim:
        return self._running.get(claim.task_id, (claim, None))[0]

    async def _attempts(self, claim: Claim) -> None:
        self._tell(claim.start, claim)
        while True:
            if claim.start is Start.RESUMED:
                ended = await end_holders(claim.session_id)
                if ended:
                    _LOG.warning("task %r: ended %d old holder(s)", claim.task_id, ended)
            # Written before anything can be started: whoever comes next knows of the session.
            await _off_loop(functools.partial(self.queue.launch, claim))
            try:
                result = await self._run_one(await self._config_for(claim))
            except ConfigError as error:
                await self._finish(claim, Outcome.SPAWN_FAILED, str(error))
                return
            if claim.start is Start.RESUMED and refuses_session(result, claim.session_id):
                again = functools.partial(self.queue.restart, claim, launched=False)
                fresh = await _off_loop(again)
                if fresh is None:
                    self._tell("ended", claim, outcome="incomplete", error=result.error)
                    return
                claim = fresh
                self._running[claim.task_id] = (claim, self._running[claim.task_id][1])
                self._tell(claim.start, claim)
                continue
            await self._settle(claim, result)
            return

    async def _config_for(self, claim: Claim) -> AgentConfig:
        settings = dict(claim.config)
        settings["agent_id"] = claim.task_id
        if claim.start is Start.RESUMED:
            settings["resume"] = claim.session_id
            settings["prompt"] = self._resume_prompt
        else:
            settings["session_id"] = claim.session_id
        budget = settings.pop("budget", None) or {}
        ceilings = [budget["usd"]] if budget.get("usd") is not None else []
        if self._budget is not None:
            ceilings.append(max(0.01, self._budget - await _off_loop(self.queue.cost_usd)))
        if ceilings and settings.get("adapter", "claude") == "claude":
            # The engine takes no budget yet; the CLI does.
            extra = {"max-budget-usd": f"{min(ceilings):.4f}"}
            settings["extra_args"] = extra | dict(settings.get("extra_args") or {})
        return self._configure(claim, AgentConfig.from_mapping(settings))

    async def _run_one(self, config: AgentConfig) -> RunResult:
        assert self._sup is not None
        (result,) = await self._sup.run([config])
        return result

    async def _settle(self, claim: Claim, result: RunResult) -> None:
        if result.outcome is Outcome.AUTH_FAILED:
            # Every other task would fail the same way. After a login they all can go on.
            await _to_the_end(lambda: self.queue.release(claim))
            self._tell("released", claim, error=result.error)
            self._end(Ending.AUTH_FAILED, result.error or "the CLI could not authenticate")
            return
        await self._finish(claim, result.outcome, result.error, result)

    async def _finish(
        self,
        claim: Claim,
        outcome: Outcome,
        error: str | None,
        result: RunResult | None = None,
    ) -> None:
        cost = cost_of(claim, result) if result else None

        def write() -> None:
            self.queue.finish(
                claim,
                outcome,
                result=_kept(result) if result else None,
                error=error,
                cost_usd=cost,
            )

        # A result is paid for: a Ctrl-C while it is written must not lose it.
        await _to_the_end(write)
        self._tell(
            "ended",
            claim,
            outcome=str(outcome),
            error=error,
            cost_usd=cost,
            duration=result.duration if result else None,
        )

    def _tell(self, kind: str, claim: Claim, **more: Any) -> None:
        self._on_news(TaskNews(str(kind), claim, **more))

    # -- the leases ------------------------------------------------------------------------

    async def _beat(self) -> None:
        """Prolong all leases; whoever lost one stops at once, and all stop when none can be."""
        prolonged = time.monotonic()
        while True:
            await asyncio.sleep(self.queue.lease_seconds / 3)
            claims = [claim for claim, _ in self._running.values()]
            asked = time.monotonic()
            try:
                lost = await _off_loop(functools.partial(self.queue.prolong, claims))
                prolonged = asked
            except sqlite3.Error as error:
                if time.monotonic() - prolonged < self.queue.lease_seconds * 2 / 3:
                    _LOG.warning("leases cannot be prolonged, trying again: %s", error)
                    continue
                lost = claims
                self._end(Ending.STOPPED, f"leases cannot be prolonged: {error}")
            for claim in lost:
                known, task = self._running.get(claim.task_id, (None, None))
                if known == claim and task is not None:
                    task.cancel()


def cost_of(claim: Claim, result: RunResult) -> float | None:
    """What a task has cost: of one that was resumed, also what its session had cost before."""
    costs = [result.cost_usd, result.total_cost_usd if claim.start is Start.RESUMED else None]
    return max((cost for cost in costs if cost is not None), default=None)


def refuses_session(result: RunResult, session_id: str) -> bool:
    """Whether the CLI said that it has no such session.

    Not by its words, which change: it ended at once, having spent nothing, and complained about
    this very id.
    """
    return (
        result.outcome in (Outcome.FAILED, Outcome.SPAWN_FAILED)
        and not result.cost_usd
        and session_id in f"{result.error} {result.stderr_tail}"
    )


def _kept(result: RunResult) -> dict[str, Any]:
    """What is worth keeping of a result besides outcome, error and cost; JSON data."""
    return {
        "result": result.result,
        "structured_output": result.structured_output,
        "turns": result.turns,
        "duration": result.duration,
        "usage": dict(result.usage),
        "orphans_reaped": result.orphans_reaped,
        "backend": result.backend,
        "containment": result.containment,
    }


def _room(supervisor: SupervisorConfig) -> int:
    reserve = supervisor.memory_reserve
    return default_max_agents(CLAUDE.memory_reserve if reserve is None else reserve)


async def _off_loop(call: Callable[[], T]) -> T:
    """The queue waits for locks and disks: never on the loop."""
    return await asyncio.to_thread(call)


async def _to_the_end(call: Callable[[], T]) -> T:
    """As ``_off_loop``, and not to be cancelled: the caller's own end is near in any case."""
    task = asyncio.ensure_future(asyncio.to_thread(call))
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    return task.result()
