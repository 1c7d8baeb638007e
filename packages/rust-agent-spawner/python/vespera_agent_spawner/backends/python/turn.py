"""Responsible for what is remembered of a prompt until its ``result`` frame comes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from vespera_agent_spawner._patience import Deadline
from vespera_agent_spawner.adapters.claude_frames import Refused
from vespera_agent_spawner.results import TurnResult

__all__ = ["Turn"]


@dataclass(slots=True)
class Turn:
    """A prompt on its way to a ``result``. Abandoned: nobody waits for it any more."""

    uuid: str
    answer: asyncio.Future[TurnResult]
    abandoned: bool = False
    #: Which limit of time passed, and its seconds.
    expired: tuple[str, float] | None = None
    #: What the service answered instead of the model, when we stopped the turn for it.
    refused: Refused | None = None
    clock: Deadline | None = None

    def hold(self) -> None:
        """The host decides about a tool: a person's time is not the agent's."""
        if self.clock is not None:
            self.clock.hold()

    def go_on(self) -> None:
        """It has decided: what was left of the turn's time runs on."""
        if self.clock is not None:
            self.clock.go_on()
