"""Responsible for limits of time that do not count what the host was away for.

A host that is stopped, or that blocks its loop, hears nobody meanwhile, so nobody was silent. The
reactor's loop has a clock of its own for that; an owner's loop is any loop, so here a heartbeat
looks for gaps while any limit runs.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from vespera_agent_spawner._logging import logger_for

__all__ = ["Deadline", "Limit"]

_GAP = 1.0  # who is this late was stopped, and heard nobody meanwhile; seconds
_HEARTBEAT = 1.0
_log = logger_for("agent_spawner.reactor")


class _Patience:
    """What one loop was away for, as far as limits ran; for its own thread."""

    def __init__(self) -> None:
        self._lost = 0.0
        self._due: float | None = None
        self.running = 0

    def lost(self, loop: asyncio.AbstractEventLoop) -> float:
        """Seconds that did not count so far."""
        now = loop.time()
        if self._due is None:
            self._due = now + _HEARTBEAT
            loop.call_at(self._due, self._beat, loop)
        elif now - self._due >= _GAP:
            _log.warning("was away for %.1f s: every limit of time waits as long", now - self._due)
            self._lost += now - self._due
            # The beat itself is about to come, and finds that it was seen to.
            self._due = now
        return self._lost

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self.lost(loop)
        self._due = None
        if self.running:
            self.lost(loop)


_kept: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Patience] = weakref.WeakKeyDictionary()


class Limit:
    """``loop.call_later`` of the running loop with such a clock, which may be held in between."""

    def __init__(self, seconds: float, passed: Callable[..., object], *arguments: Any) -> None:
        loop = self._loop = asyncio.get_running_loop()
        patience = _kept.get(loop)
        if patience is None:
            patience = _kept[loop] = _Patience()
        self._patience = patience
        self._passed = passed
        self._arguments = arguments
        self._lost = 0.0
        self._handle: asyncio.TimerHandle | None = None
        # What is left while no time counts.
        self._held: float | None = seconds
        self.go_on()

    def _fire(self) -> None:
        lost = self._patience.lost(self._loop)
        more, self._lost = lost - self._lost, lost
        if more > 0:
            self._handle = self._loop.call_later(more, self._fire)
            return
        self.cancel()
        self._passed(*self._arguments)

    def hold(self) -> None:
        """From now on no time counts."""
        if self._handle is not None:
            more = self._patience.lost(self._loop) - self._lost
            left = max(0.0, self._handle.when() + more - self._loop.time())
            self.cancel()
            self._held = left

    def go_on(self) -> None:
        """What was left runs on."""
        if self._held is not None:
            self._lost = self._patience.lost(self._loop)
            self._handle = self._loop.call_later(self._held, self._fire)
            self._held = None
            self._patience.running += 1

    def cancel(self) -> None:
        """Let it not pass; does nothing when it has."""
        self._held = None
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.cancel()
            self._patience.running -= 1


class Deadline:
    """``asyncio.timeout`` with such a clock, which may be held in between."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(None)
        self._limit: Limit | None = None

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        if self._seconds is not None:
            self._limit = Limit(self._seconds, self._pass)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        limit, self._limit = self._limit, None
        if limit is not None:
            limit.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def hold(self) -> None:
        """From now on no time counts."""
        if self._limit is not None:
            self._limit.hold()

    def go_on(self) -> None:
        """What was left runs on."""
        if self._limit is not None:
            self._limit.go_on()

    def _pass(self) -> None:
        self._timeout.reschedule(asyncio.get_running_loop().time())
