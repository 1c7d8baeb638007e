"""Responsible for the MCP server: which tools there are, and the life of what is behind them.

Transports are elsewhere (``stdio``, ``http``); what callers may do is the policy's.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import anyio
from mcp.server.mcpserver import Context, MCPServer

from vespera_agent_spawner.backends import choose
from vespera_server import __version__
from vespera_server.serve.agent_tools import add_agent_tools
from vespera_server.serve.batches import Batches, BatchesInMemory
from vespera_server.serve.file_tools import add_file_tools
from vespera_server.serve.file_work import FileWork
from vespera_server.serve.fleet import Fleet
from vespera_server.serve.kept_batches import KeptBatches
from vespera_server.serve.options import ServerOptions
from vespera_server.serve.policy import Policy
from vespera_server.serve.task_database import TaskDatabase
from vespera_server.serve.task_tools import add_task_tools
from vespera_server.serve.tool import StructuredServer

__all__ = ["VesperaServer"]

_INSTRUCTIONS = """\
Runs coding agents (Claude CLI) and works on files beneath {roots}.
A session: spawn_claude_agent, then execute_agent per prompt, then shutdown_agent. A turn that is
not over in time answers "running" with a cursor: follow it with agent_events.
Several independent jobs: run_tasks, then task_status; what is "interrupted" goes on by run_tasks
with its batch_id and resume.
Every answer has `success`; if it is false, `error` has a code and a remedy.\
"""


@dataclass(frozen=True, slots=True)
class _Running:
    """What lives as long as the server does."""

    fleet: Fleet
    batches: Batches
    files: FileWork


class VesperaServer:
    """Agents, tasks and files as MCP tools, within the operator's limits.

    ``options`` is a ``ServerOptions`` or a mapping of its fields; ``host`` the environment from
    which agents get theirs (``os.environ``); ``task_database`` is the option of that name, where
    ``options`` leaves it out. ``mcp_server`` is the SDK's server: connect a
    client to it in process, or serve it with ``run_stdio`` or ``run_http``. Its end is the end
    of every agent.
    """

    def __init__(
        self,
        options: ServerOptions | Mapping[str, Any] | None = None,
        *,
        host: Mapping[str, str] | None = None,
        task_database: str | os.PathLike[str] | None = None,
    ) -> None:
        if not isinstance(options, ServerOptions):
            options = ServerOptions.from_mapping(options or {})
        if options.backend != "auto":
            choose(options.backend)  # said now, not by the first agent
        if options.task_database is None and task_database is not None:
            options = options._with(task_database=task_database)
        self.options = options
        self.policy = Policy(options, host)
        if (database := self._task_database()) is not None:
            database.close()  # that it can be used is said now, too
        self.mcp_server: MCPServer[Any] = self.setup_mcp_server()

    @property
    def project_root(self) -> str:
        """The first root: where agents work and paths start unless a caller says otherwise."""
        return self.policy.places.roots[0]

    def setup_mcp_server(self) -> MCPServer[Any]:
        """The SDK's server with the tools of the chosen toolsets."""
        server = StructuredServer(
            self.policy.redactor,
            name="vespera",
            title="Vespera",
            version=__version__,
            instructions=_INSTRUCTIONS.format(roots=", ".join(self.policy.places.roots)),
            lifespan=self._life,
            log_level="WARNING",
        )
        if "agents" in self.options.toolsets:
            add_agent_tools(server, _fleet_of, _owner_of, self.options.backend)
        if "tasks" in self.options.toolsets:
            add_task_tools(server, _fleet_of, _batches_of, _owner_of)
        if "files" in self.options.toolsets:
            add_file_tools(server, self.policy, _files_of)
        return server

    async def run_stdio(self) -> int:
        """Serve the process's stdin and stdout until stdin ends or a signal comes.

        Returns the exit code: 0, or 128 and the number of the signal.
        """
        from vespera_server.serve.stdio import serve_stdio

        return await serve_stdio(self.mcp_server, self.options.largest_message)

    async def run_http(self) -> int:
        """Serve HTTP until a signal comes; returns the exit code as ``run_stdio`` does."""
        from vespera_server.serve.http import serve_http

        return await serve_http(self)

    @contextlib.asynccontextmanager
    async def _life(self, _: MCPServer[Any]) -> AsyncIterator[_Running]:
        fleet, files = Fleet(self.policy), FileWork()
        database = self._task_database()
        kept = None if database is None else KeptBatches(fleet, database)
        await fleet.__aenter__()
        if kept is not None:
            await kept.__aenter__()
        try:
            yield _Running(fleet, kept or BatchesInMemory(fleet), files)
        finally:
            files.close()
            # However the server ends, also cancelled: its agents end before it does, and what
            # they leave unfinished is written down.
            with anyio.CancelScope(shield=True):
                await fleet.__aexit__(None, None, None)
                if kept is not None:
                    await kept.__aexit__(None, None, None)

    def _task_database(self) -> TaskDatabase | None:
        path = self.options.task_database
        return None if path is None else TaskDatabase(path, self.policy.places.roots)


def _fleet_of(ctx: Context[Any, Any]) -> Fleet:
    running: _Running = ctx.request_context.lifespan_context
    return running.fleet


def _batches_of(ctx: Context[Any, Any]) -> Batches:
    running: _Running = ctx.request_context.lifespan_context
    return running.batches


def _files_of(ctx: Context[Any, Any]) -> FileWork:
    running: _Running = ctx.request_context.lifespan_context
    return running.files


def _owner_of(ctx: Context[Any, Any], fleet: Fleet) -> str | None:
    """The client's session over HTTP, with which its agents end.

    None over stdio, where the server ends with its client, and for clients of the stateless
    protocol, whose agents end when they are idle for too long.
    """
    headers = ctx.headers
    owner = headers.get("mcp-session-id") if headers is not None else None
    if owner is None:
        return None
    connection = ctx.request_context.session._connection
    if "vespera_owner" not in connection.state:
        connection.state["vespera_owner"] = owner
        connection.exit_stack.callback(fleet.end_owned_by, owner)
    return owner
