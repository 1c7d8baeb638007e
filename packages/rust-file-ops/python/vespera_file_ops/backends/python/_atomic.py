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
import stat
import sys

from vespera_file_ops.backends.python._naming import naming
from vespera_file_ops.backends.python._open import require_regular
from vespera_file_ops.backends.python._place import MAX_SYMLINKS, Place, Root
from vespera_file_ops.backends.python._temporary import create
from vespera_file_ops.backends.python._write import write_all
from vespera_file_ops.errors import ContentChanged

__all__ = ["changed", "replace", "write_file_atomic"]


def write_file_atomic(path: str, content: str, root: Root | None = None) -> None:
    """Replace the content so that it is the old or the new, never a mixture."""
    replace(Place(path, root), content.encode("utf-8"))


def replace(place: Place, content: bytes, read: os.stat_result | None = None) -> os.stat_result:
    """Replace the content, unless the file is no longer the one that ``read`` describes."""
    path = place.path
    with naming(path):
        directory, name = _find(place)
        try:
            old = _look(path, directory, name)
            try:
                temporary, descriptor = create(directory, name, private=old is not None)
            except FileNotFoundError:
                if old is None:
                    raise
                raise _no_new_files(path) from None
            try:
                attributes = [] if old is None else _attributes(directory, name)
                _fill(descriptor, content, old, attributes)
                if read is not None:
                    now = _look(path, directory, name)
                    if now is None or not _same(read, now):
                        raise changed(path, "it was written while it was edited")
                os.replace(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
                status = os.fstat(descriptor)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=directory)
                raise
            finally:
                os.close(descriptor)
            _sync_directory(directory)
        finally:
            os.close(directory)
    return status


def changed(path: str, reason: str) -> ContentChanged:
    """Somebody else has written the file; ``reason`` says how that was seen."""
    msg = f"{path}: {reason}; nothing was written, read it again and repeat the edit"
    return ContentChanged(msg, context={"path": path, "reason": reason})


def _same(one: os.stat_result, other: os.stat_result) -> bool:
    facts = [(of.st_dev, of.st_ino, of.st_size, of.st_mtime_ns) for of in (one, other)]
    return facts[0] == facts[1]


def _find(place: Place) -> tuple[int, str]:
    """The directory of the file to replace, open, and its name there. Symlinks at the end are
    followed; those in the middle are left to whoever opens the directory.
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
            # Not a link, or nothing there yet: this is the file to replace.
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


def _attributes(directory: int, name: str) -> list[tuple[str, bytes]]:
    """The extended attributes, ACLs among them. One that may not be read cannot be kept."""
    found: list[tuple[str, bytes]] = []
    if sys.platform != "linux":
        return found
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(name, flags, dir_fd=directory)
    except OSError:
        return found
    try:
        with contextlib.suppress(OSError):
            for attribute in os.listxattr(descriptor):
                with contextlib.suppress(OSError):
                    found.append((attribute, os.getxattr(descriptor, attribute)))
    finally:
        os.close(descriptor)
    return found


def _fill(
    descriptor: int,
    content: bytes,
    old: os.stat_result | None,
    attributes: list[tuple[str, bytes]],
) -> None:
    write_all(descriptor, content)
    if sys.platform == "linux":
        for name, value in attributes:
            # Some belong to the system alone (labels, capabilities): kept where we may.
            with contextlib.suppress(OSError):
                os.setxattr(descriptor, name, value)
    # After the content: a write would clear set-id bits, and until now the file was private.
    # After an ACL too, whose mask is the mode's group bits.
    if old is not None and hasattr(os, "fchmod"):
        _keep_owner_and_mode(descriptor, old)
    os.fsync(descriptor)


def _keep_owner_and_mode(descriptor: int, old: os.stat_result) -> None:
    mode = stat.S_IMODE(old.st_mode)
    new = os.fstat(descriptor)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        try:
            os.fchown(descriptor, old.st_uid, old.st_gid)
        except OSError:
            # Only root may give a file away. Set-id bits would then serve the wrong owner.
            mode &= 0o777
    os.fchmod(descriptor, mode)


def _sync_directory(directory: int) -> None:
    """Some file systems cannot sync a directory, and one may lack the right to read it: both have
    done what they can.
    """
    try:
        os.fsync(directory)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF):
            raise
