"""Responsible for which queue a run works on: a new one, a named one, or one to go on with."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vespera_server
from vespera_agent_spawner.errors import ConfigError
from vespera_server.documents import Document
from vespera_server.run.plan import Plan
from vespera_server.state.directory import RunState, StateDirectory, private_directory
from vespera_server.tasks import TaskQueue

__all__ = ["Opened", "begin", "digest", "left_unfinished", "resume"]


@dataclass(frozen=True)
class Opened:
    """A queue that is ready to be worked on, and the places beside it."""

    queue: TaskQueue
    facts: Mapping[str, Any]
    transcripts: Path
    scripted_home: Path
    resumed: bool

    @property
    def scripted(self) -> bool:
        """Whether the scripted model decides; a run keeps to what it began with."""
        return bool(self.facts.get("scripted"))

    @property
    def name(self) -> str:
        """How the run is called."""
        return str(self.facts.get("name") or self.queue.path.stem)


@contextlib.contextmanager
def begin(
    plan: Plan,
    document: Document,
    state: StateDirectory,
    *,
    database: Path | None,
    scripted: bool,
    lease: float,
) -> Iterator[Opened]:
    """A queue with the plan's tasks: in a new directory of the state, or in ``database``.

    A named database may hold the tasks already (another process works on them, or it ended):
    then they must be the same, and the run joins in.
    """
    if database is None:
        path = state.new_run(plan.name) / "tasks.db"
    else:
        path = database
        _check_parent(path.absolute(), state)
    facts = {
        "name": plan.name,
        "file": str(Path(document.name).absolute()),
        "sha256": digest(document.text),
        "agents": plan.agents,
        "budget_usd": plan.budget_usd,
        "scripted": scripted,
        "created_at": time.time(),
        "version": vespera_server.__version__,
    }
    with _queue_at(path, lease) as queue:
        there = queue.facts()
        if there and bool(there.get("scripted")) != scripted:
            raise _other_model(path, there)
        queue.merge(plan.specs)
        queue.remember(**{**facts, **there})
        yield _opened(queue, queue.facts(), resumed=False)


@contextlib.contextmanager
def resume(path: Path, *, scripted: bool, lease: float) -> Iterator[Opened]:
    """The queue of an earlier run."""
    if not path.exists():
        raise ConfigError(
            f"there is no database {path}",
            field="database",
            value=str(path),
            remedy="correct --database, or leave --resume out to begin",
        )
    with _queue_at(path, lease) as queue:
        facts = queue.facts()
        if scripted and not facts.get("scripted"):
            raise _other_model(path, facts)
        yield _opened(queue, facts, resumed=True)


def left_unfinished(
    state: StateDirectory, file: Path | None, *, or_failed: bool = False
) -> list[RunState]:
    """Runs (of a file) with tasks left that nobody works on, oldest first.

    ``or_failed``: also those with tasks that did not complete.
    """
    found = []
    for run in state.list_runs():
        if run.alive or not (run.unfinished or (or_failed and run.failed)):
            continue
        if file is not None and facts_of(run.database).get("file") != str(file.absolute()):
            continue
        found.append(run)
    return found


def digest(text: str) -> str:
    """Tells whether a file is still the one that a run began with."""
    return hashlib.sha256(text.encode()).hexdigest()


def facts_of(path: Path) -> dict[str, Any]:
    """What a database says about its run; nothing when it is not ours."""
    try:
        with TaskQueue(path) as queue:
            return queue.facts()
    except Exception:
        return {}


def _check_parent(path: Path, state: StateDirectory) -> None:
    if state.make_room(path):
        return
    remedy = "create it, or correct --database"
    raise ConfigError(
        f"database: {path}: there is no directory {path.parent}; {remedy}",
        field="database",
        value=str(path),
        remedy=remedy,
    )


def _queue_at(path: Path, lease: float) -> TaskQueue:
    try:
        return TaskQueue(path, lease_seconds=lease)
    except sqlite3.Error as error:
        remedy = "name another file, or one that is not there yet"
        raise ConfigError(
            f"database: {path} cannot be used as a run's queue: {error}; {remedy}",
            field="database",
            value=str(path),
            remedy=remedy,
        ) from error


def _opened(queue: TaskQueue, facts: Mapping[str, Any], *, resumed: bool) -> Opened:
    path = queue.path
    beside = path.parent if path.name == "tasks.db" else path.with_name(path.name + ".files")
    transcripts = private_directory(beside / "transcripts") if beside != path.parent else None
    if transcripts is None:
        transcripts = beside / "transcripts"
        transcripts.mkdir(mode=0o700, exist_ok=True)
    return Opened(queue, facts, transcripts, beside / "scripted", resumed)


def _other_model(path: Path, facts: Mapping[str, Any]) -> ConfigError:
    began = "with the scripted model" if facts.get("scripted") else "with your own account"
    return ConfigError(
        f"the run in {path} began {began} and stays so; begin another one for the other",
        field="scripted",
        value=facts.get("scripted"),
        remedy="leave --resume (or --database) out",
    )
