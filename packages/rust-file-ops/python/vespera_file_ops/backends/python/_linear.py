"""Responsible for matching in linear time, whatever pattern and text are.

``re`` tries one way after the other and can take years for a line of 40 characters; it cannot be
interrupted, and holds the interpreter meanwhile. Here all ways are followed at once (Thompson's
automaton, with priorities as Pike has them), so the time is at most length of text times length of
pattern. It is a hundred times slower than ``re`` where that is fast; ``_danger`` tells where it may
not be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from vespera_file_ops._characters import Ranges, has, words
from vespera_file_ops._dialect import (
    Alternation,
    Any,
    Assertion,
    Class,
    Concatenation,
    Literal,
    Node,
    nullable,
)
from vespera_file_ops._wording import End, members

__all__ = ["Linear"]


class _Set:
    """Characters, those asked for remembered."""

    def __init__(self, ranges: Ranges) -> None:
        self._ranges = ranges
        self._known: dict[str, bool] = {}

    def __contains__(self, character: str) -> bool:
        known = self._known.get(character)
        if known is None:
            known = self._known[character] = has(self._ranges, ord(character))
        return known


@dataclass(frozen=True, slots=True)
class _Take:
    """Take one of these characters and go on."""

    wanted: _Set
    following: int


@dataclass(frozen=True, slots=True)
class _Look:
    """Look whether an assertion holds, and go on."""

    kind: str
    following: int


# What one step of the program does. A list: go on at any of these, the first one preferred. None is
# the end, a match.
_Step: TypeAlias = _Take | _Look | list[int] | None


class Linear:
    """A pattern as an automaton."""

    def __init__(self, node: Node, *, word: bool, end: End, lines: bool) -> None:
        self._lines = lines
        self._end = end
        self._words = _Set(words())
        self._steps: list[_Step] = [None]
        if word:
            node = Concatenation((Assertion("<"), node, Assertion(">")))
        self._first = self._put(node, 0)
        self.nullable = nullable(node)

    def _add(self, step: _Step) -> int:
        self._steps.append(step)
        return len(self._steps) - 1

    def _put(self, node: Node, following: int) -> int:
        """Where the node begins, if it is followed by that step."""
        if isinstance(node, Literal | Any | Class):
            return self._add(_Take(_Set(members(node, lines=self._lines)), following))
        if isinstance(node, Assertion):
            return self._add(_Look(node.kind, following))
        if isinstance(node, Concatenation):
            for part in reversed(node.nodes):
                following = self._put(part, following)
            return following
        if isinstance(node, Alternation):
            return self._add([self._put(part, following) for part in node.nodes])
        if node.most is None:
            loop: list[int] = []
            start = self._add(loop)
            ways = [self._put(node.node, start), following]
            loop += reversed(ways) if node.lazy else ways
            following = start
        else:
            end = following
            for _ in range(node.most - node.least):
                ways = [self._put(node.node, following), end]
                following = self._add(ways[::-1] if node.lazy else ways)
        for _ in range(node.least):
            following = self._put(node.node, following)
        return following

    def search(self, text: str, at: int) -> tuple[int, int] | None:
        """The first match from there on, as ``re`` would find it."""
        found: tuple[int, int] | None = None
        threads: list[tuple[int, int]] = []
        while True:
            follow: list[tuple[int, int]] = []
            seen: set[int] = set()
            for step, start in threads:
                self._follow(step, start, text, at, seen, follow)
            if found is None:
                self._follow(self._first, at, text, at, seen, follow)
            threads = []
            character = text[at] if at < len(text) else ""
            for step, start in follow:
                what = self._steps[step]
                if what is None:
                    found = (start, at)
                    # Whatever comes after this one is worse.
                    break
                if isinstance(what, _Take) and character and character in what.wanted:
                    threads.append((what.following, start))
            if at >= len(text) or (found is not None and not threads):
                return found
            at += 1

    def _follow(
        self,
        step: int,
        start: int,
        text: str,
        at: int,
        seen: set[int],
        follow: list[tuple[int, int]],
    ) -> None:
        """Put what can be reached without a character into ``follow``, the preferred first."""
        pending = [step]
        while pending:
            step = pending.pop()
            if step in seen:
                continue
            seen.add(step)
            what = self._steps[step]
            if isinstance(what, list):
                pending += reversed(what)
            elif isinstance(what, _Look):
                if self._holds(what.kind, text, at):
                    pending.append(what.following)
            else:
                follow.append((step, start))

    def _holds(self, kind: str, text: str, at: int) -> bool:
        before = text[at - 1] if at else ""
        after = text[at] if at < len(text) else ""
        if kind == "^":
            return before in ("", "\n")
        if kind == "$":
            if self._end == "text":
                return not after
            return after in ("", "\r") or (after == "\n" and before != "\r")
        word_before = bool(before) and before in self._words
        word_after = bool(after) and after in self._words
        if kind == "b":
            return word_before != word_after
        if kind == "<":
            return not word_before and not _escaped(before)
        if kind == ">":
            return not word_after and not _escaped(after)
        return word_before == word_after and not _escaped(before) and not _escaped(after)


def _escaped(character: str) -> bool:
    return "\ud800" <= character <= "\udfff"
