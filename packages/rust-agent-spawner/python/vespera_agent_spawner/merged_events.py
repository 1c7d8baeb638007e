"""Responsible for the events of all agents of a supervisor in one iteration."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from vespera_agent_spawner.events import Event

if TYPE_CHECKING:
    from vespera_agent_spawner.agent import Agent
    from vespera_agent_spawner.supervisor import Supervisor

__all__ = ["MergedEvents"]


class MergedEvents(AsyncIterator["tuple[Agent, Event]"]):
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
