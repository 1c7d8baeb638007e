"""Responsible for the lines of one text that match, the places in them and the lines around them;
the text comes in pieces, and no more than a piece is kept.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from vespera_file_ops.backends.python._matching import Matching, Place, decoded
from vespera_file_ops.results import Match, Span

__all__ = ["MARK", "Hit", "as_match", "hits"]

MARK = b"\xef\xbb\xbf"
"""A byte order mark, which belongs to no line."""

# More of a line is not shown, and more places of one line are not told.
_MAX_TEXT = 64 << 10
_MAX_SPANS = 1000
# Longer lines, and larger files where matches may cross lines, are not searched.
_MAX_WHOLE = 64 << 20


@dataclass(slots=True)
class Hit:
    """A line that matches, or several that matches share, as bytes."""

    line: int
    offset: int
    """Of the text in the file."""
    text: bytes
    """With its ending."""
    places: list[Place]
    before: list[bytes] = field(default_factory=list)
    after: list[bytes] = field(default_factory=list)


def hits(matching: Matching, pieces: Iterator[bytes], base: int) -> Iterator[Hit]:
    """What matches in the text that the pieces make; ``base`` bytes of the file come before it.

    ``OSError`` (``EFBIG``) where a line, or a text with ``multiline``, is too long to be kept.
    """
    query = matching.query
    found = _across(matching, pieces) if query.multiline else _lines(matching, pieces)
    for hit in islice(found, query.max_per_file):
        hit.offset += base
        yield hit


def as_match(path: str | None, hit: Hit) -> Match:
    """The hit as text."""
    block = _stripped(hit.text)
    start, end = _window(block, hit.places[0][0])
    shown = block[start:end]
    plain = shown.isascii()
    text = shown.decode("ascii") if plain else decoded(shown)

    def position(byte: int) -> int:
        byte = min(max(byte, start), end) - start
        return byte if plain else len(decoded(shown[:byte]))

    spans = tuple(
        Span(hit.offset + low, hit.offset + high, position(low), position(high))
        for low, high in hit.places
        if low <= end
    )
    before, after = (tuple(map(_shown, lines)) for lines in (hit.before, hit.after))
    return Match(path, hit.line, text, spans, before, after, len(shown) < len(block))


def _stripped(line: bytes) -> bytes:
    if line.endswith(b"\n"):
        return line[:-2] if line.endswith(b"\r\n") else line[:-1]
    return line


def _shown(line: bytes) -> str:
    line = _stripped(line)
    start, end = _window(line, 0)
    return decoded(line[start:end])


def _window(block: bytes, place: int) -> tuple[int, int]:
    """The part that is shown: all, or so much around ``place``, no character cut in two."""
    if len(block) <= _MAX_TEXT:
        return 0, len(block)
    start = max(place - _MAX_TEXT // 4, 0)
    end = min(len(block), start + _MAX_TEXT)
    for _ in range(3):
        if 0 < start < end and block[start] & 0xC0 == 0x80:
            start += 1
        if start < end < len(block) and block[end] & 0xC0 == 0x80:
            end -= 1
    return start, end


def _too_long() -> OSError:
    return OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def _blocks(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The text in blocks of whole lines."""
    kept: list[bytes] = []
    length = 0
    for piece in pieces:
        cut = piece.rfind(b"\n") + 1
        if cut:
            yield b"".join((*kept, piece[:cut]))
            kept, length = [], 0
        kept.append(piece[cut:])
        length += len(piece) - cut
        if length > _MAX_WHOLE:
            raise _too_long()
    rest = b"".join(kept)
    if rest:
        yield rest


def _lines(matching: Matching, pieces: Iterator[bytes]) -> Iterator[Hit]:
    """One hit for each line."""
    query = matching.query
    most = None if query.count else _MAX_SPANS
    number, offset = 1, 0
    tail: list[bytes] = []
    waiting: deque[Hit] = deque()
    for block in _blocks(pieces):
        for hit in waiting:
            hit.after += _lines_after(block, 0, query.after - len(hit.after))
        counted = 0
        for start, end, places in _matching_lines(matching, block, most):
            number += block.count(b"\n", counted, start)
            counted = start
            hit = Hit(number, offset + start, block[start:end], places)
            if query.before:
                hit.before = _lines_before(block, start, query.before)
                missing = query.before - len(hit.before)
                hit.before[:0] = tail[-missing:] if missing else []
            if query.after:
                hit.after = _lines_after(block, end, query.after)
            waiting.append(hit)
            while waiting and len(waiting[0].after) == query.after:
                yield waiting.popleft()
        while waiting and len(waiting[0].after) == query.after:
            yield waiting.popleft()
        number += block.count(b"\n", counted)
        offset += len(block)
        if query.before:
            tail = [*tail, *_lines_before(block, len(block), query.before)][-query.before :]
    yield from waiting


def _matching_lines(
    matching: Matching, block: bytes, most: int | None
) -> Iterator[tuple[int, int, list[Place]]]:
    """Where lines that match begin and end, and the places in them."""
    measured = matching.danger.longest is not None
    longest = max(map(len, block.split(b"\n"))) if measured else 0
    if matching.line_by_line(longest):
        bounds = _each_line(block)
    elif block.isascii():
        bounds = _candidates(matching, block)
    else:
        bounds = _candidates_in_text(matching, decoded(block))
    for start, end in bounds:
        places = list(islice(matching.places(_stripped(block[start:end])), most))
        if places:
            yield start, end, places


def _each_line(block: bytes) -> Iterator[Place]:
    start = 0
    while start < len(block):
        end = _end_of_line(block, start)
        yield start, end
        start = end


def _candidates(matching: Matching, block: bytes) -> Iterator[Place]:
    end = 0
    while found := matching.candidate.search(block, end):
        start = block.rfind(b"\n", 0, found.start()) + 1
        end = _end_of_line(block, found.start())
        yield start, end


def _candidates_in_text(matching: Matching, text: str) -> Iterator[Place]:
    end = position = 0
    while found := matching.candidate_in_text.search(text, end):
        start = text.rfind("\n", 0, found.start()) + 1
        position += len(text[end:start].encode("utf-8", "surrogateescape"))
        end = text.find("\n", found.start()) + 1 or len(text)
        length = len(text[start:end].encode("utf-8", "surrogateescape"))
        yield position, position + length
        position += length


def _across(matching: Matching, pieces: Iterator[bytes]) -> Iterator[Hit]:
    """One hit for all matches that share lines."""
    query = matching.query
    kept: list[bytes] = []
    length = 0
    for piece in pieces:
        kept.append(piece)
        length += len(piece)
        if length > _MAX_WHOLE:
            raise _too_long()
    text = b"".join(kept)
    number, counted = 1, 0
    for start, end, places in _blocks_of_lines(matching, text):
        number += text.count(b"\n", counted, start)
        counted = start
        yield Hit(
            number,
            start,
            text[start:end],
            places,
            _lines_before(text, start, query.before),
            _lines_after(text, end, query.after),
        )


def _blocks_of_lines(matching: Matching, text: bytes) -> Iterator[tuple[int, int, list[Place]]]:
    start = end = 0
    places: list[Place] = []
    most = None if matching.query.count else _MAX_SPANS
    for low, high in matching.places(text):
        # There is no line behind the last line's ending.
        if low == len(text) and (not text or text.endswith(b"\n")):
            break
        until = _end_of_line(text, max(high - 1, low))
        if not places or low >= end:
            if places:
                yield start, end, places
            start, end, places = text.rfind(b"\n", 0, low) + 1, until, []
        end = max(end, until)
        if most is None or len(places) < most:
            places.append((low - start, high - start))
    if places:
        yield start, end, places


def _end_of_line(text: bytes, at: int) -> int:
    """Where the line with the byte at ``at`` ends, its ending included."""
    return text.find(b"\n", at) + 1 or len(text)


def _lines_before(text: bytes, end: int, number: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < number and end > 0:
        start = text.rfind(b"\n", 0, end - 1) + 1
        found.append(text[start:end])
        end = start
    found.reverse()
    return found


def _lines_after(text: bytes, start: int, number: int) -> list[bytes]:
    found: list[bytes] = []
    while len(found) < number and start < len(text):
        end = _end_of_line(text, start)
        found.append(text[start:end])
        start = end
    return found
