"""A call that nobody wants any more leaves nothing that would be warned of."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import Coroutine

import pytest

from vespera_agent_spawner._calls import CallTimedOut, call


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_unwanted_calls_coroutine_is_closed(moment: str) -> None:
    """Cancelled before and after the thread's answer, which is a coroutine."""
    returned = threading.Event()

    async def later() -> None:
        await asyncio.sleep(60)

    def handler(go: threading.Event) -> Coroutine[object, object, None]:
        go.wait(20)
        returned.set()
        return later()

    async def main() -> None:
        go = threading.Event()
        task = asyncio.ensure_future(call(handler, go, deadline=30))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        if moment != "before":
            go.set()
            assert returned.wait(20)
            await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go.set()
        assert returned.wait(20)
        await asyncio.sleep(0.05)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(main())
        gc.collect()


def test_a_call_over_its_deadline_is_told_and_its_coroutine_closed() -> None:
    async def later() -> None:
        await asyncio.sleep(60)

    go = threading.Event()

    def handler() -> Coroutine[object, object, None]:
        go.wait(20)
        return later()

    async def main() -> None:
        with pytest.raises(CallTimedOut):
            await call(handler, deadline=0.05)
        go.set()
        await asyncio.sleep(0.1)

    asyncio.run(main())
    gc.collect()
