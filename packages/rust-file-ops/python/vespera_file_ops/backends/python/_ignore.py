"""Responsible for ``.gitignore``: which names of a walked tree git would leave out.

git matches bytes. A name is therefore seen as its bytes, each of them one character; most names are
ASCII and the same either way.
"""

from __future__ import annotations

import os
import re
import string
from dataclasses import dataclass, field

__all__ = ["Level", "Rules", "as_bytes_seen"]


def as_bytes_seen(name: str) -> str:
    """The bytes of a name, as one character each."""
    return name if name.isascii() else os.fsencode(name).decode("latin-1")


@dataclass(slots=True)
class _Group:
    """Lines that follow each other and say the same."""

    negated: bool
    directories_only: bool
    names: set[str] = field(default_factory=set)
    suffixes: tuple[str, ...] = ()
    name_patterns: list[str] = field(default_factory=list)
    path_patterns: list[str] = field(default_factory=list)
    by_name: re.Pattern[str] | None = None
    by_path: re.Pattern[str] | None = None

    def compile(self) -> None:
        if self.name_patterns:
            self.by_name = re.compile("|".join(self.name_patterns), re.DOTALL)
        if self.path_patterns:
            self.by_path = re.compile("|".join(self.path_patterns), re.DOTALL)

    def accepts(self, path: str, name: str) -> bool:
        return bool(
            name in self.names
            or (self.suffixes and name.endswith(self.suffixes))
            or (self.by_name and self.by_name.fullmatch(name))
            or (self.by_path and self.by_path.fullmatch(path))
        )


class Rules:
    """What the lines of one file say. The last line that matches decides."""

    def __init__(self, content: bytes) -> None:
        self._groups: list[_Group] = []
        for line in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
            self._add(line.removesuffix(b"\r").decode("latin-1"))
        for group in self._groups:
            group.compile()
        self._groups.reverse()

    def __bool__(self) -> bool:
        return bool(self._groups)

    def judge(self, path: str, name: str, *, is_directory: bool) -> bool | None:
        """Ignored, taken back from being ignored, or not mentioned; both seen as bytes."""
        for group in self._groups:
            if (is_directory or not group.directories_only) and group.accepts(path, name):
                return not group.negated
        return None

    def _add(self, line: str) -> None:
        if line.startswith("#"):
            return
        pattern = _without_spaces_at_the_end(line.partition("\0")[0])
        negated = pattern.startswith("!")
        pattern = pattern[negated:]
        directories_only = pattern.endswith("/")
        pattern = pattern.removesuffix("/")
        if not pattern:
            return
        group = self._groups[-1] if self._groups else None
        if group is None or (group.negated, group.directories_only) != (negated, directories_only):
            group = _Group(negated, directories_only)
            self._groups.append(group)
        if "/" in pattern:
            expression = _expression(pattern.removeprefix("/"))
            group.path_patterns += [] if expression is None else [expression]
        elif not re.search(r"[*?\[\\]", pattern):
            group.names.add(pattern)
        elif pattern[0] == "*" and not re.search(r"[*?\[\\]", pattern[1:]):
            group.suffixes += (pattern[1:],)
        else:
            expression = _expression(pattern)
            group.name_patterns += [] if expression is None else [expression]


@dataclass(frozen=True, slots=True)
class Level:
    """The rules of one directory, and those that hold where they say nothing."""

    rules: Rules
    base: int
    """Characters of a walked path, seen as bytes, that lead to this directory."""
    prefix: str
    """The way from this directory down to where the walk starts."""
    parent: Level | None

    @staticmethod
    def below(parent: Level | None, directory: str, rules: Rules) -> Level | None:
        """The level of a directory that is walked; without any rules there is no new one."""
        if not rules:
            return parent
        base = len(as_bytes_seen(directory)) + 1 if directory else 0
        return Level(rules, base, "", parent)

    @staticmethod
    def above(parent: Level | None, prefix: str, rules: Rules) -> Level | None:
        """The level of a directory above the start, which lies ``prefix`` (``a/b/``) beneath."""
        return Level(rules, 0, as_bytes_seen(prefix), parent) if rules else parent

    def ignores(self, path: str, name: str, *, is_directory: bool) -> bool:
        """Whether git would leave out ``path`` (from the start), whose last name is ``name``."""
        path, name = as_bytes_seen(path), as_bytes_seen(name)
        level: Level | None = self
        while level is not None:
            whole = level.prefix + path[level.base :]
            opinion = level.rules.judge(whole, name, is_directory=is_directory)
            if opinion is not None:
                return opinion
            level = level.parent
        return False


def _without_spaces_at_the_end(line: str) -> str:
    """Spaces at the end count only behind a backslash."""
    end = at = 0
    while at < len(line):
        if line[at] == " ":
            at += 1
        elif line[at] == "\\":
            end = at = min(at + 2, len(line))
        else:
            end = at = at + 1
    return line[:end]


class _NeverMatches(Exception):
    """A class that is not closed, or a backslash at the end."""


def _expression(pattern: str) -> str | None:
    """A regular expression for the whole path.

    Whatever follows a ``*`` or ``**`` is matched at its first place and never tried again (atomic
    groups): a later place could not help, and some patterns would take forever.
    """
    try:
        parts = _parts(pattern)
    except _NeverMatches:
        return None
    # Names between one `**` and the next.
    runs: list[list[str]] = [[]]
    for part in parts:
        if part is None:
            runs.append([])
        else:
            runs[-1].append(part)
    first, *others = ["/".join(run) for run in runs]
    if not others:
        return first
    *middle, last = others
    whole = f"{first}/" if runs[0] else ""
    whole += "".join(f"(?>(?:[^/]+/)*?{run}/)" for run in middle)
    # At the end `**` is everything beneath, so at least one name.
    return whole + (f"(?:[^/]+/)*{last}" if runs[-1] else ".+")


def _parts(pattern: str) -> list[str | None]:
    """An expression for each name; None for ``**``."""
    found: list[str | None] = []
    tokens: list[str] = []
    at = 0
    while at <= len(pattern):
        character = pattern[at : at + 1]
        escaped = character == "\\" and pattern[at + 1 : at + 2] == "/"
        if escaped:
            at += 1
            character = "/"
        if character in ("", "/"):
            if len(tokens) > 1 and set(tokens) == {"*"}:
                if escaped:
                    # git skips `**/` where it stands for no directory, and does not see that this
                    # is the same: there is at least one.
                    found.append(_name(["*"]))
                if not found or found[-1] is not None:
                    found.append(None)
            else:
                found.append(_name(tokens))
            tokens = []
        elif character == "*":
            tokens.append("*")
        elif character == "?":
            tokens.append("[^/]")
        elif character == "[":
            inside, at = _class(pattern, at + 1)
            tokens.append(inside)
        elif character == "\\":
            at += 1
            if at >= len(pattern):
                raise _NeverMatches
            tokens.append(re.escape(pattern[at]))
        else:
            tokens.append(re.escape(character))
        at += 1
    return found


def _name(tokens: list[str]) -> str:
    runs = [""]
    for token in tokens:
        if token == "*":
            runs.append("")
        else:
            runs[-1] += token
    first, *others = runs
    if not others:
        return first
    *middle, last = others
    atomic = "".join(f"(?>[^/]*?{run})" for run in middle if run)
    return f"{first}{atomic}[^/]*{last}"


def _class(pattern: str, at: int) -> tuple[str, int]:
    """The class whose inside starts at ``at``, and where its ``]`` stands."""

    def take(position: int) -> str:
        if position >= len(pattern):
            raise _NeverMatches
        return pattern[position]

    negated = take(at) in "!^"
    at += negated
    members: set[str] = set()
    # The start of a range, if the element before can be one.
    low = ""
    first = True
    while (character := take(at)) != "]" or first:
        first = False
        if character == "\\":
            at += 1
            low = take(at)
            members.add(low)
        elif character == "-" and low and pattern[at + 1 : at + 2] not in ("", "]"):
            at += 1
            high = take(at)
            if high == "\\":
                at += 1
                high = take(at)
            members.update(map(chr, range(ord(low), ord(high) + 1)))
            low = ""
        elif character == "[" and pattern[at + 1 : at + 2] == ":":
            end = pattern.find("]", at + 2)
            if end < 0:
                raise _NeverMatches
            if end > at + 2 and pattern[end - 1] == ":":
                members |= _named(pattern[at + 2 : end - 1])
                low, at = "", end
            else:
                members.add("[")
                low = "["
        else:
            members.add(character)
            low = character
        at += 1
    if negated:
        members = set(map(chr, range(256))) - members
    members.discard("/")
    if not members:
        return "(?!)", at
    return f"[{''.join(map(re.escape, sorted(members)))}]", at


def _named(name: str) -> set[str]:
    letters, digits = string.ascii_letters, string.digits
    known = {
        "alnum": letters + digits,
        "alpha": letters,
        "blank": " \t",
        "cntrl": "".join(map(chr, (*range(32), 127))),
        "digit": digits,
        "graph": letters + digits + string.punctuation,
        "lower": string.ascii_lowercase,
        "print": letters + digits + string.punctuation + " ",
        "punct": string.punctuation,
        # git's own idea of a space.
        "space": " \t\n\r",
        "upper": string.ascii_uppercase,
        "xdigit": string.hexdigits,
    }
    if name not in known:
        raise _NeverMatches
    return set(known[name])
