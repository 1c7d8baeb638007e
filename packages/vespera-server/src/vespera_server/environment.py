"""Responsible for which variables of the host an agent gets: groups that the operator switches.

An agent gets what the chosen groups name and nothing else; values never leave this module except
to the agent. The marks of an outer CLI are never passed on, whatever the groups say.
"""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Collection, Mapping, Sequence

from vespera_agent_spawner.adapters.environment import SCRUBBED
from vespera_agent_spawner.errors import ConfigError

__all__ = ["DEFAULT_GROUPS", "GROUPS", "check_groups", "names_by_group", "select"]

# Patterns as fnmatch reads them, case and all.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "base": (*("PATH", "HOME", "USER", "SHELL", "LANG", "LC_*", "TZ", "TMPDIR", "XDG_*"),),
    "proxy": (
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"),
        *("http_proxy", "https_proxy", "all_proxy", "no_proxy"),
    ),
    "certificates": ("SSL_CERT_*", "NODE_EXTRA_CA_CERTS"),
    # CLAUDE_CONFIG_DIR is where the login is kept; without it a moved one is not found.
    "anthropic": ("ANTHROPIC_*", "CLAUDE_CODE_*", "CLAUDE_CONFIG_DIR"),
    "aws": ("AWS_*",),
    # Vertex takes its region from a variable with no prefix in common.
    "google": ("GOOGLE_*", "CLOUD_ML_REGION"),
}

#: The clouds' credentials go to agents only when somebody asks for it.
DEFAULT_GROUPS: tuple[str, ...] = ("base", "proxy", "certificates", "anthropic")


def select(
    groups: Sequence[str] = DEFAULT_GROUPS,
    names: Collection[str] = (),
    host: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """The variables of ``host`` (``os.environ``) that belong to ``groups`` or are in ``names``.

    Raises ``ConfigError`` for a group that does not exist.
    """
    source = os.environ if host is None else host
    patterns = [pattern for group in check_groups(groups) for pattern in GROUPS[group]]
    return {
        name: value
        for name, value in source.items()
        if name not in SCRUBBED and (name in names or _matches(name, patterns))
    }


def names_by_group(host: Mapping[str, str] | None = None) -> dict[str, list[str]]:
    """Which of the host's variables each group would pass on: names, never values."""
    source = os.environ if host is None else host
    return {
        group: sorted(name for name in source if name not in SCRUBBED and _matches(name, patterns))
        for group, patterns in GROUPS.items()
    }


def check_groups(groups: Sequence[str], field: str = "environment") -> tuple[str, ...]:
    """The groups as given; raises ``ConfigError`` for one that does not exist."""
    for group in groups:
        if group not in GROUPS:
            raise ConfigError(
                f"{field}: no group '{group}'; known groups: {', '.join(GROUPS)}",
                field=field,
                value=group,
                remedy=f"use some of {', '.join(GROUPS)}",
            )
    return tuple(groups)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
