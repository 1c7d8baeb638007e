"""Responsible for who runs agents on this machine: one file per registered process, for any reader.

    <the user's state directory>/vespera/hosts/<boot>-<pid namespace>-<pid>-<start time>.json

The file's name is its process's identity, so that also one that was torn by a crash of the machine
tells whose it was. A number alone proves nothing, since it is given again: a process is meant only
where its start time fits too. Files of dead processes are removed by whoever reads next, unless an
agent of theirs still lives. ``_registrar.py`` writes; nothing here starts or ends anything.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vespera_agent_spawner.backends.python.proc import look_at

__all__ = [
    "BEAT",
    "Host",
    "Listed",
    "Process",
    "directory",
    "file_name",
    "hosts",
    "tell_in",
    "to_json",
]

_FORMAT = 1
_NAME = re.compile(r"(?P<place>.+)-(?P<pid>\d+)-(?P<start>\d+)\.(?:json|new)")
#: A host writes at least so often, seconds; one that cannot be looked at is believed so long.
BEAT = 30.0
_BELIEVED = 3 * BEAT
_FORGOTTEN = 40 * BEAT


@dataclass(frozen=True, slots=True)
class Process:
    """A process and no other that gets its number. ``start_time`` in clock ticks since boot."""

    pid: int
    start_time: int

    @property
    def exists(self) -> bool:
        """Whether it is there, be it a zombie."""
        found = look_at(self.pid)
        return found is not None and found.start_time == self.start_time

    @property
    def is_alive(self) -> bool:
        """Whether it is there and no zombie."""
        found = look_at(self.pid)
        return found is not None and found.start_time == self.start_time and found.state not in "ZX"


@dataclass(frozen=True, slots=True)
class Listed:
    """An agent as its host told it. ``leader`` is its program's process, ``leash`` the one under
    which the Rust backend keeps the whole tree; None while there is none, or where nobody can tell
    processes apart. ``transcript``: where what it says is kept."""

    agent_id: str
    state: str
    backend: str
    containment: str
    started_at: float
    session_id: str = ""
    supervisor: int = 1
    leader: Process | None = None
    leash: Process | None = None
    turns: int = 0
    cost_usd: float | None = None
    model: str | None = None
    working_directory: str | None = None
    transcript: str | None = None

    @property
    def is_alive(self) -> bool:
        """Whether a process of it can still be there.

        A leader that is a zombie has a tree while its leash has not reaped it; a leash that has may
        have another agent.
        """
        if self.leader is None or not self.leader.exists:
            return False
        return self.leader.is_alive or (self.leash is not None and self.leash.is_alive)


@dataclass(frozen=True, slots=True)
class Host:
    """A process that runs agents.

    ``is_alive`` is None for one that cannot be looked at from here: of another machine or pid
    namespace that shares this directory. A dead host is listed while an agent of it lives.
    """

    pid: int
    start_time: int
    started_at: float
    told_at: float
    version: str
    working_directory: str
    agents: tuple[Listed, ...] = ()
    is_alive: bool | None = True
    path: Path = field(default=Path(), compare=False)


_FIELDS: dict[type[Any], tuple[str, ...]] = {
    kind: tuple(each.name for each in dataclasses.fields(kind)) for kind in (Host, Listed)
}


_chosen: Path | None = None


def tell_in(where: Path | None) -> None:
    """Where this process tells of itself from now on; None is the platform's place again."""
    global _chosen
    _chosen = where


def directory() -> Path:
    """Where the files are: beneath the platform's directory for a user's state, unless
    ``tell_in`` chose another.

    Raises ``RuntimeError`` where this user has no home.
    """
    if _chosen is not None:
        return _chosen
    if sys.platform == "win32":
        return _from("LOCALAPPDATA", "AppData/Local") / "vespera/vespera/hosts"
    if sys.platform == "darwin":
        return Path.home() / "Library/Application Support/vespera/hosts"
    return _from("XDG_STATE_HOME", ".local/state") / "vespera/hosts"


def _from(variable: str, usual: str) -> Path:
    told = os.environ.get(variable, "").strip()
    return Path(told) if told else Path.home() / usual


@functools.cache
def _here() -> str:
    """This boot and pid namespace: numbers of processes mean something only within them."""
    boot = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    namespace = 0
    with contextlib.suppress(OSError):
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    return f"{boot.replace('-', '')[:12] or 'unknown'}-{namespace}"


def file_name(process: Process) -> str:
    """The name of a process's file."""
    return f"{_here()}-{process.pid}-{process.start_time}.json"


def hosts(where: Path | None = None) -> list[Host]:
    """Who runs agents now, the oldest first; removes the files of those that are gone."""
    where = directory() if where is None else where
    found = (_read(path) for path in _files(where))
    return sorted((host for host in found if host is not None), key=lambda host: host.started_at)


def to_json(host: Host) -> dict[str, Any]:
    """A host as its file holds it."""
    told = {name: getattr(host, name) for name in _FIELDS[Host]}
    del told["path"], told["is_alive"]
    agents = [_told(agent) for agent in host.agents]
    return {"vespera_register": _FORMAT, **told, "agents": agents}


def _files(where: Path) -> Iterator[Path]:
    try:
        with os.scandir(where) as entries:
            names = [
                entry.name
                for entry in entries
                if _NAME.fullmatch(entry.name)
                # What somebody else put there decides nothing about whom we signal.
                and entry.stat(follow_symlinks=False).st_uid == os.geteuid()
            ]
    except FileNotFoundError:
        return
    yield from (where / name for name in names)


def _read(path: Path) -> Host | None:
    name = _NAME.fullmatch(path.name)
    assert name is not None
    process = Process(int(name["pid"]), int(name["start"]))
    try:
        age = time.time() - path.stat().st_mtime
    except OSError:
        return None
    host = _content(path)
    if name["place"] != _here():
        if age > _FORGOTTEN:
            _remove(path)
        return None if host is None or age > _BELIEVED else _with(host, is_alive=None)
    if process.is_alive:
        return host
    left = () if host is None else tuple(agent for agent in host.agents if agent.is_alive)
    if host is None or not left:
        _remove(path)
        return None
    return _with(host, is_alive=False, agents=left)


def _content(path: Path) -> Host | None:
    """None for one that is torn, half written (``.new``) or of a version to come."""
    try:
        return None if path.suffix == ".new" else _host(json.loads(path.read_bytes()), path)
    except (ValueError, TypeError, KeyError, AttributeError, OSError):
        return None


def _remove(path: Path) -> None:
    # Somebody else was faster, or may and we may not.
    with contextlib.suppress(OSError):
        path.unlink()


def _with(host: Host, **changes: Any) -> Host:
    return dataclasses.replace(host, **changes)


def _host(told: Mapping[str, Any], path: Path) -> Host:
    if told["vespera_register"] != _FORMAT:
        raise ValueError("another version's")
    known = _known(Host, told)
    known["agents"] = tuple(_listed(agent) for agent in told["agents"])
    return Host(**{**known, "path": path, "is_alive": True})


def _listed(told: Mapping[str, Any]) -> Listed:
    known = _known(Listed, told)
    for name in ("leader", "leash"):
        if known.get(name) is not None:
            known[name] = Process(**known[name])
    return Listed(**known)


def _told(agent: Listed) -> dict[str, Any]:
    """Not by ``asdict``, which copies for 40 microseconds each, every second."""
    told = {name: getattr(agent, name) for name in _FIELDS[Listed]}
    for name in ("leader", "leash"):
        if told[name] is not None:
            told[name] = {"pid": told[name].pid, "start_time": told[name].start_time}
    return told


def _known(kind: type[Any], told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: told[name] for name in _FIELDS[kind] if name in told}
