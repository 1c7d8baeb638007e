"""Responsible for an owner's event loop as the place where its agents live.

Nobody tells when a loop is closed, and then nobody serves its agents any more. So a reader that is
never called waits there: the loop lets go of it when it closes, and that is the news.
"""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from vespera_agent_spawner.backends.python.burial import bury
from vespera_agent_spawner.backends.python.census import Census

if TYPE_CHECKING:
    from vespera_agent_spawner.backends.python.conversation import Conversation

__all__ = ["OwnerLoop", "begin"]


class OwnerLoop:
    """One per loop that has had agents."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.census = Census()
        self.living: set[Conversation] = set()
        # Weak: an idle loop that its owner drops may go, and this with it.
        self._loop = weakref.ref(loop)
        read_end, write_end = os.pipe()
        reader = _Reader()
        loop.add_reader(read_end, reader.ring)
        self._descriptors = (read_end, write_end)
        self._closing = weakref.finalize(reader, _closed, self.living, self._descriptors)
        self._closing.atexit = False

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The loop, while somebody holds it."""
        return self._loop()

    def forget_in_fork(self) -> None:
        """In a forked child: closing its copy of the loop ends nobody."""
        if self._closing.detach() is not None:
            for descriptor in self._descriptors:
                os.close(descriptor)


class _Reader:
    """Held by the loop alone."""

    def ring(self) -> None:
        """Never called: nobody writes."""


def _closed(living: set[Conversation], descriptors: tuple[int, int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
    bury(tuple(living), 0.0)


def begin(
    loop: asyncio.AbstractEventLoop, tasks: set[asyncio.Task[Any]], work: Coroutine[Any, Any, Any]
) -> asyncio.Task[Any]:
    """A task of ours on somebody's loop, held by ``tasks`` while it runs."""
    task = loop.create_task(work)
    # A loop may be closed over it; its agent is buried then, and there is nothing to complain of.
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task
