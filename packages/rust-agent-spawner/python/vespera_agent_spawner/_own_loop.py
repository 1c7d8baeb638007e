"""Responsible for refusing calls from another event loop than that on which something lives."""

from __future__ import annotations

import asyncio

from vespera_agent_spawner.errors import ConfigError

__all__ = ["check_own_loop"]


def check_own_loop(loop: asyncio.AbstractEventLoop | None, whose: str, remedy: str) -> None:
    """Raises ``ConfigError`` (field ``loop``) where another loop runs than ``loop``."""
    if asyncio.get_running_loop() is not loop:
        raise ConfigError(f"{whose}; {remedy}", field="loop", value=None, remedy=remedy)
