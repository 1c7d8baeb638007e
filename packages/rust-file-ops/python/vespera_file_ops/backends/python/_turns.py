"""Responsible for writers of one file that take turns: what a caller expects the file to be, and a
lock that is held from the look at it until it is replaced.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator

from vespera_file_ops.backends.python._atomic import changed
from vespera_file_ops.backends.python._naming import naming
from vespera_file_ops.backends.python._open import open_for_reading
from vespera_file_ops.backends.python._place import Place
from vespera_file_ops.backends.python._temporary import try_lock

__all__ = ["alone", "check"]

# An edit takes milliseconds; a lock that is held for so long is somebody else's, and no edit.
_PATIENCE = 10.0
_PAUSE = 0.001


@contextlib.contextmanager
def alone(place: Place) -> Iterator[None]:
    """Hold the file while nobody else who takes turns is at work on it. The lock is on the file
    itself, which is replaced: who waited for it must look whether it is still the one.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        with naming(place.path), open_for_reading(place) as (descriptor, status):
            taken = try_lock(descriptor)
            if taken and os.path.samestat(place.stat(), status):
                yield
                return
            if not taken and time.monotonic() > deadline:
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if not taken:
            time.sleep(_PAUSE)


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
