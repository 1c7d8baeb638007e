"""Responsible for reading files of the kernel's own (proc(5), cgroups(7)).

With the extension by one call that keeps the interpreter: these files never wait for a disk, and
beside a thread that computes each system call of Python's costs the 5 ms of a thread switch.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path

__all__ = ["count", "text"]

Read = Callable[[str | os.PathLike[str]], bytes | None]
Count = Callable[[str | os.PathLike[str]], int | None]


def text(path: str | os.PathLike[str]) -> str:
    """The first 8 KiB of a file; empty for one that cannot be read."""
    return (_calls()[0](path) or b"").decode("ascii", "replace")


def count(path: str | os.PathLike[str]) -> int | None:
    """How many entries a folder has; None for one that cannot be read."""
    return _calls()[1](path)


@functools.cache
def _calls() -> tuple[Read, Count]:
    try:
        from vespera_agent_spawner import _native
    except Exception:  # not built here, broken, refused in a subinterpreter
        return _read, _count
    return _native.read_kernel_file, _native.count_kernel_entries


def _read(path: str | os.PathLike[str]) -> bytes | None:
    try:
        return Path(path).read_bytes()[:8192]
    except OSError:
        return None


def _count(path: str | os.PathLike[str]) -> int | None:
    try:
        return sum(1 for _ in os.scandir(path))
    except OSError:
        return None
