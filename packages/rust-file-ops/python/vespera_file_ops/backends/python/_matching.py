"""Responsible for the places where a pattern matches in a text: by ``re`` where that is quick and
``_linear`` where it may not be, on bytes where all are ASCII and on text where not.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import AnyStr

from vespera_file_ops._finding import Query
from vespera_file_ops._wording import End, for_re
from vespera_file_ops.backends.python._danger import danger
from vespera_file_ops.backends.python._linear import Linear

__all__ = ["Matching", "Place", "decoded"]

Place = tuple[int, int]


def decoded(text: bytes) -> str:
    """Text with the bytes escaped that are not UTF-8."""
    return text.decode("utf-8", "surrogateescape")


class Matching:
    """A query, ready to be matched."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self.danger = danger(query.tree.node, lines=query.multiline, word=query.word)
        self.nullable = query.tree.nullable

    @functools.cached_property
    def candidate(self) -> re.Pattern[bytes]:
        """Finds lines in ASCII bytes; it may find too many."""
        return re.compile(self._wording("line", ascii_only=True).encode())

    @functools.cached_property
    def candidate_in_text(self) -> re.Pattern[str]:
        return re.compile(self._wording("line", ascii_only=False))

    @functools.cached_property
    def _exact(self) -> re.Pattern[bytes]:
        return re.compile(self._wording(self._end, ascii_only=True).encode())

    @functools.cached_property
    def _exact_in_text(self) -> re.Pattern[str]:
        return re.compile(self._wording(self._end, ascii_only=False))

    @functools.cached_property
    def _linear(self) -> Linear:
        query = self.query
        return Linear(query.tree.node, word=query.word, end=self._end, lines=query.multiline)

    @property
    def _end(self) -> End:
        return "line" if self.query.multiline else "text"

    def _wording(self, end: End, *, ascii_only: bool) -> str:
        query = self.query
        return for_re(
            query.tree, word=query.word, end=end, ascii_only=ascii_only, lines=query.multiline
        )

    def line_by_line(self, longest: int) -> bool:
        """Whether lines must be looked at one by one; ``longest`` is the length of the longest."""
        return self.nullable or not self.danger.allows(longest)

    def places(self, text: bytes) -> Iterator[Place]:
        """The places in a line, or with ``multiline`` in a text, by bytes."""
        quick = self.danger.allows(self._reach(text))
        if text.isascii():
            if not quick:
                return self._each_linear(text.decode("ascii"))
            return self._each(self._exact, text)
        whole = decoded(text)
        if not quick:
            return _in_bytes(whole, self._each_linear(whole))
        return _in_bytes(whole, self._each(self._exact_in_text, whole))

    def _reach(self, text: bytes) -> int:
        """How far one match can go."""
        if not self.query.multiline or self.danger.across_lines or self.danger.longest is None:
            return len(text)
        return max(map(len, text.split(b"\n")))

    def _each(self, pattern: re.Pattern[AnyStr], text: AnyStr) -> Iterator[Place]:
        if not self.nullable:
            yield from (found.span() for found in pattern.finditer(text))
            return
        at, last = 0, -1
        while at <= len(text) and (found := pattern.search(text, at)):
            start, end = found.span()
            at = end + (start == end)
            # Nothing, right behind a match, is none.
            if start != end or start != last:
                last = end
                yield start, end

    def _each_linear(self, text: str) -> Iterator[Place]:
        at, last = 0, -1
        while at <= len(text) and (found := self._linear.search(text, at)):
            start, end = found
            at = end + (start == end)
            if start != end or start != last:
                last = end
                yield start, end


def _in_bytes(text: str, places: Iterator[Place]) -> Iterator[Place]:
    """The same places, by bytes."""
    characters = position = 0
    for start, end in places:
        position += len(text[characters:start].encode("utf-8", "surrogateescape"))
        length = len(text[start:end].encode("utf-8", "surrogateescape"))
        yield position, position + length
        position += length
        characters = end
