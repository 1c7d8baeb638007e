"""Responsible for reading a request of ``execute_claude_json``: prompt, time-out, the rest.

A request may come as JSON text from another program, so every mistake is named with its remedy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vespera_agent_spawner import _validation as rules
from vespera_agent_spawner.errors import ConfigError

__all__ = ["Request", "checked_turn", "parse_request"]


_LIKE = 'give a dict or JSON text like {"prompt": "…"}'


@dataclass(frozen=True, slots=True)
class Request:
    """One turn that is asked for. ``timeout`` in seconds; None means the agent's own."""

    prompt: str
    timeout: float | None
    metadata: dict[str, Any]


def parse_request(
    request: str | bytes | Mapping[str, Any],
    *,
    agent_id: str,
    program: str,
    environment: Mapping[str, str],
) -> Request:
    """Check a request against the agent it is for; raises ``ConfigError``."""
    fields = dict(_mapping(request))
    prompt = fields.pop("prompt", None)
    if not isinstance(prompt, str) or not prompt:
        near = [name for name in fields if rules.is_near(name, "prompt")] if prompt is None else []
        remedy = f'"{near[0]}" is no "prompt"' if near else 'give {"prompt": "…"}'
        raise _wrong("prompt", prompt, "a non-empty string", remedy)
    prompt, timeout = checked_turn(prompt, fields.pop("timeout", None), of="request")
    command = fields.pop("command", None)
    if command is not None and command != program:
        raise ConfigError(
            f"request.command: agent '{agent_id}' runs '{program}', not '{command}': the command "
            "is fixed when an agent is spawned",
            field="request.command",
            value=command,
            remedy="leave it out, or spawn another agent with it",
        )
    wanted = fields.pop("environment", None)
    if wanted is not None:
        _check_environment(wanted, agent_id, environment)
    return Request(prompt, timeout, fields)


def checked_turn(prompt: object, timeout: object, *, of: str = "") -> tuple[str, float | None]:
    """What a turn says, and its seconds; by the rules of a configuration."""
    seconds = rules.optional(rules.positive_duration)(rules.join(of, "timeout"), timeout)
    return rules.prose(rules.join(of, "prompt"), prompt), seconds


def _mapping(request: str | bytes | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(request, Mapping):
        return request
    if not isinstance(request, (str, bytes, bytearray)):
        raise _wrong("", request, "a JSON object", "give a dict or JSON text of one")
    try:
        parsed = json.loads(request)
    except ValueError as error:
        raise ConfigError(
            f"request: not JSON: {error}; {_LIKE}",
            field="request",
            value=request,
            remedy=_LIKE,
        ) from error
    if not isinstance(parsed, dict):
        raise _wrong("", parsed, "a JSON object", 'give {"prompt": "…"}')
    return parsed


def _check_environment(wanted: Any, agent_id: str, environment: Mapping[str, str]) -> None:
    if not isinstance(wanted, Mapping):
        raise _wrong("environment", wanted, "an object of strings", "leave it out")
    for name, value in wanted.items():
        if environment.get(name) != value:
            raise ConfigError(
                f"request.environment.{name}: agent '{agent_id}' was spawned without this value; "
                "the environment is fixed when an agent is spawned",
                field=f"request.environment.{name}",
                value=value,
                remedy="leave it out, or spawn another agent with config.environment",
            )


def _wrong(name: str, value: Any, expected: str, remedy: str) -> ConfigError:
    field = f"request.{name}" if name else "request"
    return ConfigError(
        f"{field}: expected {expected}, got {value!r}; {remedy}",
        field=field,
        value=value,
        remedy=remedy,
    )
