"""`vespera gc` as the user calls it: bounds in, what went and what is left out."""

from __future__ import annotations

import json

from vespera_agent_spawner._units import format_size
from vespera_agent_spawner.errors import AgentError
from vespera_server.demo.screen import console_for
from vespera_server.settings import load_settings
from vespera_server.state.directory import StateDirectory
from vespera_server.state.keeping import collect
from vespera_server.words import counted

__all__ = ["gc"]


def gc(*, dry_run: bool, as_json: bool) -> int:
    """Removes what is over the bounds; 0, or 2 when it could not."""
    errors = console_for(stderr=True)
    try:
        settings = load_settings().values.state
        state = StateDirectory(settings.directory)
        kept = collect(state, max_size=settings.max_size, max_age=settings.max_age, dry_run=dry_run)
    except (AgentError, OSError) as error:
        errors.print(f"vespera gc: {error}", style="red", markup=False, soft_wrap=True)
        return 2
    if as_json:
        removed = [
            {"run": gone.run.name, "why": gone.why, "size": gone.run.size} for gone in kept.removed
        ]
        answer = {"directory": str(state.root), "removed": removed, "dry_run": dry_run}
        print(json.dumps({**answer, "runs": kept.runs, "size": kept.size, "over": kept.over}))
        return 0
    console = console_for()
    verb = "would remove" if dry_run else "removed"
    for gone in kept.removed:
        size = format_size(gone.run.size)
        console.print(f"{verb} {gone.run.name} ({size}, for its {gone.why})", soft_wrap=True)
    console.print(
        f"{state.root}: {counted(kept.runs, 'run')}, {format_size(kept.size)} of "
        f"{format_size(settings.max_size)}",
        soft_wrap=True,
    )
    if kept.over:
        console.print(
            f"{format_size(kept.over)} too much is in runs that are at work or unfinished; "
            "resume them (vespera run --resume) or remove them (vespera run --discard RUN)",
            soft_wrap=True,
        )
    return 0
