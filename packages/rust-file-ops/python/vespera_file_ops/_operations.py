"""Responsible for every operation once: arguments checked, the backend's raw function called, the
result given its class. A backend is a module of raw functions; both have the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from vespera_file_ops._arguments import (
    FilePath,
    RawEdit,
    as_algorithm,
    as_bytes,
    as_edit,
    as_edits,
    as_encoding,
    as_expect,
    as_limit,
    as_path,
    as_text,
    as_wanted,
)
from vespera_file_ops._batch_operations import BatchOperations, RawBatch
from vespera_file_ops._find_operations import FindOperations
from vespera_file_ops._finding import Query, RawFinding, Selection
from vespera_file_ops._text_operations import RawText, TextOperations
from vespera_file_ops._turns import in_turn
from vespera_file_ops.errors import ReadOnlyWorkspace
from vespera_file_ops.results import EditResult, FileInfo, Match, Position

__all__ = ["WRITERS", "Operations", "Raw", "RawOutcome", "WorkspaceOperations"]

WRITERS = frozenset(
    {
        "append_file",
        "edit_file",
        "multi_edit_file",
        "write_file",
        "write_file_atomic",
        "write_file_string",
        "write_files",
        "write_text",
    }
)
"""The operations that change files: a read-only workspace refuses them."""

RawOutcome = tuple[list[list[tuple[int, int, int]]], str, int, int, bool]
"""Places of each edit, diff, size afterwards, time of change in nanoseconds, whether the diff is
all there."""


RawInfo = tuple[int, str, int, int, bool, int, int, int, int, int]
"""Size, kind, mode, time of change, whether it is a symlink, links, inode, device, owner, group."""


class Raw(RawText, RawBatch, Protocol):
    """What a backend has. Paths are text, undecodable bytes escaped; ``root`` contains them. What
    writes to a file that somebody else has locked raises ``FileLocked`` at once.
    """

    def Root(self, path: str) -> Any: ...
    def read_file(self, path: str, root: Any = None, max_bytes: int | None = None) -> bytes: ...
    def read_file_string(
        self, path: str, root: Any = None, max_bytes: int | None = None
    ) -> str: ...
    def read_file_lines(
        self, path: str, root: Any = None, max_bytes: int | None = None
    ) -> list[str]: ...
    def write_file(self, path: str, content: bytes, root: Any = None) -> None: ...
    def write_file_string(self, path: str, content: str, root: Any = None) -> None: ...
    def append_file(self, path: str, content: str, root: Any = None) -> None: ...
    def write_file_atomic(self, path: str, content: str, root: Any = None) -> None: ...
    def glob_files(
        self, directory: str, pattern: str, gitignore: bool, root: Any = None
    ) -> list[str]: ...
    def get_file_info(self, path: str, root: Any = None) -> tuple[int, bool, bool]: ...
    def file_info(self, path: str, follow_symlinks: bool, root: Any = None) -> RawInfo: ...
    def replace_file(
        self,
        path: str,
        content: bytes,
        modified_ns: int | None = None,
        sha256: str | None = None,
        root: Any = None,
    ) -> None: ...
    def edit(
        self,
        path: str,
        edits: list[RawEdit],
        modified_ns: int | None,
        sha256: str | None,
        write: bool,
        root: Any = None,
        encoding: str | None = None,
        max_bytes: int | None = None,
    ) -> RawOutcome: ...
    def count_replacements(
        self,
        path: str,
        old: str,
        root: Any = None,
        encoding: str | None = None,
        max_bytes: int | None = None,
    ) -> int: ...
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


class Operations(TextOperations, BatchOperations, FindOperations):
    """The operations of one backend. Their meaning is documented in ``vespera_file_ops.api``."""

    _raw: Raw

    def __init__(self, raw: Raw, root: Any = None) -> None:
        self._raw = raw
        self._root = root

    def _writable(self, path: str) -> str:
        return path

    def read_file(self, path: FilePath, *, max_bytes: int | None = None) -> bytes:
        """Return the whole content of a regular file."""
        if max_bytes is None:
            return self._raw.read_file(as_path(path), self._root)
        return self._raw.read_file(as_path(path), self._root, as_limit(max_bytes))

    def read_file_string(self, path: FilePath, *, max_bytes: int | None = None) -> str:
        """Return the whole content as text (UTF-8)."""
        return self._raw.read_file_string(as_path(path), self._root, as_limit(max_bytes))

    def read_file_lines(self, path: FilePath, *, max_bytes: int | None = None) -> list[str]:
        """Return the lines without their endings."""
        return self._raw.read_file_lines(as_path(path), self._root, as_limit(max_bytes))

    def write_file(
        self,
        path: FilePath,
        content: bytes | bytearray | memoryview,
        *,
        atomic: bool = False,
        expect: str | int | None = None,
    ) -> None:
        """Write bytes in place, or atomically."""
        name = self._writable(as_path(path))
        expected = as_expect(expect)
        if atomic:
            data = as_bytes(content)
            in_turn(partial(self._raw.replace_file, name, data, *expected, self._root))
            return
        if expect is not None:
            msg = "expect needs atomic=True: a write in place cannot look and write at once"
            raise ValueError(msg)
        in_turn(partial(self._raw.write_file, name, as_bytes(content), self._root))

    def write_file_string(self, path: FilePath, content: str) -> None:
        """Write text (UTF-8) in place."""
        name = self._writable(as_path(path))
        in_turn(partial(self._raw.write_file_string, name, as_text(content), self._root))

    def append_file(self, path: FilePath, content: str) -> None:
        """Add text (UTF-8) at the end."""
        text = as_text(
            content,
            other="decode it first",
            surrogate="take it out, or add bytes with open(path, 'ab')",
        )
        in_turn(partial(self._raw.append_file, self._writable(as_path(path)), text, self._root))

    def write_file_atomic(self, path: FilePath, content: str) -> None:
        """Replace the content so that it is the old or the new, never a mixture."""
        self._raw.write_file_atomic(self._writable(as_path(path)), as_text(content), self._root)

    def get_file_info(self, path: FilePath) -> tuple[int, bool, bool]:
        """Return ``(size in bytes, is_file, is_dir)``, symlinks followed."""
        return self._raw.get_file_info(as_path(path), self._root)

    def file_info(self, path: FilePath, *, follow_symlinks: bool = True) -> FileInfo:
        """Return what the path leads to, or is."""
        name = as_path(path)
        size, kind, *rest = self._raw.file_info(name, bool(follow_symlinks), self._root)
        return FileInfo(name, size, kind == "file", kind == "directory", kind, *rest)  # type: ignore[arg-type]

    def edit_file(
        self,
        path: FilePath,
        old: str,
        new: str,
        *,
        replace_all: bool = False,
        expect: str | int | None = None,
        encoding: str = "auto",
        max_bytes: int | None = None,
    ) -> EditResult:
        """Replace ``old``, which must stand there exactly once, unless ``replace_all``."""
        asked = partial(_one, old, new, replace_all)
        return self._edit(path, asked, expect, encoding, max_bytes, write=True)

    def multi_edit_file(
        self,
        path: FilePath,
        edits: Sequence[tuple[str, str] | tuple[str, str, bool]],
        *,
        expect: str | int | None = None,
        encoding: str = "auto",
        max_bytes: int | None = None,
    ) -> EditResult:
        """Make several edits, one after the other: all of them or none."""
        asked = partial(as_edits, edits)
        return self._edit(path, asked, expect, encoding, max_bytes, write=True)

    def preview_edit(
        self,
        path: FilePath,
        old: str,
        new: str,
        *,
        replace_all: bool = False,
        expect: str | int | None = None,
        encoding: str = "auto",
        max_bytes: int | None = None,
    ) -> EditResult:
        """Tell what ``edit_file`` would do; nothing is written."""
        asked = partial(_one, old, new, replace_all)
        return self._edit(path, asked, expect, encoding, max_bytes, write=False)

    def preview_multi_edit(
        self,
        path: FilePath,
        edits: Sequence[tuple[str, str] | tuple[str, str, bool]],
        *,
        expect: str | int | None = None,
        encoding: str = "auto",
        max_bytes: int | None = None,
    ) -> EditResult:
        """Tell what ``multi_edit_file`` would do; nothing is written."""
        asked = partial(as_edits, edits)
        return self._edit(path, asked, expect, encoding, max_bytes, write=False)

    def count_replacements(
        self, path: FilePath, old: str, *, encoding: str = "auto", max_bytes: int | None = None
    ) -> int:
        """Return how often ``old`` stands in the file, places that overlap counted once."""
        name = as_path(path)
        wanted = as_wanted(old)
        codec, limit = as_encoding(encoding), as_limit(max_bytes)
        return self._raw.count_replacements(name, wanted, self._root, codec, limit)

    def hash_file(self, path: FilePath, algorithm: str = "sha256") -> str:
        """Return the hash of the content in hexadecimal digits."""
        return self._raw.hash_file(as_path(path), as_algorithm(algorithm), self._root)

    def _edit(
        self,
        path: FilePath,
        asked: Callable[[], list[RawEdit]],
        expect: str | int | None,
        encoding: str,
        max_bytes: int | None,
        *,
        write: bool,
    ) -> EditResult:
        name = as_path(path)
        if write:
            self._writable(name)
        modified_ns, sha256 = as_expect(expect)
        raw = asked()
        codec, limit = as_encoding(encoding), as_limit(max_bytes)
        known = (modified_ns, sha256)
        outcome = in_turn(
            partial(self._raw.edit, name, raw, *known, write, self._root, codec, limit)
        )
        places, diff, size, mtime_ns, complete = outcome
        positions = tuple(tuple(Position(*place) for place in each) for each in places)
        count = sum(len(each) for each in positions)
        return EditResult(name, count, positions, diff, size, mtime_ns, complete)


def _one(old: str, new: str, replace_all: bool) -> list[RawEdit]:
    return [as_edit(old, new, replace_all)]


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
