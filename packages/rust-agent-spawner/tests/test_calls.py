"""A call leaves nothing that would be warned of, and takes no loop with it."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import warnings
from collections.abc import Callable, Coroutine

import pytest

from vespera_agent_spawner._calls import CallFailed, CallTimedOut, call


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


async def leave() -> None:
    raise SystemExit(3)


async def leave_in_a_while() -> None:
    await asyncio.sleep(0)
    raise SystemExit(3)


@pytest.mark.parametrize("function", [leave, leave_in_a_while, lambda: leave(), lambda: exit(3)])
def test_a_function_that_leaves_the_program_leaves_the_loop_alone(
    function: Callable[[], object],
) -> None:
    async def main() -> None:
        with pytest.raises(CallFailed, match=r"SystemExit\(3\)"):
            await call(function, deadline=10)

    asyncio.run(main())


def test_what_comes_after_the_deadline_counts_for_nothing() -> None:
    """Whoever stops the loop stops the clock as well."""

    async def late() -> bool:
        time.sleep(0.2)  # noqa: ASYNC251 - which it should not
        return True

    async def main() -> None:
        with pytest.raises(CallTimedOut):
            await call(late, deadline=0.05)

    asyncio.run(main())


def test_who_is_in_time_counts_although_the_loop_is_late() -> None:
    async def main() -> None:
        waiting = asyncio.ensure_future(call(lambda: True, deadline=0.2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        time.sleep(0.4)  # noqa: ASYNC251 - the host's own doing
        assert await waiting is True

    asyncio.run(main())
