"""Responsible for the environment an agent starts in: the host's copy without what confuses it.

An agent that inherits the marks of an outer agent refuses to start or reports to the wrong
session: ``CLAUDECODE=1`` makes the CLI believe that it runs inside itself.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping

__all__ = ["SCRUBBED", "environment_for"]

# Marks that an outer Claude CLI (or editor extension, or SDK session) leaves in its children.
SCRUBBED: frozenset[str] = frozenset(
    {
        "CLAUDECODE",
        "CLAUDE_CODE_ENTRYPOINT",
        "CLAUDE_CODE_SESSION_ID",
        "CLAUDE_CODE_SSE_PORT",
        "CLAUDE_AGENT_SDK_VERSION",
        "CLAUDE_CODE_SDK_READS_SESSION_STATE",
    }
)


def environment_for(
    inherit: bool | Collection[str] | None,
    own: Mapping[str, str],
    working_directory: str,
    host: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Compose an agent's environment; ``own`` wins over what is inherited.

    ``inherit`` is None or True for the host's environment without ``SCRUBBED``, False for
    nothing, or the names to take over.
    """
    source = os.environ if host is None else host
    if inherit is None or inherit is True:
        taken = {name: value for name, value in source.items() if name not in SCRUBBED}
    elif inherit is False:
        taken = {}
    else:
        taken = {name: source[name] for name in inherit if name in source}
    if "PWD" in taken:
        # Shells trust PWD over getcwd when it looks right: keep it in step.
        taken["PWD"] = working_directory
    return {**taken, **own}
