"""Responsible for walking a tree, one directory after the other, depth first, contained where a
workspace asks for it.

Nothing here goes by whole paths: a directory is opened beneath the open one above it, without
following a symlink, so that a name swapped meanwhile leads nowhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from vespera_file_ops._finding import Selection
from vespera_file_ops.backends.python._globs import Globs, Places
from vespera_file_ops.backends.python._ignore import Level
from vespera_file_ops.backends.python._naming import naming
from vespera_file_ops.backends.python._origin import Origin, Way
from vespera_file_ops.backends.python._place import Root
from vespera_file_ops.errors import FileOpError
from vespera_file_ops.results import WalkEntry

__all__ = ["Entry", "Filter", "Finding", "Problems", "Tree", "walk"]

T = TypeVar("T")

# So many directories stay open in one walk; a process may have 1,024 files open as a rule.
_MAX_OPEN = 64
# In a deep tree one directory in so many stays open while anything beneath it is left to do: what
# lies beneath is reached from there, and the way back up does not cost the whole depth each time.
_ANCHORED = 16
# So many of these.
_MAX_ANCHORS = 128
# So many problems are kept by name; all are counted.
_MAX_PROBLEMS = 1000
# Vanished, or swapped for something else, or leading out of the workspace.
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV)


@dataclass(frozen=True, slots=True)
class _Progress:
    include: Places
    exclude: Places
    types: Places


class Filter:
    """Which names are shown, and which directories are entered."""

    def __init__(
        self,
        *,
        gitignore: bool = False,
        hidden: bool = True,
        follow: bool = False,
        sort: bool = False,
        max_depth: int | None = None,
        include: Globs | None = None,
        exclude: Globs | None = None,
        types: Globs | None = None,
    ) -> None:
        self.gitignore = gitignore
        self.follow = follow
        self.sort = sort
        self._hidden = hidden
        self._max_depth = max_depth
        self._include = include or Globs()
        self._exclude = exclude or Globs()
        self._types = types or Globs()

    @classmethod
    def of(cls, selection: Selection) -> Filter:
        """The filter for what was asked for."""
        return cls(
            gitignore=selection.gitignore,
            hidden=selection.hidden,
            follow=selection.follow,
            sort=selection.sort,
            max_depth=selection.max_depth,
            include=Globs.floating(selection.include, directories=False),
            exclude=Globs.floating(selection.exclude, directories=True),
            types=Globs.floating(selection.types, directories=False),
        )

    def start(self) -> _Progress:
        return _Progress(self._include.start(), self._exclude.start(), self._types.start())

    def leaves_out(self, progress: _Progress, name: str, kind: str) -> bool:
        """Whether the name is neither shown nor entered."""
        return (
            (not self._hidden and name.startswith("."))
            or (self.gitignore and name == ".git")
            or bool(
                progress.exclude
                and self._exclude.accepts(progress.exclude, name, is_directory=kind == "directory")
            )
        )

    def shows(self, progress: _Progress, name: str, kind: str) -> bool:
        """Whether the name, which is not left out, is shown."""
        directory = kind == "directory"
        if self._include and not self._include.accepts(
            progress.include, name, is_directory=directory
        ):
            return False
        return not self._types or (
            not directory and self._types.accepts(progress.types, name, is_directory=directory)
        )

    def enter(self, progress: _Progress, name: str, depth: int) -> _Progress | None:
        """The progress in the directory ``name``, None if it need not be entered."""
        if self._max_depth is not None and depth > self._max_depth:
            return None
        include = self._include.beneath(progress.include, name)
        if self._include and not include:
            return None
        exclude = self._exclude.beneath(progress.exclude, name)
        return _Progress(include, exclude, self._types.beneath(progress.types, name))


class Problems:
    """What could not be read."""

    def __init__(self) -> None:
        self.found: list[tuple[int, str]] = []
        self.count = 0

    def add(self, error: OSError, path: str) -> None:
        self.count += 1
        if len(self.found) < _MAX_PROBLEMS:
            self.found.append((error.errno or errno.EIO, path))


@dataclass(slots=True)
class _Directory:
    """A directory whose names were read."""

    path: str
    opened: int
    """Its descriptor, -1 if it was closed."""
    depth: int
    level: Level | None
    progress: _Progress
    ancestors: tuple[tuple[int, int], ...] | None
    anchor: _Directory | None = None
    """The nearest one above, or itself, that stays open."""
    names: list[tuple[str, str]] = field(default_factory=list)

    def path_of(self, name: str) -> str:
        return f"{self.path}/{name}" if self.path else name

    def way(self, name: str, start: int) -> Way:
        """The way to a name in this directory."""
        if self.opened >= 0:
            return Way(self.opened, name, self.path_of(name))
        whole = self.path_of(name)
        if self.anchor is None:
            return Way(start, whole, whole)
        return Way(self.anchor.opened, whole[len(self.anchor.path) + 1 :], whole)


@dataclass(frozen=True, slots=True)
class Entry:
    """A name that is shown."""

    tree: Tree
    directory: _Directory
    name: str
    kind: str

    @property
    def path(self) -> str:
        """The path from the start."""
        return self.directory.path_of(self.name)

    def open(self) -> int:
        """Open the file for reading; through a symlink only where they are followed."""
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
        origin = self.tree.origin
        way = self.directory.way(self.name, origin.directory)
        return origin.open(way, flags, follow=self.tree.filter.follow)

    def target(self) -> str | None:
        """What a symlink leads to."""
        origin = self.tree.origin
        return origin.target(self.directory.way(self.name, origin.directory))


class Tree:
    """One walk. Iterating gives what is shown; closing the generator closes every directory."""

    def __init__(self, origin: Origin, wanted: Filter, problems: Problems) -> None:
        self.origin = origin
        self.filter = wanted
        self.problems = problems
        self.stopped = False
        # The start is read here, so that its errors come at once.
        with naming(origin.path):
            level = origin.levels_above() if wanted.gitignore else None
            identity = _identity(origin.directory) if wanted.follow else None
            self._start = _Directory(
                "", origin.directory, 1, level, wanted.start(), (identity,) if identity else None
            )
            self._read(self._start)

    def entries(self) -> Generator[Entry, None, None]:
        """Every name that is shown."""
        way: list[tuple[_Directory, Iterator[tuple[str, str, bool]]]] = []
        way.append((self._start, self._order(self._start)))
        try:
            while way and not self.stopped:
                directory, names = way[-1]
                following = next(names, None)
                if following is None:
                    way.pop()
                    self._close(directory)
                    continue
                name, kind, enter = following
                if not enter:
                    if self.filter.shows(directory.progress, name, kind):
                        yield Entry(self, directory, name, kind)
                    continue
                entered = self._enter(directory, name)
                if entered is not None:
                    if len(way) > _MAX_OPEN and directory.anchor is not directory:
                        self._close(directory)
                    way.append((entered, self._order(entered)))
        finally:
            for directory, _ in way:
                self._close(directory)

    def _close(self, directory: _Directory) -> None:
        if directory.opened >= 0 and directory is not self._start:
            os.close(directory.opened)
            directory.opened = -1
            if directory.anchor is directory:
                # It would keep itself alive.
                directory.anchor = None

    def _order(self, directory: _Directory) -> Iterator[tuple[str, str, bool]]:
        """Names, kinds, and whether the directory of that name is entered now.

        Sorted it is the order of whole paths: a directory is shown where its name comes, and
        entered where its name with a slash does (``a``, ``a.txt``, ``a/b``).
        """
        names = directory.names
        shown = [(name, kind, False) for name, kind in names]
        entered = [(name, kind, True) for name, kind in names if kind == "directory"]
        if not self.filter.sort:
            return iter(shown + entered)
        return iter(
            sorted(
                shown + entered, key=lambda each: os.fsencode(f"{each[0]}/" if each[2] else each[0])
            )
        )

    def _enter(self, parent: _Directory, name: str) -> _Directory | None:
        depth = parent.depth + 1
        progress = self.filter.enter(parent.progress, name, depth)
        if progress is None:
            return None
        path = parent.path_of(name)
        opened = -1
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK
            way = parent.way(name, self.origin.directory)
            opened = self.origin.open(way, flags, follow=self.filter.follow)
            ancestors = parent.ancestors
            if ancestors is not None:
                identity = _identity(opened)
                if identity in ancestors:
                    os.close(opened)
                    return None
                ancestors = (*ancestors, identity)
            directory = _Directory(path, opened, depth, parent.level, progress, ancestors)
            directory.anchor = parent.anchor
            if depth % _ANCHORED == 0 and depth <= _MAX_ANCHORS * _ANCHORED:
                directory.anchor = directory
            self._read(directory)
        except OSError as error:
            if opened >= 0:
                os.close(opened)
            if error.errno not in _GONE and not isinstance(error, self.origin.outside):
                self.problems.add(error, self.origin.shown(path))
            return None
        return directory

    def _read(self, directory: _Directory) -> None:
        """Read the names, learn the rules, and take away what is neither shown nor entered."""
        with os.scandir(directory.opened) as found:
            names = [(entry.name, _kind(entry)) for entry in found]
        if self.filter.gitignore:
            directory.level = self.origin.level_below(
                directory.opened,
                directory.path,
                directory.level,
                {name for name, _ in names if name.startswith(".git")},
                lambda error: self.problems.add(
                    error, self.origin.shown(directory.path_of(".gitignore"))
                ),
            )
        if self.filter.follow:
            names = [(name, self._behind(directory, name, kind)) for name, kind in names]
        level, progress = directory.level, directory.progress
        directory.names = [
            (name, kind)
            for name, kind in names
            if not self.filter.leaves_out(progress, name, kind)
            and (
                level is None
                or not level.ignores(
                    directory.path_of(name), name, is_directory=kind == "directory"
                )
            )
        ]

    def _behind(self, directory: _Directory, name: str, kind: str) -> str:
        if kind != "symlink":
            return kind
        target = self.origin.target(directory.way(name, self.origin.directory))
        return target or kind


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_symlink():
            return "symlink"
        if entry.is_dir(follow_symlinks=False):
            return "directory"
        return "file" if entry.is_file(follow_symlinks=False) else "other"
    except OSError:
        # Asked of a file system that does not tell while listing, and vanished meanwhile.
        return "other"


class Finding(Generic[T]):
    """Results one by one; the same calls as the extension's."""

    def __init__(self, results: Generator[T, None, None], stop: Callable[[], None]) -> None:
        self._owner = os.getpid()
        self._results = results
        self._stop = stop
        self._problems = Problems()

    @classmethod
    def over(cls, tree: Tree, results: Generator[T, None, None]) -> Finding[T]:
        """The results of a walk."""

        def stop() -> None:
            tree.stopped = True

        finding = cls(results, stop)
        finding._problems = tree.problems
        return finding

    def next_batch(self) -> list[T] | None:
        """One result: the next may take long."""
        self._require_owner()
        try:
            return [next(self._results)]
        except StopIteration:
            return None

    def problems(self) -> tuple[list[tuple[int, str]], int]:
        """Errno and path of what could not be read so far, and how many there were."""
        self._require_owner()
        return list(self._problems.found), self._problems.count

    def close(self) -> None:
        """End it; one that another thread is in ends at its next step."""
        self._stop()
        try:
            self._results.close()
        except ValueError:
            # "generator already executing", by that thread.
            return
        # The tree goes, and with it the descriptor of the start.
        self._stop = lambda: None

    def _require_owner(self) -> None:
        """A forked child shares the place in an open file: what it read there, its parent would
        miss."""
        if os.getpid() != self._owner:
            msg = (
                f"this search belongs to process {self._owner}, which forked; "
                "start one in this process"
            )
            raise FileOpError(msg, code="internal")


def walk(directory: str, selection: Selection, root: Root | None = None) -> Finding[WalkEntry]:
    """The names beneath ``directory``."""
    wanted = Filter.of(selection)
    tree = Tree(Origin(directory, root), wanted, Problems())

    def results() -> Generator[WalkEntry, None, None]:
        base = os.path.join(directory, "")
        entries = tree.entries()
        try:
            for entry in entries:
                yield WalkEntry(base + entry.path, entry.kind)
        finally:
            entries.close()

    return Finding.over(tree, results())


def is_regular(descriptor: int) -> os.stat_result | None:
    """The status of a regular file, else None."""
    status = os.fstat(descriptor)
    return status if stat.S_ISREG(status.st_mode) else None
