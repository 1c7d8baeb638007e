"""Responsible for tasks as rows: writing a specification into the tables, reading a record back."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from vespera_agent_spawner.errors import ConfigError
from vespera_server.tasks.errors import DependencyCycle, TaskExists, UnknownDependency
from vespera_server.tasks.graph import find_cycle
from vespera_server.tasks.records import TaskRecord, TaskSpec, TaskState

__all__ = ["insert", "record"]


def insert(db: sqlite3.Connection, specs: Sequence[TaskSpec], *, merge: bool) -> list[TaskSpec]:
    """Write tasks and what they need; returns those that were written.

    With ``merge`` one that is there already is left out when it is the same.
    """
    known = {row[0] for row in db.execute("SELECT id FROM tasks")}
    added = []
    for spec in specs:
        if spec.task_id in known and merge:
            _check_same(db, spec)
            continue
        _insert(db, spec)
        added.append(spec)
    known.update(spec.task_id for spec in added)
    for spec in added:
        for needed in spec.needs:
            if needed not in known:
                raise UnknownDependency(
                    f"task {spec.task_id!r} needs {needed!r}, which is no task: "
                    "add it too, or correct needs",
                    context={"task_id": spec.task_id, "needs": needed},
                )
    # Old tasks cannot need new ones, so that a circle is among the new ones.
    if cycle := find_cycle({spec.task_id: spec.needs for spec in added}):
        raise DependencyCycle(
            f"tasks need each other in a circle: {' -> '.join(cycle)}; "
            "take one of these out of needs",
            context={"path": cycle},
        )
    for spec in added:
        db.executemany(
            "INSERT OR IGNORE INTO dependencies VALUES (?, ?)",
            [(spec.task_id, needed) for needed in spec.needs],
        )
    return added


def record(db: sqlite3.Connection, row: sqlite3.Row) -> TaskRecord:
    """A row of ``tasks`` as a value."""
    return TaskRecord(
        task_id=row["id"],
        config=json.loads(row["config"]),
        needs=_needs(db, row["id"]),
        priority=row["priority"],
        restart=bool(row["restart"]),
        state=TaskState(row["state"]),
        attempts=row["attempts"],
        session_id=row["session_id"],
        outcome=row["outcome"],
        result=None if row["result"] is None else json.loads(row["result"]),
        error=row["error"],
        cost_usd=row["cost_usd"],
        extra=json.loads(row["extra"]),
        started_at=row["started_at"],
        ended_at=row["ended_at"],
    )


def _needs(db: sqlite3.Connection, task_id: str) -> tuple[str, ...]:
    rows = db.execute("SELECT needs FROM dependencies WHERE task = ? ORDER BY needs", (task_id,))
    return tuple(needed for (needed,) in rows)


def _insert(db: sqlite3.Connection, spec: TaskSpec) -> None:
    try:
        db.execute(
            "INSERT INTO tasks (id, config, priority, restart, extra) VALUES (?, ?, ?, ?, ?)",
            (
                spec.task_id,
                _json(spec, "config"),
                spec.priority,
                int(spec.restart),
                _json(spec, "extra"),
            ),
        )
    except sqlite3.IntegrityError as error:
        raise TaskExists(
            f"task {spec.task_id!r} is in the queue already: choose another id",
            context={"task_id": spec.task_id},
        ) from error


def _check_same(db: sqlite3.Connection, spec: TaskSpec) -> None:
    row = db.execute("SELECT * FROM tasks WHERE id = ?", (spec.task_id,)).fetchone()
    there = record(db, row)
    wanted = {
        "config": json.loads(_json(spec, "config")),
        "extra": json.loads(_json(spec, "extra")),
        "needs": tuple(sorted(set(spec.needs))),
        "priority": spec.priority,
        "restart": spec.restart,
    }
    for name, value in wanted.items():
        if getattr(there, name) != value:
            raise TaskExists(
                f"task {spec.task_id!r} is in the queue already with another {name}: "
                "choose another id or another queue",
                context={"task_id": spec.task_id, "field": name},
            )


def _json(spec: TaskSpec, field: str) -> str:
    try:
        return json.dumps(dict(getattr(spec, field)), allow_nan=False)
    except (TypeError, ValueError) as error:
        remedy = "use JSON data: text, finite numbers, booleans, null, lists, objects"
        raise ConfigError(
            f"{field} of task {spec.task_id!r}: {error}; {remedy}",
            field=field,
            value=None,
            remedy=remedy,
        ) from error
