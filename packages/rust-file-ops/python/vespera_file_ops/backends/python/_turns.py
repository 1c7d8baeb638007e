"""Responsible for writers of one file that take turns: what a caller expects the file to be, and a
lock that is held from the look at it until it is replaced.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Iterator

from vespera_file_ops.backends.python._naming import naming
from vespera_file_ops.backends.python._open import open_for_reading
from vespera_file_ops.backends.python._place import Place
from vespera_file_ops.backends.python._temporary import try_lock
from vespera_file_ops.errors import ContentChanged

__all__ = ["alone", "changed", "check"]

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


def changed(path: str, reason: str) -> ContentChanged:
    """Somebody else has written the file; ``reason`` says how that was seen."""
    msg = f"{path}: {reason}; nothing was written, read it again and repeat the edit"
    return ContentChanged(msg, context={"path": path, "reason": reason})


def check(
    path: str, content: bytes, status: os.stat_result, modified_ns: int | None, sha256: str | None
) -> None:
    """``ContentChanged`` unless the file is the expected one."""
    if modified_ns is not None and modified_ns != status.st_mtime_ns:
        raise changed(path, "its time of change is not the expected one")
    if sha256 is not None and sha256 != hashlib.sha256(content).hexdigest():
        raise changed(path, "its hash is not the expected one")
