"""Responsible for turning the text of a glob pattern into components.

First ``{a,b}`` is written out, so that an alternative may hold slashes; then each of the plain
patterns is cut at its slashes and read. The Rust backend reads the same language in the same order,
and its messages are the same.
"""

from __future__ import annotations

import re
from typing import Final, TypeAlias

from vespera_file_ops.errors import PatternError

__all__ = ["ANY_DEPTH", "Component", "parse"]

# `**`, as a component; told apart by identity.
ANY_DEPTH: Final = re.compile(r"(?!)")

Component: TypeAlias = re.Pattern[str]

# `{a,b}{c,d}…` doubles with every group: past this a pattern is a mistake.
_MAX_ALTERNATIVES = 1024


class _Meaningless(Exception):
    """What is wrong, in words; ``parse`` adds the pattern."""


def parse(pattern: str, *, anywhere: bool = False) -> list[list[Component]]:
    """Return one list of components per alternative. None is empty, none ends in ``**``. With
    ``anywhere`` each is matched at any depth, as if ``**/`` stood before it; positions are those of
    what was written.
    """
    try:
        _check(pattern)
        before = "**/" if anywhere else ""
        return [_components(plain and before + plain) for plain in _expand(pattern)]
    except _Meaningless as error:
        reason = str(error)
        msg = f"glob pattern '{pattern}': {reason}"
        raise PatternError(msg, context={"pattern": pattern, "reason": reason}) from None


def _check(pattern: str) -> None:
    """Braces, brackets and escapes must be closed; positions are those of the whole."""
    opened: list[int] = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        if character == "\0":
            msg = "holds a NUL character, which no file name can have"
            raise _Meaningless(msg)
        if character == "{":
            opened.append(at)
        elif character == "}":
            if not opened:
                msg = f"'}}' at character {at} closes nothing; write '\\}}' for the character"
                raise _Meaningless(msg)
            opened.pop()
        at = _after(pattern, at)
    if opened:
        msg = f"'{{' at character {opened[-1]} is not closed; write '\\{{' for the character"
        raise _Meaningless(msg)


def _after(pattern: str, at: int) -> int:
    """The position after the element at ``at``: an escape or a class is one element."""
    if pattern[at] == "\\":
        if pattern[at + 1 : at + 2] in ("", "/"):
            msg = f"'\\' at character {at} escapes nothing; write '\\\\' for the character"
            raise _Meaningless(msg)
        return at + 2
    if pattern[at] == "[":
        end = _class_end(pattern, at)
        if end is None:
            msg = f"'[' at character {at} is not closed; write '\\[' for the character"
            raise _Meaningless(msg)
        return end + 1
    return at + 1


def _class_end(pattern: str, at: int) -> int | None:
    """Where the class that opens at ``at`` closes. A ``]`` right after the opening is in it."""
    start = at + 1
    if pattern[start : start + 1] in ("!", "^"):
        start += 1
    if pattern[start : start + 1] == "]":
        start += 1
    end = pattern.find("]", start)
    return None if end < 0 or "/" in pattern[start:end] else end


def _expand(pattern: str) -> list[str]:
    """Write out the braces: ``a{b,c}`` becomes ``ab`` and ``ac``."""
    pending, plain = [pattern], []
    while pending:
        following = pending.pop()
        group = _first_group(following)
        if group is None:
            plain.append(following)
            continue
        start, cuts = group
        if len(cuts) + len(plain) + len(pending) > _MAX_ALTERNATIVES:
            msg = (
                f"its braces stand for more than {_MAX_ALTERNATIVES} patterns; "
                "use '*' or several calls"
            )
            raise _Meaningless(msg)
        head, tail = following[:start], following[cuts[-1] + 1 :]
        for begin, end in zip([start, *cuts], cuts, strict=False):
            pending.append(head + following[begin + 1 : end] + tail)
    return plain


def _first_group(pattern: str) -> tuple[int, list[int]] | None:
    """The first outermost ``{``, and the places of its commas and of its ``}``."""
    depth, start, cuts = 0, 0, list[int]()
    at = 0
    while at < len(pattern):
        character = pattern[at]
        if character == "{":
            if depth == 0:
                start = at
            depth += 1
        elif character == "," and depth == 1:
            cuts.append(at)
        elif character == "}":
            depth -= 1
            if depth == 0:
                cuts.append(at)
                return start, cuts
        at = _after(pattern, at)
    return None


def _components(pattern: str) -> list[Component]:
    if not pattern:
        msg = "is empty; '*' means every file of the directory"
        raise _Meaningless(msg)
    if pattern.startswith("/"):
        msg = "starts with '/'; patterns are relative to the directory"
        raise _Meaningless(msg)
    if pattern.endswith("/"):
        msg = "ends with '/', but only files are found; add '*'"
        raise _Meaningless(msg)
    found: list[Component] = []
    for part in pattern.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            msg = "holds '..'; give the directory above instead"
            raise _Meaningless(msg)
        if part != "**":
            found.append(_name(part))
        elif not found or found[-1] is not ANY_DEPTH:
            found.append(ANY_DEPTH)
    if not found:
        msg = "names the directory itself, but only files are found; add '*'"
        raise _Meaningless(msg)
    if found[-1] is ANY_DEPTH:
        # `a/**` means every file beneath `a`.
        found.append(re.compile(".*", re.DOTALL))
    return found


def _name(part: str) -> Component:
    """One name as a regular expression.

    Each run between two stars is matched at its first place and never tried again (an atomic
    group): a later place could not help, and without it some patterns would take forever.
    """
    runs = [""]
    at = 0
    while at < len(part):
        following = _after(part, at)
        character = part[at]
        if character == "*":
            if part[following : following + 1] == "*":
                msg = "'**' must stand alone between slashes, as in 'a/**/b'"
                raise _Meaningless(msg)
            runs.append("")
        elif character == "?":
            runs[-1] += "."
        elif character == "\\":
            runs[-1] += re.escape(part[at + 1])
        elif character == "[":
            runs[-1] += _class(part[at + 1 : following - 1])
        else:
            runs[-1] += re.escape(character)
        at = following
    first, *others = runs
    if not others:
        return re.compile(first, re.DOTALL)
    *middle, last = others
    atomic = "".join(f"(?>.*?{run})" for run in middle if run)
    return re.compile(f"{first}{atomic}.*{last}", re.DOTALL)


def _class(inside: str) -> str:
    """The inside of a class. A ``-`` first or last is itself; a backslash is too."""
    negated = inside[0] in "!^"
    rest = inside[1:] if negated else inside
    ranges = ""
    while rest:
        low, high = rest[0], rest[0]
        if rest[1:2] == "-" and len(rest) > 2:
            high = rest[2]
            rest = rest[3:]
        else:
            rest = rest[1:]
        if low > high:
            msg = "a class holds a range that runs backwards"
            raise _Meaningless(msg)
        ranges += f"{re.escape(low)}-{re.escape(high)}"
    return f"[{'^' if negated else ''}{ranges}]"
