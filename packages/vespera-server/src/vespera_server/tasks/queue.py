"""Responsible for who works on which task: a durable queue with leases in one SQLite file.

Every change is one transaction that holds the write lock from its first read, and every write of
an owner is fenced by its claim's token: two processes never hold one task. The session id is
chosen and stored *before* anything can be started with it, so that a crash at any moment leaves
the id to resume by. A claim is void when its lease ends or its owner is dead, whichever is known
first. It does not run tasks and starts no process.
"""

from __future__ import annotations

import json
import math
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vespera_agent_spawner.errors import ConfigError
from vespera_agent_spawner.results import Outcome
from vespera_server.tasks.database import open_database, transaction
from vespera_server.tasks.errors import LeaseLost, TaskNotFound
from vespera_server.tasks.owners import Owners
from vespera_server.tasks.records import Claim, Start, TaskEvent, TaskRecord, TaskSpec, TaskState
from vespera_server.tasks.rows import insert, record

__all__ = ["TaskQueue"]

_NEXT = """
SELECT * FROM tasks AS t
WHERE (t.state = 'pending' OR (t.state = 'running' AND t.lease_until <= :now))
  AND NOT EXISTS (
    SELECT 1 FROM dependencies AS d JOIN tasks AS n ON n.id = d.needs
    WHERE d.task = t.id AND (n.state != 'ended' OR n.outcome != 'completed'))
ORDER BY t.priority DESC, t.number LIMIT 1
"""


class TaskQueue:
    """Tasks in the database at ``path``, which is created when it is not there.

    A claim is void ``lease_seconds`` after its last heartbeat, or as soon as the process that
    holds it is dead. All methods may be called from any thread; each takes milliseconds, longer
    while another process writes.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        lease_seconds: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not (math.isfinite(lease_seconds) and lease_seconds > 0):
            remedy = "use a number of seconds above 0"
            raise ConfigError(
                f"lease_seconds = {lease_seconds!r}: {remedy}",
                field="lease_seconds",
                value=lease_seconds,
                remedy=remedy,
            )
        self.lease_seconds = lease_seconds
        self._clock = clock
        self._lock = threading.RLock()
        self.path = Path(path)
        self._owners: Owners | None = None
        self._connection = open_database(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database; what is still claimed is for others to resume."""
        with self._lock:
            self._connection.close()
            if self._owners is not None:
                self._owners.close()

    def add(self, specs: Iterable[TaskSpec]) -> None:
        """Add tasks, all or none. They may need each other and tasks already there."""
        self._add(list(specs), merge=False)

    def merge(self, specs: Iterable[TaskSpec]) -> list[str]:
        """Add those that are not there yet, all or none; returns the ids of the added ones.

        One that is there must be the same: config, needs, priority, restart, extra.
        """
        return self._add(list(specs), merge=True)

    def _add(self, specs: list[TaskSpec], *, merge: bool) -> list[str]:
        with self._lock, transaction(self._connection) as db:
            added = insert(db, specs, merge=merge)
            for spec in added:
                self._note(db, spec.task_id, "added")
                self._end_if_in_vain(db, spec.task_id)
        return [spec.task_id for spec in added]

    def claim(self, *, launched: bool = True) -> Claim | None:
        """The next task whose needs are met, or None when there is none to be had now.

        With ``launched=False`` the caller says by ``launch`` when the session is used; until then
        it starts anew with whoever claims the task next, instead of being resumed.
        """
        with self._lock, transaction(self._connection) as db:
            self._free_what_the_dead_hold(db)
            now = self._clock()
            row = db.execute(_NEXT, {"now": now}).fetchone()
            if row is None:
                return None
            new = row["session_id"] is None
            claim = Claim(
                task_id=row["id"],
                config=json.loads(row["config"]),
                session_id=str(uuid.uuid4()) if new else row["session_id"],
                start=Start.STARTED if new or not row["launched"] else Start.RESUMED,
                attempts=row["attempts"] + new,
                token=uuid.uuid4().hex,
                lease_until=now + self.lease_seconds,
                extra=json.loads(row["extra"]),
            )
            self._hold(db, claim, launched)
            return claim

    def launch(self, claim: Claim) -> None:
        """Say that a process is about to be started with the claim's session.

        From here on the session may exist, so that the next owner resumes it.
        """
        with self._lock, transaction(self._connection) as db:
            self._check(db, claim)
            db.execute("UPDATE tasks SET launched = 1 WHERE id = ?", (claim.task_id,))
            self._note(db, claim.task_id, "launched", session_id=claim.session_id)

    def prolong(self, claims: Iterable[Claim]) -> list[Claim]:
        """Heartbeats of many claims at once; returns those that are void."""
        lost = []
        with self._lock, transaction(self._connection) as db:
            until = self._clock() + self.lease_seconds
            for claim in claims:
                changed = db.execute(
                    "UPDATE tasks SET lease_until = ? WHERE id = ? AND token = ?",
                    (until, claim.task_id, claim.token),
                )
                if changed.rowcount == 0:
                    lost.append(claim)
        return lost

    def heartbeat(self, claim: Claim) -> Claim:
        """Prolong the lease; raises LeaseLost when somebody else has the task."""
        with self._lock, transaction(self._connection) as db:
            self._check(db, claim)
            until = self._clock() + self.lease_seconds
            db.execute("UPDATE tasks SET lease_until = ? WHERE id = ?", (until, claim.task_id))
            return _with(claim, lease_until=until)

    def restart(self, claim: Claim, *, launched: bool = True) -> Claim | None:
        """Begin again in a fresh session, because the old one cannot be resumed.

        The attempt counts. ``launched`` is that of ``claim``. A task with ``restart=False`` ends
        ``incomplete`` and None is returned.
        """
        with self._lock, transaction(self._connection) as db:
            row = self._check(db, claim)
            if not row["restart"]:
                why = f"session {claim.session_id} cannot be resumed, and restart is false"
                self._end(db, claim.task_id, "incomplete", None, why, None)
                return None
            fresh = _with(
                claim,
                session_id=str(uuid.uuid4()),
                start=Start.RESTARTED,
                attempts=claim.attempts + 1,
                lease_until=self._clock() + self.lease_seconds,
            )
            self._hold(db, fresh, launched)
            return fresh

    def retry_failed(self) -> list[str]:
        """Give out again what ended otherwise than completed; returns the ids.

        Each begins in a fresh session, as its next attempt. What the earlier ones cost stays
        counted, in the task too.
        """
        with self._lock, transaction(self._connection) as db:
            rows = db.execute(
                "SELECT id, outcome, error FROM tasks WHERE state = 'ended' "
                "AND outcome != 'completed' ORDER BY number"
            ).fetchall()
            for task_id, outcome, error in rows:
                db.execute(
                    "UPDATE tasks SET state = 'pending', session_id = NULL, outcome = NULL, "
                    "result = NULL, error = NULL, ended_at = NULL WHERE id = ?",
                    (task_id,),
                )
                self._note(db, task_id, "retried", outcome=outcome, error=error)
            return [task_id for task_id, _, _ in rows]

    def release(self, claim: Claim) -> None:
        """Give the task back unfinished; whoever claims it next resumes its session."""
        with self._lock, transaction(self._connection) as db:
            self._check(db, claim)
            db.execute(
                "UPDATE tasks SET state = 'pending', token = NULL, lease_until = NULL WHERE id = ?",
                (claim.task_id,),
            )
            self._note(db, claim.task_id, "released")

    def finish(
        self,
        claim: Claim,
        outcome: str,
        *,
        result: Any = None,
        error: str | None = None,
        cost_usd: float | None = None,
    ) -> None:
        """End the task. ``result`` is JSON data. What needs a task that did not complete ends
        ``cancelled``, and so on down the line."""
        outcome = Outcome(outcome)
        with self._lock, transaction(self._connection) as db:
            self._check(db, claim)
            self._end(db, claim.task_id, outcome, result, error, cost_usd)

    def task(self, task_id: str) -> TaskRecord:
        """One task as it is now."""
        with self._lock:
            row = self._connection.execute(
                "SELECT * FROM tasks WHERE id = ?", (task_id,)
            ).fetchone()
            if row is None:
                raise TaskNotFound(f"no task {task_id!r} in this queue; tasks() lists them")
            return record(self._connection, row)

    def tasks(self) -> list[TaskRecord]:
        """All tasks in the order in which they were added."""
        with self._lock:
            rows = self._connection.execute("SELECT * FROM tasks ORDER BY number").fetchall()
            return [record(self._connection, row) for row in rows]

    def events(self, task_id: str) -> list[TaskEvent]:
        """What happened to a task, oldest first."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT at, kind, detail FROM events WHERE task = ? ORDER BY number", (task_id,)
            )
            return [TaskEvent(at, kind, json.loads(detail)) for at, kind, detail in rows]

    def cost_usd(self) -> float:
        """What all ended tasks cost together, as far as it is known."""
        with self._lock:
            query = "SELECT TOTAL(cost_usd) FROM tasks"
            return float(self._connection.execute(query).fetchone()[0])

    def counts(self) -> dict[str, int]:
        """How many tasks are ``pending``, ``running``, and ended by each outcome."""
        with self._lock:
            query = "SELECT COALESCE(outcome, state), COUNT(*) FROM tasks GROUP BY 1"
            return {name: int(count) for name, count in self._connection.execute(query)}

    def note(self, claim: Claim, kind: str, **detail: Any) -> None:
        """Add an event to a claimed task; ``detail`` is JSON data."""
        with self._lock, transaction(self._connection) as db:
            self._check(db, claim)
            self._note(db, claim.task_id, kind, **detail)

    def facts(self) -> dict[str, Any]:
        """What ``remember`` was told about the queue as a whole."""
        with self._lock:
            rows = self._connection.execute("SELECT name, value FROM facts")
            return {name: json.loads(value) for name, value in rows}

    def remember(self, **facts: Any) -> None:
        """Keep JSON data about the queue as a whole, by name."""
        with self._lock, transaction(self._connection) as db:
            db.executemany(
                "INSERT INTO facts VALUES (?, ?) "
                "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
                [(name, json.dumps(value, allow_nan=False)) for name, value in facts.items()],
            )

    def _free_what_the_dead_hold(self, db: sqlite3.Connection) -> None:
        if self._owners is None:
            self._owners = Owners(self.path)
        rows = db.execute("SELECT DISTINCT owner FROM tasks WHERE state = 'running'").fetchall()
        for (owner,) in rows:
            if owner is not None and not self._owners.is_alive(owner):
                db.execute(
                    "UPDATE tasks SET lease_until = 0 WHERE state = 'running' AND owner = ?",
                    (owner,),
                )

    def _hold(self, db: sqlite3.Connection, claim: Claim, launched: bool) -> None:
        owner = None if self._owners is None else self._owners.name
        db.execute(
            "UPDATE tasks SET state = 'running', session_id = ?, attempts = ?, token = ?, "
            "lease_until = ?, owner = ?, launched = ?, started_at = COALESCE(started_at, ?) "
            "WHERE id = ?",
            (
                claim.session_id,
                claim.attempts,
                claim.token,
                claim.lease_until,
                owner,
                launched or claim.start is Start.RESUMED,
                self._clock(),
                claim.task_id,
            ),
        )
        self._note(
            db, claim.task_id, claim.start, session_id=claim.session_id, attempt=claim.attempts
        )

    def _check(self, db: sqlite3.Connection, claim: Claim) -> sqlite3.Row:
        row: sqlite3.Row | None = db.execute(
            "SELECT * FROM tasks WHERE id = ? AND token = ?", (claim.task_id, claim.token)
        ).fetchone()
        if row is None:
            raise LeaseLost(
                f"the claim on task {claim.task_id!r} is void: its lease of "
                f"{self.lease_seconds:g} s passed and another owner took over, or the task "
                "ended; stop working on it",
                context={"task_id": claim.task_id},
            )
        return row

    def _end(
        self,
        db: sqlite3.Connection,
        task_id: str,
        outcome: str,
        result: Any,
        error: str | None,
        cost_usd: float | None,
    ) -> None:
        """Ends the task, then whatever can no longer be done; a list, as lines may be long."""
        db.execute(
            "UPDATE tasks SET state = 'ended', token = NULL, lease_until = NULL, outcome = ?, "
            # What is there already is the cost of attempts before a retry.
            "result = ?, error = ?, cost_usd = COALESCE(cost_usd + ?, cost_usd, ?), ended_at = ? "
            "WHERE id = ?",
            (
                str(outcome),
                json.dumps(result, allow_nan=False),
                error,
                cost_usd,
                cost_usd,
                self._clock(),
                task_id,
            ),
        )
        self._note(db, task_id, "ended", outcome=str(outcome))
        if outcome == Outcome.COMPLETED:
            return
        failed = [(task_id, str(outcome))]
        while failed:
            needed, how = failed.pop()
            dependents = db.execute(
                "SELECT d.task FROM dependencies AS d JOIN tasks AS t ON t.id = d.task "
                "WHERE d.needs = ? AND t.state = 'pending' ORDER BY t.number",
                (needed,),
            ).fetchall()
            for (dependent,) in dependents:
                self._cancel(db, dependent, needed, how)
                failed.append((dependent, "cancelled"))

    def _end_if_in_vain(self, db: sqlite3.Connection, task_id: str) -> None:
        row = db.execute(
            "SELECT n.id, n.outcome FROM dependencies AS d JOIN tasks AS n ON n.id = d.needs "
            "WHERE d.task = ? AND n.state = 'ended' AND n.outcome != 'completed'",
            (task_id,),
        ).fetchone()
        state = db.execute("SELECT state FROM tasks WHERE id = ?", (task_id,)).fetchone()[0]
        if row is not None and state == TaskState.PENDING:
            why = f"it needs {row[0]!r}, which ended {row[1]}"
            self._end(db, task_id, "cancelled", None, why, None)

    def _cancel(self, db: sqlite3.Connection, task_id: str, needed: str, how: str) -> None:
        db.execute(
            "UPDATE tasks SET state = 'ended', outcome = 'cancelled', error = ?, ended_at = ? "
            "WHERE id = ?",
            (f"it needs {needed!r}, which ended {how}", self._clock(), task_id),
        )
        self._note(db, task_id, "ended", outcome="cancelled")

    def _note(self, db: sqlite3.Connection, task_id: str, kind: str, **detail: Any) -> None:
        db.execute(
            "INSERT INTO events (task, at, kind, detail) VALUES (?, ?, ?, ?)",
            (task_id, self._clock(), str(kind), json.dumps(detail)),
        )


def _with(claim: Claim, **changes: Any) -> Claim:
    fields: Mapping[str, Any] = {name: getattr(claim, name) for name in Claim.__slots__}
    return Claim(**{**fields, **changes})
