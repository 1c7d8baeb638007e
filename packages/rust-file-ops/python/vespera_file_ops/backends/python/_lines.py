"""Responsible for a range of lines: the file is read up to the end of the range and no further, and
nothing before the range is kept.

Only a newline ends a line, as in ``read_file_lines``; the endings stay in the text.
"""

from __future__ import annotations

import os

from vespera_file_ops.backends.python._naming import naming
from vespera_file_ops.backends.python._open import open_for_reading
from vespera_file_ops.backends.python._place import Place, Root
from vespera_file_ops.backends.python._read import over_limit
from vespera_file_ops.backends.python._text import HEAD, MARKS, decode, newlines, told

__all__ = ["read_lines"]

# Even: the halves of a UTF-16 unit come together.
_BLOCK = 1 << 16


def read_lines(
    path: str,
    start: int,
    count: int | None = None,
    encoding: str | None = None,
    max_bytes: int | None = None,
    root: Root | None = None,
) -> tuple[str, int, int, bool, str]:
    """Lines, their first byte and the one behind their last, whether the file ends there, the
    encoding.
    """
    with naming(path), open_for_reading(Place(path, root)) as (descriptor, _):
        source = _Blocks(descriptor)
        encoding = told(path, source.block[:HEAD], encoding)
        # The mark belongs to no line.
        source.used = len(MARKS[encoding])
        source.pass_lines(start - 1, encoding, None, None)
        begin = source.position
        taken = bytearray()
        source.pass_lines(count, encoding, taken, max_bytes)
        if max_bytes is not None and len(taken) > max_bytes:
            raise over_limit(path, None, max_bytes)
        end_of_file = source.at_end()
    text = decode(path, bytes(taken), encoding, begin)
    return text, begin, begin + len(taken), end_of_file, encoding


class _Blocks:
    """The file, block by block."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.block = b""
        self.used = 0
        self._before = 0
        self._fill()

    @property
    def position(self) -> int:
        return self._before + self.used

    def _fill(self) -> None:
        """The next block, full unless the file ends in it."""
        self._before += len(self.block)
        self.used = 0
        parts = []
        room = _BLOCK
        while room and (part := os.read(self._descriptor, room)):
            parts.append(part)
            room -= len(part)
        self.block = b"".join(parts)

    def at_end(self) -> bool:
        if self.used == len(self.block):
            self._fill()
        return not self.block

    def pass_lines(
        self, lines: int | None, encoding: str, taken: bytearray | None, limit: int | None
    ) -> None:
        """Go behind the next ``lines`` newlines, or to the end of the file."""
        width = 2 if encoding.startswith("utf-16") else 1
        while lines != 0 and not self.at_end():
            end = self.used
            while lines != 0:
                at = newlines(self.block, encoding, end) if lines is not None else -1
                end = len(self.block) if at < 0 else at + width
                if at < 0:
                    break
                if lines is not None:
                    lines -= 1
            if taken is not None:
                taken += self.block[self.used : end]
                if limit is not None and len(taken) > limit:
                    return
            self.used = end
