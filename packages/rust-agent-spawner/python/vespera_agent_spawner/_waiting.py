"""Responsible for waiting for what others wait for too."""

from __future__ import annotations

import asyncio
from typing import TypeVar

__all__ = ["wait_for_end"]

R = TypeVar("R")


async def wait_for_end(future: asyncio.Future[R]) -> R:
    """The future's result, or what it raises. Cancelling only stops the wait.

    ``asyncio.shield`` does that too, and from Python 3.14 on reports as an error what such a future
    raises after a cancellation, although its owner hears of it.
    """
    if not future.done():
        await asyncio.wait([future])
    return future.result()
