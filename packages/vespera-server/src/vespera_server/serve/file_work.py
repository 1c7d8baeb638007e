"""Responsible for where file tools work: a few threads of their own, and a time limit.

A slow disk then holds up nobody who asks for an agent, and each call ends in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypeVar

from mcp.server.mcpserver import Context
from pydantic import Field

__all__ = ["FilePath", "FileWork", "WorkOf"]

T = TypeVar("T")

# Below the 60 s after which usual clients give up.
_SECONDS = 50.0
_THREADS = 4

FilePath = Annotated[
    str,
    Field(
        description="Relative to the first root, or an absolute path beneath a root.",
        min_length=1,
        max_length=4096,
        examples=["src/main.py"],
    ),
]


class FileWork:
    """The threads on which files are worked on."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="files")

    async def do(self, work: Callable[[], T]) -> T:
        """The result of ``work``; raises ``TimeoutError`` when it takes too long."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_SECONDS):
                return await loop.run_in_executor(self._threads, work)
        except TimeoutError:
            raise TimeoutError(f"it took longer than {_SECONDS:g} s; ask for less") from None

    def close(self) -> None:
        """Take no more; what is under way is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)


WorkOf = Callable[[Context[Any, Any]], FileWork]
