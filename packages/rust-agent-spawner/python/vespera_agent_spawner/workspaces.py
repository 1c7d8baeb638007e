"""Responsible for the place that an agent works in, where its owner makes one for it.

``AgentConfig.workspace`` is called once there is a place for the run and gives an asynchronous
context manager: what it yields is the working directory, and it is left when nothing of the
agent's tree is there any more, after the last attempt.
"""

from __future__ import annotations

import asyncio
import os
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from vespera_agent_spawner._logging import logger_for
from vespera_agent_spawner.errors import AgentError, ConfigError, SpawnError

if TYPE_CHECKING:
    from vespera_agent_spawner.config import AgentConfig

__all__ = ["Workspace"]


class Workspace:
    """One agent's place, from before its start to after its end."""

    def __init__(self, config: AgentConfig, agent_id: str) -> None:
        self._make = config.workspace
        self._agent_id = agent_id
        self._entered: AbstractAsyncContextManager[Any] | None = None
        self._directory = ""

    async def furnish(self, config: AgentConfig) -> AgentConfig:
        """Enter it, if that was not done; the configuration with its directory.

        Raises ``ConfigError`` for what is no asynchronous context manager, and ``SpawnError``
        (stage workspace) for whatever it raises itself.
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
            directory = await manager.__aenter__()
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

    async def leave(self) -> None:
        """The tree is empty; a failure is a warning, since the work is done."""
        manager, self._entered = self._entered, None
        if manager is None:
            return
        try:
            await manager.__aexit__(None, None, None)
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            logger_for("agent_spawner.supervisor", self._agent_id).warning(
                "its workspace could not be left: %r", error
            )
