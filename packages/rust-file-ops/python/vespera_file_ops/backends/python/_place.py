"""Responsible for how a path is reached: as the process sees it, or beneath a root that nothing
leaves. Every operation takes a ``Place``, so that none exists which a workspace cannot contain.

Python has no ``openat2``, so beneath a root a path is walked name by name from an open directory,
none of the names followed by the system: a symlink put there meanwhile is an error, no way out.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections import deque
from dataclasses import dataclass

from vespera_file_ops.errors import OutsideWorkspace

__all__ = ["LOOK", "MAX_SYMLINKS", "PATH_MAX", "Place", "Root"]

# As many as Linux follows before it says ELOOP.
MAX_SYMLINKS = 40

PATH_MAX = 4096
"""A path of so many bytes is too long for one call, however short its names are."""

LOOK = getattr(os, "O_PATH", getattr(os, "O_NONBLOCK", 0))
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_DIRECTORY = getattr(os, "O_DIRECTORY", 0)
# So many directories of a path stay open, for `..` of a symlink: a process may have 1,024 files.
_MAX_WAY = 128
# Opened with one of these, a symlink at the end of a path is meant itself.
_KEEP_LINK = os.O_EXCL | _NOFOLLOW


class Root:
    """An open directory that paths stay beneath, wherever it is moved to."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._directory = -1
        if os.open not in os.supports_dir_fd:
            msg = "workspaces need calls relative to an open directory, which this system lacks"
            raise NotImplementedError(msg)
        self._directory = os.open(path, os.O_RDONLY | _DIRECTORY | os.O_CLOEXEC)

    @classmethod
    def of_directory(cls, descriptor: int, path: str) -> Root:
        """A directory that is open already, and is this object's from now on."""
        root = cls.__new__(cls)
        root.path = path
        root._directory = descriptor
        return root

    @property
    def directory(self) -> int:
        """The open directory."""
        return self._directory

    def __del__(self) -> None:
        if self._directory >= 0:
            os.close(self._directory)

    def open(self, path: str, flags: int, mode: int = 0o666, shown: str | None = None) -> int:
        """Open ``path`` beneath this directory; errors name ``shown``, which the caller knows."""
        shown = path if shown is None else shown
        try:
            return _open_beneath(self._directory, path, flags, mode)
        except _Outside:
            raise self._outside(shown) from None
        except OSError as error:
            error.filename = shown
            raise

    def _outside(self, path: str) -> OutsideWorkspace:
        msg = (
            f"{path}: leads out of the workspace {self.path}; "
            "give a path beneath it, without a leading slash"
        )
        return OutsideWorkspace(msg, context={"path": path, "root": self.path})


@dataclass(frozen=True, slots=True)
class Place:
    """A path, and the root that it must stay beneath, if there is one."""

    path: str
    root: Root | None = None

    def at(self, path: str) -> Place:
        """Another path that is reached the same way."""
        return Place(path, self.root)

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """What the path leads to, or is, nothing opened for reading."""
        if self.root is None:
            return os.stat(self.path, follow_symlinks=follow_symlinks)
        descriptor = self.root.open(self.path, LOOK | (0 if follow_symlinks else _NOFOLLOW))
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def open(self, flags: int, mode: int = 0o666) -> int:
        """Open the path; the descriptor is the caller's."""
        if self.root is None:
            return os.open(self.path, flags | os.O_CLOEXEC, mode)
        return self.root.open(self.path, flags, mode)

    def open_directory(self, shown: str) -> int:
        """Open the directory. One may write in it without the right to read it."""
        flags = os.O_RDONLY | _DIRECTORY
        if self.root is not None:
            return self.root.open(self.path, flags, shown=shown)
        try:
            return self.open(flags)
        except PermissionError:
            return self.open(LOOK | _DIRECTORY)

    def entries(self) -> list[os.DirEntry[str]]:
        """The names in the directory; beneath a root, only their kinds may be asked for."""
        if self.root is None:
            with os.scandir(self.path) as found:
                return list(found)
        descriptor = self.root.open(self.path, os.O_RDONLY | _DIRECTORY)
        try:
            with os.scandir(descriptor) as found:
                return list(found)
        finally:
            os.close(descriptor)

    def remove(self) -> None:
        """Take away the file that was made here; the error that made it so matters, not ours."""
        with contextlib.suppress(OSError):
            if self.root is None:
                os.unlink(self.path)
                return
            directory = self.at(os.path.dirname(self.path) or os.curdir).open_directory(self.path)
            try:
                os.unlink(os.path.basename(self.path), dir_fd=directory)
            finally:
                os.close(directory)


class _Outside(Exception):
    """The walk came to a name that leads out of the root."""


def _open_beneath(directory: int, path: str, flags: int, mode: int = 0o666) -> int:
    """Open ``path`` beneath an open directory; ``_Outside`` if it is not there."""
    if not path:
        raise _refused(errno.ENOENT, path)
    way: deque[int] = deque()
    try:
        return _walk(directory, path, flags | os.O_CLOEXEC, mode, way)
    finally:
        for descriptor in way:
            os.close(descriptor)


def _walk(directory: int, path: str, flags: int, mode: int, way: deque[int]) -> int:
    names = _names(path)
    goes_up = ".." in names
    links = depth = 0
    while names:
        name = names.popleft()
        here = way[-1] if way else directory
        if name == "..":
            # Back along the way we came, never by the system's own `..`, which somebody may have
            # moved elsewhere.
            if not depth:
                raise _Outside
            depth -= 1
            os.close(way.pop())
            if depth and not way:
                raise _refused(errno.ENAMETOOLONG, path)
            continue
        if name == ".":
            continue
        if flags & os.O_CREAT and names and path.endswith("/") and set(names) == {"."}:
            # As the kernel says of a name that only a directory can have.
            raise _refused(errno.EISDIR, path)
        link = None if not names and flags & _KEEP_LINK else _readlink(name, here)
        if link is not None:
            links += 1
            if links > MAX_SYMLINKS:
                raise _refused(errno.ELOOP, path)
            names.extendleft(reversed(_names(link)))
        elif names:
            step = LOOK | _DIRECTORY | _NOFOLLOW | os.O_CLOEXEC
            way.append(os.open(name, step, dir_fd=here))
            depth += 1
            if len(way) > _MAX_WAY and not goes_up:
                os.close(way.popleft())
        else:
            return os.open(name, flags | _NOFOLLOW, mode, dir_fd=here)
    if flags & os.O_CREAT:
        raise _refused(errno.EISDIR, path)
    return os.open(".", flags, dir_fd=way[-1] if way else directory)


def _names(text: str) -> deque[str]:
    if text.startswith("/"):
        raise _Outside
    # A slash at the end asks for a directory: `.` does too.
    return deque(name or "." for name in text.split("/"))


def _readlink(name: str, directory: int) -> str | None:
    try:
        return os.readlink(name, dir_fd=directory)
    except OSError:
        return None


def _refused(number: int, path: str) -> OSError:
    return OSError(number, os.strerror(number), path)
