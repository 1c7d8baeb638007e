"""Responsible for the place that an agent works in, where its owner makes one for it.

``AgentConfig.workspace`` is called once there is a place for the run and gives an asynchronous
context manager: what it yields is the working directory, and it is left when nothing of the
agent's tree is there any more, after the last attempt. Both have a limit of time: whoever enters
holds a start's place, and whoever ends or cancels the work waits for the leaving.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from vespera_agent_spawner._logging import logger_for
from vespera_agent_spawner.errors import AgentError, AgentTimeout, ConfigError, SpawnError

if TYPE_CHECKING:
    from vespera_agent_spawner.agent import Agent
    from vespera_agent_spawner.backends._protocol import LiveSession
    from vespera_agent_spawner.config import AgentConfig, Timeouts

__all__ = ["Tenancy", "Tenants", "Workspace"]

_LEAVE_LIMIT = 60.0  # seconds


class Workspace:
    """One agent's place, from before its start to after its end."""

    def __init__(self, config: AgentConfig, agent_id: str, timeouts: Timeouts) -> None:
        self._make = config.workspace
        self._agent_id = agent_id
        self._limit = (timeouts.startup, "startup")
        if timeouts.total is not None:
            self._limit = min(self._limit, (timeouts.total, "total"))
        self._entered: AbstractAsyncContextManager[Any] | None = None
        self._directory = ""

    async def furnish(self, config: AgentConfig) -> AgentConfig:
        """Enter it, if that was not done; the configuration with its directory.

        Raises ``ConfigError`` for what is no asynchronous context manager, ``AgentTimeout``
        (startup, total) for one that takes too long, and ``SpawnError`` (stage workspace) for
        whatever it raises itself.
        """
        if self._entered is None:
            await self._enter()
        return config._having({"working_directory": self._directory})

    async def _enter(self) -> None:
        assert self._make is not None
        try:
            manager = self._make()
            if not isinstance(manager, AbstractAsyncContextManager):
                raise ConfigError(
                    f"workspace: agent '{self._agent_id}': gave a {type(manager).__name__}, not an "
                    "asynchronous context manager",
                    field="workspace",
                    value=type(manager).__name__,
                    remedy="decorate an async generator with contextlib.asynccontextmanager",
                )
            directory = await self._within_limit(manager)
            self._entered = manager
            if not isinstance(directory, str | os.PathLike):
                raise ConfigError(
                    f"workspace: agent '{self._agent_id}': yielded {directory!r}, not a directory",
                    field="workspace",
                    value=directory,
                    remedy="yield the directory's path",
                )
        except AgentError:
            await self.leave()
            raise
        except Exception as error:
            raise SpawnError(
                f"agent '{self._agent_id}': its workspace could not be made: {error!r}",
                stage="workspace",
            ) from error
        self._directory = os.fsdecode(os.fspath(directory))

    async def _within_limit(self, manager: AbstractAsyncContextManager[Any]) -> Any:
        limit, which = self._limit
        clock = asyncio.timeout(limit)
        try:
            async with clock:
                return await manager.__aenter__()
        except TimeoutError:
            if not clock.expired():
                raise
            raise AgentTimeout(
                f"agent '{self._agent_id}': its workspace was not there within {limit:g} s "
                f"(timeouts.{which}); see what it waits for, or raise timeouts.{which}",
                which=which,
                after=limit,
                context={"agent_id": self._agent_id},
            ) from None

    async def leave(self) -> None:
        """The tree is empty; a failure is a warning, since the work is done."""
        manager, self._entered = self._entered, None
        if manager is None:
            return
        clock = asyncio.timeout(_LEAVE_LIMIT)
        try:
            async with clock:
                await manager.__aexit__(None, None, None)
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            why = f"given up after {_LEAVE_LIMIT:g} s" if clock.expired() else repr(error)
            logger_for("agent_spawner.supervisor", self._agent_id).warning(
                "its workspace '%s' could not be left: %s", self._directory, why
            )


class Tenancy:
    """What the backend calls for an agent that has a workspace.

    The agent's owner may drop it, but the workspace is there until the tree has ended: this hears
    of it then. ``on_over`` is told whether it was dropped.
    """

    def __init__(self, agent: Agent, on_over: Callable[[Tenancy, bool], None]) -> None:
        self._agent = weakref.ref(agent)
        self._on_over = on_over
        self._over = False
        self.session: LiveSession | None = None

    def news(self) -> bool:
        agent = self._agent()
        if agent is not None:
            agent._news()
            self._end_if(agent._ended.done(), dropped=False)
        elif self.session is not None:
            self.session.heard()
            self._end_if(self.session.state.is_over, dropped=True)
        return self.session is not None

    def _end_if(self, over: bool, *, dropped: bool) -> None:
        if over and not self._over:
            self._over = True
            self._on_over(self, dropped)


class Tenants:
    """Who of one fleet is in a workspace, and which workspaces are being left."""

    def __init__(self, on_out: Callable[[], object]) -> None:
        self._on_out = on_out
        self._here: set[Tenancy] = set()
        #: What is waited for when the fleet ends.
        self.leaving: set[asyncio.Future[None]] = set()

    def __len__(self) -> int:
        return len(self._here)

    def tenancy(self, agent: Agent, workspace: Workspace) -> Tenancy:
        """What the backend is to call for this agent; ``add`` it once it has a session."""
        is_attempt = agent._is_attempt
        loop = asyncio.get_running_loop()

        def over(tenancy: Tenancy, dropped: bool) -> None:
            self._here.discard(tenancy)
            self._on_out()
            # A run leaves it after its last attempt.
            if dropped or not is_attempt:
                self.move_out(workspace, loop)

        return Tenancy(agent, over)

    def add(self, tenancy: Tenancy, session: LiveSession) -> None:
        tenancy.session = session
        self._here.add(tenancy)

    def move_out(self, workspace: Workspace, loop: asyncio.AbstractEventLoop) -> None:
        """Leave it, without waiting for that."""
        if loop.is_closed():
            return
        # The loop itself holds its tasks weakly.
        leaving = loop.create_task(workspace.leave())
        self.leaving.add(leaving)
        leaving.add_done_callback(self.leaving.discard)

    async def all_left(self) -> None:
        """Wait until no workspace is being left any more."""
        while self.leaving:
            await asyncio.wait(self.leaving)
