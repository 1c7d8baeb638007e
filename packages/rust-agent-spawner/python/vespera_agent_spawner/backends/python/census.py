"""Responsible for reading /proc once for all agents that end at the same time.

A reading takes a millisecond or more and the loop serves nobody meanwhile, so readings are at most
a quarter of its time: who comes meanwhile shares the next one.
"""

from __future__ import annotations

import asyncio

from vespera_agent_spawner.backends.python.proc import Table

__all__ = ["Census"]

_SHARE = 4


class Census:
    """The readings of one loop."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[Table]] = []
        self._not_before = 0.0

    async def taken(self) -> Table:
        """A reading that begins after this call."""
        loop = asyncio.get_running_loop()
        asked: asyncio.Future[Table] = loop.create_future()
        if not self._waiting:
            loop.call_at(max(self._not_before, loop.time()), self._take, loop)
        self._waiting.append(asked)
        return await asked

    def _take(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting, self._waiting = self._waiting, []
        began = loop.time()
        table = Table()
        ended = loop.time()
        self._not_before = ended + (_SHARE - 1) * (ended - began)
        for asked in waiting:
            if not asked.done():
                asked.set_result(table)
