"""`vespera run --discard` as the user calls it: an earlier run is given up and removed."""

from __future__ import annotations

import json

from vespera_agent_spawner.errors import AgentError, ConfigError
from vespera_server.demo.screen import console_for
from vespera_server.redaction import Redactor
from vespera_server.settings import load_settings
from vespera_server.state.directory import StateDirectory
from vespera_server.watch.finding import run_named
from vespera_server.words import counted

__all__ = ["discard"]


def discard(run: str, *, as_json: bool) -> int:
    """Removes a run of the state directory that nobody works on; 2 when it could not."""
    try:
        state = StateDirectory(load_settings().values.state.directory)
        found = run_named(state, run)
        if found.alive or not state.remove(found):
            remedy = "end it first: Ctrl-C where it runs, or SIGTERM"
            raise ConfigError(
                f"--discard: run {found.name} is at work; {remedy}",
                field="discard",
                value=run,
                remedy=remedy,
            )
    except (AgentError, OSError) as error:
        words = Redactor().text(f"vespera run: {error}")
        console_for(stderr=True).print(words, style="red", markup=False, soft_wrap=True)
        return 2
    if as_json:
        print(json.dumps({"discarded": found.name, "unfinished": found.unfinished}))
        return 0
    console_for().print(
        f"discarded {found.name} with {counted(found.unfinished, 'task')} left, its results and "
        "transcripts",
        markup=False,
        soft_wrap=True,
    )
    return 0
