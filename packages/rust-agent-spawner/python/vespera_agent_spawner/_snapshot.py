"""Responsible for reading what other threads change meanwhile."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

__all__ = ["snapshot"]

T = TypeVar("T")

# Nobody changes a collection so often; who does has another error than that.
_MOST_TRIES = 1000


def snapshot(shared: Iterable[T]) -> list[T]:
    """What is in it at one moment, though other threads add to it and take from it.

    A weak collection, and without a GIL also the view of a plain one, raises ``RuntimeError`` when
    it is changed while it is iterated.
    """
    for _ in range(_MOST_TRIES):
        try:
            return list(shared)
        except RuntimeError:
            continue
    return list(shared)
