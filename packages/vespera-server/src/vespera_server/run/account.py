"""Responsible for saying whose account pays, before anything is started. Names, never values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

__all__ = ["account_in"]

_KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN")
_CLOUDS = {"CLAUDE_CODE_USE_BEDROCK": "Amazon Bedrock", "CLAUDE_CODE_USE_VERTEX": "Google Vertex"}


def account_in(environment: Mapping[str, str]) -> str:
    """What the CLI will log in with, in the order in which it looks."""
    for name, cloud in _CLOUDS.items():
        if environment.get(name):
            return f"your {cloud} account ({name})"
    where = ""
    if environment.get("ANTHROPIC_BASE_URL"):
        where = ", at ANTHROPIC_BASE_URL"
    for name in _KEYS:
        if environment.get(name):
            return f"your key in {name}{where}"
    home = environment.get("CLAUDE_CONFIG_DIR") or environment.get("HOME") or "~"
    try:
        told = json.loads((Path(home).expanduser() / ".claude.json").read_text("utf-8"))
        address = told["oauthAccount"]["emailAddress"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"the CLI's own login, if there is one{where}"
    return f"your login {address}{where}"
