"""Responsible for who may start, and when: places, pace, memory, descriptors, processes, fairness.

Waiters are served by priority, then in the order in which they came: the first one is not passed
by those behind it, however little they want. It starts nothing itself.
"""

from __future__ import annotations

import asyncio
import itertools
import resource
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vespera_agent_spawner._logging import logger_for
from vespera_agent_spawner._patience import Deadline
from vespera_agent_spawner._room import (
    free_descriptors,
    free_memory,
    free_processes,
    total_memory,
)
from vespera_agent_spawner.errors import AgentTimeout, ConfigError, SupervisorClosed
from vespera_agent_spawner.waiting_line import Entry, Line, Prospect, Ticket

if TYPE_CHECKING:
    from vespera_agent_spawner.backends._protocol import Standby

__all__ = ["Admission", "Obstacle", "default_max_agents"]

# What an agent holds in the host: four descriptors, and some to spare for the host's own work.
_DESCRIPTORS = 4
_SPARE_DESCRIPTORS = 64
# A leash, a leader with its threads, a shell with a tool in it.
_PROCESSES = 24
_RECHECK = 0.25
_BREAKER_FAILURES = 5
_BREAKER_PAUSE = 10.0
# Starting several in one go saves turns of the loop, each of which costs 5 ms beside a thread
# that computes; after so long the loop's other work has its turn.
_IN_ONE_GO = 0.004
# So many are ready to follow others at most: each holds six descriptors.
_MOST_STANDING = 16
# After so many seconds in which nobody could enter a log line says why, then after twice as many.
_STUCK = 30.0
# Seconds for which what was seen of the machine lets them start.
_GOOD_FOR = 1.0


_log = logger_for("agent_spawner.supervisor")


def _refusal(ticket: Ticket, obstacle: Obstacle) -> ConfigError:
    return ConfigError(
        f"memory_reserve: {obstacle.words}; {obstacle.remedy}",
        field="memory_reserve",
        value=ticket.reserve,
        remedy=obstacle.remedy,
    )


def _prospect(entry: Entry) -> Prospect:
    prospect = entry[2].prospect
    assert prospect is not None, "nobody else stands by"
    return prospect


def default_max_agents(reserve: int) -> int:
    """How many agents this machine takes, from free memory and the limit on descriptors."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    by_files = max(1, (soft - _SPARE_DESCRIPTORS) // _DESCRIPTORS)
    free = free_memory()
    by_memory = by_files if free is None or reserve == 0 else max(1, free // reserve)
    return int(min(by_files, by_memory, 2000))


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why nobody may start now, and what to do about it."""

    words: str
    remedy: str
    #: It is one as long as this machine is what it is.
    for_good: bool = False


class Admission:
    """Places for agents. Runs on one event loop."""

    def __init__(
        self,
        *,
        max_agents: int,
        max_starting: int,
        start_interval: float,
        standby: Standby | None = None,
    ) -> None:
        self._max_agents = max_agents
        self._max_starting = max_starting
        self._interval = start_interval
        self._alive = 0
        self._starting = 0
        self._preparing = 0
        self._claimed = 0
        self._next_start = 0.0
        self._waiting = Line()
        # Those of them that are ready to follow whoever leaves, in their order.
        self._standing: deque[Entry] = deque()
        # Who starts at regular intervals follows nobody.
        self._standby = None if start_interval else standby
        self._numbers = itertools.count()
        self._later: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._serving = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed: Exception | None = None
        self._failures = 0
        self._last_failure = ""
        self._resting_until = 0.0
        # By the wall clock: it goes on while the machine sleeps.
        self._service_back = 0.0
        self._service_says = ""
        self._room: Obstacle | None = None
        # Since when nobody enters, and when that is said; None while somebody may.
        self._stuck_since: float | None = None
        self._say_at = 0.0
        self._count_again = 0.0

    @property
    def closed(self) -> Exception | None:
        """Why nobody enters any more; None while somebody may."""
        return self._closed

    @property
    def alive(self) -> int:
        """Agents that hold a place."""
        return self._alive

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._standing) + sum(1 for _ in self._waiting.waiting())

    def ask(
        self,
        priority: int,
        reserve: int,
        tell: Callable[[Exception | None], None],
        subject: object = None,
        prospect: Prospect | None = None,
    ) -> Ticket:
        """Queue up; ``tell`` is called once, maybe at once, unless the ticket is withdrawn.

        ``reserve`` bytes must be free; ``left_start`` gives the claim on them back.
        """
        ticket = Ticket(reserve, tell, subject, prospect)
        if self._closed is not None:
            self._answer(ticket, self._closed)
        else:
            self._waiting.join((-priority, next(self._numbers), ticket))
            self._serve()
        return ticket

    def call_later(self, wait: float, queue_up: Callable[[], None]) -> None:
        """Call somebody who wants to ``ask`` in so many seconds, or once nobody enters any more."""

        def call() -> None:
            if self._later.pop(queue_up, None) is not None:
                queue_up()

        self._later[queue_up] = asyncio.get_running_loop().call_later(wait, call)
        if self._closed is not None:
            call()

    async def pause(self, seconds: float) -> None:
        """Wait so long, or until nobody enters any more."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not over.done():
                over.set_result(None)

        self.call_later(seconds, wake)
        try:
            await over
        finally:
            self.call_off(wake)

    def call_off(self, queue_up: Callable[[], None]) -> None:
        """Do not call who was to be called later."""
        timer = self._later.pop(queue_up, None)
        if timer is not None:
            timer.cancel()

    def _answer(self, ticket: Ticket, error: Exception | None) -> None:
        ticket.waits = False
        ticket.tell(error)

    async def enter(
        self,
        priority: int,
        limit: float | None,
        agent_id: str,
        reserve: int = 0,
        subject: object = None,
    ) -> None:
        """Wait for a place, at most ``limit`` seconds (None: without limit, 0: do not wait).

        ``reserve`` bytes must be free; ``left_start`` gives the claim on them back.
        Raises ``AgentTimeout`` (queue), or what ``close`` was given.
        """
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def told(error: Exception | None) -> None:
            if place.done():  # who waited was cancelled a moment ago
                if error is None:
                    self.leave()
                    self.left_start(reserve)
            elif error is None:
                place.set_result(None)
            else:
                place.set_exception(error)

        ticket = self.ask(priority, reserve, told, subject)
        try:
            if not place.done() and limit is not None:
                async with Deadline(limit):
                    await place
            else:
                await place
        except TimeoutError:
            if place.done() and not place.cancelled() and place.exception() is None:
                return  # it came in the same moment
            why = self._obstacle(reserve) or Obstacle("others came first", "raise max_agents")
            raise AgentTimeout(
                f"agent '{agent_id}': no place within {limit:g} s ({why.words}, {self._alive} "
                f"agents alive); {why.remedy}, or raise timeouts.queue",
                which="queue",
                after=limit or 0.0,
                context={"agent_id": agent_id, "obstacle": why.words},
            ) from None
        except asyncio.CancelledError:
            # Told of a place and cancelled in the same moment.
            if not ticket.waits and not place.cancelled() and place.exception() is None:
                self.leave()
                self.left_start(reserve)
            raise
        finally:
            self.withdraw(ticket)

    def withdraw(self, ticket: Ticket) -> None:
        """Nobody waits for this place any more. It may have been given a moment ago: ``settle``."""
        if ticket.waits:
            self._waiting.withdraw(ticket)

    def settle(self, ticket: Ticket) -> None:
        """One that stands by is told of its place if it has begun, else it stands by no more."""
        for entry in self._standing:
            if entry[2] is ticket:
                self._stand_down(entry)
                return

    def stand_down(self) -> None:
        """Nobody starts but by the loop, until somebody is told of a place again."""
        if self._standby is not None:
            self._standby.renew(0.0)
        for entry in list(self._standing):
            if entry in self._standing:
                self._stand_down(entry)

    def left_start(self, reserve: int = 0) -> None:
        """The start has an end, good or bad: another may start."""
        self._starting -= 1
        self._claimed -= reserve
        self._serve()

    def note_start(self, error: BaseException | None) -> None:
        """How a start went; repeated failures mean that the next one fails too.

        Then a pause spares the machine, and after it one start at a time is tried until one goes
        well. What says nothing of the machine (a cancelled start, a wrong configuration) does not
        count.
        """
        if error is None:
            self._failures = 0
        elif not isinstance(error, asyncio.CancelledError | ConfigError):
            self._failures += 1
            self._last_failure = str(error)
            if self._failures >= _BREAKER_FAILURES:
                self._resting_until = time.monotonic() + _BREAKER_PAUSE
                self.stand_down()

    def pause_until(self, at: float, why: str) -> bool:
        """Nobody enters before ``at`` (Unix seconds): the service says so. False: known already."""
        if at <= max(self._service_back, time.time()):
            return False
        self._service_back, self._service_says = at, why
        self.stand_down()
        return True

    def next_ones(self, count: int) -> list[Ticket]:
        """Who is served next, in that order."""
        return list(itertools.islice(self._waiting.waiting(), count))

    def may_prepare(self, reserve: int) -> bool:
        """Whether a process may be started that nobody needs yet: there is room for its start, and
        it keeps nobody from one."""
        if self._closed is not None or self._starting + self._preparing >= self._max_starting:
            return False
        if self._alive < self._max_agents and self.next_ones(1):
            return False
        now = time.monotonic()
        obstacle = (
            self._pause(now) or self._too_little_memory(reserve) or self._too_little_room(now)
        )
        return obstacle is None

    def prepare(self, reserve: int) -> None:
        """Such a process starts; ``prepared`` ends that."""
        self._preparing += 1
        self._claimed += reserve
        self._next_start = time.monotonic() + self._interval

    def prepared(self, reserve: int) -> None:
        """It is ready, or never will be."""
        self._preparing -= 1
        self._claimed -= reserve
        self._serve()

    @property
    def obstacle(self) -> Obstacle | None:
        """Why nobody may start now; None when somebody may."""
        waiting = self.next_ones(1)
        return self._obstacle(waiting[0].reserve if waiting else 0)

    def leave(self) -> None:
        """An agent is over: its place is free."""
        self._alive -= 1
        self._serve()

    def close(self, error: Exception | None = None) -> None:
        """Nobody enters any more; who waits is told."""
        self._closed = error or SupervisorClosed("the supervisor is closed and starts nothing")
        if self._timer is not None:
            self._timer.cancel()
        for queue_up in list(self._later):
            self.call_off(queue_up)
            queue_up()
        self.stand_down()
        waiting, self._waiting = self._waiting, Line()
        for ticket in waiting.waiting():
            self._answer(ticket, self._closed)

    def _is_full(self) -> bool:
        starting = self._starting
        if self._standby is not None and self._standing:
            # Some of them have begun, maybe.
            starting = max(starting, self._standby.starting())
        return self._alive >= self._max_agents or starting >= self._max_starting

    def _obstacle(self, reserve: int) -> Obstacle | None:
        """Why nobody may enter now; None when somebody may."""
        now = time.monotonic()
        if self._alive >= self._max_agents:
            return Obstacle(f"max_agents={self._max_agents}", "raise max_agents")
        if self._starting >= self._max_starting:
            return Obstacle(f"max_starting={self._max_starting}", "raise max_starting")
        return (
            self._pause(now)
            or (self._too_little_memory(reserve) if reserve else None)
            or self._too_little_room(now)
        )

    def _pause(self, now: float) -> Obstacle | None:
        if (left := self._service_back - time.time()) > 0:
            return Obstacle(
                f"starts are paused for {left:.0f} s: {self._service_says}",
                "wait for its end, or use another account",
            )
        if now < self._next_start:
            return Obstacle(f"start_interval={self._interval:g} s", "lower start_interval")
        if self._failures < _BREAKER_FAILURES:
            return None
        words = f"{self._failures} starts in a row failed, the last: {self._last_failure}"
        if (left := self._resting_until - now) > 0:
            words = f"starts are paused for {left:.1f} s: {words}"
        elif not self._starting:
            return None
        return Obstacle(words, "see to that error")

    def _too_little_memory(self, reserve: int) -> Obstacle | None:
        free = free_memory() if reserve else None
        wanted = self._claimed + reserve
        if free is None or free >= wanted:
            return None
        total = total_memory()
        if total is not None and total < reserve:
            return Obstacle(
                f"{reserve >> 20} MiB are to be free for an agent, and there are "
                f"{total >> 20} MiB in all",
                "lower memory_reserve",
                for_good=True,
            )
        return Obstacle(
            f"{free >> 20} MiB free, memory_reserve wants {wanted >> 20} MiB",
            "free memory, or lower memory_reserve",
        )

    def _too_little_room(self, now: float) -> Obstacle | None:
        """Counting takes as long as half a start, so it is done as often as it can matter."""
        if now < self._count_again:
            return self._room
        self._room = None
        descriptors, processes = free_descriptors(), free_processes()
        if descriptors is not None and descriptors < _SPARE_DESCRIPTORS // 2 + _DESCRIPTORS:
            self._room = Obstacle(
                f"{descriptors} file descriptors left (ulimit -n)", "raise 'ulimit -n'"
            )
        elif processes is not None and processes[0] < _PROCESSES:
            left, limit = processes
            self._room = Obstacle(
                f"{left} processes left ({limit}), one agent may need {_PROCESSES}",
                "raise that limit, or lower max_agents",
            )
        plenty = (descriptors is None or descriptors > 8 * _SPARE_DESCRIPTORS) and (
            processes is None or processes[0] > 8 * _PROCESSES
        )
        self._count_again = now + (_RECHECK if plenty else 0.0)
        return self._room

    def _serve(self) -> None:
        # Whoever is told of a place may start and fail at once, which frees the place again: the
        # loop below sees it.
        if self._serving or self._closed is not None:
            return
        self._serving, pause = True, 0.0
        try:
            while (first := self._waiting.first) is not None or self._standing:
                full = self._alive >= self._max_agents and not self._standing
                # Who waits no more leaves the queue all the same.
                full = full and first is not None and first[2].waits
                if full and (self._standby is None or not self._standby.is_wanted()):
                    # Whoever leaves serves the others.
                    return
                now = time.monotonic()
                pause = pause or now + _IN_ONE_GO
                if now > pause:
                    asyncio.get_running_loop().call_soon(self._serve)
                    return
                if not self._admit_next() and not self._prepare_next():
                    return
        finally:
            self._serving = False
            if self._waiting.first is None:
                # Who comes next has not waited with those who are gone.
                self._stuck_since = None

    def _admit_next(self) -> bool:
        first = self._waiting.first
        if self._standing:
            entry = self._standing[0]
            if _prospect(entry).has_begun():
                self._admit_begun(entry)
                return True
            if not self._is_full() and (first is None or entry < first):
                # Whoever has left was followed by nobody.
                self._stand_down(entry)
                return True
        if first is None:
            return False
        *_, ticket = first
        if not ticket.waits:
            self._waiting.pop()
            return True
        if self._is_full():
            # Whoever leaves serves the others.
            return False
        obstacle = self._obstacle(ticket.reserve)
        if obstacle is not None and obstacle.for_good:
            self._waiting.pop()
            self._answer(ticket, _refusal(ticket, obstacle))
            return True
        if obstacle is not None:
            self.stand_down()
            self._look_again(obstacle)
            return False
        self._stuck_since = None
        self._waiting.pop()
        self._alive += 1
        self._starting += 1
        self._claimed += ticket.reserve
        self._next_start = time.monotonic() + self._interval
        ticket.waits = False
        ticket.tell(None)
        return True

    def _admit_begun(self, entry: Entry) -> None:
        """Somebody's end has started it: it has that place."""
        self._standing.remove(entry)
        self._stuck_since = None
        self._alive += 1
        self._starting += 1
        self._answer(entry[2], None)

    def _stand_down(self, entry: Entry) -> None:
        if not _prospect(entry).withdraw():
            self._admit_begun(entry)
            return
        self._standing.remove(entry)
        self._claimed -= entry[2].reserve
        self._waiting.join(entry)

    def _prepare_next(self) -> bool:
        """While the house is full, those who come next stand by for whoever leaves."""
        first, last = self._waiting.first, self._standing[-1] if self._standing else None
        if self._standby is None or self._alive < self._max_agents or first is None:
            return False
        ticket = first[2]
        if last is not None and first < last:
            self._stand_down(last)
            return True
        if ticket.prospect is None or len(self._standing) >= _MOST_STANDING:
            return False
        if not self._standby.is_wanted() or self._failures >= _BREAKER_FAILURES:
            return False
        now = time.monotonic()
        if self._pause(now) or self._too_little_memory(ticket.reserve):
            return False
        if self._too_little_room(now) or not ticket.prospect.prepare():
            ticket.prospect = None
            return False
        self._waiting.pop()
        self._standing.append(first)
        self._claimed += ticket.reserve
        self._standby.renew(_GOOD_FOR)
        return True

    def _look_again(self, obstacle: Obstacle) -> None:
        """Time and free memory tell nobody when they change."""
        now = time.monotonic()
        if self._stuck_since is None:
            self._stuck_since, self._say_at = now, now + _STUCK
        elif now >= self._say_at:
            stuck = now - self._stuck_since
            self._say_at = now + stuck
            text = "%d wait, and nobody has been let in for %.0f s: %s; %s"
            _log.warning(text, self.waiting, stuck, obstacle.words, obstacle.remedy)
        if self._timer is not None and not self._timer.cancelled():
            self._timer.cancel()
        delay = _RECHECK
        until = max(self._next_start, self._resting_until) - time.monotonic()
        if until > 0:
            delay = min(delay, until + 0.001)
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(delay, self._serve)
