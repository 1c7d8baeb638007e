"""Responsible for the operations that find files and what is in them, once for both backends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vespera_file_ops._arguments import FilePath, as_limit, as_path, as_pattern
from vespera_file_ops._finding import (
    Case,
    Found,
    Names,
    as_query,
    as_searched,
    as_selection,
)
from vespera_file_ops.results import DirectoryEntry, FileCount, Match, WalkEntry

if TYPE_CHECKING:
    from vespera_file_ops._operations import Raw

__all__ = ["FindOperations"]


class FindOperations:
    """Walking, listing and searching. Their meaning is documented in ``vespera_file_ops.api``."""

    _raw: Raw
    _root: Any

    def glob_files(
        self, directory: FilePath, pattern: str, *, gitignore: bool = False
    ) -> list[str]:
        """Return the files beneath ``directory`` that match ``pattern``, sorted."""
        name, text = as_path(directory), as_pattern(pattern)
        return self._raw.glob_files(name, text, bool(gitignore), self._root)

    def list_directory(self, path: FilePath, *, gitignore: bool = False) -> list[DirectoryEntry]:
        """Return the entries of a directory, sorted by the bytes of their names."""
        found = self._raw.list_directory(as_path(path), bool(gitignore), self._root)
        return [DirectoryEntry(name, kind) for name, kind in found]

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
    ) -> Found[WalkEntry]:
        """Walk everything beneath ``directory``."""
        selection = as_selection(
            gitignore=gitignore,
            hidden=hidden,
            follow=follow,
            include=include,
            exclude=exclude,
            max_depth=max_depth,
            sort=sort,
        )
        return Found(self._raw.walk(as_path(directory), selection, self._root))

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
    ) -> list[Match]:
        """Return the lines of ``text`` that match ``pattern``."""
        query = as_query(
            pattern,
            literal=literal,
            case=case,
            word=word,
            multiline=multiline,
            before=before,
            after=after,
        )
        return self._raw.search_text(as_searched(text), query, as_limit(limit, "limit"))

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
    ) -> Found[Match]:
        """Find the lines that match ``pattern`` in the files beneath ``directory``."""
        query = as_query(
            pattern,
            literal=literal,
            case=case,
            word=word,
            multiline=multiline,
            before=before,
            after=after,
            max_per_file=max_per_file,
        )
        selection = as_selection(
            gitignore=gitignore,
            hidden=hidden,
            follow=follow,
            include=include,
            exclude=exclude,
            types=types,
            max_depth=max_depth,
            sort=sort,
        )
        most = as_limit(limit, "limit")
        size = as_limit(max_file_size, "max_file_size")
        found = self._raw.search_files(
            as_path(directory), query, selection, bool(binary), size, self._root
        )
        return Found(found, most)

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
    ) -> Found[FileCount]:
        """Count lines and matches in each file beneath ``directory`` that has any."""
        query = as_query(
            pattern, literal=literal, case=case, word=word, multiline=multiline, count=True
        )
        selection = as_selection(
            gitignore=gitignore,
            hidden=hidden,
            follow=follow,
            include=include,
            exclude=exclude,
            types=types,
            max_depth=max_depth,
            sort=sort,
        )
        size = as_limit(max_file_size, "max_file_size")
        found = self._raw.search_files(
            as_path(directory), query, selection, bool(binary), size, self._root
        )
        return Found(found)
