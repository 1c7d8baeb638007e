"""Responsible for writing in place: the same inode, owner, mode and hard links before and after.

In place there is no way back once the old content is cut off, so room for the new content is
reserved first: a full disk or a size limit is found while the old content is still whole.
Who writes takes turns with those who edit, as the file that an edit replaces has lost what was
written to it meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os

from vespera_file_ops.backends.python._place import Place, Root
from vespera_file_ops.backends.python._turns import alone_for_writing

__all__ = ["append_file", "write_all", "write_file", "write_file_string"]

_CANNOT_RESERVE = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EBADF, errno.ESPIPE)


def write_file(path: str, content: bytes, root: Root | None = None) -> None:
    """Write bytes in place."""
    _write(Place(path, root), content)


def write_file_string(path: str, content: str, root: Root | None = None) -> None:
    """Write text (UTF-8) in place."""
    _write(Place(path, root), content.encode("utf-8"))


def append_file(path: str, content: str, root: Root | None = None) -> None:
    """Add text (UTF-8) at the end."""
    place = Place(path, root)
    text = content.encode("utf-8")
    with alone_for_writing(place, append=True) as (descriptor, _, remove):
        try:
            _append(descriptor, text)
        except BaseException:
            if remove is not None and os.fstat(descriptor).st_size == 0:
                remove()
            raise


def write_all(descriptor: int, content: bytes) -> None:
    """Write everything: one ``write`` may take less (2 GiB at most, or what fits)."""
    written = os.write(descriptor, content)
    if written < len(content):
        with memoryview(content) as view:
            while written < len(content):
                written += os.write(descriptor, view[written:])


def _write(place: Place, content: bytes) -> None:
    with alone_for_writing(place, append=False) as (descriptor, status, remove):
        if remove is not None:
            try:
                write_all(descriptor, content)
            except BaseException:
                # Half a new file is worse than none.
                remove()
                raise
            return
        try:
            _reserve(descriptor, len(content))
        except BaseException:
            # Reserving may have grown the file before it failed.
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, status.st_size)
            raise
        write_all(descriptor, content)
        os.ftruncate(descriptor, len(content))


def _append(descriptor: int, content: bytes) -> None:
    """Write at the end; take back what was written if the rest does not fit."""
    written = 0
    with memoryview(content) as view:
        try:
            while written < len(content):
                written += os.write(descriptor, view[written:])
        except BaseException:
            if written:
                with contextlib.suppress(OSError):
                    # After an O_APPEND write the position is the end of what we wrote. Somebody
                    # else's bytes after it stay, and so, then, do ours before them.
                    end = os.lseek(descriptor, 0, os.SEEK_CUR)
                    if os.fstat(descriptor).st_size == end:
                        os.ftruncate(descriptor, end - written)
            raise


def _reserve(descriptor: int, size: int) -> None:
    """Ask the file system for blocks. One that cannot reserve is not an error.

    For such a one the C library reads and writes a byte of each block instead: it cannot read what
    is open for writing (``EBADF``), nor write at a place in a file of ``/proc`` (``ESPIPE``).
    """
    if size == 0 or not hasattr(os, "posix_fallocate"):
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in _CANNOT_RESERVE:
            raise
