"""Whether credentials are to be seen that an agent could log in with. By their names and places:
what is in them is not read."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from vespera_agent_spawner.adapters.locate import find_program
from vespera_agent_spawner.errors import AgentError
from vespera_server.doctor.finding import Finding, Status

SECTION = "account"

_NAMES = (
    *("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"),
    *("CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY"),
)
_LOGIN = ".credentials.json"
_SETTINGS = ("settings.json", "settings.local.json")


def check_account(
    explicit: str | None, environment: Mapping[str, str], directory: Path | None = None
) -> Iterator[Finding]:
    """A finding about credentials: none is a note, as rehearsals need no account."""
    # Not Path.home(), which raises for a user without one.
    home = Path(environment.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111
    config = Path(environment.get("CLAUDE_CONFIG_DIR") or home / ".claude")
    seen = [name for name in _NAMES if environment.get(name)]
    with contextlib.suppress(OSError):  # not to be looked at by us
        if (config / _LOGIN).is_file():
            seen.append(f"the CLI's login in {config / _LOGIN}")
    for folder in (config, (directory or Path()) / ".claude"):
        for name in _SETTINGS:
            seen += [f"{what} in {folder / name}" for what in _in_settings(folder / name)]
    if seen:
        yield Finding(SECTION, "credentials", Status.OK, f"seen: {', '.join(dict.fromkeys(seen))}")
        return
    where = f"none seen, in the environment or {config}"
    if sys.platform == "darwin":
        where += " (the keychain was not looked at)"
    yield Finding(
        SECTION,
        "credentials",
        Status.NOTE,
        f"{where}: agents would end with 'auth_failed', 'vespera run' with exit code 4",
        f"log in: {_program(explicit, environment)}, there /login; or set ANTHROPIC_API_KEY. "
        "'vespera demo', 'vespera run --scripted' and 'vespera model' need no account",
    )


def _in_settings(path: Path) -> Iterator[str]:
    try:
        settings = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    if not isinstance(settings, dict):
        return
    if settings.get("apiKeyHelper"):
        yield "apiKeyHelper"
    variables = settings.get("env")
    if isinstance(variables, dict):
        yield from (name for name in _NAMES if variables.get(name))


def _program(explicit: str | None, environment: Mapping[str, str]) -> str:
    """How to start the CLI: inside of a wheel it is on nobody's PATH."""
    try:
        return shlex.quote(find_program(explicit, environment))
    except AgentError:
        return "claude"
