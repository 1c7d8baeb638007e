"""Responsible for MCP over streamable HTTP: an address, a token, and who may come from where."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings
from starlette.types import ASGIApp

from vespera_agent_spawner._logging import logger_for
from vespera_agent_spawner.errors import ConfigError
from vespera_server.serve.gate import Gate
from vespera_server.serve.options import HttpOptions
from vespera_server.serve.stdio import signalled
from vespera_server.serve.token import default_token_file, keep_token

if TYPE_CHECKING:
    from vespera_server.serve.server import VesperaServer

__all__ = ["PATH", "http_app", "serve_http"]

PATH = "/mcp"

_log = logger_for("server.http")
_BACKLOG = 128
_CONNECTIONS = 256
_FAREWELL = 3


def http_app(server: VesperaServer, options: HttpOptions, token: str, port: int) -> ASGIApp:
    """The whole application; its lifespan is that of the agents."""
    hosts = [f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")]
    own = f"[{options.host}]" if ":" in options.host else options.host
    hosts += [f"{own}:{port}", *options.names]
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=hosts,
        allowed_origins=[*(f"http://{host}" for host in hosts), *options.origins],
    )
    app = server.mcp_server.streamable_http_app(
        streamable_http_path=PATH,
        max_request_body_size=server.options.largest_message,
        max_sessions=options.sessions,
        session_idle_timeout=server.options.idle,
        transport_security=security,
        host=options.host,
    )
    return Gate(app, token, options.requests_per_minute)


async def serve_http(server: VesperaServer) -> int:
    """Serve until a signal comes; returns the exit code."""
    options = server.options.http or HttpOptions()
    token = keep_token(options.token_file)
    server.policy.redactor.add(token)
    listening = _listen(options)
    port = listening.getsockname()[1]
    config = uvicorn.Config(
        http_app(server, options, token, port),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_FAREWELL,
        lifespan="on",
        ws="none",
    )
    web = _Quiet(config)
    host = f"[{options.host}]" if ":" in options.host else options.host
    where = options.token_file or default_token_file()
    print(
        f"vespera: http://{host}:{port}{PATH}, bearer token in {where}", file=sys.stderr, flush=True
    )
    with signalled() as stop:
        serving = asyncio.ensure_future(web.serve([listening]))
        asked = asyncio.ensure_future(stop.asked.wait())
        await asyncio.wait({serving, asked}, return_when=asyncio.FIRST_COMPLETED)
        web.should_exit = True
        asked.cancel()
        await serving
        return int(stop.code) if web.started else 1


class _Quiet(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The signals are ours: uvicorn would raise them again when it is done."""
        yield


def _listen(options: HttpOptions) -> socket.socket:
    if not options.expose and not _is_loopback(options.host):
        raise ConfigError(
            f"http.host: {options.host} can be reached from other machines",
            field="http.host",
            value=options.host,
            remedy="use 127.0.0.1, or say --expose and put TLS in front of it",
        )
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((options.host, options.port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"http: cannot listen on {options.host}:{options.port}: {error.strerror}",
            field="http.port",
            value=options.port,
            remedy="choose another port; 0 takes any that is free",
        ) from error
    return listening


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
