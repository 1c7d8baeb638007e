"""Responsible for the values that operations give back; both backends give the same ones."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DirectoryEntry", "EditResult", "FileInfo", "Position"]


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
