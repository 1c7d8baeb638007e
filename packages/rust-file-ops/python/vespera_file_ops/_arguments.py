"""Responsible for what both backends accept: the same arguments in, the same refusals out."""

from __future__ import annotations

import os
from typing import TypeAlias

from vespera_file_ops.errors import EncodingError, PatternError

__all__ = ["FilePath", "as_bytes", "as_path", "as_pattern", "as_text"]

FilePath: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
"""A path as callers give it. Names that are not UTF-8 may come as bytes."""


def as_path(path: FilePath) -> str:
    """Return ``path`` as text, undecodable bytes escaped; refuse what no system accepts."""
    text = os.fsdecode(path)
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
