"""`vespera serve` as the operator calls it: settings and flags become options, those a server."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vespera_agent_spawner import register
from vespera_agent_spawner.errors import AgentError, ConfigError
from vespera_server.environment import DEFAULT_GROUPS
from vespera_server.redaction import RedactingFormatter, Redactor
from vespera_server.serve.beginning import check_beginning
from vespera_server.serve.options import ServerOptions
from vespera_server.serve.places import expanded
from vespera_server.serve.server import VesperaServer
from vespera_server.settings import load_settings
from vespera_server.settings.layers import merged
from vespera_server.state.directory import StateDirectory

__all__ = ["Flags", "address", "serve", "server_options"]

_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@dataclass(frozen=True, kw_only=True)
class Flags:
    """What the command line chose; the settings decide what it left out.

    ``fields`` are those of ``ServerOptions``; None and empty lists were not given. ``http``: the
    address, ``http_fields`` what else there is to say about it.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    programs: Sequence[str] = ()
    claude: str | None = None
    with_groups: Sequence[str] = ()
    without_groups: Sequence[str] = ()
    stdio: bool = False
    http: str | None = None
    http_fields: Mapping[str, Any] = field(default_factory=dict)


def serve(flags: Flags, log_level: str) -> int:
    """Serve until the client or the operator ends it; returns the exit code.

    2 means that it could not begin.
    """
    try:
        # No file of the project: callers may write there, and would limit themselves.
        settings = load_settings(project=False).values
        options = server_options(flags, settings.serve)
        state = StateDirectory(settings.state.directory)
        if options.task_database is not None:
            state.make_room(expanded(options.task_database, "task_database"))
        server = VesperaServer(options)
        for warning in check_beginning(options, server.policy):
            print(f"vespera serve: warning: {warning}", file=sys.stderr)
        register.tell_in(state.hosts)
        _log_to_stderr(log_level, server.policy.redactor)
        return asyncio.run(_until_the_end(server))
    except (AgentError, OSError) as error:
        words = str(error)
        # Some errors say it themselves.
        if isinstance(error, ConfigError) and error.remedy not in words:
            words += f"; {error.remedy}"
        print(f"vespera serve: {Redactor().text(words)}", file=sys.stderr)
        return 2


async def _until_the_end(server: VesperaServer) -> int:
    code = await (server.run_stdio() if server.options.http is None else server.run_http())
    if code:
        # Asked once more while the last threads end: the exit code stays what it is.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
    return code


def server_options(flags: Flags, settings: Mapping[str, Any]) -> ServerOptions:
    """The settings' section `serve` with the flags over it."""
    fields = merged(settings, _given(flags.fields))
    if flags.programs:
        fields["programs"] = dict(map(_program, flags.programs))
    if flags.claude:
        fields["programs"] = {**fields.get("programs", {}), "claude": flags.claude}
    if flags.with_groups or flags.without_groups:
        usual = fields.get("environment", DEFAULT_GROUPS)
        chosen = dict.fromkeys((*usual, *flags.with_groups))
        fields["environment"] = [group for group in chosen if group not in flags.without_groups]
    if flags.stdio and flags.http is not None:
        remedy = "give one of them"
        raise ConfigError(
            f"--stdio and --http {flags.http}: a server has one door; {remedy}",
            field="--stdio",
            value=True,
            remedy=remedy,
        )
    if flags.stdio:
        fields["http"] = None
    elif flags.http is not None or fields.get("http") is not None:
        web = {} if flags.http is None else address(flags.http)
        fields["http"] = merged(fields.get("http") or {}, web | _given(flags.http_fields))
    return ServerOptions.from_mapping(fields)


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None and value != []}


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


def _program(text: str) -> tuple[str, str]:
    """``NAME=PATH`` or ``NAME``."""
    name, _, path = text.partition("=")
    return name, path or name
