"""Responsible for the events of all agents of a supervisor in one iteration."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from vespera_agent_spawner.events import Event

if TYPE_CHECKING:
    from vespera_agent_spawner.agent import Agent
    from vespera_agent_spawner.supervisor import Supervisor

__all__ = ["MergedEvents", "Watch"]

_BATCH = 64


class Watch:
    """What the agents tell a merged iteration.

    They hold this one and not the iterator, which ends when its reader drops it.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._bell = asyncio.Event()
        self._dirty: dict[Agent, None] = {}
        self._stopped = False

    def add(self, agent: Agent) -> None:
        """An agent that has begun."""
        agent._merged = self._noted
        # Whoever reads the merged stream owns what is in it, and who stops reading ends nothing.
        kept = self._supervisor._kept
        if agent not in kept:
            kept.add(agent)
            agent._ended.add_done_callback(lambda _: kept.discard(agent))
        agent._live.listen(True)
        self._noted(agent)

    def _noted(self, agent: Agent) -> None:
        self._dirty[agent] = None
        self._bell.set()

    def ring(self) -> None:
        """It may be over."""
        self._bell.set()

    def stop(self) -> None:
        """Nobody reads any more; the agents live on."""
        if self._stopped:
            return
        self._stopped = True
        supervisor = self._supervisor
        if supervisor._merged is self:
            supervisor._merged = None
        for agent in {*self._dirty, *supervisor.agents()}:
            agent._merged = None
            if agent._session is not None and not agent._is_iterated():
                agent._session.listen(False)
        self._dirty.clear()

    def take(self) -> list[tuple[Agent, Event]]:
        """A batch of each in turn, the oldest last."""
        batch: list[tuple[Agent, Event]] = []
        for agent in list(self._dirty):
            taken = agent._live.take_events(_BATCH)
            if not taken:
                del self._dirty[agent]
            batch.extend((agent, event) for event in taken)
        batch.reverse()
        return batch

    async def wait(self) -> bool:
        """Wait until somebody has something; False when nobody will."""
        if self._stopped or (self._supervisor._closed and not self._supervisor.agents()):
            return False
        await self._bell.wait()
        self._bell.clear()
        return True


class MergedEvents(AsyncIterator["tuple[Agent, Event]"]):
    """All agents' events in one iteration, fairly: a batch of each in turn."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._batch: list[tuple[Agent, Event]] = []
        weakref.finalize(self, watch.stop).atexit = False

    async def aclose(self) -> None:
        """Stop watching; the agents live on."""
        self._batch.clear()
        self._watch.stop()
        self._watch.ring()

    async def __anext__(self) -> tuple[Agent, Event]:
        while not self._batch:
            self._batch = self._watch.take()
            if not self._batch and not await self._watch.wait():
                self._watch.stop()
                raise StopAsyncIteration
        return self._batch.pop()
