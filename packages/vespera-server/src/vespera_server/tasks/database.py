"""Responsible for the queue's SQLite file: who may read it, its schema, and its way forward.

A schema version is never edited once released: a change is a further entry of ``MIGRATIONS``.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import vespera_server
from vespera_server.tasks.errors import NewerDatabase

__all__ = ["MIGRATIONS", "open_database", "transaction"]

_BUSY_SECONDS = 30.0

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE written_by (version TEXT NOT NULL)",
        """CREATE TABLE tasks (
            number INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            config TEXT NOT NULL,
            priority INTEGER NOT NULL,
            restart INTEGER NOT NULL,
            state TEXT NOT NULL DEFAULT 'pending',
            attempts INTEGER NOT NULL DEFAULT 0,
            session_id TEXT,
            token TEXT,
            lease_until REAL,
            outcome TEXT,
            result TEXT,
            error TEXT,
            cost_usd REAL
        ) STRICT""",
        "CREATE INDEX tasks_by_turn ON tasks (state, priority DESC, number)",
        """CREATE TABLE dependencies (
            task TEXT NOT NULL REFERENCES tasks (id),
            needs TEXT NOT NULL REFERENCES tasks (id),
            PRIMARY KEY (task, needs)
        ) STRICT, WITHOUT ROWID""",
        "CREATE INDEX dependents ON dependencies (needs)",
        """CREATE TABLE events (
            number INTEGER PRIMARY KEY,
            task TEXT NOT NULL REFERENCES tasks (id),
            at REAL NOT NULL,
            kind TEXT NOT NULL,
            detail TEXT NOT NULL
        ) STRICT""",
        "CREATE INDEX events_of_task ON events (task, number)",
    ),
    (
        # A session of the first schema may have been used: it counts as launched.
        "ALTER TABLE tasks ADD COLUMN launched INTEGER NOT NULL DEFAULT 1",
        "ALTER TABLE tasks ADD COLUMN owner TEXT",
        "ALTER TABLE tasks ADD COLUMN extra TEXT NOT NULL DEFAULT '{}'",
        "ALTER TABLE tasks ADD COLUMN started_at REAL",
        "ALTER TABLE tasks ADD COLUMN ended_at REAL",
        "CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID",
    ),
)


def open_database(
    path: Path, migrations: Sequence[Sequence[str]] = MIGRATIONS
) -> sqlite3.Connection:
    """Open or create the database at ``path`` (0600) and bring it to the newest schema.

    Before an older schema changes, a copy is left beside it as ``<name>.schema-<version>``. Raises
    ``sqlite3.Error`` for a file that is no database or another program's, ``NewerDatabase``, and
    ``OSError``.
    """
    # Prompts and answers are the owner's business; SQLite gives -wal and -shm the same mode.
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    connection = sqlite3.connect(
        path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        connection.row_factory = sqlite3.Row
        _enter(connection)
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        _migrate(connection, path, migrations)
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing, and alone: the lock to write is taken first, so nothing read is stale."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _enter(connection: sqlite3.Connection) -> None:
    """Into the mode in which one writes while others read.

    SQLite does not wait (its busy time-out) for who changes to that mode at the same moment.
    """
    deadline = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            _refuse_foreign(connection)
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _refuse_foreign(connection: sqlite3.Connection) -> None:
    """Another program's database must not get our tables."""
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    if tables and "written_by" not in tables:
        raise sqlite3.DatabaseError("it is another program's database")


def _migrate(
    connection: sqlite3.Connection, path: Path, migrations: Sequence[Sequence[str]]
) -> None:
    if _version(connection) == len(migrations):
        return
    with transaction(connection):
        # Read again: another process may have been at it while this one waited for the lock.
        version = _version(connection)
        if version > len(migrations):
            raise _newer(connection, path, version, len(migrations))
        if version == len(migrations):
            return
        if version > 0:
            _back_up(path, version)
        for statements in migrations[version:]:
            for statement in statements:
                connection.execute(statement)
        connection.execute("DELETE FROM written_by")
        connection.execute("INSERT INTO written_by VALUES (?)", (vespera_server.__version__,))
        connection.execute(f"PRAGMA user_version = {len(migrations)}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _back_up(path: Path, version: int) -> None:
    """Copies what is committed; a connection of its own sees nothing of the open transaction."""
    target = path.with_name(f"{path.name}.schema-{version}")
    os.close(os.open(target, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    with (
        contextlib.closing(sqlite3.connect(path)) as source,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        source.backup(copy)


def _newer(connection: sqlite3.Connection, path: Path, theirs: int, ours: int) -> NewerDatabase:
    row = connection.execute("SELECT version FROM written_by").fetchone()
    needed = row[0] if row else "the newest version"
    return NewerDatabase(
        f"{path} has schema {theirs}, written by vespera-server {needed}; this is "
        f"{vespera_server.__version__}, which knows schemas up to {ours}: "
        f"install vespera-server {needed} or later, or name another database",
        context={"path": str(path), "schema": theirs, "known": ours, "needed": needed},
    )
