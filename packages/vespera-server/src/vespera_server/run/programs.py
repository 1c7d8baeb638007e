"""Responsible for whether what a run needs is there: said before the run is made, so that one that
cannot begin leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from vespera_agent_spawner import backends
from vespera_agent_spawner.adapters.environment import environment_for
from vespera_agent_spawner.adapters.locate import find_program
from vespera_agent_spawner.errors import AgentError
from vespera_server.environment import select
from vespera_server.settings import Settings

__all__ = ["check_beginning", "claude_found", "inherited_by"]


def check_beginning(
    settings: Settings,
    configs: Iterable[Mapping[str, Any]],
    *,
    claude: str | None,
    scripted: bool,
) -> None:
    """Whether backend and programs are there; ``configs`` are those of the tasks' agents.

    Raises ``ConfigError`` and ``SpawnError``.
    """
    backends.choose(str(settings.supervisor.get("backend") or "auto"))
    inherited = inherited_by(settings, scripted)
    seen = set()
    for config in configs:
        adapter = config.get("adapter", "claude")
        program = config.get("program")
        if adapter == "claude":
            program = claude or program or "claude"
        directory = config.get("working_directory") or os.curdir
        own = dict(config.get("environment") or {})
        key = (program, directory if os.sep in str(program) else "", own.get("PATH"))
        if program is None or key in seen:
            continue
        seen.add(key)
        inherit = config.get("inherit_environment", True) or scripted
        if inherit and inherited is not None:
            inherit, own = False, {**inherited, **own}
        find_program(str(program), environment_for(inherit, own, directory), directory)


def inherited_by(settings: Settings, scripted: bool) -> dict[str, str] | None:
    """What agents get of the host's environment; None: all of it."""
    run = settings.run
    # A scripted agent gets nothing of the host's anyway.
    if run.environment is None or scripted:
        return None
    return select(run.environment, run.environment_names)


def claude_found(claude: str | None, environment: Mapping[str, str]) -> str:
    """The CLI's path, for people to run it by: inside of a wheel it is on nobody's PATH."""
    try:
        return find_program(claude, environment)
    except AgentError:
        return claude or "claude"
