"""The `vespera` command and what it is made of: an MCP server, a task executor, a durable queue,
and the scripted model that lets it run without an account."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vespera_server.executor import RustEnhancedTaskExecutor, TaskExecutor
    from vespera_server.serve import HttpOptions, ServerOptions, VesperaServer
    from vespera_server.tasks import TaskQueue

__all__ = [
    "HttpOptions",
    "RustEnhancedTaskExecutor",
    "ServerOptions",
    "TaskExecutor",
    "TaskQueue",
    "VesperaServer",
    "__version__",
]

__version__ = "0.1.0"

_HOMES = {
    "HttpOptions": "vespera_server.serve",
    "RustEnhancedTaskExecutor": "vespera_server.executor",
    "ServerOptions": "vespera_server.serve",
    "TaskExecutor": "vespera_server.executor",
    "TaskQueue": "vespera_server.tasks",
    "VesperaServer": "vespera_server.serve",
}


def __getattr__(name: str) -> object:
    # On demand: `vespera doctor` must not wait for the MCP SDK.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
