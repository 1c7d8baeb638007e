"""Responsible for telling what a path is, without opening it."""

from __future__ import annotations

import os
import stat

from vespera_file_ops.backends.python._naming import naming
from vespera_file_ops.backends.python._origin import without_ignored
from vespera_file_ops.backends.python._place import Place, Root

__all__ = ["file_info", "get_file_info", "list_directory"]

_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "symlink",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}

_Info = tuple[int, str, int, int, bool, int, int, int, int, int]


def get_file_info(path: str, root: Root | None = None) -> tuple[int, bool, bool]:
    """Return ``(size in bytes, is_file, is_dir)``, symlinks followed."""
    with naming(path):
        status = Place(path, root).stat()
    return status.st_size, stat.S_ISREG(status.st_mode), stat.S_ISDIR(status.st_mode)


def file_info(path: str, follow_symlinks: bool, root: Root | None = None) -> _Info:
    """Size, kind, mode, time of change, whether it is a symlink, links, inode, device, owner and
    group.
    """
    place = Place(path, root)
    with naming(path):
        status = place.stat(follow_symlinks=False)
        is_symlink = stat.S_ISLNK(status.st_mode)
        if is_symlink and follow_symlinks:
            status = place.stat()
    return (
        status.st_size,
        _KINDS.get(stat.S_IFMT(status.st_mode), "device"),
        stat.S_IMODE(status.st_mode),
        status.st_mtime_ns,
        is_symlink,
        status.st_nlink,
        status.st_ino,
        status.st_dev,
        status.st_uid,
        status.st_gid,
    )


def list_directory(path: str, gitignore: bool, root: Root | None = None) -> list[tuple[str, str]]:
    """The names in a directory and what they stand for, sorted by bytes."""
    with naming(path):
        found = [(entry.name, _kind(entry)) for entry in Place(path, root).entries()]
        if gitignore:
            found = without_ignored(path, found, root)
    return sorted(found, key=lambda pair: os.fsencode(pair[0]))


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return "symlink"
    if entry.is_dir(follow_symlinks=False):
        return "directory"
    return "file" if entry.is_file(follow_symlinks=False) else "other"
