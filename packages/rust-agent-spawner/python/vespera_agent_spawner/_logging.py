"""Responsible for the loggers: under ``vespera``, silent by default, agent id in every record.

A library prints nothing: the NullHandler keeps Python's last-resort handler quiet until the
application configures logging. Records carry ``agent_id`` (``"-"`` when they are about no agent).
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

__all__ = ["AgentLogger", "logger_for"]

_ROOT = "vespera"
logging.getLogger(_ROOT).addHandler(logging.NullHandler())


class AgentLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records carry the id of one agent, as a field and in the text."""

    def __init__(self, name: str, agent_id: str | None = None) -> None:
        self.agent_id = agent_id or "-"
        super().__init__(logging.getLogger(f"{_ROOT}.{name}"), {"agent_id": self.agent_id})

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(kwargs.get("extra") or {}), "agent_id": self.agent_id}
        if self.agent_id == "-":
            return msg, kwargs
        # The text goes through %-formatting with the caller's arguments: escape the id's own %.
        escaped = self.agent_id.replace("%", "%%")
        return f"agent '{escaped}': {msg}", kwargs


def logger_for(part: str, agent_id: str | None = None) -> AgentLogger:
    """The logger ``vespera.<part>``, bound to an agent when one is given."""
    return AgentLogger(part, agent_id)
