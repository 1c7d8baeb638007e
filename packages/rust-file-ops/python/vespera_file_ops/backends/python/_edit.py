"""Responsible for exact replacements in a text file: all of them or none.

An edit names text that must stand in the file exactly once, unless all places are meant. Several
edits apply one after the other, each to the result of the one before. The file is replaced
atomically, and only if nobody has written it since it was read.
"""

from __future__ import annotations

import contextlib
import hashlib
import json

from vespera_file_ops._arguments import RawEdit
from vespera_file_ops._operations import RawOutcome
from vespera_file_ops.backends.python._atomic import replace
from vespera_file_ops.backends.python._diff import Pieces
from vespera_file_ops.backends.python._nearest import nearest
from vespera_file_ops.backends.python._place import Place, Root
from vespera_file_ops.backends.python._read import read_all
from vespera_file_ops.backends.python._text import MARK, MARKS, decode, encode, told
from vespera_file_ops.backends.python._turns import alone, check
from vespera_file_ops.errors import AmbiguousMatch, EditError, StringNotFound

__all__ = ["count_replacements", "edit"]

# An error about an ambiguous text shows no more places than this.
_MAX_SHOWN = 100
_UTF8 = ("utf-8", "utf-8-sig")

_Place = tuple[int, int, int]


def edit(
    path: str,
    edits: list[RawEdit],
    modified_ns: int | None,
    sha256: str | None,
    write: bool,
    root: Root | None = None,
    encoding: str | None = None,
    max_bytes: int | None = None,
) -> RawOutcome:
    """Make the edits; without ``write`` the outcome is only told."""
    place = Place(path, root)
    with alone(place) if write else contextlib.nullcontext():
        content, status = read_all(place, max_bytes)
        check(path, lambda: hashlib.sha256(content).hexdigest(), status, modified_ns, sha256)
        encoding = told(path, content, encoding)
        # The work is done on UTF-8, which most files are.
        text = decode(path, content, encoding)
        original = content if encoding in _UTF8 else text.encode("utf-8")
        pieces = Pieces(len(original))
        current, positions = _apply_all(path, original, edits, pieces, encoding)
        diff, complete = pieces.unified(path, original, current)
        if encoding not in _UTF8:
            current = encode(path, current.decode("utf-8"), encoding)
        if write:
            status = replace(place, current, status)
    return positions, diff, len(current), status.st_mtime_ns, complete


def _apply_all(
    path: str, original: bytes, edits: list[RawEdit], pieces: Pieces, encoding: str
) -> tuple[bytes, list[list[_Place]]]:
    current = original
    positions: list[list[_Place]] = []
    for number, one in enumerate(edits):
        try:
            current, places = _apply(current, one, pieces, encoding)
        except EditError as error:
            which = f"edit {number + 1} of {len(edits)}: " if len(edits) > 1 else ""
            context = {"path": path, "edit": number, **error.context}
            msg = f"{path}: {which}{error.message}"
            raise type(error)(msg, context=context) from None
        positions.append(places)
    return current, positions


def count_replacements(
    path: str,
    old: str,
    root: Root | None = None,
    encoding: str | None = None,
    max_bytes: int | None = None,
) -> int:
    """How often ``old`` stands in the file, as an edit of it would see it."""
    content, _ = read_all(Place(path, root), max_bytes)
    if encoding is None:
        # Any bytes will do for UTF-8: what is no text is not there.
        encoding = told(path, content, None)
    if encoding not in _UTF8:
        encoding = told(path, content, encoding)
        content = decode(path, content, encoding).encode("utf-8")
    start = _start_of_text(content, encoding)
    wanted = old.encode("utf-8")
    count = _count(content, wanted, start)
    if count == 0 and _may_mean_crlf(content, wanted):
        count = _count(content, _with_crlf(wanted), start)
    return count


def _apply(text: bytes, edit: RawEdit, pieces: Pieces, encoding: str) -> tuple[bytes, list[_Place]]:
    old, new = edit[0].encode("utf-8"), edit[1].encode("utf-8")
    start = _start_of_text(text, encoding)
    found = _find(text, old, start)
    if not found and _may_mean_crlf(text, old):
        old = _with_crlf(old)
        new = _with_crlf(new)
        found = _find(text, old, start)
    elif b"\n" not in old and _lone_newlines(new) and b"\r\n" in text and not _lone_newlines(text):
        new = _with_crlf(new)
    if not found:
        raise _absent(text[start:], edit[0])
    places = _positions(text, found, encoding)
    if len(places) > 1 and not edit[2]:
        raise _ambiguous(places)
    pieces.replace(found, len(old), len(new))
    return _replaced(text, found, len(old), new), places


def _replaced(text: bytes, found: list[int], old: int, new: bytes) -> bytes:
    ends = [0, *(at + old for at in found)]
    view = memoryview(text)
    return new.join(view[end:at] for end, at in zip(ends, [*found, len(text)], strict=True))


def _start_of_text(utf8: bytes, encoding: str) -> int:
    """Bytes in front of what is text: those of the mark, if there is one."""
    mark = MARK.encode("utf-8")
    return len(mark) if MARKS[encoding] and utf8.startswith(mark) else 0


def _may_mean_crlf(text: bytes, old: bytes) -> bool:
    """The file's line endings are kept: who asks with a newline for what is not there means the
    file's own.
    """
    return b"\n" in old and b"\r" not in old and b"\r\n" in text


def _with_crlf(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


def _lone_newlines(text: bytes) -> bool:
    return text.count(b"\n") > text.count(b"\r\n")


def _find(text: bytes, old: bytes, start: int) -> list[int]:
    """Where ``old`` stands, from ``start`` on, places that overlap told once. One with a newline
    alone does not begin inside a line ending of two: replacing it there would leave half of it.
    """
    lone = _begins_lone(old)
    found = []
    at = text.find(old, start)
    while at >= 0:
        if lone and text[at - 1 : at] == b"\r":
            at = text.find(old, at + 1)
            continue
        found.append(at)
        at = text.find(old, at + len(old))
    return found


def _count(text: bytes, old: bytes, start: int) -> int:
    return len(_find(text, old, start)) if _begins_lone(old) else text.count(old, start)


def _begins_lone(old: bytes) -> bool:
    return old.startswith(b"\n") and b"\r" not in old


def _positions(text: bytes, found: list[int], encoding: str) -> list[_Place]:
    places = []
    start, byte, character, line = 0, 0, 0, 1
    for at in found:
        between = text[start:at]
        characters = between.decode("utf-8")
        byte += _width(between, characters, encoding)
        character += len(characters)
        line += between.count(b"\n")
        start = at
        places.append((byte, character, line))
    return places


def _width(utf8: bytes, text: str, encoding: str) -> int:
    """Bytes that the text takes in the file."""
    if encoding in _UTF8:
        return len(utf8)
    return len(text) if encoding == "latin-1" else len(text.encode(encoding))


def _absent(text: bytes, old: str) -> StringNotFound:
    msg = "the text to replace is not there"
    line, shown = nearest(text.decode("utf-8"), old) or (None, None)
    if shown is not None:
        msg += f"; the nearest is at line {line}: {json.dumps(shown, ensure_ascii=False)}"
    return StringNotFound(msg, context={"nearest_line": line, "nearest": shown})


def _ambiguous(places: list[_Place]) -> AmbiguousMatch:
    lines = ", ".join(str(line) for _, _, line in places[:_MAX_SHOWN])
    more = ", …" if len(places) > _MAX_SHOWN else ""
    msg = (
        f"the text to replace is there {len(places)} times, at lines {lines}{more}; "
        "give more of what stands around it, or replace_all=True"
    )
    shown = [
        {"byte": byte, "character": character, "line": line}
        for byte, character, line in places[:_MAX_SHOWN]
    ]
    return AmbiguousMatch(msg, context={"count": len(places), "places": shown})
