"""Responsible for exact replacements in a text file: all of them or none.

An edit names text that must stand in the file exactly once, unless all places are meant. Several
edits apply one after the other, each to the result of the one before. The file is replaced
atomically, and only if nobody has written it since it was read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
from collections.abc import Iterator

from vespera_file_ops._arguments import RawEdit
from vespera_file_ops._operations import RawOutcome
from vespera_file_ops.backends.python._atomic import changed, replace
from vespera_file_ops.backends.python._diff import Pieces
from vespera_file_ops.backends.python._naming import naming
from vespera_file_ops.backends.python._nearest import nearest
from vespera_file_ops.backends.python._open import open_for_reading
from vespera_file_ops.backends.python._place import Place, Root
from vespera_file_ops.backends.python._read import decoded, read_all
from vespera_file_ops.backends.python._temporary import try_lock
from vespera_file_ops.errors import AmbiguousMatch, EditError, StringNotFound

__all__ = ["count_replacements", "edit"]

# An error about an ambiguous text shows no more places than this.
_MAX_SHOWN = 100
# An edit takes milliseconds; a lock that is held for so long is somebody else's, and no edit.
_PATIENCE = 10.0
_PAUSE = 0.001

_Place = tuple[int, int, int]


def edit(
    path: str,
    edits: list[RawEdit],
    modified_ns: int | None,
    sha256: str | None,
    write: bool,
    root: Root | None = None,
) -> RawOutcome:
    """Make the edits; without ``write`` the outcome is only told."""
    place = Place(path, root)
    with _alone(place) if write else contextlib.nullcontext():
        original, status = read_all(place)
        _check(path, original, status, modified_ns, sha256)
        decoded(path, original)
        pieces = Pieces(len(original))
        current, positions = _apply_all(path, original, edits, pieces)
        diff = pieces.unified(path, original, current)
        if write:
            status = replace(place, current, status)
    return positions, diff, len(current), status.st_mtime_ns


def _apply_all(
    path: str, original: bytes, edits: list[RawEdit], pieces: Pieces
) -> tuple[bytes, list[list[_Place]]]:
    current = original
    positions: list[list[_Place]] = []
    for number, one in enumerate(edits):
        try:
            current, places = _apply(current, one, pieces)
        except EditError as error:
            which = f"edit {number + 1} of {len(edits)}: " if len(edits) > 1 else ""
            context = {"path": path, "edit": number, **error.context}
            msg = f"{path}: {which}{error.message}"
            raise type(error)(msg, context=context) from None
        positions.append(places)
    return current, positions


@contextlib.contextmanager
def _alone(place: Place) -> Iterator[None]:
    """Hold the file while no other edit is at work on it. The lock is on the file itself, which an
    edit replaces: who waited for it must look whether it is still the one.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        with naming(place.path), open_for_reading(place) as (descriptor, status):
            taken = try_lock(descriptor)
            if taken and os.path.samestat(place.stat(), status):
                yield
                return
            if not taken and time.monotonic() > deadline:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if not taken:
            time.sleep(_PAUSE)


def count_replacements(path: str, old: str, root: Root | None = None) -> int:
    """How often ``old`` stands in the file, places that overlap counted once."""
    return read_all(Place(path, root))[0].count(old.encode("utf-8"))


def _check(
    path: str, content: bytes, status: os.stat_result, modified_ns: int | None, sha256: str | None
) -> None:
    if modified_ns is not None and modified_ns != status.st_mtime_ns:
        raise changed(path, "its time of change is not the expected one")
    if sha256 is not None and sha256 != hashlib.sha256(content).hexdigest():
        raise changed(path, "its hash is not the expected one")


def _apply(text: bytes, edit: RawEdit, pieces: Pieces) -> tuple[bytes, list[_Place]]:
    old, new = edit[0].encode("utf-8"), edit[1].encode("utf-8")
    found = _find(text, old)
    if not found and b"\r\n" in text and b"\r" not in old and b"\n" in old:
        # The file's line endings are kept: who asks with `\n` means the file's own.
        old = old.replace(b"\n", b"\r\n")
        new = new.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        found = _find(text, old)
    if not found:
        raise _absent(text, edit[0])
    places = _positions(text, found)
    if len(places) > 1 and not edit[2]:
        raise _ambiguous(places)
    pieces.replace(found, len(old), len(new))
    return text.replace(old, new), places


def _find(text: bytes, old: bytes) -> list[int]:
    found = []
    at = text.find(old)
    while at >= 0:
        found.append(at)
        at = text.find(old, at + len(old))
    return found


def _positions(text: bytes, found: list[int]) -> list[_Place]:
    places = []
    start, character, line = 0, 0, 1
    for byte in found:
        between = text[start:byte]
        character += len(between.decode("utf-8"))
        line += between.count(b"\n")
        start = byte
        places.append((byte, character, line))
    return places


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
