"""Responsible for many files at once: each is worked on by one of several threads, and each has an
outcome of its own, in the order in which they were given.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

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
    """The outcomes. Interrupted it sets ``stop``, and begins no more.

    Not a pool of ``concurrent.futures``: a signal that comes while the caller hands it work may
    leave one of its locks held for ever.
    """
    stopped = stop or threading.Event()
    outcomes: list[Any] = [None] * len(items)
    left = iter(range(len(items)))
    turn = threading.Lock()

    def take_part() -> None:
        while not stopped.is_set():
            with turn:
                number = next(left, None)
            if number is None:
                return
            try:
                outcomes[number] = work(items[number])
            except Exception as error:
                outcomes[number] = error

    wanted = (os.cpu_count() or 1) + 4 if threads is None else threads
    crew = [threading.Thread(target=take_part) for _ in range(min(wanted, len(items), _MOST))]
    try:
        if not _begin(crew):
            take_part()
        _wait(crew)
    except BaseException:
        stopped.set()
        # What has begun is waited for.
        _wait(crew)
        raise
    return outcomes


def _begin(crew: list[threading.Thread]) -> bool:
    """Whether there is anybody: one would only stand between the caller and the work, and where
    the system gives no threads, as at the end of the interpreter, there is none.
    """
    if len(crew) < 2:
        return False
    begun = False
    for thread in crew:
        try:
            thread.start()
        except RuntimeError:
            break
        begun = True
    return begun


def _wait(crew: list[threading.Thread]) -> None:
    for thread in crew:
        if thread.ident is not None:
            thread.join()
