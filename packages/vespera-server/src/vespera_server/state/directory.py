"""Responsible for where things are kept: the state directory and one directory per run in it.

    <state>/runs/20261125T194413-tasks-1f9c0a/tasks.db        the queue, with all results
                                              transcripts/    what was said, one file per task
                                              scripted/       HOME of agents with a scripted model

    <state>/hosts/                                            who runs agents now

The last one is the engine's (``vespera_agent_spawner.register``): in the platform's place for
a user's state programs without this package tell who they are, too.

Everything here belongs to its owner alone: directories 0700, files 0600. Nobody else in this
package makes a path of its own beneath the state directory.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import sqlite3
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from vespera_agent_spawner.errors import ConfigError
from vespera_server.tasks.owners import nobody_owns, somebody_owns

__all__ = ["DATABASE", "RunState", "StateDirectory", "private_directory"]

DATABASE = "tasks.db"
_REMOVING = ".removing-"
_TOUCHED = ("-wal", "-shm", "-owners")  # looking at a database writes these


@dataclass(frozen=True, slots=True)
class RunState:
    """One run as it lies on disk. ``changed_at`` is Unix seconds, ``size`` bytes.

    ``unfinished`` and ``failed`` count tasks: those left to be done, those that ended otherwise
    than completed.
    """

    name: str
    path: Path
    alive: bool
    unfinished: int
    changed_at: float
    size: int
    failed: int = 0

    @property
    def database(self) -> Path:
        """The run's queue."""
        return self.path / DATABASE

    @property
    def has_ended(self) -> bool:
        """Nobody works on it and nothing is left to be done."""
        return not self.alive and not self.unfinished


class StateDirectory:
    """The state directory; ``root`` None is the platform's place for a user's state."""

    def __init__(self, root: str | os.PathLike[str] | None = None) -> None:
        self.root = Path(root) if root else platformdirs.user_state_path("vespera")

    @property
    def runs(self) -> Path:
        """The parent of all runs."""
        return self.root / "runs"

    @property
    def hosts(self) -> Path:
        """Where processes of this package tell which agents they run."""
        return self.root / "hosts"

    def new_run(self, label: str) -> Path:
        """A fresh directory for a run; its name begins with the time, so that names sort."""
        short = re.sub(r"[^A-Za-z0-9_-]+", "-", label).strip("-")[:40] or "run"
        when = time.strftime("%Y%m%dT%H%M%S", time.gmtime())
        private_directory(self.root)
        private_directory(self.runs)
        return private_directory(self.runs / f"{when}-{short}-{secrets.token_hex(3)}")

    def make_room(self, file: Path) -> bool:
        """Whether the directory of ``file`` is there. It is made beneath this place only: elsewhere
        a directory that is not there is a typo."""
        # Without "..": what only begins as this place lies elsewhere.
        parent = Path(os.path.normpath(file.absolute())).parent
        if not file.parent.is_dir() and parent.is_relative_to(self.root.absolute()):
            private_directory(self.root)
            private_directory(parent)
        return file.parent.is_dir()

    def list_runs(self) -> list[RunState]:
        """All runs, oldest first."""
        try:
            names = sorted(entry.name for entry in self.runs.iterdir())
        except FileNotFoundError:
            return []
        found = (self._look_at(name) for name in names if not name.startswith("."))
        return [run for run in found if run is not None]

    def _look_at(self, name: str) -> RunState | None:
        path = self.runs / name
        database = path / DATABASE
        with contextlib.suppress(FileNotFoundError):  # removed while we look
            files = list(_files(path))
            unfinished, failed = _tasks_of(database)
            return RunState(
                name=name,
                path=path,
                alive=somebody_owns(database),
                unfinished=unfinished,
                failed=failed,
                changed_at=max((entry.st_mtime for entry in files), default=path.stat().st_mtime),
                size=sum(entry.st_blocks * 512 for entry in files),
            )
        return None

    def remove(self, run: RunState) -> bool:
        """Remove a run that nobody works on; False when somebody does."""
        with nobody_owns(run.database) as free:
            if not free:
                return False
            # Renamed first: what is half removed is never taken for a run.
            doomed = run.path.with_name(f"{_REMOVING}{run.name}")
            run.path.rename(doomed)
        _remove_tree(doomed)
        return True

    def sweep(self) -> None:
        """Finish removals that were cut off."""
        for left in self.runs.glob(f"{_REMOVING}*"):
            _remove_tree(left)


def private_directory(path: Path) -> Path:
    """Make ``path`` and its parents, for its owner alone; one that is there is closed to others.

    Raises ``ConfigError`` when it belongs to somebody else: what is kept here are prompts and
    answers.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise ConfigError(
            f"state.directory: {path} belongs to user {status.st_uid}, not to you",
            field="state.directory",
            value=str(path),
            remedy="name another directory",
        )
    if stat.S_IMODE(status.st_mode) & 0o077:
        path.chmod(0o700)
    return path


def _files(path: Path) -> Iterator[os.stat_result]:
    for parent, _, names in os.walk(path):
        for name in names:
            if name.endswith(_TOUCHED):
                continue
            with contextlib.suppress(FileNotFoundError):
                yield os.lstat(os.path.join(parent, name))  # noqa: PTH118 - many files


def _tasks_of(database: Path) -> tuple[int, int]:
    """How many did not end, and how many of the others did not complete."""
    if not database.exists():
        return 0, 0
    query = (
        "SELECT TOTAL(state != 'ended'), TOTAL(state = 'ended' AND outcome != 'completed') "
        "FROM tasks"
    )
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            unfinished, failed = db.execute(query).fetchone()
            return int(unfinished), int(failed)
    except sqlite3.Error:
        return 0, 0  # never written, or not ours: age and size decide


def _remove_tree(path: Path) -> None:
    import shutil

    shutil.rmtree(path, ignore_errors=True)
