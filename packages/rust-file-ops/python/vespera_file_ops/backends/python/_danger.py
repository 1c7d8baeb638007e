"""Responsible for telling which patterns ``re`` may be given, and for how long a text: it tries one
way after the other, and here the ways are counted that a text could make it try.

Two things multiply them. A repetition of up to any number can end at every character it has taken,
so the ways grow with a power of the length. Alternatives, optional parts and repetitions of few
numbers do so by a factor each, whatever the length. They do not where the next characters leave
only one of them, as after ``\\d{1,3}`` and before a dot, nor where what is behind can be nothing:
then the first way ends in a match.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from vespera_file_ops._characters import Ranges, has
from vespera_file_ops._dialect import (
    Alternation,
    Any,
    Assertion,
    Class,
    Concatenation,
    Literal,
    Node,
    Repeat,
)
from vespera_file_ops._wording import members

__all__ = ["Danger", "danger"]

# A repetition with a choice of so many numbers counts as one without end.
_MANY = 8
# How long a text may be for `re`, by the number of repetitions that can take part of it each.
_LENGTHS = {1: 4096, 2: 512, 3: 200, 4: 100}
# With more of them, as long as there are no more ways than this to share a text among them.
_WAYS = 10**8
# With a choice of so many ways `re` is no slower than the automaton, however long the text is.
_FREE_CHOICES = 256
# With more of them, the length of the text times their number.
_CHOICES_AND_LENGTH = 1 << 20
# So few are not worth looking closer, for which tables of characters are needed.
_FEW_CHOICES = 16
# No need to count further.
_TOO_MANY = 1 << 30
# So many characters are compared to tell what can follow.
_FAR = 16
# Stands for what is not known: it begins with anything, and may fail.
_UNKNOWN: tuple[Node, ...] = (Alternation(()),)


@dataclass(frozen=True, slots=True)
class Danger:
    """What a pattern can do to ``re``."""

    longest: int | None
    """How many characters of text ``re`` may have, None: any number."""
    across_lines: bool
    """Whether one of the repetitions can take a line feed."""

    def allows(self, length: int) -> bool:
        """Whether ``re`` may have a text of this length."""
        return self.longest is None or length <= self.longest


def danger(node: Node, *, lines: bool, word: bool = False) -> Danger:
    """What the pattern can do, which sees line feeds (``lines``) and must end where a word does
    (``word``)."""
    loops = list(_loops(node))
    if not all(_one_way(loop.node) for loop in loops):
        # Every turn doubles the ways.
        return Danger(0, across_lines=lines)
    end = _UNKNOWN if word else ()
    counting = _Counting(lines=lines, close=False)
    choices = counting.choices(node, end)
    if choices > (_FEW_CHOICES if loops else _FREE_CHOICES):
        choices = _Counting(lines=lines, close=True).choices(node, end)
    return Danger(
        _longest(counting.repetitions(node, end, 1), choices),
        across_lines=lines and any(_takes_line_feed(loop.node) for loop in loops),
    )


def _longest(repetitions: int, choices: int) -> int | None:
    if not repetitions:
        return None if choices <= _FREE_CHOICES else _CHOICES_AND_LENGTH // choices
    # The power of the length that the time grows with: a match is looked for at every place.
    power = repetitions + 1
    length = _LENGTHS.get(repetitions, 100)
    while repetitions not in _LENGTHS and math.comb(length + power, power) > _WAYS:
        length -= 1
    return int(length / choices ** (1 / power))


def _loops(node: Node) -> Iterator[Repeat]:
    if isinstance(node, Concatenation | Alternation):
        for part in node.nodes:
            yield from _loops(part)
    elif isinstance(node, Repeat):
        if _is_loop(node):
            yield node
        yield from _loops(node.node)


def _is_loop(node: Repeat) -> bool:
    return node.most is None or node.most - node.least >= _MANY


def _one_way(node: Node) -> bool:
    """Whether a text is matched by this in one way at most, seen coarsely: it has no choice."""
    if isinstance(node, Concatenation):
        return all(_one_way(part) for part in node.nodes)
    return not isinstance(node, Alternation | Repeat) or (
        isinstance(node, Repeat) and node.least == node.most and _one_way(node.node)
    )


def _takes_line_feed(node: Node) -> bool:
    if isinstance(node, Concatenation | Alternation):
        return any(_takes_line_feed(part) for part in node.nodes)
    if isinstance(node, Repeat):
        return _takes_line_feed(node.node)
    if isinstance(node, Assertion):
        return False
    return has(members(node, lines=True), 10)


_Character: TypeAlias = Literal | Any | Class
_Branch: TypeAlias = tuple[int, Sequence[_Character]]
"""In how many ways it goes on, and the characters that it must begin with."""


class _Counting:
    """Counts ways, ``close``: with a look at the characters that tell one from the other.

    ``following`` are the nodes behind the one that is looked at, to the end of the pattern or to
    ``_UNKNOWN``.
    """

    def __init__(self, *, lines: bool, close: bool) -> None:
        self._lines = lines
        self._close = close

    def choices(self, node: Node, following: tuple[Node, ...]) -> int:
        """In how many ways a node can match from one place on, its loops not counted."""
        if isinstance(node, Concatenation):
            parts = _with_following(node, following)
            return _few(math.prod(_capped(self.choices(*part) for part in parts)))
        if isinstance(node, Alternation):
            ways = [self.choices(part, following) for part in node.nodes]
            if _cannot_fail(following):
                return max(ways)
            if not self._close:
                return _few(sum(ways))
            branches = [
                (count, _beginning((part, *following)))
                for count, part in zip(ways, node.nodes, strict=True)
            ]
            return _few(_most(branches, 0, lines=self._lines))
        if not isinstance(node, Repeat) or node.most is None or _is_loop(node):
            return 1
        ways_each = self.choices(node.node, following if node.most == 1 else _UNKNOWN)
        ways_all = _few(ways_each**node.most)
        if node.least == node.most or _cannot_fail(following):
            return ways_all
        if self._close and self._ends_by_itself(node, following):
            return ways_all
        return _few(ways_all * (node.most - node.least + 1))

    def repetitions(self, node: Node, following: tuple[Node, ...], times: int) -> int:
        """How many loops can share a text, if all of this is repeated that many times."""
        if isinstance(node, Concatenation):
            parts = _with_following(node, following)
            return _few(sum(self.repetitions(*part, times) for part in parts))
        if isinstance(node, Alternation):
            return _few(sum(self.repetitions(part, following, times) for part in node.nodes))
        if not isinstance(node, Repeat):
            return 0
        if _is_loop(node):
            return 1 if times == 1 or self._ends_by_itself(node, following) else times
        inner = following if node.most == 1 else _UNKNOWN
        return self.repetitions(node.node, inner, times * (node.most or 1))

    def _ends_by_itself(self, node: Repeat, following: tuple[Node, ...]) -> bool:
        """Whether the next characters tell if it goes on."""
        branches = [(1, _beginning((node.node,))), (1, _beginning(following))]
        return _most(branches, 0, lines=self._lines) == 1


def _with_following(
    node: Concatenation, following: tuple[Node, ...]
) -> Iterator[tuple[Node, tuple[Node, ...]]]:
    """Its parts that may have a choice, each with what is behind it."""
    for at, part in enumerate(node.nodes):
        if isinstance(part, Concatenation | Alternation | Repeat):
            behind = (*node.nodes[at + 1 : at + 2 + _FAR], *following)
            yield part, behind if len(behind) <= _FAR else (*behind[:_FAR], *_UNKNOWN)


def _cannot_fail(nodes: Iterable[Node]) -> bool:
    """Whether the nodes, one after the other, match at every place."""
    return all(map(_always, nodes))


def _always(node: Node) -> bool:
    if isinstance(node, Concatenation):
        return _cannot_fail(node.nodes)
    if isinstance(node, Alternation):
        return any(map(_always, node.nodes))
    return isinstance(node, Repeat) and (node.least == 0 or _always(node.node))


def _few(number: int) -> int:
    return min(number, _TOO_MANY)


def _capped(numbers: Iterable[int]) -> Iterator[int]:
    """Numbers up to where their product is too large already."""
    product = 1
    for number in numbers:
        yield number
        product *= number
        if product >= _TOO_MANY:
            return


def _beginning(nodes: Iterable[Node]) -> Sequence[_Character]:
    """The characters with which the nodes, one after the other, must begin, as far as is known."""
    found: list[_Character] = []
    _begin(nodes, found)
    return found


def _begin(nodes: Iterable[Node], found: list[_Character]) -> bool:
    """Add them; whether what comes next is known, too."""
    for node in nodes:
        if len(found) >= _FAR:
            return False
        if isinstance(node, Literal | Any | Class):
            found.append(node)
        elif isinstance(node, Concatenation):
            if not _begin(node.nodes, found):
                return False
        elif isinstance(node, Repeat):
            times = min(node.least, _FAR)
            if not all(_begin((node.node,), found) for _ in range(times)):
                return False
            if node.least != node.most:
                return False
        elif isinstance(node, Alternation):
            return False
    return True


def _most(branches: Sequence[_Branch], at: int, *, lines: bool) -> int:
    """In how many ways all branches together go on at most, if they are alike up to ``at``."""
    known = [branch for branch in branches if at < len(branch[1])]
    others = sum(count for count, beginning in branches if at >= len(beginning))
    if len(known) < 2:
        return others + sum(count for count, _ in known)
    alike = _alike([members(beginning[at], lines=lines) for _, beginning in known])
    groups = ([known[index] for index in group] for group in alike)
    return others + max(_most(group, at + 1, lines=lines) for group in groups)


def _alike(sets: Sequence[Ranges]) -> Iterable[list[int]]:
    """The numbers of the sets, together where they share characters, also through another one."""
    parent = list(range(len(sets)))

    def top(index: int) -> int:
        while parent[index] != index:
            index = parent[index]
        return index

    pairs = sorted((low, high, index) for index, each in enumerate(sets) for low, high in each)
    last, owner = -1, 0
    for low, high, index in pairs:
        if low <= last:
            parent[top(index)] = top(owner)
        if high > last:
            last, owner = high, index
    groups: dict[int, list[int]] = {}
    for index in range(len(sets)):
        groups.setdefault(top(index), []).append(index)
    return groups.values()
