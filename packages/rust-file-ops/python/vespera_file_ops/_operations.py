"""Responsible for every operation once: arguments checked, the backend's raw function called, the
result given its class. A backend is a module of raw functions; both have the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from vespera_file_ops._arguments import (
    FilePath,
    RawEdit,
    as_algorithm,
    as_bytes,
    as_edits,
    as_expect,
    as_path,
    as_text,
    as_wanted,
)
from vespera_file_ops._find_operations import FindOperations
from vespera_file_ops._finding import Query, RawFinding, Selection
from vespera_file_ops.errors import ReadOnlyWorkspace
from vespera_file_ops.results import EditResult, FileInfo, Match, Position

__all__ = ["Operations", "Raw", "RawOutcome", "WorkspaceOperations"]

RawOutcome = tuple[list[list[tuple[int, int, int]]], str, int, int]
"""Places of each edit, diff, size afterwards, time of change in nanoseconds."""


class Raw(Protocol):
    """What a backend has. Paths are text, undecodable bytes escaped; ``root`` contains them."""

    def Root(self, path: str) -> Any: ...
    def read_file(self, path: str, root: Any = None) -> bytes: ...
    def read_file_string(self, path: str, root: Any = None) -> str: ...
    def read_file_lines(self, path: str, root: Any = None) -> list[str]: ...
    def write_file(self, path: str, content: bytes, root: Any = None) -> None: ...
    def write_file_string(self, path: str, content: str, root: Any = None) -> None: ...
    def append_file(self, path: str, content: str, root: Any = None) -> None: ...
    def write_file_atomic(self, path: str, content: str, root: Any = None) -> None: ...
    def glob_files(
        self, directory: str, pattern: str, gitignore: bool, root: Any = None
    ) -> list[str]: ...
    def get_file_info(self, path: str, root: Any = None) -> tuple[int, bool, bool]: ...
    def edit(
        self,
        path: str,
        edits: list[RawEdit],
        modified_ns: int | None,
        sha256: str | None,
        write: bool,
        root: Any = None,
    ) -> RawOutcome: ...
    def count_replacements(self, path: str, old: str, root: Any = None) -> int: ...
    def list_directory(
        self, path: str, gitignore: bool, root: Any = None
    ) -> list[tuple[str, str]]: ...
    def hash_file(self, path: str, algorithm: str, root: Any = None) -> str: ...
    def walk(self, directory: str, selection: Selection, root: Any = None) -> RawFinding[Any]: ...
    def search_text(self, text: bytes, query: Query, limit: int | None) -> list[Match]: ...
    def search_files(
        self,
        directory: str,
        query: Query,
        selection: Selection,
        binary: bool,
        max_size: int | None,
        root: Any = None,
    ) -> RawFinding[Any]: ...


class Operations(FindOperations):
    """The operations of one backend. Their meaning is documented in ``vespera_file_ops.api``."""

    def __init__(self, raw: Raw, root: Any = None) -> None:
        self._raw = raw
        self._root = root

    def _writable(self, path: str) -> str:
        return path

    def read_file(self, path: FilePath) -> bytes:
        """Return the whole content of a regular file."""
        return self._raw.read_file(as_path(path), self._root)

    def read_file_string(self, path: FilePath) -> str:
        """Return the whole content as text (UTF-8)."""
        return self._raw.read_file_string(as_path(path), self._root)

    def read_file_lines(self, path: FilePath) -> list[str]:
        """Return the lines without their endings."""
        return self._raw.read_file_lines(as_path(path), self._root)

    def write_file(self, path: FilePath, content: bytes | bytearray | memoryview) -> None:
        """Write bytes in place."""
        self._raw.write_file(self._writable(as_path(path)), as_bytes(content), self._root)

    def write_file_string(self, path: FilePath, content: str) -> None:
        """Write text (UTF-8) in place."""
        self._raw.write_file_string(self._writable(as_path(path)), as_text(content), self._root)

    def append_file(self, path: FilePath, content: str) -> None:
        """Add text (UTF-8) at the end."""
        self._raw.append_file(self._writable(as_path(path)), as_text(content), self._root)

    def write_file_atomic(self, path: FilePath, content: str) -> None:
        """Replace the content so that it is the old or the new, never a mixture."""
        self._raw.write_file_atomic(self._writable(as_path(path)), as_text(content), self._root)

    def get_file_info(self, path: FilePath) -> tuple[int, bool, bool]:
        """Return ``(size in bytes, is_file, is_dir)``, symlinks followed."""
        return self._raw.get_file_info(as_path(path), self._root)

    def file_info(self, path: FilePath) -> FileInfo:
        """Return what the path leads to, symlinks followed."""
        name = as_path(path)
        return FileInfo(name, *self._raw.get_file_info(name, self._root))

    def edit_file(
        self,
        path: FilePath,
        old: str,
        new: str,
        *,
        replace_all: bool = False,
        expect: str | int | None = None,
    ) -> EditResult:
        """Replace ``old``, which must stand there exactly once, unless ``replace_all``."""
        return self._edit(path, [(old, new, replace_all)], expect, write=True)

    def multi_edit_file(
        self,
        path: FilePath,
        edits: Sequence[tuple[str, str] | tuple[str, str, bool]],
        *,
        expect: str | int | None = None,
    ) -> EditResult:
        """Make several edits, one after the other: all of them or none."""
        return self._edit(path, edits, expect, write=True)

    def preview_edit(
        self,
        path: FilePath,
        old: str,
        new: str,
        *,
        replace_all: bool = False,
        expect: str | int | None = None,
    ) -> EditResult:
        """Tell what ``edit_file`` would do; nothing is written."""
        return self._edit(path, [(old, new, replace_all)], expect, write=False)

    def count_replacements(self, path: FilePath, old: str) -> int:
        """Return how often ``old`` stands in the file, places that overlap counted once."""
        name = as_path(path)
        return self._raw.count_replacements(name, as_wanted(old), self._root)

    def hash_file(self, path: FilePath, algorithm: str = "sha256") -> str:
        """Return the hash of the content in hexadecimal digits."""
        return self._raw.hash_file(as_path(path), as_algorithm(algorithm), self._root)

    def _edit(
        self,
        path: FilePath,
        edits: Sequence[tuple[str, str] | tuple[str, str, bool]],
        expect: str | int | None,
        *,
        write: bool,
    ) -> EditResult:
        name = as_path(path)
        if write:
            self._writable(name)
        modified_ns, sha256 = as_expect(expect)
        raw = as_edits(edits)
        outcome = self._raw.edit(name, raw, modified_ns, sha256, write, self._root)
        places, diff, size, mtime_ns = outcome
        positions = tuple(tuple(Position(*place) for place in each) for each in places)
        count = sum(len(each) for each in positions)
        return EditResult(name, count, positions, diff, size, mtime_ns)


class WorkspaceOperations(Operations):
    """Every operation on paths beneath a root that nothing leaves.

    Paths are relative to the root. A path that leads out of it, by ``..``, as an absolute path or
    through a symlink (also an absolute one that would come back), is ``OutsideWorkspace``. It is
    the opened directory that counts: the root may be moved or renamed meanwhile.
    """

    def __init__(self, raw: Raw, root: FilePath, *, read_only: bool = False) -> None:
        self._path = as_path(root)
        self._read_only = read_only
        super().__init__(raw, raw.Root(self._path))

    @property
    def root(self) -> str:
        """The path of the root as it was given."""
        return self._path

    @property
    def read_only(self) -> bool:
        """Whether writing is refused."""
        return self._read_only

    def __repr__(self) -> str:
        return f"Workspace({self._path!r}, read_only={self._read_only})"

    def _writable(self, path: str) -> str:
        if self._read_only:
            msg = f"{path}: the workspace {self._path} is read-only; open it with read_only=False"
            raise ReadOnlyWorkspace(msg, context={"path": path, "root": self._path})
        return path
