"""Responsible for the module functions: the synchronous face, the same over both backends.

They see one default supervisor that lives until the interpreter exits. Ids are decided here, in
the registry; a backend only starts, speaks to and ends processes.
"""

from __future__ import annotations

import asyncio
import atexit
import dataclasses
import json
import os
import time
import warnings
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from vespera_agent_spawner import _validation as rules
from vespera_agent_spawner import backends
from vespera_agent_spawner._counters import PROCESS, merge
from vespera_agent_spawner._logging import logger_for
from vespera_agent_spawner._registry import Ended, Entry, Registry
from vespera_agent_spawner._request import parse_request
from vespera_agent_spawner._supervisors import supervised_states, waiting_processes
from vespera_agent_spawner.adapters import adapter_named
from vespera_agent_spawner.adapters.locate import DEFAULT_PROGRAM
from vespera_agent_spawner.backends._protocol import Session
from vespera_agent_spawner.config import AgentConfig, Duration, Timeouts
from vespera_agent_spawner.errors import (
    AgentBusy,
    AgentError,
    AgentFailed,
    AgentTimeout,
    ConfigError,
)
from vespera_agent_spawner.results import AgentInfo, ExitStatus, Outcome, State, TurnResult
from vespera_agent_spawner.session_hold import Hold, held, hold_reset

__all__ = [
    "agent_status",
    "backend",
    "config_schema",
    "containment",
    "execute_claude_json",
    "list_agents",
    "metrics",
    "shutdown_claude_agent",
    "spawn_claude_agent",
]

DEFAULT_TIMEOUT = 300.0
_EXIT_GRACE = 2.0

backend = backends.backend
_registry = Registry()
_blocking_warned = False


def spawn_claude_agent(
    agent_id: str,
    command: str = DEFAULT_PROGRAM,
    timeout_seconds: Duration | None = DEFAULT_TIMEOUT,
    working_directory: str | os.PathLike[str] | None = None,
    *,
    config: AgentConfig | Mapping[str, Any] | None = None,
    backend: str = "auto",
) -> str:
    """Start a session with the Claude CLI and return its session id.

    Returns when the CLI has answered ``initialize``. ``command`` is the program's name or path,
    ``timeout_seconds`` bounds each turn (None: no limit), ``config`` says everything else.

    What needs a ``Supervisor`` is refused: ``hooks``, ``tools``, ``on_permission``, ``workspace``,
    ``retry``, and of ``budget`` all but ``usd``, a ceiling that the CLI itself keeps.

    Raises ``ConfigError`` (also for an argument that contradicts ``config``), ``AgentExists``,
    ``SpawnError`` (``ProgramNotFound`` is a ``FileNotFoundError``) and ``AgentTimeout``, with the
    tail of the CLI's stderr. After a failure the id is known as ended.
    """
    _warn_if_blocking_a_loop("spawn_claude_agent")
    settled = _settle_config(agent_id, command, timeout_seconds, working_directory, config)
    adapter = adapter_named(settled.adapter)
    if adapter.runs_to_exit or adapter.relayed:
        raise ConfigError(
            f"adapter: '{settled.adapter}' has no turns, and these functions take turns; "
            "run it in a Supervisor",
            field="adapter",
            value=settled.adapter,
            remedy="run it in a Supervisor",
        )
    chosen = backends.choose(backend)
    entry = _registry.reserve(
        agent_id, settled, settled.program or DEFAULT_PROGRAM, chosen.name, chosen.tier()
    )
    log = logger_for("agent_spawner", agent_id)
    hold: Hold | None = None
    try:
        settled, hold = held(settled)
        session = chosen.spawn(settled)
    except BaseException as error:
        if hold is not None:
            hold.release()
        tail = error.stderr_tail if isinstance(error, AgentError) else ""
        _registry.failed(entry, error, tail)
        if isinstance(error, KeyboardInterrupt):
            error.add_note(f"agent '{agent_id}': the start was interrupted; it is being ended")
        log.warning("spawn failed: %s", error)
        raise
    _registry.started(entry, session)
    _keep(entry, hold, session)
    log.info("ready: session %s, backend %s", session.session_id, chosen.name)
    return session.session_id


def execute_claude_json(agent_id: str, request: str | bytes | Mapping[str, Any]) -> TurnResult:
    """One turn: ``{"prompt": str, "timeout"?: duration, …}`` to its result.

    Fields that are not known are kept as ``metadata`` in the result. A turn that fails inside of
    the CLI is a result with ``is_error``; what has no result raises: ``AgentNotFound``,
    ``AgentBusy``, ``AgentTimeout`` (the turn is interrupted; if the CLI answers, the session
    lives on) and ``AgentFailed`` with the stderr of an agent that ended.
    """
    _warn_if_blocking_a_loop("execute_claude_json")
    found = _registry.find(agent_id)
    if isinstance(found, Ended):
        raise AgentFailed(
            f"agent '{agent_id}' has ended: {found.exit.reason}"
            + (f"; stderr: {found.stderr_tail.strip()!r}" if found.stderr_tail.strip() else ""),
            context={
                "agent_id": agent_id,
                "state": found.info.state.value,
                "stderr_tail": found.stderr_tail,
            },
        )
    parsed = parse_request(
        request,
        agent_id=agent_id,
        program=found.program,
        environment=found.config.environment or {},
    )
    session = _session_of(found)
    if session is None:
        return execute_claude_json(agent_id, request)
    timeout = parsed.timeout
    if timeout is None:
        timeout = found.config.timeouts.turn if found.config.timeouts else DEFAULT_TIMEOUT
    began = time.monotonic()
    try:
        result = session.execute(parsed.prompt, timeout)
    except AgentTimeout:
        PROCESS.count_run(Outcome.TIMED_OUT, time.monotonic() - began)
        raise
    except AgentBusy:
        raise
    except AgentError:
        PROCESS.count_run(Outcome.FAILED, time.monotonic() - began)
        raise
    except KeyboardInterrupt as error:
        PROCESS.count_run(Outcome.CANCELLED, time.monotonic() - began)
        error.add_note(
            f"agent '{agent_id}': the turn was interrupted; its state is {session.state.value}"
        )
        raise
    finally:
        PROCESS.count_spent(found.bill, session.spent())
    PROCESS.count_run(result["outcome"], time.monotonic() - began)
    if session.session_id != found.session_id:
        found.session_id = session.session_id
        _keep(found, hold_reset(agent_id, session.session_id), session)
    if parsed.metadata:
        result["metadata"] = parsed.metadata
    return result


def shutdown_claude_agent(agent_id: str, grace_seconds: Duration = 5.0) -> ExitStatus:
    """End an agent's process tree and say how its leader ended; a second call says it again.

    Its stdin is ended; after half of ``grace_seconds`` it gets SIGTERM, after all of it force.
    Then whatever its tree left behind is ended. Raises ``ConfigError`` and ``AgentNotFound``.
    """
    _warn_if_blocking_a_loop("shutdown_claude_agent")
    grace = rules.duration("grace_seconds", grace_seconds)
    found = _registry.find(agent_id)
    if isinstance(found, Entry):
        session = _session_of(found)
        if session is not None:
            try:
                return session.shutdown(grace)
            except KeyboardInterrupt as error:
                error.add_note(
                    f"agent '{agent_id}': the wait for its end was interrupted; its end goes on, "
                    f"its state is {session.state.value}"
                )
                raise
        found = _registry.find(agent_id)
        if isinstance(found, Entry):
            return shutdown_claude_agent(agent_id, grace)
    return found.exit


def list_agents() -> list[AgentInfo]:
    """The agents that live or are starting. Those that ended answer ``agent_status``."""
    return [entry.info() for entry in _registry.live()]


def agent_status(agent_id: str) -> AgentInfo:
    """One agent, also one of the last 1,024 that ended. Raises ``AgentNotFound``."""
    found = _registry.find(agent_id)
    return found.info() if isinstance(found, Entry) else found.info


def metrics() -> dict[str, float]:
    """The process's counters and gauges, named as Prometheus would print them.

    Every call looks at what the agents' trees use: milliseconds for hundreds of agents.
    """
    merged: dict[str, float] = {f'vespera_agents{{state="{s.value}"}}': 0.0 for s in State}
    states = [entry.info().state for entry in _registry.live()]
    for state in [*states, *supervised_states()]:
        merged[f'vespera_agents{{state="{state.value}"}}'] += 1.0
    merged["vespera_pool_warm"] = float(waiting_processes())
    merged["vespera_retries_total"] = 0.0
    merge(merged, PROCESS.snapshot())
    for used in backends.loaded():
        merge(merged, used.metrics())
    return merged


def containment() -> str:
    """The containment tier of the backend that ``auto`` is: what is guaranteed, not hoped."""
    return backends.choose().containment()


def config_schema() -> dict[str, Any]:
    """The JSON Schema of the configuration, as data."""
    file = resources.files("vespera_agent_spawner").joinpath("config_schema.json")
    schema: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return schema


# -- settling arguments --------------------------------------------------------------------


def _settle_config(
    agent_id: str,
    command: str,
    timeout_seconds: Duration | None,
    working_directory: str | os.PathLike[str] | None,
    config: AgentConfig | Mapping[str, Any] | None,
) -> AgentConfig:
    """One configuration out of arguments and ``config``; an argument never wins silently."""
    if agent_id is None:
        raise ConfigError(
            "agent_id: it may not be None", field="agent_id", value=None, remedy="name the agent"
        )
    base = AgentConfig.from_mapping(config or {}) if not isinstance(config, AgentConfig) else config
    if base.prompt is not None:
        raise ConfigError(
            "config.prompt: spawn_claude_agent starts a session, which has no prompt of its own",
            field="config.prompt",
            value=base.prompt,
            remedy="leave it out and give the prompt to execute_claude_json",
        )
    for name in ("hooks", "tools"):
        if getattr(base, name) is not None:
            raise ConfigError(
                f"config.{name}: the module functions have no event loop to call functions on; "
                "spawn the agent with a Supervisor",
                field=f"config.{name}",
                value=name,
                remedy="spawn the agent with a Supervisor",
            )
    for name in ("workspace", "on_permission", "retry"):
        if getattr(base, name) is not None:
            raise _only_supervised(name, getattr(base, name))
    for name in ("tokens", "usd_per_hour"):
        # Dollars are a ceiling that the CLI itself keeps.
        if base.budget is not None and getattr(base.budget, name) is not None:
            raise _only_supervised(f"budget.{name}", getattr(base.budget, name))
    if base.agent_id not in (None, agent_id):
        raise _contradiction("agent_id", agent_id, base.agent_id)
    changes: dict[str, Any] = {"agent_id": agent_id}
    if base.program is None:
        changes["program"] = rules.system_text("command", command)
    elif command not in (DEFAULT_PROGRAM, base.program):
        raise _contradiction("command", command, base.program, theirs="program")
    if working_directory is not None:
        directory = os.fspath(working_directory)
        own = base.working_directory
        if own is not None and Path(own).absolute() != Path(directory).absolute():
            raise _contradiction("working_directory", directory, own)
        changes["working_directory"] = directory
    limit = rules.optional(rules.positive_duration)("timeout_seconds", timeout_seconds)
    changes["timeouts"] = _settle_timeouts(limit, base)
    return dataclasses.replace(base, **changes)


def _settle_timeouts(timeout_seconds: float | None, base: AgentConfig) -> Timeouts:
    own = base.timeouts if base.timeouts is not None else Timeouts()
    if own.turn is None:
        return dataclasses.replace(own, turn=timeout_seconds)
    if timeout_seconds not in (DEFAULT_TIMEOUT, own.turn):
        raise _contradiction("timeout_seconds", timeout_seconds, own.turn, theirs="timeouts.turn")
    return own


def _only_supervised(name: str, value: Any) -> ConfigError:
    return ConfigError(
        f"config.{name}: the module functions do not keep it; spawn the agent with a Supervisor",
        field=f"config.{name}",
        value=value,
        remedy="spawn the agent with a Supervisor",
    )


def _contradiction(field: str, value: Any, other: Any, *, theirs: str | None = None) -> ConfigError:
    return ConfigError(
        f"{field}: {value!r} contradicts config.{theirs or field} = {other!r}",
        field=field,
        value=value,
        remedy="give it in one place only",
    )


def _keep(entry: Entry, hold: Hold | None, session: Session) -> None:
    if hold is not None:
        # No loop hears of its end.
        hold.leave_to(session.pid)
        entry.holds.append(hold)


def _session_of(entry: Entry) -> Session | None:
    """The session of an agent, waiting for a start in flight; None when that start failed."""
    entry.settled.wait()
    return entry.session


def _warn_if_blocking_a_loop(function: str) -> None:
    global _blocking_warned
    if _blocking_warned:
        return
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    _blocking_warned = True
    warnings.warn(
        f"{function} blocks this thread's running event loop until it returns; use "
        "asyncio.to_thread, or the asyncio API",
        RuntimeWarning,
        stacklevel=3,
    )


# -- the process's own end and copies ------------------------------------------------------


def _end_all() -> None:
    for used in backends.loaded():
        used.close(_EXIT_GRACE)


def _start_empty_in_fork() -> None:
    global _registry
    for used in backends.loaded():
        used.forget_in_fork()
    # The parent's lock may have been held by another thread at the moment of the fork.
    _forgotten.append(_registry)
    _registry = Registry()
    backends.reset_lock_in_fork()
    PROCESS.forget_in_fork()


_forgotten: list[object] = []
atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_empty_in_fork)
