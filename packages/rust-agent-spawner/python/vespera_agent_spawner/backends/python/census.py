"""Responsible for looking at /proc once for all agents that end at the same time.

A look takes a moment in which the loop serves nobody, so looks are at most a quarter of its time:
who comes meanwhile shares the next one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from vespera_agent_spawner.backends.python.roll import Roll

__all__ = ["Census"]

_SHARE = 4


class Census:
    """The looks of one loop."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[], None]] = []
        self._not_before = 0.0

    def ask(self, taken: Callable[[], None]) -> None:
        """Call ``taken`` after a look that begins after this call."""
        if not self._waiting:
            loop = asyncio.get_running_loop()
            loop.call_at(max(self._not_before, loop.time()), self._take, loop)
        self._waiting.append(taken)

    def _take(self, loop: asyncio.AbstractEventLoop) -> None:
        waiting, self._waiting = self._waiting, []
        began = loop.time()
        Roll.of_this_thread().look()
        ended = loop.time()
        self._not_before = ended + (_SHARE - 1) * (ended - began)
        for taken in waiting:
            taken()
