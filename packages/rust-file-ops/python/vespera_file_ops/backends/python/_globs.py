"""Responsible for several patterns matched together while a tree is walked, one name at a time:
how far each has come is a set of places, and a directory where it is empty need not be entered.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from vespera_file_ops.backends.python._pattern import ANY_DEPTH, Component, parse
from vespera_file_ops.errors import PatternError

__all__ = ["Globs", "Places"]

Places: TypeAlias = frozenset[tuple[int, int]]
"""How far patterns have been matched: the number of each and that of its next component."""


class Globs:
    """Patterns, braces written out."""

    def __init__(self) -> None:
        self._patterns: list[tuple[list[Component], bool]] = []

    @classmethod
    def one(cls, pattern: str) -> Globs:
        """One pattern, matched against the whole path."""
        globs = cls()
        globs._patterns = [(components, False) for components in parse(pattern)]
        return globs

    @classmethod
    def floating(cls, patterns: Sequence[str], *, directories: bool) -> Globs:
        """Several patterns. One without a slash is matched at any depth, and where directories
        count, a slash at the end means them alone."""
        globs = cls()
        for pattern in patterns:
            text = pattern
            directories_only = directories and pattern.endswith("/")
            if directories_only:
                text = text[:-1]
            try:
                parsed = parse(text, anywhere="/" not in text)
            except PatternError as error:
                # The message must show what was written.
                reason = error.context["reason"]
                msg = f"glob pattern '{pattern}': {reason}"
                raise PatternError(msg, context={"pattern": pattern, "reason": reason}) from None
            globs._patterns += [(components, directories_only) for components in parsed]
        return globs

    def __bool__(self) -> bool:
        return bool(self._patterns)

    def start(self) -> Places:
        """Where all stand at the start of the walk."""
        return self._with_zero_depth((number, 0) for number in range(len(self._patterns)))

    def accepts(self, places: Places, name: str, *, is_directory: bool) -> bool:
        """Whether ``name`` in a directory of these places matches."""
        for number, at in places:
            components, directories_only = self._patterns[number]
            if (
                at + 1 == len(components)
                and (is_directory or not directories_only)
                and components[at].fullmatch(name)
            ):
                return True
        return False

    def beneath(self, places: Places, name: str) -> Places:
        """The places in the directory ``name`` beneath one of these places."""
        deeper = []
        for number, at in places:
            components, _ = self._patterns[number]
            if components[at] is ANY_DEPTH:
                deeper.append((number, at))
            elif at + 1 < len(components) and components[at].fullmatch(name):
                deeper.append((number, at + 1))
        return self._with_zero_depth(deeper)

    def _with_zero_depth(self, places: Iterable[tuple[int, int]]) -> Places:
        """``**`` also stands for no directory at all: what follows it may match right here."""
        every = set()
        for number, at in places:
            every.add((number, at))
            # A parsed pattern never ends in `**`, so "one further" always exists.
            while self._patterns[number][0][at] is ANY_DEPTH:
                at += 1
                every.add((number, at))
        return frozenset(every)
