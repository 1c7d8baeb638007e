"""Responsible for writers of one file that take turns: what a caller expects the file to be, and a
lock that is held from the look at it until it is written or replaced.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from vespera_file_ops.backends.python._naming import naming
from vespera_file_ops.backends.python._open import Remove, open_for_reading, open_for_writing
from vespera_file_ops.backends.python._place import Place
from vespera_file_ops.backends.python._temporary import try_lock, unlock
from vespera_file_ops.errors import ContentChanged, FileLocked

__all__ = ["alone", "alone_for_writing", "changed", "check"]


@contextlib.contextmanager
def alone(place: Place) -> Iterator[None]:
    """Hold the file while nobody else who takes turns is at work on it; ``FileLocked`` at once if
    somebody is. Who has to wait, and for how long, is for the caller to say.

    The lock is on the file itself, which may be replaced between the opening and the lock: hence a
    look whether it is still the one.
    """
    while True:
        with (
            naming(place.path),
            open_for_reading(place) as (descriptor, status),
            _locked_alone(place, descriptor, status) as now,
        ):
            if now is not None:
                yield
                return


@contextlib.contextmanager
def alone_for_writing(
    place: Place, *, append: bool
) -> Iterator[tuple[int, os.stat_result, Remove | None]]:
    """The same for writing in place: a write beside an edit would be lost when that replaces the
    file. A new file comes with what takes it away again.
    """
    while True:
        with (
            naming(place.path),
            open_for_writing(place, append=append) as (descriptor, status, remove),
            _locked_alone(place, descriptor, status) as now,
        ):
            if now is not None:
                yield descriptor, now, remove
                return


@contextlib.contextmanager
def _locked_alone(
    place: Place, descriptor: int, status: os.stat_result
) -> Iterator[os.stat_result | None]:
    """The status of the file, now that it is locked; none if it is no longer the one there."""
    if not try_lock(descriptor):
        msg = "somebody else holds a lock (flock) on it; nothing was written, try again"
        raise FileLocked(f"{place.path}: {msg}", context={"path": place.path})
    try:
        yield _still_the_one(place, status)
    finally:
        unlock(descriptor)


def _still_the_one(place: Place, status: os.stat_result) -> os.stat_result | None:
    try:
        now = place.stat()
    except FileNotFoundError:
        return None
    return now if os.path.samestat(now, status) else None


def changed(path: str, reason: str) -> ContentChanged:
    """Somebody else has written the file; ``reason`` says how that was seen."""
    msg = f"{path}: {reason}; nothing was written, read it again and repeat the edit"
    return ContentChanged(msg, context={"path": path, "reason": reason})


def check(
    path: str,
    hash_now: Callable[[], str],
    status: os.stat_result,
    modified_ns: int | None,
    sha256: str | None,
) -> None:
    """``ContentChanged`` unless the file is the expected one; the hash is made if it counts."""
    if modified_ns is not None and modified_ns != status.st_mtime_ns:
        raise changed(path, "its time of change is not the expected one")
    if sha256 is not None and sha256 != hash_now():
        raise changed(path, "its hash is not the expected one")
