"""Responsible for waiting until a file that somebody else has locked may be written.

A backend says at once that it is not yet one's turn, and waits for nothing. A synchronous call
waits here, between tries, where a signal interrupts it; the threads of an event loop do not wait at
all, as those that only read would have none left: there the loop waits, see ``_threads``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from vespera_file_ops.errors import FileLocked

__all__ = ["PATIENCE", "NotYet", "in_turn", "leave_the_waiting", "still_locked"]

R = TypeVar("R")

PATIENCE = 10.0
"""Seconds. An edit takes milliseconds; who holds the lock for so long is at other work."""


class _Thread(threading.local):
    waits = True


_thread = _Thread()


def leave_the_waiting() -> None:
    """From now on this thread raises ``NotYet`` instead of waiting."""
    _thread.waits = False


class NotYet(Exception, Generic[R]):
    """A call whose turn has not come. ``again`` tries once more, raising ``FileLocked``; who gives
    up has the result of ``give_up``, given that error and the seconds that were waited.
    """

    def __init__(self, again: Callable[[], R], give_up: Callable[[FileLocked, float], R]) -> None:
        super().__init__()
        self.again = again
        self.give_up = give_up


def still_locked(error: FileLocked, waited: float) -> FileLocked:
    """The error of a call that has waited long enough."""
    path = error.context.get("path")
    msg = (
        f"{path}: another process, or thread, holds a lock (flock) on it and kept it for the "
        f"{waited:.1f} s that were waited; nothing was written. End what holds it (lslocks names "
        "it), or try again later"
    )
    return FileLocked(msg, context={"path": path, "waited_seconds": round(waited, 3)})


def _refuse(error: FileLocked, waited: float) -> Any:
    raise still_locked(error, waited) from None


def in_turn(call: Callable[[], R], give_up: Callable[[FileLocked, float], R] = _refuse) -> R:
    """The result of ``call``, tried again for as long as it is ``FileLocked``."""
    try:
        return call()
    except FileLocked as error:
        locked = error
    if not _thread.waits:
        raise NotYet(call, give_up)
    began = time.monotonic()
    while (waited := time.monotonic() - began) < PATIENCE:
        # Who edits in a loop leaves a gap of microseconds: rarer tries would never hit it.
        time.sleep(0.0002 if waited < 0.02 else 0.001 if waited < 1 else 0.005)
        try:
            return call()
        except FileLocked as error:
            locked = error
    return give_up(locked, waited)
