"""Responsible for many files at once: each is worked on by one of several threads, and each has an
outcome of its own, in the order in which they were given.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from vespera_file_ops.backends.python._hash import hash_file
from vespera_file_ops.backends.python._place import Root
from vespera_file_ops.backends.python._read import read_file
from vespera_file_ops.backends.python._rewrite import replace_file
from vespera_file_ops.backends.python._write import write_file

__all__ = ["hash_files", "read_files", "write_files"]

# Beyond this threads wait for each other more than for the disk.
_MOST = 32

_T = TypeVar("_T")
_R = TypeVar("_R")


def read_files(
    paths: list[str],
    max_bytes: int | None = None,
    threads: int | None = None,
    root: Root | None = None,
) -> list[bytes | Exception]:
    """The content of each, or its exception."""
    return _each(lambda path: read_file(path, root, max_bytes), paths, threads)


def write_files(
    items: list[tuple[str, bytes]],
    atomic: bool,
    threads: int | None = None,
    root: Root | None = None,
) -> list[Exception | None]:
    """Nothing for each that was written, or its exception."""

    def write(item: tuple[str, bytes]) -> None:
        if atomic:
            replace_file(*item, root=root)
        else:
            write_file(*item, root)

    return _each(write, items, threads)


def hash_files(
    paths: list[str], algorithm: str, threads: int | None = None, root: Root | None = None
) -> list[str | Exception]:
    """The hash of each, or its exception."""
    stop = threading.Event()
    return _each(lambda path: hash_file(path, algorithm, root, stop.is_set), paths, threads, stop)


def _each(
    work: Callable[[_T], _R],
    items: Sequence[_T],
    threads: int | None,
    stop: threading.Event | None = None,
) -> list[_R | Exception]:
    """The outcomes. Interrupted it sets ``stop``, and begins no more."""

    def outcome(item: _T) -> _R | Exception:
        try:
            return work(item)
        except Exception as error:
            return error

    wanted = (os.cpu_count() or 1) + 4 if threads is None else threads
    with ThreadPoolExecutor(max(1, min(wanted, len(items), _MOST))) as pool:
        try:
            return list(pool.map(outcome, items))
        except BaseException:
            if stop is not None:
                stop.set()
            # What has begun is waited for.
            pool.shutdown(cancel_futures=True)
            raise
