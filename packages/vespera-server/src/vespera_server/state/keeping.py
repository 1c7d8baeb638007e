"""Responsible for a state directory that does not grow for ever: by age, then by size.

Runs that ended go first, the oldest before all others. One that was left unfinished is kept for
``--resume`` until it is too old; one that somebody works on is never touched.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from vespera_server.state.directory import RunState, StateDirectory

__all__ = ["DEFAULT_MAX_AGE", "DEFAULT_MAX_SIZE", "Kept", "Removed", "collect"]

DEFAULT_MAX_SIZE = 2 << 30
DEFAULT_MAX_AGE = 30 * 86400.0


@dataclass(frozen=True, slots=True)
class Removed:
    """A run that went, and why (``age`` or ``size``)."""

    run: RunState
    why: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What is left, and what is more than it should be but cannot go. Sizes in bytes."""

    removed: list[Removed]
    runs: int
    size: int
    over: int


def collect(
    state: StateDirectory,
    *,
    max_size: int = DEFAULT_MAX_SIZE,
    max_age: float = DEFAULT_MAX_AGE,
    dry_run: bool = False,
    now: float | None = None,
) -> Kept:
    """Remove what is older than ``max_age`` seconds, then the oldest ended until ``max_size``
    bytes are left. ``dry_run`` only tells."""
    now = time.time() if now is None else now
    if not dry_run:
        state.sweep()
    left = sorted(state.list_runs(), key=lambda run: run.changed_at)
    removed: list[Removed] = []

    def remove(run: RunState, why: str) -> None:
        if dry_run or state.remove(run):
            removed.append(Removed(run, why))
            left.remove(run)

    for run in list(left):
        if not run.alive and now - run.changed_at > max_age:
            remove(run, "age")
    for run in list(left):
        if sum(other.size for other in left) <= max_size:
            break
        if run.has_ended:
            remove(run, "size")
    size = sum(run.size for run in left)
    return Kept(removed, len(left), size, max(0, size - max_size))
