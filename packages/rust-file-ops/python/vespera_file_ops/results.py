"""Responsible for the values that operations give back; both backends give the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "DirectoryEntry",
    "EditResult",
    "FileCount",
    "FileInfo",
    "Match",
    "Position",
    "Span",
    "WalkEntry",
]


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the text as it was when its edit began, counted from 0 but for the line."""

    byte: int
    """Offset in the UTF-8 bytes."""
    character: int
    """Offset in code points."""
    line: int
    """Number of the line, from 1."""


@dataclass(frozen=True, slots=True)
class EditResult:
    """What an edit did, or, from ``preview_edit``, would do."""

    path: str
    replacements: int
    """How many places were replaced, all edits together."""
    positions: tuple[tuple[Position, ...], ...]
    """The places of each edit, in the order of the edits."""
    diff: str
    """Unified diff, three lines of context; empty if nothing differs."""
    size: int
    """Bytes of the file afterwards."""
    mtime_ns: int
    """Time of change of the file as it is now: good as ``expect`` of the next edit."""


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """A name in a directory."""

    name: str
    kind: str
    """``"file"``, ``"directory"``, ``"symlink"`` (not followed) or ``"other"``."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What a path leads to, symlinks followed."""

    path: str
    size: int
    is_file: bool
    is_dir: bool


class WalkEntry(NamedTuple):
    """A name that a walk came to."""

    path: str
    """The directory as it was given, joined with the way from there."""
    kind: str
    """``"file"``, ``"directory"``, ``"symlink"`` (not followed) or ``"other"``."""


class Span(NamedTuple):
    """One match within the text of a ``Match``."""

    byte: int
    """Offset of its first byte in the file, from 0."""
    byte_end: int
    """Offset of the byte behind it."""
    start: int
    """Offset of its first character in ``Match.text``: ``text[start:end]`` is what matched."""
    end: int
    """Offset of the character behind it."""


class Match(NamedTuple):
    """A line that matches, or, with ``multiline``, the lines that matches share."""

    path: str | None
    """The file; None from ``search_text``."""
    line: int
    """Number of the first line, from 1."""
    text: str
    """The lines without the ending of the last. Bytes that are not UTF-8 are escaped, as in the
    names of files: ``text.encode(errors="surrogateescape")`` gives them back."""
    spans: tuple[Span, ...]
    """The matches, at most the first 1,000."""
    before: tuple[str, ...]
    """The lines before, as many as were asked for and are there."""
    after: tuple[str, ...]
    """The lines after."""
    cut: bool
    """Whether the text is only 64 KiB around the first match, as the whole is longer."""


class FileCount(NamedTuple):
    """How much matches in one file."""

    path: str
    lines: int
    """Lines that match."""
    matches: int
    """Matches in them."""
