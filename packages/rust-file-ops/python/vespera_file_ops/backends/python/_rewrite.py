"""Responsible for new content in place of a whole file: atomically, over the expected file only,
and, for text, in the encoding and with the line endings that the file has.
"""

from __future__ import annotations

import os

from vespera_file_ops.backends.python._atomic import replace
from vespera_file_ops.backends.python._hash import sha256_of
from vespera_file_ops.backends.python._naming import naming
from vespera_file_ops.backends.python._open import open_for_reading
from vespera_file_ops.backends.python._place import Place, Root
from vespera_file_ops.backends.python._text import HEAD, MARK, MARKS, encode, newlines, told
from vespera_file_ops.backends.python._turns import alone, check

__all__ = ["replace_file", "write_text"]

# Line endings are told from so many bytes: enough to know a file by, and a bound.
_LOOKED_AT = 1 << 16


def replace_file(
    path: str,
    content: bytes,
    modified_ns: int | None = None,
    sha256: str | None = None,
    root: Root | None = None,
) -> None:
    """Replace the content atomically, if the file is the expected one."""
    _replace_expected(Place(path, root), content, modified_ns, sha256)


def write_text(
    path: str,
    text: str,
    encoding: str | None,
    endings: str | None,
    modified_ns: int | None = None,
    sha256: str | None = None,
    root: Root | None = None,
) -> tuple[int, int, str]:
    """Replace the text atomically; size, time of change and encoding of the new file."""
    place = Place(path, root)
    keeps = endings == "keep" and "\n" in text and "\r" not in text
    start = b""
    if encoding is None or keeps:
        start = _start_of(place, _LOOKED_AT if keeps else HEAD)
    if encoding is None:
        encoding = told(path, start, None)
    if endings == "\r\n" or (keeps and _ends_with_crlf(start, encoding)):
        text = text.replace("\r\n", "\n").replace("\n", "\r\n")
    elif endings == "\n":
        text = text.replace("\r\n", "\n")
    if MARKS[encoding] and not text.startswith(MARK):
        text = MARK + text
    content = encode(path, text, encoding)
    status = _replace_expected(place, content, modified_ns, sha256)
    if encoding == "utf-8" and text.startswith(MARK):
        # What begins with the mark has one, whoever put it there.
        encoding = "utf-8-sig"
    return len(content), status.st_mtime_ns, encoding


def _replace_expected(
    place: Place, content: bytes, modified_ns: int | None, sha256: str | None
) -> os.stat_result:
    if modified_ns is None and sha256 is None:
        return replace(place, content)
    with alone(place):
        with naming(place.path), open_for_reading(place) as (descriptor, status):
            # Nobody wants the content: it is hashed as it is read, whatever its size.
            check(place.path, lambda: sha256_of(descriptor), status, modified_ns, sha256)
        return replace(place, content, status)


def _start_of(place: Place, most: int) -> bytes:
    """The first bytes of the file; none if there is no file yet."""
    start = bytearray()
    with naming(place.path):
        try:
            with open_for_reading(place) as (descriptor, _):
                while len(start) < most and (part := os.read(descriptor, most - len(start))):
                    start += part
        except FileNotFoundError:
            return b""
    return bytes(start)


def _ends_with_crlf(start: bytes, encoding: str) -> bool:
    r"""Whether there are lines and all of them end with ``\r\n``."""
    width = 2 if encoding.startswith("utf-16") else 1
    carriage = {"utf-16-le": b"\r\0", "utf-16-be": b"\0\r"}.get(encoding, b"\r")
    at = newlines(start, encoding)
    if at < 0:
        return False
    while at >= 0:
        if start[max(at - width, 0) : at] != carriage:
            return False
        at = newlines(start, encoding, at + width)
    return True
