"""Responsible for the environment an agent starts in: the host's copy without what confuses it.

An agent that inherits the marks of an outer agent refuses to start or reports to the wrong
session: ``CLAUDECODE=1`` makes the CLI believe that it runs inside itself.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Collection, Mapping
from typing import Any

__all__ = ["SCRUBBED", "Environment", "environment_for", "host_number"]

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


class Environment(dict[str, str]):
    """An agent's whole environment: shared by all agents that have the same, never changed."""

    __slots__ = ("encoded",)

    def __init__(self, *args: Mapping[str, str]) -> None:
        super().__init__(*args)
        self.encoded: Any = None  # what a backend makes of it, once


def environment_for(
    inherit: bool | Collection[str] | None,
    own: Mapping[str, str],
    working_directory: str,
    host: Mapping[str, str] | None = None,
) -> Environment:
    """Compose an agent's environment; ``own`` wins over what is inherited.

    ``inherit`` is None or True for the host's environment without ``SCRUBBED``, False for
    nothing, or the names to take over.
    """
    if inherit is False:
        return Environment(own)
    if host is None and (inherit is None or inherit is True):
        return _inherited(host_number(), working_directory, tuple(own.items()))
    source = os.environ if host is None else host
    if inherit is None or inherit is True:
        taken = {name: value for name, value in source.items() if name not in SCRUBBED}
    else:
        taken = {name: source[name] for name in inherit if name in source}
    return _composed(taken, working_directory, own)


def _composed(taken: dict[str, str], working_directory: str, own: Mapping[str, str]) -> Environment:
    if "PWD" in taken:
        # Shells trust PWD over getcwd when it looks right: keep it in step.
        taken["PWD"] = working_directory
    return Environment({**taken, **own})


# The host's environment as it was last, and how often it has changed. Decoding all of it takes
# longer than a start may, so agents that start from the same one share what was made of it.
_last: tuple[object, int] = (None, 0)


def host_number() -> int:
    """Which state of the host's environment this is."""
    global _last
    # os.environ's own table, compared without decoding; elsewhere a decoded copy does.
    now = getattr(os.environ, "_data", os.environ)
    seen, number = _last
    if seen != now:
        _last = seen, number = dict(now), number + 1
    return number


@functools.lru_cache(maxsize=16)
def _inherited(
    number: int, working_directory: str, own: tuple[tuple[str, str], ...]
) -> Environment:
    taken = {name: value for name, value in os.environ.items() if name not in SCRUBBED}
    return _composed(taken, working_directory, dict(own))
