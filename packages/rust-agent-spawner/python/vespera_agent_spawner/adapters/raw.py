"""Responsible for any program that is no agent CLI: a script, a build, another tool.

The prompt is its standard input, which ends after it (at once without one); each line of its
output is an event of kind ``output``; its exit is the end of the run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vespera_agent_spawner.adapters.adapter import Adapter

__all__ = ["OF_A_CLI", "RAW", "raw_argv"]

#: What only a CLI obeys whose words the spawner knows.
OF_A_CLI = (
    "model",
    "fallback_model",
    "effort",
    "system_prompt",
    "append_system_prompt",
    "allowed_tools",
    "disallowed_tools",
    "permission_mode",
    "mcp_config",
    "settings",
    "add_dirs",
    "agents",
    "hooks",
    "tools",
    "on_permission",
    "output_schema",
    "include_partial_messages",
    "resume",
    "fork_session",
    "max_turns",
    "extra_args",
    "budget",
)


def raw_argv(
    config: Mapping[str, Any],
    program: str,
    session_id: str,
    files: Mapping[str, str] | None = None,
) -> list[str]:
    """The program and its arguments as they are."""
    return [program, *map(str, config.get("args") or ())]


RAW = Adapter(
    name="raw",
    argv=raw_argv,
    initialize=lambda _: None,
    runs_to_exit=True,
    program=None,
    memory_reserve=0,
    host_death_grace=0.0,
    unknown=OF_A_CLI,
)
