"""Responsible for the operations on text: encodings, ranges of lines, chunks, replacements."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

from vespera_file_ops._arguments import (
    FilePath,
    as_boundary,
    as_encoding,
    as_endings,
    as_expect,
    as_limit,
    as_path,
    as_text,
    as_unwritten,
    as_whole,
)
from vespera_file_ops._turns import in_turn
from vespera_file_ops.results import Chunk, LineRange, TextFile, WriteResult

__all__ = ["RawText", "TextOperations"]


class RawText(Protocol):
    """What a backend has for text; an encoding of ``None`` is told by the byte order mark."""

    def read_text(
        self,
        path: str,
        encoding: str | None = None,
        max_bytes: int | None = None,
        root: Any = None,
    ) -> tuple[str, str, str | None, int, int]: ...
    def read_lines(
        self,
        path: str,
        start: int,
        count: int | None = None,
        encoding: str | None = None,
        max_bytes: int | None = None,
        root: Any = None,
    ) -> tuple[str, int, int, bool, str]: ...
    def write_text(
        self,
        path: str,
        text: str,
        encoding: str | None,
        endings: str | None,
        modified_ns: int | None = None,
        sha256: str | None = None,
        root: Any = None,
    ) -> tuple[int, int, str]: ...
    def chunk_text(
        self, text: str, size: int, overlap: int, boundary: str
    ) -> list[tuple[int, int, int, int, int]]: ...


class TextOperations:
    """The operations on text of one backend, documented in ``vespera_file_ops.api``."""

    _raw: RawText
    _root: Any

    def _writable(self, path: str) -> str:
        raise NotImplementedError

    def read_text(
        self, path: FilePath, *, encoding: str = "auto", max_bytes: int | None = None
    ) -> TextFile:
        """Return the text and how the file holds it."""
        name = as_path(path)
        found = self._raw.read_text(name, as_encoding(encoding), as_limit(max_bytes), self._root)
        return TextFile(name, *found)

    def read_lines(
        self,
        path: FilePath,
        start: int = 1,
        count: int | None = None,
        *,
        encoding: str = "auto",
        max_bytes: int | None = None,
    ) -> LineRange:
        """Return ``count`` lines from line ``start`` on; what follows is not read."""
        name = as_path(path)
        first = as_whole("start", start, 1)
        many = None if count is None else as_whole("count", count, 0)
        text, begin, end, ended, found = self._raw.read_lines(
            name, first, many, as_encoding(encoding), as_limit(max_bytes), self._root
        )
        lines = text.count("\n") + (0 if not text or text.endswith("\n") else 1)
        return LineRange(name, text, first, lines, begin, end, ended, found)

    def write_text(
        self,
        path: FilePath,
        text: str,
        *,
        encoding: str = "auto",
        newline: str | None = "keep",
        expect: str | int | None = None,
    ) -> WriteResult:
        """Replace the text atomically; encoding and line endings stay those of the file."""
        name = self._writable(as_path(path))
        call = partial(
            self._raw.write_text,
            name,
            as_text(text, "text"),
            as_encoding(encoding),
            as_endings(newline),
            *as_expect(expect),
            self._root,
        )
        return WriteResult(name, *in_turn(call))

    def chunk_text(
        self, text: str, size: int, *, overlap: int = 0, boundary: str = "line"
    ) -> list[Chunk]:
        """Cut a text into chunks of at most ``size`` characters."""
        whole = as_unwritten(text, "text")
        most = as_whole("size", size, 1)
        common = as_whole("overlap", overlap, 0)
        if common >= most:
            msg = f"overlap is {common}; give less than size, which is {most}"
            raise ValueError(msg)
        found = self._raw.chunk_text(whole, most, common, as_boundary(boundary))
        return [Chunk(whole[one[2] : one[3]], *one) for one in found]
