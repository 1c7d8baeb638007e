"""Responsible for sets of characters, as ranges of code points: what ``\\w`` holds, and which
characters are the same when case does not count.

Rust's engine defines both by Unicode's tables, Python's by methods of ``str`` that differ in some
hundred characters; so the sets are made here, and written out for ``re``.
"""

from __future__ import annotations

import bisect
import functools
import sys
import unicodedata
from collections.abc import Iterable

__all__ = [
    "NOT_UTF8",
    "Ranges",
    "complement",
    "digits",
    "folded",
    "has",
    "same_letters",
    "spaces",
    "union",
    "words",
]

Ranges = tuple[tuple[int, int], ...]
"""Inclusive, sorted, apart from each other."""

NOT_UTF8: Ranges = ((0xD800, 0xDFFF),)
"""Where bytes that are not UTF-8 are put; no set has them, and neither has its complement."""

_SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000"


def union(*sets: Iterable[tuple[int, int]]) -> Ranges:
    """All characters that are in any of the sets."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(pair for each in sets for pair in each):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return tuple(found)


def complement(ranges: Ranges) -> Ranges:
    """All characters that are not in the set."""
    found = []
    start = 0
    for low, high in union(ranges, NOT_UTF8):
        if start < low:
            found.append((start, low - 1))
        start = high + 1
    if start <= sys.maxunicode:
        found.append((start, sys.maxunicode))
    return tuple(found)


def _of(belongs: Iterable[int]) -> Ranges:
    return union((code, code) for code in belongs)


@functools.cache
def digits() -> Ranges:
    """``\\d``: decimal digits."""
    every = range(sys.maxunicode + 1)
    return _of(code for code in every if unicodedata.decimal(chr(code), None) is not None)


@functools.cache
def spaces() -> Ranges:
    """``\\s``: white space."""
    return union([(0x2000, 0x200A)], ((ord(space), ord(space)) for space in _SPACES))


@functools.cache
def words() -> Ranges:
    """``\\w``: letters, marks, digits, connectors and joiners."""
    letters = (
        code
        for code in range(sys.maxunicode + 1)
        if (kind := unicodedata.category(chr(code)))[0] in "LM" or kind in ("Nl", "Pc")
    )
    circled = [(0x24B6, 0x24E9), (0x1F130, 0x1F149), (0x1F150, 0x1F169), (0x1F170, 0x1F189)]
    return union(_of(letters), digits(), circled, [(0x200C, 0x200D)])


@functools.cache
def _families() -> dict[int, tuple[int, ...]]:
    """For each letter with another case all letters that are the same."""
    families: dict[str, list[int]] = {}
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        fold = _fold(character)
        if fold != character:
            families.setdefault(fold, [ord(fold)]).append(code)
    return {code: tuple(each) for each in families.values() for code in each}


def _fold(character: str) -> str:
    """Simple case folding: of one character to one."""
    folded = character.casefold()
    if len(folded) == 1:
        return folded
    lower = character.lower()
    return lower if len(lower) == 1 else character


def same_letters(character: str) -> tuple[str, ...]:
    """The character, and those that are it when case does not count."""
    if character.isascii() and not character.isalpha():
        return (character,)
    family = _families().get(ord(character))
    return tuple(map(chr, sorted(family))) if family else (character,)


def has(ranges: Ranges, code: int) -> bool:
    """Whether the character is in the set."""
    at = bisect.bisect_right(ranges, (code, sys.maxunicode)) - 1
    return at >= 0 and ranges[at][0] <= code <= ranges[at][1]


@functools.lru_cache
def folded(ranges: Ranges) -> Ranges:
    """The set, and what is in it when case does not count."""
    more = [
        (other, other)
        for code, family in _families().items()
        if has(ranges, code)
        for other in family
    ]
    return union(ranges, more)
