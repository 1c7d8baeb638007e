"""Responsible for the temporary file of an atomic replace: its name, and what a crashed writer
left there.

The name follows from the target's name, so the next writer of the same target comes across what a
dead one left. Who writes holds a lock (``flock``) on the file, which dies with the process: without
a lock it is a leftover. A writer that is alive makes the next one take the next number. The Rust
backend does the same with the same names, so each cleans up after the other.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from typing import Any

if sys.platform != "win32":
    from fcntl import LOCK_EX, LOCK_NB, LOCK_UN, flock
else:  # nothing can be told from a leftover
    LOCK_EX = LOCK_NB = LOCK_UN = 0

    def flock(fd: Any, operation: int, /) -> None:
        """Refuse, as a file system without locks does."""
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


__all__ = ["create", "try_lock", "unlock"]

_MAX_WRITERS = 4096
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_BINARY", 0)
_LOOK = os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def create(directory: int, name: str, *, private: bool) -> tuple[str, int]:
    """A new, locked file beside ``name``. One that replaces another starts private, since the
    other's mode, which may be tighter than the umask, is set once the content is there.
    """
    mode = 0o600 if private else 0o666
    for number in range(_MAX_WRITERS):
        temporary = _temporary_name(name, number)
        for _ in range(3):
            try:
                descriptor = os.open(temporary, _CREATE, mode, dir_fd=directory)
            except FileExistsError:
                if _remove_leftover(directory, temporary):
                    continue
                break
            if try_lock(descriptor) and _still_there(directory, temporary, descriptor):
                _clean_after(directory, name, number)
                return temporary, descriptor
            # Somebody took it for a leftover before it was locked: theirs to remove.
            unlock(descriptor)
            os.close(descriptor)
            break
    raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)


def _temporary_name(name: str, number: int) -> str:
    """FNV-1a of the name: short, so that a target whose name has the full 255 bytes works too."""
    value = 0xCBF29CE484222325
    for byte in os.fsencode(name):
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return f".vespera-{value:016x}-{number}.tmp"


def try_lock(descriptor: int) -> bool:
    """Lock without waiting; where locks do not exist, everybody has one."""
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def unlock(descriptor: int) -> None:
    """Give the lock up. Closing the file would not: a child that was forked meanwhile has it open
    too, and with it the lock, for as long as it lives.
    """
    with contextlib.suppress(OSError):
        flock(descriptor, LOCK_UN)


def _still_there(directory: int, name: str, descriptor: int) -> bool:
    try:
        there = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))


def _remove_leftover(directory: int, name: str) -> bool:
    """True when the way is free: what stood there belonged to nobody alive and is gone."""
    try:
        descriptor = os.open(name, _LOOK, dir_fd=directory)
    except OSError as error:
        return error.errno == errno.ENOENT
    try:
        # Only its maker renames it, and only under the lock: while we hold it the name stays.
        flock(descriptor, LOCK_EX | LOCK_NB)
        if not _still_there(directory, name, descriptor):
            return False
        os.unlink(name, dir_fd=directory)
    except OSError:
        return False
    finally:
        unlock(descriptor)
        os.close(descriptor)
    return True


def _clean_after(directory: int, name: str, number: int) -> None:
    """Several writers may have died at once, each with a number of its own."""
    for following in range(number + 1, _MAX_WRITERS):
        temporary = _temporary_name(name, following)
        try:
            os.stat(temporary, dir_fd=directory, follow_symlinks=False)
        except OSError:
            return
        _remove_leftover(directory, temporary)
