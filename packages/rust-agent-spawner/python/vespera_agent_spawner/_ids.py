"""Responsible for random ids without a system call for each.

``uuid.uuid4`` asks the kernel every time and gives the interpreter away for it: beside a thread
that computes, each such moment costs the 5 ms of a thread switch (``sys.getswitchinterval``).
"""

from __future__ import annotations

import os
from collections import deque

__all__ = ["random_uuid"]

_DRAWN = 128
_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

# Ids that are nobody's yet. Taking one of a deque needs no lock.
_drawn: deque[str] = deque()


def random_uuid() -> str:
    """A random UUID (RFC 9562, version 4) as text."""
    while True:
        try:
            return _drawn.popleft()
        except IndexError:
            _drawn.extend(_draw())


def _draw() -> list[str]:
    digits = os.urandom(16 * _DRAWN).hex()
    texts = (digits[at : at + 32] for at in range(0, len(digits), 32))
    return [
        f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{_VARIANTS[text[16]]}{text[17:20]}-{text[20:]}"
        for text in texts
    ]


def _forget_in_fork() -> None:
    """A forked child must not hand out the ids of its parent."""
    _drawn.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_fork)
