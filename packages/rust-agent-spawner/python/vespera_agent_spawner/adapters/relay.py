"""Responsible for a CLI that another library of the host speaks with, such as the official SDK.

Its lines pass through both ways as they are. The engine owns the process tree and the limits, reads
what the frames tell of cost and outcome, and answers none of them; the input is open until
``Agent.end_input()``.
"""

from __future__ import annotations

from vespera_agent_spawner.adapters.adapter import Adapter
from vespera_agent_spawner.adapters.claude import CLAUDE
from vespera_agent_spawner.adapters.raw import OF_A_CLI, raw_argv

__all__ = ["RELAY"]

RELAY = Adapter(
    name="relay",
    argv=raw_argv,
    initialize=lambda _: None,
    runs_to_exit=False,
    program=None,
    memory_reserve=CLAUDE.memory_reserve,
    host_death_grace=CLAUDE.host_death_grace,
    # A prompt is the other library's to send, and its turns are nobody's to count.
    unknown=("prompt", "budget", *OF_A_CLI),
    relayed=True,
)
