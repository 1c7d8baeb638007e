"""Responsible for durations (``"1h30m"``) and sizes (``"2GiB"``) written as text.

The twin of the Rust ``units.rs``: the same grammar, and the same arithmetic operation by
operation, so that both backends read the same float. The range is checked by the caller.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["MAX_SECONDS", "MAX_SIZE", "format_size", "parse_duration", "parse_size"]

#: Longest accepted duration in seconds: about 31 years, far below where timers overflow.
MAX_SECONDS: Final = 1_000_000_000.0
#: Largest accepted size in bytes: what a signed 64-bit offset or resource limit can hold.
MAX_SIZE: Final = 2**63 - 1

# Rust has no more room than this in its 128 bits.
_MAX_DIGITS: Final = 18

# From long to short: a duration names each at most once, in this order.
_DURATION_UNITS: Final = (
    ("d", 86_400_000.0),
    ("h", 3_600_000.0),
    ("m", 60_000.0),
    ("s", 1_000.0),
    ("ms", 1.0),
)

_SIZE_UNITS: Final = {
    "b": 1,
    "kb": 1_000,
    "mb": 1_000_000,
    "gb": 1_000_000_000,
    "tb": 1_000_000_000_000,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "tib": 1 << 40,
}

_PART: Final = re.compile(r"([0-9]+)(?:\.([0-9]+))? *([A-Za-z]*) *")


def parse_duration(text: str) -> float | None:
    """Seconds in a text such as ``90``, ``250ms``, ``1.5h`` or ``1h30m``.

    ``None`` if it is not a duration.
    """
    text = text.strip(" ")
    milliseconds, position, first_unit = 0.0, 0, 0
    while part := _PART.match(text, position):
        whole, fraction, unit = part[1], part[2] or "", part[3]
        if len(whole) + len(fraction) > _MAX_DIGITS:
            return None
        value = float(f"{whole}.{fraction}" if fraction else whole)
        if not unit:
            # A bare number is seconds, but only alone: "1h30" would be a guess.
            return value if part[0] == text else None
        places = (n for n, (name, _) in enumerate(_DURATION_UNITS) if name == unit)
        place = next(places, -1)
        if place < first_unit:
            return None
        milliseconds += value * _DURATION_UNITS[place][1]
        first_unit, position = place + 1, part.end()
        if position == len(text):
            return milliseconds / 1000.0
    return None


def parse_size(text: str) -> int | None:
    """Bytes in a text such as ``1024``, ``64KiB``, ``1.5GiB`` or ``10MB``, in any case.

    A part of a byte is dropped. ``None`` if it is not a size.
    """
    part = _PART.fullmatch(text.strip(" "))
    if part is None:
        return None
    whole, fraction, unit = part[1], part[2] or "", part[3].lower()
    factor = _SIZE_UNITS.get(unit, 0 if unit or fraction else 1)
    if not factor or len(whole) + len(fraction) > _MAX_DIGITS:
        return None
    # Whole numbers throughout: a float would lose bytes above 2**53.
    return int(whole + fraction) * factor // int(10 ** len(fraction))


def format_size(size: int) -> str:
    """A size in bytes for people: ``512 B``, ``1.5 MiB``, ``20.0 GiB``."""
    for name, shift in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >> shift:
            return f"{size / (1 << shift):.1f} {name}"
    return f"{size} B"
