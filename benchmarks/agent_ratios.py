"""Responsible for asv's series of agents: ratios to an asyncio program that only does the work."""

from __future__ import annotations

import statistics

from .agents import by
from .rounds import Work, play
from .series import IMPLS, ROUNDS


class Ratios:
    """Our time over asyncio's in each round, the median: asv takes more for worse."""

    params = (IMPLS,)
    param_names = ("impl",)
    timeout = 600.0
    unit = "x asyncio's time"

    def _beside_asyncio(self, kind: str, count: int, impl: str, *, busy: bool = False) -> float:
        work = Work(kind, "", "", by(kind, "asyncio", impl, busy=busy), count)
        costs = play(work, ROUNDS).costs
        pairs = zip(costs["asyncio"], costs[impl], strict=True)
        return statistics.median(ours.wall / peer.wall for peer, ours in pairs)

    def track_starts(self, impl: str) -> float:
        """P1: start and exit of a static no-op."""
        return self._beside_asyncio("noop", 1000, impl)

    def track_starts_busy(self, impl: str) -> float:
        """P2: the same while a Python thread computes."""
        return self._beside_asyncio("noop", 32, impl, busy=True)

    def track_sessions(self, impl: str) -> float:
        """P3: one session of one turn."""
        return self._beside_asyncio("session", 1000, impl)

    def track_events(self, impl: str) -> float:
        """P4: events to a consumer that reads kind and text."""
        return self._beside_asyncio("events", 50_000, impl)
