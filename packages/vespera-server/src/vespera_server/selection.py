"""Responsible for work on some tasks of a database that holds the tasks of many askers.

A ``TaskQueue`` gives out whatever comes next: right for a batch that has its file to itself. Where
every asker's tasks lie in one file, those of one who died must wait until somebody asks for them
again, so that a claim here is one of named tasks. Owners, leases and fences are the queue's own.

A database has one kind of keeper for life, written into it: what one kind keeps in a task's config
another could not run.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from vespera_agent_spawner.errors import ConfigError
from vespera_server.state.directory import StateDirectory
from vespera_server.tasks import Claim, Start, TaskQueue, TaskRecord
from vespera_server.tasks.database import transaction
from vespera_server.tasks.owners import Owners
from vespera_server.tasks.rows import record

__all__ = ["KEEPER", "Selection", "Tally", "keeper_of", "selection_at"]

#: The fact that names the kind of keeper.
KEEPER = "keeper"

_FREE = "(t.state = 'pending' OR (t.state = 'running' AND t.lease_until <= :now))"
_CHOSEN = "FROM tasks AS t JOIN temp.chosen AS c ON c.id = t.id"


@dataclass(frozen=True, slots=True)
class Tally:
    """How many tasks of a group completed, failed, and are held by a living process; the others
    nobody works on."""

    name: str
    tasks: int
    completed: int
    failed: int
    held: int


class Selection(TaskQueue):
    """The queue at ``path`` for whoever works on ``chosen`` tasks only: ``claim``, ``counts`` and
    ``cost_usd`` see these. Tasks here need no others."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        lease_seconds: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(path, lease_seconds=lease_seconds, clock=clock)
        try:
            # From now on and not from the first claim: who removes old state sees it in use.
            self._owners = Owners(self.path)
            self._connection.execute("CREATE TEMP TABLE chosen (id TEXT PRIMARY KEY) WITHOUT ROWID")
        except BaseException:
            self.close()
            raise

    def choose(self, task_ids: Iterable[str]) -> None:
        """From here on these are the tasks to be worked on."""
        with self._lock, transaction(self._connection) as db:
            db.execute("DELETE FROM temp.chosen")
            db.executemany(
                "INSERT OR IGNORE INTO temp.chosen VALUES (?)", [(name,) for name in task_ids]
            )

    def claim(self, *, launched: bool = True) -> Claim | None:
        """The next of the chosen tasks that nobody holds, or None."""
        claims = self._take("LIMIT 1", launched)
        return claims[0] if claims else None

    def take(self, task_ids: Iterable[str]) -> list[Claim]:
        """Claims, not launched, of those that have not ended and that nobody holds."""
        self.choose(task_ids)
        return self._take("", launched=False)

    def counts(self) -> dict[str, int]:
        """How many of the chosen tasks are ``pending``, ``running``, and ended by each outcome."""
        with self._lock:
            query = f"SELECT COALESCE(t.outcome, t.state), COUNT(*) {_CHOSEN} GROUP BY 1"
            return {name: int(count) for name, count in self._connection.execute(query)}

    def cost_usd(self) -> float:
        """What the chosen tasks that ended cost together, as far as it is known."""
        with self._lock:
            query = f"SELECT TOTAL(t.cost_usd) {_CHOSEN}"
            return float(self._connection.execute(query).fetchone()[0])

    def beneath(self, name: str) -> list[tuple[TaskRecord, bool]]:
        """The tasks ``name/…`` in the order in which they were added, and whether a living
        process holds each."""
        with self._lock, transaction(self._connection) as db:
            self._free_what_the_dead_hold(db)
            query = f"SELECT * FROM tasks WHERE {_beneath('id')} ORDER BY number"
            rows = db.execute(query, {"name": name}).fetchall()
            return [(record(db, row), self._is_held(row)) for row in rows]

    def starts(self, name: str) -> dict[str, str]:
        """How each task ``name/…`` began last: ``started``, ``resumed`` or ``restarted``."""
        kinds = ", ".join(f"'{start}'" for start in Start)
        with self._lock:
            rows = self._connection.execute(
                f"SELECT task, kind FROM events WHERE {_beneath('task')} "
                f"AND kind IN ({kinds}) ORDER BY number",
                {"name": name},
            )
            return {task: kind for task, kind in rows}  # noqa: C416 - rows are not pairs

    def tally(self, limit: int) -> list[Tally]:
        """How the newest ``limit`` groups of tasks ``name/…`` stand, the newest first."""
        with self._lock, transaction(self._connection) as db:
            self._free_what_the_dead_hold(db)
            rows = db.execute(
                "SELECT substr(id, 1, instr(id, '/') - 1) AS name, COUNT(*), "
                "TOTAL(outcome = 'completed'), TOTAL(outcome != 'completed'), "
                "TOTAL(state = 'running' AND lease_until > :now) FROM tasks "
                "WHERE instr(id, '/') GROUP BY name ORDER BY MAX(number) DESC LIMIT :limit",
                {"now": self._clock(), "limit": limit},
            )
            return [Tally(name, *map(int, counts)) for name, *counts in rows]

    def _is_held(self, row: sqlite3.Row) -> bool:
        return bool(row["state"] == "running" and row["lease_until"] > self._clock())

    def _take(self, limit: str, launched: bool) -> list[Claim]:
        with self._lock, transaction(self._connection) as db:
            self._free_what_the_dead_hold(db)
            now = self._clock()
            rows = db.execute(
                f"SELECT t.* {_CHOSEN} WHERE {_FREE} ORDER BY t.priority DESC, t.number {limit}",
                {"now": now},
            ).fetchall()
            claims = [self._claim_of(row, now) for row in rows]
            for claim in claims:
                self._hold(db, claim, launched)
            return claims

    def _claim_of(self, row: sqlite3.Row, now: float) -> Claim:
        new = row["session_id"] is None
        return Claim(
            task_id=row["id"],
            config=json.loads(row["config"]),
            session_id=str(uuid.uuid4()) if new else row["session_id"],
            start=Start.STARTED if new or not row["launched"] else Start.RESUMED,
            attempts=row["attempts"] + new,
            token=uuid.uuid4().hex,
            lease_until=now + self.lease_seconds,
            extra=json.loads(row["extra"]),
        )


def _beneath(column: str) -> str:
    # "0" is the character after "/": a range, which an index can walk.
    return f"{column} >= :name || '/' AND {column} < :name || '0'"


def selection_at(
    path: str | os.PathLike[str], keeper: str, *, field: str, lease_seconds: float = 30.0
) -> Selection:
    """The database of one kind of ``keeper``; it is made when it is not there.

    Its directory is, beneath the platform's place for state only. Raises ``ConfigError`` (for
    ``field``) when it cannot be written or is somebody else's, and ``NewerDatabase``.
    """
    given, path = path, Path(path).expanduser().absolute()
    try:
        if not StateDirectory().make_room(path):
            why = f"there is no directory {path.parent}"
            raise _unusable(given, field, why, "create it, or name another file")
        if path.exists() and not path.is_file():
            raise _unusable(given, field, "it is no file", "name a file")
        queue = Selection(path, lease_seconds=lease_seconds)
    except OSError as error:
        why = error.strerror or str(error)
        raise _unusable(given, field, why, "name a file that you may write") from error
    except sqlite3.Error as error:
        raise _unusable(given, field, str(error), "name another file") from error
    try:
        _settle_keeper(queue, keeper, given, field)
    except BaseException:
        queue.close()
        raise
    return queue


def keeper_of(path: Path) -> str | None:
    """Whose database it is, if it is one of ``selection_at``; nothing is written."""
    if not path.is_file():
        return None
    query = "SELECT value FROM facts WHERE name = ?"
    address = f"{path.absolute().as_uri()}?mode=ro"
    with (
        contextlib.suppress(sqlite3.Error, ValueError),
        contextlib.closing(sqlite3.connect(address, uri=True)) as db,
    ):
        row = db.execute(query, (KEEPER,)).fetchone()
        return None if row is None else str(json.loads(row[0]))
    return None


def _settle_keeper(queue: Selection, keeper: str, given: object, field: str) -> None:
    try:
        facts = queue.facts()
        there = facts.get(KEEPER)
        if there is None and not facts and not queue.tasks():
            queue.remember(**{KEEPER: keeper})
        elif there != keeper:
            whose = there or "vespera run or a TaskQueue of your own"
            raise _unusable(given, field, f"it is of {whose}", f"name another for {keeper}")
    except sqlite3.Error as error:
        raise _unusable(given, field, str(error), "name a file that you may write") from error


def _unusable(given: object, field: str, why: str, remedy: str) -> ConfigError:
    value = os.fspath(given) if isinstance(given, str | os.PathLike) else str(given)
    return ConfigError(
        f"{field}: {value}: {why}; {remedy}", field=field, value=value, remedy=remedy
    )
