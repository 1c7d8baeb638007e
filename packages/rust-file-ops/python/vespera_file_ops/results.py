"""Responsible for the values that operations give back; both backends give the same ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

__all__ = [
    "Chunk",
    "DirectoryEntry",
    "EditResult",
    "FileCount",
    "FileInfo",
    "FileResult",
    "LineRange",
    "Match",
    "Position",
    "Span",
    "TextFile",
    "WalkEntry",
    "WriteResult",
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the text as it was when its edit began, counted from 0 but for the line.

    A byte order mark at the start of the file counts.
    """

    byte: int
    """Offset in bytes, in the encoding of the file."""
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
    """Unified diff, three lines of context; empty if nothing differs. At most 1 MiB of it. Its
    names are quoted as ``git`` and GNU ``diff`` do, so that ``patch`` reads them."""
    size: int
    """Bytes of the file afterwards."""
    mtime_ns: int
    """Time of change of the file as it is now: good as ``expect`` of the next edit."""
    diff_complete: bool = True
    """Whether the diff is all there."""


@dataclass(frozen=True, slots=True)
class DirectoryEntry:
    """A name in a directory."""

    name: str
    kind: str
    """``"file"``, ``"directory"``, ``"symlink"`` (not followed) or ``"other"``."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What a path leads to, or, with ``follow_symlinks=False``, is."""

    path: str
    size: int
    is_file: bool
    is_dir: bool
    kind: str
    """``"file"``, ``"directory"``, ``"symlink"``, ``"fifo"``, ``"socket"`` or ``"device"``."""
    mode: int
    """Permissions, set-id and sticky bits, as ``stat.S_IMODE`` gives them."""
    mtime_ns: int
    """Time of the last change: good as ``expect`` of an edit."""
    is_symlink: bool
    """Whether the path itself is a symlink, followed or not."""
    links: int
    """How many names the file has."""
    inode: int
    device: int
    uid: int
    gid: int


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


@dataclass(frozen=True, slots=True)
class TextFile:
    """The text of a file, and what the file needs to stay as it is."""

    path: str
    text: str
    """Without a byte order mark; line endings as they are."""
    encoding: str
    """``"utf-8"``, ``"utf-8-sig"``, ``"utf-16-le"``, ``"utf-16-be"`` or ``"latin-1"``. All with a
    byte order mark but the first and the last."""
    newline: str | None
    r"""How the lines end: ``"\n"``, ``"\r\n"``, ``"\r"``, ``"mixed"``, ``None`` without any."""
    size: int
    """Bytes of the file."""
    mtime_ns: int
    """Time of change of the file: good as ``expect`` of an edit or a write."""


@dataclass(frozen=True, slots=True)
class LineRange:
    """Some lines of a file."""

    path: str
    text: str
    """The lines with their endings."""
    start: int
    """Number of the first line, from 1."""
    count: int
    """How many lines there are: fewer than asked for where the file ends."""
    byte_start: int
    byte_end: int
    """Where the lines stand in the file."""
    end_of_file: bool
    """Whether the file ends with them."""
    encoding: str

    @property
    def lines(self) -> list[str]:
        r"""The lines without their endings (``\n`` or ``\r\n``)."""
        return [line.removesuffix("\r") for line in self.text.removesuffix("\n").split("\n")][
            : self.count
        ]


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What ``write_text`` wrote."""

    path: str
    size: int
    mtime_ns: int
    """Time of change of the new file: good as ``expect`` of the next write or edit."""
    encoding: str
    """That of the file as it is now, named as in ``TextFile``."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A part of a text. The parts of all chunks behind the end of the one before are the text."""

    text: str
    byte_start: int
    byte_end: int
    """Where it stands in the UTF-8 bytes of the text."""
    character_start: int
    character_end: int
    """Where it stands in the text."""
    line: int
    """Number of the line that it begins in, from 1."""


@dataclass(frozen=True, slots=True)
class FileResult(Generic[T]):
    """What a batch did with one file: ``value``, or ``error`` where there was one."""

    path: str
    value: T | None = None
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        """Whether there was no error."""
        return self.error is None

    def unwrap(self) -> T:
        """Return the value or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value  # type: ignore[return-value]
