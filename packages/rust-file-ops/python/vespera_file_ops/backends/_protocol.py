"""Responsible for what a backend must offer; mypy checks both modules against it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from vespera_file_ops._arguments import FilePath
from vespera_file_ops._finding import Case, Found, Names
from vespera_file_ops._operations import WorkspaceOperations
from vespera_file_ops.results import (
    Chunk,
    DirectoryEntry,
    EditResult,
    FileCount,
    FileInfo,
    FileResult,
    LineRange,
    Match,
    TextFile,
    WalkEntry,
    WriteResult,
)

__all__ = ["FileOps"]


class FileOps(Protocol):
    """The public names. Their meaning is documented once, in ``vespera_file_ops.api``."""

    def read_file(self, path: FilePath, *, max_bytes: int | None = None) -> bytes: ...
    def read_file_string(self, path: FilePath, *, max_bytes: int | None = None) -> str: ...
    def read_file_lines(self, path: FilePath, *, max_bytes: int | None = None) -> list[str]: ...
    def read_text(
        self, path: FilePath, *, encoding: str = "auto", max_bytes: int | None = None
    ) -> TextFile: ...
    def read_lines(
        self,
        path: FilePath,
        start: int = 1,
        count: int | None = None,
        *,
        encoding: str = "auto",
        max_bytes: int | None = None,
    ) -> LineRange: ...
    def read_files(
        self,
        paths: Iterable[FilePath],
        *,
        max_bytes: int | None = None,
        threads: int | None = None,
    ) -> list[FileResult[bytes]]: ...
    def write_file(
        self,
        path: FilePath,
        content: bytes | bytearray | memoryview,
        *,
        atomic: bool = False,
        expect: str | int | None = None,
    ) -> None: ...
    def write_text(
        self,
        path: FilePath,
        text: str,
        *,
        encoding: str = "auto",
        newline: str | None = "keep",
        expect: str | int | None = None,
    ) -> WriteResult: ...
    def write_files(
        self,
        items: Iterable[tuple[FilePath, bytes | bytearray | memoryview | str]],
        *,
        atomic: bool = True,
        threads: int | None = None,
    ) -> list[FileResult[None]]: ...
    def write_file_string(self, path: FilePath, content: str) -> None: ...
    def append_file(self, path: FilePath, content: str) -> None: ...
    def write_file_atomic(self, path: FilePath, content: str) -> None: ...
    def glob_files(
        self, directory: FilePath, pattern: str, *, gitignore: bool = False
    ) -> list[str]: ...
    def get_file_info(self, path: FilePath) -> tuple[int, bool, bool]: ...
    def file_info(self, path: FilePath, *, follow_symlinks: bool = True) -> FileInfo: ...
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
    ) -> EditResult: ...
    def multi_edit_file(
        self,
        path: FilePath,
        edits: Sequence[tuple[str, str] | tuple[str, str, bool]],
        *,
        expect: str | int | None = None,
        encoding: str = "auto",
        max_bytes: int | None = None,
    ) -> EditResult: ...
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
    ) -> EditResult: ...
    def preview_multi_edit(
        self,
        path: FilePath,
        edits: Sequence[tuple[str, str] | tuple[str, str, bool]],
        *,
        expect: str | int | None = None,
        encoding: str = "auto",
        max_bytes: int | None = None,
    ) -> EditResult: ...
    def count_replacements(
        self, path: FilePath, old: str, *, encoding: str = "auto", max_bytes: int | None = None
    ) -> int: ...
    def list_directory(
        self, path: FilePath, *, gitignore: bool = False
    ) -> list[DirectoryEntry]: ...
    def walk(
        self,
        directory: FilePath,
        *,
        gitignore: bool = False,
        hidden: bool = True,
        follow: bool = False,
        include: Names = (),
        exclude: Names = (),
        max_depth: int | None = None,
        sort: bool = False,
    ) -> Found[WalkEntry]: ...
    def search_text(
        self,
        text: str | bytes | bytearray | memoryview,
        pattern: str,
        *,
        literal: bool = False,
        case: Case = "sensitive",
        word: bool = False,
        multiline: bool = False,
        before: int = 0,
        after: int = 0,
        limit: int | None = None,
    ) -> list[Match]: ...
    def search_files(
        self,
        directory: FilePath,
        pattern: str,
        *,
        literal: bool = False,
        case: Case = "sensitive",
        word: bool = False,
        multiline: bool = False,
        before: int = 0,
        after: int = 0,
        include: Names = (),
        exclude: Names = (),
        types: Names = (),
        gitignore: bool = True,
        hidden: bool = False,
        follow: bool = False,
        binary: bool = False,
        max_depth: int | None = None,
        max_file_size: int | None = None,
        max_per_file: int | None = None,
        limit: int | None = None,
        sort: bool = False,
    ) -> Found[Match]: ...
    def count_matches(
        self,
        directory: FilePath,
        pattern: str,
        *,
        literal: bool = False,
        case: Case = "sensitive",
        word: bool = False,
        multiline: bool = False,
        include: Names = (),
        exclude: Names = (),
        types: Names = (),
        gitignore: bool = True,
        hidden: bool = False,
        follow: bool = False,
        binary: bool = False,
        max_depth: int | None = None,
        max_file_size: int | None = None,
        sort: bool = False,
    ) -> Found[FileCount]: ...
    def hash_file(self, path: FilePath, algorithm: str = "sha256") -> str: ...
    def hash_files(
        self,
        paths: Iterable[FilePath],
        algorithm: str = "sha256",
        *,
        threads: int | None = None,
    ) -> list[FileResult[str]]: ...
    def chunk_text(
        self, text: str, size: int, *, overlap: int = 0, boundary: str = "line"
    ) -> list[Chunk]: ...
    def Workspace(self, root: FilePath, read_only: bool = False) -> WorkspaceOperations: ...
