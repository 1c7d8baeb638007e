"""Responsible for a fleet: who starts when, who owns what, and that leaving ends everything."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Container, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, cast

from vespera_agent_spawner import _registrar, backends
from vespera_agent_spawner import _validation as rules
from vespera_agent_spawner._counters import PROCESS
from vespera_agent_spawner._description import never_started
from vespera_agent_spawner._logging import logger_for
from vespera_agent_spawner._own_loop import check_own_loop
from vespera_agent_spawner._snapshot import snapshot
from vespera_agent_spawner._supervisors import SUPERVISORS
from vespera_agent_spawner._waiting import wait_for_end
from vespera_agent_spawner.adapters import adapter_named
from vespera_agent_spawner.adapters.claude import CLAUDE
from vespera_agent_spawner.adapters.claude_frames import limit_ends
from vespera_agent_spawner.adapters.lookups import SHORTLY, Found, Lookups
from vespera_agent_spawner.admission import Admission, default_max_agents
from vespera_agent_spawner.agent import Agent
from vespera_agent_spawner.backends._protocol import LiveSession, Standby, StandingSession
from vespera_agent_spawner.batch import Batch, Seat
from vespera_agent_spawner.config import AgentConfig, Duration, SupervisorConfig
from vespera_agent_spawner.errors import (
    AgentError,
    AgentExists,
    AgentNotFound,
    BudgetExceeded,
    ConfigError,
    SupervisorClosed,
)
from vespera_agent_spawner.events import Event
from vespera_agent_spawner.fleet_settings import (
    checked_config,
    checked_runs,
    may_stand,
    ownership_of,
    settled,
)
from vespera_agent_spawner.merged_events import MergedEvents, Watch
from vespera_agent_spawner.pool import Pool, in_place
from vespera_agent_spawner.results import AgentInfo, RunResult, Usage
from vespera_agent_spawner.retries import Effort, is_settled
from vespera_agent_spawner.session_hold import held
from vespera_agent_spawner.spending import Meter, Purse
from vespera_agent_spawner.workspaces import Tenants, Workspace

__all__ = ["Supervisor"]

_CLOSE_GRACE = 5.0


class Supervisor:
    """Runs agents on one event loop.

    Use it as ``async with Supervisor(SupervisorConfig(max_agents=64)) as sup``; leaving ends
    every agent, gracefully, then by force.
    """

    def __init__(self, config: SupervisorConfig | Mapping[str, Any] | None = None) -> None:
        if not isinstance(config, SupervisorConfig):
            config = SupervisorConfig.from_mapping(config or {})
        self.config = config
        self._backend = backends.choose(config.backend)
        self._ownership = ownership_of(config, self._backend)
        #: What agents that are spawned one by one have found.
        self._found: Found = {}
        # Weak: who is dropped is ended, not kept. Ids and places are strong until its finalizer.
        self._agents: dict[str, weakref.ref[Agent]] = {}
        self._ids: dict[str, Seat] = {}
        self._numbers = itertools.count(1)
        self._admission: Admission | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._merged: Watch | None = None
        #: The living ones that a merged iteration has seen.
        self._kept: set[Agent] = set()
        self._idle = asyncio.Event()
        self._log = logger_for("agent_spawner.supervisor")
        self._pool: Pool | None = None
        self._tenants = Tenants(self._idle.set)
        self._purse: Purse | None = None
        # What is spent, and what is warm, is looked at before each start.
        self._standby: Standby | None = None
        if config.budget is None and not config.warm:
            self._standby = self._backend.standby(config.max_starting)
        if config.budget is not None:
            self._purse = Purse(config.budget, "budget", self._log.warning, self._broke)
        SUPERVISORS.add(self)

    # -- life ------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._closed or self._admission is not None:
            raise SupervisorClosed("a supervisor is entered once; make another")
        reserve = self.config.memory_reserve
        reserve = CLAUDE.memory_reserve if reserve is None else reserve
        self._loop = asyncio.get_running_loop()
        self._admission = Admission(
            max_agents=self.config.max_agents or default_max_agents(reserve),
            max_starting=self.config.max_starting,
            start_interval=self.config.start_interval,
            standby=self._standby,
        )
        if self._purse is not None and self._purse.empty is not None:
            self._broke(self._purse.empty)
        if self.config.warm:
            self._pool = Pool(self.config.warm, self._admission, self._backend, self._ownership)
            self._pool.next_ones = self._next_ones
        _registrar.enter(self)
        return self

    def _next_ones(self, count: int) -> list[tuple[AgentConfig, int, bool]]:
        """Those who are served next, as they will be started."""
        found = []
        for ticket in self._places.next_ones(count):
            config, agent_id, here = cast("tuple[AgentConfig, str, str]", ticket.subject)
            counting = config.budget is not None or self._purse is not None
            placed = in_place(settled(config, agent_id, self.config, self._purse), here)
            found.append((placed, ticket.reserve, counting))
        return found

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.shutdown()

    async def shutdown(self, grace: Duration = _CLOSE_GRACE) -> None:
        """End every agent within ``grace`` seconds, then by force; nothing starts any more."""
        grace = rules.duration("grace", grace)
        self._closed = True
        if self._admission is not None:
            self._admission.close()
        if self._merged is not None:
            self._merged.ring()
        ends = [asyncio.ensure_future(self._end(agent, grace)) for agent in self.agents()]
        if self._pool is not None:
            ends.append(asyncio.ensure_future(self._pool.close()))
        if ends:
            waiting = asyncio.gather(*ends, return_exceptions=True)
            try:
                await wait_for_end(waiting)
            except asyncio.CancelledError:
                # Whoever leaves in a hurry still leaves nothing behind.
                for agent in self.agents():
                    with contextlib.suppress(AgentError):
                        agent.kill()
                await waiting
                raise
        # Those whose workspace is still being made hear of it when it is there.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace + _CLOSE_GRACE):
                await self._empty()
        await self._tenants.all_left()

    async def _empty(self) -> None:
        while self._ids or self._tenants:
            self._idle.clear()
            await self._idle.wait()

    async def _end(self, agent: Agent, grace: float) -> None:
        with contextlib.suppress(AgentError):
            await agent.shutdown(grace)

    async def drain(self, timeout: Duration | None = None) -> bool:
        """Start nothing more and wait until all agents are over; False when time ran out."""
        timeout = rules.optional(rules.duration)("timeout", timeout)
        self._places.close(SupervisorClosed("the supervisor is draining and starts nothing"))
        try:
            async with asyncio.timeout(timeout):
                if self._pool is not None:
                    await self._pool.close()
                await self._empty()
                await self._tenants.all_left()
        except TimeoutError:
            return False
        return True

    # -- agents ----------------------------------------------------------------------------

    def agents(self) -> list[Agent]:
        """The agents that live or are starting."""
        listed = [weak() for name, weak in snapshot(self._agents.items) if name in self._ids]
        return [agent for agent in listed if agent is not None]

    def list_agents(self) -> list[AgentInfo]:
        """The agents that live, as values."""
        return [agent.info() for agent in self.agents() if agent._session is not None]

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return 0 if self._admission is None else self._admission.waiting

    @property
    def obstacle(self) -> str | None:
        """Why no agent may start now, in words (a full house, a pause until a rate limit ends,
        too little memory, …); None when one may."""
        obstacle = None if self._admission is None else self._admission.obstacle
        return None if obstacle is None else obstacle.words

    def usage(self) -> dict[str, Usage]:
        """What the tree of each living agent uses now, by agent id.

        One look at the system for all: milliseconds for hundreds of agents. The memory of a process
        that has not run since the look before may be as of up to ten seconds ago.
        """
        sessions = {
            agent.agent_id: agent._session for agent in self.agents() if agent._session is not None
        }
        used = self._backend.usage_of(list(sessions.values()))
        return dict(zip(sessions, used, strict=True))

    def agent(self, agent_id: str) -> Agent:
        """A living agent by its id; raises ``AgentNotFound``."""
        weak = self._agents.get(agent_id) if agent_id in self._ids else None
        if weak is None or (agent := weak()) is None:
            words = f"no agent '{agent_id}' lives in this supervisor; list_agents() shows who does"
            raise AgentNotFound(words, context={"agent_id": agent_id})
        return agent

    async def spawn(self, config: AgentConfig | Mapping[str, Any]) -> Agent:
        """Start an agent; returns when the CLI has answered ``initialize``.

        Waits for a place at most ``timeouts.queue`` seconds. A start that fails is tried again as
        ``retry`` says; what happens later is its owner's to judge. Raises ``ConfigError``,
        ``AgentExists``, ``SpawnError``, ``AgentTimeout`` (queue, startup), ``BudgetExceeded`` or
        ``SupervisorClosed``.
        """
        checked = checked_config(config)
        timeouts = checked.timeouts or self.config.timeouts
        effort = Effort(checked, checked.retry or self.config.retry)
        while True:
            try:
                return await self._start(checked, timeouts.queue)
            except (AgentError, OSError) as error:
                if is_settled(error) or self._places.closed is not None:
                    raise
                wait = effort.again(self._never_started(error, checked, ""))
                if wait is None:
                    raise
                PROCESS.add("vespera_retries_total")
                await self._tenants.all_left()
                await self._places.pause(wait)

    async def run(self, configs: Iterable[AgentConfig | Mapping[str, Any]]) -> list[RunResult]:
        """Run all, as many at once as there are places; results in the order of ``configs``.

        One agent's failure is its result, never an exception. Cancelling ends the work. Raises
        ``ConfigError`` and ``SupervisorClosed`` before anything starts.
        """
        batch = Batch(self, checked_runs(configs))
        try:
            batch.begin()
            return await batch.all()
        except GeneratorExit:
            batch.throw_away()
            raise
        except BaseException:
            await batch.end()
            raise

    async def as_completed(
        self, configs: Iterable[AgentConfig | Mapping[str, Any]]
    ) -> AsyncGenerator[RunResult]:
        """As ``run``, each result as soon as it is there. Closing it ends the rest."""
        batch = Batch(self, checked_runs(configs))
        try:
            batch.begin()
            while (result := await batch.next()) is not None:
                yield result
        finally:
            await batch.end()

    def events(self) -> AsyncIterator[tuple[Agent, Event]]:
        """The events of all agents, merged; each agent's own are in order.

        Ends when the supervisor closes. One at a time, and instead of iterating the agents.
        Dropping it stops watching; the agents that it has seen live on.
        """
        if self._merged is not None:
            raise ConfigError(
                "events: another merged iteration is open",
                field="events",
                value=None,
                remedy="read all events in one place",
            )
        watch = self._merged = Watch(self)
        if self._admission is not None:
            self._admission.stand_down()
        for agent in self.agents():
            # Who has not begun is added when it does.
            if agent._session is not None:
                watch.add(agent)
        return MergedEvents(watch)

    def _enter(self, config: AgentConfig, given: Container[str] = ()) -> Seat:
        """Take an id, before there is a place; raises ``AgentExists``.

        ``given``: ids of others that enter soon, of which none is generated.
        """
        agent_id = config.agent_id
        if agent_id is None:
            agent_id = self._made_id(given)
        elif agent_id in self._ids:
            raise AgentExists(
                f"agent '{agent_id}' exists already in this supervisor",
                context={"agent_id": agent_id},
            )
        reserve = self.config.memory_reserve
        if reserve is None:
            reserve = adapter_named(config.adapter).memory_reserve
        seat = self._ids[agent_id] = Seat(agent_id, reserve)
        return seat

    def _made_id(self, given: Container[str]) -> str:
        while True:
            name = f"agent-{next(self._numbers)}"
            if name not in self._ids and name not in given:
                return name

    async def _start(self, config: AgentConfig, queue: float | None) -> Agent:
        places = self._places
        seat = self._enter(config)
        try:
            agent = self._agent(config, seat, self._forget, self._purse_of(config))
            subject = (config, seat.agent_id, os.getcwd())  # noqa: PTH109 - the same text
            await places.enter(config.priority, queue, seat.agent_id, seat.reserve, subject)
        except BaseException:
            self._release(seat)
            raise
        seat.entered = True
        workspace = self._workspace(config, seat)
        try:
            if workspace is not None:
                agent.config = await workspace.furnish(agent.config)
                if places.closed is not None:
                    raise places.closed
            lookups = Lookups(self._found, SHORTLY)
            self._launch(agent, seat, listening=True, lookups=lookups, workspace=workspace)
            weakref.finalize(agent, self._release, seat).atexit = False
            await self._ready(agent)
        except BaseException as error:
            places.note_start(error)
            if agent._session is None:
                self._release(seat)
                if workspace is not None:
                    self._tenants.move_out(workspace, asyncio.get_running_loop())
            raise
        else:
            places.note_start(None)
        finally:
            places.left_start(seat.reserve)
        return agent

    def _purse_of(self, config: AgentConfig) -> Purse | None:
        """Raises ``BudgetExceeded`` for one that is empty from its start."""
        if config.budget is None:
            return None
        purse = Purse(config.budget, "the agent's budget", self._log.warning)
        if purse.empty is not None:
            raise BudgetExceeded(f"{purse.empty}; raise the budget")
        return purse

    def _broke(self, words: str) -> None:
        """The fleet's budget is spent: nothing starts any more, and what runs is stopped."""
        text = f"nothing more is started: {words}; raise it in another supervisor"
        self._log.error("%s", text)
        for agent in self.agents():
            agent._spent(words)
        if self._admission is not None and not self._closed:
            self._admission.close(BudgetExceeded(text))

    def _agent(
        self,
        config: AgentConfig,
        seat: Seat,
        on_end: Callable[[Agent], None],
        purse: Purse | None,
        *,
        listed: bool = True,
    ) -> Agent:
        own = settled(config, seat.agent_id, self.config, self._purse, purse)
        agent = Agent(own, on_end)
        agent._on_service, agent._on_refused = self._noted_service, self._noted_refusal
        if (purse or self._purse) and not agent._adapter.runs_to_exit:
            agent._meter = Meter([one for one in (purse, self._purse) if one is not None])
        if listed:
            self._agents[seat.agent_id] = weakref.ref(agent)
        return agent

    def _stand_by(
        self,
        config: AgentConfig,
        seat: Seat,
        on_end: Callable[[Agent], None],
        lookups: Lookups,
    ) -> tuple[Agent, StandingSession] | None:
        """Prepare an agent that another's end may start; None for one that only the loop may."""
        if self._standby is None or self._merged is not None:
            return None
        agent = self._agent(config, seat, on_end, None, listed=False)
        if not may_stand(agent.config):
            return None
        session = self._backend.start(
            agent.config,
            agent._news,
            listening=False,
            ownership=self._ownership,
            lookups=lookups,
            standby=self._standby,
            stands_by=True,
        )
        return agent, cast("StandingSession", session)

    def _join(self, agent: Agent, session: StandingSession) -> None:
        """It stood by, and another's end has started it."""
        self._agents[agent.agent_id] = weakref.ref(agent)
        agent._enter(session, session.entered())
        if self._merged is not None:
            self._merged.add(agent)
        agent._news()

    def _workspace(self, config: AgentConfig, seat: Seat) -> Workspace | None:
        if config.workspace is None:
            return None
        return Workspace(config, seat.agent_id, config.timeouts or self.config.timeouts)

    def _launch(
        self,
        agent: Agent,
        seat: Seat,
        *,
        listening: bool,
        lookups: Lookups,
        workspace: Workspace | None = None,
        owned: bool = False,
    ) -> None:
        """Start the agent, which has a place, without waiting for what comes of it.

        ``owned``: somebody holds it until its end; others may be dropped.
        """
        seat.entered = True
        session: LiveSession | None = None
        try:
            if agent.config.resume is not None or agent.config.session_id is not None:
                agent.config, hold = held(agent.config)
                agent._holds += [] if hold is None else [hold]
            listening = listening or self._merged is not None
            counting = agent._meter is not None
            tenancy = None if workspace is None else self._tenants.tenancy(agent, workspace)
            news: Callable[[], bool] = agent._news if owned else _news_of(agent)
            if tenancy is not None:
                news = tenancy.news
            if self._pool is not None:
                placed = in_place(agent.config, lookups.here)
                session = self._pool.take(placed, seat.reserve, counting=counting)
            tells_itself = False
            if session is not None:
                session.claim(agent.config, news, listening=listening)
            else:
                session = self._backend.start(
                    agent.config,
                    news,
                    listening=listening,
                    ownership=self._ownership,
                    lookups=lookups,
                    counting=counting,
                    standby=self._standby,
                )
                tells_itself = session.tells_itself
            agent._attach(session)
            if tenancy is not None:
                self._tenants.add(tenancy, session)
        except BaseException:
            if session is not None:
                session.kill()
            self._release(seat)
            raise
        if self._merged is not None:
            self._merged.add(agent)
        if not tells_itself:
            news()

    async def _ready(self, agent: Agent) -> None:
        try:
            # Not cancelled with us: the agent's own end asks how its start went.
            await wait_for_end(agent._ready)
        except asyncio.CancelledError:
            agent.kill()
            # Whoever hears that it was cancelled finds nothing of it, unless in a hurry.
            with contextlib.suppress(asyncio.CancelledError):
                await wait_for_end(agent._ended)
            raise

    def _never_started(self, error: BaseException, config: AgentConfig, name: str) -> RunResult:
        return never_started(error, config, name, self._backend.name, self._backend.tier())

    def _noted_refusal(self, agent: Agent, error: str | None) -> None:
        """Its credentials were refused: the next one in the queue would fail the same way."""
        if self.config.on_auth_failure != "stop" or self._admission is None or self._closed:
            return
        text = (
            f"nothing more is started: agent '{agent.agent_id}' could not authenticate "
            f"({error}); log in again, or set on_auth_failure='continue'"
        )
        self._log.error("%s", text)
        self._admission.close(AgentError(text, code="auth_failed"))

    def _noted_service(self, agent: Agent, frame: Mapping[str, Any]) -> None:
        """The service takes no more work for some time: nobody starts before its end."""
        limit = limit_ends(frame, time.time())
        if limit is None or self._admission is None:
            return
        at, what = limit
        if self._admission.pause_until(at, f"{what} told by agent '{agent.agent_id}'"):
            when = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(at))
            self._log.warning(
                "no agent starts before %s: %s told by agent '%s'", when, what, agent.agent_id
            )

    def _forget(self, agent: Agent) -> None:
        """The agent is over."""
        if (seat := self._ids.get(agent.agent_id)) is not None:
            self._release(seat)

    def _release(self, seat: Seat) -> None:
        """An agent is over, or was dropped: its place and its id are free."""
        if self._ids.get(seat.agent_id) is not seat:
            return
        del self._ids[seat.agent_id]
        self._agents.pop(seat.agent_id, None)
        # A dropped agent may be collected by any thread, and when its loop is closed already.
        try:
            here = asyncio.get_running_loop()
        except RuntimeError:
            here = None
        if here is not None and here is self._loop:
            self._left(seat)
        elif self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._left, seat)

    def _left(self, seat: Seat) -> None:
        if seat.entered and self._admission is not None:
            self._admission.leave()
        if not self._ids:
            self._idle.set()
        if self._merged is not None:
            self._merged.ring()
        if self._pool is not None:
            self._pool.look_soon()

    @property
    def _places(self) -> Admission:
        if self._admission is None:
            raise SupervisorClosed("use the supervisor inside 'async with'")
        whose = "a supervisor belongs to the event loop that entered it"
        check_own_loop(self._loop, whose, "make one supervisor per loop")
        return self._admission


def _news_of(agent: Agent) -> Callable[[], bool]:
    """What the backend calls; it must not keep alive what its owner dropped."""
    weak = weakref.ref(agent)

    def news() -> bool:
        living = weak()
        if living is None:
            return False
        living._news()
        return True

    return news
