"""Responsible for opening regular files only, without ever blocking in ``open``.

Opening a FIFO waits for its other end and opening a device may act on it, so the path is looked at
first. It may be swapped between the look and the open: hence ``O_NONBLOCK`` and a second look.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from vespera_file_ops.backends.python._place import Place

__all__ = ["open_for_reading", "open_for_writing", "require_regular"]

_FLAGS = (
    os.O_CLOEXEC
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)


@contextmanager
def open_for_reading(place: Place) -> Iterator[tuple[int, os.stat_result]]:
    """Open an existing regular file; yields its descriptor and status."""
    require_regular(place.path, place.stat())
    descriptor = place.open(os.O_RDONLY | _FLAGS)
    try:
        yield descriptor, _checked(place.path, descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def open_for_writing(place: Place, *, append: bool) -> Iterator[tuple[int, os.stat_result, bool]]:
    """Open a regular file without truncating it; the flag tells whether it is new."""
    flags = os.O_WRONLY | _FLAGS | (os.O_APPEND if append else 0)
    created = False
    try:
        require_regular(place.path, place.stat())
    except FileNotFoundError:
        # O_EXCL tells "made by us" from "made by somebody else just now", but it does not follow
        # a dangling symlink: then, and in that race, open it the plain way.
        try:
            descriptor = place.open(flags | os.O_CREAT | os.O_EXCL, 0o666)
            created = True
        except FileExistsError:
            descriptor = place.open(flags | os.O_CREAT, 0o666)
    else:
        descriptor = place.open(flags)
    try:
        yield descriptor, _checked(place.path, descriptor), created
    finally:
        os.close(descriptor)


def require_regular(path: str, status: os.stat_result) -> None:
    """Raise unless ``status`` is that of a regular file."""
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if stat.S_ISFIFO(mode):
        kind, number = "a FIFO", errno.ENXIO
    elif stat.S_ISSOCK(mode):
        kind, number = "a socket", errno.ENXIO
    else:
        kind, number = "a device", errno.ENODEV
    words = f"{kind} is not a regular file; give the path of a regular file"
    raise OSError(number, words, path)


def _checked(path: str, descriptor: int) -> os.stat_result:
    status = os.fstat(descriptor)
    require_regular(path, status)
    return status
