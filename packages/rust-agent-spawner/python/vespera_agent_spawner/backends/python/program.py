"""Responsible for a program that says nothing but lines: it gets its input and runs to its exit."""

from __future__ import annotations

import signal

from vespera_agent_spawner._patience import Limit
from vespera_agent_spawner.backends.python.conversation import INTERRUPT_GRACE, Conversation
from vespera_agent_spawner.backends.python.framing import Oversize
from vespera_agent_spawner.errors import AgentTimeout
from vespera_agent_spawner.results import State

__all__ = ["Program"]

_LAST_LINE = 64 * 1024


class Program(Conversation):
    """One process without a protocol."""

    _last = b""

    @property
    def last_line(self) -> str:
        return self._last[:_LAST_LINE].decode("utf-8", "replace")

    def run(self, prompt: str, timeout: float | None) -> None:
        """Begin its whole life. No task waits for its end: most programs need none."""
        self._attach()
        self._begin()
        self._move(State.IN_TURN)
        self._idle.arm()
        watch = None
        if timeout is not None:
            watch = Limit(timeout, self.expire, "turn", timeout)
        if prompt:
            # While it reads its input it may be done with it, or be ended.
            feeding = self._background(self._feed(prompt))
            self.when_ended(feeding.cancel)
        else:
            self._process.end_input()
        self.when_ended(lambda: self._stop_clocks(watch))

    def _stop_clocks(self, watch: Limit | None) -> None:
        self._idle.disarm()
        if watch is not None:
            watch.cancel()

    def timed_out(self) -> AgentTimeout | None:
        """Once it has ended: the limit of time that it was ended for. Its exit says the rest."""
        if self._expired is None:
            return None
        which, limit = self._expired
        if which == "write":
            return self._deaf()
        return AgentTimeout(
            f"agent '{self._launch.agent_id}': not done within {limit:g} s "
            f"(timeouts.{which}); it was ended",
            which=which,
            after=limit,
            context=self._context(),
        )

    async def _feed(self, prompt: str) -> None:
        try:
            text = prompt.encode("utf-8", "surrogateescape")
            await self._process.write(text, self._write_deadline)
        except TimeoutError:
            self._expired = ("write", self._write_deadline)
            self.begin_kill("it did not take its input")
        except OSError:
            # It closed its input; its exit tells the rest.
            pass
        self._process.end_input()

    def _on_line(self, line: bytes | Oversize) -> str:
        if isinstance(line, Oversize):
            return super()._on_line(line)
        if line:
            self._last = line
        self._idle.note({})
        self._publish("output", line, len(line))
        return "output"

    def _on_stdout_end(self) -> None:
        """It may close its output and work on."""

    async def interrupt(self) -> None:
        """SIGINT, as a terminal would send it."""
        if self.state is State.IN_TURN:
            self._ended_by = self._ended_by or "interrupt"
            self._process.signal_group(signal.SIGINT)

    async def interrupt_quietly(self) -> None:
        await self.interrupt()

    def abandon_turn(self) -> None:
        self._background(self._interrupt_or_kill())

    async def _interrupt_or_kill(self) -> None:
        await self.interrupt()
        if not await self._ends_within(INTERRUPT_GRACE):
            self.begin_kill("no exit after an interrupt")

    def expire(self, which: str, limit: float) -> None:
        """A limit of time passed; the first one is named."""
        if self._ended.done() or self._expired is not None:
            return
        self._expired = (which, limit)
        if which == "total":
            self.begin_kill("total time-out")
        else:
            self.abandon_turn()
