"""Responsible for the iterator of a walk or search for asyncio.

Its results come from a thread of its own: in the pool of the other calls a few searches that find
nothing for a while would leave no thread to anybody else.
"""

from __future__ import annotations

import asyncio
import atexit
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Generic, Self, TypeVar
from weakref import WeakSet

from vespera_file_ops._finding import Found
from vespera_file_ops._threads import run

__all__ = ["AsyncFound"]

T = TypeVar("T")

# As many results wait for the loop before the thread does: a crossing costs as much as some.
_AHEAD = 1024
# So long, in seconds, the interpreter waits at its end for a search to see that it is over.
_LAST_WAIT = 5.0


class AsyncFound(AsyncIterator[T], Generic[T]):
    """Results as they are found, for asyncio: an iterator that can be stopped.

    The search begins with the first result that is asked for, and what is wrong with its arguments
    is told then. The end of the iteration, ``await aclose()`` and the end of an ``async with``
    block end it; so does cancelling whoever waits for a result. Left by ``break`` outside of such
    a block it is ended when the iterator is dropped, and at the latest with the interpreter. One
    task at a time may iterate.
    """

    def __init__(self, begin: Callable[[], Found[T]]) -> None:
        self._source = _Source(begin)
        # It knows nothing of this object: in a circle neither would be dropped at once.
        self._results = _results(self._source)

    def __aiter__(self) -> AsyncIterator[T]:  # noqa: PYI034
        # The generator itself, as in `Found`.
        return self._results

    async def __anext__(self) -> T:
        return await anext(self._results)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the search; afterwards there are no more results."""
        await self._source.close()

    @property
    def limited(self) -> bool:
        """Whether it has ended because of ``limit``; there may have been no more."""
        return self._source.found is not None and self._source.found.limited

    @property
    def errors(self) -> list[OSError]:
        """What could not be read so far, as in ``Found``."""
        return [] if self._source.found is None else self._source.found.errors

    @property
    def error_count(self) -> int:
        """How much could not be read so far."""
        return 0 if self._source.found is None else self._source.found.error_count


async def _results(source: _Source[T]) -> AsyncGenerator[T, None]:
    try:
        while await source.more():
            while source.ready:
                yield source.ready.popleft()
    finally:
        await source.close()


class _Source(Generic[T]):
    """The search, and what it found that nobody took yet. A thread fills, the loop empties."""

    def __init__(self, begin: Callable[[], Found[T]]) -> None:
        self.ready: deque[T] = deque()
        self.found: Found[T] | None = None
        self._begin = begin
        self._thread: Thread | None = None
        self._filling = False
        self._over = False
        self._error: BaseException | None = None
        self._news = asyncio.Event()
        self._state = Lock()
        self._closed = False

    async def more(self) -> bool:
        """Whether there is a result, once that is known. Raises what the search raised."""
        loop = asyncio.get_running_loop()

        def tell() -> None:
            if not self._news.is_set():
                loop.call_soon_threadsafe(self._news.set)

        while not self._closed:
            # Cleared before anything is looked at, and the thread tells after it has changed
            # anything: no word is lost. It is over after the last result was put.
            self._news.clear()
            over = self._over
            if self.ready:
                return True
            if over:
                break
            if not self._filling:
                self._filling = True
                # It ends when enough is ahead, and so keeps no search that nobody wants alive. The
                # interpreter joins no daemon before `_end_all` can end what it does.
                self._thread = Thread(
                    target=self._fill, args=(tell,), name="vespera-finding", daemon=True
                )
                _pending.add(self)
                self._thread.start()
            await self._news.wait()
        if self._error is not None and not self._closed:
            raise self._error
        return False

    async def close(self) -> None:
        """End it. Also a thread that waits for the next result ends then."""
        found = self._end()
        self.ready.clear()
        self._news.set()
        if found is not None:
            await run(found.close, writes=True)

    def end_now(self) -> None:
        """End it without a loop."""
        found = self._end()
        if found is not None:
            found.close()
        if self._thread is not None:
            self._thread.join(_LAST_WAIT)

    def _end(self) -> Found[T] | None:
        with self._state:
            self._closed = True
            return self.found

    def _fill(self, tell: Callable[[], None]) -> None:
        try:
            found = self._opened()
            while len(self.ready) < _AHEAD and not self._closed:
                batch = next(found._batches, None)
                if batch is None:
                    self._over = True
                    break
                with self._state:
                    # What comes after the end would be taken by whoever iterates again.
                    if not self._closed:
                        self.ready.extend(batch)
                tell()
        except Exception as error:
            self._error = error
            self._over = True
        finally:
            self._filling = False
            tell()

    def _opened(self) -> Found[T]:
        if self.found is None:
            found = self._begin()
            with self._state:
                self.found = found
                closed = self._closed
            if closed:
                found.close()
        assert self.found is not None
        return self.found


_pending: WeakSet[_Source[Any]] = WeakSet()
"""Searches that have, or had, a thread."""


@atexit.register
def _end_all() -> None:
    """A thread that still searches when the interpreter ends must be out of it before."""
    for source in list(_pending):
        source.end_now()
