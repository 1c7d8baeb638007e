"""Responsible for what a conversation tells to whoever owns it on an event loop."""

from __future__ import annotations

from typing import Any, Protocol

from vespera_agent_spawner.errors import AgentError
from vespera_agent_spawner.results import TurnResult

__all__ = ["Listener"]


class Listener(Protocol):
    """Whoever is told what happens; called on the conversation's loop."""

    def changed(self) -> None:
        """State, turn or answers changed."""

    def event(self, kind: str, raw: bytes, length: int, frame: dict[str, Any] | None) -> None:
        """One line of output; ``length`` is the whole line's, ``frame`` what it holds, if known."""

    def answered(self, end: TurnResult | AgentError) -> None:
        """The prompt is answered: whoever sees the ``result`` event finds its turn over."""

    def late_result(self, result: TurnResult) -> None:
        """A background task's result, after the own one of a run."""

    def notice(self, frame: bytes) -> None:
        """What the CLI says of the service unasked."""

    def ask(self, frame: bytes) -> bool:
        """A permission ask; False when nobody decides and it is to be denied."""

    def decided(self) -> None:
        """No permission ask is open any more."""

    def call(self, frame: bytes) -> bool:
        """A hook or a tool of the host is called; False when it has none."""

    def withdrawn(self, frame: bytes) -> None:
        """The CLI waits no more for the answer to what it has asked."""
