"""Responsible for cutting a text into chunks of a size, at the ends of lines or sentences, with
ranges that put the text together again exactly.

A chunk ends at the last boundary within its size. Where there is none it ends behind a line, else
behind a word, else where its size is reached, though never inside a line ending. The next one
begins at the first boundary within the overlap, so that the overlap is whole lines or sentences.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["chunk_text"]

_SPACE = " \t\n\r\u00a0\u3000"
_CLOSES = "\"')]}»”\u2019」』"
_ENDS = ".!?…"
# Full stops of scripts that are written without spaces.
_ENDS_ALONE = "\u3002\uff01\uff1f\uff61"
_NO_START = frozenset(_SPACE + _CLOSES + _ENDS + _ENDS_ALONE)

_Boundary = Callable[[str, int], bool]


def chunk_text(
    text: str, size: int, overlap: int, boundary: str
) -> list[tuple[int, int, int, int, int]]:
    """First byte, byte behind the last, first character, character behind the last, line."""
    chunks = []
    start = covered = counted = 0
    line = 1
    count_bytes = _Bytes(text)
    while covered < len(text):
        limit = min(start + size, len(text))
        end = limit if limit == len(text) else _last_boundary(text, covered, limit, boundary)
        line += text.count("\n", counted, start)
        counted = start
        chunks.append((count_bytes.to(start), count_bytes.to(end), start, end, line))
        start = _next_start(text, start, end, size, overlap, boundary)
        covered = end
    return chunks


class _Bytes:
    """Offsets in UTF-8 of offsets in characters that mostly grow."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._ascii = text.isascii()
        self._character = self._byte = 0

    def to(self, character: int) -> int:
        if self._ascii:
            return character
        if character >= self._character:
            self._byte += len(self._text[self._character : character].encode("utf-8"))
        else:
            self._byte -= len(self._text[character : self._character].encode("utf-8"))
        self._character = character
        return self._byte


def _last_boundary(text: str, start: int, limit: int, boundary: str) -> int:
    """The last boundary behind ``start`` and not behind ``limit``, or the next best place."""
    if boundary == "sentence":
        for at in range(limit, start, -1):
            if _behind_sentence(text, at):
                return at
    if boundary != "character":
        if (newline := text.rfind("\n", start, limit)) >= 0:
            return newline + 1
        for at in range(limit, start, -1):
            if _behind_word(text, at):
                return at
    # One character less rather than a line ending in two.
    if _splits_newline(text, limit) and limit - 1 > start:
        return limit - 1
    return limit


def _next_start(text: str, start: int, end: int, size: int, overlap: int, boundary: str) -> int:
    """The first boundary within the overlap from which a chunk still comes to a boundary behind
    ``end``: an overlap is not worth a cut in the middle of what follows.
    """
    if end == len(text) or overlap == 0:
        return end
    is_boundary = _IS_BOUNDARY[boundary]
    reached = _next_boundary(text, end, size, boundary)
    # A line ending of two characters must fit behind the overlap, or the next cut is inside it.
    needed = end + 2 if size > 1 and text.startswith("\r\n", end) else 0
    lowest = max(start + 1, end - overlap, max(reached, needed) - size)
    best = words = end
    for at in range(end - 1, lowest - 1, -1):
        if is_boundary(text, at):
            best = at
        elif _behind_word(text, at):
            words = at
    # No boundary within the overlap: rather words than nothing.
    return words if best == end else best


def _next_boundary(text: str, start: int, size: int, boundary: str) -> int:
    """The first boundary, or the end of the text, at most ``size`` behind ``start``, else 0."""
    last = min(start + size, len(text))
    if boundary == "line":
        if (newline := text.find("\n", start, last)) >= 0:
            return newline + 1
    else:
        is_boundary = _IS_BOUNDARY[boundary]
        for at in range(start + 1, last + 1):
            if is_boundary(text, at):
                return at
    return last if last == len(text) else 0


def _splits_newline(text: str, at: int) -> bool:
    return text[at - 1 : at + 1] == "\r\n"


def _behind_line(text: str, at: int) -> bool:
    return text[at - 1] == "\n"


def _behind_word(text: str, at: int) -> bool:
    """Behind spaces, in front of something else."""
    return text[at - 1] in _SPACE and (at == len(text) or text[at] not in _SPACE)


def _behind_sentence(text: str, at: int) -> bool:
    """Behind the space that follows ``.``, ``!``, ``?`` or ``…`` and what closes there, behind an
    empty line, or behind a full stop of a script that is written without spaces.
    """
    if at < len(text) and text[at] in _NO_START:
        return False
    last = at
    while last and text[last - 1] in _SPACE:
        last -= 1
    if text.count("\n", last, at) > 1:
        return True
    spaced = last < at
    while last and text[last - 1] in _CLOSES:
        last -= 1
    before = text[last - 1 : last]
    return bool(before) and (before in _ENDS_ALONE or (spaced and before in _ENDS))


_IS_BOUNDARY: dict[str, _Boundary] = {
    "character": lambda text, at: not _splits_newline(text, at),
    "line": _behind_line,
    "sentence": _behind_sentence,
}
