"""Responsible for what is particular to one agent CLI: finding it, its argv, its environment.

A new adapter is one module with an ``Adapter`` and one entry in the table below.
"""

from __future__ import annotations

from vespera_agent_spawner.adapters.adapter import Adapter
from vespera_agent_spawner.adapters.claude import CLAUDE
from vespera_agent_spawner.adapters.raw import RAW
from vespera_agent_spawner.adapters.relay import RELAY

__all__ = ["Adapter", "adapter_named"]

_ADAPTERS = {adapter.name: adapter for adapter in (CLAUDE, RAW, RELAY)}


def adapter_named(name: str) -> Adapter:
    """The adapter of a configuration, which has checked the name."""
    return _ADAPTERS[name]
