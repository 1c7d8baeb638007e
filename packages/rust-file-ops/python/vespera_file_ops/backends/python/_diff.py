"""Responsible for the unified diff of edits, made from the places that were replaced instead of by
comparing the texts: its cost is that of counting lines.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

__all__ = ["Pieces"]

# Unchanged lines shown around a change, as `diff -u` does.
_CONTEXT = 3
# A longer diff is cut: nobody reads it, and one long line would make it twice as long as the file.
_LONGEST = 1 << 20

# Control characters, what has a meaning within quotes, and bytes that are not UTF-8.
_QUOTED = re.compile(r'[\0-\x1f\x7f"\\\udc80-\udcff]')
_LETTERS = dict(zip('\a\b\t\n\v\f\r"\\', 'abtnvfr"\\', strict=True))

# Where a stretch of the current text comes from: its start in the original, or None; its length.
_Piece = tuple[int | None, int]


@dataclass(slots=True)
class _Change:
    """Byte ranges, in whole lines, of the original and the edited text."""

    old_from: int
    old_to: int
    new_from: int
    new_to: int


class Pieces:
    """The current text as pieces of the original and new text between them."""

    def __init__(self, length: int) -> None:
        self._pieces: list[_Piece] = [(0, length)]

    def replace(self, places: list[int], old: int, new: int) -> None:
        """In the current text, ``old`` bytes at each of ``places`` became ``new`` bytes."""
        source = _Cutter(self._pieces)
        result: list[_Piece] = []
        at = 0
        for place in places:
            result += source.take(place - at)
            source.take(old)
            result.append((None, new))
            at = place + old
        result += source.take(None)
        self._pieces = result

    def unified(self, path: str, old: bytes, new: bytes) -> tuple[str, bool]:
        """The diff, with the texts that the pieces are about, and whether it is all there."""
        changes = self._changes(old, new)
        if not changes:
            return "", True
        name = _header_name(path)
        out = bytearray(f"--- {name}\n+++ {name}\n".encode())
        counted = [(0, 0), (0, 0)]
        group = [changes[0]]
        for change in changes[1:]:
            if _count(old[group[-1].old_to : change.old_from]) <= 2 * _CONTEXT:
                group.append(change)
            else:
                _hunk(out, counted, group, old, new)
                group = [change]
            if len(out) > _LONGEST:
                break
        _hunk(out, counted, group, old, new)
        if len(out) <= _LONGEST:
            return out.decode("utf-8"), True
        # Cut between two characters.
        return out[:_LONGEST].decode("utf-8", "ignore"), False

    def _changes(self, old: bytes, new: bytes) -> list[_Change]:
        """What differs, widened to whole lines; neighbours that then touch are one."""
        changes: list[_Change] = []
        old_at = new_at = 0
        begun: tuple[int, int] | None = None
        for start, length in self._pieces:
            if start is not None and length:
                if begun is None and start > old_at:
                    begun = (old_at, new_at)
                if begun is not None:
                    _add(changes, _Change(begun[0], start, begun[1], new_at), old, new)
                    begun = None
                old_at = start + length
            elif begun is None:
                begun = (old_at, new_at)
            new_at += length
        if begun is None and old_at < len(old):
            begun = (old_at, new_at)
        if begun is not None:
            _add(changes, _Change(begun[0], len(old), begun[1], len(new)), old, new)
        return [
            change
            for change in changes
            if old[change.old_from : change.old_to] != new[change.new_from : change.new_to]
        ]


def _header_name(path: str) -> str:
    """The name as ``git`` and GNU ``diff`` write it, so that ``patch`` reads it back: in quotes
    where it has what would end the line or the name, or a space at an end, which ``patch`` drops,
    and with a tab behind it where a space could end it.
    """
    # Escaped bytes that are a character together are that character.
    plain = os.fsencode(path).decode("utf-8", "surrogateescape")
    name = _QUOTED.sub(_quoted, plain)
    tab = "\t" if " " in name else ""
    bare = name == plain and name == name.strip(" ")
    return f"{name}{tab}" if bare else f'"{name}"{tab}'


def _quoted(found: re.Match[str]) -> str:
    character = found[0]
    if character in _LETTERS:
        return "\\" + _LETTERS[character]
    return "".join(f"\\{byte:03o}" for byte in os.fsencode(character))


class _Cutter:
    """Hands out pieces from the start, cutting where a stretch ends inside one."""

    def __init__(self, pieces: list[_Piece]) -> None:
        self._pieces = pieces
        self._index = 0
        self._used = 0

    def take(self, size: int | None) -> list[_Piece]:
        taken: list[_Piece] = []
        while self._index < len(self._pieces) and size != 0:
            start, length = self._pieces[self._index]
            left = length - self._used
            part = left if size is None else min(left, size)
            if part:
                taken.append((None if start is None else start + self._used, part))
            if size is not None:
                size -= part
            if part == left:
                self._index += 1
                self._used = 0
            else:
                self._used += part
        return taken


def _add(changes: list[_Change], change: _Change, old: bytes, new: bytes) -> None:
    # The text before and behind is the same in both, so lines begin and end alike.
    back = change.old_from - _line_start(old, change.old_from)
    old_part = old[change.old_from : change.old_to]
    new_part = new[change.new_from : change.new_to]
    whole = not back and all(not part or part.endswith(b"\n") for part in (old_part, new_part))
    forward = 0 if whole else _line_end(old, change.old_to) - change.old_to
    change.old_to += forward
    change.new_to += forward
    if changes and changes[-1].old_to >= change.old_from - back:
        # Both are on one line: before this change the texts are the same only back to the last.
        changes[-1].old_to = change.old_to
        changes[-1].new_to = change.new_to
        return
    change.old_from -= back
    change.new_from -= back
    changes.append(change)


def _hunk(
    out: bytearray,
    counted: list[tuple[int, int]],
    group: list[_Change],
    old: bytes,
    new: bytes,
) -> None:
    first, last = group[0], group[-1]
    before, after = first.old_from, last.old_to
    for _ in range(_CONTEXT):
        before = _line_start(old, max(before - 1, 0))
        after = _line_end(old, after)
    new_before = first.new_from - (first.old_from - before)
    new_after = last.new_to + (after - last.old_to)
    old_header = _header(counted, 0, old, before, after)
    new_header = _header(counted, 1, new, new_before, new_after)
    out += f"@@ -{old_header} +{new_header} @@\n".encode()
    at = before
    for change in group:
        _lines(out, b" ", old[at : change.old_from])
        _lines(out, b"-", old[change.old_from : change.old_to])
        _lines(out, b"+", new[change.new_from : change.new_to])
        at = change.old_to
    _lines(out, b" ", old[at:after])


def _header(counted: list[tuple[int, int]], side: int, text: bytes, start: int, end: int) -> str:
    at, line = counted[side]
    line += text.count(b"\n", at, start)
    counted[side] = (start, line)
    count = _count(text[start:end])
    if count == 0:
        return f"{line},0"
    return f"{line + 1}" if count == 1 else f"{line + 1},{count}"


def _lines(out: bytearray, sign: bytes, part: bytes) -> None:
    # What is behind the limit is cut in the end: no more of a long line than to pass it.
    part = part[: max(_LONGEST + 1 - len(out), 0)]
    if not part:
        return
    complete = part.endswith(b"\n")
    for line in part.removesuffix(b"\n").split(b"\n"):
        out += sign + line + b"\n"
    if not complete:
        out += b"\\ No newline at end of file\n"


def _count(part: bytes) -> int:
    return part.count(b"\n") + (1 if part and not part.endswith(b"\n") else 0)


def _line_start(text: bytes, at: int) -> int:
    return text.rfind(b"\n", 0, at) + 1


def _line_end(text: bytes, at: int) -> int:
    """Behind the newline of the line that ``at`` stands in."""
    newline = text.find(b"\n", at)
    return len(text) if newline < 0 else newline + 1
