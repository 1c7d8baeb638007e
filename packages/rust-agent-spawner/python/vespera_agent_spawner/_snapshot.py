"""Responsible for reading what other threads change meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

__all__ = ["snapshot"]

T = TypeVar("T")

# Nobody changes a collection so often; who does has another error than that.
_MOST_TRIES = 1000


def snapshot(shared: Callable[[], Iterable[T]]) -> list[T]:
    """What ``shared`` gives at one moment, though other threads add to it and take from it.

    A weak collection raises ``RuntimeError`` when it is changed while it is iterated, and without a
    GIL a plain one may, too. Each try asks anew: a generator that has raised gives nothing more.
    """
    for _ in range(_MOST_TRIES):
        try:
            return list(shared())
        except RuntimeError:
            continue
    return list(shared())
