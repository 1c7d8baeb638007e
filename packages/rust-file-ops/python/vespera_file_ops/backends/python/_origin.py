"""Responsible for where a walk starts, and for reaching what lies beneath by descriptors; and for
the ``.gitignore`` files on the way.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from vespera_file_ops.backends.python._ignore import Level, Rules
from vespera_file_ops.backends.python._naming import naming
from vespera_file_ops.backends.python._place import LOOK, PATH_MAX, Root
from vespera_file_ops.errors import OutsideWorkspace

__all__ = ["Origin", "Way", "without_ignored"]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# git reads no larger one either.
_MAX_GITIGNORE = 100 << 20
# A file that names a directory is longer for nobody.
_MAX_POINTER = 1 << 20
# Fits in one call whatever its characters are.
_SHORT = PATH_MAX // 4


@dataclass(frozen=True, slots=True)
class Way:
    """How something in a walked tree is reached."""

    directory: int
    """An open directory above it: that which holds it, if it is open still."""
    path: str
    """The path from there."""
    whole: str
    """The path from the start."""

    def open_itself(self, flags: int) -> int:
        """Open what stands there, a symlink not followed."""
        return self._by_name(flags, os.O_NOFOLLOW)

    def open_followed(self, flags: int) -> int:
        """Open what it leads to, wherever that is."""
        if len(self.path) < _SHORT:
            return os.open(self.path, flags | os.O_CLOEXEC, dir_fd=self.directory)
        # Too long for one call, perhaps.
        return self._by_name(flags, 0)

    def _by_name(self, flags: int, nofollow: int) -> int:
        """Open it one name after the other."""
        flags |= os.O_CLOEXEC | nofollow
        *above, name = self.path.split("/")
        here = self.directory
        try:
            for each in above:
                step = LOOK | os.O_DIRECTORY | os.O_CLOEXEC | nofollow
                deeper = os.open(each, step, dir_fd=here)
                if here != self.directory:
                    os.close(here)
                here = deeper
            return os.open(name, flags, dir_fd=here)
        finally:
            if here != self.directory:
                os.close(here)


def _kind(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    return "directory" if stat.S_ISDIR(mode) else "other"


class Origin:
    """The directory a walk starts in."""

    outside = OutsideWorkspace

    def __init__(self, path: str, root: Root | None) -> None:
        self.path = path
        self.workspace = root
        with naming(path):
            descriptor = os.open(path, _DIRECTORY) if root is None else root.open(path, _DIRECTORY)
        self._start = Root.of_directory(descriptor, path)

    @property
    def directory(self) -> int:
        """The start, open as long as this object lives."""
        return self._start.directory

    def shown(self, path: str) -> str:
        """What is shown for ``path``, which is relative to the start."""
        return os.path.join(self.path, path)

    def open(self, way: Way, flags: int, *, follow: bool) -> int:
        """Open what is at the end of the way."""
        if not follow:
            return way.open_itself(flags)
        if self.workspace is None:
            return way.open_followed(flags)
        if len(way.whole) >= PATH_MAX:
            # From the root a way this long takes long. What is no symlink is where it seems.
            try:
                return way.open_itself(flags)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
        return self.workspace.open(self.shown(way.whole), flags)

    def target(self, way: Way) -> str | None:
        """What a symlink leads to; None where it leads nowhere, or out."""
        try:
            if self.workspace is not None:
                descriptor = self.workspace.open(self.shown(way.whole), LOOK)
            elif len(way.path) < _SHORT:
                return _kind(os.stat(way.path, dir_fd=way.directory).st_mode)
            else:
                descriptor = way.open_followed(LOOK)
            try:
                return _kind(os.fstat(descriptor).st_mode)
            finally:
                os.close(descriptor)
        except OSError:
            return None

    def levels_above(self) -> Level | None:
        """The rules that hold in the start because of ``.gitignore`` files above it, in the same
        repository and, in a workspace, beneath its root."""
        if _exists(self.directory, ".git"):
            return None
        above = self._above()
        try:
            repository = next(
                (number for number, (fd, _) in enumerate(above) if _exists(fd, ".git")), None
            )
            if repository is None:
                return None
            level: Level | None = None
            for number in range(repository, -1, -1):
                descriptor, prefix = above[number]
                if number == repository:
                    excluded = self._excluded_by_the_repository(descriptor)
                    level = Level.above(level, prefix, excluded)
                try:
                    rules = _rules(descriptor, ".gitignore")
                except OSError:
                    continue
                level = Level.above(level, prefix, rules)
            return level
        finally:
            for descriptor, _ in above:
                os.close(descriptor)

    def _above(self) -> list[tuple[int, str]]:
        """The directories from the start upwards, each with the way from it down to the start."""
        if self.workspace is not None:
            return _above_in(self.workspace, self.path)
        found: list[tuple[int, str]] = []
        start = os.path.realpath(self.path)
        directory = start
        while (parent := os.path.dirname(directory)) != directory:
            directory = parent
            try:
                descriptor = os.open(directory, _DIRECTORY)
            except OSError:
                break
            found.append((descriptor, f"{os.path.relpath(start, directory)}/"))
            if _exists(descriptor, ".git"):
                break
        return found

    def level_below(
        self,
        directory: int,
        path: str,
        inherited: Level | None,
        names: set[str],
        problem: Callable[[OSError], None],
    ) -> Level | None:
        """The level in an open directory at ``path`` (from the start) that holds ``names``."""
        level = inherited
        if ".git" in names:
            # A repository of its own: what the one around it ignores is not its business.
            level = Level.below(None, path, self._excluded_by_the_repository(directory))
        if ".gitignore" not in names:
            return level
        try:
            rules = _rules(directory, ".gitignore")
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ELOOP, errno.EINVAL):
                problem(error)
            return level
        return Level.below(level, path, rules)

    def _excluded_by_the_repository(self, directory: int) -> Rules:
        """The rules in ``info/exclude`` of the repository whose working tree the directory is, if
        it has them."""
        opened: list[int] = []
        try:
            self._open_git_directory(directory, opened)
            opened.append(os.open("info", _DIRECTORY | os.O_NOFOLLOW, dir_fd=opened[-1]))
            return _rules(opened[-1], "exclude")
        except (OSError, ValueError):
            # ValueError: a NUL in what should be a path.
            return Rules(b"")
        finally:
            for descriptor in opened:
                os.close(descriptor)

    def _open_git_directory(self, directory: int, opened: list[int]) -> None:
        """Add to ``opened`` what all working trees of the repository share: ``.git``, or where the
        file of that name leads in a worktree or submodule. That may be anywhere, so a workspace
        does not follow it."""
        try:
            opened.append(os.open(".git", _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory))
        except NotADirectoryError:
            if self.workspace is not None:
                raise
        else:
            return
        content = _read(directory, ".git", _MAX_POINTER)
        if not content.startswith(b"gitdir: "):
            raise _not_this()
        path = content.removeprefix(b"gitdir: ").rstrip(b"\r\n")
        opened.append(os.open(path, _DIRECTORY, dir_fd=directory))
        try:
            path = _read(opened[-1], "commondir", _MAX_POINTER).rstrip(b"\r\n")
        except FileNotFoundError:
            return
        opened.append(os.open(path, _DIRECTORY, dir_fd=opened[-1]))


def _above_in(root: Root, path: str) -> list[tuple[int, str]]:
    """The directories from the root of a workspace to ``path``. A path with ``..`` or a symlink in
    it has none: where it really leads cannot be told by its text."""
    names = [name for name in path.split("/") if name not in ("", ".")]
    found: list[tuple[int, str]] = []
    try:
        for depth, name in enumerate(names):
            if name == "..":
                raise NotADirectoryError
            if found:
                flags = _DIRECTORY | os.O_NOFOLLOW
                descriptor = os.open(names[depth - 1], flags, dir_fd=found[-1][0])
            else:
                descriptor = os.open(".", _DIRECTORY, dir_fd=root.directory)
            found.append((descriptor, f"{'/'.join(names[depth:])}/"))
    except OSError:
        for descriptor, _ in found:
            os.close(descriptor)
        return []
    found.reverse()
    return found


def without_ignored(
    path: str, names: list[tuple[str, str]], root: Root | None
) -> list[tuple[str, str]]:
    """Names of a directory without those that git would leave out."""
    origin = Origin(path, root)
    level = origin.level_below(
        origin.directory, "", origin.levels_above(), {name for name, _ in names}, lambda _: None
    )
    return [
        (name, kind)
        for name, kind in names
        if name != ".git"
        and not (level and level.ignores(name, name, is_directory=kind == "directory"))
    ]


def _rules(directory: int, name: str) -> Rules:
    """The rules in a file. A symlink of that name is not followed: git does not either."""
    return Rules(_read(directory, name, _MAX_GITIGNORE))


def _read(directory: int, name: str, limit: int) -> bytes:
    descriptor = os.open(name, _FILE | os.O_NOFOLLOW, dir_fd=directory)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise _not_this()
        return file.read(limit) or b""


def _not_this() -> OSError:
    return OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def _exists(directory: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return False
    return True
