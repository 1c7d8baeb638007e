"""Responsible for the states that may follow a state; nothing moves otherwise.

The Rust twin is ``State::may_become``; there a run goes from starting into its turn in one step.
"""

from __future__ import annotations

from collections.abc import Mapping

from vespera_agent_spawner.results import State

__all__ = ["MOVES"]

MOVES: Mapping[State, frozenset[State]] = {
    State.STARTING: frozenset({State.READY, State.DRAINING, State.SPAWN_FAILED, State.ENDED}),
    State.READY: frozenset({State.IN_TURN, State.DRAINING, State.ENDED}),
    State.IN_TURN: frozenset(
        {State.READY, State.WAITING_FOR_PERMISSION, State.DRAINING, State.ENDED}
    ),
    State.WAITING_FOR_PERMISSION: frozenset(
        {State.IN_TURN, State.READY, State.DRAINING, State.ENDED}
    ),
    State.DRAINING: frozenset({State.ENDED, State.SPAWN_FAILED}),
    State.ENDED: frozenset(),
    State.SPAWN_FAILED: frozenset(),
}
