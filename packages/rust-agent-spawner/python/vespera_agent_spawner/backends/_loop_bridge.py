"""Responsible for waking one event loop when agents of the Rust backend have news."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from vespera_agent_spawner import _native
from vespera_agent_spawner._snapshot import snapshot
from vespera_agent_spawner.errors import AgentError

if TYPE_CHECKING:
    from vespera_agent_spawner.backends.rust import RustSession

__all__ = ["LoopBridge"]


# Of the whole process: several loops may have moments at the same time.
_moments = itertools.count(1)


class LoopBridge:
    """One per loop, while any of its agents lives."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.native = _native.Bridge()
        self.closed = False
        #: While the loop is in ``_ring``, which moment of the host that is; else 0.
        self.moment = 0
        #: The last agent that was asked for in this moment.
        self._asked: _native.Session | None = None
        self._loop = loop
        self._watched: dict[int, tuple[RustSession, Callable[[], bool]]] = {}
        # Held by the loop alone: nobody tells when a loop is closed, but then it lets go of this.
        reader = functools.partial(self._ring)
        loop.add_reader(self.native.fileno(), reader)
        self._closing = weakref.finalize(reader, _loop_closed, weakref.ref(self))
        self._closing.atexit = False

    def add(
        self,
        number: int,
        session: RustSession,
        news: Callable[[], bool],
        asked: _native.Session | None = None,
    ) -> None:
        """Call ``news`` on the loop whenever the session has some; False: nobody listens.

        ``asked``: the agent was asked for just now. Those of one moment are started together at
        its end: whoever is woken for each of them may take the processor of this thread, which
        holds the interpreter.
        """
        self._watched[number] = (session, news)
        if self.moment and asked is not None:
            self._asked = asked

    def sessions(self) -> list[RustSession]:
        """Those that are watched."""
        return [session for session, _ in snapshot(self._watched.values)]

    def forget(self, number: int) -> None:
        """It never started."""
        self._watched.pop(number, None)

    def close_if_idle(self) -> None:
        """Let go of the loop when nobody is left to watch."""
        if self._watched or self.closed:
            return
        self.closed = True
        self._closing.detach()
        # A closed loop has let go of its readers itself.
        with contextlib.suppress(RuntimeError, ValueError):
            self._loop.remove_reader(self.native.fileno())

    def forget_in_fork(self) -> None:
        """In a forked child: closing its copy of the loop ends nobody."""
        self._closing.detach()

    def end_all(self) -> None:
        """Nobody hears of the agents any more: their trees are ended."""
        sessions = [session for session, _ in self._watched.values()]
        self._watched.clear()
        self.closed = True
        living = [one for one in sessions if not one.state.is_over and not one.withdraw()]
        for session in living:
            session.kill()
        for session in living:
            with contextlib.suppress(AgentError):
                session.shutdown(0.0)

    def _ring(self) -> None:
        self.moment = next(_moments)
        try:
            self._tell()
        finally:
            self.moment = 0
            last, self._asked = self._asked, None
            if last is not None:
                last.end_moment()
            self.native.rest()
            self.close_if_idle()

    def _tell(self) -> None:
        numbers, number = iter(self.native.take()), 0
        try:
            # Once more after each that raised: whoever sets this up for every agent pays for it.
            while True:
                try:
                    for number in numbers:
                        watched = self._watched.get(number)
                        if watched is None:
                            continue
                        session, news = watched
                        if not news():
                            # Its owner dropped it, and nobody hears of its end but us.
                            session.heard()
                        # An end that comes while its owner reads is told by the next ring.
                        if session.was_over:
                            self._watched.pop(number, None)
                    return
                except Exception as error:
                    self._report(number, error)
        finally:
            self._let_go(number)
            # Ctrl-C in one agent's news: those of the others are told by the next ring.
            for left in numbers:
                self.native.note(left)

    def _report(self, number: int, error: Exception) -> None:
        """As of any other callback of the loop: it is no reason not to tell the next agent."""
        # What raised may have let go of it before.
        watched = self._watched.get(number)
        whose = f"agent '{watched[0].agent_id}'" if watched else "an agent that is let go"
        self._let_go(number)
        what = f"{whose}: its news could not be handled"
        self._loop.call_exception_handler({"message": what, "exception": error})

    def _let_go(self, number: int) -> None:
        watched = self._watched.get(number)
        if watched is not None and watched[0].was_over:
            del self._watched[number]


def _loop_closed(bridge: weakref.ref[LoopBridge]) -> None:
    # None where loop and agents were dropped together: those end as dropped agents do.
    if (living := bridge()) is not None:
        living.end_all()
