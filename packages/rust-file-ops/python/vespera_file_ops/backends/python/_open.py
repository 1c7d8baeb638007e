"""Responsible for opening regular files only, without ever blocking in ``open``.

Opening a FIFO waits for its other end and opening a device may act on it, so the path is looked at
first. It may be swapped between the look and the open: hence ``O_NONBLOCK`` and a second look.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from vespera_file_ops.backends.python._place import MAX_SYMLINKS, Place

__all__ = ["Remove", "find_target", "open_for_reading", "open_for_writing", "require_regular"]

Remove: TypeAlias = Callable[[], None]

# Somebody who makes and removes the file that often is at it for ever.
_MAX_RACES = 100

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
def open_for_writing(
    place: Place, *, append: bool
) -> Iterator[tuple[int, os.stat_result, Remove | None]]:
    """Open a regular file without truncating it; a new one comes with what takes it away again."""
    flags = os.O_WRONLY | _FLAGS | (os.O_APPEND if append else 0)
    for _ in range(_MAX_RACES):
        opened = _open_or_make(place, flags)
        if opened is not None:
            break
    else:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), place.path)
    descriptor, directory, remove = opened
    try:
        yield descriptor, _checked(place.path, descriptor), remove
    finally:
        os.close(descriptor)
        if directory is not None:
            os.close(directory)


def _open_or_make(place: Place, flags: int) -> tuple[int, int | None, Remove | None] | None:
    """The file; its directory, open, if that is needed to remove it; and what removes it if it is
    new. Nothing if somebody else makes and removes it, too.
    """
    try:
        require_regular(place.path, place.stat())
        return place.open(flags), None, None
    except FileNotFoundError:
        pass
    # O_EXCL tells "made by us" from "made by somebody else just now", but it does not follow a
    # dangling symlink: then the file is made where that leads.
    flags |= os.O_CREAT
    with contextlib.suppress(FileExistsError):
        return place.open(flags | os.O_EXCL, 0o666), None, place.remove
    if os.open not in os.supports_dir_fd:
        return place.open(flags, 0o666), None, None
    directory, name = find_target(place)

    def remove() -> None:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=directory)

    try:
        made = os.open(name, flags | os.O_EXCL, 0o666, dir_fd=directory)
    except BaseException as error:
        os.close(directory)
        if isinstance(error, FileExistsError):
            return None
        raise
    return made, directory, remove


def find_target(place: Place) -> tuple[int, str]:
    """The directory of the file, open, and its name there, whether or not there is a file. Symlinks
    at the end are followed; those in the middle are left to whoever opens the directory.
    """
    path = place.path
    for _ in range(MAX_SYMLINKS + 1):
        parent, name = os.path.split(path)
        if name in ("", os.curdir, os.pardir):
            raise _no_file_name(place, path)
        directory = place.at(parent or os.curdir).open_directory(place.path)
        try:
            following = os.readlink(name, dir_fd=directory)
        except OSError:
            # Not a link, or nothing there yet: this is the file.
            return directory, name
        os.close(directory)
        path = os.path.join(parent, following)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), place.path)


def _no_file_name(place: Place, path: str) -> OSError:
    try:
        require_regular(place.path, place.at(path).stat())
    except FileNotFoundError as error:
        # Only a directory can have such a name.
        return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR)) if path else error
    except OSError as error:
        return error
    return NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))


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
