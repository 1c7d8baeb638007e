"""Responsible for random ids without a system call for each.

``uuid.uuid4`` asks the kernel every time and gives the interpreter away for it: beside a thread
that computes, each such moment costs the 5 ms of a thread switch (``sys.getswitchinterval``).
"""

from __future__ import annotations

import os
import threading

__all__ = ["random_uuid"]

_DRAWN = 4096
_VARIANTS = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}

_lock = threading.Lock()
# Hexadecimal digits that are nobody's yet, from the place on.
_drawn = ""
_place = 0


def random_uuid() -> str:
    """A random UUID (RFC 9562, version 4) as text."""
    global _drawn, _place
    with _lock:
        if _place >= len(_drawn):
            _drawn, _place = os.urandom(_DRAWN).hex(), 0
        text = _drawn[_place : _place + 32]
        _place += 32
    variant = _VARIANTS[text[16]]
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"


def _forget_in_fork() -> None:
    """A forked child must not hand out the ids of its parent; the lock may have been held."""
    global _lock, _drawn
    _lock = threading.Lock()
    _drawn = ""


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_fork)
