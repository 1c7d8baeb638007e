"""`vespera serve` as the operator calls it: flags become options, options become a server."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from vespera_agent_spawner.errors import AgentError, ConfigError
from vespera_server.environment import DEFAULT_GROUPS
from vespera_server.redaction import RedactingFormatter, Redactor
from vespera_server.serve.options import ServerOptions
from vespera_server.serve.server import VesperaServer

__all__ = ["address", "environment_groups", "programs", "serve"]

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def serve(fields: Mapping[str, Any], log_level: str) -> int:
    """Serve until the client or the operator ends it; returns the exit code.

    ``fields`` are those of ``ServerOptions``. 2 means that it could not begin.
    """
    try:
        server = VesperaServer(ServerOptions.from_mapping(fields))
        _log_to_stderr(log_level, server.policy.redactor)
        work = server.run_stdio() if server.options.http is None else server.run_http()
        return asyncio.run(work)
    except (AgentError, OSError) as error:
        remedy = f"; {error.remedy}" if isinstance(error, ConfigError) else ""
        print(f"vespera serve: {Redactor().text(f'{error}{remedy}')}", file=sys.stderr)
        return 2


def _log_to_stderr(level: str, redactor: Redactor) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(RedactingFormatter(redactor, _FORMAT))
    # In place of the one that the SDK set, which knows no secrets.
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)


def address(text: str) -> dict[str, Any]:
    """``HOST:PORT`` or ``PORT`` as fields of ``HttpOptions``."""
    host, _, port = text.rpartition(":")
    if not port.isdecimal():
        raise ConfigError(
            f"--http: {text!r} is no address",
            field="--http",
            value=text,
            remedy="give HOST:PORT, such as 127.0.0.1:8765, or a port",
        )
    return {"host": host.strip("[]") or "127.0.0.1", "port": int(port)}


def programs(given: Sequence[str], claude: str | None) -> dict[str, str]:
    """``NAME=PATH`` or ``NAME`` as the field ``programs``; without any the CLI is meant."""
    found = {"claude": claude or "claude"} if claude or not given else {}
    for text in given:
        name, _, path = text.partition("=")
        found[name] = path or name
    return found


def environment_groups(more: Sequence[str], fewer: Sequence[str]) -> list[str]:
    """The usual groups, with ``more`` and without ``fewer``."""
    return [group for group in dict.fromkeys((*DEFAULT_GROUPS, *more)) if group not in fewer]
