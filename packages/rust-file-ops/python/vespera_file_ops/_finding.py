"""Responsible for what a walk or a search is asked for, checked once for both backends, and for the
iterator that its results come from.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Literal, Protocol, Self, TypeAlias, TypeVar

from vespera_file_ops._arguments import as_limit, as_pattern, as_whole, not_utf8
from vespera_file_ops._dialect import Alternation as _Alternation
from vespera_file_ops._dialect import Class as _Class
from vespera_file_ops._dialect import Concatenation, Node, Repeat, Tree, parse, refuse
from vespera_file_ops._dialect import Literal as _Literal
from vespera_file_ops._file_types import FILE_TYPES
from vespera_file_ops._wording import for_rust, members

__all__ = [
    "Case",
    "Found",
    "Names",
    "Query",
    "RawFinding",
    "Selection",
    "as_query",
    "as_searched",
    "as_selection",
]

T = TypeVar("T")

Case: TypeAlias = Literal["sensitive", "ignore", "smart"]
"""Whether case counts; ``"smart"``: only if the pattern has a capital letter."""

Names: TypeAlias = str | Iterable[str]
"""One pattern or name, or several."""

# As much context as a caller may ask for: it is kept in memory for every match.
_MAX_CONTEXT = 1000


@dataclass(frozen=True, slots=True)
class Selection:
    """Which names of a tree are wanted."""

    gitignore: bool
    hidden: bool
    follow: bool
    include: list[str]
    exclude: list[str]
    types: list[str]
    """Patterns of names of files."""
    max_depth: int | None
    sort: bool


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for."""

    pattern: str
    candidate: str
    """For Rust: finds lines in a text; it may find too many."""
    exact: str
    """For Rust: decides about a line without its ending."""
    tree: Tree
    """For Python."""
    word: bool
    multiline: bool
    before: int
    after: int
    max_per_file: int | None
    count: bool
    """Whether only numbers are wanted."""


def as_selection(
    *,
    gitignore: bool,
    hidden: bool,
    follow: bool,
    include: Names,
    exclude: Names,
    types: Names = (),
    max_depth: int | None = None,
    sort: bool,
) -> Selection:
    """Return what is wanted of a tree; refuse what no walk could do."""
    return Selection(
        gitignore=bool(gitignore),
        hidden=bool(hidden),
        follow=bool(follow),
        include=_patterns(include, "include"),
        exclude=_patterns(exclude, "exclude"),
        types=_globs(types),
        max_depth=as_limit(max_depth, "max_depth", 1),
        sort=bool(sort),
    )


def as_query(
    pattern: object,
    *,
    literal: bool,
    case: Case,
    word: bool,
    multiline: bool,
    before: int = 0,
    after: int = 0,
    max_per_file: int | None = None,
    count: bool = False,
) -> Query:
    """Return what is looked for; ``PatternError`` for a pattern that cannot be."""
    text = _text(pattern)
    if case not in ("sensitive", "ignore", "smart"):
        msg = f"case is {case!r}; use 'sensitive', 'ignore' or 'smart'"
        raise ValueError(msg)
    tree = parse(text, literal=literal, ignore_case=case == "ignore")
    if case == "smart" and not _has_capital(tree.node):
        tree = parse(text, literal=literal, ignore_case=True)
    if not multiline and _has_line_feed(tree.node):
        at = max(text.find("\n"), text.find("\\n"), 0)
        refuse(text, at, "asks for a line feed, which no line has; use multiline=True")
    return Query(
        pattern=text,
        candidate=for_rust(tree, word=word, end="line"),
        exact=for_rust(tree, word=word, end="line" if multiline else "text"),
        tree=tree,
        word=bool(word),
        multiline=bool(multiline),
        before=as_whole("before", before, 0, _MAX_CONTEXT),
        after=as_whole("after", after, 0, _MAX_CONTEXT),
        max_per_file=as_limit(max_per_file, "max_per_file", 1),
        count=count,
    )


def as_searched(text: object) -> bytes:
    """Return the text to search as bytes."""
    if isinstance(text, bytes):
        return text
    if isinstance(text, bytearray | memoryview):
        return bytes(text)
    if not isinstance(text, str):
        msg = f"text must be str or bytes, not {type(text).__name__}"
        raise TypeError(msg)
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise not_utf8(error, "text", "take it out, or give bytes") from error


def _names(names: object, field: str) -> list[str]:
    if isinstance(names, str):
        return [names]
    if isinstance(names, bytes) or not isinstance(names, Iterable):
        msg = (
            f"{field} must be str or several of them, not {type(names).__name__}; "
            "leave it out, or give (), for none"
        )
        raise TypeError(msg)
    return list(names)


def _patterns(patterns: Names, field: str) -> list[str]:
    return [as_pattern(pattern, field) for pattern in _names(patterns, field)]


def _globs(types: Names) -> list[str]:
    found: list[str] = []
    for name in _names(types, "types"):
        if name not in FILE_TYPES:
            near = ", ".join(known for known in FILE_TYPES if known[:1] == str(name)[:1])
            msg = f"file type {name!r} is not known; near it are: {near or 'none'}"
            raise ValueError(msg)
        found += FILE_TYPES[name]
    return found


def _text(pattern: object) -> str:
    if not isinstance(pattern, str):
        msg = f"pattern must be str, not {type(pattern).__name__}"
        raise TypeError(msg)
    try:
        pattern.encode()
    except UnicodeEncodeError as error:
        refuse(pattern, error.start, "has a character that UTF-8 cannot hold")
    return pattern


def _leaves(node: Node) -> Iterator[Node]:
    if isinstance(node, Concatenation | _Alternation):
        for part in node.nodes:
            yield from _leaves(part)
    elif isinstance(node, Repeat):
        yield from _leaves(node.node)
    else:
        yield node


def _has_capital(node: Node) -> bool:
    return any(
        leaf.character.isupper()
        if isinstance(leaf, _Literal)
        else isinstance(leaf, _Class)
        and any(chr(end).isupper() for pair in leaf.ranges for end in pair)
        for leaf in _leaves(node)
    )


def _has_line_feed(node: Node) -> bool:
    return any(_is_line_feed(leaf) for leaf in _leaves(node))


def _is_line_feed(leaf: Node) -> bool:
    """Whether it matches a line feed and nothing else."""
    if isinstance(leaf, _Literal):
        return leaf.character == "\n"
    if not isinstance(leaf, _Class):
        return False
    if not leaf.negated and not leaf.named:
        return bool(leaf.ranges) and all(pair == (10, 10) for pair in leaf.ranges)
    # Others hold more, but for one that excludes all the rest; \d, \s, \w hold more by themselves.
    excludes = leaf.negated or leaf.named.isupper()
    return excludes and members(leaf, lines=True) == ((10, 10),)


class RawFinding(Protocol[T]):
    """What a backend gives results by: lists of them, until None."""

    def next_batch(self) -> list[T] | None: ...
    def problems(self) -> tuple[list[tuple[int, str]], int]: ...
    def close(self) -> None: ...


@dataclass(slots=True)
class _Limit:
    left: int | None
    reached: bool = False


def _batches(raw: RawFinding[T], limit: _Limit) -> Generator[list[T], None, None]:
    while not limit.reached and (batch := raw.next_batch()) is not None:
        if limit.left is not None:
            limit.reached = len(batch) >= limit.left
            batch = batch[: limit.left]
            limit.left -= len(batch)
        yield batch
    raw.close()


def _results(batches: Iterator[list[T]]) -> Generator[T, None, None]:
    for batch in batches:
        yield from batch


class Found(Iterator[T], Generic[T]):
    """Results as they are found: an iterator that can be stopped.

    Results are looked for while the iterator lives, a few megabytes ahead of its consumer. The end
    of the iteration, ``close()``, the end of a ``with`` block or dropping it ends the search, its
    threads with it; after a ``break`` it goes on waiting while a variable holds it. It belongs to
    one process: in a child that was forked it raises. One thread at a time may iterate; any may
    close.
    """

    def __init__(self, raw: RawFinding[T], limit: int | None = None) -> None:
        self._raw = raw
        self._limit = _Limit(limit)
        # They know nothing of this object: in a circle none would be dropped at once.
        self._batches = _batches(raw, self._limit)
        self._results = _results(self._batches)

    def __iter__(self) -> Iterator[T]:  # noqa: PYI034
        # The generator itself: a loop over it is twice as fast as one over `__next__`.
        return self._results

    def __next__(self) -> T:
        return next(self._results)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the search; afterwards there are no more results."""
        self._raw.close()
        # Another thread may be in it: then that one ends it.
        with contextlib.suppress(ValueError):
            self._results.close()

    @property
    def limited(self) -> bool:
        """Whether it has ended because of ``limit``; there may have been no more."""
        return self._limit.reached

    @property
    def errors(self) -> list[OSError]:
        """What could not be read so far, at most the first 1,000: closed directories and files,
        lines over 64 MiB (``EFBIG``). What vanished meanwhile is no error."""
        problems, _ = self._raw.problems()
        return [OSError(number, os.strerror(number), path) for number, path in problems]

    @property
    def error_count(self) -> int:
        """How much could not be read so far."""
        return self._raw.problems()[1]
