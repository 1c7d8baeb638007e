"""Responsible for the event loops that users have, and for hearing what asyncio complains about."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

__all__ = ["LOOPS", "Complaints", "available", "begun", "run_on"]

LOOPS = ("asyncio", "uvloop")
_T = TypeVar("_T")


def run_on(kind: str, work: Coroutine[Any, Any, _T], *, debug: bool = False) -> _T:
    """``asyncio.run`` on a loop of this kind."""
    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if kind == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory, debug=debug) as runner:
        return runner.run(work)


def available(kind: str) -> str:
    """For a fixture: skips where this kind of loop is not installed."""
    if kind == "uvloop":
        pytest.importorskip("uvloop", reason="uvloop has no wheel for this interpreter")
    return kind


def begun(work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
    return asyncio.get_running_loop().create_task(work)


class Complaints(logging.Handler):
    """What asyncio logs when something was forgotten: a task, an exception, a generator."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(record.getMessage())

    @classmethod
    def listening(cls) -> Iterator[Complaints]:
        """For a fixture: fails the test when anything was heard."""
        heard = cls()
        logger = logging.getLogger("asyncio")
        logger.addHandler(heard)
        try:
            yield heard
            gc.collect()
        finally:
            logger.removeHandler(heard)
        # A slow machine is no complaint.
        assert [line for line in heard.heard if "took" not in line] == []
