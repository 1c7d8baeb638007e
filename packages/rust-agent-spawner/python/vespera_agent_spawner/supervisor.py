"""Responsible for a fleet: who starts when, who owns what, and that leaving ends everything."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from vespera_agent_spawner import _registrar, backends
from vespera_agent_spawner._counters import PROCESS
from vespera_agent_spawner._description import never_started
from vespera_agent_spawner._logging import logger_for
from vespera_agent_spawner.adapters import adapter_named
from vespera_agent_spawner.adapters.claude import CLAUDE
from vespera_agent_spawner.adapters.claude_frames import limit_ends
from vespera_agent_spawner.admission import Admission, default_max_agents
from vespera_agent_spawner.agent import Agent
from vespera_agent_spawner.backends import Backend, Ownership
from vespera_agent_spawner.backends._cgroup import delegated
from vespera_agent_spawner.config import AgentConfig, SupervisorConfig
from vespera_agent_spawner.errors import (
    AgentError,
    AgentExists,
    AgentNotFound,
    ConfigError,
    SupervisorClosed,
)
from vespera_agent_spawner.events import Event
from vespera_agent_spawner.results import AgentInfo, RunResult, State, Usage
from vespera_agent_spawner.transcripts import path_in

__all__ = ["Supervisor", "supervised_states"]

_CLOSE_GRACE = 5.0

# Settings of later versions: refused, so that nobody relies on what does nothing.
_LATER_FLEET = ("warm", "budget")
_LATER_AGENT = ("hooks", "tools", "budget")


class Supervisor:
    """Runs agents on one event loop.

    Use it as ``async with Supervisor(SupervisorConfig(max_agents=64)) as sup``; leaving ends
    every agent, gracefully, then by force.
    """

    def __init__(self, config: SupervisorConfig | Mapping[str, Any] | None = None) -> None:
        if not isinstance(config, SupervisorConfig):
            config = SupervisorConfig.from_mapping(config or {})
        _refuse_later(config, _LATER_FLEET)
        self.config = config
        self._backend = backends.choose(config.backend)
        self._ownership = _ownership(config, self._backend)
        # Weak: an agent that its owner dropped is ended, not kept. Ids and places are strong.
        self._agents: weakref.WeakValueDictionary[str, Agent] = weakref.WeakValueDictionary()
        self._ids: dict[str, _Place] = {}
        self._numbers = itertools.count(1)
        self._admission: Admission | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._merged: _Merged | None = None
        self._idle = asyncio.Event()
        self._log = logger_for("agent_spawner.supervisor")
        _supervisors.add(self)

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
        )
        _registrar.enter(self)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.shutdown()

    async def shutdown(self, grace: float = _CLOSE_GRACE) -> None:
        """End every agent within ``grace`` seconds, then by force; nothing starts any more."""
        self._closed = True
        if self._admission is not None:
            self._admission.close()
        if self._merged is not None:
            self._merged.close()
        ends = [asyncio.ensure_future(self._end(agent, grace)) for agent in self.agents()]
        if ends:
            waiting = asyncio.gather(*ends, return_exceptions=True)
            try:
                await asyncio.shield(waiting)
            except asyncio.CancelledError:
                # Whoever leaves in a hurry still leaves nothing behind.
                for agent in self.agents():
                    with contextlib.suppress(AgentError):
                        agent.kill()
                await waiting
                raise

    async def _end(self, agent: Agent, grace: float) -> None:
        with contextlib.suppress(AgentError):
            await agent.shutdown(grace)

    async def drain(self, timeout: float | None = None) -> bool:
        """Start nothing more and wait until all agents are over; False when time ran out."""
        self._places.close(SupervisorClosed("the supervisor is draining and starts nothing"))
        try:
            async with asyncio.timeout(timeout):
                while self._ids:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True

    # -- agents ----------------------------------------------------------------------------

    def agents(self) -> list[Agent]:
        """The agents that live or are starting."""
        return [agent for name, agent in list(self._agents.items()) if name in self._ids]

    def list_agents(self) -> list[AgentInfo]:
        """The agents that live, as values."""
        return [agent.info() for agent in self.agents() if agent._session is not None]

    @property
    def obstacle(self) -> str | None:
        """Why no agent may start now, in words (a full house, a pause until a rate limit ends,
        too little memory, …); None when one may."""
        obstacle = None if self._admission is None else self._admission.obstacle
        return None if obstacle is None else obstacle.words

    def usage(self) -> dict[str, Usage]:
        """What the tree of each living agent uses now, by agent id.

        One look at the system for all: milliseconds for hundreds of agents.
        """
        sessions = {
            agent.agent_id: agent._session for agent in self.agents() if agent._session is not None
        }
        used = self._backend.usage_of(list(sessions.values()))
        return dict(zip(sessions, used, strict=True))

    def agent(self, agent_id: str) -> Agent:
        """A living agent by its id; raises ``AgentNotFound``."""
        if agent_id not in self._ids or (agent := self._agents.get(agent_id)) is None:
            raise AgentNotFound(f"no agent '{agent_id}' lives in this supervisor")
        return agent

    async def spawn(self, config: AgentConfig | Mapping[str, Any]) -> Agent:
        """Start an agent; returns when the CLI has answered ``initialize``.

        Waits for a place at most ``timeouts.queue`` seconds. Raises ``ConfigError``,
        ``AgentExists``, ``SpawnError``, ``AgentTimeout`` (queue, startup) or ``SupervisorClosed``.
        """
        settled = self._settle(config)
        timeouts = settled.timeouts
        return await self._start(settled, timeouts.queue if timeouts else None, listening=True)

    async def run(self, configs: Iterable[AgentConfig | Mapping[str, Any]]) -> list[RunResult]:
        """Run all, as many at once as there are places; results in the order of ``configs``.

        One agent's failure is its result, never an exception. Cancelling ends the work.
        """
        settled = [self._settle_run(config) for config in configs]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._run_one(config)) for config in settled]
        return [task.result() for task in tasks]

    async def as_completed(
        self, configs: Iterable[AgentConfig | Mapping[str, Any]]
    ) -> AsyncIterator[RunResult]:
        """As ``run``, each result as soon as it is there. Closing it ends the rest."""
        settled = [self._settle_run(config) for config in configs]
        tasks = [asyncio.ensure_future(self._run_one(config)) for config in settled]
        try:
            for task in asyncio.as_completed(tasks):
                yield await task
        finally:
            for left in tasks:
                left.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def events(self) -> AsyncIterator[tuple[Agent, Event]]:
        """The events of all agents, merged; each agent's own are in order.

        Ends when the supervisor closes. One at a time, and instead of iterating the agents.
        """
        if self._merged is not None and not self._merged.closed:
            raise ConfigError(
                "events: another merged iteration is open",
                field="events",
                value=None,
                remedy="read all events in one place",
            )
        self._merged = _Merged(self)
        for agent in self.agents():
            self._merged.watch(agent)
        return self._merged

    async def _run_one(self, config: AgentConfig) -> RunResult:
        agent: Agent | None = None
        try:
            agent = await self._start(config, None, listening=False)
            result = await agent.result()
        except asyncio.CancelledError:
            if agent is not None:
                await agent.cancel()
            raise
        except (AgentError, OSError) as error:
            failed = never_started(error, self._backend.name, self._backend.containment())
            PROCESS.count_run(failed.outcome, failed.duration)
            return failed
        return result

    async def _start(self, config: AgentConfig, queue: float | None, *, listening: bool) -> Agent:
        places = self._places
        agent_id = config.agent_id or ""
        reserve = self.config.memory_reserve
        if reserve is None:
            reserve = adapter_named(config.adapter).memory_reserve
        if agent_id in self._ids:
            raise AgentExists(
                f"agent '{agent_id}' exists already in this supervisor",
                context={"agent_id": agent_id},
            )
        agent = Agent(config, self._forget)
        agent._on_service, agent._on_refused = self._noted_service, self._noted_refusal
        place = self._ids[agent_id] = _Place(agent_id)
        self._agents[agent_id] = agent
        try:
            await places.enter(config.priority, queue, agent_id, reserve)
        except BaseException:
            self._release(place)
            raise
        place.entered = True
        weakref.finalize(agent, self._release, place).atexit = False
        try:
            await self._launch(agent, place, listening or self._merged is not None)
        except BaseException as error:
            places.note_start(error)
            raise
        else:
            places.note_start(None)
        finally:
            places.left_start(reserve)
        return agent

    async def _launch(self, agent: Agent, place: _Place, listening: bool) -> None:
        try:
            session = self._backend.start(
                agent.config,
                _news_of(agent),
                listening=listening,
                ownership=self._ownership,
            )
            agent._attach(session)
        except BaseException:
            self._release(place)
            raise
        if self._merged is not None:
            self._merged.watch(agent)
        agent._news()
        try:
            # Shielded: the agent's own end asks how its start went.
            await asyncio.shield(agent._ready)
        except asyncio.CancelledError:
            agent.kill()
            # Whoever hears that it was cancelled finds nothing of it, unless in a hurry.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(agent._ended)
            raise

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
        place = self._ids.get(agent.agent_id)
        if place is not None:
            self._release(place)

    def _release(self, place: _Place) -> None:
        """An agent is over, or was dropped: its place and its id are free."""
        if self._ids.get(place.agent_id) is not place:
            return
        del self._ids[place.agent_id]
        if place.entered:
            self._admission_left()
        if not self._ids:
            self._idle.set()

    def _admission_left(self) -> None:
        # A dropped agent may be collected when its loop is closed already.
        if self._admission is None or self._loop is None or self._loop.is_closed():
            return
        try:
            here = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            here = False
        if here:
            self._admission.leave()
        else:
            self._loop.call_soon_threadsafe(self._admission.leave)

    @property
    def _places(self) -> Admission:
        if self._admission is None:
            raise SupervisorClosed("use the supervisor inside 'async with'")
        if asyncio.get_running_loop() is not self._loop:
            raise ConfigError(
                "a supervisor belongs to the event loop that entered it",
                field="loop",
                value=None,
                remedy="make one supervisor per loop",
            )
        return self._admission

    # -- configuration ---------------------------------------------------------------------

    def _settle(self, config: AgentConfig | Mapping[str, Any]) -> AgentConfig:
        if not isinstance(config, AgentConfig):
            config = AgentConfig.from_mapping(config)
        _refuse_later(config, _LATER_AGENT)
        changes: dict[str, Any] = {}
        if config.agent_id is None:
            changes["agent_id"] = f"agent-{next(self._numbers)}"
        if config.timeouts is None:
            changes["timeouts"] = self.config.timeouts
        if config.limits is None:
            changes["limits"] = self.config.limits
        if config.transcript is None and self.config.transcript_dir is not None:
            agent_id = config.agent_id or changes["agent_id"]
            changes["transcript"] = path_in(self.config.transcript_dir, agent_id)
        retry = config.retry or self.config.retry
        if retry.attempts > 1:
            raise _later("retry.attempts", retry.attempts)
        return config._with(**changes)

    def _settle_run(self, config: AgentConfig | Mapping[str, Any]) -> AgentConfig:
        settled = self._settle(config)
        if settled.prompt is None and not adapter_named(settled.adapter).runs_to_exit:
            raise ConfigError(
                f"agent '{settled.agent_id}': run and as_completed need a prompt",
                field="prompt",
                value=None,
                remedy="give a prompt, or spawn a session",
            )
        return settled


def _ownership(config: SupervisorConfig, backend: Backend) -> Ownership:
    chosen = Ownership(config.host_death_grace)
    if config.cgroup is None:
        return chosen
    if backend.name != "rust":
        raise ConfigError(
            "cgroup: the Python backend cannot use one",
            field="cgroup",
            value=config.cgroup,
            remedy="leave it out, or use backend='rust'",
        )
    return dataclasses.replace(chosen, cgroup=delegated(config.cgroup))


@dataclasses.dataclass(slots=True, eq=False)
class _Place:
    """An agent's hold on its id and, once it has entered, on a place."""

    agent_id: str
    entered: bool = False


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


class _Merged(AsyncIterator["tuple[Agent, Event]"]):
    """All agents' events in one iteration, fairly: a batch of each in turn."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._bell = asyncio.Event()
        self._dirty: dict[Agent, None] = {}
        self._batch: list[tuple[Agent, Event]] = []
        self._watched: set[Agent] = set()
        self.closed = False

    def watch(self, agent: Agent) -> None:
        agent._merged = self._noted
        # Whoever reads the merged stream owns what is in it.
        self._watched.add(agent)
        if agent._session is not None:
            agent._session.listen(True)
        self._noted(agent)

    def _noted(self, agent: Agent) -> None:
        self._dirty[agent] = None
        self._bell.set()

    def close(self) -> None:
        self.closed = True
        self._bell.set()

    async def aclose(self) -> None:
        """Stop watching; the agents live on."""
        self.close()
        for agent in self._supervisor.agents():
            agent._merged = None
            if agent._session is not None:
                agent._session.listen(False)

    async def __anext__(self) -> tuple[Agent, Event]:
        while not self._batch:
            self._bell.clear()
            for agent in list(self._dirty):
                taken = agent._session.take_events(64) if agent._session is not None else []
                if not taken:
                    del self._dirty[agent]
                self._batch.extend((agent, event) for event in taken)
            if self._batch:
                self._batch.reverse()
                break
            if self.closed and not self._supervisor.agents():
                raise StopAsyncIteration
            await self._bell.wait()
        return self._batch.pop()


#: Those of this process, for its metrics.
_supervisors: weakref.WeakSet[Supervisor] = weakref.WeakSet()


def supervised_states() -> list[State]:
    """The states of all agents of all supervisors of this process."""
    return [agent.state for supervisor in list(_supervisors) for agent in supervisor.agents()]


def _refuse_later(config: AgentConfig | SupervisorConfig, names: tuple[str, ...]) -> None:
    for name, value in config._changed():
        if name in names:
            raise _later(name, value)


def _later(name: str, value: Any) -> ConfigError:
    return ConfigError(
        f"{name}: this version does not do that yet",
        field=name,
        value=value,
        remedy="leave it out",
    )
