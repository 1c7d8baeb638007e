"""Responsible for the language of search patterns: what Rust's ``regex`` and Python's ``re`` both
can say, read once, so that a pattern means the same on both backends or is refused on both.

``parse`` turns a pattern into a tree; ``_wording`` writes the tree out for either engine.
Everything with a Unicode table behind it (``\\w``, case) is written out from the tree, as the two
engines disagree there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NoReturn, TypeAlias

from vespera_file_ops.errors import PatternError

__all__ = [
    "Alternation",
    "Any",
    "Assertion",
    "Class",
    "Concatenation",
    "Literal",
    "Node",
    "Repeat",
    "Tree",
    "parse",
]

# What one pattern may come to when its repetitions are written out.
_MAX_SIZE = 20_000
_MAX_REPEAT = 1000
_MAX_DEPTH = 50
# Roughly, as the automaton of a class of thousands of characters is larger than that of one.
_CLASS_SIZE = 20


@dataclass(frozen=True, slots=True)
class Literal:
    """One character."""

    character: str
    ignore_case: bool


@dataclass(frozen=True, slots=True)
class Any:
    """Any character; a line feed only if ``lines``."""

    lines: bool


@dataclass(frozen=True, slots=True)
class Class:
    """One of several characters: inclusive ranges, and ``d``, ``w``, ``s`` or their capitals."""

    negated: bool
    ranges: tuple[tuple[int, int], ...]
    named: str
    ignore_case: bool


@dataclass(frozen=True, slots=True)
class Assertion:
    """``^``, ``$``, ``b`` or ``B``."""

    kind: str


@dataclass(frozen=True, slots=True)
class Concatenation:
    """One after the other."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Alternation:
    """The first that leads to a match."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """Again and again; ``most`` None: without end."""

    node: Node
    least: int
    most: int | None
    lazy: bool


Node: TypeAlias = Literal | Any | Class | Assertion | Concatenation | Alternation | Repeat


@dataclass(frozen=True, slots=True)
class Tree:
    """A pattern that was read."""

    pattern: str
    node: Node
    nullable: bool
    """Whether it can match nothing at all, so that every line matches."""


@dataclass(slots=True)
class _Flags:
    ignore_case: bool
    dot_all: bool


def parse(pattern: str, *, literal: bool, ignore_case: bool) -> Tree:
    """Read ``pattern``; ``PatternError`` says where and why it cannot be."""
    node: Node
    if literal:
        node = Concatenation(tuple(Literal(character, ignore_case) for character in pattern))
    else:
        node = _Parser(pattern, _Flags(ignore_case, dot_all=False)).whole()
    if not pattern:
        refuse(pattern, 0, "is empty; give something to look for")
    return Tree(pattern, node, nullable(node))


def refuse(pattern: str, position: int, reason: str) -> NoReturn:
    """Raise the ``PatternError`` for this place in the pattern."""
    where = f"at character {position}: {reason}"
    msg = f"search pattern {pattern!r} {where}"
    context = {"pattern": pattern, "position": position, "reason": reason}
    raise PatternError(msg, context=context)


def nullable(node: Node) -> bool:
    """Whether the node can match without taking a character."""
    if isinstance(node, Concatenation):
        return all(nullable(part) for part in node.nodes)
    if isinstance(node, Alternation):
        return any(nullable(part) for part in node.nodes)
    if isinstance(node, Repeat):
        return node.least == 0 or nullable(node.node)
    return isinstance(node, Assertion)


def _size(node: Node) -> int:
    if isinstance(node, Concatenation | Alternation):
        return 1 + sum(_size(part) for part in node.nodes)
    if isinstance(node, Repeat):
        times = node.most if node.most is not None else node.least + 1
        return 1 + max(times, 1) * _size(node.node)
    return _CLASS_SIZE if isinstance(node, Class | Any) else 1


_ESCAPED = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "a": "\a"}
_HEXADECIMAL = {"x": 2, "u": 4, "U": 8}
_POSIX: dict[str, tuple[tuple[int, int], ...]] = {
    "alnum": ((48, 57), (65, 90), (97, 122)),
    "alpha": ((65, 90), (97, 122)),
    "ascii": ((0, 127),),
    "blank": ((9, 9), (32, 32)),
    "cntrl": ((0, 31), (127, 127)),
    "digit": ((48, 57),),
    "graph": ((33, 126),),
    "lower": ((97, 122),),
    "print": ((32, 126),),
    "punct": ((33, 47), (58, 64), (91, 96), (123, 126)),
    "space": ((9, 13), (32, 32)),
    "upper": ((65, 90),),
    "word": ((48, 57), (65, 90), (95, 95), (97, 122)),
    "xdigit": ((48, 57), (65, 70), (97, 102)),
}
_OTHER_ESCAPES = {
    "A": "use '^' for the start of a line",
    "z": "use '$' for the end of a line",
    "Z": "use '$' for the end of a line",
    "<": "use '\\b' for the border of a word, or '<' itself",
    ">": "use '\\b' for the border of a word, or '>' itself",
    "p": "Unicode properties are not in the common language; use '\\w' or a class",
    "P": "Unicode properties are not in the common language; use '\\W' or a class",
    "0": "write '\\x00' for the character NUL",
}
_OTHER_GROUPS = (
    ("?=", "looking ahead is not possible, as a search takes linear time"),
    ("?!", "looking ahead is not possible, as a search takes linear time"),
    ("?<=", "looking behind is not possible, as a search takes linear time"),
    ("?<!", "looking behind is not possible, as a search takes linear time"),
    ("?>", "atomic groups are not in the common language; use '(?:'"),
    ("?#", "comments are not in the common language; leave it out"),
    ("?P=", "references back are not possible, as a search takes linear time"),
    ("?(", "conditions are not in the common language; use alternatives"),
)


@dataclass(slots=True)
class _Parser:
    pattern: str
    flags: _Flags
    at: int = 0
    depth: int = 0
    names: set[str] = field(default_factory=set)

    def whole(self) -> Node:
        node = self.alternatives()
        if self.at < len(self.pattern):
            self.refuse("')' closes nothing; write '\\)' for the character")
        if _size(node) > _MAX_SIZE:
            refuse(self.pattern, 0, "its repetitions come to too much; use smaller numbers")
        return node

    def refuse(self, reason: str, at: int | None = None) -> NoReturn:
        refuse(self.pattern, self.at if at is None else at, reason)

    def peek(self, text: str) -> bool:
        return self.pattern.startswith(text, self.at)

    def alternatives(self) -> Node:
        before = _Flags(self.flags.ignore_case, self.flags.dot_all)
        found = [self.sequence()]
        while self.peek("|"):
            self.at += 1
            found.append(self.sequence())
        # Flags that are set within a group end with it.
        self.flags = before
        return found[0] if len(found) == 1 else Alternation(tuple(found))

    def sequence(self) -> Node:
        found: list[Node] = []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            start = self.at
            node = self.atom()
            if node is not None:
                found.append(self.repeated(node, start))
        return found[0] if len(found) == 1 else Concatenation(tuple(found))

    def atom(self) -> Node | None:
        character = self.pattern[self.at]
        if character == "(":
            return self.group()
        if character == "[":
            return self.character_class()
        if character == "\\":
            return self.escape()
        if character in "*+?" or self.counter() is not None:
            self.refuse(f"{character!r} repeats nothing; write '\\{character}' for the character")
        self.at += 1
        if character == ".":
            return Any(self.flags.dot_all)
        if character in "^$":
            return Assertion(character)
        return Literal(character, self.flags.ignore_case)

    def group(self) -> Node | None:
        start = self.at
        for text, reason in _OTHER_GROUPS:
            if self.peek(f"({text}"):
                self.refuse(reason)
        before = _Flags(self.flags.ignore_case, self.flags.dot_all)
        self.at += 1
        if self.peek("?P<") or self.peek("?<"):
            self.name()
        elif self.peek("?:"):
            self.at += 2
        elif self.peek("?") and self.set_flags():
            return None
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            self.refuse(f"more than {_MAX_DEPTH} groups in each other; use fewer", start)
        node = self.alternatives()
        self.depth -= 1
        if not self.peek(")"):
            self.refuse("'(' is not closed; write '\\(' for the character", start)
        self.at += 1
        self.flags = before
        # A group by itself: what follows repeats all of it.
        return Concatenation((node,))

    def name(self) -> None:
        start = self.at
        begin = self.pattern.index("<", self.at) + 1
        end = self.pattern.find(">", begin)
        name = self.pattern[begin:end] if end >= 0 else ""
        if not (name.isascii() and name.isidentifier()) or name in self.names:
            self.refuse("a group needs a name of its own: letters, digits and '_'", start)
        self.names.add(name)
        self.at = end + 1

    def set_flags(self) -> bool:
        """Read ``?i)`` or ``?i-s:``; whether it was all of the group."""
        start = self.at
        self.at += 1
        on = True
        flags = _Flags(self.flags.ignore_case, self.flags.dot_all)
        while self.at < len(self.pattern) and self.pattern[self.at] not in ":)":
            character = self.pattern[self.at]
            if character == "-":
                on = False
            elif character == "i":
                flags.ignore_case = on
            elif character == "s":
                flags.dot_all = on
            elif not (character == "m" and on):
                self.refuse(f"flag {character!r} is not in the common language; use i or s")
            self.at += 1
        if self.at >= len(self.pattern) or self.at == start + 1:
            self.refuse("'(' is not closed; write '\\(' for the character", start - 1)
        self.flags = flags
        alone = self.pattern[self.at] == ")"
        self.at += 1
        return alone

    def escape(self) -> Node:
        start = self.at
        following = self.pattern[self.at + 1 : self.at + 2]
        if following and following in "dDwWsS":
            self.at += 2
            return Class(False, (), following, self.flags.ignore_case)
        if following and following in "bB":
            self.at += 2
            if self.peek("{"):
                self.refuse("'\\b{' is not in the common language; use '\\b'", start)
            return Assertion(following)
        return Literal(self.escaped(), self.flags.ignore_case)

    def escaped(self) -> str:
        """The character that an escape stands for."""
        start = self.at
        following = self.pattern[self.at + 1 : self.at + 2]
        self.at += 2
        if following in _HEXADECIMAL:
            return self.hexadecimal(_HEXADECIMAL[following], start)
        if following in _ESCAPED:
            return _ESCAPED[following]
        if not following:
            self.refuse("'\\' escapes nothing; write '\\\\' for the character", start)
        if following in _OTHER_ESCAPES:
            self.refuse(_OTHER_ESCAPES[following], start)
        if following.isdigit() or following == "k":
            self.refuse("references back are not possible, as a search takes linear time", start)
        if following.isascii() and not following.isalnum() and following.isprintable():
            return following
        reason = f"'\\{following}' means nothing; write {following!r} for the character"
        return self.refuse(reason, start)

    def hexadecimal(self, digits: int, start: int) -> str:
        if self.peek("{"):
            end = self.pattern.find("}", self.at)
            text = self.pattern[self.at + 1 : end] if end >= 0 else ""
            self.at = end + 1
        else:
            text = self.pattern[self.at : self.at + digits]
            self.at += digits
            if len(text) != digits:
                text = ""
        try:
            if not text.isalnum():
                raise ValueError
            character = chr(int(text, 16))
            character.encode()
        except (ValueError, OverflowError):
            self.refuse("no character has this hexadecimal number", start)
        return character

    def character_class(self) -> Node:
        start = self.at
        self.at += 1
        negated = self.peek("^")
        self.at += negated
        ranges: list[tuple[int, int]] = []
        named = ""
        first = True
        while first or not self.peek("]"):
            if self.at >= len(self.pattern):
                self.refuse("'[' is not closed; write '\\[' for the character", start)
            first = False
            if self.peek("[:"):
                ranges += self.posix()
                continue
            name, low = self.member()
            if name:
                named += name
                continue
            high = low
            if self.peek("-") and self.pattern[self.at + 1 : self.at + 2] not in ("]", ""):
                at = self.at
                self.at += 1
                name, high = self.member()
                if name or high < low:
                    self.refuse("a range must go from a character to a later one", at)
            ranges.append((low, high))
        self.at += 1
        return Class(negated, tuple(ranges), named, self.flags.ignore_case)

    def member(self) -> tuple[str, int]:
        """The name of a class, or one character."""
        character = self.pattern[self.at]
        for operator in ("&&", "--", "~~"):
            if self.peek(operator):
                self.refuse(f"{operator!r} is an operation in Rust; write '\\{operator[0]}'")
        if character == "[":
            self.refuse("'[' in a class must be escaped: write '\\['")
        if character != "\\":
            self.at += 1
            return "", ord(character)
        following = self.pattern[self.at + 1 : self.at + 2]
        if following and following in "dDwWsS":
            self.at += 2
            return following, 0
        if following and following in "bB":
            self.refuse("a border of a word cannot be in a class")
        return "", ord(self.escaped())

    def posix(self) -> tuple[tuple[int, int], ...]:
        end = self.pattern.find(":]", self.at)
        name = self.pattern[self.at + 2 : end] if end >= 0 else ""
        if name not in _POSIX:
            self.refuse("'[:' must begin a class such as [:alpha:]; write '\\[' for the character")
        self.at = end + 2
        return _POSIX[name]

    def repeated(self, node: Node, start: int) -> Node:
        at = self.at
        counter = self.counter()
        if counter is None:
            return node
        least, most, self.at = counter
        if isinstance(node, Assertion) or (most != 1 and nullable(node)):
            self.refuse("this repeats what may be empty; repeat something that is not", at)
        if most is not None and least > most:
            self.refuse("a repetition must go from a number to a larger one", at)
        if max(least, most or 0) > _MAX_REPEAT:
            self.refuse(f"more than {_MAX_REPEAT} times is too much; use '*' or '+'", at)
        lazy = self.peek("?")
        self.at += lazy
        if self.counter() is not None:
            self.refuse("a repetition of a repetition needs a group: (?:…)")
        return Repeat(node, least, most, lazy)

    def counter(self) -> tuple[int, int | None, int] | None:
        """How often, and where that ends. A brace that is no counter is a character."""
        if self.at >= len(self.pattern):
            return None
        character = self.pattern[self.at]
        if character in "*+?":
            least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[character]
            return least, most, self.at + 1
        if character != "{":
            return None
        end = self.pattern.find("}", self.at)
        text = self.pattern[self.at + 1 : end] if end >= 0 else ""
        low, comma, high = text.partition(",")
        if not low and comma and high.isdecimal() and high.isascii():
            self.refuse(f"write '{{0,{high}}}', as '{{,{high}}}' is not in the common language")
        if not (low.isdecimal() and text.isascii()) or (high and not high.isdecimal()):
            return None
        if len(low) > 9 or len(high) > 9:
            self.refuse(f"more than {_MAX_REPEAT} times is too much; use '*' or '+'")
        if not comma:
            return int(low), int(low), end + 1
        return int(low), int(high) if high else None, end + 1
