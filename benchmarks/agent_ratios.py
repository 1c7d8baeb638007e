"""Responsible for asv's series of agents: ratios to an asyncio program that only does the work."""

from __future__ import annotations

import statistics

from .agents import by
from .rounds import Work, play
from .series import IMPLS, ROUNDS


class Ratios:
    """asyncio's cost over ours in each round, the median: above 1 is better than asyncio."""

    params = (IMPLS,)
    param_names = ("impl",)
    timeout = 600.0
    unit = "x asyncio"

    def _over_asyncio(self, kind: str, count: int, impl: str, *, busy: bool = False) -> float:
        work = Work(kind, "", "", by(kind, "asyncio", impl, busy=busy), count)
        costs = play(work, ROUNDS).costs
        pairs = zip(costs["asyncio"], costs[impl], strict=True)
        return statistics.median(peer.wall / ours.wall for peer, ours in pairs)

    def track_starts(self, impl: str) -> float:
        """P1: start and exit of a static no-op."""
        return self._over_asyncio("noop", 200, impl)

    def track_starts_busy(self, impl: str) -> float:
        """P2: the same while a Python thread computes."""
        return self._over_asyncio("noop", 32, impl, busy=True)

    def track_sessions(self, impl: str) -> float:
        """P3: one session of one turn."""
        return self._over_asyncio("session", 100, impl)

    def track_events(self, impl: str) -> float:
        """P4: events to a consumer that reads kind and text."""
        return self._over_asyncio("events", 10_000, impl)
