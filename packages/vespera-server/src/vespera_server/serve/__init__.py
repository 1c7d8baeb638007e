"""The MCP server: agents, tasks and files as tools for any MCP client."""

from __future__ import annotations

from vespera_server.serve.options import HttpOptions, ServerOptions
from vespera_server.serve.server import VesperaServer

__all__ = ["HttpOptions", "ServerOptions", "VesperaServer"]
