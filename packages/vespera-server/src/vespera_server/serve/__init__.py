"""The MCP server: agents, tasks and files as tools for any MCP client."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vespera_server.serve.options import HttpOptions, ServerOptions

if TYPE_CHECKING:
    from vespera_server.serve.server import VesperaServer

__all__ = ["HttpOptions", "ServerOptions", "VesperaServer"]


def __getattr__(name: str) -> object:
    # On demand: `vespera config show` must not wait for the MCP SDK.
    if name == "VesperaServer":
        from vespera_server.serve.server import VesperaServer

        return VesperaServer
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
