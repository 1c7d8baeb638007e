"""Responsible for what both backends accept: the same arguments in, the same refusals out."""

from __future__ import annotations

import os
import re
import reprlib
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from vespera_file_ops.errors import EditError, EncodingError, PatternError

__all__ = [
    "FilePath",
    "RawEdit",
    "as_algorithm",
    "as_boundary",
    "as_bytes",
    "as_edit",
    "as_edits",
    "as_encoding",
    "as_endings",
    "as_expect",
    "as_limit",
    "as_path",
    "as_pattern",
    "as_text",
    "as_unwritten",
    "as_wanted",
    "as_whole",
    "not_utf8",
]

RawEdit: TypeAlias = tuple[str, str, bool]
"""Old text, new text, whether all places are meant."""

FilePath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
"""A path as callers give it. Names that are not UTF-8 may come as bytes."""


# More nanoseconds than 64 bits of seconds, the most that a system tells, have.
_MOST_NS = 1 << 94


def as_path(path: FilePath) -> str:
    """Return ``path`` as text, undecodable bytes escaped; refuse what no system accepts."""
    # Most paths are text, and a call into os costs as much as the rest of this.
    text = path if type(path) is str else os.fsdecode(path)
    if "\0" in text:
        msg = f"path {text!r} holds a NUL character, which no file name can have"
        raise ValueError(msg)
    if not text.isascii():
        try:
            os.fsencode(text)
        except UnicodeEncodeError as error:
            msg = (
                f"path {text!a} has {text[error.start]!a} at character {error.start}, which no "
                "file name can have; give the name as bytes, or as os.fsdecode makes it of them"
            )
            raise ValueError(msg) from error
    return text


def as_bytes(content: object, remedy: str = "for text use write_file_string") -> bytes:
    """Return ``content`` as immutable bytes: it is written while other threads run."""
    if isinstance(content, bytes):
        return content
    if isinstance(content, bytearray | memoryview):
        return bytes(content)
    msg = f"content must be bytes, not {type(content).__name__}; {remedy}"
    raise TypeError(msg)


def as_text(
    text: object,
    field: str = "content",
    *,
    other: str = "for bytes use write_file",
    surrogate: str = "encode it yourself and use write_file",
) -> str:
    """Return ``text``, called ``field``, if it is text that UTF-8 can hold (no lone surrogates).
    ``other`` and ``surrogate`` are the remedies for what is no text and for what cannot be held.
    """
    if not isinstance(text, str):
        msg = f"{field} must be str, not {type(text).__name__}; {other}"
        raise TypeError(msg)
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise not_utf8(error, field, surrogate) from error
    return text


def as_unwritten(text: object, field: str) -> str:
    """The same for a text that is compared or cut, where bytes have no function of their own."""
    return as_text(
        text,
        field,
        other="decode it first",
        surrogate="take it out, no text file has it",
    )


def not_utf8(error: UnicodeEncodeError, field: str, remedy: str) -> EncodingError:
    """The text called ``field`` has a character that UTF-8 cannot hold."""
    character = error.object[error.start]
    msg = f"{field} has {character!a} at character {error.start}, which UTF-8 cannot hold; {remedy}"
    return EncodingError(msg, context={"character": error.start})


def as_pattern(pattern: object, field: str = "pattern") -> str:
    """Return ``pattern`` if it is text that a file name could match."""
    if not isinstance(pattern, str):
        msg = f"{field} must be str, not {type(pattern).__name__}"
        raise TypeError(msg)
    try:
        os.fsencode(pattern)
    except UnicodeEncodeError as error:
        reason = f"has {pattern[error.start]!a}, which no file name can have"
        msg = f"glob pattern {pattern!a}: {reason}"
        raise PatternError(msg, context={"pattern": pattern, "reason": reason}) from error
    return pattern


def as_wanted(old: object, which: str = "") -> str:
    """Return ``old`` if it is text that can stand somewhere."""
    text = as_unwritten(old, f"{which}old")
    if not text:
        msg = f"{which}old is empty; give the text that is to be replaced"
        raise EditError(msg, context={"field": "old"})
    return text


def as_edit(old: object, new: object, replace_all: object, number: int | None = None) -> RawEdit:
    """Return an edit, of several the one with that index; refuse one that means nothing."""
    which = "" if number is None else f"edit {number + 1}: "
    wanted, made = as_wanted(old, which), as_unwritten(new, f"{which}new")
    if wanted == made:
        msg = f"{which}old and new are the same, {reprlib.repr(wanted)}; nothing would change"
        raise EditError(msg, context={"edit": number or 0})
    return wanted, made, bool(replace_all)


def as_edits(edits: object) -> list[RawEdit]:
    """Return the edits as triples; refuse those that mean nothing."""
    if not isinstance(edits, Iterable):
        msg = f"edits must be several (old, new), not {type(edits).__name__}; give a list of them"
        raise TypeError(msg)
    raw: list[RawEdit] = []
    for number, edit in enumerate(edits):
        # A dict has a length, too, and no places.
        row = edit if isinstance(edit, Sequence) and not isinstance(edit, str | bytes) else ()
        if len(row) not in (2, 3):
            shown = reprlib.repr(edit)
            msg = f"edit {number + 1} must be (old, new) or (old, new, replace_all), not {shown}"
            raise TypeError(msg)
        old, new, *rest = row
        raw.append(as_edit(old, new, rest[0] if rest else False, number))
    if not raw:
        msg = "no edits given; give at least one (old, new)"
        raise EditError(msg, context={"field": "edits"})
    return raw


def as_expect(expect: object) -> tuple[int | None, str | None]:
    """Return the expected time of change in nanoseconds, or the expected SHA-256."""
    if expect is None:
        return None, None
    if isinstance(expect, int) and not isinstance(expect, bool) and abs(expect) < _MOST_NS:
        return expect, None
    if isinstance(expect, str) and re.fullmatch("[0-9a-fA-F]{64}", expect):
        return None, expect.lower()
    msg = (
        f"expect is {expect!r}; give the SHA-256 as hash_file returns it (64 hexadecimal digits) "
        "or st_mtime_ns as an int"
    )
    raise ValueError(msg)


def as_algorithm(algorithm: object) -> str:
    """Return the name of a hash that both backends have."""
    if algorithm not in ("sha256", "blake3"):
        msg = f"algorithm is {algorithm!r}; use 'sha256' or 'blake3'"
        raise ValueError(msg)
    return str(algorithm)


def as_encoding(encoding: object) -> str | None:
    """Return the name of an encoding, or ``None`` for ``"auto"``."""
    if encoding == "auto":
        return None
    if encoding in ("utf-8", "utf-8-sig", "utf-16-le", "utf-16-be", "latin-1"):
        return str(encoding)
    msg = (
        f"encoding is {encoding!r}; use 'auto', 'utf-8', 'utf-8-sig', 'utf-16-le', 'utf-16-be' "
        "or 'latin-1'"
    )
    raise ValueError(msg)


def as_endings(newline: object) -> str | None:
    """Return how lines are to end."""
    if newline is None or newline in ("keep", "\n", "\r\n"):
        return newline
    msg = f"newline is {newline!r}; use 'keep', '\\n', '\\r\\n' or None (as given)"
    raise ValueError(msg)


def as_boundary(boundary: object) -> str:
    """Return the name of what chunks end at."""
    if boundary not in ("character", "line", "sentence"):
        msg = f"boundary is {boundary!r}; use 'character', 'line' or 'sentence'"
        raise ValueError(msg)
    return str(boundary)


def as_limit(limit: object, name: str = "max_bytes", least: int = 0) -> int | None:
    """Return a limit, or ``None`` for no limit."""
    return None if limit is None else as_whole(name, limit, least)


def as_whole(name: str, value: object, least: int, most: int = (1 << 63) - 1) -> int:
    """Return ``value`` if it is a whole number of the right size."""
    if not isinstance(value, int) or isinstance(value, bool):
        msg = f"{name} must be an int, not {type(value).__name__}"
        raise TypeError(msg)
    if value < least:
        msg = f"{name} is {value}; give {least} or more"
        raise ValueError(msg)
    if value > most:
        msg = f"{name} is {value}; give at most {most}"
        raise ValueError(msg)
    return value
