"""Responsible for what Ctrl-C means: once is graceful, twice is now, three times by force.

SIGTERM and SIGHUP begin at "now": whoever sends them (a container's stop, a lost terminal) does
not wait for a turn of half an hour, and SIGKILL follows.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from vespera_server.tasks import DurableExecutor

__all__ = ["Signals", "listening"]

_STAGES = (
    (
        "graceful",
        "nothing more is started; the agents at work may end (Ctrl-C again: end them now)",
    ),
    ("now", "ending the agents; their tasks are given back, to be resumed"),
    ("force", "killing the agents"),
)


class Signals:
    """What came so far; ``number`` is that of the first signal."""

    def __init__(self, executor: DurableExecutor, say: Callable[[str], None]) -> None:
        self.number: int | None = None
        self._stage = -1
        self._executor = executor
        self._say = say

    def hear(self, number: int) -> None:
        """One more signal."""
        first = 0 if number == signal.SIGINT else 1
        self._stage = min(max(self._stage + 1, first), len(_STAGES) - 1)
        self.number = self.number or number
        name, words = _STAGES[self._stage]
        self._say(words)
        act = {
            "graceful": self._executor.stop,
            "now": self._executor.stop_now,
            "force": self._executor.kill,
        }
        act[name]()


@contextmanager
def listening(executor: DurableExecutor, say: Callable[[str], None]) -> Iterator[Signals]:
    """Signals go to the executor; also those that a shell's ``&`` or PID 1 would leave unheard."""
    loop = asyncio.get_running_loop()
    signals = Signals(executor, say)
    heard = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for number in heard:
        loop.add_signal_handler(number, signals.hear, number)
    try:
        yield signals
    finally:
        for number in heard:
            loop.remove_signal_handler(number)
