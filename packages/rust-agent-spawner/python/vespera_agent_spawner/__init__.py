"""Start agent CLIs, speak with them turn by turn, and own their process trees to the end.

The functions here are synchronous and see one supervisor per process::

    import vespera_agent_spawner as spawner

    spawner.spawn_claude_agent("docs")
    try:
        turn = spawner.execute_claude_json("docs", {"prompt": "Summarise README.md"})
        print(turn["outcome"], turn["result"])
    finally:
        spawner.shutdown_claude_agent("docs")

The Rust backend is used where its extension loads, the Python one elsewhere; ``backend()`` tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vespera_agent_spawner import errors
from vespera_agent_spawner.agent import Agent
from vespera_agent_spawner.api import (
    agent_status,
    backend,
    config_schema,
    containment,
    execute_claude_json,
    list_agents,
    metrics,
    shutdown_claude_agent,
    spawn_claude_agent,
)
from vespera_agent_spawner.config import (
    AgentConfig,
    Budget,
    Limits,
    RetryPolicy,
    SupervisorConfig,
    Timeouts,
)
from vespera_agent_spawner.errors import (
    AgentBusy,
    AgentError,
    AgentExists,
    AgentFailed,
    AgentNotFound,
    AgentTimeout,
    BudgetExceeded,
    ConfigError,
    LimitExceeded,
    ProgramNotFound,
    ProtocolError,
    SpawnError,
    SupervisorClosed,
)
from vespera_agent_spawner.events import Event
from vespera_agent_spawner.hooks import Hook
from vespera_agent_spawner.results import (
    AgentInfo,
    ExitStatus,
    Outcome,
    RunResult,
    State,
    TurnResult,
    Usage,
)
from vespera_agent_spawner.supervisor import Supervisor
from vespera_agent_spawner.tools import Tool
from vespera_agent_spawner.transcripts import Replay, replay

if TYPE_CHECKING:
    RUST_AGENT_SPAWNER_AVAILABLE: bool

__all__ = [
    "RUST_AGENT_SPAWNER_AVAILABLE",
    "Agent",
    "AgentBusy",
    "AgentConfig",
    "AgentError",
    "AgentExists",
    "AgentFailed",
    "AgentInfo",
    "AgentNotFound",
    "AgentTimeout",
    "Budget",
    "BudgetExceeded",
    "ConfigError",
    "Event",
    "ExitStatus",
    "Hook",
    "LimitExceeded",
    "Limits",
    "Outcome",
    "ProgramNotFound",
    "ProtocolError",
    "Replay",
    "RetryPolicy",
    "RunResult",
    "SpawnError",
    "State",
    "Supervisor",
    "SupervisorClosed",
    "SupervisorConfig",
    "Timeouts",
    "Tool",
    "TurnResult",
    "Usage",
    "__version__",
    "agent_status",
    "backend",
    "config_schema",
    "containment",
    "errors",
    "execute_claude_json",
    "list_agents",
    "metrics",
    "replay",
    "shutdown_claude_agent",
    "spawn_claude_agent",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # Asked for, not computed at import: importing must neither load the extension nor warn.
    if name == "RUST_AGENT_SPAWNER_AVAILABLE":
        try:
            return backend() == "rust"
        except ConfigError:
            return False
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
