"""Responsible for showing what the caller may have meant: the lines of the file that look most like
the text that is not there.
"""

from __future__ import annotations

__all__ = ["nearest"]

# Past these a search for the nearest would cost more than it tells.
_MAX_LINES = 20
_MAX_BYTES = 4 << 20
_MAX_SHOWN = 400
# White space as Unicode and the Rust backend have it; `str.strip` also takes four separators.
_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)


def nearest(text: str, old: str) -> tuple[int, str] | None:
    """Line number (from 1) and text of the lines most like ``old``: those that share most whole
    lines with it, indentation not counted; then those whose first line begins and ends most like
    its.
    """
    wanted = [line.strip(_SPACE) for line in old.strip("\n").split("\n")[:_MAX_LINES]]
    if not wanted[0] or len(text.encode("utf-8")) > _MAX_BYTES:
        return None
    lines = text.split("\n")
    stripped = [line.strip(_SPACE) for line in lines]
    best = (0, 0)
    place = None
    for number in range(len(lines)):
        pairs = zip(wanted, stripped[number : number + len(wanted)], strict=False)
        equal = sum(1 for one, other in pairs if one and one == other)
        score = (equal, _likeness(wanted[0], stripped[number]))
        if score > best:
            best = score
            place = number
    if place is None:
        return None
    return place + 1, "\n".join(lines[place : place + len(wanted)])[:_MAX_SHOWN]


def _likeness(one: str, other: str) -> int:
    """How many characters two lines share at their beginning and, behind that, at their end."""
    start = _shared(one, other)
    return start + _shared(one[start:][::-1], other[start:][::-1])


def _shared(one: str, other: str) -> int:
    count = 0
    for mine, yours in zip(one, other, strict=False):
        if mine != yours:
            break
        count += 1
    return count
