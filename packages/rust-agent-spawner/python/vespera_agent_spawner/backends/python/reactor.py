"""Responsible for the one background thread whose event loop owns every pipe of this backend.

Synchronous callers hand it coroutines and wait. The loop is asyncio's own selector loop, not the
policy's: a host that installs another kind of loop keeps it for itself.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import selectors
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from vespera_agent_spawner._logging import logger_for
from vespera_agent_spawner.backends.python.census import Census

__all__ = ["Reactor"]

_T = TypeVar("_T")
_SLICE = 0.05

_GAP = 1.0  # who is this late was stopped, and heard nobody meanwhile; seconds
_HEARTBEAT = 1.0  # so often the clock is looked at while any limit of time runs; seconds
_log = logger_for("agent_spawner.reactor")


class _Selector(selectors.DefaultSelector):
    """A selector that notices when its thread was away; ``lost`` is the sum of such gaps."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0.0
        self._woke = time.monotonic()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        asleep = time.monotonic()
        self._forgive(asleep - self._woke)
        wait = None if timeout is None else min(timeout, _HEARTBEAT)
        # A wait that a signal interrupts ends without a look once its time has passed (PEP 475),
        # but what was said meanwhile is to be heard before any limit of time is judged.
        found = super().select(wait) or super().select(0)
        self._woke = time.monotonic()
        if wait is not None:
            self._forgive(self._woke - asleep - max(wait, 0.0))
        return found

    def _forgive(self, late: float) -> None:
        if late >= _GAP:
            self.lost += late
            _log.warning("was away for %.1f s: every limit of time waits as long", late)


class _Loop(asyncio.SelectorEventLoop):
    """A loop whose clock does not count the time during which it was away (SIGSTOP, a starved
    thread): every timer waits as long."""

    def __init__(self) -> None:
        self._patience = _Selector()
        super().__init__(self._patience)

    def time(self) -> float:
        return super().time() - self._patience.lost


class Reactor:
    """An event loop in a daemon thread, started by the first use."""

    def __init__(self) -> None:
        self.loop = _Loop()
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
