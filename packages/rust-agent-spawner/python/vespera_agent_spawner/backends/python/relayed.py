"""Responsible for a CLI that another library of the host speaks with: lines pass as they are.

The Rust twin is the adapter ``relay``: frames are read for what they cost and mean, and none of
them is answered.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

from vespera_agent_spawner.adapters import claude_frames as frames
from vespera_agent_spawner.backends.python.conversation import Conversation
from vespera_agent_spawner.errors import AgentError

__all__ = ["Relayed"]


class Relayed(Conversation):
    """One process whose protocol is somebody else's."""

    #: All is told: the answers are the other library's too.
    _UNTOLD = frozenset[str]()

    def open(self) -> None:
        """It is ready once it runs."""
        self._attach()
        self._begin()

    async def pass_on(self, data: bytes) -> None:
        """Whole lines to the CLI; those of one caller arrive in their order."""
        # What cannot be written means that the agent is ending; its end is reported.
        with contextlib.suppress(AgentError):
            await self._send_bytes(data)

    async def end_input(self) -> None:
        """End of file, behind what was written before."""
        await self._process.end_input_behind()

    def _on_result(self, frame: Mapping[str, Any]) -> None:
        """Somebody else's turn: it counts, and decides nothing."""
        self.outcome = frames.outcome_of(frame).value
        cost = frame.get("total_cost_usd")
        told = float(cost) if isinstance(cost, int | float) and not isinstance(cost, bool) else None
        self._count(told, frame.get("usage"))

    async def interrupt_quietly(self) -> None:
        """Whoever speaks with it does that."""

    _RECEIVERS: Mapping[str, Callable[[Any, Mapping[str, Any]], None]] = {
        "rate_limit_event": Conversation._on_rate_limit,
        "result": _on_result,
        "system": Conversation._on_system,
        "conversation_reset": Conversation._on_reset,
    }
