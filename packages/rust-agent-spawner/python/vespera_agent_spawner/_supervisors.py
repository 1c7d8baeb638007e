"""Responsible for what all supervisors of this process have together, for its metrics."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from vespera_agent_spawner._snapshot import snapshot
from vespera_agent_spawner.results import State

if TYPE_CHECKING:
    from vespera_agent_spawner.supervisor import Supervisor

__all__ = ["SUPERVISORS", "supervised_states", "waiting_processes"]

SUPERVISORS: weakref.WeakSet[Supervisor] = weakref.WeakSet()


def waiting_processes() -> int:
    """The spare processes of all supervisors of this process."""
    return sum(len(one._pool) for one in snapshot(lambda: SUPERVISORS) if one._pool is not None)


def supervised_states() -> list[State]:
    """The states of all agents of all supervisors of this process."""
    states: list[State] = []
    for supervisor in snapshot(lambda: SUPERVISORS):
        begun = (agent.state for agent in supervisor.agents())
        states += [state for state in begun if state is not State.QUEUED]
        states += [State.QUEUED] * supervisor.waiting
    return states
