"""Responsible for what goes on inside of the CLI: background tasks, retries, tools, silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vespera_agent_spawner.backends.python.conversation import Conversation

__all__ = ["BackgroundTasks", "IdleClock", "Retry"]

QUIET = 2.0  # a run that started background tasks is over after this much silence, seconds
_OVER = frozenset({"completed", "failed", "killed", "stopped"})


class BackgroundTasks:
    """The tasks that the CLI goes on with after a result."""

    def __init__(self) -> None:
        self._in_flight: set[str] = set()
        self._any = False
        self._last_frame = time.monotonic()

    def noted(self) -> None:
        """Something was said."""
        self._last_frame = time.monotonic()

    def follow(self, frame: Mapping[str, Any]) -> None:
        """Read a ``system`` frame."""
        task, subtype = frame.get("task_id"), frame.get("subtype")
        if not isinstance(task, str):
            return
        if subtype == "task_started":
            self._any = True
            self._in_flight.add(task)
        elif subtype == "task_notification" or (subtype == "task_updated" and _is_over(frame)):
            self._in_flight.discard(task)

    async def quiet(self, ended: asyncio.Future[Any]) -> None:
        """Wait for the end of all tasks and then for silence; at once when none was started."""
        while self._any and not ended.done():
            left = self._last_frame + QUIET - time.monotonic()
            if left <= 0 and not self._in_flight:
                return
            await asyncio.wait({ended}, timeout=max(left, 0.05))


@dataclass(frozen=True, slots=True)
class Retry:
    """What the service said to a request that the CLI goes on repeating: it sends no result."""

    error: str = ""
    #: The HTTP status; 0 when there was none, or nothing is retried.
    status: int = 0

    @classmethod
    def of(cls, frame: Mapping[str, Any]) -> Retry:
        status = frame.get("error_status")
        return cls(str(frame.get("error")), status if isinstance(status, int) else 0)

    def __str__(self) -> str:
        """An addition to an error's words."""
        return f"; the CLI was retrying: {self.error} (HTTP {self.status})" if self.error else ""


class IdleClock:
    """Ends a turn that is silent for longer than what the CLI waits for explains."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._timer: asyncio.TimerHandle | None = None
        self._tools: dict[str, str] = {}
        self._armed = False
        self._asking: set[str] = set()
        # The limit of the turn in flight, and what is left of it while somebody decides.
        self.turn: asyncio.Timeout | None = None
        self._left: float | None = None

    def arm(self) -> None:
        """A turn begins."""
        self._armed = True
        self._tools.clear()
        self._restart()

    def disarm(self) -> None:
        """The turn has an end."""
        self._armed = False
        self.turn = self._left = None
        self._restart()

    def asked(self, ask: str) -> None:
        """Somebody in the host decides: a person's time is not the agent's."""
        self._asking.add(ask)
        clock = self.turn
        if clock is not None and not clock.expired() and (at := clock.when()) is not None:
            self._left = at - asyncio.get_running_loop().time()
            clock.reschedule(None)
        self._restart()

    def decided(self, ask: str) -> bool:
        """An ask was answered or withdrawn: with the last one the turn's time goes on."""
        if ask not in self._asking:
            return False
        self._asking.discard(ask)
        if not self._asking and self._left is not None and self.turn is not None:
            self.turn.reschedule(asyncio.get_running_loop().time() + self._left)
            self._left = None
        self._restart()
        return True

    def note(self, frame: Mapping[str, Any]) -> None:
        """A frame came."""
        if frame.get("type") == "control_cancel_request":
            self.decided(str(frame.get("request_id")))
        if not self._armed or self._conversation.idle_limits is None:
            return
        for block in _blocks(frame):
            if block.get("type") == "tool_use":
                self._tools[str(block.get("id"))] = str(block.get("name"))
            elif block.get("type") == "tool_result":
                self._tools.pop(str(block.get("tool_use_id")), None)
        self._restart()

    def _restart(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        state = self._state()
        limits = self._conversation.idle_limits
        limit = limits.get(state) if isinstance(limits, Mapping) else limits
        if self._armed and limit is not None:
            loop = asyncio.get_running_loop()
            expire = self._conversation.expire
            self._timer = loop.call_later(limit, expire, f"idle.{state}", limit)

    def _state(self) -> str:
        if self._asking:
            return "permission"
        state = "model"
        for name in self._tools.values():
            if name.startswith("mcp__"):
                state = "mcp"
            else:
                state = "subagent" if name in ("Task", "Agent") else "tool"
        return state


def _is_over(frame: Mapping[str, Any]) -> bool:
    patch = frame.get("patch")
    status = patch.get("status") if isinstance(patch, Mapping) else None
    return isinstance(status, str) and status in _OVER


def _blocks(frame: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    message = frame.get("message")
    content = message.get("content") if isinstance(message, Mapping) else None
    for block in content if isinstance(content, list) else ():
        if isinstance(block, Mapping):
            yield block
