"""Responsible for telling at once whether the process that owns a claim still lives.

A lease ends by the clock, which takes its time. The kernel knows sooner: each owner locks one byte
of ``<database>-owners`` (an open-file-description lock), and the kernel takes the lock away when
the owner's last descriptor is gone, however it died. The byte's offset is the owner's name. WAL
needs shared memory, so that all processes of one database run on one kernel: what holds for one
holds for all, also across the pid namespaces of containers.

Where the system has no such locks every owner counts as alive, and the lease decides alone.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from vespera_server.tasks.errors import TaskError

try:
    import fcntl

    _SET: int | None = fcntl.F_OFD_SETLK
    _GET: int | None = fcntl.F_OFD_GETLK
except (ImportError, AttributeError):  # not POSIX, or POSIX without these locks
    _SET = _GET = None

__all__ = ["Owners", "nobody_owns", "somebody_owns"]

_PATIENCE = 5.0  # seconds; who removes a database holds its owners' locks for moments

# struct flock: type, whence, start, length, pid; native alignment.
_LOCK = struct.Struct("hhqqi4x")


class Owners:
    """The owners of one database. ``name`` is this one's; its lock lives until ``close``."""

    def __init__(self, database: Path) -> None:
        self.name = str(secrets.randbits(62))
        self._file: int | None = None
        if _SET is None:
            return
        path = _beside(database)
        # Not inherited by exec: an agent that outlives its host must not look like the host.
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.fcntl(self._file, _SET, _byte(fcntl.F_WRLCK, self.name))
                return
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    self.close()
                    raise TaskError(
                        f"{database} is being removed: begin another run",
                        context={"path": str(database)},
                    ) from error
                time.sleep(0.01)

    def is_alive(self, name: str) -> bool:
        """Whether the owner of that name may still be at work."""
        if name == self.name or self._file is None or _GET is None:
            return True
        answer = fcntl.fcntl(self._file, _GET, _byte(fcntl.F_WRLCK, name))
        return bool(_LOCK.unpack(answer)[0] != fcntl.F_UNLCK)

    def close(self) -> None:
        """Give the lock up; harmless when repeated."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def somebody_owns(database: Path) -> bool:
    """Whether a process works on the database now."""
    path = _beside(database)
    if _GET is None or not path.exists():
        return False
    with path.open("rb") as file:
        answer = fcntl.fcntl(file, _GET, _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        return bool(_LOCK.unpack(answer)[0] != fcntl.F_UNLCK)


@contextlib.contextmanager
def nobody_owns(database: Path) -> Iterator[bool]:
    """Whether no process works on the database; while True nobody can begin to."""
    path = _beside(database)
    if _SET is None or not path.exists():
        yield True
        return
    file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.fcntl(file, _SET, _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(file)


def _beside(database: Path) -> Path:
    return database.with_name(database.name + "-owners")


def _byte(kind: int, name: str) -> bytes:
    return _LOCK.pack(kind, os.SEEK_SET, int(name), 1, 0)
