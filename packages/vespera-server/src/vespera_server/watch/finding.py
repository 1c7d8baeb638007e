"""Responsible for which listed agent a user means by an id."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from vespera_agent_spawner import register
from vespera_agent_spawner.errors import AgentNotFound, ConfigError
from vespera_agent_spawner.register import Host, Listed
from vespera_server.settings import load_settings
from vespera_server.state.directory import RunState, StateDirectory

__all__ = ["find", "living", "nearest", "run_named"]


def living() -> list[Host]:
    """Who runs agents now: of the platform's place, and of ``state.directory``.

    Raises ``AgentError``, ``OSError``, and ``RuntimeError`` where this user has no home.
    """
    own = StateDirectory(load_settings().values.state.directory).hosts
    found = [host for place in {register.directory(), own} for host in register.hosts(place)]
    return sorted(found, key=lambda host: host.started_at)


def find(agent_id: str, hosts: Sequence[Host], pid: int | None = None) -> tuple[Host, Listed]:
    """The agent of that id; ``pid`` (its own or its host's) chooses among several.

    Raises ``AgentNotFound``, and ``ConfigError`` where several are meant.
    """
    everybody = [(host, agent) for host in hosts for agent in host.agents]
    found = [(host, agent) for host, agent in everybody if agent.agent_id == agent_id]
    if pid is not None:
        found = [(host, agent) for host, agent in found if pid in (host.pid, _pid(agent))]
    if len(found) == 1:
        return found[0]
    if not found:
        where = "" if pid is None else f" with pid {pid}, its own or its host's"
        hint = nearest(agent_id, [agent.agent_id for _, agent in everybody])
        raise AgentNotFound(
            f"no agent '{agent_id[:80]}'{where} is listed{hint}; 'vespera ps' lists those of "
            "'vespera run', 'vespera serve' and of supervisors with register=True",
            context={"agent_id": agent_id},
        )
    places = ", ".join(f"pid {_pid(agent)} of host {host.pid}" for host, agent in found)
    raise ConfigError(
        f"agent '{agent_id}' is there {len(found)} times ({places}): choose one with --pid",
        field="pid",
        value=pid,
        remedy="give --pid, the agent's or its host's",
    )


def run_named(state: StateDirectory, run: str) -> RunState:
    """The run of that name; its beginning is enough where no other begins so.

    Raises ``ConfigError``.
    """
    found = state.list_runs()
    # Every name begins with nothing, as in `--discard "$RUN"` of a variable that is not set.
    fitting = [each for each in found if run and each.name.startswith(run)]
    exact = [each for each in fitting if each.name == run]
    if len(exact or fitting) == 1:
        return (exact or fitting)[0]
    problem = (
        f"no run in {state.runs} is named '{run}…'{nearest(run, [each.name for each in found])}"
    )
    if fitting:
        problem = f"{len(fitting)} runs begin with '{run}': {', '.join(e.name for e in fitting)}"
    remedy = "'vespera history' lists them"
    raise ConfigError(f"{problem}; {remedy}", field="run", value=run, remedy=remedy)


def nearest(given: str, known: Sequence[str]) -> str:
    """``; did you mean 'docs'?``, or nothing."""
    near = difflib.get_close_matches(given, known, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def _pid(agent: Listed) -> int | None:
    return None if agent.leader is None else agent.leader.pid
