"""Responsible for calls of the queue: it waits for locks and disks, and no loop does with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

__all__ = ["off_loop", "to_the_end"]

T = TypeVar("T")


async def off_loop(call: Callable[[], T]) -> T:
    """The call's answer, from a thread."""
    return await asyncio.to_thread(call)


async def to_the_end(call: Callable[[], T]) -> T:
    """As ``off_loop``, and not to be cancelled: the caller's own end is near in any case."""
    task = asyncio.ensure_future(asyncio.to_thread(call))
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    return task.result()
