"""Responsible for the one background thread whose event loop owns every pipe of this backend.

Synchronous callers hand it coroutines and wait. The loop is asyncio's own selector loop, not the
policy's: a host that installs another kind of loop keeps it for itself.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from vespera_agent_spawner.backends.python.census import Census

__all__ = ["Reactor"]

_T = TypeVar("_T")
_SLICE = 0.05


class Reactor:
    """An event loop in a daemon thread, started by the first use."""

    def __init__(self) -> None:
        self.loop = asyncio.SelectorEventLoop()
        self.census = Census()
        self._thread = threading.Thread(target=self._run, name="vespera-reactor", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def submit(self, coroutine: Coroutine[Any, Any, _T]) -> concurrent.futures.Future[_T]:
        """Start a coroutine on the loop; the future may be waited for in any other thread."""
        if not self._thread.is_alive():
            coroutine.close()
            raise RuntimeError("the reactor thread has ended (the interpreter is exiting)")
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def wait(self, coroutine: Coroutine[Any, Any, _T], *, cancel: bool = True) -> _T:
        """Run a coroutine on the loop and wait; a KeyboardInterrupt is raised and may cancel it.

        In slices: a Ctrl-C that comes just before a thread begins to wait for a lock does not wake
        it, and the thread would sleep on until the coroutine's end.
        """
        future = self.submit(coroutine)
        try:
            while not concurrent.futures.wait([future], _SLICE).done:
                pass
            return future.result()
        except KeyboardInterrupt:
            if cancel:
                future.cancel()
            raise

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Run a function on the loop, without waiting for it."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(callback)

    def stop(self, timeout: float = 1.0) -> None:
        """Stop the loop and join the thread.

        A subinterpreter may not end while a thread of its own is still there.
        """
        if self._thread.is_alive():
            # Its workers are threads too.
            ending = self.submit(self.loop.shutdown_default_executor())
            concurrent.futures.wait([ending], timeout)
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(timeout)
        if not self._thread.is_alive() and not self.loop.is_closed():
            self.loop.close()
