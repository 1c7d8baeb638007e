"""Responsible for turning a configuration into the argv of the Claude CLI.

The table below is the whole translation. Three rules, each bought with somebody's bug:

* A value from outside is written ``--flag=value``, never as two words: the CLI declares some
  options with optional values, and a value that begins with ``-`` would become a flag.
* A long text goes through a 0600 file, never argv: one argument is limited to 128 KiB and
  every user of the machine can read it. ``agents`` travels in ``initialize``.
* ``--permission-prompt-tool stdio`` is always there: an ask then reaches us and is answered,
  instead of hanging in a terminal that does not exist.

The Rust twin (``_native.claude_argv``) passes the same vectors, tests/vectors/claude_argv.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from vespera_agent_spawner.adapters.adapter import Adapter
from vespera_agent_spawner.errors import ConfigError

__all__ = ["BASE_ARGUMENTS", "CLAUDE", "FILE_FLAGS", "claude_argv"]

BASE_ARGUMENTS = (
    "--output-format",
    "stream-json",
    "--verbose",
    "--input-format",
    "stream-json",
    "--permission-prompt-tool",
    "stdio",
)

# field of the configuration, flag, how the value is written
_OPTIONS: tuple[tuple[str, str, str], ...] = (
    ("model", "--model", "text"),
    ("fallback_model", "--fallback-model", "text"),
    ("effort", "--effort", "text"),
    ("system_prompt", "--system-prompt", "text"),
    ("append_system_prompt", "--append-system-prompt", "text"),
    ("allowed_tools", "--allowedTools", "comma"),
    ("disallowed_tools", "--disallowedTools", "comma"),
    ("permission_mode", "--permission-mode", "text"),
    ("max_turns", "--max-turns", "text"),
    ("mcp_config", "--mcp-config", "json"),
    ("settings", "--settings", "json"),
    ("add_dirs", "--add-dir", "repeat"),
    ("output_schema", "--json-schema", "json"),
    ("include_partial_messages", "--include-partial-messages", "switch"),
)

_FIELDS = frozenset(field for field, *_ in _OPTIONS)

# fields that may travel in a file, and the flag that takes the file
FILE_FLAGS: Mapping[str, str] = {
    "system_prompt": "--system-prompt-file",
    "append_system_prompt": "--append-system-prompt-file",
    "mcp_config": "--mcp-config",
    "settings": "--settings",
}

# flags that are ours to set: saying them twice would let the last one win
_RESERVED = frozenset(
    {"output-format", "input-format", "session-id", "permission-prompt-tool", "print", "resume"}
)


def claude_argv(
    config: Mapping[str, Any],
    program: str,
    session_id: str,
    files: Mapping[str, str] | None = None,
) -> list[str]:
    """Return the argv, program first, for a configuration as JSON-like data.

    ``files`` maps a field of ``FILE_FLAGS`` to the path of the file that holds its value.
    Raises ``ConfigError`` for an ``extra_args`` entry that names a flag of ours.
    """
    argv = [program, *map(str, config.get("args") or ()), *BASE_ARGUMENTS]
    argv += _session_arguments(config, session_id)
    # Most agents of a fleet have none of them.
    named = not _FIELDS.isdisjoint(config) or files
    for field, flag, style in _OPTIONS if named else ():
        path = (files or {}).get(field)
        if path is not None:
            argv.append(f"{FILE_FLAGS[field]}={path}")
        elif (value := config.get(field)) is not None:
            argv += _written(flag, style, value)
    budget = config.get("budget") or {}
    if budget.get("usd") is not None:
        argv.append(f"--max-budget-usd={budget['usd']}")
    argv += _extra_arguments(config.get("extra_args") or {})
    return argv


def _session_arguments(config: Mapping[str, Any], session_id: str) -> Iterator[str]:
    resume = config.get("resume")
    fork = bool(config.get("fork_session"))
    extra = config.get("extra_args") or {}
    switches = {name.lstrip("-") for name in extra if extra[name] is not False}
    if resume is not None:
        yield f"--resume={resume}"
    if fork:
        yield "--fork-session"
    # The CLI refuses --session-id beside a session that goes on, unless that is forked.
    goes_on = resume is not None or "continue" in switches
    if not goes_on or fork or "fork-session" in switches:
        yield f"--session-id={session_id}"


def _written(flag: str, style: str, value: Any) -> Iterator[str]:
    if style == "switch":
        if value:
            yield flag
    elif style == "comma":
        if value:
            yield f"{flag}={','.join(map(str, value))}"
    elif style == "repeat":
        for item in value:
            yield f"{flag}={item}"
    elif style == "json" and not isinstance(value, str):
        yield f"{flag}={json_text(value)}"
    else:
        yield f"{flag}={value}"


def json_text(value: Any) -> str:
    """Compact JSON with sorted keys, so that both backends write the same bytes."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def _extra_arguments(extra: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted(extra):
        bare = name.lstrip("-")
        if bare in _RESERVED:
            raise ConfigError(
                f"extra_args: '--{bare}' is set by the spawner and cannot be given again",
                field=f"extra_args.{name}",
                value=extra[name],
                remedy="remove it; session_id, resume and fork_session are fields of their own",
            )
        value = extra[name]
        if value is None or value is True:
            yield f"--{bare}"
        elif value is not False:
            yield f"--{bare}={value}"


def _initialize(config: Mapping[str, Any]) -> dict[str, Any]:
    request: dict[str, Any] = {"subtype": "initialize", "hooks": config.get("hooks")}
    if config.get("agents"):
        request["agents"] = config["agents"]
    return request


CLAUDE = Adapter(
    name="claude",
    argv=claude_argv,
    initialize=_initialize,
    runs_to_exit=False,
    program="claude",
    memory_reserve=512 * 1024 * 1024,
    host_death_grace=0.25,
    file_flags=FILE_FLAGS,
)
