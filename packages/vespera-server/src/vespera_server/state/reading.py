"""Responsible for looking at a queue without touching it: for those who only want to know.

Nothing is created, migrated or locked, so that a run of another version, or one at work, stays as
it is.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vespera_agent_spawner.errors import ConfigError

__all__ = ["ReadQueue", "TaskLine", "read_queue"]


@dataclass(frozen=True, slots=True)
class TaskLine:
    """A task in a few words. ``duration`` in seconds from its first claim to its end."""

    task_id: str
    state: str
    outcome: str | None
    attempts: int
    session_id: str | None
    cost_usd: float | None
    started_at: float | None
    ended_at: float | None
    error: str | None

    @property
    def duration(self) -> float | None:
        if self.started_at is None or self.ended_at is None:
            return None
        return max(0.0, self.ended_at - self.started_at)


@dataclass(frozen=True, slots=True)
class ReadQueue:
    """A queue's database at ``path``; every method reads anew."""

    path: Path

    def facts(self) -> dict[str, Any]:
        """What the run said of itself."""
        with self._reading() as db:
            rows = db.execute("SELECT name, value FROM facts").fetchall()
        return {name: json.loads(value) for name, value in rows}

    def task_ids(self) -> list[str]:
        """All tasks, in the order in which they were added."""
        with self._reading() as db:
            return [row[0] for row in db.execute("SELECT id FROM tasks ORDER BY number")]

    def tasks(self) -> list[TaskLine]:
        """All tasks, in that order."""
        query = (
            "SELECT id, state, outcome, attempts, session_id, cost_usd, started_at, ended_at, "
            "error FROM tasks ORDER BY number"
        )
        with self._reading() as db:
            return [TaskLine(*row) for row in db.execute(query)]

    def events(self, task_id: str) -> list[dict[str, Any]]:
        """What happened to a task, oldest first: ``at``, ``kind`` and details."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT at, kind, detail FROM events WHERE task = ? ORDER BY number", (task_id,)
            ).fetchall()
        return [{"at": at, "kind": kind, **json.loads(detail)} for at, kind, detail in rows]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        address = f"{self.path.absolute().as_uri()}?mode=ro"
        try:
            with contextlib.closing(sqlite3.connect(address, uri=True, timeout=5)) as db:
                yield db
        except sqlite3.Error as error:
            raise ConfigError(
                f"database: {self.path} cannot be read as a run's queue: {error}",
                field="database",
                value=str(self.path),
                remedy="name the database that 'vespera run' printed, or see 'vespera history'",
            ) from error


def read_queue(path: Path) -> ReadQueue:
    """The queue at ``path``; raises ``ConfigError`` when there is none."""
    queue = ReadQueue(path)
    queue.task_ids()
    return queue
