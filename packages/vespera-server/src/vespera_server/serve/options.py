"""Responsible for what the operator of a server decides, and no caller can change.

Plain declarations: `vespera serve` fills them from flags, a configuration file may fill them by
``ServerOptions.from_mapping``. Durations take seconds or ``"5m"``, sizes bytes or ``"2MiB"``;
a value that cannot work is a ``ConfigError`` with field, value and remedy.
"""

# The fields are descriptors, which check what they are given; ruff knows them where they are made.
# ruff: noqa: RUF009

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vespera_agent_spawner import _validation as rules
from vespera_agent_spawner._validation import optional
from vespera_agent_spawner.config import Duration, PathText, Setting, Size, _Settings
from vespera_server.environment import DEFAULT_GROUPS, check_groups

__all__ = ["PERMISSION_MODES", "TOOLSETS", "TOOL_RULE", "HttpOptions", "ServerOptions"]

TOOLSETS = ("agents", "files", "tasks")

#: From the least to the most that an agent may do unasked.
PERMISSION_MODES = (
    *("plan", "dontAsk", "default", "manual", "acceptEdits", "auto", "bypassPermissions"),
)

# `Bash(git log:*)` is one rule. A comma would make two of it where the CLI reads the list.
TOOL_RULE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}(?:\([^(),\x00-\x1f\x7f]{1,256}\))?")


def _tool_rules(path: str, value: object) -> tuple[str, ...]:
    given = rules.sequence(rules.text)(path, value)
    for rule in given:
        if rule != "*" and not TOOL_RULE.fullmatch(rule):
            raise rules.refuse(path, rule, 'give names such as "Read" or "Bash(git log:*)", or "*"')
    return given


def _groups(path: str, value: object) -> tuple[str, ...]:
    return check_groups(rules.sequence(rules.text)(path, value), path)


def _environment_names(path: str, value: object) -> tuple[str, ...]:
    given = rules.sequence(rules.text)(path, value)
    for name in given:
        if re.search(r"[=\s]", name):
            raise rules.refuse(path, name, 'give names of variables such as "DATABASE_URL"')
    return given


def _programs(path: str, value: object) -> dict[str, str]:
    if not isinstance(value, Mapping) or not value:
        raise rules.refuse(path, value, 'give an object such as {"claude": "claude"}')
    return {
        rules.text(f"{path} (a name)", name): rules.system_text(f"{path}.{name}", program)
        for name, program in value.items()
    }


class _OnlyClaude(dict[str, str]):
    """Dataclasses refuse unhashable defaults; every rule copies, so this one is never handed out
    to be changed."""

    __hash__ = object.__hash__  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True, repr=False)
class HttpOptions(_Settings):
    """How the server is reached over HTTP.

    ``host``, ``port``: where it listens (0: any free port). ``expose`` allows an address that is
    not loopback. ``names``: further values of the Host header, as a proxy in front sends them.
    ``origins``: web origins that may call. ``token_file``: where the bearer token is kept (None:
    in the user's state directory). ``requests_per_minute`` and ``sessions`` are limits of the
    whole server.
    """

    host: Setting[str, str] = Setting(rules.text, "127.0.0.1")
    port: Setting[int, int] = Setting(rules.integer(0, 65535), 8765)
    expose: Setting[bool, bool] = Setting(rules.boolean, False)
    names: Setting[Sequence[str], tuple[str, ...]] = Setting(rules.sequence(rules.text), ())
    origins: Setting[Sequence[str], tuple[str, ...]] = Setting(rules.sequence(rules.text), ())
    token_file: Setting[PathText | None, str | None] = Setting(optional(rules.system_text), None)
    requests_per_minute: Setting[int, int] = Setting(rules.integer(1, 1_000_000), 600)
    sessions: Setting[int, int] = Setting(rules.integer(1, 100_000), 64)


@dataclass(frozen=True, kw_only=True, repr=False)
class ServerOptions(_Settings):
    """What callers may do through a server.

    Where: ``roots`` hold every working directory and file (empty: the server's own directory);
    the first one is what relative paths start from; ``read_only`` refuses to write files.

    What: ``toolsets`` are offered. ``programs`` maps the names that callers may give as
    ``command`` to what is run. ``models``: those that may be asked for (None: any).
    ``tools``: the CLI's tools that agents can have at all, ``"*"`` for every one; callers may ask
    for fewer. ``permission_mode``: the most that may be asked for. ``setting_sources``: settings
    that the CLI reads; ``project`` and ``local`` lie in the working directory, where a caller may
    write, and can name programs to run.

    How much: ``max_agents`` alive at once, ``max_tasks`` waiting; ``turn_timeout`` and
    ``startup_timeout``; ``idle``: an agent that nobody asked anything for so long is ended.
    ``budget_usd``: what all agents together may cost. ``agent_budget_usd``: each one; None is an
    even share of the whole. ``largest_file``, ``largest_answer`` and ``largest_message`` in bytes.

    With: ``environment`` groups and further ``environment_names`` are passed to agents.
    ``transcript_dir``: where what agents say is kept, without secrets. ``task_database``: the file
    (0600) in which batches of ``run_tasks`` and their results are kept (None: in memory, as long
    as the server lives); not beneath a root, where callers write.
    """

    roots: Setting[Sequence[PathText], tuple[str, ...]] = Setting(
        rules.sequence(rules.system_text), ()
    )
    read_only: Setting[bool, bool] = Setting(rules.boolean, False)
    toolsets: Setting[Sequence[str], tuple[str, ...]] = Setting(
        rules.sequence(rules.choice(*TOOLSETS)), TOOLSETS
    )
    programs: Setting[Mapping[str, PathText], dict[str, str]] = Setting(
        _programs, _OnlyClaude(claude="claude")
    )
    models: Setting[Sequence[str] | None, tuple[str, ...] | None] = Setting(
        optional(rules.sequence(rules.text)), None
    )
    tools: Setting[Sequence[str], tuple[str, ...]] = Setting(_tool_rules, ("Read", "Glob", "Grep"))
    permission_mode: Setting[str, str] = Setting(rules.choice(*PERMISSION_MODES), "default")
    setting_sources: Setting[Sequence[str], tuple[str, ...]] = Setting(
        rules.sequence(rules.choice("user", "project", "local")), ("user",)
    )
    max_agents: Setting[int, int] = Setting(rules.integer(1, 10_000), 8)
    max_tasks: Setting[int, int] = Setting(rules.integer(1, 1_000_000), 1000)
    turn_timeout: Setting[Duration, float] = Setting(rules.positive_duration, 3600.0)
    startup_timeout: Setting[Duration, float] = Setting(rules.positive_duration, 60.0)
    idle: Setting[Duration | None, float | None] = Setting(
        optional(rules.positive_duration), 1800.0
    )
    budget_usd: Setting[float | None, float | None] = Setting(
        optional(rules.number(1_000_000_000)), None
    )
    agent_budget_usd: Setting[float | None, float | None] = Setting(
        optional(rules.number(1_000_000_000)), None
    )
    largest_file: Setting[Size, int] = Setting(rules.size(1), 8 << 20)
    largest_answer: Setting[Size, int] = Setting(rules.size(1024), 256 << 10)
    largest_message: Setting[Size, int] = Setting(rules.size(4096), 4 << 20)
    environment: Setting[Sequence[str], tuple[str, ...]] = Setting(_groups, DEFAULT_GROUPS)
    environment_names: Setting[Sequence[str], tuple[str, ...]] = Setting(_environment_names, ())
    backend: Setting[str, str] = Setting(rules.choice("auto", "rust", "python"), "auto")
    transcript_dir: Setting[PathText | None, str | None] = Setting(
        optional(rules.system_text), None
    )
    task_database: Setting[PathText | None, str | None] = Setting(optional(rules.system_text), None)
    http: Setting[HttpOptions | Mapping[str, Any] | None, HttpOptions | None] = Setting(
        optional(HttpOptions._read), None
    )

    def at_most(self, mode: str) -> bool:
        """Whether a permission mode is within the ceiling."""
        return PERMISSION_MODES.index(mode) <= PERMISSION_MODES.index(self.permission_mode)
