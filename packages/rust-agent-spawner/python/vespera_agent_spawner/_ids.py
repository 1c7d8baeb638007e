"""Responsible for random ids without a system call for each.

``uuid.uuid4`` asks the kernel every time and gives the interpreter away for it: beside a thread
that computes, each such moment costs the 5 ms of a thread switch (``sys.getswitchinterval``).
"""

from __future__ import annotations

import os
import threading

__all__ = ["random_uuid"]

_DRAWN = 4096

_lock = threading.Lock()
_drawn = memoryview(b"")


def random_uuid() -> str:
    """A random UUID (RFC 9562, version 4) as text."""
    global _drawn
    with _lock:
        if not _drawn:
            _drawn = memoryview(os.urandom(_DRAWN))
        drawn, _drawn = _drawn[:16], _drawn[16:]
    text = drawn.hex()
    variant = "89ab"[int(text[16], 16) & 3]
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{variant}{text[17:20]}-{text[20:]}"


def _forget_in_fork() -> None:
    """A forked child must not hand out the ids of its parent; the lock may have been held."""
    global _lock, _drawn
    _lock = threading.Lock()
    _drawn = memoryview(b"")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_fork)
