"""Responsible for one iteration over an agent's events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from vespera_agent_spawner.events import Event

if TYPE_CHECKING:
    from vespera_agent_spawner.agent import Agent

__all__ = ["AgentEvents"]

_BATCH = 64


class AgentEvents(AsyncIterator[Event]):
    """One iteration over an agent's events."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._batch: list[Event] = []
        self._bell = agent._bell = asyncio.Event()

    def __aiter__(self) -> AgentEvents:
        return self

    def at_hand(self) -> Event | None:
        """The next one, if it is here already: for who would await each of many."""
        return self._batch.pop() if self._batch else None

    async def __anext__(self) -> Event:
        if self._batch:
            return self._batch.pop()
        agent = self._agent
        while not self._batch:
            agent._check_loop()
            self._bell.clear()
            over = agent._ended.done()
            batch = agent._live.take_events(_BATCH)
            batch.reverse()
            self._batch = batch
            if not batch:
                if over:
                    raise StopAsyncIteration
                await self._bell.wait()
        return self._batch.pop()
