"""Responsible for what both backends accept: the same arguments in, the same refusals out."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TypeAlias

from vespera_file_ops.errors import EditError, EncodingError, PatternError

__all__ = [
    "FilePath",
    "RawEdit",
    "as_algorithm",
    "as_boundary",
    "as_bytes",
    "as_edits",
    "as_encoding",
    "as_endings",
    "as_expect",
    "as_limit",
    "as_path",
    "as_pattern",
    "as_text",
    "as_wanted",
    "as_whole",
]

RawEdit: TypeAlias = tuple[str, str, bool]
"""Old text, new text, whether all places are meant."""

FilePath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
"""A path as callers give it. Names that are not UTF-8 may come as bytes."""


def as_path(path: FilePath) -> str:
    """Return ``path`` as text, undecodable bytes escaped; refuse what no system accepts."""
    # Most paths are text, and a call into os costs as much as the rest of this.
    text = path if type(path) is str else os.fsdecode(path)
    if "\0" in text:
        msg = f"path {text!r} holds a NUL character, which no file name can have"
        raise ValueError(msg)
    return text


def as_bytes(content: object) -> bytes:
    """Return ``content`` as immutable bytes: it is written while other threads run."""
    if isinstance(content, bytes):
        return content
    if isinstance(content, bytearray | memoryview):
        return bytes(content)
    msg = f"content must be bytes, not {type(content).__name__}; for text use write_file_string"
    raise TypeError(msg)


def as_text(content: object) -> str:
    """Return ``content`` if it is text that UTF-8 can hold (no lone surrogates)."""
    if not isinstance(content, str):
        msg = f"content must be str, not {type(content).__name__}; for bytes use write_file"
        raise TypeError(msg)
    if not content.isascii():
        try:
            content.encode()
        except UnicodeEncodeError as error:
            character = content[error.start]
            msg = (
                f"content has {character!a} at character {error.start}, which UTF-8 cannot hold; "
                "encode it yourself and use write_file"
            )
            raise EncodingError(msg, context={"character": error.start}) from error
    return content


def as_pattern(pattern: object) -> str:
    """Return ``pattern`` if it is text that a file name could match."""
    if not isinstance(pattern, str):
        msg = f"pattern must be str, not {type(pattern).__name__}"
        raise TypeError(msg)
    try:
        os.fsencode(pattern)
    except UnicodeEncodeError as error:
        reason = f"has {pattern[error.start]!a}, which no file name can have"
        msg = f"glob pattern {pattern!a}: {reason}"
        raise PatternError(msg, context={"pattern": pattern, "reason": reason}) from error
    return pattern


def as_wanted(old: object) -> str:
    """Return ``old`` if it is text that can stand somewhere."""
    text = as_text(old)
    if not text:
        msg = "the text to look for is empty; give the text that is to be replaced"
        raise EditError(msg, context={"field": "old"})
    return text


def as_edits(edits: Sequence[Sequence[str | bool]]) -> list[RawEdit]:
    """Return the edits as triples; refuse those that mean nothing."""
    raw: list[RawEdit] = []
    for number, edit in enumerate(edits):
        if isinstance(edit, str) or len(edit) not in (2, 3):
            msg = f"edit {number + 1} must be (old, new) or (old, new, replace_all), not {edit!r}"
            raise TypeError(msg)
        old, new = as_wanted(edit[0]), as_text(edit[1])
        if old == new:
            msg = f"edit {number + 1}: old and new text are the same; nothing would change"
            raise EditError(msg, context={"edit": number})
        raw.append((old, new, bool(edit[2]) if len(edit) == 3 else False))
    if not raw:
        msg = "no edits given; give at least one (old, new)"
        raise EditError(msg, context={"field": "edits"})
    return raw


def as_expect(expect: object) -> tuple[int | None, str | None]:
    """Return the expected time of change in nanoseconds, or the expected SHA-256."""
    if expect is None:
        return None, None
    if isinstance(expect, int) and not isinstance(expect, bool):
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
