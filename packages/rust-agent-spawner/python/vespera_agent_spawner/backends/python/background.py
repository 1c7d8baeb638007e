"""Responsible for what goes on inside of the CLI: background tasks, tools in flight, silence."""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from vespera_agent_spawner._patience import Limit

if TYPE_CHECKING:
    from vespera_agent_spawner.backends.python.conversation import Conversation

__all__ = ["BackgroundTasks", "IdleClock"]

QUIET = 2.0  # a run that started background tasks is over after this much silence, seconds
_OVER = frozenset({"completed", "failed", "killed", "stopped"})


class BackgroundTasks:
    """The tasks that the CLI goes on with after a result."""

    def __init__(self) -> None:
        self._in_flight: set[str] = set()
        self._any = False
        # The loop's clock, which does not count what it was away for.
        self._now = asyncio.get_running_loop().time
        self._last_frame = self._now()

    def noted(self) -> None:
        """Something was said."""
        self._last_frame = self._now()

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
            left = self._last_frame + QUIET - self._now()
            if left <= 0 and not self._in_flight:
                return
            await asyncio.wait({ended}, timeout=max(left, 0.05))


class IdleClock:
    """Ends a turn that is silent for longer than what the CLI waits for explains."""

    def __init__(self, conversation: Conversation) -> None:
        # Weak: an agent that is over should go at once, not when the collector comes.
        self._conversation: Conversation = weakref.proxy(conversation)
        self._timer: Limit | None = None
        self._tools: dict[str, str] = {}
        self._armed = False
        self._unheard = False
        #: The turn's asks for tools that the host has not decided.
        self.asking: set[str] = set()

    def arm(self) -> None:
        """A turn begins."""
        self._armed = True
        self._tools.clear()
        self._restart()

    def disarm(self) -> None:
        """The turn has an end."""
        self._armed = False
        self._restart()

    def hear(self, hears: bool) -> None:
        """The host stops or goes on to read: what it does not hear is no silence of the agent."""
        self._unheard = not hears
        self._restart()

    def decided(self) -> None:
        """An ask was answered or withdrawn."""
        self._restart()

    def note(self, frame: Mapping[str, Any]) -> None:
        """A frame came."""
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
        if not self._armed or self._unheard:
            return
        state = self._state()
        limit = self._limit(state)
        if limit is not None:
            self._timer = Limit(limit, self._conversation.expire, f"idle.{state}", limit)

    def _limit(self, state: str) -> float | None:
        limits = self._conversation.idle_limits
        if isinstance(limits, Mapping):
            return limits.get(state)
        # The time of whoever decides about a tool counts only where it is asked for.
        return None if state == "permission" else limits

    def _state(self) -> str:
        if self.asking:
            return "permission"
        # What may be silent for longest explains the silence of all.
        states = map(_state_of, self._tools.values())
        return max(states, key=self._patience, default="model")

    def _patience(self, state: str) -> tuple[float, str]:
        limit = self._limit(state)
        return (math.inf if limit is None else limit, state)


def _state_of(tool: str) -> str:
    if tool.startswith("mcp__"):
        return "mcp"
    return "subagent" if tool in ("Task", "Agent") else "tool"


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
