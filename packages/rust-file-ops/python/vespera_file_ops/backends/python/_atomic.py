"""Responsible for replacing a file so that every reader, and every crash, sees the old content
whole or the new one whole.

The new content goes to a temporary file beside the target, is forced to disk and takes the target's
name; then the directory is forced to disk too, or a power failure could undo the rename. A symlink
is written through: the file it leads to is replaced, the link stays.
"""

from __future__ import annotations

import contextlib
import errno
import os

from vespera_file_ops.backends.python._attributes import Attributes, keep, read
from vespera_file_ops.backends.python._naming import naming
from vespera_file_ops.backends.python._open import find_target, require_regular
from vespera_file_ops.backends.python._place import Place, Root
from vespera_file_ops.backends.python._temporary import create, unlock
from vespera_file_ops.backends.python._turns import changed
from vespera_file_ops.backends.python._write import write_all

__all__ = ["replace", "write_file_atomic"]


def write_file_atomic(path: str, content: str, root: Root | None = None) -> None:
    """Replace the content so that it is the old or the new, never a mixture."""
    replace(Place(path, root), content.encode("utf-8"))


def replace(place: Place, content: bytes, known: os.stat_result | None = None) -> os.stat_result:
    """Replace the content, unless the file is no longer the one that ``known`` describes."""
    path = place.path
    with naming(path):
        directory, name = find_target(place)
        try:
            old = _look(path, directory, name)
            try:
                temporary, descriptor = create(directory, name, private=old is not None)
            except FileNotFoundError:
                if old is None:
                    raise
                raise _no_new_files(path) from None
            try:
                attributes = None if old is None else read(directory, name)
                _fill(descriptor, content, old, attributes)
                if known is not None:
                    now = _look(path, directory, name)
                    if now is None or not _same(known, now):
                        raise changed(path, "it was written while it was edited")
                os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
                status = os.fstat(descriptor)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=directory)
                raise
            finally:
                unlock(descriptor)
                os.close(descriptor)
            _sync_directory(directory)
        finally:
            os.close(directory)
    return status


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    facts = [(of.st_dev, of.st_ino, of.st_size, of.st_mtime_ns) for of in (one, other)]
    return facts[0] == facts[1]


def _no_new_files(path: str) -> OSError:
    """The file is there, and its directory has no room for another beside it, as in ``/proc``."""
    words = "its directory takes no new files, which replacing it needs; write it with write_file"
    return OSError(errno.EOPNOTSUPP, words, path)


def _look(path: str, directory: int, name: str) -> os.stat_result | None:
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None
    require_regular(path, status)
    return status


def _fill(
    descriptor: int,
    content: bytes,
    old: os.stat_result | None,
    attributes: Attributes | None,
) -> None:
    """A file that replaces none keeps what its directory gives new files."""
    write_all(descriptor, content)
    if old is not None and hasattr(os, "fchmod"):
        keep(descriptor, old, attributes)
    os.fsync(descriptor)


def _sync_directory(directory: int) -> None:
    """Some file systems cannot sync a directory, and one may lack the right to read it: both have
    done what they can.
    """
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):
            raise
