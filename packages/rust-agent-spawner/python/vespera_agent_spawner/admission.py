"""Responsible for who may start, and when: places, pace, memory, descriptors, fairness.

Waiters are served by priority, then in the order in which they came. It starts nothing itself.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import os
import resource
import time
from pathlib import Path

from vespera_agent_spawner.errors import AgentTimeout, SupervisorClosed

__all__ = ["Admission", "default_max_agents"]

# What an agent holds in the host: four descriptors, and some to spare for the host's own work.
_DESCRIPTORS = 4
_SPARE_DESCRIPTORS = 64
_RECHECK = 0.25
_BREAKER_FAILURES = 5
_BREAKER_PAUSE = 10.0


def default_max_agents(reserve: int) -> int:
    """How many agents this machine takes, from free memory and the limit on descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    by_files = max(1, (soft - _SPARE_DESCRIPTORS) // _DESCRIPTORS)
    free = free_memory()
    by_memory = by_files if free is None or reserve == 0 else max(1, free // reserve)
    return int(min(by_files, by_memory, 2000))


def free_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not tell."""
    try:
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def free_descriptors() -> int | None:
    """Descriptors that this process may still open; None where the system does not tell."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return soft - len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - pathlib is slower
    except OSError:
        return None


class Admission:
    """Places for agents. Runs on one event loop."""

    def __init__(self, *, max_agents: int, max_starting: int, start_interval: float) -> None:
        self._max_agents = max_agents
        self._max_starting = max_starting
        self._interval = start_interval
        self._alive = 0
        self._starting = 0
        self._claimed = 0
        self._next_start = 0.0
        self._waiting: list[tuple[int, int, int, asyncio.Future[None]]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._closed: Exception | None = None
        self._failures = 0
        self._paused_until = 0.0
        self._free: int | None = None
        self._count_again = 0.0

    @property
    def alive(self) -> int:
        """Agents that hold a place."""
        return self._alive

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return sum(not future.done() for *_, future in self._waiting)

    async def enter(
        self, priority: int, limit: float | None, agent_id: str, reserve: int = 0
    ) -> None:
        """Wait for a place, at most ``limit`` seconds (None: without limit, 0: do not wait).

        ``reserve`` bytes must be free; ``left_start`` gives the claim on them back.
        Raises ``AgentTimeout`` (queue), or what ``close`` was given.
        """
        if self._closed is not None:
            raise self._closed
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (-priority, next(self._numbers), reserve, place))
        self._serve()
        try:
            if not place.done() and limit is not None:
                async with asyncio.timeout(limit):
                    await place
            else:
                await place
        except TimeoutError:
            why = self._obstacle(reserve) or "all places are taken"
            raise AgentTimeout(
                f"agent '{agent_id}': no place within {limit:g} s ({why}, {self._alive} agents "
                "alive); raise timeouts.queue or max_agents",
                which="queue",
                after=limit or 0.0,
                context={"agent_id": agent_id},
            ) from None
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.leave()
                self.left_start(reserve)
            raise
        finally:
            place.cancel()

    def left_start(self, reserve: int = 0) -> None:
        """The start has an end, good or bad: another may start."""
        self._starting -= 1
        self._claimed -= reserve
        self._serve()

    def note_start(self, ok: bool) -> None:
        """Repeated failures mean that the next start fails too: a pause spares the machine."""
        self._failures = 0 if ok else self._failures + 1
        if self._failures >= _BREAKER_FAILURES:
            self._paused_until = time.monotonic() + _BREAKER_PAUSE
            self._failures = _BREAKER_FAILURES - 1  # one try after the pause decides anew

    def pause(self, seconds: float) -> None:
        """Nobody enters for this long: the service asked for it."""
        self._paused_until = max(self._paused_until, time.monotonic() + seconds)

    def leave(self) -> None:
        """An agent is over: its place is free."""
        self._alive -= 1
        self._serve()

    def close(self, error: Exception | None = None) -> None:
        """Nobody enters any more; who waits is told."""
        self._closed = error or SupervisorClosed("the supervisor is closed and starts nothing")
        if self._timer is not None:
            self._timer.cancel()
        for *_, place in self._waiting:
            if not place.done():
                place.set_exception(self._closed)
                place.exception()
        self._waiting.clear()

    def _is_full(self) -> bool:
        return self._alive >= self._max_agents or self._starting >= self._max_starting

    def _obstacle(self, reserve: int) -> str | None:
        """Why nobody may enter now, in words; None when somebody may."""
        now = time.monotonic()
        if self._alive >= self._max_agents:
            return f"max_agents={self._max_agents}"
        if self._starting >= self._max_starting:
            return f"max_starting={self._max_starting}"
        if now < self._paused_until:
            return f"starts are paused for {self._paused_until - now:.1f} s"
        if now < self._next_start:
            return f"start_interval={self._interval:g} s"
        if reserve:
            free = free_memory()
            wanted = self._claimed + reserve
            if free is not None and free < wanted:
                return f"{free >> 20} MiB free, memory_reserve wants {wanted >> 20} MiB"
        descriptors = self._free_descriptors(now)
        if descriptors is not None and descriptors < _SPARE_DESCRIPTORS // 2 + _DESCRIPTORS:
            return f"{descriptors} file descriptors left (ulimit -n)"
        return None

    def _free_descriptors(self, now: float) -> int | None:
        """Counting takes as long as half a start, so it is done as often as it can matter."""
        if now >= self._count_again:
            self._free = free_descriptors()
            plenty = self._free is None or self._free > 8 * _SPARE_DESCRIPTORS
            self._count_again = now + (_RECHECK if plenty else 0.0)
        return self._free

    def _serve(self) -> None:
        while self._waiting:
            *_, reserve, place = self._waiting[0]
            if place.done():
                heapq.heappop(self._waiting)
                continue
            if self._is_full():
                # Whoever leaves serves the others.
                return
            if self._obstacle(reserve) is not None:
                self._look_again()
                return
            heapq.heappop(self._waiting)
            self._alive += 1
            self._starting += 1
            self._claimed += reserve
            self._next_start = time.monotonic() + self._interval
            place.set_result(None)

    def _look_again(self) -> None:
        """Time and free memory tell nobody when they change."""
        if self._timer is not None and not self._timer.cancelled():
            self._timer.cancel()
        delay = _RECHECK
        until = max(self._next_start, self._paused_until) - time.monotonic()
        if until > 0:
            delay = min(delay, until + 0.001)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(delay, self._serve)
