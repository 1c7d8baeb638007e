"""Responsible for calling a function of the host for an agent: where it runs, and for how long.

An async function runs on the event loop, any other in a daemon thread of its own: a pool would be
full of those that hang, and whoever leaves the loop would wait for them. Nobody waits for a call
that is over its deadline or not wanted any more, whatever it does about being cancelled; what comes
after the deadline counts for nothing.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

__all__ = ["CallFailed", "CallTimedOut", "call"]

# What a thread's function returned, what it raised in words, and when.
_Told: TypeAlias = tuple[Any, str | None, float]

# Held until they end: a loop knows its tasks only weakly.
_left: set[asyncio.Task[Any]] = set()


class CallFailed(Exception):
    """The function raised; the text says what."""


class CallTimedOut(Exception):
    """The function did not answer within its deadline."""


async def call(function: Callable[..., Any], *args: Any, deadline: float, **kwargs: Any) -> Any:
    """What the function returns; raises ``CallTimedOut`` and ``CallFailed``."""
    loop = asyncio.get_running_loop()
    bound = functools.partial(function, *args, **kwargs)
    until = time.monotonic() + deadline
    task = loop.create_task(_called(bound, not _is_async(function)))
    try:
        done, _ = await asyncio.wait({task}, timeout=deadline)
    except asyncio.CancelledError:
        _leave(task)
        raise
    if not done:
        _leave(task)
        raise CallTimedOut
    if task.cancelled():
        raise CallFailed("CancelledError()")
    error = task.exception()
    if error is not None:
        raise CallFailed(repr(error)) from error
    result, ended = task.result()
    if ended > until:
        # Whoever stops the loop stops the clock that would have told.
        raise CallTimedOut
    return result


def _leave(task: asyncio.Task[Any]) -> None:
    task.cancel()
    _left.add(task)
    task.add_done_callback(_gone)


def _gone(task: asyncio.Task[Any]) -> None:
    _left.discard(task)
    if not task.cancelled():
        # Seen: nobody is left who could be told.
        task.exception()


async def _called(bound: Callable[[], Any], threaded: bool) -> tuple[Any, float]:
    """What it returns, and when it did."""
    try:
        result, ended = await _in_thread(bound) if threaded else (bound(), time.monotonic())
        if inspect.isawaitable(result):
            result, ended = await result, time.monotonic()
    except SystemExit as error:
        # asyncio would end the host's loop with it.
        raise _Raised(repr(error)) from error
    return result, ended


def _is_async(function: Callable[..., Any]) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - an object whose call is async
    )


def _in_thread(bound: Callable[[], Any]) -> Coroutine[Any, Any, tuple[Any, float]]:
    """A thread that begins now and is waited for later."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[_Told] = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            told: _Told = (context.run(bound), None, time.monotonic())
        except BaseException as error:
            # As text: a future takes neither StopIteration nor SystemExit.
            told = (None, repr(error), time.monotonic())
        try:
            loop.call_soon_threadsafe(_tell, answer, told)
        except RuntimeError:
            # A loop that is closed waits for nobody.
            _drop(told[0])

    threading.Thread(target=work, name="vespera-handler", daemon=True).start()
    return _answered(answer)


async def _answered(answer: asyncio.Future[_Told]) -> tuple[Any, float]:
    try:
        result, failure, ended = await answer
    except asyncio.CancelledError:
        if not answer.cancelled():
            # The answer came together with the cancellation.
            _drop(answer.result()[0])
        raise
    if failure is not None:
        raise _Raised(failure)
    return result, ended


def _tell(answer: asyncio.Future[_Told], told: _Told) -> None:
    if answer.done():
        _drop(told[0])
    else:
        answer.set_result(told)


def _drop(result: Any) -> None:
    """Nobody wants it: a coroutine that is never awaited would be warned about."""
    if inspect.iscoroutine(result):
        result.close()


class _Raised(Exception):
    """What a function raised that no future or task may hold, in words."""

    def __repr__(self) -> str:
        return str(self)
