"""Responsible for the encodings of text files: told by the byte order mark or named by the caller,
and the same after a write as before it.

Without a mark a file is UTF-8. UTF-16 is known by its mark only, and Latin-1, which any bytes are
valid in, only when it is asked for: a guess that is wrong would change every byte behind it.
Inside, text has the mark as its first character, so that what comes from a file goes back to it
unchanged.
"""

from __future__ import annotations

import codecs

from vespera_file_ops.errors import EncodingError

__all__ = ["HEAD", "MARK", "MARKS", "decode", "encode", "newline_of", "newlines", "told"]

MARK = "\ufeff"
MARKS = {
    "utf-8": b"",
    "utf-8-sig": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "latin-1": b"",
}
# As many bytes as the longest mark, that of UTF-32, has.
HEAD = 4


def told(path: str, head: bytes, wanted: str | None) -> str:
    """The encoding of a file that begins with ``head``: the one asked for, else the mark's."""
    if wanted is not None:
        if head.startswith(MARKS[wanted]):
            return wanted
        msg = (
            f"{path}: does not begin with the byte order mark of {wanted}; "
            "read it with encoding='auto'"
        )
        raise EncodingError(msg, context={"path": path, "encoding": wanted, "offset": 0})
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        msg = (
            f"{path}: begins with the byte order mark of UTF-32, which is not supported; "
            "read it as bytes with read_file"
        )
        raise EncodingError(msg, context={"path": path, "encoding": "utf-32", "offset": 0})
    for encoding in ("utf-8-sig", "utf-16-le", "utf-16-be"):
        if head.startswith(MARKS[encoding]):
            return encoding
    return "utf-8"


def decode(path: str, content: bytes, encoding: str, offset: int = 0) -> str:
    """The text of ``content``, which stands ``offset`` bytes behind the start of the file. A mark
    at the start of the file is its first character.
    """
    # Python's "utf-8-sig" would take the mark away.
    codec = "utf-8" if encoding == "utf-8-sig" else encoding
    try:
        return content.decode(codec)
    except UnicodeDecodeError as error:
        at = offset + error.start
        name, context = "UTF-8", {"path": path, "offset": at}
        if encoding.startswith("utf-16"):
            name, context = "UTF-16", {"path": path, "encoding": encoding, "offset": at}
        msg = f"{path}: not valid {name} at byte {at}; read it as bytes with read_file"
        raise EncodingError(msg, context=context) from None


def encode(path: str, text: str, encoding: str) -> bytes:
    """The bytes of ``text``, whose first character is the mark where there is one."""
    codec = "utf-8" if encoding == "utf-8-sig" else encoding
    try:
        return text.encode(codec)
    except UnicodeEncodeError as error:
        at = error.start
        msg = (
            f"{path}: latin-1 cannot hold U+{ord(text[at]):04X} at character {at}; "
            "write it as utf-8"
        )
        context = {"path": path, "encoding": encoding, "character": at}
        raise EncodingError(msg, context=context) from None


def newline_of(text: str) -> str | None:
    r"""How the lines end: ``"\n"``, ``"\r\n"``, ``"\r"``, ``"mixed"``, or ``None`` without any."""
    both = text.count("\r\n")
    counts = {"\r\n": both, "\n": text.count("\n") - both, "\r": text.count("\r") - both}
    found = [newline for newline, count in counts.items() if count]
    if len(found) > 1:
        return "mixed"
    return found[0] if found else None


def newlines(content: bytes, encoding: str, start: int = 0) -> int:
    """Where the next newline begins, at or behind ``start``; -1 without one."""
    at = content.find(b"\n", start)
    if encoding == "utf-16-le":
        while at >= 0 and (at % 2 or content[at + 1 : at + 2] != b"\0"):
            at = content.find(b"\n", at + 1)
    elif encoding == "utf-16-be":
        while at >= 0 and (at % 2 == 0 or content[at - 1] != 0):
            at = content.find(b"\n", at + 1)
        return at - 1 if at >= 0 else at
    return at
