"""Responsible for cutting a byte stream into lines, at 0x0A and nowhere else.

``str.splitlines`` and text-mode readers also cut at U+2028 and U+0085, which stand unescaped
inside JSON strings, and they decode pieces that end in the middle of a character.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["DEFAULT_LINE_CAP", "LineFramer", "Oversize"]

DEFAULT_LINE_CAP = 64 * 1024 * 1024
_HEAD = 1024


@dataclass(frozen=True, slots=True)
class Oversize:
    """A line over the cap: its length in bytes and its first 1,024. The stream goes on."""

    length: int
    head: bytes


class LineFramer:
    """Feed it bytes in any pieces; it returns whole lines without their newline."""

    def __init__(self, cap: int = DEFAULT_LINE_CAP) -> None:
        self._cap = cap
        # Pieces of the unfinished line. Joining once per line keeps a 60 MB line linear.
        self._pieces: list[bytes] = []
        self._length = 0
        self._head = b""

    def feed(self, data: bytes) -> list[bytes | Oversize]:
        first, *rest = data.split(b"\n")
        self._add(first)
        if not rest:
            return []
        # One call cuts all of them. Only a line that ends here can have begun before.
        left = rest.pop()
        lines: list[bytes | Oversize] = [self._take()]
        if len(data) > self._cap:
            lines += [line if len(line) <= self._cap else self._over(line) for line in rest]
        else:
            lines += rest
        if left:
            self._add(left)
        return lines

    def finish(self) -> list[bytes | Oversize]:
        """The last line, when the stream ended without a newline."""
        return [self._take()] if self._length else []

    def _add(self, piece: bytes) -> None:
        self._length += len(piece)
        if len(self._head) < _HEAD:
            self._head += piece[: _HEAD - len(self._head)]
        if self._length <= self._cap:
            self._pieces.append(piece)
        else:
            self._pieces.clear()

    def _take(self) -> bytes | Oversize:
        length, head = self._length, self._head
        line = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._length = 0
        self._head = b""
        return Oversize(length, head) if length > self._cap else line

    def _over(self, line: bytes) -> Oversize:
        return Oversize(len(line), line[:_HEAD])
