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
import secrets
import stat

from vespera_file_ops._arguments import FilePath, as_path, as_text
from vespera_file_ops.backends.python._naming import naming
from vespera_file_ops.backends.python._open import require_regular
from vespera_file_ops.backends.python._write import write_all

__all__ = ["write_file_atomic"]

# As many as Linux follows before it says ELOOP.
_MAX_SYMLINKS = 40


def write_file_atomic(path: FilePath, content: str) -> None:
    """Replace the content so that it is the old or the new, never a mixture."""
    name = as_path(path)
    text = as_text(content).encode("utf-8")
    with naming(name):
        target = _follow_symlinks(name)
        old = _status(name, target)
        directory = os.path.dirname(target) or os.curdir
        temporary, descriptor = _create_beside(directory, private=old is not None)
        try:
            try:
                _fill(descriptor, text, old)
            finally:
                os.close(descriptor)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_directory(directory)


def _follow_symlinks(name: str) -> str:
    """Where the symlinks at the end lead. Those in the middle are left to the kernel."""
    target = name
    for _ in range(_MAX_SYMLINKS + 1):
        try:
            following = os.readlink(target)
        except OSError:
            # Not a link, or nothing there yet: this is the file to replace.
            return target
        target = os.path.join(os.path.dirname(target), following)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)


def _status(name: str, target: str) -> os.stat_result | None:
    try:
        status = os.lstat(target)
    except FileNotFoundError:
        if not target:
            raise
        if os.path.basename(target) in ("", os.curdir, os.pardir):
            # Only a directory can have such a name.
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name) from None
        return None
    require_regular(name, status)
    return status


def _create_beside(directory: str, *, private: bool) -> tuple[str, int]:
    """A new file with a name of its own. One that replaces another starts private, since the
    other's mode, which may be tighter than the umask, is set only once the content is there.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | getattr(os, "O_BINARY", 0)
    while True:
        # Short, so that a target whose name has the full 255 bytes works too.
        temporary = os.path.join(directory, f".vespera-{secrets.token_hex(8)}.tmp")
        try:
            return temporary, os.open(temporary, flags, 0o600 if private else 0o666)
        except FileExistsError:
            continue


def _fill(descriptor: int, content: bytes, old: os.stat_result | None) -> None:
    write_all(descriptor, content)
    # After the content: a write would clear set-id bits, and until now the file was private.
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


def _sync_directory(directory: str) -> None:
    """Some file systems cannot sync a directory, and one may write in a directory without the
    right to read it: both have done what they can.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)
