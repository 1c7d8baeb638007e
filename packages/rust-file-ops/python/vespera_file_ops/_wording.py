"""Responsible for writing a pattern that was read for one of the engines: Rust's ``regex``, or
``re`` on ASCII bytes or on text.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Literal as Choice
from typing import TypeAlias

from vespera_file_ops import _characters as characters
from vespera_file_ops._dialect import (
    Alternation,
    Any,
    Assertion,
    Class,
    Concatenation,
    Literal,
    Node,
    Repeat,
    Tree,
)

__all__ = ["End", "for_re", "for_rust", "members"]

End = Choice["line", "text"]
"""What ``$`` is: the end of a line in a text, a carriage return before it not counted, or the end
of all there is."""

Writing: TypeAlias = Callable[[Node], str]

_LINE_FEED: characters.Ranges = ((10, 10),)
_ASCII: characters.Ranges = ((0, 127),)


def for_rust(tree: Tree, *, word: bool, end: End) -> str:
    """The pattern for Rust's ``regex``, with ``^`` at every line."""
    body = _rust(tree.node, "(?R:$)" if end == "line" else "$")
    return f"\\b{{start-half}}(?:{body})\\b{{end-half}}" if word else body


def _rust(node: Node, end: str) -> str:
    if isinstance(node, Literal):
        return _cased(_rust_character(ord(node.character)), node.ignore_case)
    if isinstance(node, Any):
        return "(?s:.)" if node.lines else "."
    if isinstance(node, Class):
        ranges = (f"{_rust_character(low)}-{_rust_character(high)}" for low, high in node.ranges)
        named = "".join(f"\\{name}" for name in node.named)
        text = f"[{'^' if node.negated else ''}{''.join(ranges)}{named}]"
        return _cased(text, node.ignore_case)
    if isinstance(node, Assertion):
        return {"^": "^", "$": end, "b": r"\b", "B": r"\B"}[node.kind]
    return _compound(node, lambda part: _rust(part, end))


def _rust_character(code: int) -> str:
    character = chr(code)
    plain = character == "_" or (character.isascii() and character.isalnum()) or code > 127
    return character if plain else f"\\x{{{code:X}}}"


def _cased(text: str, ignore_case: bool) -> str:
    return f"(?i:{text})" if ignore_case else text


def for_re(tree: Tree, *, word: bool, end: End, ascii_only: bool, lines: bool) -> str:
    """The pattern for ``re``, without any of its flags.

    With ``ascii_only`` it is right for ASCII alone; without ``lines`` it matches no line feed.
    """
    writer = _Writer(ascii_only, lines, end)
    body = writer.write(tree.node)
    if word:
        beside = writer.one_of(characters.union(writer.words, writer.not_utf8))
        body = f"(?<!{beside})(?:{body})(?!{beside})"
    return body


@functools.lru_cache(1024)
def members(node: Literal | Any | Class, *, lines: bool) -> characters.Ranges:
    """The characters that the node matches."""
    if isinstance(node, Literal):
        same = characters.same_letters(node.character) if node.ignore_case else node.character
        return characters.union((ord(each), ord(each)) for each in same)
    if isinstance(node, Any):
        return characters.complement(() if node.lines and lines else _LINE_FEED)
    named = {"d": characters.digits, "w": characters.words, "s": characters.spaces}
    sets = [named[name.lower()]() for name in node.named]
    wanted = [
        characters.complement(each) if name.isupper() else each
        for name, each in zip(node.named, sets, strict=True)
    ]
    found = characters.union(node.ranges, *wanted)
    if node.ignore_case:
        found = characters.folded(found)
    # Once more the complement takes away what is not UTF-8.
    found = characters.complement(found)
    found = found if node.negated else characters.complement(found)
    if lines:
        return found
    return characters.complement(characters.union(characters.complement(found), _LINE_FEED))


class _Writer:
    def __init__(self, ascii_only: bool, lines: bool, end: End) -> None:
        self.ascii_only = ascii_only
        self.lines = lines
        self.end = r"\Z" if end == "text" else r"(?:(?=\r|\Z)|(?<!\r)(?=\n))"
        self.not_utf8 = () if ascii_only else characters.NOT_UTF8

    @property
    def words(self) -> characters.Ranges:
        return ((48, 57), (65, 90), (95, 95), (97, 122)) if self.ascii_only else characters.words()

    def write(self, node: Node) -> str:
        if isinstance(node, Assertion):
            return self.assertion(node.kind)
        if isinstance(node, Literal) and not node.ignore_case and node.character.isascii():
            return re.escape(node.character)
        if isinstance(node, Literal | Class) and self.ascii_only:
            return self.one_of(self.in_ascii(node))
        if isinstance(node, Literal | Any | Class):
            return self.one_of(members(node, lines=self.lines))
        return _compound(node, self.write)

    def in_ascii(self, node: Literal | Class) -> characters.Ranges:
        """The same as ``members``, without the tables of all characters."""
        if isinstance(node, Literal):
            code = ord(node.character)
            return _with_cases(((code, code),)) if node.ignore_case else ((code, code),)
        named = {"d": ((48, 57),), "w": self.words, "s": ((9, 13), (32, 32))}
        sets = [
            _without(_ASCII, named[name.lower()]) if name.isupper() else named[name.lower()]
            for name in node.named
        ]
        found = characters.union(node.ranges, *sets)
        found = _with_cases(found) if node.ignore_case else found
        found = _without(_ASCII, found) if node.negated else found
        return found if self.lines else _without(found, _LINE_FEED)

    def one_of(self, ranges: characters.Ranges) -> str:
        if self.ascii_only:
            ranges = tuple((low, min(high, 127)) for low, high in ranges if low < 128)
        if not ranges:
            return "(?!)"
        if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
            return re.escape(chr(ranges[0][0]))
        return f"[{''.join(map(_range, ranges))}]"

    def assertion(self, kind: str) -> str:
        if kind == "^":
            return "(?m:^)"
        if kind == "$":
            return self.end
        if self.ascii_only:
            return rf"\{kind}" if kind == "b" else r"(?:(?<!\w)(?!\w)|(?<=\w)(?=\w))"
        word = self.one_of(self.words)
        if kind == "b":
            return f"(?:(?<={word})(?!{word})|(?<!{word})(?={word}))"
        beside = self.one_of(self.not_utf8)
        inner = f"(?:(?<={word})(?={word})|(?<!{word})(?!{word}))"
        return f"(?<!{beside})(?!{beside}){inner}"


def _with_cases(ranges: characters.Ranges) -> characters.Ranges:
    """What ASCII has of the set when case does not count: a long s and the kelvin are letters."""
    families: list[tuple[int, ...]] = [(code, code + 32) for code in range(65, 91)]
    families += [(0x17F, 83, 115), (0x212A, 75, 107)]
    families += [(83, 115, 0x17F), (75, 107, 0x212A)]
    more = [
        (other, other)
        for family in families
        if any(low <= code <= high for low, high in ranges for code in family)
        for other in family
    ]
    return characters.union(ranges, more)


def _without(ranges: characters.Ranges, others: characters.Ranges) -> characters.Ranges:
    keep = characters.complement(others)
    return tuple(
        (max(low, first), min(high, last))
        for low, high in ranges
        for first, last in keep
        if max(low, first) <= min(high, last)
    )


def _range(pair: tuple[int, int]) -> str:
    low, high = pair
    if low == high:
        return re.escape(chr(low))
    return f"{re.escape(chr(low))}-{re.escape(chr(high))}"


def _compound(node: Concatenation | Alternation | Repeat, write: Writing) -> str:
    if isinstance(node, Concatenation):
        return "".join(
            f"(?:{write(part)})" if isinstance(part, Alternation) else write(part)
            for part in node.nodes
        )
    if isinstance(node, Alternation):
        return "|".join(write(part) for part in node.nodes)
    most = "" if node.most is None else str(node.most)
    times = f"{{{node.least},{most}}}"
    return f"(?:{write(node.node)}){times}{'?' if node.lazy else ''}"
