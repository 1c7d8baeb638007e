"""Responsible for calls in threads that an event loop waits for, and for what cancelling one means.

The pool is the package's own: the loop's default one may be full of calls that wait for a network,
and work on files would wait behind them.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from vespera_file_ops._turns import PATIENCE, NotYet, leave_the_waiting
from vespera_file_ops.errors import FileLocked

__all__ = ["run"]

R = TypeVar("R")

# More than there are processors: some calls wait for the disk.
_MOST = min(32, (os.cpu_count() or 1) + 4)

_pool: ThreadPoolExecutor | None = None


def _threads() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(_MOST, "vespera-files", initializer=leave_the_waiting)
    return _pool


def _forget() -> None:
    """A forked child has the pool's object and none of its threads."""
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


async def run(work: Callable[[], R], *, writes: bool) -> R:
    """The result of ``work``, done in a thread. Cancelled before it began, it never begins; begun,
    it is waited for if it ``writes`` and left alone if not. Where a file is locked the loop waits,
    and no thread: cancelled then, it writes nothing more.
    """
    try:
        return await _done(work, writes=writes)
    except NotYet as error:
        not_yet: NotYet[R] = error
    began = time.monotonic()
    while (waited := time.monotonic() - began) < PATIENCE:
        await asyncio.sleep(0.001 if waited < 0.02 else 0.01 if waited < 1 else 0.05)
        try:
            return await _done(not_yet.again, writes=writes)
        except FileLocked as error:
            locked = error
    return not_yet.give_up(locked, waited)


async def _done(work: Callable[[], R], *, writes: bool) -> R:
    call = _threads().submit(work)
    waiting = asyncio.wrap_future(call)
    try:
        # Cancelling what is awaited would mark a running call as cancelled, and from Python 3.14 on
        # a shield reports what a call raises of which nobody wants to hear any more.
        await asyncio.wait([waiting])
    except asyncio.CancelledError:
        if not call.cancel() and writes:
            await _ended(waiting)
        # Whatever it raises now, nobody is there to be told.
        waiting.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise
    return waiting.result()


async def _ended(waiting: asyncio.Future[R]) -> None:
    """Wait for the end, also while the caller is cancelled again: a write takes milliseconds."""
    while not waiting.done():
        try:
            await asyncio.wait([waiting])
        except asyncio.CancelledError:
            continue
